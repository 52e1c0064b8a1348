"""An object through several transforms, one after the other: in reads and batches, on a real store."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import urllib3

from aistore import Client
from aistore.testing import StoreProcess
from aistore.wire.batch import read_frames

SIZE = 3_000_000  # above what is copied out of a result at once
#: name -> communication type and code
CODES = {
    "reverse-it": ("hpush://", "def transform(data):\n    return data[::-1]\n"),
    "shout-it": ("io://", "import sys\nsys.stdout.write(sys.stdin.read().upper())\n"),
    "add-args": (
        "hpush://",
        "def transform(data, path, etl_args):\n    return data + f'|{path} {etl_args}'.encode()\n",
    ),
    "refuse-it": ("hpush://", "def transform(data):\n    raise ValueError('refused ' + data.decode())\n"),
    "nothing-it": ("hpush://", "def transform(data):\n    return b''\n"),
    "write-it": ("hpush://", "import os\ndef transform(data):\n    os.write(0, b'x')\n    return data\n"),
}


@pytest.fixture(scope="module")
def client(store: StoreProcess) -> Iterator[Client]:
    with Client(store.endpoint) as client, ExitStack() as removed:
        for name, (communication, code) in CODES.items():
            client.etl(name).init_code(code, comm_type=communication, workers=2)
            removed.callback(client.etl(name).delete)
        yield client


@pytest.fixture(scope="module")
def bucket(client: Client) -> str:
    bucket = client.bucket(f"b-{uuid.uuid4().hex[:12]}").create()
    for name, data in (("small", b"abc"), ("empty", b""), ("large", b"abc" * (SIZE // 3))):
        bucket.object(name).put(data)
    return bucket.name


@pytest.fixture(scope="module")
def get(client: Client, store: StoreProcess, bucket: str) -> Iterator[Callable[..., urllib3.BaseHTTPResponse]]:
    """Return a function that reads an object with query parameters."""
    with urllib3.PoolManager(retries=False, timeout=60) as pool:

        def read(name: str, **query: str) -> urllib3.BaseHTTPResponse:
            return pool.request("GET", f"{store.endpoint}/v1/objects/{bucket}/{name}", fields=query)

        yield read


def test_each_stage_gets_what_the_one_before_it_made(get: Callable[..., urllib3.BaseHTTPResponse]) -> None:
    for first in ("etl_name", "uuid"):
        reply = get("small", **{first: "reverse-it"}, etl_pipeline="shout-it")
        assert (reply.status, reply.data) == (200, b"CBA")
        assert reply.headers["content-length"] == "3"
    assert get("small", etl_name="shout-it", etl_pipeline="reverse-it").data == b"CBA"
    assert get("small", etl_name="reverse-it", etl_pipeline="").data == b"cba"  # as NVIDIA's SDK sends one transform
    assert get("empty", etl_name="reverse-it", etl_pipeline="shout-it").data == b""
    assert get("small", etl_name="nothing-it", etl_pipeline="shout-it").data == b""
    assert get("large", etl_name="reverse-it", etl_pipeline="shout-it").data == b"CBA" * (SIZE // 3)


def test_all_stages_get_the_object_s_name_and_the_arguments(
    get: Callable[..., urllib3.BaseHTTPResponse], bucket: str
) -> None:
    arguments = json.dumps({"w": 1}, separators=(",", ":"))
    reply = get("small", etl_name="reverse-it", etl_pipeline="add-args,shout-it", etl_args=arguments)
    assert reply.data.decode() == f'cba|{bucket}/small {{"w":1}}'.upper()


def test_a_failure_names_the_stage(get: Callable[..., urllib3.BaseHTTPResponse], bucket: str) -> None:
    reply = get("small", etl_name="reverse-it", etl_pipeline="refuse-it,shout-it")
    assert reply.status == 422
    message = reply.json()["message"]
    assert message.startswith(f"ETL error: refuse-it failed on ais://{bucket}/small: ")
    assert "ValueError: refused cba" in message
    assert get("small", etl_name="reverse-it", etl_pipeline="shout-it").status == 200


def test_nothing_runs_where_a_stage_is_missing(client: Client, get: Callable[..., urllib3.BaseHTTPResponse]) -> None:
    before = client.etl("add-args").summary()
    for pipeline in ("no-such-etl", "shout-it,no-such-etl"):
        reply = get("small", etl_name="add-args", etl_pipeline=pipeline)
        assert reply.status == 404
        assert "etl job no-such-etl does not exist" in reply.json()["message"]
    assert get("small", etl_name="no-such-etl", etl_pipeline="add-args").status == 404
    after = client.etl("add-args").summary()
    assert before is not None
    assert after is not None
    assert after.obj_count == before.obj_count


def test_a_stage_that_was_stopped(client: Client, get: Callable[..., urllib3.BaseHTTPResponse]) -> None:
    stopped = client.etl("stopped-stage")
    stopped.init_code(CODES["reverse-it"][1], workers=1)
    try:
        assert get("small", etl_name="reverse-it", etl_pipeline="stopped-stage").data == b"abc"
        stopped.stop()
        reply = get("small", etl_name="reverse-it", etl_pipeline="stopped-stage")
        assert reply.status == 409
        assert "stopped-stage" in reply.json()["message"]
        stopped.start()
        assert get("small", etl_name="reverse-it", etl_pipeline="stopped-stage").data == b"abc"
    finally:
        stopped.delete()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"etl_name": "reverse-it", "etl_pipeline": "shout-it,"}, "stage 3 is empty"),
        ({"etl_name": "reverse-it", "etl_pipeline": ",shout-it"}, "stage 2 is empty"),
        ({"etl_name": "reverse-it", "etl_pipeline": " "}, "stage 2 is empty"),
        ({"etl_name": "reverse-it", "etl_pipeline": "reverse-it"}, "reverse-it is in it twice, which is a loop"),
        ({"etl_name": "a-name", "etl_pipeline": "shout-it,reverse-it,shout-it"}, "shout-it is in it twice"),
        ({"etl_pipeline": "shout-it"}, "etl_pipeline=shout-it has no transform before it"),
    ],
)
def test_pipelines_that_cannot_be(
    get: Callable[..., urllib3.BaseHTTPResponse], query: dict[str, str], words: str
) -> None:
    reply = get("small", **query)
    assert reply.status == 400, reply.data
    assert words in reply.json()["message"]


def test_a_later_stage_cannot_write_to_what_it_gets(get: Callable[..., urllib3.BaseHTTPResponse]) -> None:
    for name in ("small", "large"):
        reply = get(name, etl_name="reverse-it", etl_pipeline="write-it")
        assert reply.status == 422
        assert "write-it failed" in reply.json()["message"]


def test_a_head_or_a_range_of_a_pipeline(store: StoreProcess, bucket: str) -> None:
    url = f"{store.endpoint}/v1/objects/{bucket}/small?etl_name=reverse-it&etl_pipeline=shout-it"
    assert urllib3.request("HEAD", url).status == 400
    assert urllib3.request("GET", url, headers={"Range": "bytes=0-1"}).status == 400


def test_entries_of_a_batch(store: StoreProcess, bucket: str, client: Client) -> None:
    def post(*entries: tuple[str, str], args: str = "") -> urllib3.BaseHTTPResponse:
        body = json.dumps({"entries": entries, "etl_args": args}).encode()
        return urllib3.request("POST", f"{store.endpoint}/v1/batch/{bucket}", body=body, preload_content=False)

    reply = post(
        ("small", "reverse-it,shout-it"),
        ("small", ""),
        ("small", "shout-it >> add-args"),
        ("small", "reverse-it,refuse-it"),
        ("large", "reverse-it,shout-it"),
        args="x",
    )
    frames = list(read_frames(lambda count: reply.read(count)))
    assert [frame.status for frame in frames] == [200, 200, 200, 422, 200]
    assert [frame.data for frame in frames[:3]] == [b"CBA", b"abc", f"ABC|{bucket}/small x".encode()]
    assert b"refuse-it failed" in frames[3].data
    assert frames[4].data == b"CBA" * (SIZE // 3)
    assert post(("small", "reverse-it,no-such-etl")).status == 404  # before any entry
    assert post(("small", "reverse-it,reverse-it")).status == 400

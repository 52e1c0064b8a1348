"""Lines of transforms, and copies through them, asked of any node of a cluster."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
import urllib3

from aistore import Client
from aistore.client import Bucket
from aistore.errors import EtlNotFoundError, TransformError
from aistore.testing import LocalCluster
from aistore.wire.batch import read_frames

NAMES = [f"dir/{number:02}" for number in range(24)]
ETLS = ("pipe-upper", "pipe-back")
LARGE = bytes(range(256)) * 12_000  # three pieces


@pytest.fixture(scope="module")
def clients(cluster: LocalCluster) -> Iterator[list[Client]]:
    """Return a client of each node, which asks that node alone."""
    made = [Client(node.endpoint, follow_map=False) for node in cluster.running]
    made[0].etl(ETLS[0]).init_code(
        "def transform(data, etl_args):\n    assert data != b'bad'\n    return data.upper() + etl_args.encode()\n",
        workers=1,
    )
    made[0].etl(ETLS[1]).init_code("def transform(data):\n    return data[::-1]\n", workers=1)
    yield made
    for name in ETLS:
        made[0].etl(name).delete()
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def source(clients: list[Client]) -> Bucket:
    bucket = clients[0].bucket(f"b-{uuid.uuid4().hex[:10]}").create()
    for name in NAMES:
        bucket.object(name).put(f"words of {name}".encode(), custom={"name": name})
    bucket.object("bad").put(b"bad")
    return bucket


def made_of(name: str, args: str = "") -> bytes:
    return (f"words of {name}".upper() + args)[::-1].encode()


def test_reads_of_every_object_through_every_node(clients: list[Client], source: Bucket) -> None:
    for client in clients:
        bucket = client.bucket(source.ref)
        for name in NAMES:
            assert bucket.object(name).get(etl="pipe-upper >> pipe-back", etl_args="!").read() == made_of(name, "!")
        with pytest.raises(EtlNotFoundError, match="no-such-etl"):
            bucket.object(NAMES[0]).get(etl="pipe-upper >> no-such-etl").read()
        with pytest.raises(TransformError, match=r"pipe-upper failed on ais://.*/bad"):
            bucket.object("bad").get(etl="pipe-upper >> pipe-back").read()


def test_a_batch_of_one_node_for_all_objects(clients: list[Client], source: Bucket) -> None:
    body = json.dumps({"entries": [(name, "pipe-upper,pipe-back") for name in NAMES], "etl_args": "?"}).encode()
    for client in clients:
        url = f"{client.endpoint}/v1/batch/{source.name}"
        reply = urllib3.request("POST", url, body=body, preload_content=False)
        frames = list(read_frames(lambda count, reply=reply: reply.read(count)))
        assert [(frame.status, frame.data) for frame in frames] == [(200, made_of(name, "?")) for name in NAMES]


def test_copies_asked_of_every_node(clients: list[Client], source: Bucket) -> None:
    for number, client in enumerate(clients):
        target = client.bucket(f"{source.name}-{number}").create()
        for name in NAMES:
            words = client.bucket(source.ref).object(name)
            words.copy_to(target.object(f"plain/{name}"))
            words.copy_to(target.object(f"made/{name}"), etl="pipe-upper >> pipe-back")
        other = clients[number - 1].bucket(target.ref)
        for name in NAMES:
            plain, made = other.object(f"plain/{name}"), other.object(f"made/{name}")
            assert (plain.get().read(), plain.head().custom["name"]) == (f"words of {name}".encode(), name)
            assert (made.get().read(), made.head().custom["name"]) == (made_of(name), name)
        large = client.bucket(source.ref).object("large")
        large.put(LARGE)
        for etl, data in ((None, LARGE), ("pipe-back", LARGE[::-1])):
            large.copy_to(target.object("large"), etl=etl)
            assert other.object("large").get().read() == data
        other.object("large").delete()
        large.delete()
        with pytest.raises(TransformError, match="pipe-upper failed"):
            client.bucket(source.ref).object("bad").copy_to(target.object("bad"), etl="pipe-upper")
        assert len(list(other.list())) == 2 * len(NAMES)


def test_jobs_on_chosen_objects(clients: list[Client], source: Bucket) -> None:
    for number, client in enumerate(clients):
        bucket = client.bucket(source.ref)
        job = bucket.transform(f"{source.name}-job-{number}", "pipe-upper >> pipe-back", template="dir/{00..23}")
        info = clients[number - 1].job(job.id).wait(60)
        assert (info.objects, info.error) == (len(NAMES), "")
        made = clients[number - 2].bucket(f"{source.name}-job-{number}")
        assert list(made.batch(NAMES)) == [made_of(name) for name in NAMES]
        inspected = bucket.inspect("pipe-upper >> pipe-back", names=["bad", "gone", NAMES[0]])
        info = inspected.wait(60)
        assert (info.objects, info.failed) == (1, 2)
        assert {(error.name.rpartition("/")[2], error.status) for error in inspected.errors()} == {
            ("bad", 422), ("gone", 404)
        }  # fmt: skip

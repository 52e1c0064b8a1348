"""Resume and verification of reads."""

from __future__ import annotations

import pytest
import xxhash
from http_stub import Answer, Stub, broken, reply

from aistore.client import Client, RetryPolicy
from aistore.errors import ChecksumMismatchError, ConflictError, StoreUnreachableError

QUICK = RetryPolicy(attempts_max=3, pause_seconds=0.001)
BODY = bytes(range(256)) * 8192  # 2 MiB


def described(body: bytes = BODY, version: int = 1, **more: str) -> dict[str, str]:
    return {
        "ais-checksum-type": "xxhash2",
        "ais-checksum-value": xxhash.xxh64_hexdigest(body),
        "ais-version": str(version),
        "ais-atime": "17",
        **more,
    }


def rest(start: int, body: bytes = BODY, version: int = 1, cut: int | None = None) -> Answer:
    headers = described(body, version, **{"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"})
    part = body[start:]
    return reply(206, part, headers) if cut is None else broken(206, part, cut, headers)


def read(stub: Stub, **how: object) -> bytes:
    with Client(stub.url, retry=QUICK) as client, client.bucket("b").object("x").get(**how) as reader:
        return reader.read()


def test_whole_read_and_description():
    with Stub([reply(200, BODY, described(**{"ais-custom-md": "a=1, b=2"}))]) as stub, Client(stub.url) as client:
        reader = client.bucket("b").object("dir/x y%?#.jpg").get()
        assert reader.info.size == len(BODY)
        assert reader.info.custom == {"a": "1", "b": "2"}
        assert reader.read() == BODY
        assert reader.read() == b""
        assert stub.received[0].path == "/v1/objects/b/dir/x%20y%25%3F%23.jpg?provider=ais"


def test_pieces_and_iteration():
    with Stub([reply(200, BODY, described())] * 2) as stub, Client(stub.url) as client:
        reader = client.bucket("b").object("x").get()
        assert reader.read(10) + reader.read(0) + reader.read(5) == BODY[:15]
        assert b"".join(reader) == BODY[15:]
        assert b"".join(client.bucket("b").object("x").get()) == BODY


@pytest.mark.parametrize("reset", [False, True])
def test_broken_read_is_resumed_where_it_broke(reset):
    # The second answer depends on where the first one broke, which a reset makes uncertain.
    def continue_anywhere(handler):
        rest(int(handler.headers["Range"].removeprefix("bytes=").partition("-")[0]))(handler)

    with Stub([broken(200, BODY, 1_500_000, described(), reset=reset), continue_anywhere]) as stub:
        assert read(stub) == BODY
        assert stub.received[1].headers["range"].endswith(f"-{len(BODY) - 1}")


def test_resume_goes_on_while_there_is_progress():
    step = 300_000
    answers = [broken(200, BODY, step, described())]
    answers += [rest(step * turn, cut=step) for turn in range(1, 6)] + [rest(step * 6)]
    with Stub(answers) as stub:
        assert read(stub) == BODY
        assert len(stub.received) == 7


def test_resume_gives_up_without_progress():
    with Stub([broken(200, BODY, 1000, described()), rest(1000, cut=0), rest(1000, cut=0), rest(1000)]) as stub:
        with pytest.raises(StoreUnreachableError):
            read(stub)
        assert len(stub.received) == 3


@pytest.mark.parametrize(
    "answer",
    [
        rest(1000, version=2),
        rest(1000, body=BODY[::-1]),
        reply(200, BODY, described()),
        rest(2000),
        reply(404, b"gone"),
        reply(416, b"shorter"),
    ],
    ids=["version", "checksum", "no-range", "elsewhere", "gone", "shorter"],
)
def test_versions_are_never_mixed(answer):
    with Stub([broken(200, BODY, 1000, described()), answer]) as stub, pytest.raises(ConflictError, match="changed"):
        read(stub)


def test_transformed_objects_are_not_resumed():
    with Stub([broken(200, BODY, 1000, described()), rest(1000)]) as stub:
        with pytest.raises(StoreUnreachableError):
            read(stub, etl="my-etl")
        assert len(stub.received) == 1


def test_wrong_bytes_are_refused():
    with Stub([reply(200, BODY, described(b"other"))]) as stub, pytest.raises(ChecksumMismatchError, match="ais://b/x"):
        read(stub)


@pytest.mark.parametrize("name", ["etl_args", "args"])
def test_transformed_bytes_have_no_stored_checksum(name):
    with Stub([reply(200, b"small", described())]) as stub:
        assert read(stub, etl="my-etl", **{name: {"size": 3}}) == b"small"
        assert stub.received[0].path.endswith("?provider=ais&etl_name=my-etl&etl_args=%7B%22size%22%3A3%7D")


def test_range_is_read_and_resumed_within_itself():
    def part(start, end, cut=None):
        headers = described(**{"Content-Range": f"bytes {start}-{end}/{len(BODY)}"})
        body = BODY[start : end + 1]
        return reply(206, body, headers) if cut is None else broken(206, body, cut, headers)

    with Stub([part(100, 1099, cut=300), part(400, 1099)]) as stub, Client(stub.url, retry=QUICK) as client:
        reader = client.bucket("b").object("x").get(range=(100, 1000))
        assert (reader.info.size, reader.length) == (len(BODY), 1000)
        assert reader.read() == BODY[100:1100]
        assert [request.headers["range"] for request in stub.received] == ["bytes=100-1099", "bytes=400-1099"]


def test_empty_object():
    with Stub([reply(200, b"", described(b""))]) as stub:
        assert read(stub) == b""


def test_chunked_reply_of_unknown_length():
    def chunked(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in (b"one", b"two", b""):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    with Stub([chunked, chunked]) as stub, Client(stub.url) as client:
        reader = client.bucket("b").object("x").get(etl="my-etl")
        assert reader.length is None
        assert reader.read(4) == b"onet"
        assert reader.read() == b"wo"
        assert client.bucket("b").object("x").get(etl="my-etl").read() == b"onetwo"

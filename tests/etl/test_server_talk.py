"""One object through a transform that is an HTTP server: what it is sent, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import random
import threading
from urllib.parse import unquote

import pytest
import talking
from talking import Caller, RawServer, Talk, answering, failure, talk, upper

from aistore.errors import (
    EtlNotRunningError,
    TooLargeError,
    TransformCrashError,
    TransformError,
    TransformTimeoutError,
)
from aistore.etl.running import Ask


@pytest.fixture(params=[False, True], ids=["ordinary", "early"], autouse=True)
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test twice, the second time with objects that are sent before the event loop hears of them."""
    monkeypatch.setattr(talking, "early", request.param)


NAMES = ["a", "dir/b.jpg", "ümlaut/名.txt", "with space?and=more&%2F#x", "+plus,comma;'\"", "x" * 600, "\x01control"]


# What is sent.


def test_a_seed_is_a_header_where_there_is_one() -> None:
    async def use(t: Talk) -> None:
        await t.object(b"words", seed="5e" * 32)
        await t.object(b"words")

    with RawServer(answering(upper)) as server:
        talk(server.port, use)
    assert [heard.headers.get("ais-etl-seed") for heard in server.heard] == ["5e" * 32, None]


@pytest.mark.parametrize("name", NAMES)
def test_an_object_is_put_to_its_path(name: str) -> None:
    async def use(t: Talk) -> None:
        assert await t.object(b"words", name) == b"WORDS"

    with RawServer(answering(upper)) as server:
        talk(server.port, use)
    (heard,) = server.heard
    assert heard.method == "PUT"
    assert unquote(heard.target) == f"/bck/{name}"
    assert heard.headers["content-length"] == "5"
    assert heard.headers["host"] == f"127.0.0.1:{server.port}"
    assert "ais-node-url" not in heard.headers


@pytest.mark.parametrize("args", ["128", '{"side":"left","x":"a b"}', "ümlaut & = ?", "a+b"])
def test_arguments_are_in_the_query(args: str) -> None:
    async def use(t: Talk) -> None:
        await t.object(b"words", "o", args)

    with RawServer(answering(upper)) as server:
        talk(server.port, use)
    path, _, query = server.heard[0].target.partition("?")
    assert path == "/bck/o"
    assert query.startswith("etl_args=")
    assert unquote(query.removeprefix("etl_args=")) == args


def test_arguments_that_no_server_reads_are_refused() -> None:
    async def use(t: Talk) -> None:
        with pytest.raises(TooLargeError, match="etl_args of 20000 characters"):
            await t.object(b"words", "o", "x" * 20_000)
        assert await t.object(b"words") == b"WORDS"

    with RawServer(answering(upper)) as server:
        talk(server.port, use)


def test_a_pod_of_2021_is_put_to_the_root() -> None:
    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"WORDS"

    with RawServer(answering(upper)) as server:
        talk(server.port, use, push_to_root=True)
    assert server.heard[0].target == "/"


def test_objects_share_a_connection() -> None:
    async def use(t: Talk) -> None:
        for number in range(20):
            assert await t.object(b"word %d" % number) == b"WORD %d" % number

    with RawServer(answering(upper)) as server:
        talk(server.port, use)
    assert server.connections == 1


def test_an_empty_object_and_an_empty_result() -> None:
    async def use(t: Talk) -> None:
        assert await t.object(b"") == b""
        assert await t.object(b"words") == b""

    with RawServer(answering(lambda heard: b"")) as server:
        talk(server.port, use)
    assert server.connections == 1
    assert [heard.headers["content-length"] for heard in server.heard] == ["0", "5"]


@pytest.mark.parametrize("size", [64 << 10, (64 << 10) + 1, 1 << 20, (1 << 20) + 1, 9 << 20, 40 << 20])
def test_large_objects_arrive_whole_and_come_back_whole(size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def use(t: Talk) -> None:
        source = t.passing(data)
        for _ in range(2):
            result = await t.transforms.transform(t.running, source, Ask("bck", "large"), None)
            assert (result.data is None) == (size > 1 << 20)  # what is large is in a file
            assert result.size == size
            assert result.read_all() == data
            result.close()
        source.close()

    with RawServer(answering(lambda heard: heard.body)) as server:
        talk(server.port, use)
    assert server.connections == 1


def test_a_server_may_answer_while_it_reads() -> None:
    data = random.Random(1).randbytes(24 << 20)

    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.read_head()) is not None:
            caller.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            left = int(heard.headers["content-length"])
            while left:
                piece = caller.read(min(left, 100_000))
                left -= len(piece)
                caller.send(b"%x\r\n" % len(piece), piece, b"\r\n")
            caller.send(b"0\r\n\r\n")

    async def use(t: Talk) -> None:
        assert await t.object(data) == data
        assert await t.object(data[:70_000]) == data[:70_000]

    with RawServer(script) as server:
        talk(server.port, use)
    assert server.connections == 1


def test_a_server_need_not_read_what_it_does_not_want() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        caller.read_head()
        caller.reply(b"enough")
        caller.drain()

    async def use(t: Talk) -> None:
        assert await t.object(b"x" * (32 << 20)) == b"enough"
        assert await t.object(b"x") == b"enough"

    with RawServer(script) as server:
        talk(server.port, use)
    assert server.connections == 2  # the first had not taken its object


# How a reply may come.

REPLIES = {
    "with a length": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwords",
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwo\r\n3;x=y\r\nrds\r\n0\r\nT: t\r\n\r\n",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nwords",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6\r\n\r\nwords",
    "after others": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n"
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwords",
    "201": b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nwords",
}


@pytest.mark.parametrize("kind", REPLIES)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_reply_may_come(kind: str, step: int) -> None:
    reply = REPLIES[kind]
    kept = kind not in ("until the end", "of HTTP/1.0")

    def script(server: RawServer, caller: Caller) -> None:
        while caller.request() is not None:
            for start in range(0, len(reply), step):
                caller.send(reply[start : start + step])
            if not kept:
                return

    async def use(t: Talk) -> None:
        assert [await t.object(b"o"), await t.object(b"o")] == [b"words", b"words"]

    with RawServer(script) as server:
        talk(server.port, use)
    assert server.connections == (1 if kept else 2)


def test_what_follows_a_reply_is_never_taken_for_the_next() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while caller.request() is not None:
            caller.reply(b"%d" % caller.number, and_then=b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nof nobody")

    async def use(t: Talk) -> None:
        assert [await t.object(b"o") for _ in range(3)] == [b"1", b"2", b"3"]

    with RawServer(script) as server:
        talk(server.port, use)


# Errors that a server tells.


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("500 Internal Server Error", b'{"detail": "Processing error: no picture"}'),
        ("404 Not Found", b'{"error": "File not found"}'),
        ("400 Bad Request", "plain ünicode".encode()),
        ("422 X", b"\xff\xfe"),
    ],
)
def test_the_body_of_an_error_is_told(status: str, body: bytes) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.request()) is not None:
            if heard.body == b"bad":
                caller.reply(body, status)
            else:
                caller.reply(b"fine")

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError) as caught:
            await t.object(b"bad")
        assert caught.value.message == body.decode(errors="replace")
        assert caught.value.status == 422
        assert await t.object(b"good") == b"fine"

    with RawServer(script) as server:
        talk(server.port, use)
    assert server.connections == 1


def test_an_error_without_a_body_tells_the_status() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while caller.request() is not None:
            caller.reply(b"", "501 Not Implemented")

    with RawServer(script) as server:
        assert "answered with status 501" in failure(server).message


def test_a_long_error_is_told_in_part() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        caller.request()
        caller.send(b"HTTP/1.1 500 X\r\n\r\n")
        while True:
            caller.send(b"e" * 10_000)

    with RawServer(script) as server:
        assert failure(server).message == "e" * 8192


def test_a_redirect_is_no_result() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        caller.request()
        caller.reply(b"", "302 Found", "Location: http://127.0.0.1:1/")

    with RawServer(script) as server:
        assert "status 302" in failure(server).message


@pytest.mark.parametrize(("header", "told"), [("", b""), ("Ais-Direct-Put-Length: 0", b"")])
def test_a_result_that_was_put_nowhere_is_empty(header: str, told: bytes) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while caller.request() is not None:
            caller.send(b"HTTP/1.1 204 No Content\r\n", f"{header}\r\n".encode() if header else b"", b"\r\n")

    async def use(t: Talk) -> None:
        assert await t.object(b"o") == told

    with RawServer(script) as server:
        talk(server.port, use)


@pytest.mark.parametrize(("value", "text"), [("17", "its result of 17 bytes, and nothing came"), ("many", "no number")])
def test_a_result_that_is_said_to_be_put_and_is_not_is_an_error(value: str, text: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while caller.request() is not None:
            caller.send(f"HTTP/1.1 204 No Content\r\nAis-Direct-Put-Length: {value}\r\n\r\n".encode())

    with RawServer(script) as server:
        assert text in failure(server).message


# Once more.


def transient(times: int) -> object:
    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.request()) is not None:
            server.heard.append(heard)
            if len(server.heard) <= times:
                caller.reply(b"not now", "503 Service Unavailable", "Ais-Etl-Retry-Reason: direct-put-transient")
            else:
                caller.reply(heard.body.upper())

    return script


def test_an_object_is_sent_again_where_the_server_asks_for_it() -> None:
    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"WORDS"

    with RawServer(transient(3)) as server:  # type: ignore[arg-type]
        talk(server.port, use)
    assert [heard.body for heard in server.heard] == [b"words"] * 4


def test_it_is_sent_ten_times_at_most() -> None:
    with RawServer(transient(1000)) as server:  # type: ignore[arg-type]
        assert failure(server).message == "not now (tried 10 times)"
    assert len(server.heard) == 10


def test_sending_it_again_ends_with_the_time_for_the_object() -> None:
    with RawServer(transient(1000)) as server:  # type: ignore[arg-type]
        assert isinstance(failure(server, seconds=0.5), TransformTimeoutError)
    assert 1 < len(server.heard) < 10


@pytest.mark.parametrize("header", ["Ais-Etl-Retry-Reason: something-else", "X: y"])
def test_any_other_503_is_an_error(header: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.request()) is not None:
            server.heard.append(heard)
            caller.reply(b"busy", "503 Service Unavailable", header)

    with RawServer(script) as server:
        assert failure(server).message == "busy"
    assert len(server.heard) == 1


def test_a_connection_that_ends_unanswered_is_followed_by_one_more() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        heard = caller.request()
        if caller.number > 1 and heard is not None:
            caller.reply(heard.body.upper())

    async def use(t: Talk) -> None:
        assert await t.object(b"words") == b"WORDS"
        assert t.finds == 1

    with RawServer(script) as server:
        talk(server.port, use)
    assert server.connections == 2


def test_a_server_that_never_answers_has_crashed() -> None:
    with RawServer(lambda server, caller: None) as server:
        error = failure(server)
    assert isinstance(error, TransformCrashError)
    assert "closed the connection before it answered" in error.message
    assert server.connections in ((2, 3) if talking.early else (2,))  # one that is kept may be seen to have ended


def test_a_kept_connection_that_was_closed_is_not_used() -> None:
    closed = threading.Event()

    def script(server: RawServer, caller: Caller) -> None:
        server.heard.append(caller.request())  # type: ignore[arg-type]
        caller.reply(b"fine")
        caller.connection.close()
        closed.set()

    async def use(t: Talk) -> None:
        for _ in range(5):
            assert await t.object(b"o") == b"fine"
            await asyncio.to_thread(closed.wait)
            closed.clear()

    with RawServer(script) as server:
        talk(server.port, use)
    assert len(server.heard) == 5


def test_a_server_that_was_started_again_is_found_elsewhere() -> None:
    async def use(t: Talk) -> None:
        t.found = [t.running.__class__(**{**_fields(t.running), "port": second.port, "socket_path": "second"})]
        assert await t.object(b"words") == b"WORDS"

    with RawServer(answering(upper)) as second:
        talk(_closed_port(), use)


def test_a_server_that_is_not_there_is_not_running() -> None:
    async def use(t: Talk) -> None:
        with pytest.raises(EtlNotRunningError, match="test-etl does not take connections"):
            await t.object(b"words")

    talk(_closed_port(), use)


def _closed_port() -> int:
    with RawServer(lambda server, caller: None) as server:
        pass
    return server.port


def _fields(running: object) -> dict[str, object]:
    return {name: getattr(running, name) for name in running.__struct_fields__}  # type: ignore[attr-defined]

"""Servers that answer with something else than a reply, too late or never, and many objects at once."""

from __future__ import annotations

import asyncio
import threading

import pytest
import talking
from talking import Caller, RawServer, Talk, answering, failure, talk, upper

from aistore.errors import (
    ClientGoneError,
    OverloadedError,
    TransformCrashError,
    TransformError,
    TransformTimeoutError,
)
from aistore.settings import Limits


@pytest.fixture(params=[False, True], ids=["ordinary", "early"], autouse=True)
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test twice, the second time with objects that are sent before the event loop hears of them."""
    monkeypatch.setattr(talking, "early", request.param)


# Replies that are none.

HALVES = {
    "of a length": b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nwords",
    "of chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n500\r\nwords",
    "without the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n",
    "of a head": b"HTTP/1.1 200 OK\r\nconte",
}


@pytest.mark.parametrize("kind", HALVES)
def test_half_a_reply(kind: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while caller.request() is not None:
            caller.send(HALVES[kind])
            return

    with RawServer(script) as server:
        error = failure(server)
    assert isinstance(error, TransformCrashError)
    assert server.connections == 1


GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "bytes": bytes(range(256)) * 4,
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "a status that is none": b"HTTP/1.1 2000 OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nwordss",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nwords",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nwords",
    "a chunk that is longer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwords\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 2000,
    "a long line": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000,
    "interim replies only": b"HTTP/1.1 102 Processing\r\n\r\n" * 20,
    "a line without end": b"H" * 70_000,
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage(kind: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.request()) is not None:
            if heard.body == b"data":
                caller.send(GARBAGE[kind])
                caller.wait_for_end()
                return
            caller.reply(b"fine")

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match="a reply that cannot be used"):
            await t.object(b"data")
        assert await t.object(b"other") == b"fine"

    with RawServer(script) as server:
        talk(server.port, use)


@pytest.mark.parametrize("kind", ["a length", "chunks", "no end"])
def test_too_much(kind: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        heard = caller.request()
        if heard is not None and heard.body != b"data":
            caller.reply(b"fine")
            return
        if kind == "a length":
            caller.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        elif kind == "chunks":
            caller.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        else:
            caller.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            caller.send(b"2710\r\n", b"x" * 10_000, b"\r\n")

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match="the result is larger than the limit of 5000000 bytes"):
            await t.object(b"data")
        assert await t.object(b"other") == b"fine"

    with RawServer(script) as server:
        talk(server.port, use, options={"output_bytes_max": 5_000_000})


# What ends a call early.


def endless(kind: str) -> object:
    def script(server: RawServer, caller: Caller) -> None:
        heard = caller.request()
        if heard is not None and heard.body != b"data":
            caller.reply(b"fine")
            return
        if kind == "a trickle":
            caller.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while True:
                caller.send(b"x")
                if _ended(caller):
                    break
        elif kind == "half a head":
            caller.send(b"HTTP/1.1 200")
        elif kind == "a body without end":
            caller.send(b"HTTP/1.1 200 OK\r\n\r\nwords")
        caller.wait_for_end()
        server.heard.append(heard)  # type: ignore[arg-type]

    return script


def _ended(caller: Caller) -> bool:
    caller.connection.settimeout(0.01)
    try:
        return not caller.connection.recv(1)
    except TimeoutError:
        return False
    finally:
        caller.connection.settimeout(30)


ENDLESS = ["nothing", "a trickle", "half a head", "a body without end"]


@pytest.mark.parametrize("kind", ENDLESS)
def test_the_time_for_an_object(kind: str) -> None:
    async def use(t: Talk) -> None:
        with pytest.raises(TransformTimeoutError, match="timeout: the transform did not answer within"):
            await t.object(b"data")
        assert await t.object(b"other") == b"fine"

    with RawServer(endless(kind)) as server:  # type: ignore[arg-type]
        talk(server.port, use, seconds=0.3)
    assert len(server.heard) == 1  # its connection has ended


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_client_that_goes_away_frees_the_transform(kind: str) -> None:
    async def use(t: Talk) -> None:
        leaving = asyncio.Event()

        async def gone() -> None:
            await leaving.wait()

        async def leave() -> None:
            while not server.connections:
                await asyncio.sleep(0.01)
            leaving.set()

        left = asyncio.ensure_future(leave())
        with pytest.raises(ClientGoneError):
            await t.object(b"data", gone=gone)
        await left
        assert await t.object(b"other") == b"fine"

    with RawServer(endless(kind)) as server:  # type: ignore[arg-type]
        talk(server.port, use)
    assert len(server.heard) == 1


@pytest.mark.parametrize("size", [4, 32 << 20])
def test_a_request_that_is_cancelled_ends_its_connection(size: int) -> None:
    began = threading.Event()

    def script(server: RawServer, caller: Caller) -> None:
        server.heard.append(caller.read_head())  # type: ignore[arg-type]
        began.set()
        caller.drain()

    async def use(t: Talk) -> None:
        asked = asyncio.ensure_future(t.object(b"x" * size))
        await asyncio.to_thread(began.wait)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    with RawServer(script) as server:
        talk(server.port, use)
    assert len(server.heard) == 1


def test_an_answer_before_all_was_sent_ends_the_connection() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.read_head()) is not None:
            size = int(heard.headers["content-length"])
            if size > 5:
                caller.reply(b"enough")
                while piece := caller.read_some():
                    assert not piece.strip(b"x"), "another object came behind it"
                return
            caller.reply(caller.read(size).upper())

    async def use(t: Talk) -> None:
        assert await t.object(b"x" * (32 << 20)) == b"enough"
        assert await t.object(b"words") == b"WORDS"

    with RawServer(script) as server:
        talk(server.port, use)
    assert server.connections == 2


# Many at once.


def test_many_objects_share_few_connections() -> None:
    async def use(t: Talk) -> None:
        objects = [t.object(b"word %d" % number, f"o{number}") for number in range(200)]
        assert await asyncio.gather(*objects) == [b"WORD %d" % number for number in range(200)]

    with RawServer(answering(upper)) as server:
        talk(server.port, use, options={"connections_max": 8})
    assert server.connections <= 8


def test_no_more_wait_than_may() -> None:
    held = threading.Event()

    def script(server: RawServer, caller: Caller) -> None:
        while caller.request() is not None:
            held.wait()
            caller.reply(b"fine")

    async def use(t: Talk) -> None:
        objects = [asyncio.ensure_future(t.object(b"o")) for _ in range(5)]
        while not server.connections:
            await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError, match="3 objects wait"):
            await t.object(b"one too many")
        held.set()
        outcomes = await asyncio.gather(*objects, return_exceptions=True)
        assert outcomes.count(b"fine") == 4

    with RawServer(script) as server:
        talk(server.port, use, options={"connections_max": 1}, limits=Limits(etl_queue=3))


def test_who_waits_for_a_connection_gives_up_in_time() -> None:
    held = threading.Event()

    def script(server: RawServer, caller: Caller) -> None:
        while caller.request() is not None:
            held.wait()
            caller.reply(b"fine")

    async def use(t: Talk) -> None:
        first = asyncio.ensure_future(t.object(b"o"))
        while not server.connections:
            await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError, match="no time for the object"):
            await t.object(b"late")
        waiting = asyncio.ensure_future(t.object(b"cancelled"))
        await asyncio.sleep(0.01)
        waiting.cancel()
        held.set()
        assert await first == b"fine"
        assert await t.object(b"o") == b"fine"

    with RawServer(script) as server:
        talk(server.port, use, options={"connections_max": 1}, limits=Limits(etl_queue_wait_seconds=0.2))


# An end that is that of the connection.


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_nothing_until_the_end_is_a_result_of_nothing_only(version: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        caller.request()
        caller.send(f"HTTP/{version} 200 OK\r\n\r\n".encode())

    async def use(t: Talk) -> None:
        with pytest.raises(TransformCrashError, match="before any of its result"):
            await t.object(b"words")
        assert await t.object(b"") == b""

    with RawServer(script) as server:
        talk(server.port, use)


def test_an_error_page_is_told_as_text() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        caller.request()
        page = (
            b"<!DOCTYPE HTML><html><head><title>E</title></head><body><h1>Error</h1>\n<p>no picture</p></body></html>"
        )
        caller.reply(page, "500 X", "Content-Type: text/html;charset=utf-8")

    with RawServer(script) as server:
        assert failure(server).message == "Error no picture"


@pytest.mark.parametrize("size", [0, 5, 2 << 20])
def test_a_second_reply_behind_what_was_streamed_is_an_error(size: int) -> None:
    head = b"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6\r\n\r\n"
    second = b"HTTP/1.0 500 E\r\nServer: BaseHTTP/0.6\r\nContent-Length: 10\r\n\r\nno picture"

    def script(server: RawServer, caller: Caller) -> None:
        heard = caller.request()
        tail = second if heard is not None and heard.body == b"bad" else second + b"."
        caller.send(head, b"x" * size, tail)

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match=r"^no picture$"):
            await t.object(b"bad")
        assert await t.object(b"good") == b"x" * size + second + b"."  # which may be what the object is about

    with RawServer(script) as server:
        talk(server.port, use)

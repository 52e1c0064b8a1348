"""Calls of other nodes, where the other node is slow, cut off, hanging, lying or gone. Real sockets, scripts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from aistore.errors import BadRequestError, ObjectNotFoundError, OverloadedError, PeerUnreachableError
from aistore.server.peers import Body, PeerLimits, Peers
from aistore.settings import Secret

SECRET = Secret("what-all-nodes-know")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LIMITS = PeerLimits(connect_seconds=1.0, stall_seconds=0.3, unreachable_seconds=0.3, sweep_seconds=0.02)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run on the event loop that a node has."""
    uvloop.run(asyncio.wait_for(test, 30))


class Node:
    """A node that does what a script says, once per connection; the last script is for all that follow."""

    def __init__(self, scripts: tuple[Answer, ...]) -> None:
        self._scripts = list(scripts)
        self.requests: list[bytes] = []
        self.accepted = self.ended = 0
        self.url = ""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            writer.close()

    def says(self, answer: bytes, *, pause: bool = False) -> Answer:
        """Return a script: read a head, answer so, again and again; or once and then nothing more (``pause``)."""

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
                await writer.drain()
                if pause:
                    await reader.read()
                    return

        return script

    def says_and_ends(self, answer: bytes) -> Answer:
        """Return a script: read a head, answer so, end the connection."""

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()

        return script


@asynccontextmanager
async def calling(*answers: bytes | Answer, limits: PeerLimits = LIMITS) -> AsyncIterator[tuple[Peers, Node]]:
    """Give a node that answers so, and the calls to it; nothing of either is left afterwards."""
    node = Node(())
    node._scripts = [node.says(answer) if isinstance(answer, bytes) else answer for answer in answers]
    server = await asyncio.start_server(node.accept, "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    peers = Peers("me", SECRET, lambda: {"n1": node.url}, lambda: 12, limits)
    try:
        yield peers, node
    finally:
        peers.close()
        server.close()
        await until(lambda: peers.connections("n1") == 0 and node.ended == node.accepted)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


async def get(peers: Peers, path: str = "/x", seconds: float = 5.0) -> bytes:
    async with await peers.request("n1", "GET", path, seconds=seconds) as reply:
        return await reply.body()


def test_a_call_says_whose_it_is_and_connections_are_kept() -> None:
    async def test() -> None:
        async with calling(OK) as (peers, node):
            for _ in range(5):
                assert await get(peers, "/v1/objects/b/x%20y?a=b") == b"hello"
            assert node.accepted == 1
            head, *lines = node.requests[0].decode().split("\r\n")
            assert head == "GET /v1/objects/b/x%20y?a=b HTTP/1.1"
            assert {"ais-cluster-secret: what-all-nodes-know", "ais-hop: me;12"} <= set(lines)
            assert f"host: {node.url.removeprefix('http://')}" in lines

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_a_reply_cut_short_is_an_error(answer: bytes) -> None:
    async def test() -> None:
        async with calling(answer) as (peers, node):
            node._scripts = [node.says_and_ends(answer)]
            with pytest.raises(PeerUnreachableError, match=r"node n1 at 127\.0\.0\.1") as caught:
                await get(peers)
            assert caught.value.sent
            assert node.accepted == 1

    run(test())


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell"]
)
def test_a_node_that_hangs_is_given_up(answer: bytes) -> None:
    async def test() -> None:
        async with calling(answer) as (peers, node):
            with pytest.raises(PeerUnreachableError, match=r"did not answer within 0\.2 s|sent nothing of a reply"):
                await get(peers, seconds=0.2)
            await until(lambda: node.ended == 1)

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * (64 << 10),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    ],
    ids=range(6),
)
def test_a_node_that_speaks_otherwise_is_refused(answer: bytes) -> None:
    async def test() -> None:
        async with calling(answer) as (peers, node):
            with pytest.raises(PeerUnreachableError, match="a reply that cannot be used"):
                await get(peers)
            await until(lambda: node.ended == 1)

    run(test())


def test_what_comes_after_a_reply_is_no_reply_to_the_next_request() -> None:
    async def test() -> None:
        evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
        async with calling(OK + evil, OK) as (peers, node):
            assert [await get(peers) for _ in range(3)] == [b"hello"] * 3
            assert node.accepted == 2

        async def talks_in_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(evil)
            await reader.read()

        async with calling(talks_in_between, OK) as (peers, node):
            assert await get(peers) == b"hello"
            await until(lambda: node.ended == 1)
            assert await get(peers) == b"hello"

    run(test())


def test_interim_replies_are_passed_over_and_the_last_word_of_a_connection_is_kept() -> None:
    async def test() -> None:
        last = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlast"
        async with calling(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + last) as (peers, node):
            assert [await get(peers) for _ in range(3)] == [b"last"] * 3
            assert node.accepted == 3

    run(test())


def test_a_connection_that_ended_while_idle_is_replaced() -> None:
    async def test() -> None:
        async with calling(OK) as (peers, node):
            node._scripts = [node.says_and_ends(OK), node.says_and_ends(OK), node.says(OK)]
            for method in ("GET", "PUT", "GET"):
                async with await peers.request("n1", method, "/x") as reply:
                    assert await reply.body() == b"hello"

    run(test())


def test_a_read_is_sent_again_once_when_its_idle_connection_ends() -> None:
    """The other side ends the connection on the request: what a node does that closes an idle connection just then."""

    async def test() -> None:
        async def ends_on_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")

        async with calling(ends_on_the_second) as (peers, node):
            assert await get(peers) == b"hello"
            assert await get(peers) == b"hello"
            assert node.accepted == 2
        async with calling(ends_on_the_second) as (peers, node):
            assert await get(peers) == b"hello"
            with pytest.raises(PeerUnreachableError, match="closed the connection before it answered") as caught:
                await peers.request("n1", "PUT", "/x", body=b"data")
            assert caught.value.sent
            assert node.accepted == 1

    run(test())


def test_a_node_that_refuses_is_remembered_for_a_while() -> None:
    async def test() -> None:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{place.getsockname()[1]}"
            peers = Peers("me", SECRET, lambda: {"n1": url}, lambda: 1, LIMITS)
            with pytest.raises(PeerUnreachableError, match="cannot be connected to") as caught:
                await get(peers)
            assert not caught.value.sent
            with pytest.raises(PeerUnreachableError, match="a moment ago"):
                await get(peers)
            place.listen(5)
            place.setblocking(False)
            told = 0
            while True:  # it is asked again, and answers
                calls = asyncio.ensure_future(get(peers))
                accepting = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(place))
                await asyncio.wait((calls, accepting), return_when=asyncio.FIRST_COMPLETED)
                if accepting.done():
                    connection, _ = accepting.result()
                    break
                accepting.cancel()
                with pytest.raises(PeerUnreachableError, match="a moment ago"):
                    calls.result()
                told += 1
                await asyncio.sleep(0.01)
            with connection:
                assert await asyncio.get_running_loop().sock_recv(connection, 65536)
                await asyncio.get_running_loop().sock_sendall(connection, OK)
                assert await calls == b"hello"
            assert told
            peers.close()
            await until(lambda: peers.connections("n1") == 0)

    run(test())


def test_of_many_calls_of_a_silent_node_few_wait_for_the_time_out() -> None:
    async def test() -> None:
        async with calling(b"") as (peers, node):
            with pytest.raises(PeerUnreachableError, match="did not answer within"):
                await get(peers, seconds=0.1)
            outcomes = await asyncio.gather(*(get(peers, seconds=0.1) for _ in range(100)), return_exceptions=True)
            assert all(isinstance(one, PeerUnreachableError) for one in outcomes)
            assert len(node.requests) == 1

    run(test())


def test_a_slow_answer_does_not_make_a_node_silent_that_answers_others() -> None:
    async def test() -> None:
        async with calling(OK) as (peers, node):
            node._scripts = [node.says(b"", pause=True), node.says(OK)]
            slow = asyncio.ensure_future(get(peers, seconds=0.2))
            await until(lambda: len(node.requests) == 1)
            while not slow.done():
                assert await get(peers) == b"hello"
                await asyncio.sleep(0.01)
            with pytest.raises(PeerUnreachableError, match="did not answer within"):
                slow.result()
            assert await get(peers) == b"hello"

    run(test())


def test_connections_are_bounded_and_calls_wait_for_their_turn() -> None:
    async def test() -> None:
        limits = PeerLimits(connections_max=3, stall_seconds=5.0, sweep_seconds=0.02)
        async with calling(OK, limits=limits) as (peers, node):
            assert await asyncio.gather(*(get(peers) for _ in range(200))) == [b"hello"] * 200
            assert node.accepted <= 3
            held = [await peers.request("n1", "GET", "/x") for _ in range(1)]
            for reply in held:
                await reply.body()
        limits = PeerLimits(connections_max=2, stall_seconds=0.1, sweep_seconds=10.0)
        async with calling(b"", limits=limits) as (peers, node):
            calls = [asyncio.ensure_future(get(peers, seconds=60.0)) for _ in range(2)]
            await until(lambda: len(node.requests) == 2)
            with pytest.raises(OverloadedError, match="2 calls of node n1 are under way"):
                await get(peers)
            waits = asyncio.ensure_future(get(peers))
            await asyncio.sleep(0)
            for call in (waits, *calls):
                call.cancel()
            await asyncio.gather(waits, *calls, return_exceptions=True)
            await until(lambda: node.ended == 2)

    run(test())


def test_a_cancelled_call_ends_its_connection() -> None:
    async def test() -> None:
        async with calling(b"") as (peers, node):
            call = asyncio.ensure_future(get(peers))
            await until(lambda: len(node.requests) == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await until(lambda: node.ended == 1 and peers.connections("n1") == 0)

    run(test())


def test_a_reply_that_is_left_ends_its_connection() -> None:
    async def test() -> None:
        async with calling(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello") as (peers, node):
            async with await peers.request("n1", "GET", "/x") as reply:
                assert await reply.next() == b"hello"
            await until(lambda: node.ended == 1 and peers.connections("n1") == 0)

    run(test())


def test_a_slow_reader_slows_the_node_down() -> None:
    """Nothing is read ahead without bound, and a reader may take longer than a node may stall."""

    async def test() -> None:
        size = 64 << 20
        sent = 0

        async def sends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            while sent < size:
                writer.write(bytes(1 << 20))
                await writer.drain()
                sent += 1 << 20
            await reader.read()

        async with calling(sends) as (peers, _), await peers.request("n1", "GET", "/x") as reply:
            first = await reply.next()
            assert first is not None
            before = -1
            while before != sent:  # until it is held up
                before = sent
                await asyncio.sleep(2 * LIMITS.stall_seconds)
            assert sent < size // 2
            rest = 0
            async for piece in reply.chunks():
                rest += len(piece)
            assert len(first) + rest == size

    run(test())


def test_a_body_is_streamed_and_a_node_that_takes_none_is_given_up() -> None:
    async def test() -> None:
        got = 0

        async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal got
            head = await reader.readuntil(b"\r\n\r\n")
            if b"content-length: 33554432" in head:
                got = len(await reader.readexactly(32 << 20))
            else:
                while size := int(await reader.readline(), 16):
                    got += len(await reader.readexactly(size))
                    assert await reader.readline() == b"\r\n"
                assert await reader.readline() == b"\r\n"
            writer.write(OK)
            await reader.read()

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(32):
                yield bytes(1 << 20)

        for length in (32 << 20, None):
            got = 0
            async with calling(takes) as (peers, _):
                async with await peers.request("n1", "PUT", "/x", body=Body(pieces(), length)) as reply:
                    assert await reply.body() == b"hello"
                assert got == 32 << 20
        enough = asyncio.Event()

        async def takes_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await enough.wait()

        async with calling(takes_nothing) as (peers, _):
            with pytest.raises(PeerUnreachableError, match=r"took nothing of a request for 0\.3 s"):
                await peers.request("n1", "PUT", "/x", body=Body(pieces(), 32 << 20))
            enough.set()

    run(test())


def test_an_early_answer_ends_the_sending() -> None:
    async def test() -> None:
        left = asyncio.Event()

        async def forever() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
                    await asyncio.sleep(0.01)
            finally:
                left.set()

        refusal = b"HTTP/1.1 507 Full\r\ncontent-length: 4\r\n\r\nfull"
        async with calling(refusal) as (peers, node):
            async with await peers.request("n1", "PUT", "/x", body=Body(forever(), None)) as reply:
                assert (reply.status, await reply.body()) == (507, b"full")
            await left.wait()
            await until(lambda: node.ended == 1)

    run(test())


def test_a_body_that_fails_ends_the_call_with_its_failure() -> None:
    async def test() -> None:
        async def fails() -> AsyncIterator[bytes]:
            yield b"some"
            raise BadRequestError("the client sent nonsense")

        async with calling(b"") as (peers, node):
            with pytest.raises(BadRequestError, match="nonsense"):
                await peers.request("n1", "PUT", "/x", body=Body(fails(), None))
            await until(lambda: node.ended == 1)

    run(test())


def test_json_gives_values_and_the_errors_of_the_other_node() -> None:
    async def test() -> None:
        def reply(status: int, body: bytes) -> bytes:
            return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)

        missing = b'{"tcode":"ErrObjNotFound","message":"ais://b/x does not exist","status":404}'
        for answer, outcome in ((reply(200, b'{"a":[1]}'), {"a": [1]}), (reply(200, b""), None)):
            async with calling(answer) as (peers, _):
                assert await peers.json("n1", "GET", "/v1/internal/x") == outcome
        async with calling(reply(404, missing)) as (peers, _):
            with pytest.raises(ObjectNotFoundError, match="ais://b/x does not exist"):
                await peers.json("n1", "GET", "/v1/internal/x")
        async with calling(reply(200, b"<html>")) as (peers, _):
            with pytest.raises(PeerUnreachableError, match="not JSON"):
                await peers.json("n1", "GET", "/v1/internal/x")

    run(test())


def test_a_node_that_is_not_on_the_map_or_has_moved() -> None:
    async def test() -> None:
        async with calling(OK) as (_, first), calling(OK) as (_, second):
            urls = {"n1": first.url}
            peers = Peers("me", SECRET, lambda: urls, lambda: 1, LIMITS)
            with pytest.raises(PeerUnreachableError, match="not on the map") as caught:
                await peers.request("n2", "GET", "/x")
            assert not caught.value.sent
            assert await get(peers) == b"hello"
            urls["n1"] = second.url
            assert await get(peers) == b"hello"
            assert (len(first.requests), len(second.requests)) == (1, 1)
            await until(lambda: first.ended == 1)
            urls["n1"] = "https://elsewhere"
            with pytest.raises(PeerUnreachableError, match="expected http://"):
                await get(peers)
            peers.close()
            with pytest.raises(PeerUnreachableError):
                await get(peers)

    run(test())


def test_the_secret_shows_nowhere() -> None:
    async def test() -> None:
        async with calling(b"nonsense\r\n\r\n") as (peers, _):
            with pytest.raises(PeerUnreachableError) as caught:
                await get(peers)
            error: BaseException | None = caught.value
            while error is not None:
                assert SECRET not in f"{error!r} {error}"
                error = error.__cause__ or error.__context__
        with pytest.raises(BadRequestError) as refused:
            Peers("me", Secret("two\r\nlines"), dict, lambda: 1)
        assert "lines" not in str(refused.value)

    run(test())


def test_a_request_that_is_none_is_our_own_mistake() -> None:
    async def test() -> None:
        async with calling(OK) as (peers, _):
            for method, path in (("GET", "/x y"), ("GET", "x"), ("GET", "/x\r\nhost: y"), ("get", "/x"), ("A B", "/x")):
                with pytest.raises(ValueError, match="not a request"):
                    await peers.request("n1", method, path)

    run(test())

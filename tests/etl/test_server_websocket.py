"""One object through a transform that takes WebSockets."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from talking import Caller, RawServer, Talk, talk
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from aistore.errors import ClientGoneError, TransformCrashError, TransformError, TransformTimeoutError


class Messages:
    """A server's side of a WebSocket."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._events: list[Event] = []
        self.pongs = 0

    def event(self) -> Event | None:
        while not self._events:
            data = self._caller.connection.recv(1 << 16)
            if not data:
                return None
            self._protocol.receive_data(data)
            self._events += self._protocol.events()
        return self._events.pop(0)

    def send(self, event: Event) -> None:
        self._caller.send(self._protocol.send(event))

    def message(self) -> bytes | None:
        """Return the next message, which has to be of bytes; None at the end."""
        data = b""
        while (event := self.event()) is not None:
            if isinstance(event, Pong):
                self.pongs += 1
                continue
            if isinstance(event, CloseConnection):
                return None
            assert isinstance(event, BytesMessage), event
            data += event.data
            if event.message_finished:
                return data
        return None


Answer = Callable[[Messages, dict[str, str], bytes], None]


def serving(answer: Answer) -> Callable[[RawServer, Caller], None]:
    """Return a script that answers every object."""

    def script(server: RawServer, caller: Caller) -> None:
        messages = Messages(caller)
        request = messages.event()
        if request is None:
            return
        assert isinstance(request, Request)
        assert request.target == "/ws"
        messages.send(AcceptConnection())
        while (told := messages.message()) is not None:
            ask = json.loads(told)
            server.heard.append(ask)
            data = Path(ask["fqn"]).read_bytes() if "fqn" in ask else messages.message()
            assert data is not None
            answer(messages, ask, data)

    return script


def ws(server: RawServer, use: Callable[[Talk], object], **options: object) -> None:
    talk(server.port, use, communication="ws://", **options)  # type: ignore[arg-type]


def test_objects_share_a_websocket() -> None:
    async def use(t: Talk) -> None:
        for number in range(20):
            assert await t.object(b"word %d" % number, f"dir/{number}", "x" * number) == b"WORD %d" % number

    with RawServer(serving(lambda ws, ask, data: ws.send(BytesMessage(data.upper())))) as server:
        ws(server, use)
    assert server.connections == 1
    assert server.heard[0] == {"path": "bck/dir/0"}
    assert server.heard[3] == {"path": "bck/dir/3", "etl_args": "xxx"}


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, (1 << 20) + 1, 24 << 20])
def test_any_size_there_and_back(size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def use(t: Talk) -> None:
        assert await t.object(data) == data
        assert await t.object(b"more") == b"more"

    with RawServer(serving(lambda ws, ask, data: ws.send(BytesMessage(data)))) as server:
        ws(server, use)
    assert server.connections == 1


def test_a_result_in_many_frames_among_pings() -> None:
    def answer(messages: Messages, ask: dict[str, str], data: bytes) -> None:
        for start in range(0, len(data), 3):
            messages.send(Ping(b"there?"))
            messages.send(BytesMessage(data[start : start + 3], message_finished=start + 3 >= len(data)))
        while messages.pongs < -(-len(data) // 3):
            assert isinstance(messages.event(), Pong)
            messages.pongs += 1
        messages.pongs = 0

    async def use(t: Talk) -> None:
        assert await t.object(b"several words") == b"several words"
        assert await t.object(b"other words") == b"other words"

    with RawServer(serving(answer)) as server:
        ws(server, use)
    assert server.connections == 1


def test_a_text_that_is_no_number_is_an_error() -> None:
    def answer(messages: Messages, ask: dict[str, str], data: bytes) -> None:
        messages.send(TextMessage("no picture: ümlaut") if data == b"bad" else BytesMessage(b"fine"))

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError) as caught:
            await t.object(b"bad")
        assert caught.value.message == "no picture: ümlaut"
        assert await t.object(b"good") == b"fine"

    with RawServer(serving(answer)) as server:
        ws(server, use)
    assert server.connections == 1


def test_a_number_says_that_the_result_was_put() -> None:
    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match="its result of 12 bytes, and nothing came"):
            await t.object(b"o")

    with RawServer(serving(lambda ws, ask, data: ws.send(TextMessage("12")))) as server:
        ws(server, use)


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [(1011, "no picture", "no picture"), (1011, "", "code 1011"), (1009, "", "the object is larger"), (1000, "x", "x")],
)
def test_a_close_says_why(code: int, reason: str, text: str) -> None:
    def answer(messages: Messages, ask: dict[str, str], data: bytes) -> None:
        messages.send(CloseConnection(code, reason) if data == b"bad" else BytesMessage(b"fine"))

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match=text):
            await t.object(b"bad")
        assert await t.object(b"good") == b"fine"

    with RawServer(serving(answer)) as server:
        ws(server, use)
    assert server.connections == 2


@pytest.mark.parametrize("how", ["it ends", "it goes away"])
def test_a_websocket_that_ends_unanswered_is_followed_by_one_more(how: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        def answer(messages: Messages, ask: dict[str, str], data: bytes) -> None:
            if caller.number > 1:
                messages.send(BytesMessage(b"fine"))
            elif how == "it ends":
                raise ConnectionError
            else:
                messages.send(CloseConnection(1001))

        serving(answer)(server, caller)

    async def use(t: Talk) -> None:
        assert await t.object(b"o") == b"fine"

    with RawServer(script) as server:
        ws(server, use)
    assert server.connections == 2


def test_half_a_message_is_a_crash() -> None:
    def answer(messages: Messages, ask: dict[str, str], data: bytes) -> None:
        messages.send(BytesMessage(b"half", message_finished=False))
        raise ConnectionError

    async def use(t: Talk) -> None:
        with pytest.raises(TransformCrashError):
            await t.object(b"o")

    with RawServer(serving(answer)) as server:
        ws(server, use)


def test_a_server_without_websockets() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        caller.request()
        caller.reply(b"what?", "404 Not Found")

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match=r"takes no WebSockets at /ws \(404\)"):
            await t.object(b"o")

    with RawServer(script) as server:
        ws(server, use)


def test_a_server_that_refuses_websockets() -> None:
    def script(server: RawServer, caller: Caller) -> None:
        messages = Messages(caller)
        messages.event()
        messages.send(RejectConnection(status_code=403))

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match=r"takes no WebSockets at /ws \(403\)"):
            await t.object(b"o")

    with RawServer(script) as server:
        ws(server, use)


GARBAGE = {
    "a masked frame": b"\x82\x85aaaabbbbb",
    "a reserved opcode": b"\x83\x01x",
    "a continuation of nothing": b"\x80\x01x",
    "text that is no UTF-8": b"\x81\x02\xff\xfe",
    "HTTP": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage(kind: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        def answer(messages: Messages, ask: dict[str, str], data: bytes) -> None:
            if data == b"bad":
                caller.send(GARBAGE[kind])
            else:
                messages.send(BytesMessage(b"fine"))

        serving(answer)(server, caller)

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match="protocol"):
            await t.object(b"bad")
        assert await t.object(b"good") == b"fine"

    with RawServer(script) as server:
        ws(server, use)


def test_too_much() -> None:
    def answer(messages: Messages, ask: dict[str, str], data: bytes) -> None:
        while data == b"bad":
            messages.send(BytesMessage(b"x" * 10_000, message_finished=False))
        messages.send(BytesMessage(b"fine"))

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match="larger than the limit of 3000000 bytes"):
            await t.object(b"bad")
        assert await t.object(b"good") == b"fine"

    with RawServer(serving(answer)) as server:
        ws(server, use, options={"output_bytes_max": 3_000_000})


@pytest.mark.parametrize("place", ["the handshake", "the object"])
@pytest.mark.parametrize("why", ["time", "client"])
def test_what_takes_too_long_is_ended(place: str, why: str) -> None:
    def script(server: RawServer, caller: Caller) -> None:
        if place == "the handshake" and caller.number == 1:
            caller.read_head()
            caller.wait_for_end()
            return

        def answer(messages: Messages, ask: dict[str, str], data: bytes) -> None:
            if data == b"bad":
                caller.wait_for_end()
                raise ConnectionError
            messages.send(BytesMessage(b"fine"))

        serving(answer)(server, caller)

    async def use(t: Talk) -> None:
        async def gone() -> None:
            while not server.connections:
                await asyncio.sleep(0.01)

        if why == "time":
            with pytest.raises(TransformTimeoutError):
                await t.object(b"bad")
        else:
            with pytest.raises(ClientGoneError):
                await t.object(b"bad", gone=gone)
        assert await t.object(b"good") == b"fine"

    with RawServer(script) as server:
        ws(server, use, seconds=0.4 if why == "time" else 30.0)


def test_files_instead_of_bytes() -> None:
    async def use(t: Talk) -> None:
        assert await t.object(b"words", "dir/name.jpg") == b"WORDS"

    with RawServer(serving(lambda ws, ask, data: ws.send(BytesMessage(data.upper())))) as server:
        ws(server, use, direct_file=True)
    assert server.heard[0]["fqn"].endswith("/name.jpg")  # type: ignore[index]

"""One object through a transform's server by WebSocket (``ws``): one connection for many objects, one after another."""

from __future__ import annotations

import msgspec
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from ...errors import TransformError
from ..running import Result, Running
from .call import Call
from .connection import Body, BrokenConnectionError, Connection
from .pool import Pool
from .replies import ResultWriter
from .requests import object_path

_PATH = "/ws"
_TEXT_CHARACTERS_MAX = 8 << 10
_DIGITS_MAX = 19
#: Codes by which a server says that it ends, and not because of the object (RFC 6455, section 7.4.1).
_GOING_AWAY = (1000, 1001, 1012, 1013)
_TOO_BIG = 1009
_NOT_THE_PROTOCOL = (1002, 1003, 1007)


class WebSocket:
    """An open WebSocket to a transform's server. Whoever has it closes it, or gives it back to its pool."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self._heard = False
        self.idle_since = 0.0
        #: Whether the last message has come whole.
        self.is_at_rest = True

    @classmethod
    async def open(cls, connection: Connection, running: Running) -> WebSocket:
        """Return a WebSocket on ``connection``, which it closes if there will be none.

        Raises TransformError when the server does not speak the protocol, BrokenConnectionError when it says nothing.
        """
        websocket = cls(connection)
        try:
            await websocket._send(Request(host=f"127.0.0.1:{running.port}", target=_PATH))
            event = await websocket.receive()
            if isinstance(event, AcceptConnection):
                return websocket
            status = f" ({event.status_code})" if isinstance(event, RejectConnection) else ""
            raise TransformError(f"the transform's server takes no WebSockets at {_PATH}{status}")
        except OSError:
            websocket.close()
            raise BrokenConnectionError("closed the connection before it answered", heard=False) from None
        except BaseException:
            websocket.close()
            raise

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come since the last message."""
        return not self._events and self._connection.is_quiet

    def begin(self) -> None:
        """Begin with an object."""
        self._heard = self.is_at_rest = False

    def cut(self) -> None:
        """End it at once, so that whoever waits for it goes on."""
        self._connection.cut()

    def close(self) -> None:
        """Give it back to the system."""
        self._connection.close()

    async def send_bytes(self, data: bytes) -> None:
        """Send a message of bytes."""
        await self._send(BytesMessage(data))

    async def send_body(self, body: Body) -> None:
        """Send a message with the bytes of a file: one frame for each piece."""
        sent = 0
        while sent < body.size or not sent:
            piece = await body.piece(sent)
            sent += len(piece)
            await self._send(BytesMessage(piece, message_finished=sent >= body.size))
            if not piece:
                break

    async def receive(self) -> Event:
        """Return the next event but pings, which are answered; raises BrokenConnectionError at the end.

        Raises TransformError when what comes is not the protocol.
        """
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, Ping):
                    await self._send(event.response())
                    continue
                if isinstance(event, Message):
                    self.is_at_rest = event.message_finished
                return event
            data = await self._connection.receive()
            if not data:
                raise BrokenConnectionError("closed the WebSocket before it answered", heard=self._heard)
            self._heard = True
            try:
                self._protocol.receive_data(data)
                self._events = list(self._protocol.events())
            except ProtocolError as error:
                raise TransformError(f"the transform's server does not speak the WebSocket protocol: {error}") from None

    async def _send(self, event: Event) -> None:
        try:
            data = self._protocol.send(event)
        except ProtocolError as error:  # it is closing
            raise BrokenPipeError(str(error)) from None
        await self._connection.send(data)


async def transform(pool: Pool[WebSocket], call: Call, *, fresh: bool) -> Result:
    """Run an object through the server that ``pool`` has WebSockets to.

    Raises TransformError, BrokenConnectionError, what making a connection raises, and what the call's watch says.
    """
    websocket = await pool.take(call.watch, fresh=fresh)
    try:
        websocket.begin()
        call.watch.guard(websocket.cut)
        await _ask(websocket, call)
        return await _answer(websocket, call)
    finally:
        call.watch.guard(None)
        pool.give(websocket, reusable=websocket.is_at_rest and call.watch.error is None)


async def _ask(websocket: WebSocket, call: Call) -> None:
    told = {"path": object_path(call.ask)}
    if call.ask.args:
        told["etl_args"] = call.ask.args
    if call.ask.seed:
        told["seed"] = call.ask.seed
    file = await call.file()
    if file:
        told["fqn"] = file
    if call.running.direct_put:
        await call.files.offer()
    try:
        await websocket.send_bytes(msgspec.json.encode(told))
        if not file:
            await websocket.send_body(call.body())
    except OSError:
        pass  # the server does not listen any more; it may have said why


async def _answer(websocket: WebSocket, call: Call) -> Result:
    """Return the result that a server sends, or has put; raises TransformError for what it says else."""
    writer, text = ResultWriter(call.spool), ""
    try:
        while True:
            event = await websocket.receive()
            if isinstance(event, BytesMessage):
                await writer.add(bytes(event.data))
                if event.message_finished:
                    return await writer.finish()
            elif isinstance(event, TextMessage):
                text += event.data[: _TEXT_CHARACTERS_MAX - len(text)]
                if event.message_finished:
                    return _told(text, call)
            elif isinstance(event, CloseConnection):
                raise _closed(event)
            elif not isinstance(event, RejectData):
                raise TransformError(f"the transform's server sent {type(event).__name__} where a result belongs")
    finally:
        writer.abort()


def _told(text: str, call: Call) -> Result:
    """Return the result that a server says it has put; raises TransformError for any other text."""
    if text.isdecimal() and len(text) <= _DIGITS_MAX:
        return call.files.put(int(text))
    raise TransformError(text.strip() or "the transform's server answered with an empty text")


def _closed(event: CloseConnection) -> Exception:
    code, reason = int(event.code), event.reason or ""
    if code in _GOING_AWAY and not reason:
        return BrokenConnectionError("closed the WebSocket before it answered", heard=False)
    if code in _NOT_THE_PROTOCOL:  # ours, as the library tells it, or the server's
        return TransformError(f"the transform's server does not speak the WebSocket protocol: {reason}")
    if code == _TOO_BIG:
        return TransformError("the object is larger than the transform's server takes over a WebSocket")
    return TransformError(f"the transform's server closed the WebSocket: {reason or f'code {code}'}")

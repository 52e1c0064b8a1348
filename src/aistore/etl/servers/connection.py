"""One TCP connection to a transform's server, the bytes of a request and of a reply on it."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from types import TracebackType

from ...errors import TransformError
from ...wire.http1 import Chunks, Head, MalformedReplyError, parse_head
from ..passing import Passing

#: Larger bodies are read in a thread, piece by piece: they may be on a disk.
_INLINE_BYTES_MAX = 8 << 20
_PIECE_BYTES = 256 << 10
#: So much of a reply waits to be taken; then the server has to. Guessed: four readings of the socket.
_BUFFERED_BYTES_MAX = 1 << 20
#: Heads of interim replies (100 Continue and the like) before one reply. Guessed.
_INTERIM_MAX = 8


class BrokenConnectionError(Exception):
    """The server ended a connection before its reply was whole; ``heard`` says whether any of it had come."""

    def __init__(self, why: str, *, heard: bool) -> None:
        super().__init__(why)
        self.heard = heard


class Body:
    """What is sent with a request: an object."""

    def __init__(self, source: Passing, threads: Executor) -> None:
        self._source = source
        self._threads = threads
        self.size = source.size

    @property
    def in_memory(self) -> bool:
        """Whether all of it is in memory anyhow."""
        return self._source.data is not None

    def whole(self) -> bytes:
        """Return all of it."""
        return self._source.read(0, self.size)

    async def piece(self, start: int) -> bytes:
        """Return the piece that begins at ``start``."""
        length = min(_PIECE_BYTES, self.size - start)
        if self.size <= _INLINE_BYTES_MAX:
            return self._source.read(start, length)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._source.read, start, length)


class Connection(asyncio.Protocol):
    """A connection to a transform's server. Whoever has it closes it or gives it back; one task reads it.

    ``sender`` is the same connection for a thread that is not the event loop's. It has a descriptor of its own: the
    loop closes its one when the server ends the connection, and its number may be another file's by then.
    """

    def __init__(self, sender: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until it is made
        self.sender = sender
        self._poll = select.poll()
        self._poll.register(sender.fileno(), select.POLLIN)
        self._pieces: deque[bytes] = deque()
        self._buffered = self._due = 0
        self._reading, self._ended = True, False
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._hear: Callable[[], None] | None = None
        self.idle_since = 0.0

    @classmethod
    async def on(cls, connected: socket.socket) -> Connection:
        """Return a connection on a socket that is connected, and its own from now on."""
        sender: socket.socket | None = None
        try:
            sender = connected.dup()
            connection = cls(sender)
            await connection._loop.create_connection(lambda: connection, sock=connected)
        except BaseException:
            connected.close()
            if sender is not None:
                sender.close()
            raise
        return connection

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for: on an idle connection that is mostly its end."""
        return self.has_heard_all and not self._poll.poll(0)

    @property
    def has_heard_all(self) -> bool:
        """Whether all that has come so far, as the event loop knows it, was taken, and the connection goes on."""
        return not (self._pieces or self._ended or self._transport.is_closing())

    def write(self, *data: bytes) -> None:
        """Send bytes, however long the server takes to take them; raises OSError."""
        if self._ended:
            raise BrokenPipeError("the connection has ended")
        self._transport.writelines(data)

    async def send(self, data: bytes) -> None:
        """Send bytes, and wait until there is room for more; raises OSError."""
        self.write(data)
        if self._writable is not None:
            await self._writable

    async def send_body(self, body: Body) -> None:
        """Send a file in pieces."""
        sent = 0
        while sent < body.size:
            piece = await body.piece(sent)
            await self.send(piece)
            sent += len(piece)

    @property
    def has_sent(self) -> bool:
        """Whether the system has taken all that was sent."""
        return not self._transport.get_write_buffer_size()

    async def receive(self, due: int = 1) -> bytes:
        """Return what comes next; nothing at the end of the connection, however it ended.

        Of as many bytes as are ``due`` it waits for some hundred KiB together: each waking costs as much as they do.
        """
        if not self._pieces:
            if self._ended:
                return b""
            self._due = min(due, _BUFFERED_BYTES_MAX // 4)
            self._readable = self._loop.create_future()
            try:
                await self._readable
            finally:
                self._readable = None
            if not self._pieces:
                return b""
        piece = self._pieces.popleft()
        self._buffered -= len(piece)
        if not self._reading and self._buffered < _BUFFERED_BYTES_MAX // 4 and not self._ended:
            self._reading = True
            self._transport.resume_reading()
        return piece

    def put_back(self, data: bytes) -> None:
        """Have ``receive`` return these bytes first: they belong to what comes next."""
        if data:
            self._pieces.appendleft(data)
            self._buffered += len(data)

    def listen(self, hear: Callable[[], None] | None) -> None:
        """Call ``hear`` when something comes, or the end, in place of whoever waits in ``receive``; or no longer.

        What comes is kept for ``receive``. May be called by a thread that is not the event loop's.
        """
        self._due = 1
        self._hear = hear

    def wait_for(self, due: int) -> None:
        """Have ``hear`` called when that many bytes are there that nobody has taken."""
        self._due = due

    @property
    def buffered(self) -> int:
        """How many bytes are there that nobody has taken."""
        return self._buffered

    @property
    def has_ended(self) -> bool:
        """Whether nothing will come any more."""
        return self._ended

    def heard(self) -> bytes:
        """Return what has come, without taking it."""
        if len(self._pieces) > 1:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            self._pieces.append(whole)
        return self._pieces[0] if self._pieces else b""

    def take_heard(self, skip: int) -> bytes:
        """Take all that has come, and return it without its first bytes."""
        first, *more = self._pieces
        self._pieces.clear()
        self._buffered = 0
        return b"".join((memoryview(first)[skip:], *more)) if more else first[skip:]

    def cut(self) -> None:
        """End it at once, so that whoever waits for it goes on."""
        self._transport.abort()

    def close(self) -> None:
        """End it and give it back to the system."""
        self.sender.close()
        self._transport.abort()

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered > _BUFFERED_BYTES_MAX and self._reading:
            self._reading = False
            self._transport.pause_reading()
        if self._buffered >= self._due:
            self._wake()

    def eof_received(self) -> bool:
        """End it: a server that says no more listens no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self._ended = True
        self._wake()
        self.resume_writing()

    def _wake(self) -> None:
        _wake(self._readable)
        if self._hear is not None:
            self._hear()

    def pause_writing(self) -> None:
        """Wait for the server to take what was sent."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Go on sending."""
        writable, self._writable = self._writable, None
        _wake(writable)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


class Exchange:
    """A request and its reply, as a context: what is still being sent at its end is given up."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending: asyncio.Task[None] | None = None
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self._left = 0
        self._ended = False

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    @property
    def is_clean(self) -> bool:
        """Whether the connection can be used again: all was sent, all has come, and the server wants to go on."""
        sent = self._sending is None or (self._sending.done() and self._sending.exception() is None)
        return (
            sent
            and self._connection.has_sent
            and self._ended
            and self._head is not None
            and self._head.keep_alive
            and self._connection.has_heard_all
        )

    async def begin(self, head: bytes, body: Body | None) -> Head:
        """Send a request and return the head of its reply, which may come before all of the request was sent.

        Raises BrokenConnectionError, and TransformError for what is no HTTP.
        """
        try:
            if body is None:
                self._connection.write(head)
            elif body.in_memory:
                self._connection.write(head, body.whole())
            else:
                self._connection.write(head)
                self._sending = asyncio.ensure_future(self._connection.send_body(body))
        except OSError:
            pass  # the server does not listen any more; it may have said why
        return await self._reply()

    async def follow(self, unsent: bytes) -> Head:
        """Return the head of the reply to a request of which all was sent but ``unsent``; raises as ``begin``."""
        if unsent:
            with contextlib.suppress(OSError):
                self._connection.write(unsent)
        return await self._reply()

    async def _reply(self) -> Head:
        try:
            self._head = await self._receive_head()
        except MalformedReplyError as error:
            raise _unusable(error) from None
        self._chunks = Chunks() if self._head.length is None and not self._head.ends_with_connection else None
        self._left = self._head.length or 0
        self._ended = self._head.length == 0
        return self._head

    async def _receive_head(self) -> Head:
        data, interim = b"", 0
        while True:
            piece = await self._connection.receive()
            if not piece:
                raise BrokenConnectionError("closed the connection before it answered", heard=bool(data or interim))
            data += piece
            while (head := parse_head(data, bodiless=False, until_end=True)) is not None:
                data = data[head.size :]
                if head.status >= 200:
                    self._connection.put_back(data)
                    return head
                interim += 1
                if interim > _INTERIM_MAX:
                    raise MalformedReplyError("it does not come to its end")
                if not data:
                    break

    async def next(self) -> bytes:
        """Return the next piece of the reply's body, nothing after the last.

        Raises BrokenConnectionError when it is cut, TransformError when it cannot be read.
        """
        while not self._ended:
            data = await self._connection.receive(self._left)
            if not data:
                if self._head is not None and self._head.ends_with_connection:
                    self._ended = True
                    break
                raise BrokenConnectionError("closed the connection in the middle of its reply", heard=True)
            piece = self._take(data)
            if piece:
                return piece
        return b""

    def _take(self, data: bytes) -> bytes:
        """Return what of ``data`` belongs to the body."""
        if self._chunks is not None:
            try:
                pieces, rest = self._chunks.feed(data)
            except MalformedReplyError as error:
                raise _unusable(error) from None
            self._connection.put_back(rest)
            self._ended = self._chunks.ended
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._head is not None and self._head.ends_with_connection:
            return data
        piece = data[: self._left]
        self._left -= len(piece)
        self._connection.put_back(data[len(piece) :])
        self._ended = not self._left
        return piece


def _unusable(why: MalformedReplyError) -> TransformError:
    return TransformError(f"the transform's server sent a reply that cannot be used: {why}")

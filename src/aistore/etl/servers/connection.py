"""One TCP connection to a transform's server, the bytes of a request and of a reply on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from concurrent.futures import Executor
from types import TracebackType

from ...errors import TransformError
from ...wire.http1 import Chunks, Head, MalformedReplyError, parse_head

#: So much of a request goes out in one step, before anything of its reply is looked for: a server's side of the
#: connection takes it in even if the server itself does not read. Derived: half of the smallest receive buffer.
_ONE_STEP_BYTES_MAX = 64 << 10
#: Larger bodies are read in a thread, piece by piece: they may be on a disk.
_INLINE_BYTES_MAX = 8 << 20
_PIECE_BYTES = 256 << 10
_RECEIVE_BYTES = 64 << 10
#: Heads of interim replies (100 Continue and the like) before one reply. Guessed.
_INTERIM_MAX = 8


class BrokenConnectionError(Exception):
    """The server ended a connection before its reply was whole; ``heard`` says whether any of it had come."""

    def __init__(self, why: str, *, heard: bool) -> None:
        super().__init__(why)
        self.heard = heard


class Body:
    """What is sent with a request: the first ``size`` bytes of a file."""

    def __init__(self, descriptor: int, size: int, threads: Executor) -> None:
        self._descriptor = descriptor
        self._threads = threads
        self.size = size

    def whole(self) -> bytes:
        """Return all of it."""
        return os.pread(self._descriptor, self.size, 0) if self.size else b""

    async def piece(self, start: int) -> bytes:
        """Return the piece that begins at ``start``."""
        arguments = (self._descriptor, min(_PIECE_BYTES, self.size - start), start)
        if self.size <= _INLINE_BYTES_MAX:
            return os.pread(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, os.pread, *arguments)


class Connection:
    """A connection to a transform's server. Whoever has it closes it, or gives it back to its pool."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self.idle_since = 0.0
        with contextlib.suppress(OSError):  # a Unix socket has none
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for: on an idle connection that is mostly its end."""
        if self._unread:
            return False
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    async def send(self, data: bytes) -> None:
        """Send bytes; raises OSError."""
        await self._loop.sock_sendall(self._socket, data)

    async def send_body(self, body: Body) -> None:
        """Send a file in pieces."""
        sent = 0
        while sent < body.size:
            piece = await body.piece(sent)
            await self.send(piece)
            sent += len(piece)

    async def receive(self) -> bytes:
        """Return what comes next; nothing at the end of the connection, however it ended."""
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        try:
            return await self._loop.sock_recv(self._socket, _RECEIVE_BYTES)
        except OSError:
            return b""

    def put_back(self, data: bytes) -> None:
        """Have ``receive`` return these bytes first: they belong to what comes next."""
        self._unread = data

    def cut(self) -> None:
        """End it at once, so that whoever waits for it goes on; closing it is left to them."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back. Nobody may be waiting for it."""
        self._socket.close()


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
        return sent and self._ended and self._head is not None and self._head.keep_alive and self._connection.is_quiet

    async def begin(self, head: bytes, body: Body | None) -> Head:
        """Send a request and return the head of its reply, which may come before all of the request was sent.

        Raises BrokenConnectionError, and TransformError for what is no HTTP.
        """
        try:
            if body is None or body.size <= _ONE_STEP_BYTES_MAX:
                await self._connection.send(head + body.whole() if body is not None else head)
            else:
                await self._connection.send(head)
                self._sending = asyncio.ensure_future(self._connection.send_body(body))
        except OSError:
            pass  # the server does not listen any more; it may have said why
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
            data = await self._connection.receive()
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

"""The reply to a call of another node, as whoever called sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol

from ...errors import PeerUnreachableError, TooLargeError
from ...wire.http1 import Head

#: So much of a reply waits for whoever reads it; then the other node has to. Guessed: four readings of the socket.
_BUFFERED_BYTES_MAX = 1 << 20


class _Source(Protocol):
    """What a reply comes from: its connection."""

    def abandon(self) -> None:
        """Give up the rest of the reply."""

    def read_on(self) -> None:
        """Go on reading."""


class PeerReply:
    """The reply to one call: status and headers, and the body as it comes.

    Has to be closed (it is a context manager), which ends the connection if the body was not read to its end. One task
    reads it.
    """

    __slots__ = (
        "_buffered", "_connection", "_ended", "_error", "_pieces", "_wake", "headers", "heard", "length", "status",
    )  # fmt: skip

    def __init__(self, connection: _Source) -> None:
        self._connection: _Source | None = connection
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._ended = False
        self._error: PeerUnreachableError | None = None
        self._wake: asyncio.Future[None] | None = None
        #: 0 until the head is there.
        self.status = 0
        #: As they came, names in lower case.
        self.headers: list[tuple[bytes, bytes]] = []
        #: Of the body; None if it comes in chunks.
        self.length: int | None = None
        #: Whether anything of a reply came.
        self.heard = False

    def header(self, name: str) -> str:
        """Return a header's first value, nothing if there is none."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), "")

    async def begun(self) -> None:
        """Wait for the head; raises PeerUnreachableError."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._change()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; raises PeerUnreachableError when it is cut, so that it never passes for whole."""
        while (piece := await self.next()) is not None:
            yield piece

    async def next(self) -> bytes | None:
        """Return the next piece of the body, None after the last; raises PeerUnreachableError when it is cut."""
        while not self._pieces:
            if self._ended:
                return None
            if self._error is not None:
                raise self._error
            await self._change()
        piece = self._pieces.popleft()
        self._buffered -= len(piece)
        if self._connection is not None and self._buffered < _BUFFERED_BYTES_MAX // 4:
            self._connection.read_on()
        return piece

    async def body(self, limit: int = 16 << 20) -> bytes:
        """Return the whole body; raises TooLargeError beyond ``limit`` bytes."""
        pieces: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > limit:
                raise TooLargeError(f"another node's reply is larger than {limit} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Give up what of the reply has not come yet."""
        connection = self._connection
        if connection is not None:
            connection.abandon()

    async def __aenter__(self) -> PeerReply:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What the connection tells.

    def take_head(self, head: Head) -> None:
        """Take the head."""
        self.status, self.headers, self.length = head.status, head.headers, head.length
        self._notify()

    def take(self, piece: bytes) -> bool:
        """Take some of the body; False: enough for now."""
        self._pieces.append(piece)
        self._buffered += len(piece)
        self._notify()
        return self._buffered <= _BUFFERED_BYTES_MAX

    def end(self, error: PeerUnreachableError | None) -> None:
        """Take note that nothing more comes: the reply is whole, or there was an ``error``."""
        self._connection = None
        self._ended, self._error = error is None, error
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _change(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

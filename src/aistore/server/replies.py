"""Replies: values that know how to send themselves."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

Message = dict[str, Any]
#: A whole reply: its start and its body.
Messages = tuple[Message, Message]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[str, str]]


class Reply(Protocol):
    """What a handler returns."""

    status: int

    async def send(self, send: Send, *, head: bool) -> None:
        """Send the reply; without its body when ``head`` (the request was a HEAD)."""


def _encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(_encoded_name(name), value.encode("latin-1", "replace")) for name, value in headers]


@functools.cache  # their names are this program's own, two dozen
def _encoded_name(name: str) -> bytes:
    return name.encode("latin-1")


class Bytes:
    """A reply whose body is in memory."""

    __slots__ = ("_data", "_headers", "status")

    def __init__(
        self, data: bytes, headers: Headers = (), *, status: int = 200, media_type: str = "application/octet-stream"
    ) -> None:
        self._data = data
        self.status = status
        self._headers = _encode(headers)
        self._headers.append((b"content-type", media_type.encode()))

    def messages(self, *, head: bool) -> tuple[Message, Message]:
        """Return the whole reply; the length is always given."""
        self._headers.append((b"content-length", b"%d" % len(self._data)))
        return (
            {"type": "http.response.start", "status": self.status, "headers": self._headers},
            {"type": "http.response.body", "body": b"" if head else self._data, "more_body": False},
        )

    async def send(self, send: Send, *, head: bool) -> None:
        """Send status, headers and body in one go."""
        for message in self.messages(head=head):
            await send(message)


def json_reply(value: object, headers: Headers = (), *, status: int = 200) -> Bytes:
    """Return ``value`` as JSON."""
    return Bytes(msgspec.json.encode(value), headers, status=status, media_type="application/json")


def text_reply(text: str, headers: Headers = (), *, status: int = 200) -> Bytes:
    """Return plain text."""
    return Bytes(text.encode(), headers, status=status, media_type="text/plain; charset=utf-8")


class Empty:
    """A reply without a body. ``length`` is what a GET would have sent: HEAD of an object. None says nothing: 304."""

    __slots__ = ("_headers", "status")

    def __init__(self, headers: Headers = (), *, status: int = 200, length: int | None = 0) -> None:
        self.status = status
        self._headers = _encode(headers)
        if length is not None:
            self._headers.append((b"content-length", str(length).encode()))

    def messages(self, *, head: bool) -> tuple[Message, Message]:
        """Return the whole reply."""
        return (
            {"type": "http.response.start", "status": self.status, "headers": self._headers},
            {"type": "http.response.body", "body": b"", "more_body": False},
        )

    async def send(self, send: Send, *, head: bool) -> None:
        """Send status and headers."""
        for message in self.messages(head=head):
            await send(message)


class Pieces:
    """A part of something with a descriptor, sent in pieces that are read in threads, one ahead.

    ``read(start, length)`` returns exactly ``length`` bytes. ``close`` is called once, whatever happens. A failure
    after the first byte can only cut the connection short of the declared length, which every client notices.
    """

    __slots__ = ("_close", "_headers", "_length", "_piece", "_read", "_start", "_threads", "status")

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        start: int,
        length: int,
        headers: Headers,
        *,
        threads: Executor,
        close: Callable[[], None],
        piece_bytes: int,
        status: int = 200,
    ) -> None:
        self._read, self._start, self._length = read, start, length
        self._threads, self._close, self._piece = threads, close, piece_bytes
        self.status = status
        self._headers = _encode(headers)
        self._headers.append((b"content-type", b"application/octet-stream"))
        self._headers.append((b"content-length", str(length).encode()))

    async def send(self, send: Send, *, head: bool) -> None:
        """Send status, headers and then every piece."""
        ahead: asyncio.Future[bytes] | None = None
        try:
            if not head:
                ahead = self._read_piece(0)
                await asyncio.wait((ahead,))
                ahead.result()  # a failure of the first piece can still become an error reply
            await send({"type": "http.response.start", "status": self.status, "headers": self._headers})
            done = 0
            while ahead is not None:
                piece = await ahead
                done += len(piece)
                ahead = self._read_piece(done) if done < self._length else None
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if ahead is not None and not ahead.done():
                await asyncio.wait((ahead,))  # the thread still uses the descriptor
            self._close()

    def _read_piece(self, done: int) -> asyncio.Future[bytes]:
        length = min(self._piece, self._length - done)
        return asyncio.get_running_loop().run_in_executor(self._threads, self._read, self._start + done, length)


class Stream:
    """A reply of unknown length, chunk by chunk as it comes."""

    __slots__ = ("_chunks", "_headers", "status")

    def __init__(self, chunks: AsyncGenerator[bytes, None], headers: Headers = (), *, media_type: str) -> None:
        self._chunks = chunks
        self.status = 200
        self._headers = _encode(headers)
        self._headers.append((b"content-type", media_type.encode()))

    async def send(self, send: Send, *, head: bool) -> None:
        """Send status, headers, then each chunk; a failing source cuts the connection. Closes the source."""
        async with aclosing(self._chunks):
            await send({"type": "http.response.start", "status": self.status, "headers": self._headers})
            if not head:
                async for chunk in self._chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

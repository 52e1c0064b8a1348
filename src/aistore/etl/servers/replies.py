"""What a transform's server answers: a result in memory or in a file, or why there is none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from ...errors import TransformCrashError, TransformError
from ...model.etl import OUTPUT_BYTES_MAX
from ...wire.http1 import Head, MalformedReplyError, parse_head
from ...wire.messages import without_markup
from .. import exchange
from ..running import Result
from .connection import BrokenConnectionError, Exchange

#: Larger results go to a file in the spool directory as they come, so that memory does not bound how many there are.
MEMORY_BYTES_MAX = 1 << 20
#: How much of an error's text is read, and how much of it is told.
_ERROR_BYTES_READ, _ERROR_BYTES_TOLD = 64 << 10, 8 << 10
#: Where a second reply is looked for.
_TAIL_BYTES = 16 << 10

DIRECT_PUT_LENGTH = b"ais-direct-put-length"
RETRY_REASON = b"ais-etl-retry-reason"
_TRANSIENT = "direct-put-transient"


class TryAgainError(Exception):
    """The server asks for the object once more; the text is its error."""


@dataclass(frozen=True, slots=True)
class Spool:
    """Where results go that are too large for memory, and how large one may be; ``threads`` wait for the disk."""

    directory: str
    threads: Executor
    bytes_max: int = OUTPUT_BYTES_MAX


class ResultWriter:
    """Takes a result piece by piece. Ends with ``finish`` or ``abort``."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._pieces: list[bytes] = []
        self._pending = 0
        self._size = 0
        self._descriptors: tuple[int, int] | None = None  # of one file: for writing, for reading
        self._writing: asyncio.Future[None] | None = None

    async def add(self, piece: bytes) -> None:
        """Take a piece; raises TransformError when the result gets too large."""
        self._size += len(piece)
        if self._size > self._spool.bytes_max:
            raise too_large(self._spool.bytes_max)
        self._pieces.append(piece)
        self._pending += len(piece)
        if self._pending > MEMORY_BYTES_MAX:
            await self._flush()

    async def finish(self) -> Result:
        """Return the result."""
        if self._descriptors is None:
            return Result(self._size, b"".join(self._pieces))
        await self._flush()
        (writing, reading), self._descriptors = self._descriptors, None
        os.close(writing)
        return Result(self._size, None, reading)

    def abort(self) -> None:
        """Give up what has come. May be called after ``finish``."""
        descriptors, self._descriptors = self._descriptors or (), None
        if self._writing is None or self._writing.done():
            _close(descriptors)
        else:  # its thread still writes to it
            self._writing.add_done_callback(lambda _: _close(descriptors))

    async def _flush(self) -> None:
        if self._descriptors is None:
            self._descriptors = exchange.unlinked_file(self._spool.directory)
        pieces, self._pieces, self._pending = self._pieces, [], 0
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._spool.threads, _write_pieces, self._descriptors[0], pieces)
        await asyncio.shield(self._writing)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _write_pieces(descriptor: int, pieces: list[bytes]) -> None:
    for piece in pieces:
        exchange.write_all(descriptor, piece)


def too_large(bytes_max: int) -> TransformError:
    """Return the error of a result that is larger than ``bytes_max``."""
    return TransformError(f"the result is larger than the limit of {bytes_max} bytes")


async def read_result(reply: Exchange, head: Head, spool: Spool) -> Result:
    """Return the body of a reply as a result; raises TransformError, BrokenConnectionError."""
    if head.length is not None and head.length > spool.bytes_max:
        raise too_large(spool.bytes_max)
    writer = ResultWriter(spool)
    try:
        while piece := await reply.next():
            await writer.add(piece)
        return await writer.finish()
    finally:
        writer.abort()


async def read_error(reply: Exchange, head: Head) -> TransformError:
    """Return the error that a reply tells; raises TryAgainError if the server wants the object again."""
    data = b""
    try:
        while len(data) < _ERROR_BYTES_READ and (piece := await reply.next()):
            data += piece
    except BrokenConnectionError:
        pass  # what came of the text is better than nothing
    text = _text(head, data)
    if head.status == 503 and head.header(RETRY_REASON) == _TRANSIENT:
        raise TryAgainError(text or "the transform could not put its result where it should be")
    if head.status < 400:
        return TransformError(f"the transform's server answered with status {head.status}, which is no result")
    return TransformError(text or f"the transform's server answered with status {head.status} and said nothing")


def _text(head: Head, body: bytes) -> str:
    text = body[:_ERROR_BYTES_TOLD].decode("utf-8", "replace").strip()
    return without_markup(text) if head.header(b"content-type").startswith("text/html") else text


def check_unmarked_end(result: Result, head: Head, *, empty: bool) -> None:
    """Look whether a result without an end of its own is one; closes it and raises TransformError if not.

    Python's own web server, on which one of the field's classes is built, says nothing of a length when it streams.
    What fails on the way then is nothing at all, which is a result only of an ``empty`` object, or a second reply
    behind the bytes of the first.
    """
    error: TransformError | None = None
    if not result.size and not empty:
        error = TransformCrashError("the transform's server closed the connection before any of its result")
    length = min(result.size, _TAIL_BYTES)
    tail = result.data[result.size - length :] if result.data is not None else result.read(result.size - length, length)
    second = _second_reply(tail, head)
    if second is not None:
        error = TransformError(_text(second, tail[-(second.length or 0) :]))
    if error is not None:
        result.close()
        raise error


def _second_reply(tail: bytes, first: Head) -> Head | None:
    """Return the head of the error that the last bytes of a result are, by the server that has sent the first head."""
    start = tail.rfind(b"HTTP/1.")
    if start < 0:
        return None
    try:
        second = parse_head(tail[start:], bodiless=False)
    except MalformedReplyError:
        return None
    if second is None or second.status < 400 or second.length != len(tail) - start - second.size:
        return None
    return second if second.header(b"server") == first.header(b"server") else None


def length_put(head: Head) -> int | None:
    """Return how many bytes a transform says it has put elsewhere, None if it does not say."""
    text = head.header(DIRECT_PUT_LENGTH)
    if not text:
        return None
    if not text.isdecimal() or len(text) > 19:
        raise TransformError(f"the transform's server says that it put {text[:64]!r} bytes, which is no number")
    return int(text)

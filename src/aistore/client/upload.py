"""What a PUT sends: bytes, a file or a stream, measured and hashed beforehand where that is possible."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import xxhash

from ..errors import BadRequestError

#: Guessed: large enough that Python's share per byte is small, small enough to start sending at once.
CHUNK_BYTES = 256 << 10

#: What can be put: bytes, the path of a file, or an open binary file. A ``str`` is a path, never contents.
Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True, slots=True)
class Upload:
    """A body of a request.

    ``length`` in bytes and ``checksum`` (hex of XXH64) are None for a stream that can be read only once; such a body
    is sent chunked, never sent again, and hashed into ``digest`` on the way. ``open`` gives the bytes from the start,
    each time it is called.
    """

    open: Callable[[], bytes | Iterator[bytes]]
    length: int | None
    checksum: str | None
    digest: xxhash.xxh64 | None = None

    @property
    def replayable(self) -> bool:
        """Whether the request may be sent a second time."""
        return self.length is not None

    def sent_checksum(self) -> str:
        """Return the checksum of what was sent; of a stream only after it was sent."""
        if self.checksum is not None:
            return self.checksum
        assert self.digest is not None
        return self.digest.hexdigest()


def upload_of(source: Source) -> Upload:
    """Return how ``source`` is sent. A file is read twice: its checksum goes before its bytes.

    Raises OSError if the file cannot be read, TypeError for what has no bytes.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        return Upload(lambda: data, len(data), xxhash.xxh64_hexdigest(data))
    if isinstance(source, str | os.PathLike):
        return _upload_of_path(os.fspath(source))
    if hasattr(source, "read"):
        return _upload_of_file(source)
    raise TypeError(f"cannot put a {type(source).__name__}: expected bytes, a path or an open binary file")


def _upload_of_path(path: str) -> Upload:
    with open(path, "rb") as file:
        if not os.path.isfile(path):  # a pipe or a device can be read only once
            data = file.read()
            return Upload(lambda: data, len(data), xxhash.xxh64_hexdigest(data))
        length, checksum = _measure(file)

    def reopen() -> Iterator[bytes]:
        with open(path, "rb") as again:
            yield from _pieces(again, length, path)

    return Upload(reopen, length, checksum)


def _upload_of_file(file: BinaryIO) -> Upload:
    if isinstance(file, io.TextIOBase):
        raise TypeError("cannot put a file opened as text: open it with mode 'rb'")
    name = str(getattr(file, "name", "the stream"))
    try:
        start = file.tell() if file.seekable() else None
    except (AttributeError, OSError):
        start = None
    if start is None:
        digest = xxhash.xxh64()
        return Upload(lambda: _hashed(_pieces(file, None, name), digest), None, None, digest)
    length, checksum = _measure(file)

    def rewind() -> Iterator[bytes]:
        file.seek(start)
        return _pieces(file, length, name)

    return Upload(rewind, length, checksum)


def _measure(file: BinaryIO) -> tuple[int, str]:
    digest, length = xxhash.xxh64(), 0
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        length += len(chunk)
    return length, digest.hexdigest()


def _hashed(pieces: Iterator[bytes], digest: xxhash.xxh64) -> Iterator[bytes]:
    for piece in pieces:
        digest.update(piece)
        yield piece


def _pieces(file: BinaryIO, length: int | None, name: str) -> Iterator[bytes]:
    """Yield ``length`` bytes of ``file`` (all, when None); a file that shrank or fails ends the request."""
    sent = 0
    while length is None or sent < length:
        try:
            chunk = file.read(CHUNK_BYTES if length is None else min(CHUNK_BYTES, length - sent))
        except OSError as error:
            raise BadRequestError(f"cannot read {name}: {error.strerror or error}") from error
        if not chunk:
            if length is not None:
                raise BadRequestError(f"{name} became shorter while it was sent ({sent} of {length} bytes)")
            return
        sent += len(chunk)
        yield chunk

"""Reading an object: streaming, resumed after a broken connection, verified at the end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Protocol

import xxhash
from msgspec import structs

from ..errors import (
    ChecksumMismatchError,
    ConflictError,
    NotFoundError,
    RangeNotSatisfiableError,
    StoreUnreachableError,
)
from ..model.names import BucketRef
from ..model.objects import Checksum, ObjectInfo
from ..wire import headers as wire_headers
from .foreign import stored_info
from .transport import Reply, Request, Transport

#: What iteration yields at a time. Guessed: a MiB costs Python nothing to speak of and keeps memory flat.
CHUNK_BYTES = 1 << 20


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def _digest_for(checksum: Checksum) -> _Digest | None:
    """Return what computes ``checksum``; None for a type that this client cannot compute, or for none at all."""
    if not checksum.value:
        return None
    if checksum.type == "xxhash2":
        return xxhash.xxh64()
    if checksum.type in ("md5", "sha256", "sha512"):
        return hashlib.new(checksum.type, usedforsecurity=False)
    return None


class ObjectReader:
    """The bytes of one object, or of what a transform made of it.

    Read it once: with `read`, by iteration, or as a context manager that ends the connection if you stop early. When
    a stored object was read whole, its checksum is verified (ChecksumMismatchError). A connection that breaks while a
    stored object is read is resumed where it broke; if the object was replaced meanwhile that is a ConflictError,
    never a mixture of two versions.
    """

    def __init__(self, transport: Transport, request: Request, bucket: BucketRef, name: str, *, stored: bool) -> None:
        self._transport = transport
        self._request = request
        self._stored = stored
        self._label = f"{bucket}/{name}"
        self._reply = transport.send(request)
        try:
            self._start, total = _placed(self._reply)
            told = self._reply.headers
            info = (
                stored_info(transport.endpoint, bucket.name, name, told)
                if stored
                else wire_headers.info_from_headers(bucket.name, name, told)
            )
        except BaseException:
            self._reply.close()
            raise
        self._length = info.size if "content-length" in self._reply.headers else None
        self._info = info if total is None else structs.replace(info, size=total)
        whole = stored and self._start == 0 and self._length == self._info.size
        self._digest = _digest_for(info.checksum) if whole else None
        self._position = 0
        self._failures = 0
        self._broke_at = 0.0

    @property
    def info(self) -> ObjectInfo:
        """What the store said of the object in this reply; for a transformed one ``size`` is 0 if not announced."""
        return self._info

    @property
    def length(self) -> int | None:
        """Bytes that this reader gives in all; None when a transform's output was not measured beforehand."""
        return self._length

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(CHUNK_BYTES):
            yield chunk

    def read(self, size: int | None = -1) -> bytes:
        """Return ``size`` bytes, fewer only at the end; all that is left without a size."""
        if size is not None and size >= 0:
            return self._read_exactly(size)
        if self._length is not None:
            return self._read_exactly(self._length - self._position)
        pieces = []
        while piece := self._read_exactly(CHUNK_BYTES):
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """End the connection unless everything was read. May be called twice."""
        self._reply.close()

    def _read_exactly(self, size: int) -> bytes:
        data = self._read_some(size)
        if len(data) == size or self._ended():
            return data
        pieces, missing = [data], size - len(data)
        while missing and not self._ended():
            piece = self._read_some(missing)
            if not piece:
                break
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _ended(self) -> bool:
        return self._length is not None and self._position >= self._length

    def _read_some(self, size: int) -> bytes:
        """Read once, resuming before and not within: what was received is never dropped."""
        if self._length is not None:
            size = min(size, self._length - self._position)
        if size <= 0:
            if self._ended():
                self._finish()
            return b""
        try:
            data = self._reply.read(size)
            if not data and self._length is not None:
                raise StoreUnreachableError(f"the reply ended after {self._position} of {self._length} bytes")
        except StoreUnreachableError as error:
            self._resume(error)
            return self._read_some(size)
        if data:
            self._failures = 0
        self._position += len(data)
        if self._digest is not None:
            self._digest.update(data)
        if not data or self._ended():
            self._finish()
        return data

    def _finish(self) -> None:
        self._reply.close()
        digest, self._digest = self._digest, None
        if digest is not None and digest.hexdigest() != self._info.checksum.value:
            raise ChecksumMismatchError(
                f"{self._label}: the bytes received have {self._info.checksum.type} "
                f"{digest.hexdigest()}, the store says {self._info.checksum.value}",
                hint="read it again; if it stays so, the stored copy is damaged",
            )

    def _resume(self, error: StoreUnreachableError) -> None:
        """Open the rest of the object, or raise ``error`` if that cannot be done safely."""
        self._reply.close()
        self._failures += 1
        if self._failures == 1:
            self._broke_at = time.monotonic()
        pause = self._transport.settings.retry.pause_after_failure(self._failures, time.monotonic() - self._broke_at)
        identified = self._info.version > 0 or bool(self._info.checksum.value)
        if not self._stored or self._length is None or not identified or pause is None:
            raise error
        time.sleep(pause)
        first = self._start + self._position
        last = self._start + self._length - 1
        headers = {**self._request.headers, "Range": f"bytes={first}-{last}"}
        try:
            reply = self._transport.send(replace(self._request, headers=headers))
        except (NotFoundError, RangeNotSatisfiableError) as refusal:
            raise self._changed(f"now the store says: {refusal.message}") from refusal
        self._reply = reply
        now = stored_info(self._transport.endpoint, self._info.bucket, self._info.name, reply.headers)
        started, _ = _placed(reply)
        was = self._info
        same = (now.version, now.created_ns) == (was.version, was.created_ns)
        # Of what another program wrote to an object store a checksum is known once there is a copy of it.
        same = same and (now.checksum == was.checksum or not (now.checksum.value and was.checksum.value))
        if reply.status != 206 or started != first or not same:
            reply.close()
            raise self._changed(f"it was version {self._info.version} and is version {now.version}")

    def _changed(self, detail: str) -> ConflictError:
        return ConflictError(f"{self._label} changed while it was read: {detail}", hint="read it again")


def _placed(reply: Reply) -> tuple[int, int | None]:
    """Return where in the object a reply starts, and the size of the whole object if the reply is a part of it."""
    text = reply.headers.get("content-range", "")
    if reply.status != 206 or not text.startswith("bytes "):
        return 0, None
    span, _, total = text.removeprefix("bytes ").partition("/")
    return int(span.partition("-")[0]), int(total) if total.isdigit() else None

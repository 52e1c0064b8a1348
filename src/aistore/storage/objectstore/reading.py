"""A Reading of one version of an object in an object store."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import xxhash

from ...errors import BackendUnavailableError, InternalError, ObjectDamagedError, StaleConditionError
from ...model.objects import ByteRange, ObjectInfo
from ..checksums import STORED_TYPE
from ..verified import wrong_checksum
from .contract import ObjectStore, StoredBody
from .whole import WHOLE_BYTES_MAX, WholeBody


class StoredReading:
    """Reads ranges of the version that was opened; what is read in order comes from one request.

    A store keeps no version for who is reading it: when the object is replaced meanwhile, ``read`` raises
    BackendUnavailableError, it never returns bytes of another version. ``body`` are bytes on their way from the start
    of the object, None where nothing was asked for yet. Of what is asked for later no more than ``part`` is, if all
    that will be read is known to be in there.
    """

    def __init__(
        self, store: ObjectStore, key: str, info: ObjectInfo, etag: str, body: StoredBody | None,
        part: ByteRange | None = None,
    ) -> None:  # fmt: skip
        self.info = info
        self.path: str | None = None
        self._store = store
        self._key = key
        self._etag = etag
        self._part = part if part is not None else ByteRange(0, info.size)
        self._lock = threading.Lock()
        self._position = 0
        self._end = info.size
        self._body: StoredBody | None = body
        self._chunks: Iterator[Any] | None = None
        self._ahead = memoryview(b"")
        self._whole = None if info.size else b""

    def keep(self) -> None:
        """Fetch all of a small object now, so that nothing can happen to it any more; blocks."""
        if self._whole is None and self.info.size <= WHOLE_BYTES_MAX:
            self._whole = self.read(0, self.info.size)
            self.close()

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; see the class. Blocks."""
        size = self.info.size
        if start < 0 or length < 0 or start + length > size:
            raise InternalError(f"{self._name}: bytes {start} to {start + length} of {size}")
        if self._whole is not None:
            return self._whole if length == size else self._whole[start : start + length]
        with self._lock:
            data = self._fetch(start, length)
        return self._verified(data) if length == size else data

    def read_cached(self, start: int, length: int) -> bytes | None:
        """Return the bytes of an object that is here as a whole."""
        if isinstance(self._body, WholeBody):
            self.keep()
        return self.read(start, length) if self._whole is not None or length == 0 else None

    def peek(self) -> bytes | None:
        """Return the bytes of an object that is here as a whole."""
        return self.read_cached(0, self.info.size)

    def damaged(self, problem: str) -> ObjectDamagedError:
        """Return the error for bytes that are not those that were stored."""
        return ObjectDamagedError(
            f"{self._name} is damaged: it {problem}", hint=f"the bytes came so from {self._store.url}; write it again"
        )

    def suspected(self) -> bool:
        """Say no: what a store sends once says nothing about the next time."""
        return False

    def close(self) -> None:
        """Let the connection go. May be called twice."""
        body, self._body, self._chunks, self._ahead = self._body, None, None, memoryview(b"")
        if body is not None:
            with contextlib.suppress(BackendUnavailableError):
                body.close()

    @property
    def _name(self) -> str:
        return f"{self._store.url}/{self._key}"

    def _fetch(self, start: int, length: int) -> bytes:
        if not length:
            return b""
        if self._body is None or start != self._position or start + length > self._end:
            self._open(start, length)
        pieces: list[memoryview] = []
        left = length
        while left:
            if not self._ahead:
                self._ahead = self._next()
            piece = self._ahead[:left]
            self._ahead = self._ahead[len(piece) :]
            pieces.append(piece)
            left -= len(piece)
        self._position += length
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def _next(self) -> memoryview:
        assert self._body is not None
        if self._chunks is None:
            self._chunks = self._body.chunks()
        for chunk in self._chunks:
            if len(chunk):
                return memoryview(chunk)
        raise BackendUnavailableError(f"{self._name}: less than all of it was sent", hint="read it again")

    def _open(self, start: int, length: int) -> None:
        """Ask for the bytes from ``start``: to the end of the part if it has all that is wanted, else of the object."""
        self.close()
        part = self._part
        inside = part.start <= start and start + length <= part.start + part.length
        end = part.start + part.length if inside else self.info.size
        whole = start == 0 and end == self.info.size
        try:
            body = self._store.get(self._key, start, None if whole else end - start, if_etag=self._etag)
        except StaleConditionError as error:
            raise BackendUnavailableError(
                f"{self._name} was replaced or removed while it was read", hint="read it again"
            ) from error
        assert body is not None
        if body.info.size != self.info.size:  # a store without conditions
            body.close()
            raise BackendUnavailableError(f"{self._name} was replaced while it was read", hint="read it again")
        self._body, self._position, self._end = body, start, end

    def _verified(self, data: bytes) -> bytes:
        checksum = self.info.checksum
        if checksum.type == STORED_TYPE:
            found = xxhash.xxh64_hexdigest(data)
            if found != checksum.value:
                raise self.damaged(wrong_checksum(found, checksum.value))
        return data

    def __enter__(self) -> StoredReading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

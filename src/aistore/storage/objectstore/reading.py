"""A Reading of one version of an object in an object store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import xxhash

from ...errors import BackendUnavailableError, InternalError, ObjectDamagedError, StaleConditionError
from ...model.objects import ObjectInfo
from ..checksums import STORED_TYPE
from ..verified import wrong_checksum
from .contract import ObjectStore, StoredBody


class StoredReading:
    """Reads ranges of the version that was opened; what is read in order comes from one request.

    A store keeps no version for who is reading it: when the object is replaced meanwhile, ``read`` raises
    BackendUnavailableError, it never returns bytes of another version. Up to ``KEPT_BYTES`` are fetched at the opening,
    and then nothing can happen to them.
    """

    KEPT_BYTES = 1 << 20

    def __init__(self, store: ObjectStore, key: str, info: ObjectInfo, etag: str, body: StoredBody | None) -> None:
        self.info = info
        self.path: str | None = None
        self._store = store
        self._key = key
        self._etag = etag
        self._lock = threading.Lock()
        self._position = 0
        self._body: StoredBody | None = body
        self._chunks: Iterator[Any] | None = None
        self._rest = b""
        self._whole: bytes | None = None
        if info.size <= self.KEPT_BYTES:
            self._whole = self._verified(body.read() if body is not None else b"")
            self.close()

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; see the class."""
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
        return self.read(start, length) if self._whole is not None else None

    def damaged(self, problem: str) -> ObjectDamagedError:
        """Return the error for bytes that are not those that were stored."""
        return ObjectDamagedError(
            f"{self._name} is damaged: it {problem}", hint=f"the bytes came so from {self._store.url}; write it again"
        )

    def suspected(self) -> bool:
        """Say no: what a store sends once says nothing about the next time."""
        return False

    def close(self) -> None:
        """Let the connection go."""
        body, self._body, self._chunks, self._rest = self._body, None, None, b""
        if body is not None:
            body.close()

    @property
    def _name(self) -> str:
        return f"ais://{self.info.bucket}/{self.info.name}"

    def _fetch(self, start: int, length: int) -> bytes:
        if self._body is None or start != self._position:
            self.close()
            self._body = self._opened(start)
            self._position = start
        if self._chunks is None:
            self._chunks = self._body.chunks()
        pieces, got = [self._rest], len(self._rest)
        while got < length:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise BackendUnavailableError(f"{self._name}: {self._store.url} sent less than all of it")
            pieces.append(bytes(chunk))
            got += len(pieces[-1])
        data = b"".join(pieces)
        self._rest = data[length:]
        self._position = start + length
        return data[:length]

    def _opened(self, start: int) -> StoredBody:
        try:
            body = self._store.get(self._key, start, if_etag=self._etag)
        except StaleConditionError as error:
            raise BackendUnavailableError(
                f"{self._name} was replaced or removed while it was read", hint="read it again"
            ) from error
        assert body is not None
        return body

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

"""Objects that are read from their store, piece by piece, without a copy here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ...cluster.coherence import Remote
from ...errors import BackendUnavailableError, ObjectDamagedError, StaleConditionError
from ...storage.objectstore.contract import ObjectStore, StoredBody


class RemoteReading:
    """A Reading of one version of an object in its store. ``read`` blocks; pieces are best read in order."""

    def __init__(self, remote: Remote, store: ObjectStore, key: str) -> None:
        self.info = remote.info
        self.path: str | None = None
        self._etag = remote.facts.etag
        self._store = store
        self._key = key
        self._body: StoredBody | None = remote.body
        self._chunks: Iterator[Any] | None = None
        self._position = 0
        self._ahead = memoryview(b"")

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; raises BackendUnavailableError when the object was replaced."""
        if start != self._position or self._body is None:
            self._open(start)  # from elsewhere, or the bytes were used up here
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
        raise BackendUnavailableError(f"{self._store.url}: {self._key} ended before it was whole", hint="try again")

    def _open(self, start: int) -> None:
        self.close()
        try:
            self._body = self._store.get(self._key, start, if_etag=self._etag)
        except StaleConditionError:
            raise BackendUnavailableError(
                f"{self._store.url}: {self._key} was replaced while it was read", hint="read it again"
            ) from None
        self._position = start

    def read_cached(self, start: int, length: int) -> bytes | None:
        """Return None: nothing is here."""
        return b"" if length == 0 else None

    def damaged(self, problem: str) -> ObjectDamagedError:
        """Return the error for bytes that the store did not keep."""
        return ObjectDamagedError(f"{self._store.url}: {self._key} is damaged: it {problem}")

    def suspected(self) -> bool:
        """Say no: nothing is noted of objects in stores."""
        return False

    def close(self) -> None:
        """Let the connection go. May be called twice."""
        body, self._body, self._chunks, self._ahead = self._body, None, None, memoryview(b"")
        if body is not None:
            with contextlib.suppress(BackendUnavailableError):
                body.close()

    def __enter__(self) -> RemoteReading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Bytes on their way from an object store."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ...errors import BackendUnavailableError
from .contract import StoredInfo
from .failures import LIBRARY_ERRORS, translate

CHUNK_BYTES = 1 << 20


class ObstoreBody:
    """A StoredBody over the library's answer to one GET. A connection that breaks is continued by the library."""

    __slots__ = ("_result", "_what", "info", "length", "start")

    def __init__(self, info: StoredInfo, start: int, length: int, result: Any, what: str) -> None:
        self.info = info
        self.start = start
        self.length = length
        self._result = result
        self._what = what

    def chunks(self) -> Iterator[Any]:
        """Yield the bytes in pieces of 1 MiB and the rest; raises BackendUnavailableError."""
        result, self._result = self._result, None
        if result is None:
            return
        left = self.length
        try:
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                left -= len(chunk)
                yield chunk
        except LIBRARY_ERRORS as error:
            raise translate(error, self._what) from error
        self._check(left)

    def read(self) -> bytes:
        """Return all bytes; raises BackendUnavailableError."""
        result, self._result = self._result, None
        if result is None:
            return b""
        try:
            data = bytes(result.bytes())
        except LIBRARY_ERRORS as error:
            raise translate(error, self._what) from error
        self._check(self.length - len(data))
        return data

    def close(self) -> None:
        """Let the connection go."""
        self._result = None

    def _check(self, left: int) -> None:
        if left:
            raise BackendUnavailableError(
                f"{self._what}: the answer was {abs(left)} bytes too {'short' if left > 0 else 'long'}",
                hint="the object changed while it was read, or a proxy in between cut it; read it again",
            )

    def __enter__(self) -> ObstoreBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EmptyBody:
    """A StoredBody of no bytes."""

    __slots__ = ("info", "length", "start")

    def __init__(self, info: StoredInfo, start: int) -> None:
        self.info = info
        self.start = start
        self.length = 0

    def chunks(self) -> Iterator[Any]:
        """Yield nothing."""
        return iter(())

    def read(self) -> bytes:
        """Return no bytes."""
        return b""

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def __enter__(self) -> EmptyBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

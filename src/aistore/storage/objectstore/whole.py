"""Bytes of an object store that are all here."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from .contract import StoredInfo

#: Objects up to this size are best read whole at once: one piece of a body, and of a reply.
WHOLE_BYTES_MAX = 1 << 20


class WholeBody:
    """A StoredBody in memory. Unlike others it may be read again, by several at a time."""

    __slots__ = ("_data", "info", "length", "start")

    def __init__(self, info: StoredInfo, data: bytes) -> None:
        self.info = info
        self.start = 0
        self.length = len(data)
        self._data = data

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes."""
        yield self._data

    def read(self) -> bytes:
        """Return the bytes."""
        return self._data

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def __enter__(self) -> WholeBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

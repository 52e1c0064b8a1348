"""Copies opened for reading: the engine's readings, with what the store says of the object."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from ...errors import ObjectDamagedError
from ...model.objects import ObjectInfo
from ..engine import Reading
from ..local.hot import HotObject
from ..memory import BytesReading
from .facts import CachedFacts


class OpenedCopy:
    """A CachedReading of what the engine has opened."""

    __slots__ = ("_reading", "facts", "info", "path", "peek", "read", "read_cached")

    def __init__(self, reading: Reading, info: ObjectInfo, facts: CachedFacts) -> None:
        self._reading = reading
        self.info = info
        self.facts = facts
        #: None: the file may be gone a second after the copy was evicted.
        self.path: str | None = None
        self.read = reading.read
        self.read_cached = reading.read_cached
        self.peek = reading.peek

    def damaged(self, problem: str) -> ObjectDamagedError:
        """Note that the copy is bad, and return the error to raise."""
        return self._reading.damaged(problem)

    def suspected(self) -> bool:
        """Say whether damage of the copy was noted before."""
        return self._reading.suspected()

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        self._reading.close()

    def __enter__(self) -> OpenedCopy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.close()


class KeptCopy(BytesReading):
    """A CachedKept: made once of what the engine keeps in memory, and kept with that."""

    __slots__ = ("facts", "replies", "slot")

    def __init__(self, kept: HotObject, info: ObjectInfo, facts: CachedFacts, slot: int) -> None:
        super().__init__(info, kept.read(0, info.size))
        self.facts = facts
        self.replies: dict[str, Any] = {}
        self.slot = slot

"""Small objects that this process read lately, kept in its memory: a read of one needs no system call at all.

Measured with 20 KB objects whose pages were cached by the kernel: of the 44 us that a read took in the HTTP worker,
12 were the look-up in the index, 7 opening and closing the file, 8 to 15 reading it. Under a server the calls cost
more than that, because each lets the interpreter lock go and has to win it back. Whether a kept object is still the one
in the index is told by stamps.py.

A full cache takes in one of eight newcomers only. Training reads every object once per epoch, in a new order: with
"the newest replaces the oldest" a data set twice the size of the cache would hardly ever be found in it, and each read
would pay for throwing another object out.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any, NamedTuple

from ...model.objects import ObjectInfo
from ..memory import BytesReading
from .stamps import EVERYTHING, Stamps, slot_of

#: What a kept object costs beside its bytes. Measured: its description, names and tuples, and the headers of two
#: replies, come to 3.1 KB.
_OVERHEAD_BYTES = 3 << 10
#: No object may take more than this share of the cache.
_SHARE_MAX = 256
_ADMITTED_WHEN_FULL = 8  # one of so many


class Ticket(NamedTuple):
    """What a reader saw before it looked into the index, all of it clean.

    The object's word in its mountpath's table, and the first mountpath's word of everything, which speaks for all.
    """

    words: memoryview
    slot: int
    stamp: int
    everything: int


class HotObject(BytesReading):
    """A kept object, which is its own Reading: everybody who finds it gets the same one."""

    __slots__ = ("replies", "ticket")

    def __init__(self, info: ObjectInfo, data: bytes, ticket: Ticket) -> None:
        super().__init__(info, data)
        self.ticket = ticket
        self.replies: dict[str, Any] = {}


class HotObjects:
    """The cache. Its methods may be called from different threads."""

    def __init__(self, stamps: Stamps, bytes_max: int) -> None:
        self._words = stamps.words
        self._bytes_max = bytes_max
        self._bytes = 0
        self._objects: dict[tuple[str, str], HotObject] = {}
        self._lock = threading.Lock()
        self._newcomers = itertools.count()

    def find(self, bucket: str, name: str) -> HotObject | None:
        """Return an object if it is kept and nobody changed it since."""
        found = self._objects.get((bucket, name))
        if found is None:
            return None
        words, slot, stamp, everything = found.ticket
        if words[slot] == stamp and self._words[EVERYTHING] == everything:
            return found
        with self._lock:
            if self._objects.get((bucket, name)) is found:
                self._drop((bucket, name))
        return None

    def ticket(self, words: memoryview, everything: int, bucket: str, key: bytes) -> Ticket | None:
        """Return what ``keep`` needs, taken before the look-up; None while the object is being changed.

        ``words`` are those of the mountpath it is looked up in, ``everything`` the word of the catalog that led there.
        """
        slot = slot_of(bucket, key)
        stamp = words[slot]
        return None if (stamp | everything) & 1 else Ticket(words, slot, stamp, everything)

    def fits(self, size: int) -> bool:
        """Say whether an object of ``size`` bytes may be kept."""
        return (size + _OVERHEAD_BYTES) * _SHARE_MAX <= self._bytes_max

    def keep(self, info: ObjectInfo, data: bytes, ticket: Ticket) -> None:
        """Keep an object that was looked up after ``ticket`` was taken, if there is room or it is its turn."""
        key = (info.bucket, info.name)
        cost = len(data) + _OVERHEAD_BYTES
        full = self._bytes + cost > self._bytes_max
        if not self.fits(len(data)) or (full and next(self._newcomers) % _ADMITTED_WHEN_FULL):
            return
        with self._lock:
            if key in self._objects:
                self._drop(key)
            while self._objects and self._bytes + cost > self._bytes_max:
                self._drop(next(iter(self._objects)))
            self._objects[key] = HotObject(info, data, ticket)
            self._bytes += cost

    def clear(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            self._objects.clear()
            self._bytes = 0

    def _drop(self, key: tuple[str, str]) -> None:
        self._bytes -= self._objects.pop(key).info.size + _OVERHEAD_BYTES

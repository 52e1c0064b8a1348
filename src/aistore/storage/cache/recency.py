"""When each object of a cache was used last, in memory that all processes of a node share: one byte per hashed key.

A byte is the *tick* of the last use, 1 to 255; 0 is long ago. The evicting process advances the tick about once a
minute while the cache is used; at the last one all are halved, so that what is long ago is told apart less well.
Objects that share a byte are taken for as young as the youngest of them. Nothing here is locked: what gets lost between
two processes makes an object look older or younger by some ticks, and costs at worst a fetch.

The file is only a hint: it may be lost, and a new one says that nothing was ever used.
"""

from __future__ import annotations

import errno
import mmap
import os
import zlib
from typing import Any

#: Slots. Derived: 4 MiB of memory for all processes; ten million objects are two or three to a slot.
_SLOTS = 1 << 22
_HEAD = mmap.PAGESIZE
_SIZE = _HEAD + _SLOTS
TICK_MAX = 255

# Words of the head: the tick is its first byte.
_WANTED, _PINNED_OBJECTS, _PINNED_BYTES = 1, 2, 3
_HALVED = bytes(value // 2 for value in range(256))


class Recency:
    """The table, mapped into this process."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _fill(descriptor)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        #: The tick first, then the bytes of keys from ``slot_of`` on.
        self.ticks = memoryview(self._map)
        self._words = self.ticks[:_HEAD].cast("Q")
        if not self.ticks[0]:
            self.ticks[0] = 1

    def touch(self, slot: int) -> None:
        """Note that the key of a slot is used now."""
        ticks = self.ticks
        ticks[slot] = ticks[0]

    @property
    def now(self) -> int:
        """The tick."""
        return self.ticks[0]

    def advance(self) -> bool:
        """Begin the next tick if anything was used in this one; for the evicting process. Takes a millisecond."""
        now = self.ticks[0]
        if self._map.find(bytes((now,)), _HEAD) < 0:
            return False
        if now == TICK_MAX:
            # Piece by piece, because what is used meanwhile may be lost in the piece at hand.
            for start in range(_HEAD, _SIZE, _HEAD):
                self._map[start : start + _HEAD] = self._map[start : start + _HEAD].translate(_HALVED)
            now = TICK_MAX // 2
        self.ticks[0] = now + 1
        return True

    def want(self, size: int) -> None:
        """Say that ``size`` bytes found no room."""
        self._words[_WANTED] = max(self._words[_WANTED], size)

    def wanted(self) -> int:
        """Return how many bytes found no room since this was asked last."""
        wanted, self._words[_WANTED] = self._words[_WANTED], 0
        return wanted

    @property
    def pinned(self) -> tuple[int, int]:
        """How many objects, and bytes of them, eviction passed by in its last scan because they are pinned."""
        return self._words[_PINNED_OBJECTS], self._words[_PINNED_BYTES]

    @pinned.setter
    def pinned(self, value: tuple[int, int]) -> None:
        self._words[_PINNED_OBJECTS], self._words[_PINNED_BYTES] = value

    def close(self) -> None:
        """Unmap the table. May be called twice."""
        self._words.release()
        self.ticks.release()
        self._map.close()

    def __enter__(self) -> Recency:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def slot_of(bucket: str, name: str) -> int:
    """Return the place of a key's byte in ``Recency.ticks``."""
    return _HEAD + zlib.crc32(name.encode("utf-8", "surrogatepass"), zlib.crc32(bucket.encode())) % _SLOTS


def _fill(descriptor: int) -> None:
    """Make the file as long as it has to be: written, because touching a hole on a full disk ends a process."""
    size = os.fstat(descriptor).st_size
    while size < _SIZE:  # two processes may do so at once: bytes are 0 until then, and used after it
        written = os.pwrite(descriptor, bytes(min(1 << 20, _SIZE - size)), size)
        if not written:
            raise OSError(errno.ENOSPC, "the disk is full")
        size += written

"""What can be set on a cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ...errors import BadRequestError
from ...observe import layout
from ..local.settings import LocalSettings

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(%|(?:[KMGT]i?)?B?)", re.IGNORECASE)
#: The user's metadata, a letter more for each of its keys, and our own entry.
_CUSTOM_BYTES_MAX = 16 << 10
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Pin(NamedTuple):
    """Objects that are never evicted: those of a bucket whose names begin with ``prefix``."""

    provider: str
    bucket: str
    prefix: str = ""


class CacheCounts(NamedTuple):
    """The words of this process's table that count what happens in a cache (observe/layout.py)."""

    hits: int
    misses: int
    evicted: int
    evicted_bytes: int


COPY_COUNTS = CacheCounts(layout.CACHE_HITS, layout.CACHE_MISSES, layout.EVICTED, layout.EVICTED_BYTES)
#: Of results of transforms, whose hits are counted by who asks for them, for each transform.
RESULT_COUNTS = CacheCounts(layout.UNCOUNTED, layout.UNCOUNTED, layout.RESULTS_EVICTED, layout.RESULTS_EVICTED_BYTES)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Settings of a cache; every process of a node uses the same.

    The capacity is ``capacity_bytes``, or ``capacity_percent`` of the disk if that is 0. What is kept counts with the
    bytes of objects alone.
    """

    capacity_bytes: int = 0
    #: Guessed: enough left for what deleted files hold for seconds, for the index, and for a file system to work well.
    capacity_percent: float = 80.0
    #: From this share of the capacity on the least recently used is evicted, down to the other. Guessed: the room above
    #: takes what a fast store delivers in the second until eviction begins, the room between is a run of eviction.
    high_percent: float = 95.0
    low_percent: float = 90.0
    pinned: tuple[Pin, ...] = ()
    #: Objects read lately that each process keeps in memory, see storage/local/hot.py.
    hot_bytes_max: int = 64 << 20
    #: As of LocalSettings.
    reserve_bytes: int = 64 << 20
    #: Objects of up to this many bytes have no file before they are committed. Derived: what is sent in one message.
    staged_in_memory_max: int = 1 << 20
    counts: CacheCounts = COPY_COUNTS

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        assert self.capacity_bytes >= 0
        assert 0 < self.capacity_percent <= 100
        assert 0 < self.low_percent <= self.high_percent <= 100

    def capacity(self, disk_bytes: int) -> int:
        """Return the capacity in bytes on a disk of ``disk_bytes``."""
        return self.capacity_bytes or int(disk_bytes * self.capacity_percent / 100)

    def local(self) -> LocalSettings:
        """Return the settings of the engine that keeps the copies."""
        return LocalSettings(
            reserve_bytes=self.reserve_bytes, hot_bytes_max=self.hot_bytes_max, custom_bytes_max=_CUSTOM_BYTES_MAX,
            staged_in_memory_max=self.staged_in_memory_max,
        )  # fmt: skip


def parse_capacity(text: str) -> CacheSettings:
    """Return settings with the capacity that an operator wrote: ``80%``, ``500GiB``, ``2TB``, a number of bytes.

    Units are powers of 1,024 with an ``i``, else of 1,000. Raises BadRequestError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise BadRequestError(
            f"cache size {text!r} is not a size", hint="expected bytes, as 500GiB, or a share, as 80%"
        )
    number, unit = float(match[1]), match[2].lower().removesuffix("b")
    if unit == "%":
        if not 0 < number <= 100:
            raise BadRequestError(f"cache size {text!r} is not a share of a disk", hint="expected 1% to 100%")
        return CacheSettings(capacity_percent=number)
    size = int(number * (1024 if unit.endswith("i") else 1000) ** _UNITS[unit.removesuffix("i")])
    if size < 1:
        raise BadRequestError(f"cache size {text!r} holds nothing", hint="expected more than 0 bytes")
    return CacheSettings(capacity_bytes=size)

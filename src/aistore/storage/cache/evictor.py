"""Keeps a cache within its bounds: one process of a node calls ``Evictor.step`` in a loop.

When the copies have more bytes than the high watermark, or the disk has little room left whoever fills it, the least
recently used go until the low watermark is reached. A run has two passes over the index, each in small steps: the first
adds up bytes by the tick of their last use (recency.py), which gives the tick up to which copies go; the second removes
them. Among copies of one tick the run goes on where the last one ended, so that no name is always the first to go.

A copy whose key is locked is passed by: somebody fetches or writes it. One that is being read can be evicted: who has
opened it reads on.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable
from concurrent.futures import Future
from typing import NamedTuple

from ...errors import NotFoundError, OverloadedError
from ...model.objects import ListOptions, ObjectInfo
from ...observe.counters import COUNTERS
from ..arguments import listing_bounds
from ..local import index
from .cache import Cache
from .facts import CacheBucket
from .keylocks import KeyLock
from .recency import TICK_MAX, slot_of
from .settings import Pin

_log = logging.getLogger("aistore.storage")

#: Guessed: an epoch of training takes minutes to hours, so this tells its beginning from its end.
TICK_SECONDS = 60.0
#: A tick is over as well when the cache has grown by this share. Guessed: a cache that fills within minutes needs to
#: tell its first objects from its last.
_TICK_GROWTH = 32
#: Rows of one step of the first pass: some milliseconds. Of the second: a transaction's worth.
_SCAN_ROWS = 4096
_EVICT_ROWS = 512
_EVICT_OBJECTS = 128
#: What is evicted for a full disk is on the disk for so long: until then it is not known how much more has to go.
#: Derived: the wait of keeper.py, a round of reclaiming, and the unlinking.
_RECLAIM_SECONDS = 4.0
#: After a run that did not find enough to evict. Guessed: pins and locks do not change sooner.
_PAUSE_SECONDS = 10.0
#: How often what is pinned is counted. Guessed; a million rows take a tenth of a second.
_PINNED_SECONDS = 60.0

_ROWS = """SELECT o.bucket, o.name, o.size, b.name FROM objects o JOIN buckets b ON o.bucket = b.id
    WHERE (o.bucket, o.name) > (?, ?) ORDER BY o.bucket, o.name LIMIT ?"""
_PINNED = "SELECT count(*), coalesce(sum(size), 0) FROM objects WHERE bucket = ? AND name >= ?"
_BEGINNING = (-1, b"")


class _Copy(NamedTuple):
    """A row: where the next pass goes on, and what it is."""

    place: tuple[int, bytes]
    size: int
    key: str
    name: str

    @property
    def slot(self) -> int:
        """Its byte among the ticks."""
        return slot_of(self.key, self.name)


class _Run:
    """One eviction of ``goal`` bytes."""

    def __init__(self, goal: int) -> None:
        self.goal = goal
        self.evicted = 0
        self.by_tick = [0] * (TICK_MAX + 1)
        self.place = _BEGINNING
        #: The last tick to go; -1 while the first pass is under way.
        self.cut = -1
        self.wrapped = False

    def decide(self) -> None:
        """Find the tick up to which there are bytes enough."""
        self.cut, found = 0, self.by_tick[0]
        while found < self.goal and self.cut < TICK_MAX:
            self.cut += 1
            found += self.by_tick[self.cut]


class Evictor:
    """Evicts copies of one cache, which the caller closes. For use by one thread."""

    def __init__(self, cache: Cache, *, tick_seconds: float = TICK_SECONDS) -> None:
        self._cache = cache
        self._tick_seconds = tick_seconds
        self._connection = index.connect(f"{cache.places.objects}/mp0/index.db")
        self._pinned: tuple[Pin, ...] = ()
        self._run: _Run | None = None
        self._hand = _BEGINNING
        self._next_tick = float("-inf")
        self._tick_bytes = 0
        self._next_count = float("-inf")
        self._disk_not_before = float("-inf")
        self._not_before = float("-inf")
        self._warned = False
        self.pin(cache.settings.pinned)

    def pin(self, pins: Iterable[Pin]) -> None:
        """Never evict what these name, and only that."""
        self._pinned = tuple(pins)
        self._next_count = float("-inf")

    def step(self, now: float) -> bool:
        """Do one bounded piece of work; return whether there may be more at once (else wait a second at most).

        ``now`` is a time in seconds that does not go back. Raises sqlite3.Error, OSError, AisError for what is no
        matter of a full disk.
        """
        if self._run is None:
            self._look_around(now)
        run = self._run
        if run is None:
            return False
        if run.cut < 0:
            self._add_up(run)
        elif not self._evict_some(run):
            self._end(run, now)
            return False
        return True

    def close(self) -> None:
        """Give the connection back. May be called twice."""
        self._connection.close()

    def _look_around(self, now: float) -> None:
        usage = self._cache.usage()
        if now >= self._next_tick or usage.bytes - self._tick_bytes > usage.capacity_bytes // _TICK_GROWTH:
            self._next_tick = now + self._tick_seconds
            self._tick_bytes = usage.bytes
            self._cache.recency.advance()
        if now >= self._next_count:
            self._next_count = now + _PINNED_SECONDS
            self._cache.recency.pinned = self._count_pinned()
        goal = min(self._excess(usage.bytes, usage.capacity_bytes, now), usage.bytes)
        if goal > 0 and now >= self._not_before:
            self._run = _Run(goal)

    def _excess(self, used: int, capacity: int, now: float) -> int:
        """Return how many bytes have to go."""
        settings = self._cache.settings
        low = int(capacity * settings.low_percent / 100)
        wanted = min(self._cache.recency.wanted(), low)
        excess = used + wanted - low if used + wanted > capacity * settings.high_percent / 100 else 0
        space = os.statvfs(self._cache.places.objects)
        floor = min(2 * settings.reserve_bytes, space.f_blocks * space.f_frsize // 10)
        missing = floor + wanted - space.f_bavail * space.f_frsize
        if missing > 0 and now >= self._disk_not_before:
            self._disk_not_before = now + _RECLAIM_SECONDS
            excess = max(excess, missing)
        return excess

    def _add_up(self, run: _Run) -> None:
        copies = self._rows(run.place, _SCAN_ROWS)
        ticks, now = self._cache.recency.ticks, self._cache.recency.now
        for copy in copies:
            if not self._is_pinned(copy):
                run.by_tick[min(ticks[copy.slot], now)] += copy.size
        if copies:
            run.place = copies[-1].place
        else:
            run.decide()
            run.place = self._hand

    def _evict_some(self, run: _Run) -> bool:
        """Remove some of the oldest; return False at the end of the run."""
        copies = self._rows(run.place, _EVICT_ROWS)
        if not copies:
            run.place = _BEGINNING
            if run.wrapped or self._hand == _BEGINNING:
                return False
            run.wrapped = True
            return True
        ticks, left = self._cache.recency.ticks, run.goal - run.evicted
        chosen: list[tuple[_Copy, KeyLock]] = []
        try:
            for copy in copies:
                run.place = copy.place
                if run.wrapped and copy.place > self._hand:
                    left = 0
                elif not self._is_pinned(copy) and ticks[copy.slot] <= run.cut:
                    lock = self._cache.lock(CacheBucket.from_key(copy.key), copy.name)
                    if lock.try_acquire():
                        chosen.append((copy, lock))
                        left -= copy.size
                if left <= 0 or len(chosen) == _EVICT_OBJECTS:
                    break
            run.evicted += self._remove([copy for copy, _ in chosen])
        finally:
            for _, lock in chosen:
                lock.release()
        return left > 0

    def _remove(self, copies: list[_Copy]) -> int:
        """Forget copies whose keys are locked; return how many bytes they had."""
        futures: list[Future[ObjectInfo]] = []
        try:
            futures = [self._cache.remove(copy.key, copy.name) for copy in copies]
        except OverloadedError:  # by our own process alone; the next step goes on
            pass
        removed = 0
        _, _, evicted, evicted_bytes = self._cache.settings.counts
        for future in futures:
            try:
                removed += future.result().size
            except NotFoundError:  # gone by itself, or its bucket is
                continue
            COUNTERS.words[evicted] += 1
        COUNTERS.words[evicted_bytes] += removed
        return removed

    def _end(self, run: _Run, now: float) -> None:
        self._run = None
        self._hand = run.place
        if run.evicted >= run.goal:
            self._warned = False
            return
        self._not_before = now + _PAUSE_SECONDS
        if not self._warned:
            self._warned = True
            _log.warning(
                "the cache %s: %d of %d bytes could be evicted, the rest is pinned or in use",
                self._cache.places.directory, run.evicted, run.goal,
            )  # fmt: skip

    def _rows(self, after: tuple[int, bytes], limit: int) -> list[_Copy]:
        try:
            rows = self._connection.execute(_ROWS, (*after, limit)).fetchall()
        except sqlite3.Error as error:
            raise index.translate(error, self._cache.places.directory) from error
        return [_Copy((bucket, name), size, key, name.decode()) for bucket, name, size, key in rows]

    def _is_pinned(self, copy: _Copy) -> bool:
        if not self._pinned:
            return False
        bucket = CacheBucket.from_key(copy.key)
        return any(
            pin.provider == bucket.provider and pin.bucket == bucket.name and copy.name.startswith(pin.prefix)
            for pin in self._pinned
        )

    def _count_pinned(self) -> tuple[int, int]:
        objects = size = 0
        for id_, key in self._connection.execute("SELECT id, name FROM buckets").fetchall():
            bucket = CacheBucket.from_key(key)
            prefixes = {pin.prefix for pin in self._pinned if pin[:2] == (bucket.provider, bucket.name)}
            for prefix in prefixes:
                if any(prefix != other and prefix.startswith(other) for other in prefixes):
                    continue  # counted with the shorter one
                first, end = listing_bounds(ListOptions(prefix))
                statement = _PINNED if end is None else f"{_PINNED} AND name < ?"
                bounds = (id_, first) if end is None else (id_, first, end)
                found = self._connection.execute(statement, bounds).fetchone()
                objects, size = objects + found[0], size + found[1]
        return objects, size

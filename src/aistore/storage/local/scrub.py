"""The scrubber of one mountpath: reads every object once in a while, at a bounded pace, and compares it.

A pass goes through the index in its order. Where it is lies in ``scrub.json``, so it goes on after a restart; what it
finds lies in ``damaged/`` (damage.py). It runs in one maintenance process, a step at a time.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Generator

import msgspec

from ...model.objects import ObjectInfo
from ...observe.counters import COUNTERS
from ...observe.layout import SCRUB_BYTES, SCRUB_DAMAGE, SCRUB_OBJECTS, SCRUB_PASSES
from . import index
from .damage import DamageLog, DamageRecord
from .inspection import COLUMNS, TRAILER, Problem, Row, inspect
from .layout import Mountpath

#: What opening one object costs at least, in bytes of the pace. Guessed: what a disk reads in the time of one seek.
_OBJECT_BYTES = 16 << 10
_STEP_BYTES = 1 << 20
_ROWS_AT_ONCE = 256
#: How often the place is written down. Guessed: what is read again after a kill.
_SAVE_SECONDS = 5.0
_IDLE_SECONDS = 60.0

_NEXT = f"""SELECT {COLUMNS} FROM objects WHERE (bucket, name) > (?, ?)
    ORDER BY bucket, name LIMIT {_ROWS_AT_ONCE}"""  # noqa: S608
_TOTALS = "SELECT bucket, count(*), sum(size) FROM objects GROUP BY bucket"


class ScrubState(msgspec.Struct):
    """How far a pass is; times in Unix seconds, ``ended`` 0 while it runs, ``began`` 0 before the first. May only grow.

    ``index_error`` is why the index could not be read to its end; then the pass ended early.
    """

    began: float = 0.0
    ended: float = 0.0
    objects: int = 0
    bytes_done: int = 0
    objects_total: int = 0
    bytes_total: int = 0
    damaged: int = 0
    index_error: str = ""
    bucket: int = 0
    name: bytes = b""

    @property
    def running(self) -> bool:
        """Whether a pass is under way."""
        return self.began > 0 and not self.ended


class Scrubber:
    """Passes over one mountpath: ``bytes_per_second`` at most, begun every ``period_seconds``.

    ``catalog`` is the mountpath whose index knows the buckets, if that is another one.

    ``step`` belongs to one thread; the other methods may be called from any.
    """

    def __init__(
        self, mountpath: Mountpath, *, bytes_per_second: int, period_seconds: float, catalog: Mountpath | None = None
    ) -> None:
        self._mountpath = mountpath
        self._path = f"{mountpath.directory}/scrub.json"
        self._usual_pace = self._pace = bytes_per_second
        self._period_seconds = period_seconds
        self._damage = DamageLog(mountpath.damaged, found=SCRUB_DAMAGE)
        self._connection = index.connect(mountpath.database)
        self._catalog = index.connect((catalog or mountpath).database)
        self._lock = threading.Lock()
        self._state = self._load()
        self._rows: deque[Row] = deque()
        self._current: tuple[Row, ObjectInfo, Generator[int, None, Problem | None]] | None = None
        self._due = self._saved = float("-inf")

    def step(self, now: float) -> float:
        """Do one bounded piece of work if it is due; return the seconds until the next piece is.

        ``now`` is a time in seconds that does not go back (``time.monotonic()``).
        """
        with self._lock:
            if now < self._due:
                return self._due - now
            if not self._state.running:
                if abs(time.time() - self._state.began) < self._period_seconds:
                    return _IDLE_SECONDS
                self._begin(self._usual_pace)
            try:
                cost = self._work()
            except sqlite3.Error as error:
                self._state.index_error = str(error)
                self._end()
                raise
            if now - self._saved >= _SAVE_SECONDS:
                self._saved = now
                self._save()
            self._due = max(self._due, now - 1.0) + cost / self._pace
            return max(0.0, self._due - now)

    def start(self, bytes_per_second: int = 0) -> ScrubState:
        """Begin a pass now, from the beginning, at a pace of its own; return its state."""
        with self._lock:
            self._begin(bytes_per_second or self._usual_pace)
            self._due = float("-inf")
            return msgspec.structs.replace(self._state)

    def stop(self) -> None:
        """End the pass that is under way, if there is one."""
        with self._lock:
            if self._state.running:
                self._end()

    def state(self) -> ScrubState:
        """Return how far the pass is, or was in the end."""
        with self._lock:
            return msgspec.structs.replace(self._state)

    def damaged(self) -> list[DamageRecord]:
        """Return what is known to be damaged now, whoever found it."""
        with self._lock:
            return self._damage.current(self._connection, self._catalog)

    def close(self) -> None:
        """Write the place down and give everything back."""
        with self._lock:
            self._drop()
            if self._state.began:
                self._save()
            self._connection.close()
            self._catalog.close()

    def _begin(self, pace: int) -> None:
        self._drop()
        self._pace = pace
        rows = self._connection.execute(_TOTALS).fetchall()
        known = {row[0] for row in self._catalog.execute("SELECT id FROM buckets")}
        objects, size = (sum(row[column] for row in rows if row[0] in known) for column in (1, 2))
        self._state = ScrubState(began=time.time(), objects_total=objects, bytes_total=size)
        self._save()

    def _end(self) -> None:
        self._drop()
        self._pace = self._usual_pace
        self._state.ended = time.time()
        self._save()

    def _drop(self) -> None:
        self._rows.clear()
        if self._current is not None:
            self._current[2].close()
            self._current = None

    def _work(self) -> int:
        """Read about a piece; return what it cost in bytes."""
        cost = 0
        while cost < _STEP_BYTES:
            if self._current is None and not self._next():
                COUNTERS.words[SCRUB_PASSES] += 1
                self._end()
                break
            if self._current is None:
                continue
            row, info, looking = self._current
            try:
                size = next(looking)
                cost += size
                self._verified(size)
            except StopIteration as done:
                self._current = None
                self._conclude(row, info, done.value)
                cost += _OBJECT_BYTES
        return cost

    def _next(self) -> bool:
        """Take up the next object; False at the end. An object of a removed bucket is passed over."""
        if not self._rows:
            self._rows.extend(
                Row(*raw) for raw in self._connection.execute(_NEXT, (self._state.bucket, self._state.name))
            )
        if not self._rows:
            return False
        row = self._rows.popleft()
        bucket = self._catalog.execute("SELECT name FROM buckets WHERE id = ?", (row.bucket,)).fetchone()
        if bucket is not None:
            info = index.object_info(bucket[0], row.name.decode(errors="replace"), *row[2:7])
            self._current = row, info, inspect(self._mountpath, row)
        else:
            self._state.bucket, self._state.name = row.bucket, row.name
        return True

    def _conclude(self, row: Row, info: ObjectInfo, problem: Problem | None) -> None:
        self._state.objects += 1
        self._state.bucket, self._state.name = row.bucket, row.name
        COUNTERS.words[SCRUB_OBJECTS] += 1
        if row.place is None:
            self._verified(row.size)
        if problem is None:
            if self._damage.suspects(info):
                self._damage.forget(info)
            return
        if self._is_there() and self._is_current(row) and self._persists(row, problem):
            file = "" if row.place is None else f"{self._mountpath.data}/{row.place}"
            self._damage.note(info, file, problem.text, harmless=problem.kind == TRAILER)
            self._state.damaged += 1

    def _verified(self, size: int) -> None:
        self._state.bytes_done += size
        COUNTERS.words[SCRUB_BYTES] += size

    def _is_there(self) -> bool:
        """Say whether the mountpath is in its place: an empty mount point takes notes, and tells of files gone."""
        return os.path.exists(self._mountpath.database)

    def _is_current(self, row: Row) -> bool:
        """Say whether the object was not written, moved or removed since its row was read."""
        found = self._connection.execute(
            "SELECT version, created_ns, place FROM objects WHERE bucket = ? AND name = ?", (row.bucket, row.name)
        ).fetchone()
        return bool(found == (row.version, row.created_ns, row.place))

    def _persists(self, row: Row, problem: Problem) -> bool:
        """Look at a trailer again: one was perhaps just being written."""
        if problem.kind != TRAILER:
            return True
        looking = inspect(self._mountpath, row, read=False)
        try:
            while True:
                next(looking)
        except StopIteration as done:
            return done.value is not None

    def _load(self) -> ScrubState:
        try:
            with open(self._path, "rb") as file:
                return msgspec.json.decode(file.read(), type=ScrubState)
        except (FileNotFoundError, msgspec.DecodeError):  # without it, a pass begins from the beginning
            return ScrubState()

    def _save(self) -> None:
        if not self._is_there():
            return
        try:
            with open(f"{self._path}.new", "wb") as file:
                file.write(msgspec.json.encode(self._state))
            os.replace(f"{self._path}.new", self._path)
        except OSError:  # a full disk: the pass goes on, and is repeated after a restart
            pass

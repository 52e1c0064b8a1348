"""Work that nobody waits for, in small steps: one maintenance process of a store calls ``Reclaimer.step`` in a loop."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque

from ...errors import OutOfSpaceError
from ...observe.counters import COUNTERS
from ...observe.layout import UNLINKED
from . import index, recovery, syncing
from .generations import SETTLED
from .layout import Mountpath, open_directory
from .stamps import Stamps

#: How long a replaced file stays. Derived: the contract keeps a path valid for a minute, and clients that download
#: a large file by its path need a while; twice that.
GRACE_SECONDS = 120.0
#: How often the disk is brought up to date, and the world looked at. Derived: a power cut may cost the last second.
_ROUND_SECONDS = 1.0
#: Rows and files of one step. Guessed: some milliseconds, so that a stop is prompt and writers wait little.
_STEP_FILES = 256
_STEP_OBJECTS = 512
#: Log size from which it is copied into the database. Derived: SQLite's own default of 1,000 pages.
_CHECKPOINT_BYTES = 4 << 20
_CHECKPOINT_SECONDS = 10.0
#: Derived: ten times the kernel's clock tick at its slowest.
_TICK_NS = 100_000_000
#: What is reclaimed is out of every reader's sight already: no object that can be read changes here.
_NOTHING_SEEN = ()


class Reclaimer:
    """Removes what was replaced, purges removed buckets, seals generations, syncs, and copies the index's log.

    For one mountpath: the first of a data directory, or any. One at a time is enough; a second does no harm.
    """

    def __init__(self, directory: str | Mountpath, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._mountpath = directory if isinstance(directory, Mountpath) else open_directory(directory)
        self._grace_seconds = grace_seconds
        self._stamps = Stamps(self._mountpath.stamps)
        # Kept open: a failure to write is told once to each descriptor that was open when it happened.
        self._disk = os.open(self._mountpath.data, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._writer = index.Writer(self._mountpath.database, self._mountpath.commit_lock, self._stamps)
        except BaseException:
            os.close(self._disk)
            raise
        # (time, seq): at that time the trash went up to seq. Ages are the reclaimer's own observation, no clock is
        # stored: a clock that jumps cannot make a file vanish under a reader.
        self._marks: deque[tuple[float, int]] = deque()
        self._due_seq = 0
        self._compared: set[str] = set()
        self._to_visit: list[str] = []
        self._log_state: tuple[int, int] | None = None
        self._log_bytes = 0
        self._next_round = float("-inf")
        self._next_checkpoint = float("-inf")

    def step(self, now: float) -> bool:
        """Do one bounded piece of work; return whether there may be more at once (else wait a second).

        ``now`` is a time in seconds that does not go back (``time.monotonic()``).
        """
        if now >= self._next_round:
            self._next_round = now + _ROUND_SECONDS
            self._look_around(now)
        return self._visit_generation() or self._unlink_some() or self._purge_some()

    def doom(self, buckets: list[tuple[int]]) -> None:
        """Have all objects of buckets purged, which are given by their ids."""
        with self._writer.transaction(_NOTHING_SEEN) as connection:
            connection.executemany("INSERT OR IGNORE INTO doomed VALUES (?)", buckets)

    def close(self) -> None:
        """Give every resource back."""
        self._writer.close()
        self._stamps.close()
        if self._disk >= 0:
            os.close(self._disk)
            self._disk = -1

    def _look_around(self, now: float) -> None:
        # What was compared in the last round is on the disk after this sync, and can be sealed.
        written = self._sync()
        self._to_visit = recovery.unsealed(self._mountpath)
        self._compared &= set(self._to_visit)
        self._mark_trash(now)
        if written and (now >= self._next_checkpoint or self._log_bytes > _CHECKPOINT_BYTES):
            self._next_checkpoint = now + _CHECKPOINT_SECONDS
            self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            self._writer.checkpoint()
        except sqlite3.Error as error:
            # On a full disk the log keeps what it has; what is unlinked next makes room.
            if not isinstance(index.translate(error, self._mountpath.directory), OutOfSpaceError):
                raise

    def _sync(self) -> bool:
        """Sync if anything was written since the last time; return whether it was."""
        try:
            status = os.stat(f"{self._mountpath.database}-wal")
            state = (status.st_size, status.st_mtime_ns)
            # A write that follows within the resolution of the file's time would look the same.
            settled = abs(time.time_ns() - status.st_mtime_ns) > _TICK_NS
        except FileNotFoundError:
            state, settled = (0, 0), True
        if state == self._log_state:
            return False
        syncing.sync_file_system(self._disk)
        self._log_state, self._log_bytes = state if settled else None, state[0]
        return True

    def _mark_trash(self, now: float) -> None:
        (seq,) = self._writer.connection.execute("SELECT coalesce(max(seq), 0) FROM trash").fetchone()
        last = self._marks[-1][1] if self._marks else self._due_seq
        if seq > last:
            self._marks.append((now, seq))
        while self._marks and now - self._marks[0][0] >= self._grace_seconds:
            self._due_seq = self._marks.popleft()[1]

    def _visit_generation(self) -> bool:
        while self._to_visit:
            name = self._to_visit.pop()
            marker = recovery.take(self._mountpath, name)
            if marker is None:
                continue
            try:
                if name in self._compared:
                    recovery.seal(self._mountpath, name)
                    self._compared.discard(name)
                else:
                    if os.pread(marker, len(SETTLED), 0) != SETTLED:  # its owner was killed
                        recovery.examine(self._mountpath, self._writer.connection, name)
                    self._compared.add(name)
                    self._log_state = None  # makes the next round sync, whatever the log did
            finally:
                os.close(marker)
            return True
        return False

    def _unlink_some(self) -> bool:
        if not self._due_seq:
            return False
        rows = self._writer.connection.execute(
            "SELECT seq, place FROM trash WHERE seq <= ? ORDER BY seq LIMIT ?", (self._due_seq, _STEP_FILES)
        ).fetchall()
        if not rows:
            return False
        for _, place in rows:
            try:
                os.unlink(f"{self._mountpath.data}/{place}")
            except FileNotFoundError:  # a step that was killed had come this far
                pass
        # Before the rows go: whoever is killed here leaves it all to be done again.
        self._remove_empty({place.partition("/")[0] for _, place in rows})
        with self._writer.transaction(_NOTHING_SEEN) as connection:
            connection.execute("DELETE FROM trash WHERE seq <= ?", (rows[-1][0],))
        COUNTERS.words[UNLINKED] += len(rows)
        return True

    def _remove_empty(self, generations: set[str]) -> None:
        for name in generations - set(recovery.unsealed(self._mountpath)):
            try:
                os.rmdir(f"{self._mountpath.data}/{name}")
            except OSError:  # not empty: it goes with its last file; or gone
                pass

    def _purge_some(self) -> bool:
        row = self._writer.connection.execute("SELECT bucket FROM doomed LIMIT 1").fetchone()
        if row is None:
            return False
        with self._writer.transaction(_NOTHING_SEEN) as connection:
            rows = connection.execute(
                "SELECT name, place FROM objects WHERE bucket = ? LIMIT ?", (row[0], _STEP_OBJECTS)
            ).fetchall()
            places = [(place,) for _, place in rows if place is not None]
            connection.executemany("INSERT INTO trash (place) VALUES (?)", places)
            if len(rows) < _STEP_OBJECTS:
                connection.execute("DELETE FROM objects WHERE bucket = ?", row)
                connection.execute("DELETE FROM doomed WHERE bucket = ?", row)
            else:
                connection.execute("DELETE FROM objects WHERE bucket = ? AND name <= ?", (row[0], rows[-1][0]))
        return True

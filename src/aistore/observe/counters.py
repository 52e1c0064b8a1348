"""Counters of this process, in a file that whoever answers ``/metrics`` maps too.

Every process of a run has a file of 64-bit words in the run's private directory (which word counts what is in
layout.py), named after its place in the supervisor's table. A process that is started again goes on in the file of its
predecessor, so counters never go back while the store runs, and the files are as many as the places.

Counting is ``COUNTERS.words[word] += 1``: no call, no lock, 0.05 us. Any thread may do it: CPython hands the
interpreter lock over at calls of functions and at the ends of loops, never between the reading and the writing of such
a statement (since 3.10; a test tries it). Its operands must be plain numbers in local variables or constants.

Until a process opens its file it counts in memory of its own, so code that counts runs anywhere.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time

from . import layout

_SIZE = -(-8 * layout.WORDS // mmap.PAGESIZE) * mmap.PAGESIZE
_PREFIX = "counters-"
_NAME_BYTES = 8 * layout.ETL_NAME_WORDS
#: What is counted for transforms beyond the last row.
_OTHERS = "others"


class Counters:
    """The table that this process counts in."""

    def __init__(self) -> None:
        # Signed: a gauge that went below zero by a mistake of ours must not raise where somebody only counts.
        self.words = memoryview(bytearray(8 * layout.WORDS)).cast("q")
        self._lock = threading.Lock()
        self._etls: dict[tuple[str, int], int] = {}

    def open(self, directory: str, name: str) -> None:
        """Count in the file of place ``name`` (``http-0``) from now on: at the start, before anything is counted."""
        table = map_table(counters_path(directory, name))
        words = memoryview(table).cast("q")
        for word, scalar in layout.SCALAR_WORDS:
            if scalar.kind == "gauge":
                words[word] = 0
        for row in rows_of(words):
            for number, scalar in enumerate(layout.ETL_SCALARS):
                if scalar.kind == "gauge":
                    words[row + layout.ETL_NUMBERS + number] = 0
            self._etls[etl_of_row(words, row)] = row + layout.ETL_NUMBERS
        words[layout.PROCESS_ID] = os.getpid()
        words[layout.STARTED_NS] = time.time_ns()
        self.words = words

    def etl(self, name: str, uid: int) -> int:
        """Return the first number's word of a transform's row; ``uid`` tells transforms that had one name apart."""
        found = self._etls.get((name, uid))
        if found is not None:
            return found
        with self._lock:
            if (name, uid) not in self._etls:
                self._etls[name, uid] = self._take_row(name, uid)
            return self._etls[name, uid]

    def _take_row(self, name: str, uid: int) -> int:
        taken = len(set(self._etls.values()))
        if taken >= layout.ETL_ROWS - 1 and name != _OTHERS:
            return self._etls.get((_OTHERS, 0)) or self._etls.setdefault((_OTHERS, 0), self._take_row(_OTHERS, 0))
        row = layout.ETLS + taken * layout.ETL_ROW_WORDS
        encoded = name.encode("ascii", "replace")[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
        self.words[row + layout.ETL_UID] = uid
        # The first word of the name last: with it the row is there for readers.
        for number in reversed(range(layout.ETL_NAME_WORDS)):
            self.words[row + number] = int.from_bytes(encoded[8 * number : 8 * number + 8], "little", signed=True)
        return row + layout.ETL_NUMBERS


#: What this process counts in.
COUNTERS = Counters()


def counters_path(directory: str, name: str) -> str:
    """Return the file of a place's counters."""
    return os.path.join(directory, f"{_PREFIX}{name}")


def counter_files(directory: str) -> dict[str, str]:
    """Return the files of all places that ever counted in this run, by place."""
    names = sorted(name for name in os.listdir(directory) if name.startswith(_PREFIX))
    return {name.removeprefix(_PREFIX): os.path.join(directory, name) for name in names}


def map_table(path: str) -> mmap.mmap:
    """Map a file of counters, making it if there is none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # Written, not truncated to length: touching a hole of a file on a full disk ends a process with SIGBUS.
        if size < _SIZE and os.pwrite(descriptor, bytes(_SIZE - size), size) != _SIZE - size:
            raise OSError(errno.ENOSPC, "the disk is full", path)
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)


def rows_of(words: memoryview) -> range:
    """Return the first words of all rows that are taken."""
    taken = 0
    while taken < layout.ETL_ROWS and words[layout.ETLS + taken * layout.ETL_ROW_WORDS]:
        taken += 1
    return range(layout.ETLS, layout.ETLS + taken * layout.ETL_ROW_WORDS, layout.ETL_ROW_WORDS)


def etl_of_row(words: memoryview, row: int) -> tuple[str, int]:
    """Return name and uid of a transform's row."""
    name = words[row : row + layout.ETL_NAME_WORDS].tobytes().rstrip(b"\0").decode("ascii", "replace")
    return name, words[row + layout.ETL_UID]

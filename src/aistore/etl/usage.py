"""What a tree of processes uses: processor time, and memory where what its processes share is counted once.

Warm workers are forked from a parent that has imported everything, so most of their memory is the same pages. The sum
of what each has mapped (RSS) would count these once per worker; the kernel's proportional set size (PSS) divides each
page by the number of processes that have it, so that the sum over a tree is what the tree takes.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from ..fallbacks import lacks

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LATELY_SECONDS = 1.0  # the shortest time over which "lately" is measured, given 100 ticks in a second


class Usage(NamedTuple):
    """Processes of a tree, CPU seconds of them and of those they had, memory in bytes (PSS)."""

    processes: int
    cpu_seconds: float
    memory_bytes: int


#: What is told of a tree that is gone, or of which the system does not tell.
NOTHING = (0.0, Usage(0, 0.0, 0))


def usage_of(root: int) -> Usage | None:
    """Return what process ``root`` and its descendants use; None if it is gone or the system does not tell. Blocks.

    Takes some milliseconds for each process of hundreds of MiB: the kernel counts pages.
    """
    if lacks("proc"):
        return None
    found = Usage(0, 0.0, 0)
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            seconds, memory, children = _cpu_seconds(pid), _memory_bytes(pid), _children(pid)
        except OSError:
            continue  # it has just ended; its time is its parent's now
        found = Usage(found.processes + 1, found.cpu_seconds + seconds, found.memory_bytes + memory)
        waiting += children
    return found if found.processes else None


def _cpu_seconds(pid: int) -> float:
    """Return the time of a process and of its children that have ended."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()  # from the third on (proc(5))
    return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND


def _memory_bytes(pid: int) -> int:
    """Return the proportional set size; where the kernel does not tell it (before 4.14), the whole resident set."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) << 10
        return 0
    except ProcessLookupError:  # it has ended and is not reaped yet: no memory, but its time counts
        return 0
    except (FileNotFoundError, PermissionError):
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
        except OSError:  # a thread that has ended, or a kernel that does not tell
            continue
    return found


class Meter:
    """Tells what one tree uses, and how much of it lately: since it was last asked, or since the tree was started."""

    def __init__(self, root: int) -> None:
        self.root = root
        self._when = 0.0  # of the last measurement, on the clock of process starts; 0 before the first
        self._cpu_seconds = 0.0
        self._cores = 0.0

    def read(self) -> tuple[float, Usage]:
        """Return the cores in use lately, and the rest; NOTHING if the tree is gone or nobody tells. Blocks."""
        usage = usage_of(self.root)
        if usage is None:
            return NOTHING
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        elapsed = now - (self._when or _started(self.root, now))
        if elapsed >= _LATELY_SECONDS or (not self._when and elapsed > 0):
            self._cores = max(0.0, usage.cpu_seconds - self._cpu_seconds) / elapsed
            self._when, self._cpu_seconds = now, usage.cpu_seconds
        return self._cores, usage


def _started(pid: int, now: float) -> float:
    """Return when a process was started, on the clock that goes on while the machine sleeps; ``now`` if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19]) / _TICKS_PER_SECOND
    except OSError:
        return now

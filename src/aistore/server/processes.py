"""What the system tells of a process; nothing where it has no /proc (macOS)."""

from __future__ import annotations

import os
from typing import NamedTuple

from ..fallbacks import lacks

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessFacts(NamedTuple):
    """CPU time in seconds, memory in bytes, open descriptors, threads."""

    cpu_seconds: float
    resident_bytes: int
    descriptors: int
    threads: int


def process_facts(pid: int) -> ProcessFacts | None:
    """Return the facts of a process; None if it is gone or they cannot be had."""
    if lacks("proc"):
        return None
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # from the third on (proc(5))
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ProcessFacts(ticks / _TICKS_PER_SECOND, int(fields[21]) * _PAGE_BYTES, descriptors, int(fields[17]))

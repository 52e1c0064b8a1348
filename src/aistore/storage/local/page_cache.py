"""Reading a file without leaving it in the kernel's memory, where it would push out what others read.

Whether a page is there already has to be asked before it is read, and without reading: even a read that must not wait
starts to bring pages in.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from itertools import groupby

from ...fallbacks import lacks

_PAGE = mmap.PAGESIZE
_mincore = getattr(ctypes.CDLL(None), "mincore", None)


class Visit:
    """Remembers which pages of a file were not in memory before they were read, and lets those go."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._brought: list[tuple[int, int]] = []
        self._able = not lacks("fadvise")
        if self._able:  # no reading ahead: what it brings in would pass for having been there
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def announce(self, start: int, length: int) -> None:
        """Look at what is there, before ``length`` bytes from ``start``, a multiple of the page size, are read."""
        if self._able:
            self._brought += absent(self._descriptor, start, length)

    def leave(self) -> None:
        """Let go what was brought in since the last time."""
        for start, length in self._brought:
            os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_DONTNEED)
        self._brought.clear()


def absent(descriptor: int, start: int, length: int) -> list[tuple[int, int]]:
    """Return the runs of whole pages that are not in memory, as starts and lengths; none where nobody can tell."""
    if _mincore is None or length <= 0:
        return []
    pages = -(-length // _PAGE)
    states = (ctypes.c_ubyte * pages)()
    try:
        # Mapped, so that it has an address, and never read through that: a file cut short could end the process.
        with mmap.mmap(descriptor, length, access=mmap.ACCESS_COPY, offset=start) as mapped:
            first = ctypes.c_char.from_buffer(mapped)
            failed = _mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(length), states)
            del first
    except (OSError, ValueError):
        return []
    if failed:
        return []
    runs, position = [], start
    for present, group in groupby(states, lambda state: state & 1):
        size = sum(1 for _ in group) * _PAGE
        if not present:
            runs.append((position, size))
        position += size
    return runs

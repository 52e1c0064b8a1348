"""Until when this node may act: one number in a shared mapping, written by the controller, read at every read.

A controller that is stopped, hangs or died does not move it on, and so fences the HTTP workers that still run.
"""

from __future__ import annotations

import mmap
import os

_NS = 1e9


class FenceWriter:
    """The controller's side."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, mmap.PAGESIZE)
            self._words = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("q")
        finally:
            os.close(descriptor)
        self._words[0] = 0

    def set(self, deadline: float) -> None:
        """Let this node act until ``deadline``, in seconds of the boot clock."""
        self._words[0] = max(0, int(deadline * _NS)) if deadline > 0 else 0


class FenceReader:
    """The side of HTTP workers. The controller may make the mapping later."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._words: memoryview | None = None

    def deadline(self) -> float:
        """Return until when this node may act, in seconds of the boot clock; 0 when it may not."""
        words = self._words
        if words is None:
            words = self._open()
            if words is None:
                return 0.0
        number: int = words[0]
        return number / _NS

    def _open(self) -> memoryview | None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if os.fstat(descriptor).st_size < mmap.PAGESIZE:
                return None
            self._words = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE, prot=mmap.PROT_READ)).cast("q")
        finally:
            os.close(descriptor)
        return self._words


class Unfenced:
    """The fence of a node that shares its buckets with nobody."""

    def deadline(self) -> float:
        """Return a time that never comes."""
        return float("inf")

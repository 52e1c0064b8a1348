"""The descriptors that a worker keeps for itself, out of the way of programs that close all they can think of."""

import fcntl
import os
import resource
from typing import List

_ROOM = 16  # above the descriptors that stay, where those of the objects begin


class HighNumbers:
    """Numbers that programs do not reach when they close everything below some hundred or thousand."""

    def __init__(self) -> None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._first = max(16, min(soft, 4096) - 64)

    def keep(self, fd: int) -> int:
        """Move ``fd`` to such a number, and return that."""
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, self._first)
        os.close(fd)
        return moved

    def row(self, count: int, fd: int) -> int:
        """Return the first of ``count`` such numbers in a row that are free; ``fd`` is any descriptor."""
        first = self._first + _ROOM
        while True:
            found = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first + place) for place in range(count)]
            for number in found:
                os.close(number)
            if found == list(range(first, first + count)):
                return first
            first = max(found)


def close_all(descriptors: List[int]) -> None:
    """Close descriptors, by one system call where their numbers follow each other, as the kernel gives them."""
    first, last = descriptors[0], descriptors[-1]
    if descriptors == list(range(first, last + 1)):
        os.closerange(first, last + 1)
    else:
        for fd in descriptors:
            os.close(fd)

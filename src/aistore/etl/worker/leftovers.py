"""What a program can leave behind in its worker: memory, descriptors, child processes, files."""

import fcntl
import os
import resource
import sys
import tempfile
import time
from typing import Any, List, Optional, Tuple

from . import clearing
from .lacking import lacks
from .sandbox import landlock, namespaces

_DESCRIPTORS_LEFT_MAX = 32  # guessed: caches of libraries stay below, a leak per object does not
# A directory that was not changed for so long shows the next change by its times, however coarse its clock.
_SETTLED_NS = 2_000_000_000
_DIRECTORY_PREFIX = "worker-"


class MemoryWatch:
    """Tells how much the anonymous memory of this process has grown; without ``/proc``, how much its peak has."""

    def __init__(self, keep: Any) -> None:
        try:
            if lacks("proc"):
                raise FileNotFoundError
            self._statm = keep(os.open("/proc/self/statm", os.O_RDONLY))
        except OSError:
            self._statm = -1
        self._page_bytes = resource.getpagesize()
        self._start = self._now()

    def _now(self) -> int:
        if self._statm < 0:
            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        _, resident, shared, _ = os.pread(self._statm, 128, 0).split(b" ", 3)
        return (int(resident) - int(shared)) * self._page_bytes

    def growth(self) -> int:
        """Return the growth since the worker started, in bytes."""
        return self._now() - self._start


class DescriptorWatch:
    """Tells whether many descriptors are open that were not at the start.

    The kernel gives the lowest free number, so when many are open at once a number some way up is taken.
    """

    def __init__(self, null: int) -> None:
        self._null = null
        lowest = os.dup(null)
        os.close(lowest)
        self._number = lowest + _DESCRIPTORS_LEFT_MAX

    def left(self) -> bool:
        """Return whether many are left."""
        try:
            fd = fcntl.fcntl(self._null, fcntl.F_DUPFD_CLOEXEC, self._number)
        except OSError:  # EMFILE
            return True
        os.close(fd)
        return fd != self._number


def children_left() -> bool:
    """Reap children that have ended; return whether one still runs (descendants count: see ``become_subreaper``)."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


class OwnDirectory:
    """The working and temporary directory of this worker alone, under the ETL's scratch directory.

    With ``readable``, what an ETL may read, it becomes the only one that the process can write to, and the directories
    of other workers cannot be read.
    """

    def __init__(self, readable: Optional[List[str]], keep: Any) -> None:
        base = os.environ.get("TMPDIR") or tempfile.gettempdir()
        self._path = os.path.join(base, directory_of(os.getpid()))
        os.makedirs(self._path, mode=0o700, exist_ok=True)
        os.chdir(self._path)
        os.environ["TMPDIR"] = self._path
        tempfile.tempdir = None  # asked for again when next needed
        if readable is not None:
            os.environ["HOME"] = self._path
            shared = [os.path.join(base, name) for name in os.listdir(base) if not name.startswith(_DIRECTORY_PREFIX)]
            landlock.restrict_worker([*readable, "/proc", "/dev", *shared], self._path, namespaces.DEVICES)
        self._fd: int = keep(os.open(self._path, os.O_RDONLY | os.O_DIRECTORY))
        self._empty: Optional[Tuple[int, ...]] = None  # how it looks while nothing is in it

    def enter(self) -> None:
        """Make it the working directory."""
        os.fchdir(self._fd)

    def clear(self) -> None:
        """Remove what is in it.

        It is listed only if it has changed, which its change time tells: no program can set that. Two changes may have
        one time, so what was changed lately is listed.
        """
        found = os.stat(self._fd)
        look = (found.st_ctime_ns, found.st_size, found.st_nlink)
        if look == self._empty:
            return
        self._empty = None
        if os.listdir(self._path):
            clearing.clear(self._path)
        elif time.time_ns() - found.st_ctime_ns > _SETTLED_NS:
            self._empty = look

    def remove(self) -> None:
        """Remove it, with what is in it."""
        clearing.remove_tree(self._path)


def directory_of(pid: int) -> str:
    """Return the name of a worker's directory; its parent removes it."""
    return _DIRECTORY_PREFIX + str(pid)

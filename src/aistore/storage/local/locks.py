"""Who runs a store: one owner (``ais serve``), and the processes that write for it.

Both locks are ``flock``: the kernel lets them go when their holder dies, however it dies. A child that is forked closes
its copies, one that is executed never gets them, so a lock ends with the process that took it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import weakref
from typing import NamedTuple

from ...errors import ConflictError
from ...fallbacks import lacks
from .layout import open_directory

#: How long a new owner waits for the processes of the last one to end. Guessed: they end with their parent, after
#: the write at hand.
WRITERS_WAIT_SECONDS = 5.0
#: Somebody who asks who the owner is holds the lock for a moment.
_OWNER_WAIT_SECONDS = 0.5
_POLL_SECONDS = 0.02


class Owner(NamedTuple):
    """The process that runs a store: its id, where it can be reached ("" until known), since when (Unix seconds)."""

    pid: int
    endpoint: str
    started: float


class _Lock:
    """A descriptor with an flock on it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _held.add(self)

    def take(self, kind: int, wait_seconds: float) -> bool:
        """Lock shared or exclusively; False when that was not possible in time."""
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Let the lock go. May be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    __del__ = close


_held: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _close_in_child() -> None:
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)


class Ownership:
    """Both locks of a directory, held until ``close`` or the end of this process."""

    def __init__(self, owner: _Lock, writers: _Lock) -> None:
        self._owner = owner
        self._writers = writers
        self._started = time.time()
        self.announce("")

    def announce(self, endpoint: str) -> None:
        """Write down where this owner can be reached, for ``read_owner``."""
        text = json.dumps({"pid": os.getpid(), "endpoint": endpoint, "started": self._started}).encode()
        os.pwrite(self._owner.descriptor, text, 0)
        os.ftruncate(self._owner.descriptor, len(text))

    def close(self) -> None:
        """Let both go, the writers' first. May be called twice."""
        self._writers.close()
        self._owner.close()


class WriterLock:
    """A process's share of the writers' lock, held until ``close`` or its end."""

    def __init__(self, lock: _Lock) -> None:
        self._lock = lock

    def close(self) -> None:
        """Let it go. May be called twice."""
        self._lock.close()


def acquire_ownership(directory: str, *, wait_seconds: float = WRITERS_WAIT_SECONDS) -> Ownership:
    """Become the owner of ``directory``, after the last owner's writers have ended.

    Raises ConflictError that names the process in the way.
    """
    directory = os.path.abspath(directory)
    open_directory(directory)
    return hold(directory, wait_seconds=wait_seconds)


def hold(directory: str, *, wait_seconds: float = WRITERS_WAIT_SECONDS) -> Ownership:
    """Become the owner of ``directory`` as it is: a damaged one, say. Raises as ``acquire_ownership``."""
    owner = _Lock(f"{directory}/owner.lock")
    writers = _Lock(f"{directory}/writers.lock")
    try:
        if not owner.take(fcntl.LOCK_EX, _OWNER_WAIT_SECONDS):
            raise _owned(directory, _read(owner.descriptor))
        # Exclusively for a moment: whoever wrote for the last owner is gone then. New writers join shared.
        if not writers.take(fcntl.LOCK_EX, wait_seconds):
            raise _written(directory, _holders(writers.descriptor))
        fcntl.flock(writers.descriptor, fcntl.LOCK_SH)
        return Ownership(owner, writers)
    except BaseException:
        writers.close()
        owner.close()
        raise


def join_writers(directory: str, *, wait_seconds: float = WRITERS_WAIT_SECONDS) -> WriterLock:
    """Take a share of the writers' lock: every process that opens the store to write holds one.

    Raises ConflictError when a new owner is just taking over.
    """
    directory = os.path.abspath(directory)
    lock = _Lock(f"{directory}/writers.lock")
    if not lock.take(fcntl.LOCK_SH, wait_seconds):
        lock.close()
        raise ConflictError(f"{directory}: a new owner is taking over", hint="start this process from that owner")
    return WriterLock(lock)


def read_owner(directory: str) -> Owner | None:
    """Return the process that runs the store in ``directory`` now, or None."""
    try:
        descriptor = os.open(f"{directory}/owner.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Owner:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        return Owner(int(found["pid"]), str(found["endpoint"]), float(found["started"]))
    except (ValueError, KeyError, TypeError):  # it is writing that down right now
        return Owner(0, "", 0.0)


def _owned(directory: str, owner: Owner) -> ConflictError:
    where = f" at {owner.endpoint}" if owner.endpoint else ""
    who = f"process {owner.pid}{where}" if owner.pid else "another process"
    return ConflictError(
        f"{directory} is in use by {who}",
        hint=f"stop it (kill {owner.pid}), or serve another directory" if owner.pid else "try again in a moment",
    )


def _written(directory: str, pids: list[int]) -> ConflictError:
    who = ", ".join(map(str, pids)) or "unknown"
    return ConflictError(
        f"{directory} is still being written to by processes of a store that ended: {who}",
        hint=f"they should end by themselves; if they do not: kill {' '.join(map(str, pids))}" if pids else "try again",
    )


def _holders(descriptor: int) -> list[int]:
    """Return the processes that hold a lock on the file, from /proc/locks; nothing where there is none."""
    if lacks("proc"):
        return []
    status = os.fstat(descriptor)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            fields = [line.split() for line in file]
    except OSError:
        return []
    # "7: FLOCK ADVISORY READ 1234 fe:00:5678 0 EOF"; a waiting one has "->" in second place.
    return sorted({int(line[4]) for line in fields if line[1] == "FLOCK" and line[5] == wanted})

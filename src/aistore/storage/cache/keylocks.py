"""Locks of keys across the processes of a node, freed by the kernel when their holder dies, however it dies.

A lock is one byte of a file, at the place that the key hashes to: 62 bits, so two keys that share one are not met. The
byte is locked for the open file ("open file description" lock), not for the process as POSIX record locks are: those go
when any descriptor of the file is closed anywhere in the process, and two engines in one process would both have them.
Within one table a set of the places held says what the kernel does not: that it is our own.

Nobody waits in the kernel: who does not get a lock looks again, and so notices when the object is there meanwhile.

Where the system lacks these locks, each key has a file of its own with an ``flock`` on it, while it is locked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import weakref
from abc import ABC, abstractmethod

import xxhash

from ...errors import InternalError
from ...fallbacks import lacks
from .layout import CachePlaces

_BITS = 62
#: struct flock: type, whence, start, length, pid, which has to be 0.
_FLOCK = struct.Struct("@hhqqi4x")
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})


class KeyLocks(ABC):
    """The locks that one open cache holds. Its methods may be called from different threads."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()  # a lock that is dropped may be collected in here
        self._closed = False
        _tables.add(self)

    def lock(self, bucket: str, name: str) -> KeyLock:
        """Return the lock of a key, not taken yet."""
        digest = xxhash.xxh3_64(bucket.encode())
        digest.update(b"\0")
        digest.update(name.encode("utf-8", "surrogatepass"))
        return KeyLock(self, digest.intdigest() >> (64 - _BITS), f"{bucket}/{name}")

    @abstractmethod
    def take(self, place: int) -> bool:
        """Lock a place if nobody has it, in this process or another; raises OSError."""

    @abstractmethod
    def free(self, place: int) -> None:
        """Free a place that ``take`` has locked."""

    @abstractmethod
    def close(self) -> None:
        """Free all. May be called twice."""

    def _check_open(self) -> None:
        if self._closed:
            raise InternalError("the cache is closed")


class KeyLock:
    """One key's lock. It goes free with this object at the latest."""

    __slots__ = ("_held", "_place", "_table", "_what")

    def __init__(self, table: KeyLocks, place: int, what: str) -> None:
        self._table = table
        self._place = place
        self._what = what
        self._held = False

    @property
    def held(self) -> bool:
        """Whether it is held through this object."""
        return self._held

    def try_acquire(self) -> bool:
        """Lock the key if nobody else has it: never waits. Raises InternalError when it is held already by this."""
        if self._held:
            raise InternalError(f"{self._what} is locked already by who asks")
        self._held = self._table.take(self._place)
        return self._held

    def release(self) -> None:
        """Let the key go. May be called twice."""
        if self._held:
            self._held = False
            self._table.free(self._place)

    def __enter__(self) -> KeyLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class _RangeLocks(KeyLocks):
    """Byte ranges of one file."""

    def __init__(self, places: CachePlaces) -> None:
        super().__init__()
        self._descriptor = os.open(places.locks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._taken: set[int] = set()

    def take(self, place: int) -> bool:
        with self._mutex:
            self._check_open()
            if place in self._taken:
                return False
            try:
                self._change(fcntl.F_WRLCK, place)
            except OSError as error:
                if error.errno in _BUSY:
                    return False
                raise
            self._taken.add(place)
            return True

    def free(self, place: int) -> None:
        with self._mutex:
            if place in self._taken:
                self._taken.remove(place)
                self._change(fcntl.F_UNLCK, place)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            self._taken.clear()
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _change(self, kind: int, place: int) -> None:
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))


class _FileLocks(KeyLocks):
    """A file per locked key."""

    def __init__(self, places: CachePlaces) -> None:
        super().__init__()
        self._directory = places.lock_files
        self._descriptors: dict[int, int] = {}

    def take(self, place: int) -> bool:
        path = self._path(place)
        with self._mutex:
            self._check_open()
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    os.close(descriptor)
                    if error.errno in _BUSY:
                        return False
                    raise
                # Its last holder may have removed it between opening and locking: then it is nobody's lock.
                if os.fstat(descriptor).st_nlink:
                    self._descriptors[place] = descriptor
                    return True
                os.close(descriptor)

    def free(self, place: int) -> None:
        with self._mutex:
            descriptor = self._descriptors.pop(place, None)
            if descriptor is not None:
                os.unlink(self._path(place))  # while it is locked: nobody else's file is removed
                os.close(descriptor)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def _path(self, place: int) -> str:
        return f"{self._directory}/{place:016x}"


_tables: weakref.WeakSet[KeyLocks] = weakref.WeakSet()


def _close_in_child() -> None:
    # The open files are the parent's too, and with them its locks: only the child's own descriptors go.
    for table in list(_tables):
        table._mutex = threading.RLock()
        table.close()


os.register_at_fork(after_in_child=_close_in_child)


def open_key_locks(places: CachePlaces) -> KeyLocks:
    """Return the locks of a cache, to be closed."""
    return _FileLocks(places) if lacks("range-locks") else _RangeLocks(places)

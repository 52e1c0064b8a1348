"""Whether a mountpath can be used: found out by whoever fails at it, known to all processes, and looked at again.

Each further mountpath has a word in its stamps, which are in the data directory: its *epoch*, even while it is
available. A process for which something fails there tries to write to the disk; if that fails too it makes the epoch
odd, and from then on every process answers for the mountpath's share without touching the disk. Housekeeping tries it
every few seconds, and when it is back, recovers it and makes the epoch even again, with a new value. A process that
opened it under another value lets everything go and opens it anew: the disk may have been mounted again, or repaired.

The first mountpath has no epoch: without the data directory there is no store to say so. Its errors are errors of the
operation at hand.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sqlite3
import time

from ...errors import AisError, InternalError, MountpathUnavailableError
from . import index
from .layout import Mountpath
from .placement import ROOT, MountpathSet
from .stamps import Stamps

_log = logging.getLogger("aistore.storage")

#: What an error of a disk, a file system or the network below it looks like. ext4 says ENOMEM when it cannot read its
#: own tables, EBADMSG and EUCLEAN when these are broken. Not here: full, and out of descriptors.
_DISK_ERRNOS = frozenset(
    getattr(errno, name)
    for name in "EIO ENODEV ENXIO EROFS ESTALE ENOTCONN EREMOTEIO ESHUTDOWN EUCLEAN EBADMSG ETIMEDOUT ENOMEM".split()
    if hasattr(errno, name)
)
#: Python 3.10 has no error codes on exceptions. These texts are SQLite's own for SQLITE_IOERR, SQLITE_CANTOPEN and
#: SQLITE_READONLY, in use for twenty years.
_DISK_TEXTS = ("disk I/O error", "unable to open database file", "attempt to write a readonly database")
#: Why a mountpath is not available when that is meant.
DISABLED = "it was disabled by hand"
#: A test that the disk passed is not repeated for so long.
_PASSED_SECONDS = 1.0


def disk_words(error: BaseException) -> str | None:
    """Return the words of an error that may be the disk's own fault, else None."""
    if isinstance(error, sqlite3.Error):
        return next((f"the index: {text}" for text in _DISK_TEXTS if text in str(error)), None)
    if isinstance(error, OSError) and error.errno in _DISK_ERRNOS:
        return os.strerror(error.errno or 0)
    return None


def unavailable(id_: str, path: str, reason: str, what: str) -> MountpathUnavailableError:
    """Return the error for ``what``, an object or a bucket, that the mountpath has or may have a part of."""
    if reason == DISABLED:
        hint = f"use it again: ais storage mountpath enable {path}"
    elif id_ == ROOT:
        hint = "the store cannot do without the disk of its data directory: repair it, then start the store again"
    else:
        hint = (
            "repair the disk or mount it again, meanwhile the rest is served and `ais show storage` tells more; "
            f"to give up what is on it: ais storage mountpath detach {path} --force"
        )
    return MountpathUnavailableError(f"{what}: mountpath {path} ({id_}) is unavailable: {reason}", hint=hint)


def check_mark(mountpath: Mountpath, mountpaths: MountpathSet, id_: str) -> None:
    """Raise OSError unless the directory is the mountpath that the store knows by that id."""
    try:
        with open(mountpath.mark, encoding="utf-8") as file:
            found = json.load(file)
        belongs = (found["store"], found["id"]) == (mountpaths.store, id_)
    except (FileNotFoundError, NotADirectoryError):
        raise OSError(errno.ENODEV, f"it has no {os.path.basename(mountpath.mark)}: is its disk mounted?") from None
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(errno.ENODEV, f"its {os.path.basename(mountpath.mark)} cannot be read: {error}") from error
    if not os.path.exists(mountpath.database):
        raise OSError(errno.ENOENT, "its index.db is gone")
    if not belongs:
        raise OSError(errno.ENODEV, "another mountpath or another store's is in its place")


def root_fault(error: Exception, what: str, path: str) -> Exception:
    """Return the project's error for one that was raised while working with the first mountpath."""
    words = None if isinstance(error, AisError) else disk_words(error)
    return index.translate(error, what) if words is None else unavailable(ROOT, path, words, what)


class Health:
    """What one process knows of one mountpath's state, from when it opened it; raises OSError if it is away."""

    def __init__(self, id_: str, mountpath: Mountpath, stamps: Stamps, mountpaths: MountpathSet) -> None:
        self._id = id_
        self._mountpath = mountpath
        self._stamps = stamps
        self._mountpaths = mountpaths
        self._passed = float("-inf")
        self.further = id_ != ROOT
        self.epoch = stamps.epoch if self.further else 0
        if self.epoch % 2:
            raise OSError(errno.ENODEV, stamps.reason)
        if self.further:
            check_mark(mountpath, mountpaths, id_)
        self._identity = _identity(mountpath.directory) if self.further else (0, 0)

    @property
    def current(self) -> bool:
        """Whether this is still the mountpath that was opened, as far as anybody knows."""
        return not self.further or self._stamps.epoch == self.epoch

    def check(self) -> None:
        """Raise OSError if it is not, or if something else is mounted in its place by now: one system call."""
        if self.further and (not self.current or _identity(self._mountpath.directory) != self._identity):
            raise OSError(errno.ENODEV, "the mountpath is not what it was")

    def test(self) -> None:
        """Raise OSError unless the mountpath is in its place and its disk takes a write."""
        if time.monotonic() - self._passed < _PASSED_SECONDS:
            return
        check_mark(self._mountpath, self._mountpaths, self._id)
        if _identity(self._mountpath.directory) != self._identity:
            raise OSError(errno.ENODEV, "something else is mounted in its place")
        write_something(self._mountpath)
        self._passed = time.monotonic()

    def fail(self, reason: str) -> None:
        """Tell all processes that the mountpath is unavailable, unless somebody has, or it came back since."""
        if self.current:
            self._stamps.reason = reason
            self._stamps.epoch = self.epoch + 1
            _log.error("mountpath %s (%s) is unavailable: %s", self._mountpath.directory, self._id, reason)

    def unavailable(self, what: str) -> MountpathUnavailableError:
        """Return the error for something the mountpath has, or may have a part of."""
        return self._named(self._stamps.reason, what)

    def closed(self, what: str) -> AisError:
        """Return the error for a write that comes too late: its bytes are with a mountpath that was let go."""
        return self.unavailable(what) if not self.current else InternalError(f"{what}: the engine is closed")

    def suspect(self, error: AisError, what: str) -> AisError:
        """Return ``error``, which the disk may be to blame for, or the mountpath's if it is found to be unavailable."""
        if self.further and self.current:
            try:
                self.test()
            except OSError as found:
                self.fail(found.strerror or str(found))
        return error if self.current else self.unavailable(what)

    def fault(self, error: Exception, what: str) -> Exception:
        """Return the project's error for one that was raised while working with the mountpath."""
        if isinstance(error, AisError):
            return error
        words = disk_words(error)
        # Files that should be there, a table that is not: a disk that is going shows itself in many ways.
        odd = self.further and isinstance(error, (FileNotFoundError, sqlite3.Error)) and "is full" not in str(error)
        if words is None and not odd and self.current:
            return index.translate(error, what)
        default = index.translate(error, what) if words is None else self._named(words, what)
        assert isinstance(default, AisError)
        result = self.suspect(default, what)
        result.__cause__ = error
        return result

    def file_fault(self, error: OSError, what: str) -> Exception:
        """Return the project's error for one of an object's file: the disk's if that fails, else of the file alone."""
        fault = self.fault(error, what)
        if not isinstance(fault, MountpathUnavailableError) or not self._takes_writes():
            return fault
        unreadable = InternalError(
            f"{what}: its file on mountpath {self._mountpath.directory} ({self._id}) cannot be read: {error.strerror}",
            hint="the disk has lost it, and may be failing: restore the object from its source, and check the disk",
        )
        unreadable.__cause__ = error
        return unreadable

    def _takes_writes(self) -> bool:
        if self.further:
            return self.current
        try:
            write_something(self._mountpath)
        except OSError:
            return False
        return True

    def _named(self, reason: str, what: str) -> MountpathUnavailableError:
        return unavailable(self._id, self._mountpath.directory, reason, what)


def write_something(mountpath: Mountpath) -> None:
    """Write to the mountpath's disk and wait for that; raises OSError. A full disk is not a broken one."""
    path = f"{mountpath.directory}/probe"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"written to see whether this disk can be written to\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _identity(directory: str) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino

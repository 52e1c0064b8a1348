"""Which mountpaths of a store are there, from outside of any engine: seen by housekeeping, brought back, described."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from ...errors import ConflictError
from . import index, stamps
from .catalog import read_mountpaths
from .health import DISABLED, check_mark, disk_words, write_something
from .layout import Mountpath, further, open_directory
from .placement import ROOT, Member, MountpathSet
from .recovery import recover_mountpath
from .stamps import EVERYTHING, Stamps

#: How long a change waits for the turn of one mountpath. Guessed: a batch of large objects with their syncs.
_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class MountpathStatus:
    """A mountpath: ``state`` is "available", "unavailable" or "disabled", ``reason`` says why it is not available.

    Bytes are of the file system: what is free for new objects and all it has; ``size`` is of the objects. What cannot
    be found out is None.
    """

    id: str
    path: str
    state: str
    reason: str
    objects: int | None
    size: int | None
    available_bytes: int | None
    total_bytes: int | None


def mountpaths(directory: str) -> MountpathSet:
    """Return the set of a store's mountpaths. ``directory`` is its data directory, here and below."""
    with closing(index.connect(open_directory(directory).database)) as connection:
        return read_mountpaths(connection)


def bring_back(directory: str, id_: str, *, verify: bool = True) -> None:
    """Make a mountpath available if its disk is; nothing if it is already, or disabled, or has left.

    Raises OSError or sqlite3.Error that says why it cannot be, after all processes were told. What was written last
    is verified as after a power cut, unless it is known that nothing happened to the disk.
    """
    with alone(directory):
        known = mountpaths(directory)
        member = known.member(id_)
        if member is None or not member.enabled:
            return
        places = further(directory, member)
        stamps.create(places.stamps)
        try:
            check_mark(places, known, id_)
            write_something(places)
            recover_mountpath(places, verify=verify)
        except (OSError, sqlite3.Error) as error:
            make_unavailable(places, words_of(error))
            raise
        if not is_away(places):
            return
        # Objects kept in memory may be of a state that recovery took back: forgotten before anybody reads the disk.
        with writing(directory) as writer, writer.transaction((EVERYTHING,)):
            pass
        make_available(places)


def look_after(directory: str, member: Member, known: MountpathSet) -> None:
    """See whether a mountpath is what it should be, for housekeeping: bring it back, or find out that it is away."""
    places = further(directory, member)
    if not member.enabled:
        if not is_away(places):
            make_unavailable(places, DISABLED)
        return
    try:
        if is_away(places):
            bring_back(directory, member.id)
        else:
            check_mark(places, known, member.id)
            write_something(places)
    except (OSError, sqlite3.Error) as error:
        make_unavailable(places, words_of(error))
    except ConflictError:  # somebody else is at it
        pass


def statuses(directory: str) -> list[MountpathStatus]:
    """Return what can be said of each mountpath. Counts every object: a second for some millions."""
    directory = os.path.abspath(directory)
    return [_status(directory, member) for member in mountpaths(directory).members]


def _status(directory: str, member: Member) -> MountpathStatus:
    places = further(directory, member)
    path = member.path or directory
    if member.id != ROOT and is_away(places):
        state = "unavailable" if member.enabled else "disabled"
        return MountpathStatus(member.id, path, state, reason_of(places), None, None, None, None)
    try:
        space = os.statvfs(places.directory)
        with closing(index.connect(places.database)) as connection:
            count, size = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM objects").fetchone()
    except (OSError, sqlite3.Error) as error:
        return MountpathStatus(member.id, path, "unavailable", words_of(error), None, None, None, None)
    free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    return MountpathStatus(member.id, path, "available", "", count, size, free, total)


@contextmanager
def writing(directory: str) -> Iterator[index.Writer]:
    """Return a writer to the first mountpath's index; what it commits is on the disk.

    A power cut must not take back that a mountpath belongs to the store when it has objects already.
    """
    places = open_directory(directory)
    with (
        closing(Stamps(places.stamps)) as table,
        closing(index.Writer(places.database, places.commit_lock, table, durable=True)) as writer,
    ):
        yield writer


@contextmanager
def alone(directory: str) -> Iterator[None]:
    """Hold the lock of changes to the set, and to the state, of mountpaths."""
    path = f"{os.path.abspath(directory)}/{ROOT}/members.lock"
    with locked(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), path):
        yield


@contextmanager
def locked(descriptor: int, path: str) -> Iterator[None]:
    """Hold the lock on a file, and close it; raises ConflictError when somebody else holds it for long."""
    try:
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"{path} is held by another process for {_WAIT_SECONDS:.0f} s", hint="try again in a moment"
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def is_away(places: Mountpath) -> bool:
    """Say whether a mountpath is known to be unavailable."""
    with closing(Stamps(places.stamps)) as table:
        return table.epoch % 2 == 1


def reason_of(places: Mountpath) -> str:
    """Return why a mountpath is unavailable."""
    with closing(Stamps(places.stamps)) as table:
        return table.reason


def make_unavailable(places: Mountpath, reason: str) -> None:
    """Tell all processes that a mountpath is not to be used."""
    with closing(Stamps(places.stamps)) as table:
        table.reason = reason
        if table.epoch % 2 == 0:
            table.epoch += 1


def make_available(places: Mountpath) -> None:
    """Tell all processes that a mountpath can be opened."""
    with closing(Stamps(places.stamps)) as table:
        if table.epoch % 2:
            table.epoch += 1


def words_of(error: BaseException) -> str:
    """Return why a mountpath cannot be used, for people."""
    return (isinstance(error, OSError) and error.strerror) or disk_words(error) or str(error)

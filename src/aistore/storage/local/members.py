"""Changes to a store's set of mountpaths: attach, detach, disable, enable.

Any process may call these, also while others read and write. A change holds the turns of all mountpaths that can be
reached, so that no writer is between the proof that its object belongs somewhere and its commit (turn.py); it is
committed to the catalog in one step, which every process notices at its next operation.

A mountpath that cannot be reached has no writers either: what they would write to is gone. A name that may be on it is
not created anywhere else meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from ...errors import BadRequestError, ConflictError, NotFoundError
from . import index
from .catalog import read_mountpaths, write_mountpaths
from .health import DISABLED, unavailable, write_something
from .layout import Mountpath, begin, further
from .placement import ROOT, Member, MountpathSet
from .presence import (
    alone,
    bring_back,
    is_away,
    locked,
    make_available,
    make_unavailable,
    words_of,
    writing,
)
from .stamps import EVERYTHING
from .syncing import replace_file

_KIND = "pyaistore mountpath"
FORMAT = 1
#: Found in a directory that is still empty to its owner.
_TOLERATED = frozenset({"lost+found"})


def attach(directory: str, path: str) -> Member:
    """Add a mountpath: a directory, empty or not there yet, best on a disk of its own. New names spread over it.

    A mountpath of the store whose disk is mounted elsewhere now is found again there. Raises BadRequestError,
    ConflictError for a directory with something else in it.
    """
    path = _checked(path)
    member = _found_again(directory, path)
    if member is not None:
        _use(directory, member, "attached")
        return member
    with _changing(directory) as change:
        known = change.mountpaths
        member = known.at(path)
        if member is not None:
            return member
        if not known.store:
            known = known.begun(secrets.token_hex(16))
            change.commit(known)  # before anything is marked with it
        _check_new(path, os.path.abspath(directory), known)
        joined, member = known.joined(path)
        places = further(directory, member)
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            # First of all: a beginning that is cut off after it can be told from somebody else's files.
            _write_mark(places, known.store, member.id)
            begin(places)
            write_something(places)
        except OSError as error:
            raise BadRequestError(f"{path} cannot be a mountpath: {error.strerror or error}") from error
        make_available(places)
        change.commit(joined)
    return member


def _found_again(directory: str, path: str) -> Member | None:
    """Return the member whose mark is in ``path``, as one that is there, if it is not where it was."""
    with _changing(directory) as change:
        store, id_ = _read_mark(path)
        member = change.mountpaths.member(id_)
        if member is None or store != change.mountpaths.store or member.path == path:
            return None
        if not is_away(further(directory, member)) and os.path.exists(Mountpath(member.path).mark):
            return None  # a copy
        make_unavailable(further(directory, member), "it is mounted elsewhere")
        change.commit(change.mountpaths.moved(id_, path))
        return change.mountpaths.moved(id_, path).member(id_)


def detach(directory: str, path: str, *, force: bool = False) -> Member:
    """Take a mountpath out of the store for good, and with ``force`` give up the objects that are on it.

    Raises NotFoundError, ConflictError when there are objects on it, or it cannot be told, without ``force``. A
    mountpath without objects is cleared, so that it can be attached again.
    """
    with _changing(directory) as change:
        member = _member(change.mountpaths, path)
        places = further(directory, member)
        empty = _is_empty(places, change)
        if not empty and not force:
            found = "cannot be looked into" if empty is None else "has objects on it"
            raise ConflictError(
                f"mountpath {member.path} {found}, which would be lost to the store",
                hint=f"copy them elsewhere first, or give them up: ais storage mountpath detach {member.path} --force",
            )
        change.commit(change.mountpaths.left(member.id))
        make_unavailable(places, "it was detached")
    if empty:
        _clear(places)
    return member


def switch(directory: str, path: str, *, enabled: bool) -> Member:
    """Disable a mountpath, whose objects are unavailable then and whose disk can be unmounted; or enable it again."""
    with _changing(directory) as change:
        member = _member(change.mountpaths, path)
        change.commit(change.mountpaths.switched(member.id, enabled=enabled))
        if not enabled:
            make_unavailable(further(directory, member), DISABLED)
    if enabled:
        _use(directory, member, "enabled")
    return member


def _use(directory: str, member: Member, done: str) -> None:
    """Make a mountpath available at once; raises MountpathUnavailableError where that has to wait for its disk."""
    try:
        bring_back(directory, member.id)
    except (OSError, sqlite3.Error) as error:
        raise unavailable(member.id, member.path, words_of(error), f"it was {done}") from error


class _Change:
    """A change under way, with the turns of all mountpaths."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.mountpaths = read_mountpaths(connection)

    def commit(self, mountpaths: MountpathSet) -> None:
        """Make it what everybody sees from now on, while the turns are held yet."""
        write_mountpaths(self.connection, mountpaths)
        self.connection.execute("COMMIT")
        self.connection.execute("BEGIN IMMEDIATE")


@contextmanager
def _changing(directory: str) -> Iterator[_Change]:
    directory = os.path.abspath(directory)
    with alone(directory), writing(directory) as writer, writer.transaction((EVERYTHING,)) as connection:
        change = _Change(connection)
        with ExitStack() as held:
            for member in change.mountpaths.members:
                if member.id != ROOT and not is_away(further(directory, member)):
                    held.enter_context(_turn(further(directory, member)))
            yield change


@contextmanager
def _turn(places: Mountpath) -> Iterator[None]:
    """Hold the turn of a further mountpath, if it can be reached."""
    try:
        descriptor = os.open(places.commit_lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        make_unavailable(places, words_of(error))
        yield
        return
    with locked(descriptor, places.commit_lock):
        yield


def _checked(path: str) -> str:
    if not os.path.isabs(path):
        raise BadRequestError(f"{path!r} is not a full path", hint="a mountpath begins with /")
    return os.path.normpath(path)


def _member(known: MountpathSet, path: str) -> Member:
    member = known.member(path) or known.at(_checked(path))
    if member is None:
        there = ", ".join(one.path for one in known.members if one.path) or "none but the data directory's own"
        raise NotFoundError(f"{path} is not a mountpath of this store", hint=f"mountpaths: {there}")
    if member.id == ROOT:
        raise ConflictError(
            f"{ROOT} is in the data directory and has the store's catalog: it cannot leave",
            hint="to move the store to another disk, stop it and copy the data directory",
        )
    return member


def _check_new(path: str, directory: str, known: MountpathSet) -> None:
    """Raise ConflictError unless a mountpath can begin in ``path``; clears a beginning of ours that was cut off."""
    for other in (directory, *(member.path for member in known.members if member.path)):
        if os.path.commonpath((os.path.realpath(other), os.path.realpath(path))) in map(
            os.path.realpath, (other, path)
        ):
            raise ConflictError(f"{path} and {other} overlap", hint="choose a directory on another disk")
    try:
        names = set(os.listdir(path)) - _TOLERATED
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadRequestError(f"{path} cannot be a mountpath: {error.strerror}") from error
    if not names:
        return
    store, id_ = _read_mark(path)
    if store == known.store and id_ not in [f"mp{number}" for number in range(known.next)]:
        _clear(Mountpath(path))
        return
    if store == known.store and known.member(id_) is not None:
        raise ConflictError(f"{path} looks like {id_}, which is available at its place", hint="is it a copy?")
    if store == known.store:
        raise ConflictError(
            f"{path} was detached from this store, which has changed since",
            hint="empty it, or choose another directory",
        )
    found = "is a mountpath of another store" if store else f"is not empty: it has {sorted(names)[0]}"
    raise ConflictError(f"{path} {found}", hint="choose an empty directory, or a new one")


def _read_mark(path: str) -> tuple[str, str]:
    try:
        with open(Mountpath(path).mark, encoding="utf-8") as file:
            found = json.load(file)
        return str(found["store"]), str(found["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def _write_mark(places: Mountpath, store: str, id_: str) -> None:
    mark = {"kind": _KIND, "format": FORMAT, "store": store, "id": id_}
    replace_file(places.mark, json.dumps(mark).encode())


def _is_empty(places: Mountpath, change: _Change) -> bool | None:
    """Say whether a mountpath has no object of a bucket that is there; None if it cannot be told."""
    if is_away(places):
        return None
    buckets = [number for (number,) in change.connection.execute("SELECT id FROM buckets")]
    try:
        with closing(index.connect(places.database)) as connection:
            one = "SELECT 1 FROM objects WHERE bucket = ? LIMIT 1"
            return not any(connection.execute(one, (number,)).fetchone() for number in buckets)
    except (OSError, sqlite3.Error):
        return None


def _clear(places: Mountpath) -> None:
    """Remove what a mountpath consists of, so that its directory is an empty one; the mark goes last."""
    for part in (places.markers, places.data):
        shutil.rmtree(part, ignore_errors=True)
    files = [places.database, f"{places.database}-wal", f"{places.database}-shm", places.commit_lock, places.copy]
    files += [f"{places.directory}/boot", f"{places.directory}/probe", f"{places.mark}.new", places.mark]
    for path in files:
        with contextlib.suppress(OSError):
            os.unlink(path)

"""Where things are in a data directory, and how one is begun and recognised.

::

    DIR/format.json         what this directory is, and the version of its format
    DIR/owner.lock          held by the one `ais serve`, see locks.py
    DIR/writers.lock        shared by every process that writes
    DIR/mp0/                one mountpath: an index and its files, together on one disk
        index.db            SQLite, WAL
        commit.lock         held by whoever writes to the index
        stamps              which objects changed, shared memory of all processes, see stamps.py
        stamps.mpN          the same for a further mountpath
        open/GENERATION     held and present while the generation may contain files the index does not know
        data/GENERATION/N   immutable files
        catalog.json        a copy of the catalog, to make it again from
        damaged/            what is known to be damaged, see damage.py
        scrub.json          how far the scrubber is, see scrub.py

A further mountpath is a directory on another disk with the same content but for the stamps, and its mark,
``mountpath.json``, which says whose it is: the directory that a disk is mounted on is empty when the disk is not there,
and must not be taken for a new mountpath.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import NamedTuple

from ...errors import ConflictError
from . import index, stamps
from .block_groups import spread_subdirectories
from .placement import ROOT, Member
from .syncing import replace_file, sync_directory

FORMAT = 1
_KIND = "pyaistore data directory"
#: The file that says that a directory is a cache: see storage/cache/layout.py.
CACHE_MARK = "cache.json"
#: Found in a directory that is still empty to its owner: the root of an ext4 disk, and our own locks and remains.
_TOLERATED = frozenset({"lost+found", "format.json.new", "owner.lock", "writers.lock"})


class Mountpath(NamedTuple):
    """One index with its files; ``table`` is the path of its stamps, if that is elsewhere."""

    directory: str
    table: str = ""

    @property
    def database(self) -> str:
        """The index's database file."""
        return f"{self.directory}/index.db"

    @property
    def commit_lock(self) -> str:
        """The file locked by whoever writes to the index."""
        return f"{self.directory}/commit.lock"

    @property
    def stamps(self) -> str:
        """The table that says which objects changed."""
        return self.table or f"{self.directory}/stamps"

    @property
    def markers(self) -> str:
        """The directory of unsealed generations' markers."""
        return f"{self.directory}/open"

    @property
    def damaged(self) -> str:
        """The directory of what is known to be damaged."""
        return f"{self.directory}/damaged"

    @property
    def data(self) -> str:
        """The directory of generations; a file's place is its path below it."""
        return f"{self.directory}/data"

    @property
    def rebuilding(self) -> str:
        """The file that is there while the index is made again; it names the old one."""
        return f"{self.database}.rebuilding"

    @property
    def copy(self) -> str:
        """The copy of the catalog."""
        return f"{self.directory}/catalog.json"

    @property
    def mark(self) -> str:
        """The file that says to which store a further mountpath belongs."""
        return f"{self.directory}/mountpath.json"


def open_directory(directory: str) -> Mountpath:
    """Begin a data directory, or recognise one, and return its mountpath. Safe to call from many processes at once.

    Raises ConflictError for a directory with something else in it, and for one of a newer format.
    """
    directory = os.path.abspath(directory)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        recognise(directory)
        mountpath = Mountpath(f"{directory}/{ROOT}")
        begin(mountpath)
        _mark(directory)
    finally:
        os.close(descriptor)
    return mountpath


def begin(mountpath: Mountpath) -> None:
    """Make what a mountpath consists of, as far as it is not there; the caller makes sure that nobody else does."""
    for part in (mountpath.directory, mountpath.markers, mountpath.data):
        os.makedirs(part, mode=0o700, exist_ok=True)
    spread_subdirectories(mountpath.data)
    _refuse_lost_index(mountpath)
    index.create(mountpath.database)
    os.close(os.open(mountpath.commit_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    stamps.create(mountpath.stamps)


def further(directory: str, member: Member) -> Mountpath:
    """Return where a member of the set of mountpaths is. ``directory`` is the data directory."""
    directory = os.path.abspath(directory)
    if member.id == ROOT:
        return Mountpath(f"{directory}/{ROOT}")
    return Mountpath(member.path, f"{directory}/{ROOT}/stamps.{member.id}")


def old_index(mountpath: Mountpath) -> str:
    """Return the path of the old index while the new one is being made, else ""."""
    try:
        with open(mountpath.rebuilding, encoding="utf-8") as file:
            return f"{mountpath.directory}/{file.read()}"
    except FileNotFoundError:
        return ""


def has_files(mountpath: Mountpath) -> bool:
    """Say whether there is any generation of files."""
    try:
        with os.scandir(mountpath.data) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False


def _refuse_lost_index(mountpath: Mountpath) -> None:
    """Raise ConflictError when there are files of objects but no index, or one that is only half made.

    Recovery would remove every file that a new index lacks.
    """
    directory = os.path.dirname(mountpath.directory)
    if os.path.exists(mountpath.rebuilding):
        raise ConflictError(
            f"making the index of {mountpath.directory} again was interrupted",
            hint=f"finish it: ais fsck --rebuild {directory}",
        )
    if not os.path.exists(mountpath.database) and has_files(mountpath):
        raise ConflictError(
            f"{mountpath.database} is gone, but there are files of objects",
            hint=f"put it back from a copy, or make it again from the files: ais fsck --rebuild {directory}",
        )


def recognise(directory: str) -> None:
    """Raise ConflictError unless ``directory`` is a data directory, or the beginning of one."""
    try:
        with open(f"{directory}/format.json", encoding="utf-8") as file:
            found = json.load(file)
        kind, version = found["kind"], found["format"]
    except FileNotFoundError:
        # "mp0" alone is a beginning that was cut off before its format.json, the last thing written.
        refuse_cache(directory)
        strangers = sorted(set(os.listdir(directory)) - _TOLERATED - {"mp0"})
        if strangers:
            shown = ", ".join(strangers[:3]) + (", ..." if len(strangers) > 3 else "")
            raise ConflictError(
                f"{directory} is not empty and not a data directory of this store: it has {shown}",
                hint="choose an empty directory or a new one",
            ) from None
        return
    except (ValueError, KeyError, TypeError) as error:
        raise ConflictError(f"{directory}/format.json cannot be read: {error}") from error
    if kind != _KIND or not isinstance(version, int):
        raise ConflictError(f"{directory} is not a data directory of this store: its format.json says {found!r}")
    if version > FORMAT:
        raise ConflictError(
            f"{directory} has format {version}, this version of the store reads up to {FORMAT}",
            hint="install the newer version that wrote it, or choose another directory",
        )


def refuse_cache(directory: str) -> None:
    """Raise ConflictError when ``directory`` is a cache, whose objects come and go."""
    if os.path.exists(f"{directory}/{CACHE_MARK}"):
        raise ConflictError(
            f"{directory} is a cache of a store and cannot be a data directory: what is in it is thrown away",
            hint="choose an empty directory or a new one for --data",
        )


def _mark(directory: str) -> None:
    path = f"{directory}/format.json"
    if os.path.exists(path):
        return
    replace_file(path, json.dumps({"kind": _KIND, "format": FORMAT}).encode())
    # What is synced in here later is there after a power cut only if the way to it is.
    for part in (f"{directory}/mp0", os.path.dirname(directory)):
        sync_directory(part)

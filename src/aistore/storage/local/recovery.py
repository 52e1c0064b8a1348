"""After a crash: what writers left behind goes, what a power cut tore goes back to what it was.

Only unsealed generations are looked at, so the work is bounded by what was written in the last moments, not by what
is stored. Two kinds of damage are different:

- A *killed process* leaves files that the index does not know: they are removed. What the index knows is whole,
  because a row is committed after its file was written.
- A *power cut* (or a kernel's crash) can also lose bytes that were written but not yet on the disk. After a boot every
  row that points into an unsealed generation is verified to the last byte; one that fails gives way to the version
  before it, if the trash still has that, else it is removed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import xxhash

from ...fallbacks import lacks
from . import index, trailer
from .layout import Mountpath, open_directory
from .stamps import EVERYTHING, Stamps

_CHUNK_BYTES = 1 << 20
_ADVICE_BYTES = 128 << 10
# Chosen by SQLite: of a million rows that takes 0.3 s, in Python 0.9 s.
_UNTRUSTED = """SELECT bucket, name, version, place, checksum FROM objects
    WHERE place IS NOT NULL AND substr(place, 1, instr(place, '/') - 1) NOT IN (SELECT generation FROM trusted)"""


class Recovered(NamedTuple):
    """What recovery did: generations compared, files of unfinished writes removed, torn objects taken back."""

    generations: int
    files_removed: int
    objects_torn: int


@index.translating
def recover(directory: str) -> Recovered:
    """Clean up after processes that were killed, and after a power cut; for the owner of ``directory``, at its start.

    Generations of processes that live are left alone. Safe to kill and to run again.
    """
    return recover_mountpath(open_directory(directory))


def recover_mountpath(mountpath: Mountpath, *, verify: bool = False) -> Recovered:
    """Clean up one mountpath; ``verify`` what was written last even if there was no boot since."""
    torn = 0
    boot = _boot_id()
    if verify or boot is None or boot != _last_boot(mountpath):
        torn = _take_back_torn(mountpath)
        _note_boot(mountpath, boot)
    generations = removed = 0
    connection = index.connect(mountpath.database)
    try:
        for name in unsealed(mountpath):
            marker = take(mountpath, name)
            if marker is not None:
                try:
                    removed += examine(mountpath, connection, name)
                    generations += 1
                finally:
                    os.close(marker)
    finally:
        connection.close()
    return Recovered(generations, removed, torn)


def unsealed(mountpath: Mountpath) -> list[str]:
    """Return the names of all generations that are not sealed, owned or not."""
    return os.listdir(mountpath.markers)


def take(mountpath: Mountpath, name: str) -> int | None:
    """Return a descriptor that holds the generation while open, or None if another process owns or sealed it."""
    try:
        marker = os.open(f"{mountpath.markers}/{name}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(marker).st_nlink:
            return marker
    except BlockingIOError:
        pass
    os.close(marker)
    return None


def examine(mountpath: Mountpath, connection: sqlite3.Connection, name: str) -> int:
    """Remove the files of a generation that the index does not know, return how many. The caller has taken it.

    An empty generation is removed altogether.
    """
    directory = f"{mountpath.data}/{name}"
    try:
        files = os.listdir(directory)
    except FileNotFoundError:  # its owner was killed before it made the directory
        os.unlink(f"{mountpath.markers}/{name}")
        return 0
    places = [f"{name}/{file}" for file in files]
    # One state of the index for all: a file moves from its row to the trash in one commit, and never back while
    # anybody writes, so what is unknown now stays unknown.
    connection.execute("BEGIN")
    try:
        unknown = [place for place in places if not _is_known(mountpath, connection, place)]
    finally:
        connection.execute("COMMIT")
    for place in unknown:
        try:
            os.unlink(f"{mountpath.data}/{place}")
        except FileNotFoundError:  # known to the trash a moment ago, and reclaimed since
            pass
    if len(unknown) == len(places):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        os.unlink(f"{mountpath.markers}/{name}")
    return len(unknown)


def seal(mountpath: Mountpath, name: str) -> None:
    """Declare that the generation needs no look again: compared, and on the disk. The caller has taken it.

    It is removed if all its files have gone since it was compared.
    """
    try:
        os.rmdir(f"{mountpath.data}/{name}")
    except OSError:  # not empty, which is usual: it goes with its last file
        pass
    try:
        os.unlink(f"{mountpath.markers}/{name}")
    except FileNotFoundError:  # it was empty and is gone
        pass


def read_trailer(mountpath: Mountpath, place: str) -> trailer.Record | None:
    """Return what the file at ``place`` says it is; None if it is gone or its write never ended."""
    try:
        descriptor = os.open(f"{mountpath.data}/{place}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return trailer.read_last(descriptor, place)
    finally:
        os.close(descriptor)


def _is_known(mountpath: Mountpath, connection: sqlite3.Connection, place: str) -> bool:
    record = read_trailer(mountpath, place)
    if record is not None:
        row = connection.execute(
            "SELECT place FROM objects WHERE bucket = ? AND name = ?", (record.bucket_id, record.name)
        ).fetchone()
        if row is not None and row[0] == place:
            return True
    elif connection.execute("SELECT 1 FROM objects WHERE place = ?", (place,)).fetchone() is not None:
        return True  # an object whose file is damaged: a scan of the index, but never a lost byte more
    return connection.execute("SELECT 1 FROM trash WHERE place = ?", (place,)).fetchone() is not None


def _boot_id() -> str | None:
    if lacks("proc"):  # not Linux: every start counts as one after a power cut
        return None
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # a /proc without it
        return None


def _last_boot(mountpath: Mountpath) -> str | None:
    try:
        with open(f"{mountpath.directory}/boot", encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _note_boot(mountpath: Mountpath, boot: str | None) -> None:
    # Not synced, which can take seconds: whatever a power cut leaves of it is not the name of the boot that follows.
    path = f"{mountpath.directory}/boot"
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(boot or "")
    os.replace(f"{path}.new", path)


def _take_back_torn(mountpath: Mountpath) -> int:
    """Undo what a power cut tore; return how many objects were affected."""
    trusted = _trusted(mountpath)
    stamps = Stamps(mountpath.stamps)
    writer = index.Writer(mountpath.database, mountpath.commit_lock, stamps)
    try:
        with writer.transaction((EVERYTHING,)) as connection:
            torn = list(_torn(mountpath, connection, trusted))
            for bucket_id, name, version in torn:
                _restore(connection, bucket_id, name, _former(mountpath, connection, bucket_id, name, version))
        return len(torn)
    finally:
        writer.close()
        stamps.close()


def _trusted(mountpath: Mountpath) -> set[str]:
    """Return the generations that a power cut cannot have touched, and those of processes that live."""
    trusted = set(os.listdir(mountpath.data))
    for name in unsealed(mountpath):
        marker = take(mountpath, name)
        if marker is not None:
            os.close(marker)
            trusted.discard(name)
    return trusted


def _torn(mountpath: Mountpath, connection: sqlite3.Connection, trusted: set[str]) -> Iterator[tuple[int, bytes, int]]:
    """Yield the objects whose files are torn or gone, by all rows: a file that is gone cannot say which row was its."""
    connection.execute("CREATE TEMP TABLE trusted (generation TEXT PRIMARY KEY) WITHOUT ROWID")
    connection.executemany("INSERT INTO trusted VALUES (?)", ((name,) for name in trusted))
    _read_ahead(mountpath.database)
    for bucket_id, name, version, place, checksum in connection.execute(_UNTRUSTED).fetchall():
        if not _is_whole(mountpath, place, checksum):
            yield bucket_id, name, version


def _read_ahead(path: str) -> None:
    """Have the kernel read a file in its order: SQLite's scan follows names, which lie all over it."""
    if lacks("fadvise"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The kernel takes no more than some hundred KiB of one such advice.
        for start in range(0, os.fstat(descriptor).st_size, _ADVICE_BYTES):
            os.posix_fadvise(descriptor, start, _ADVICE_BYTES, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)


def _is_whole(mountpath: Mountpath, place: str, checksum: str) -> bool:
    try:
        descriptor = os.open(f"{mountpath.data}/{place}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        record = trailer.read_last(descriptor, place)
        if record is None or record.checksum != checksum:
            return False
        hasher, done = xxhash.xxh64(), 0
        while done < record.size and (chunk := os.pread(descriptor, min(record.size - done, _CHUNK_BYTES), done)):
            hasher.update(chunk)
            done += len(chunk)
        return done == record.size and hasher.hexdigest() == checksum
    finally:
        os.close(descriptor)


def _former(
    mountpath: Mountpath, connection: sqlite3.Connection, bucket_id: int, name: bytes, version: int
) -> trailer.Record | None:
    """Return the newest whole version before ``version`` that the trash has of this life of the object."""
    thrown_away = connection.execute(
        "SELECT place, version FROM trash WHERE bucket = ? AND name = ? ORDER BY seq DESC", (bucket_id, name)
    )
    for place, former in thrown_away:
        if former != version - 1:  # of an earlier life of the name: it was deleted since
            return None
        record = read_trailer(mountpath, place)
        if record is not None and record.version == former and _is_whole(mountpath, place, record.checksum):
            return record
        version = former
    return None


def _restore(connection: sqlite3.Connection, bucket_id: int, name: bytes, former: trailer.Record | None) -> None:
    (place,) = connection.execute(
        "SELECT place FROM objects WHERE bucket = ? AND name = ?", (bucket_id, name)
    ).fetchone()
    connection.execute("DELETE FROM objects WHERE bucket = ? AND name = ?", (bucket_id, name))
    connection.execute("INSERT INTO trash (place) VALUES (?)", (place,))
    if former is not None:
        connection.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", index.row_of(former))
        connection.execute("DELETE FROM trash WHERE place = ?", (former.place,))

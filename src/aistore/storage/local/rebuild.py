"""Making the index again when it is lost or broken: from what is readable of the old one, and from the files' trailers.

The old index is put aside and stays. What it alone had, objects of 256 bytes and less and the buckets' properties,
comes from the pages of it that can be read. A file's trailer has a checksum of its own, so where the two disagree the
trailer counts; of two files for one name the later one. Deleted objects whose files were in their grace come back only
if the old index cannot say any more that they were deleted.

Killed at any moment, it can be run again: a file beside the index names the old one, and keeps a store from starting,
until the new one is in its place.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from ...errors import ConflictError
from . import index, recovery
from .catalog import read_mountpaths, write_mountpaths
from .catalog_copy import CatalogCopy
from .layout import Mountpath, old_index
from .salvage import Salvaged, open_readable, raise_sequence, salvage
from .syncing import replace_file, sync_directory

#: A new index is made beside the old one under this ending.
_NEW = ".new"

# What the files say of themselves; `record` is 0 for a file without a trailer that can be read.
_FILES = """CREATE TEMP TABLE files (place TEXT PRIMARY KEY, record INTEGER NOT NULL, bucket_name TEXT, bucket INTEGER,
    name BLOB, size INTEGER, version INTEGER, checksum TEXT, created_ns INTEGER, custom BLOB) WITHOUT ROWID"""
# Rows whose files are gone, and rows of files that say they are another object's.
_UNFOUNDED = """place IS NOT NULL AND NOT EXISTS (SELECT 1 FROM files f WHERE f.place = objects.place
    AND (f.record = 0 OR (f.bucket = objects.bucket AND f.name = objects.name)))"""
_BUCKETS = "SELECT id, name FROM buckets"
_GONE = "place IS NOT NULL AND place NOT IN (SELECT place FROM files)"
_ALIVE = "f.record AND f.bucket IN (SELECT id FROM alive) AND f.place NOT IN (SELECT place FROM trash)"
_FILL = f"""INSERT INTO objects
    SELECT bucket, name, size, version, checksum, created_ns, custom, place, NULL FROM files f WHERE {_ALIVE}
    ORDER BY created_ns, version
    ON CONFLICT (bucket, name) DO UPDATE SET size = excluded.size, version = excluded.version,
        checksum = excluded.checksum, created_ns = excluded.created_ns, custom = excluded.custom,
        place = excluded.place, data = NULL
    WHERE excluded.place = place OR (excluded.created_ns, excluded.version) > (created_ns, version)"""  # noqa: S608


class Rebuilt(NamedTuple):
    """What came back and what did not.

    Buckets, and how many of them without properties; objects, and how many of them lie in the index; files put into the
    trash, because a later version or a delete counts; files without a readable trailer; objects that the old index knew
    and whose files are gone (the first hundred by name); what was read of the old index, and where that was put.
    """

    buckets: int
    bare_buckets: int
    objects: int
    inline: int
    superseded: int
    unreadable: int
    lost: int
    lost_names: list[str]
    salvaged: Salvaged
    old_index: str


def rebuild(
    mountpath: Mountpath,
    *,
    catalog: Mountpath | None = None,
    copy: CatalogCopy | None = None,
    others: Sequence[Mountpath] = (),
    seen: Callable[[int], None] = lambda files: None,
) -> Rebuilt:
    """Put the old index aside (``index.db.before-…``) and make a new one; the caller owns the store.

    ``catalog`` is the mountpath whose index knows the buckets, if that is another one; it must be sound. ``copy`` is
    the latest copy of the catalog, for what the old index cannot tell, and ``others`` are the mountpaths that have
    objects of the same buckets, for what the copy cannot. ``seen`` is called with the number of files
    looked at since its last call. Raises ConflictError when there is nothing to make an index from, or
    when a process is writing.
    """
    if not os.path.isdir(mountpath.data):
        raise ConflictError(f"{mountpath.directory} has no data to make an index from", hint="expected a mountpath")
    _refuse_writers(mountpath)
    old = _put_aside(mountpath)
    new = f"{mountpath.database}{_NEW}"
    for path in (new, f"{new}-wal", f"{new}-shm"):
        if os.path.exists(path):
            os.unlink(path)
    index.create(new)
    with closing(index.connect(new, durable=True)) as connection:
        connection.execute(_FILES)
        connection.execute("BEGIN IMMEDIATE")
        rebuilt = _Filling(mountpath, connection, old).run(catalog, copy, others, seen)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    os.replace(new, mountpath.database)
    sync_directory(mountpath.directory)
    os.unlink(mountpath.rebuilding)
    sync_directory(mountpath.directory)
    return rebuilt


def _refuse_writers(mountpath: Mountpath) -> None:
    for name in recovery.unsealed(mountpath):
        marker = recovery.take(mountpath, name)
        if marker is None:
            raise ConflictError(f"{mountpath.directory} is being written to", hint="stop the store, then rebuild")
        os.close(marker)


def _put_aside(mountpath: Mountpath) -> str:
    """Move the old index away, if an earlier run has not done so, and return where it is then."""
    old = old_index(mountpath)
    if not old:
        old = f"{mountpath.database}.before-{time.time_ns()}"
        replace_file(mountpath.rebuilding, os.path.basename(old).encode())
    # The database first: once it is aside, what is found in its place is a new one of an earlier run.
    for part in ("", "-wal", "-shm"):
        if os.path.exists(f"{mountpath.database}{part}") and not os.path.exists(f"{old}{part}"):
            os.rename(f"{mountpath.database}{part}", f"{old}{part}")
    sync_directory(mountpath.directory)
    return old


class _Filling:
    """A new index on the way, in one transaction."""

    def __init__(self, mountpath: Mountpath, connection: sqlite3.Connection, old: str) -> None:
        self._mountpath = mountpath
        self._connection = connection
        self._old = old

    def run(
        self, catalog: Mountpath | None, copy: CatalogCopy | None, others: Sequence[Mountpath],
        seen: Callable[[int], None],
    ) -> Rebuilt:  # fmt: skip
        """Fill the index from the old one and the files."""
        connection = self._connection
        marks = ", ".join("?" * 10)
        connection.executemany(f"INSERT INTO files VALUES ({marks})", _files(self._mountpath, seen))  # noqa: S608
        numbers = [row[0] for row in connection.execute("SELECT DISTINCT bucket FROM files WHERE record")]
        alive = [] if catalog is None else _read_buckets(catalog)
        numbers += [number for number, _ in alive]  # of which there may be no file here
        salvaged = salvage(self._old, connection, f"{self._mountpath.database}.scratch", numbers)
        bare = 0
        if catalog is None:
            connection.execute("CREATE TEMP TABLE elsewhere (bucket INTEGER, bucket_name TEXT)")
            if not salvaged.buckets_whole:
                for other in others:
                    connection.executemany("INSERT INTO elsewhere VALUES (?, ?)", _buckets_on(other))
                numbers += [row[0] for row in connection.execute("SELECT DISTINCT bucket FROM elsewhere")]
                bare = _add_buckets(connection, copy)
            if copy is not None and len(read_mountpaths(connection).members) < len(copy.mountpaths.members):
                write_mountpaths(connection, copy.mountpaths)
            raise_sequence(connection, "buckets", max(numbers, default=0))
        self._say_alive(alive if catalog is not None else connection.execute(_BUCKETS).fetchall())
        lost, lost_names = self._lost()
        connection.execute(f"DELETE FROM objects WHERE {_UNFOUNDED}")  # noqa: S608
        connection.execute(_FILL)
        connection.execute(
            "INSERT OR IGNORE INTO trash (place) SELECT place FROM files WHERE record"
            " AND place NOT IN (SELECT place FROM objects WHERE place IS NOT NULL)"
        )
        buckets, objects, inline, superseded, unreadable = connection.execute(
            "SELECT (SELECT count(*) FROM alive), count(*), coalesce(sum(place IS NULL), 0),"
            " (SELECT count(*) FROM trash WHERE place IN (SELECT place FROM files)),"
            " (SELECT count(*) FROM files WHERE NOT record)"
            " FROM objects WHERE bucket IN (SELECT id FROM alive)"
        ).fetchone()
        return Rebuilt(buckets, bare, objects, inline, superseded, unreadable, lost, lost_names, salvaged, self._old)

    def _say_alive(self, alive: list[tuple[int, str]]) -> None:
        """Note which buckets there are: the files of all others are of removed ones."""
        self._connection.execute("CREATE TEMP TABLE alive (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        self._connection.executemany("INSERT INTO alive VALUES (?, ?)", alive)

    def _lost(self) -> tuple[int, list[str]]:
        """Return how many objects the old index knew whose files are gone, and some of their names."""
        where = f"FROM objects JOIN alive b ON b.id = bucket WHERE {_GONE}"
        (lost,) = self._connection.execute(f"SELECT count(*) {where}").fetchone()
        names = self._connection.execute(f"SELECT b.name, objects.name {where} LIMIT 100")
        return lost, [f"ais://{bucket}/{name.decode(errors='replace')}" for bucket, name in names]


def _read_buckets(mountpath: Mountpath) -> list[tuple[int, str]]:
    with closing(open_readable(mountpath.database)) as connection:
        return connection.execute(_BUCKETS).fetchall()


def _files(mountpath: Mountpath, seen: Callable[[int], None]) -> Iterator[tuple[object, ...]]:
    for generation in sorted(os.listdir(mountpath.data)):
        files = os.listdir(f"{mountpath.data}/{generation}")
        for file in files:
            place = f"{generation}/{file}"
            record = recovery.read_trailer(mountpath, place)
            if record is None:
                yield (place, 0, *([None] * 8))
            else:
                bucket, name, size, version, checksum, created_ns, custom, _ = index.row_of(record)
                yield place, 1, record.bucket, bucket, name, size, version, checksum, created_ns, custom
        seen(len(files))


def _buckets_on(mountpath: Mountpath) -> set[tuple[object, object]]:
    """Return the buckets that a mountpath has objects of: their numbers and names, None where nothing tells."""
    found = {(row[3], row[2]) for row in _files(mountpath, lambda files: None) if row[1]}
    try:
        with closing(open_readable(mountpath.database)) as connection:
            numbers = {row[0] for row in connection.execute("SELECT DISTINCT bucket FROM objects")}
    except sqlite3.Error:
        numbers = set()
    return found | {(number, None) for number in numbers - {number for number, _ in found}}


def _add_buckets(connection: sqlite3.Connection, copy: CatalogCopy | None) -> int:
    """Add the buckets that the old index cannot tell of, return how many of them without their properties.

    They are those of the copy, and what the files tell of later ones: the last one of each name. Objects that lay in
    the index of a bucket that neither tells of come back in a bucket ``recovered-NUMBER``; those on other mountpaths do
    not, because under another name they would not be looked for where they are.
    """
    next_bucket = 0
    if copy is not None:
        next_bucket = copy.next_bucket
        connection.executemany(
            "INSERT OR IGNORE INTO buckets (id, name, created_ns, props) VALUES (?, ?, ?, ?)",
            [(one.id, one.name, one.created_ns, index.encode_props(one.props)) for one in copy.buckets],
        )
        raise_sequence(connection, "buckets", next_bucket - 1)
    (known,) = connection.execute("SELECT count(*) FROM buckets").fetchone()
    new = (time.time_ns(), index.encode_props({}), next_bucket)
    connection.execute(
        "INSERT OR IGNORE INTO buckets (id, name, created_ns, props)"
        " SELECT max(bucket), bucket_name, ?, ? FROM (SELECT bucket, bucket_name FROM files WHERE record"
        " UNION SELECT bucket, bucket_name FROM elsewhere WHERE bucket_name IS NOT NULL) WHERE bucket >= ?"
        " AND bucket NOT IN (SELECT bucket FROM doomed) GROUP BY bucket_name",
        new,
    )
    connection.execute(
        "INSERT OR IGNORE INTO buckets (id, name, created_ns, props)"
        " SELECT DISTINCT bucket, 'recovered-' || bucket, ?, ? FROM objects WHERE place IS NULL AND bucket >= ?"
        " AND bucket NOT IN (SELECT id FROM buckets)"
        " AND bucket NOT IN (SELECT bucket FROM doomed) AND bucket NOT IN (SELECT bucket FROM files WHERE record)",
        new,
    )
    (all_,) = connection.execute("SELECT count(*) FROM buckets").fetchone()
    return int(all_ - known)

"""Checking a store that does not run: every row has its file, every file its row, and all bytes are what was stored.

Nothing is changed. What a killed process left (files that the index does not know, in generations that are still open)
is no damage: the next start removes it.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from typing import NamedTuple

import msgspec

from ...errors import ConflictError, NotFoundError
from . import index, recovery
from .catalog import read_mountpaths
from .catalog_copy import read_copy
from .inspection import COLUMNS, Row, inspect
from .layout import Mountpath, further, has_files, old_index, recognise
from .locks import hold
from .placement import ROOT, MountpathSet
from .rebuild import Rebuilt, rebuild
from .salvage import open_readable, salvage

#: Kinds of findings that are about the index or a file; those about an object are in inspection.py.
INDEX, BUCKET, TRASH, UNKNOWN_FILE, INTERRUPTED = "index", "bucket", "trash", "unknown-file", "interrupted"
MOUNTPATH = "mountpath"
_MESSAGES_MAX = 100  # of one integrity check


class Finding(NamedTuple):
    """One damage: its kind, the object it concerns ("" for none), the file, and what is wrong."""

    kind: str
    object: str
    file: str
    problem: str


class Report(NamedTuple):
    """What was looked at: numbers of objects, of their bytes, of files; files for recovery to remove; the findings."""

    objects: int
    bytes: int
    files: int
    unfinished: int
    trash: int
    findings: list[Finding]


class Catalog(NamedTuple):
    """The buckets' names by their numbers, and the numbers of removed ones whose objects are not purged yet.

    ``complete`` says whether a bucket that is not among them does not exist.
    """

    buckets: dict[int, str]
    removed: set[int]
    complete: bool = True


class Progress(NamedTuple):
    """Who wants to know: told of the bytes to come, once per mountpath, then of bytes as they are read."""

    begin: Callable[[int], None] = lambda total: None
    advance: Callable[[int], None] = lambda size: None


_SILENT = Progress()


@contextmanager
def offline(directory: str) -> Iterator[list[Mountpath]]:
    """Own ``directory`` for a while, and get its mountpaths.

    Raises NotFoundError when it is no data directory, ConflictError that names the owner when it is in use.
    """
    directory = os.path.abspath(directory)
    found = mountpaths(directory)
    if not found:
        raise NotFoundError(
            f"{directory} is not a data directory of this store", hint="name the one that `ais serve --data` was given"
        )
    recognise(directory)
    ownership = hold(directory)
    try:
        yield found
    finally:
        ownership.close()


def mountpaths(directory: str) -> list[Mountpath]:
    """Return the mountpaths of a data directory as it is, the first one first; none if it is not one."""
    root = Mountpath(f"{directory}/{ROOT}")
    if not os.path.isdir(root.directory):
        return []
    known = _known_mountpaths(root)
    return [root, *(further(directory, member) for member in known.members if member.id != ROOT)]


def _known_mountpaths(root: Mountpath) -> MountpathSet:
    """Return the set of mountpaths by the index, by the one put aside if that is being made again, or by its copy."""
    for database in (old_index(root), root.database):
        if database and os.path.exists(database):
            try:
                with closing(open_readable(database)) as connection:
                    return read_mountpaths(connection)
            except (sqlite3.Error, msgspec.DecodeError):
                pass
    copy = read_copy(root)
    return copy.mountpaths if copy else MountpathSet()


def check(directory: str, *, fast: bool = False, progress: Progress = _SILENT) -> Report:
    """Compare index and files of a store nobody runs; ``fast`` looks at no bytes of objects."""
    with offline(directory) as found:
        catalog = Catalog({}, set())  # the first one's, for all
        reports = [check_mountpath(found[0], catalog, fast=fast, progress=progress)]
        if any(finding.kind in (INDEX, INTERRUPTED, MOUNTPATH) for finding in reports[0].findings):
            catalog = _from_copies(catalog, found)
        reports += [check_mountpath(mountpath, catalog, fast=fast, progress=progress) for mountpath in found[1:]]
    return Report(
        objects=sum(report.objects for report in reports),
        bytes=sum(report.bytes for report in reports),
        files=sum(report.files for report in reports),
        unfinished=sum(report.unfinished for report in reports),
        trash=sum(report.trash for report in reports),
        findings=[finding for report in reports for finding in report.findings],
    )


def _from_copies(catalog: Catalog, found: list[Mountpath]) -> Catalog:
    """Return what is known of the catalog beside what the first index, which is damaged, tells of it."""
    buckets = {bucket.id: bucket.name for copy in map(read_copy, found) if copy for bucket in copy.buckets}
    return Catalog({**buckets, **catalog.buckets}, catalog.removed, complete=False)


def rebuild_all(directory: str, seen: Callable[[int], None] = lambda files: None) -> list[tuple[Mountpath, Rebuilt]]:
    """Make the index of every mountpath again, see rebuild.py."""
    with offline(directory) as found:
        first, *others = found
        for mountpath in others:
            if not os.path.isdir(mountpath.data):
                raise ConflictError(f"mountpath {mountpath.directory} is not there", hint="is its disk mounted?")
        copies = [copy for copy in map(read_copy, found) if copy is not None]
        copy = max(copies, key=lambda copy: (copy.next_bucket, copy.mountpaths.next), default=None)
        rebuilt = [(first, rebuild(first, copy=copy, others=others, seen=seen))]
        return rebuilt + [(mountpath, rebuild(mountpath, catalog=first, seen=seen)) for mountpath in others]


def check_mountpath(mountpath: Mountpath, catalog: Catalog, *, fast: bool, progress: Progress) -> Report:
    """Check one mountpath; the caller owns the store. ``catalog`` is added to by the mountpath that has buckets."""
    if not os.path.isdir(mountpath.data):
        return Report(
            0, 0, 0, 0, 0, [Finding(MOUNTPATH, "", mountpath.directory, "is not there: is its disk mounted?")]
        )
    if os.path.exists(mountpath.rebuilding):
        again = "making the index again was interrupted: run `ais fsck --rebuild` once more"
        return Report(0, 0, 0, 0, 0, [Finding(INTERRUPTED, "", mountpath.database, again)])
    if not os.path.exists(mountpath.database):
        if not has_files(mountpath):
            return Report(0, 0, 0, 0, 0, [])
        lost = "is gone: `ais fsck --rebuild` makes it again from the files"
        return Report(0, 0, 0, 0, 0, [Finding(INDEX, "", mountpath.database, lost)])
    with closing(open_readable(mountpath.database)) as connection:
        broken = list(_integrity(mountpath, connection, fast=fast))
        if not broken:
            return _Check(mountpath, connection, catalog, fast, progress).run()
    # What can be read of it is checked all the same, in a copy that SQLite has no trouble with.
    with tempfile.TemporaryDirectory(prefix="ais-fsck-") as scratch:
        index.create(f"{scratch}/index.db")
        with closing(index.connect(f"{scratch}/index.db")) as copy:
            copy.execute("BEGIN")
            salvaged = salvage(mountpath.database, copy, f"{scratch}/first-page.db", catalog.buckets)
            copy.execute("COMMIT")
            for gap in salvaged.gaps:
                row = copy.execute("SELECT name FROM buckets WHERE id = ?", (gap.bucket,)).fetchone()
                names = f"names {gap} cannot be read"
                broken.append(Finding(INDEX, f"ais://{row[0]}" if row else "", mountpath.database, names))
            report = _Check(mountpath, copy, catalog, fast, progress).run()
    return report._replace(findings=broken + report.findings)


def _integrity(mountpath: Mountpath, connection: sqlite3.Connection, *, fast: bool) -> Iterator[Finding]:
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > index.SCHEMA_VERSION:
            raise ConflictError(
                f"{mountpath.database} has schema {version}, this version of the store reads up to "
                f"{index.SCHEMA_VERSION}",
                hint="install the newer version that wrote it",
            )
        pragma = "quick_check" if fast else "integrity_check"
        for (line,) in connection.execute(f"PRAGMA {pragma}({_MESSAGES_MAX})"):
            if line != "ok":
                for message in line.splitlines():
                    yield Finding(INDEX, "", mountpath.database, message)
        connection.execute(f"SELECT {COLUMNS} FROM objects LIMIT 1").fetchone()  # noqa: S608
    except sqlite3.DatabaseError as error:
        yield Finding(INDEX, "", mountpath.database, f"cannot be read: {error}")


class _Check:
    """One mountpath, generation by generation: rows sorted by place on one side, directories on the other."""

    def __init__(
        self, mountpath: Mountpath, connection: sqlite3.Connection, catalog: Catalog, fast: bool, progress: Progress
    ) -> None:
        self._mountpath = mountpath
        self._connection = connection
        self._read = not fast
        self._progress = progress
        self._buckets, self._removed, self._complete = catalog
        self._buckets.update(connection.execute("SELECT id, name FROM buckets"))
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        for table in {"doomed", "removed"} & names:  # an older index has not both
            self._removed.update(row[0] for row in connection.execute(f"SELECT bucket FROM {table}"))  # noqa: S608
        self._open = set(recovery.unsealed(mountpath))
        self._findings: list[Finding] = []
        self._counts: Counter[str] = Counter()

    def run(self) -> Report:
        """Look at everything."""
        sizes = self._connection.execute("SELECT bucket, sum(size) FROM objects GROUP BY bucket")
        total = sum(size for bucket, size in sizes if bucket not in self._removed)
        self._progress.begin(total if self._read else 0)
        for raw in self._connection.execute(f"SELECT {COLUMNS} FROM objects WHERE place IS NULL"):  # noqa: S608
            self._look_at(Row(*raw))
        left = set(os.listdir(self._mountpath.data))
        rows = self._connection.execute(
            f"SELECT {COLUMNS} FROM objects WHERE place IS NOT NULL ORDER BY place"  # noqa: S608
        )
        for generation, group in groupby(map(Row._make, rows), lambda row: str(row.place).partition("/")[0]):
            left.discard(generation)
            self._generation(generation, list(group))
        for generation in sorted(left):
            self._generation(generation, [])
        counts = self._counts
        return Report(
            counts["objects"], counts["bytes"], counts["files"], counts["unfinished"], counts["trash"], self._findings
        )

    def _generation(self, generation: str, rows: list[Row]) -> None:
        try:
            files = set(os.listdir(f"{self._mountpath.data}/{generation}"))
        except FileNotFoundError:
            files = set()
        self._counts["files"] += len(files)
        trash = {
            place.partition("/")[2]
            for (place,) in self._connection.execute(
                "SELECT place FROM trash WHERE place >= ? AND place < ?", (f"{generation}/", f"{generation}0")
            )
        }
        self._counts["trash"] += len(trash & files)
        known: dict[str, Row] = {}
        for row in rows:
            file = str(row.place).partition("/")[2]
            if file in trash:
                self._find(TRASH, row, "is in the trash, from where it would be removed")
            if file in known:
                self._find(INDEX, row, f"is that of {self._name(known[file])} too")
            known[file] = row
            self._look_at(row)
        for file in sorted(files - trash - set(known)):
            self._unknown(generation, file)

    def _look_at(self, row: Row) -> None:
        if row.bucket in self._removed:
            return  # its bucket was removed; it is about to be purged
        self._counts["objects"] += 1
        self._counts["bytes"] += row.size
        if self._complete and row.bucket not in self._buckets:
            self._find(BUCKET, row, f"belongs to a bucket of number {row.bucket}, which does not exist")
        looking = inspect(self._mountpath, row, read=self._read)
        try:
            while True:
                self._progress.advance(next(looking))
        except StopIteration as done:
            if done.value is not None:
                self._find(done.value.kind, row, done.value.text)

    def _unknown(self, generation: str, file: str) -> None:
        place = f"{generation}/{file}"
        if generation in self._open:
            self._counts["unfinished"] += 1
            return
        record = recovery.read_trailer(self._mountpath, place)
        path = f"{self._mountpath.data}/{place}"
        if record is None:
            self._findings.append(Finding(UNKNOWN_FILE, "", path, "has no row in the index, and no readable trailer"))
        else:
            said = f"has no row in the index; its trailer says that it is version {record.version}"
            name = f"ais://{record.bucket}/{_text(record.name)}"
            self._findings.append(Finding(UNKNOWN_FILE, name, path, said))

    def _name(self, row: Row) -> str:
        return f"ais://{self._buckets.get(row.bucket, row.bucket)}/{_text(row.name)}"

    def _find(self, kind: str, row: Row, problem: str) -> None:
        file = f"{self._mountpath.data}/{row.place}" if row.place is not None else self._mountpath.database
        self._findings.append(Finding(kind, self._name(row), file, problem))


def _text(name: bytes) -> str:
    return name.decode(errors="replace")

"""The buckets and the set of mountpaths, in the memory of each process: what every operation asks first.

Both are kept in the index of the first mountpath. Whoever changes them makes the word EVERYTHING of its stamps dirty
before and new after (stamps.py), so a copy in memory is right as long as that word is the one under which it was read.
While it is dirty the index itself is asked.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import NamedTuple

from ...errors import BucketNotFoundError, InternalError
from ...model.buckets import BucketInfo
from . import index, placement
from .health import root_fault
from .placement import MountpathSet, Placement
from .stamps import EVERYTHING, Stamps

_BUCKETS = "SELECT name, id, created_ns, props FROM buckets ORDER BY name"
_BUCKET = "SELECT name, id, created_ns, props FROM buckets WHERE name = ?"
_FACT = "SELECT value FROM facts WHERE name = 'mountpaths'"


class BucketEntry(NamedTuple):
    """A bucket's row; its properties encoded, because what is kept must not be changed by who asks."""

    id: int
    created_ns: int
    props: bytes

    def info(self, bucket: str) -> BucketInfo:
        """Return the row as the noun it is."""
        return BucketInfo(bucket, self.id, self.created_ns, index.decode_props(self.props))


class Snapshot:
    """One state of the catalog. ``word`` is odd if it was read while somebody changed it."""

    __slots__ = ("buckets", "mountpaths", "placement", "word")

    def __init__(self, word: int, buckets: dict[str, BucketEntry], mountpaths: MountpathSet) -> None:
        self.word = word
        #: By name, in the order of names; only one of them when the word is odd.
        self.buckets = buckets
        self.mountpaths = mountpaths
        self.placement = Placement(mountpaths)

    def bucket(self, name: str) -> BucketEntry:
        """Return a bucket; raises BucketNotFoundError."""
        entry = self.buckets.get(name)
        if entry is None:
            raise BucketNotFoundError.of(name)
        return entry

    def agrees(self, other: Snapshot, bucket: str) -> bool:
        """Say whether both have the same bucket, or none, and the same mountpaths."""
        return self is other or (
            self.buckets.get(bucket) == other.buckets.get(bucket) and self.mountpaths == other.mountpaths
        )


class Catalog:
    """The copy of one engine. Its methods may be called from different threads."""

    def __init__(self, directory: str, database: str, stamps: Stamps) -> None:
        self._directory = directory
        self._words = stamps.words
        self._lock = threading.Lock()
        self._connection = index.connect(database)
        self._snapshot = Snapshot(-1, {}, MountpathSet())

    def current(self, bucket: str | None = None, inside: sqlite3.Connection | None = None) -> Snapshot:
        """Return the catalog as it is now; while it is being changed, with no other bucket than ``bucket``, if given.

        ``inside`` is the connection of a transaction on the first mountpath, which sees its own changes.
        """
        snapshot = self._snapshot
        try:
            word = self._words[EVERYTHING]
        except ValueError:  # the table is unmapped
            raise InternalError(f"ais://{bucket or ''}: the engine is closed") from None
        if word == snapshot.word:
            return snapshot
        if word & 1 and inside is not None:
            return _read(inside, word, bucket)
        with self._lock:
            word = self._words[EVERYTHING]
            if word == self._snapshot.word:
                return self._snapshot
            try:
                # One transaction, so that buckets and mountpaths are of one state.
                self._connection.execute("BEGIN")
                try:
                    snapshot = _read(self._connection, word, bucket if word & 1 else None)
                finally:
                    self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise root_fault(error, f"ais://{bucket or ''}", self._directory) from error
            if not word & 1:
                self._snapshot = snapshot
            return snapshot

    def close(self) -> None:
        """Give the connection back. May be called twice."""
        with self._lock:
            self._connection.close()


def _read(connection: sqlite3.Connection, word: int, bucket: str | None) -> Snapshot:
    rows = connection.execute(_BUCKETS) if bucket is None else connection.execute(_BUCKET, (bucket,))
    buckets = {name: BucketEntry(id_, created_ns, props) for name, id_, created_ns, props in rows}
    return Snapshot(word, buckets, read_mountpaths(connection))


def read_mountpaths(connection: sqlite3.Connection) -> MountpathSet:
    """Return the set of mountpaths, by a connection to the first one's index."""
    fact = connection.execute(_FACT).fetchone()
    return MountpathSet() if fact is None else placement.decode(fact[0])


def write_mountpaths(connection: sqlite3.Connection, mountpaths: MountpathSet) -> None:
    """Put the set of mountpaths, within a transaction that changes EVERYTHING."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES ('mountpaths', ?)", (placement.encode(mountpaths),))

"""How much a cache holds, kept by the index itself: triggers count in the transaction that changes the objects.

So the numbers are exact for whoever asks, in any process and after any kill, and asking is one look-up. A trigger costs
a write some microseconds.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from contextlib import closing
from typing import NamedTuple

from ..local import index
from ..local.layout import Mountpath
from ..local.stamps import Stamps


class Totals(NamedTuple):
    """Objects, and the bytes of them."""

    objects: int
    bytes: int


# REPLACE fires no trigger of deletion, so what an insertion replaces is subtracted before it; and it is the policy of
# whatever a trigger inserts too, so there is no upsert in here.
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS cached (bucket INTEGER PRIMARY KEY, objects INTEGER NOT NULL, bytes INTEGER NOT NULL);
DELETE FROM cached;
INSERT INTO cached SELECT bucket, count(*), sum(size) FROM objects GROUP BY bucket;
CREATE TRIGGER IF NOT EXISTS cached_before BEFORE INSERT ON objects BEGIN
    INSERT INTO cached SELECT NEW.bucket, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM cached WHERE bucket = NEW.bucket);
    UPDATE cached SET objects = objects - 1,
        bytes = bytes - (SELECT size FROM objects WHERE bucket = NEW.bucket AND name = NEW.name)
        WHERE bucket = NEW.bucket AND EXISTS (SELECT 1 FROM objects WHERE bucket = NEW.bucket AND name = NEW.name);
END;
CREATE TRIGGER IF NOT EXISTS cached_after AFTER INSERT ON objects BEGIN
    UPDATE cached SET objects = objects + 1, bytes = bytes + NEW.size WHERE bucket = NEW.bucket;
END;
CREATE TRIGGER IF NOT EXISTS cached_deleted AFTER DELETE ON objects BEGIN
    UPDATE cached SET objects = objects - 1, bytes = bytes - OLD.size WHERE bucket = OLD.bucket;
END;
COMMIT;
"""
_BEGUN = "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = 'cached_deleted'"
_ALL = """SELECT coalesce(sum(objects), 0), coalesce(sum(bytes), 0) FROM cached
    WHERE bucket IN (SELECT id FROM buckets)"""
_OF_BUCKET = "SELECT c.objects, c.bytes FROM cached c JOIN buckets b ON c.bucket = b.id WHERE b.name = ?"


class TotalsReader:
    """Reads the totals of an index, and has them counted from its first use on. For use by several threads."""

    def __init__(self, places: Mountpath) -> None:
        _begin(places)
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[index.ThreadConnection] = weakref.WeakSet()
        self._readers = index.Readers(places.database, self._connections, self._lock)
        self._what = places.directory

    def read(self) -> Totals:
        """Return what there is in all, without what was in buckets that are removed."""
        try:
            return Totals(*self._readers.cursor.execute(_ALL).fetchone())
        except sqlite3.Error as error:
            raise index.translate(error, self._what) from error

    def of_bucket(self, bucket: str) -> Totals:
        """Return what there is of one bucket of the index."""
        try:
            row = self._readers.cursor.execute(_OF_BUCKET, (bucket,)).fetchone()
        except sqlite3.Error as error:
            raise index.translate(error, self._what) from error
        return Totals(*row) if row is not None else Totals(0, 0)

    def close(self) -> None:
        """Close every thread's connection: nobody may read any more. May be called twice."""
        with self._lock:
            connections = list(self._connections)
        for one in connections:
            one.connection.close()


def _begin(places: Mountpath) -> None:
    with closing(index.connect(places.database)) as connection:
        if connection.execute(_BEGUN).fetchone() is not None:
            return
    with (
        closing(Stamps(places.stamps)) as table,
        closing(index.Writer(places.database, places.commit_lock, table)) as writer,
        writer.turn() as connection,
    ):
        connection.executescript(_SCHEMA)

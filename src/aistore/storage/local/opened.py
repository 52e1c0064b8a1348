"""One mountpath as one process has it open: its index, its files, its committing thread."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ...observe.counters import COUNTERS
from ...observe.layout import INDEX_LOOKUPS
from . import index
from .commit import Committer
from .damage import DamageLog
from .generations import Generations
from .health import Health
from .layout import Mountpath
from .placement import ROOT, MountpathSet
from .settings import LocalSettings
from .stamps import Stamps

if TYPE_CHECKING:
    from .mountpaths import Mountpaths

#: A row of a listing: name, size, version, checksum, time of creation, custom metadata.
Row = tuple[bytes, int, int, str, int, "bytes | None"]
Rows = list[Row]


class OpenMountpath:
    """An opened mountpath.

    Nobody closes one that is in use: when it is dropped (``end``), its connections and descriptors go with the last
    call that works with it.
    """

    def __init__(
        self, id_: str, places: Mountpath, stamps: Stamps, known: MountpathSet, mountpaths: Mountpaths,
        settings: LocalSettings,
    ) -> None:  # fmt: skip
        self.id = id_
        self.further = id_ != ROOT
        self.places = places
        self.stamps = stamps
        self.words = stamps.words
        self.data = f"{places.data}/"
        self._mountpaths = mountpaths
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[index.ThreadConnection] = weakref.WeakSet()
        self.health = Health(id_, places, stamps, known)
        self.damage = DamageLog(places.damaged)
        #: The epoch under which it was opened: while the word of stamps is this, it is what it was.
        self.epoch = self.health.epoch
        self.store = Generations(places, settings.generation_files_max, settings.reserve_bytes)
        self._readers = index.Readers(places.database, self._connections, self._lock)
        self.committer = Committer(self, mountpaths, settings)

    def look_up(self, bucket_id: int, key: bytes, bucket: str, name: str) -> tuple[Any, ...] | None:
        """Return an object's row; ``bucket`` and ``name`` are for error messages."""
        COUNTERS.words[INDEX_LOOKUPS] += 1
        try:
            row: tuple[Any, ...] | None = self._readers.cursor.execute(index.LOOK_UP, (bucket_id, key)).fetchone()
        except sqlite3.Error as error:
            raise self.health.fault(error, f"ais://{bucket}/{name}") from error
        return row

    def look_up_many(self, bucket_id: int, keys: list[bytes], bucket: str) -> list[tuple[Any, ...]]:
        """Return rows of those objects that are there, each after its name."""
        COUNTERS.words[INDEX_LOOKUPS] += len(keys)
        try:
            return self._readers.cursor.execute(index.look_up_many(len(keys)), (bucket_id, *keys)).fetchall()
        except sqlite3.Error as error:
            raise self.health.fault(error, f"ais://{bucket}") from error

    def page(self, bucket_id: int, first: bytes, end: bytes | None, limit: int, what: str) -> list[Row]:
        """Return rows of a listing in the order of names."""
        statement, bounds = _statement(first, end)
        try:
            return self._readers.cursor.execute(statement, (bucket_id, *bounds, limit)).fetchall()
        except sqlite3.Error as error:
            raise self.health.fault(error, what) from error

    def scan(
        self, bucket_id: int, first: bytes, end: bytes | None, limit: int, what: str
    ) -> Generator[Row, None, None]:
        """Yield what ``page`` returns, without holding it all; to be closed by the thread that reads it."""
        statement, bounds = _statement(first, end)
        try:
            with closing(self._readers.cursor.connection.cursor()) as cursor:
                yield from cursor.execute(statement, (bucket_id, *bounds, limit))
        except sqlite3.Error as error:
            raise self.health.fault(error, what) from error

    def end(self) -> None:
        """Accept nothing more; what was accepted is finished, then the files are let go. May be called twice."""
        self.committer.end()

    def close(self) -> None:
        """Wait for the end, and close every connection: nobody may work with the mountpath any more."""
        self.committer.join()
        with self._lock:
            connections = list(self._connections)
        for one in connections:
            one.connection.close()


def _statement(first: bytes, end: bytes | None) -> tuple[str, tuple[bytes, ...]]:
    return (index.LIST, (first,)) if end is None else (index.LIST_UNTIL, (first, end))

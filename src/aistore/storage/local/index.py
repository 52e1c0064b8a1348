"""The index of one mountpath: its schema, its statements, and connections to it.

SQLite in WAL mode, ``synchronous=NORMAL``: a commit is a write to the log without a sync. Readers never wait. Writers
of all processes take turns by ``flock`` on a file beside the database: SQLite's own wait for its write lock polls with
sleeps of up to 100 ms, a ``flock`` is handed over at once.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from ...errors import ConflictError, InternalError, OutOfSpaceError, OverloadedError
from ...model.objects import Checksum, ObjectInfo
from ..checksums import STORED_TYPE
from .stamps import Stamps
from .trailer import Record

Result = TypeVar("Result")

SCHEMA_VERSION = 2

# Names are BLOBs of UTF-8: compared byte by byte, zero bytes included. An object has either `data` (the bytes) or
# `place` (its file). `doomed` are removed buckets whose objects are not yet purged. `trash.seq` only ever grows.
_SCHEMA = """
CREATE TABLE buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created_ns INTEGER NOT NULL, props BLOB NOT NULL);
CREATE TABLE objects (
    bucket INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL, version INTEGER NOT NULL,
    checksum TEXT NOT NULL, created_ns INTEGER NOT NULL, custom BLOB, place TEXT, data BLOB,
    PRIMARY KEY (bucket, name)) WITHOUT ROWID;
CREATE TABLE doomed (bucket INTEGER PRIMARY KEY);
CREATE TABLE trash (seq INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL UNIQUE);
"""
# Since version 2: `facts` of the store, and all buckets that ever were `removed`. Only the first mountpath uses these
# and `buckets`; the others know buckets by their ids. And what a thrown away file was: recovery has to know it when
# a power cut tore the file.
_SCHEMA_2 = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE removed (bucket INTEGER PRIMARY KEY);
ALTER TABLE trash ADD COLUMN bucket INTEGER;
ALTER TABLE trash ADD COLUMN name BLOB;
ALTER TABLE trash ADD COLUMN version INTEGER;
"""

#: Everything a read needs.
LOOK_UP = """SELECT size, version, checksum, created_ns, custom, place, data
    FROM objects WHERE bucket = ? AND name = ?"""


def look_up_many(count: int) -> str:
    """Return the statement that reads ``count`` objects at once, each row beginning with the name.

    Who looks up one after the other reads the pages on the way there again whenever somebody has committed in between.
    """
    places = ", ".join("?" * count)
    return f"SELECT name, {LOOK_UP[7:].replace('name = ?', f'name IN ({places})')}"


#: One page. A statement of its own sees one state of the index.
LIST = """SELECT name, size, version, checksum, created_ns, custom FROM objects
    WHERE bucket = ? AND name >= ? ORDER BY name LIMIT ?"""
LIST_UNTIL = LIST.replace("ORDER BY", "AND name < ? ORDER BY")

#: Pages of the log before a committing connection copies it into the database itself; usually the reclaimer has done
#: that long before. Derived: 64 MiB of 4 KiB pages.
_AUTOCHECKPOINT_PAGES = 16_384
_BUSY_SECONDS = 60.0  # only for checkpoints and recovery of the log: writers queue up at the flock

_decode_custom = msgspec.msgpack.Decoder(dict[str, str]).decode
_encode = msgspec.msgpack.Encoder().encode


def create(path: str) -> None:
    """Create the index if there is none; the caller makes sure that only one process does so."""
    try:
        connection = connect(path, create=True)
    except sqlite3.DatabaseError as error:
        raise ConflictError(
            f"{path} cannot be opened: {error}",
            hint="`ais fsck DIRECTORY` says what is wrong, `ais fsck --rebuild DIRECTORY` makes the index again",
        ) from error
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_begun(_SCHEMA + _SCHEMA_2))
        elif version == 1:
            connection.executescript(_begun(_SCHEMA_2))
        elif version > SCHEMA_VERSION:
            raise ConflictError(
                f"{path} has schema {version}, this version of the store reads up to {SCHEMA_VERSION}",
                hint="install the newer version that wrote it, or choose another directory",
            )
    finally:
        connection.close()


def _begun(schema: str) -> str:
    return f"BEGIN IMMEDIATE;{schema}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"


def connect(path: str, *, durable: bool = False, create: bool = False) -> sqlite3.Connection:
    """Return a connection in autocommit mode; it may be closed from another thread than its own."""
    # Nobody but ``create`` may begin an index: not in the empty directory where a disk is not mounted.
    place = f"file:{quote(path)}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(place, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True)
    try:
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}")
        connection.execute("PRAGMA cache_size=-8192")  # KiB; guessed, a connection per thread reads through it
    except BaseException:
        connection.close()
        raise
    return connection


def encode_custom(custom: dict[str, str]) -> bytes | None:
    """Return custom metadata as the index keeps it; None for none, which most objects have."""
    return _encode(custom) if custom else None


def decode_custom(data: bytes | None) -> dict[str, str]:
    """Return custom metadata from the index."""
    return {} if data is None else _decode_custom(data)


def object_info(
    bucket: str, name: str, size: int, version: int, checksum: str, created_ns: int, custom: bytes | None
) -> ObjectInfo:
    """Return a row's values as the noun they are."""
    return ObjectInfo(bucket, name, size, version, Checksum(STORED_TYPE, checksum), created_ns, decode_custom(custom))


def object_infos(bucket: str, rows: list[tuple[bytes, int, int, str, int, bytes | None]]) -> list[ObjectInfo]:
    """Return the rows of a listing as the nouns they are."""
    return [
        ObjectInfo(
            bucket, name.decode(), size, version, Checksum(STORED_TYPE, checksum), created_ns,
            {} if custom is None else _decode_custom(custom),
        )
        for name, size, version, checksum, created_ns, custom in rows
    ]  # fmt: skip


def row_of(record: Record) -> tuple[int, bytes, int, int, str, int, bytes | None, str]:
    """Return the row of an object in a file, all columns but the last, from its trailer."""
    custom = encode_custom(record.custom)
    return (
        record.bucket_id, record.name, record.size, record.version, record.checksum, record.created_ns, custom,
        record.place,
    )  # fmt: skip


def translate(error: Exception, what: str) -> Exception:
    """Return the project's error for one of the operating system or of SQLite; our own errors pass."""
    if isinstance(error, sqlite3.Error):
        # 3.10 has no error codes on exceptions; the message of SQLITE_FULL has been the same since 2000.
        if "database or disk is full" in str(error):
            return _full(what, error)
        hint = "stop the store and run `ais fsck`" if "malformed" in str(error) else ""
        translated: Exception = InternalError(f"{what}: the index failed: {error}", hint=hint)
    elif isinstance(error, OSError):
        if error.errno in _FULL_ERRNOS:
            return _full(what, error)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            translated = OverloadedError(f"{what}: too many open files", hint="raise the limit (ulimit -n)")
        else:
            translated = InternalError(f"{what}: {error}")
    else:
        return error
    translated.__cause__ = error
    return translated


def translating(function: Callable[[str], Result]) -> Callable[[str], Result]:
    """Let a function of a directory raise the project's errors where SQLite's would come out of it."""

    @functools.wraps(function)
    def translated(directory: str) -> Result:
        try:
            return function(directory)
        except sqlite3.Error as error:
            raise translate(error, directory) from error

    return translated


_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


def _full(what: str, cause: Exception) -> OutOfSpaceError:
    error = OutOfSpaceError(f"{what}: the disk is full", hint="delete objects or enlarge the disk; reads go on")
    error.__cause__ = cause
    return error


class ThreadConnection:
    """One thread's reading connection; closed when the thread ends, or with the engine."""

    def __init__(self, path: str) -> None:
        self.connection = connect(path)
        self.cursor = self.connection.cursor()

    def __del__(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()


class Readers(threading.local):
    """Reading cursors on one index, one for each thread that asks."""

    def __init__(self, path: str, opened: weakref.WeakSet[ThreadConnection], lock: threading.Lock) -> None:
        # threading.local calls __init__ again in each new thread, with the same arguments.
        self._own = ThreadConnection(path)
        self.cursor: sqlite3.Cursor = self._own.cursor
        with lock:
            opened.add(self._own)


class Writer:
    """The one writing connection of an engine instance; used by one thread at a time."""

    def __init__(self, path: str, lock_path: str, stamps: Stamps, *, durable: bool = False) -> None:
        self._stamps = stamps
        self._durable = durable
        self._lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.connection = connect(path, durable=durable)
        except BaseException:
            os.close(self._lock)
            raise

    @contextmanager
    def transaction(
        self, changes: Iterable[int], undone: Callable[[], None] | None = None, *, synced: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """Hold the index for writing: committed at the end of the block, rolled back when that or the block raises.

        ``changes`` are the words in the table of stamps of all objects that a read may find changed afterwards.
        ``undone`` is called after a roll-back, before others get their turn. What is ``synced`` is on the disk before
        anybody sees it, as everything is on a durable writer.
        """
        with self.turn(), self._stamps.changing(changes):
            if synced and not self._durable:
                self.connection.execute("PRAGMA synchronous=FULL")
            try:
                yield from self._transaction(undone)
            finally:
                if synced and not self._durable:
                    self.connection.execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def turn(self) -> Iterator[sqlite3.Connection]:
        """Keep other writers away, without a transaction: for what changes no object."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield self.connection
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _transaction(self, undone: Callable[[], None] | None) -> Iterator[sqlite3.Connection]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if undone is not None:
                undone()
            raise

    def checkpoint(self) -> None:
        """Copy what the log has into the database as far as readers allow; never waits for one."""
        self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def close(self) -> None:
        """Give connection and lock back."""
        self.connection.close()
        os.close(self._lock)


def encode_props(props: dict[str, Any]) -> bytes:
    """Return a bucket's properties as the index keeps them."""
    return msgspec.json.encode(props)


def decode_props(data: bytes) -> dict[str, Any]:
    """Return a bucket's properties from the index."""
    props: dict[str, Any] = msgspec.json.decode(data)
    return props

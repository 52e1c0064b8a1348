"""The verbs of the local engine: places are in layout.py, rows in index.py, files in generations.py."""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from ...errors import BucketNotFoundError, InternalError, ObjectNotFoundError
from ...model.buckets import BucketInfo
from ...model.objects import Checksum, ListOptions, ListPage, ObjectInfo, PutOptions
from ..arguments import check_custom, encode_name, encode_text, listing_bounds
from ..checksums import STORED_TYPE, Hasher
from ..memory import BytesReading
from . import index
from .commit import Committer, CreateBucket, Delete, DeleteBucket, SetCustom, Write
from .generations import Generations
from .hot import HotObject, HotObjects
from .layout import open_directory
from .reading import FileReading
from .settings import LocalSettings
from .staging import LocalStaging
from .stamps import Stamps

#: How often a read looks up again when a file is gone. Once is enough in practice: a replaced file stays for minutes.
_LOOKUPS_MAX = 10

_DEFAULT_SETTINGS = LocalSettings()

_Rows = list[Any]


class LocalEngine:
    """An Engine over one directory, which several processes may open at once, each with an instance of its own.

    Never share an instance over a fork: SQLite connections do not survive it. Malformed arguments (names, custom
    metadata, checksum types) raise at the call; what depends on the store's state comes through the future.
    """

    def __init__(self, directory: str, settings: LocalSettings = _DEFAULT_SETTINGS) -> None:
        mountpath = open_directory(directory)
        self._settings = settings
        self._data = f"{mountpath.data}/"
        self._connections: weakref.WeakSet[index.ThreadConnection] = weakref.WeakSet()
        self._stagings: weakref.WeakSet[LocalStaging] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._store = Generations(mountpath, settings.generation_files_max, settings.reserve_bytes)
        self._stamps = Stamps(mountpath.stamps)
        self._hot = HotObjects(self._stamps, settings.hot_bytes_max)
        self._committer = Committer(mountpath, self._store, self._stamps, settings)
        self._readers = index.Readers(mountpath.database, self._connections, self._lock)

    def create_bucket(self, bucket: str, props: Mapping[str, Any]) -> BucketInfo:
        """Create an empty bucket; raises BucketExistsError."""
        encode_text(bucket)
        return self._committer.submit(CreateBucket(bucket, props)).result()

    def delete_bucket(self, bucket: str) -> None:
        """Remove a bucket and all that is in it, in one step for readers; raises BucketNotFoundError."""
        encode_text(bucket)
        self._committer.submit(DeleteBucket(bucket)).result()

    def head_bucket(self, bucket: str) -> BucketInfo:
        """Return a bucket's properties; raises BucketNotFoundError."""
        encode_text(bucket)
        rows = self._query(bucket, "SELECT id, created_ns, props FROM buckets WHERE name = ?", bucket)
        if not rows:
            raise BucketNotFoundError.of(bucket)
        number, created_ns, props = rows[0]
        return BucketInfo(bucket, number, created_ns, index.decode_props(props))

    def list_buckets(self) -> list[BucketInfo]:
        """Return all buckets, by name."""
        rows = self._query("", "SELECT name, id, created_ns, props FROM buckets ORDER BY name")
        return [BucketInfo(row[0], row[1], row[2], index.decode_props(row[3])) for row in rows]

    def get(self, bucket: str, name: str) -> BytesReading | FileReading:
        """Open an object for reading; raises BucketNotFoundError, ObjectNotFoundError."""
        hot = self._hot.find(bucket, name)
        if hot is not None:
            return hot
        missing = ""
        for _ in range(_LOOKUPS_MAX):
            key = _encode(bucket, name)
            ticket = self._hot.ticket(bucket, key)  # before the look-up, see stamps.py
            row = self._look_up(bucket, name, key)
            info = _info(bucket, name, row)
            if row[6] is not None:
                if ticket is not None:
                    self._hot.keep(info, row[6], ticket)
                return BytesReading(info, row[6])
            seen = None
            if ticket is not None and self._hot.fits(info.size):
                seen = functools.partial(self._hot.keep, info, ticket=ticket)
            path = self._data + row[5]
            try:
                # Opened before anything is promised: a descriptor outlives the file's name.
                return FileReading(info, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC), seen)
            except FileNotFoundError:
                if path == missing:
                    break
                missing = path
            except OSError as error:
                raise index.translate(error, f"ais://{bucket}/{name}") from error
        raise InternalError(
            f"ais://{bucket}/{name}: its file {missing} is gone",
            hint="the disk lost it: restore the object from its source",
        )

    def kept(self, bucket: str, name: str) -> HotObject | None:
        """Return an object if it is in this process's memory and unchanged: no system call, raises nothing."""
        return self._hot.find(bucket, name)

    def head(self, bucket: str, name: str) -> ObjectInfo:
        """Return what is known of an object; raises as ``get``."""
        hot = self._hot.find(bucket, name)
        return hot.info if hot is not None else _info(bucket, name, self._look_up(bucket, name, _encode(bucket, name)))

    def put(self, bucket: str, name: str, data: bytes, options: PutOptions) -> Future[ObjectInfo]:
        """Write a whole object, hashed and written in the committing thread; raises OverloadedError at the call.

        Callbacks of the future run in that thread too, between two transactions: keep them short.
        """
        write = self._new_write(bucket, name, options, Hasher(options.expected))
        return self._committer.submit(write.with_data(data, hashed=False))

    def stage(self, bucket: str, name: str, options: PutOptions) -> LocalStaging:
        """Begin to write an object piece by piece; raises BucketNotFoundError."""
        hasher = Hasher(options.expected)
        write = self._new_write(bucket, name, options, hasher)
        write.bucket_id = self.head_bucket(bucket).id
        staging = LocalStaging(self._store, write, hasher, self._settings.inline_bytes_max, self._committer.submit)
        with self._lock:
            self._stagings.add(staging)
        return staging

    def delete(self, bucket: str, name: str) -> Future[ObjectInfo]:
        """Remove an object; the future gives what was removed, or raises as ``get``."""
        return self._committer.submit(Delete(bucket, encode_text(name), name))

    def set_custom(self, bucket: str, name: str, custom: Mapping[str, str], *, replace: bool) -> Future[ObjectInfo]:
        """Merge ``custom`` into the object's custom metadata, or replace it; the version stays."""
        key, checked, durable = encode_text(name), check_custom(custom), self._settings.durable
        change = SetCustom(self._store, bucket, key, name, checked, replace=replace, durable=durable)
        return self._committer.submit(change)

    def list(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of a listing; raises BucketNotFoundError."""
        encode_text(bucket)
        first, end = listing_bounds(options)
        # One row more than asked for tells whether there is another page.
        if end is None:
            rows = self._query(bucket, index.LIST, bucket, first, options.limit + 1)
        else:
            rows = self._query(bucket, index.LIST_UNTIL, bucket, first, end, options.limit + 1)
        if not rows:
            self.head_bucket(bucket)
            return ListPage([], "")
        more = len(rows) > options.limit
        if more:
            del rows[-1]
        entries = index.object_infos(bucket, rows)
        return ListPage(entries, entries[-1].name if more else "")

    def close(self) -> None:
        """Finish accepted writes, drop those never committed, give every resource back. May be called twice."""
        with self._lock:
            stagings = list(self._stagings)
        for staging in stagings:
            staging.abort()
        self._committer.close()
        self._store.close()
        with self._lock:
            connections = list(self._connections)
        for one in connections:
            one.connection.close()
        self._hot.clear()
        self._stamps.close()

    def _new_write(self, bucket: str, name: str, options: PutOptions, hasher: Hasher) -> Write:
        encode_text(bucket)
        return Write(self._store, self._settings, bucket, encode_name(name), name, options, hasher)

    def _query(self, bucket: str, statement: str, *parameters: object) -> _Rows:
        try:
            return self._readers.cursor.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise index.translate(error, f"ais://{bucket}") from error

    def _look_up(self, bucket: str, name: str, key: bytes) -> tuple[Any, ...]:
        try:
            row: tuple[Any, ...] | None = self._readers.cursor.execute(index.LOOK_UP, (bucket, key)).fetchone()
        except sqlite3.Error as error:
            raise index.translate(error, f"ais://{bucket}/{name}") from error
        if row is None:
            raise BucketNotFoundError.of(bucket)
        if row[0] is None:
            raise ObjectNotFoundError.of(bucket, name)
        return row


def _encode(bucket: str, name: str) -> bytes:
    """Return the UTF-8 of ``name``; raises BadRequestError if it or ``bucket`` has none."""
    encode_text(bucket)
    return encode_text(name)


def _info(bucket: str, name: str, row: tuple[Any, ...]) -> ObjectInfo:
    custom = row[4]
    return ObjectInfo(
        bucket, name, row[0], row[1], Checksum(STORED_TYPE, row[2]), row[3],
        {} if custom is None else index.decode_custom(custom),
    )  # fmt: skip

"""The verbs of the local engine: places are in layout.py, rows in index.py, files in generations.py."""

from __future__ import annotations

import contextlib
import functools
import heapq
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from operator import itemgetter
from typing import Any, TypeVar

import xxhash

from ...errors import AisError, InternalError, MountpathUnavailableError, ObjectNotFoundError
from ...model.buckets import BucketInfo
from ...model.objects import Checksum, ListOptions, ListPage, ObjectInfo, Only, PutOptions
from ...observe.counters import COUNTERS
from ...observe.layout import HOT_HITS
from ..arguments import check_custom, encode_name, encode_text, listing_bounds
from ..checksums import STORED_TYPE, Hasher
from ..memory import BytesReading
from ..verified import wrong_checksum
from . import index
from .catalog import Snapshot
from .hot import HotObject, HotObjects, Ticket
from .mountpaths import Mountpaths
from .opened import OpenMountpath, Rows
from .operations import ChangeCustom, CreateBucket, Delete, DeleteBucket, SetCustom, Write
from .reading import FileReading
from .settings import LocalSettings
from .staging import LocalStaging

#: How often a read looks up again when a file is gone. Once is enough in practice: a replaced file stays for minutes.
_LOOKUPS_MAX = 10

_DEFAULT_SETTINGS = LocalSettings()


_T = TypeVar("_T")
#: Where an object is, its row, and what the cache needs to keep the object (None: it must not).
_Found = tuple[OpenMountpath, tuple[Any, ...], "Ticket | None"]


class LocalEngine:
    """An Engine over one directory, which several processes may open at once, each with an instance of its own.

    Never share an instance over a fork: SQLite connections do not survive it. Malformed arguments (names, custom
    metadata, checksum types) raise at the call; what depends on the store's state comes through the future.
    """

    def __init__(self, directory: str, settings: LocalSettings = _DEFAULT_SETTINGS) -> None:
        self._settings = settings
        self._stagings: weakref.WeakSet[LocalStaging] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._mountpaths = Mountpaths(directory, settings)
        self._catalog = self._mountpaths.catalog
        self._root = self._mountpaths.root
        self._hot = HotObjects(self._mountpaths.stamps, settings.hot_bytes_max)
        self._mountpaths.let_go = self._hot.clear  # nothing of a disk that is gone, in this process or that

    def create_bucket(self, bucket: str, props: Mapping[str, Any]) -> BucketInfo:
        """Create an empty bucket; raises BucketExistsError."""
        encode_text(bucket)
        return self._root.committer.submit(CreateBucket(bucket, props)).result()

    def delete_bucket(self, bucket: str) -> None:
        """Remove a bucket and all that is in it, in one step for readers; raises BucketNotFoundError."""
        encode_text(bucket)
        self._root.committer.submit(DeleteBucket(bucket)).result()

    def head_bucket(self, bucket: str) -> BucketInfo:
        """Return a bucket's properties; raises BucketNotFoundError."""
        encode_text(bucket)
        return self._catalog.current(bucket).bucket(bucket).info(bucket)

    def list_buckets(self) -> list[BucketInfo]:
        """Return all buckets, by name."""
        return [entry.info(bucket) for bucket, entry in self._catalog.current().buckets.items()]

    def get(self, bucket: str, name: str) -> BytesReading | FileReading:
        """Open an object for reading; raises BucketNotFoundError, ObjectNotFoundError, MountpathUnavailableError."""
        hot = self._hot.find(bucket, name)
        if hot is not None:
            COUNTERS.words[HOT_HITS] += 1
            return hot
        missing = ""
        key = _encode(bucket, name)
        for _ in range(_LOOKUPS_MAX):
            disk, row, ticket = self._find(bucket, name, key, to_keep=True)
            info, path = _info(bucket, name, row), disk.data + (row[5] or "")
            try:
                return self._open(disk, info, row, ticket)
            except FileNotFoundError:
                if path == missing:
                    break
                missing = path
        gone = disk.health.suspect(InternalError(f"{missing} is gone"), f"ais://{bucket}/{name}")
        raise gone if isinstance(gone, MountpathUnavailableError) else disk.damage.note(info, missing, "is gone")

    def get_many(self, bucket: str, names: Sequence[str]) -> dict[str, BytesReading | FileReading]:
        """Open those of many objects that are there; one that ``get`` has to say more about is left out.

        Raises BucketNotFoundError, MountpathUnavailableError. Nothing of them is kept in memory.
        """
        found: dict[str, BytesReading | FileReading] = {}
        for name, (disk, row) in self._settled(bucket, lambda catalog: self._rows(catalog, bucket, names)).items():
            with contextlib.suppress(FileNotFoundError, AisError):
                found[name] = self._open(disk, _info(bucket, name, row), row, None)
        return found

    def absent(self, bucket: str, names: Sequence[str]) -> list[str]:
        """Return those of many names that have no object; raises as ``get_many``."""
        rows = self._settled(bucket, lambda catalog: self._rows(catalog, bucket, names))
        return [name for name in names if name not in rows]

    def kept(self, bucket: str, name: str) -> HotObject | None:
        """Return an object if it is in this process's memory and unchanged: no system call, raises nothing."""
        return self._hot.find(bucket, name)

    def head(self, bucket: str, name: str) -> ObjectInfo:
        """Return what is known of an object; raises as ``get``."""
        hot = self._hot.find(bucket, name)
        if hot is not None:
            COUNTERS.words[HOT_HITS] += 1
            return hot.info
        return _info(bucket, name, self._find(bucket, name, _encode(bucket, name))[1])

    def put(self, bucket: str, name: str, data: bytes, options: PutOptions) -> Future[ObjectInfo]:
        """Write a whole object, hashed and written in the committing thread; raises OverloadedError at the call.

        Callbacks of the future run in that thread too, between two transactions: keep them short.
        """
        write, key = self._new_write(bucket, name, options, Hasher(options.expected))
        return self._submit(bucket, name, key, write.with_data(data, hashed=False))

    def stage(self, bucket: str, name: str, options: PutOptions) -> LocalStaging:
        """Begin to write an object piece by piece; raises what the future of a write may raise."""
        hasher = Hasher(options.expected)
        write, key = self._new_write(bucket, name, options, hasher)
        write.bucket_id = self._catalog.current(bucket).bucket(bucket).id
        disk = self._place(bucket, name, key)
        disk.store.check_room(options.size or 0)
        staging = LocalStaging(disk, write, hasher, self._settings)
        with self._lock:
            self._stagings.add(staging)
        return staging

    def delete(self, bucket: str, name: str, *, only: Only | None = None) -> Future[ObjectInfo]:
        """Remove an object; the future gives what was removed, or raises as ``get``, or ConflictError."""
        key = encode_text(name)
        return self._submit(bucket, name, key, Delete(bucket, key, name, only))

    def set_custom(self, bucket: str, name: str, custom: Mapping[str, str], *, replace: bool) -> Future[ObjectInfo]:
        """Merge ``custom`` into the object's custom metadata, or replace it; the version stays."""
        checked = check_custom(custom, self._settings.custom_bytes_max)
        return self.change_custom(bucket, name, lambda old: checked if replace else {**old, **checked})

    def change_custom(self, bucket: str, name: str, change: ChangeCustom) -> Future[ObjectInfo]:
        """Replace the custom metadata by what ``change`` makes of it, in the transaction; an AisError of it is told.

        ``change`` runs in the committing thread, and again when the transaction has to be repeated: keep it short.
        """
        key = encode_text(name)
        return self._submit(bucket, name, key, SetCustom(self._settings, bucket, key, name, change))

    def list(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of a listing; raises BucketNotFoundError, MountpathUnavailableError."""
        encode_text(bucket)
        first, end = listing_bounds(options)
        # One row more than asked for tells whether there is another page.
        rows = self._settled(bucket, lambda catalog: self._scan(catalog, bucket, first, end, options.limit + 1))
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
        self._mountpaths.end()
        self._hot.clear()
        self._mountpaths.close()

    def _open(
        self, disk: OpenMountpath, info: ObjectInfo, row: tuple[Any, ...], ticket: Ticket | None
    ) -> BytesReading | FileReading:
        """Open what a row tells of; raises FileNotFoundError, ObjectDamagedError, MountpathUnavailableError."""
        if row[6] is not None:
            _check_inline(disk, info, row[6])
            if ticket is not None:
                self._hot.keep(info, row[6], ticket)
            return BytesReading(info, row[6])
        seen = None
        if ticket is not None and self._hot.fits(info.size):
            seen = functools.partial(self._hot.keep, info, ticket=ticket)
        path = disk.data + row[5]
        try:
            # Opened before anything is promised: a descriptor outlives the file's name.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise disk.health.file_fault(error, f"ais://{info.bucket}/{info.name}") from error
        return FileReading(info, path, descriptor, disk.damage, disk.health.file_fault, seen)

    def _new_write(self, bucket: str, name: str, options: PutOptions, hasher: Hasher) -> tuple[Write, bytes]:
        encode_text(bucket)
        key = encode_name(name)
        return Write(self._settings, bucket, key, name, options, hasher), key

    def _find(self, bucket: str, name: str, key: bytes, *, to_keep: bool = False) -> _Found:
        """Look an object up; raises as ``get``. There is a ticket only if it is ``to_keep``."""
        catalog = self._catalog.current(bucket)
        if catalog.placement.single and (entry := catalog.buckets.get(bucket)) is not None:
            # The short way of most stores; where the catalog changed meanwhile, it is looked for once more below.
            # Before the look-up, see stamps.py.
            ticket = self._hot.ticket(self._root.words, catalog.word, bucket, key) if to_keep else None
            row = self._root.look_up(entry.id, key, bucket, name)
            if row is not None:
                return self._root, row, ticket
            if self._catalog.current(bucket) is catalog:
                raise ObjectNotFoundError.of(bucket, name)
        found = self._settled(bucket, lambda catalog: self._find_among(catalog, bucket, name, key))
        if found is None:
            raise ObjectNotFoundError.of(bucket, name)
        return found

    def _settled(self, bucket: str, ask: Callable[[Snapshot], _T]) -> _T:
        """Return what ``ask`` finds under a catalog in which neither the bucket nor the mountpaths changed meanwhile.

        A bucket that is being removed loses its objects piece by piece, and a mountpath that leaves cannot be opened.
        """
        while True:
            catalog = self._catalog.current(bucket)
            try:
                found = ask(catalog)
            except MountpathUnavailableError:
                if catalog.agrees(self._catalog.current(bucket), bucket):
                    raise
            else:
                if catalog.agrees(self._catalog.current(bucket), bucket):
                    return found

    def _find_among(self, catalog: Snapshot, bucket: str, name: str, key: bytes) -> _Found | None:
        """Look an object up where it can be; raises BucketNotFoundError, MountpathUnavailableError."""
        bucket_id = catalog.bucket(bucket).id
        away: MountpathUnavailableError | None = None
        for id_ in catalog.placement.candidates(bucket, key):
            try:
                disk = self._mountpaths.get(id_, f"ais://{bucket}/{name}")
                ticket = self._hot.ticket(disk.words, catalog.word, bucket, key)
                row = disk.look_up(bucket_id, key, bucket, name)
            except MountpathUnavailableError as error:
                away = away or error
                continue
            if row is not None:
                return disk, row, ticket
        try:
            if away is not None:
                raise away
            return None
        finally:
            away = None  # or the error and this call would keep each other, and what the error came from

    def _rows(
        self, catalog: Snapshot, bucket: str, names: Sequence[str]
    ) -> dict[str, tuple[OpenMountpath, tuple[Any, ...]]]:
        """Look objects up where they can be; raises as ``_find_among``."""
        keys = {_encode(bucket, name): name for name in names}
        if catalog.placement.single:
            rows = self._root.look_up_many(catalog.bucket(bucket).id, list(keys), bucket)
            return {keys[row[0]]: (self._root, row[1:]) for row in rows}
        found = ((name, self._find_among(catalog, bucket, name, key)) for key, name in keys.items())
        return {name: one[:2] for name, one in found if one is not None}

    def _place(self, bucket: str, name: str, key: bytes) -> OpenMountpath:
        """Return where an object is, or where a new one belongs; what is found may change until the turn."""
        if self._catalog.current(bucket).placement.single:
            return self._root
        return self._settled(bucket, lambda catalog: self._place_among(catalog, bucket, name, key))

    def _place_among(self, catalog: Snapshot, bucket: str, name: str, key: bytes) -> OpenMountpath:
        candidates = catalog.placement.candidates(bucket, key)
        if bucket in catalog.buckets and len(candidates) > 1:
            found = self._find_among(catalog, bucket, name, key)
            if found is not None:
                return found[0]
        return self._mountpaths.get(candidates[0], f"ais://{bucket}/{name}")

    def _submit(self, bucket: str, name: str, key: bytes, operation: Write | Delete | SetCustom) -> Future[ObjectInfo]:
        encode_text(bucket)
        try:
            return self._place(bucket, name, key).committer.submit(operation)
        except MountpathUnavailableError as error:
            operation.future.set_exception(error)
            return operation.future

    def _scan(self, catalog: Snapshot, bucket: str, first: bytes, end: bytes | None, limit: int) -> Rows:
        bucket_id = catalog.bucket(bucket).id
        what = f"ais://{bucket}"
        if catalog.placement.single:
            return self._root.page(bucket_id, first, end, limit, what)
        with ExitStack() as held:
            disks = [self._mountpaths.get(id_, what) for id_ in catalog.placement.ids]
            scans = [held.enter_context(closing(disk.scan(bucket_id, first, end, limit, what))) for disk in disks]
            rows: Rows = []
            for row in heapq.merge(*scans, key=itemgetter(0)):
                if rows and rows[-1][0] == row[0]:
                    # Deleted in one mountpath and written again in another while both were read: the later counts.
                    rows[-1] = max(rows[-1], row, key=itemgetter(4))
                elif len(rows) == limit:
                    break
                else:
                    rows.append(row)
            return rows


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


def _check_inline(disk: OpenMountpath, info: ObjectInfo, data: object) -> None:
    """Raise ObjectDamagedError unless the bytes from the index are those that were stored."""
    found = xxhash.xxh64_hexdigest(data) if isinstance(data, bytes) else "nothing"
    if found != info.checksum.value:
        raise disk.damage.note(info, "", wrong_checksum(found, info.checksum.value))

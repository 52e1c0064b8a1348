"""What can be changed in a store: each operation does its part before, in, and after a transaction of its committer."""

from __future__ import annotations

import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import msgspec

from ...errors import BucketExistsError, BucketNotFoundError, ObjectNotFoundError
from ...model.buckets import BucketInfo
from ...model.objects import ObjectInfo, Only, PutOptions
from ..arguments import check_custom, check_only, check_version
from ..checksums import Hasher
from . import index, trailer
from .generations import Generations, NewFile
from .settings import LocalSettings
from .stamps import EVERYTHING, slot_of
from .turn import Turn

Result = TypeVar("Result")
#: What other custom metadata is made of that which there is.
ChangeCustom = Callable[[Mapping[str, str]], Mapping[str, str]]

_PUT = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM objects WHERE bucket = ? AND name = ?"
_SET_CUSTOM = "UPDATE objects SET custom = ? WHERE bucket = ? AND name = ?"
_TRASH = "INSERT INTO trash (place, bucket, name, version) VALUES (?, ?, ?, ?)"

#: A durable write of more than this is synced before its turn; the file's end again with the transaction. Derived: what
#: takes a disk longer than the sync itself does.
_SYNC_AHEAD_BYTES = 1 << 20


class Operation(ABC, Generic[Result]):
    """A change of the store. ``apply`` runs inside the transaction, the others outside of it.

    ``apply`` raises AisError or OSError only before it changes a row: the transaction of the other operations goes on.
    """

    #: The word of what changes in the table of stamps.
    slot = EVERYTHING
    #: Whether it concerns all mountpaths: a power cut must not take back on one disk what others know of.
    of_all = False

    def __init__(self) -> None:
        self.future: Future[Result] = Future()
        self.error: Exception | None = None
        self.result: Result | None = None
        #: The mountpath to go to, once it was found that this is another one than where it was queued.
        self.elsewhere: str | None = None
        self.hops = 0

    @property
    @abstractmethod
    def what(self) -> str:
        """The thing being changed, for error messages."""

    def prepare(self, store: Generations) -> None:
        """Do what can be done without the index; again for every mountpath that the operation is sent to."""

    @abstractmethod
    def apply(self, turn: Turn) -> Result:
        """Change the rows; may be called again after a transaction that failed, or on another mountpath."""

    def rolled_back(self) -> None:
        """Take back what ``apply`` left in files others may write to; the index is still held."""

    def committed(self) -> None:
        """Follow up a successful commit."""

    def undo(self) -> None:
        """Take back what ``prepare`` and ``apply`` left outside of the index."""


class _ObjectOperation(Operation[ObjectInfo]):
    """A change of one object; ``key`` is its name in UTF-8."""

    def __init__(self, bucket: str, key: bytes, name: str) -> None:
        super().__init__()
        self._bucket = bucket
        self._key = key
        self._name = name
        self.slot = slot_of(bucket, key)

    @property
    def what(self) -> str:
        """The object's address."""
        return f"ais://{self._bucket}/{self._name}"

    def _record(
        self, place: str, bucket_id: int, version: int, size: int, checksum: str, created_ns: int,
        custom: dict[str, str],
    ) -> trailer.Record:  # fmt: skip
        """Return what the trailer of the object's file says."""
        return trailer.Record(
            place=place, bucket_id=bucket_id, bucket=self._bucket, name=self._key, version=version, size=size,
            checksum=checksum, created_ns=created_ns, custom=custom,
        )  # fmt: skip

    def _find(self, turn: Turn) -> tuple[int, tuple[Any, ...]]:
        bucket_id, row = turn.find(self._bucket, self._key, self._name)
        if row is None:
            raise ObjectNotFoundError.of(self._bucket, self._name)
        return bucket_id, row


class Write(_ObjectOperation):
    """A new object, or a new version of one: ``data`` to be written yet, or a file with the bytes."""

    def __init__(
        self, settings: LocalSettings, bucket: str, key: bytes, name: str, options: PutOptions, hasher: Hasher
    ) -> None:
        super().__init__(bucket, key, name)
        self._settings = settings
        self._custom = check_custom(options.custom, settings.custom_bytes_max)
        self._if_version = options.if_version
        self._hasher = hasher
        self._checksum = ""
        self._unhashed = False
        self._data: bytes | None = None
        #: Whether the file has to be on the disk before the index can say so.
        self.sync_first = settings.durable
        self.file: NewFile | None = None
        self.bucket_id: int | None = None

    def with_data(self, data: bytes, *, hashed: bool) -> Write:
        """Take the whole object as bytes."""
        self._data = data
        self._unhashed = not hashed
        return self

    def with_custom(self, custom: Mapping[str, str]) -> Write:
        """Take other custom metadata than that of the options; raises as ``check_custom``."""
        self._custom = check_custom(custom, self._settings.custom_bytes_max)
        return self

    def hashed(self, what: str = "") -> str:
        """Return the checksum of the bytes, all of them there; raises ChecksumMismatchError for ``what``."""
        self._checksum = self._checksum or self._hasher.finish(what or self.what)
        return self._checksum

    def with_file(self, file: NewFile) -> Write:
        """Take a file that has all the bytes, hashed already."""
        self.file = file
        return self

    def prepare(self, store: Generations) -> None:
        """Hash and write the bytes; raises ChecksumMismatchError, OutOfSpaceError."""
        data = self._data
        if data is not None:
            if self._unhashed:
                self._hasher.update(data)
                self._unhashed = False
            store.check_room(len(data))
        self.hashed()
        if data is not None and len(data) > self._settings.inline_bytes_max:
            self.file = store.new_file()
            self.file.write(data)
            self._data = None
        if self.file is not None:
            self.file = self.file.moved_to(store)
        if self.file is not None and self._settings.durable and self.file.size > _SYNC_AHEAD_BYTES:
            self.file.sync()  # now, while the others can use the index

    def apply(self, turn: Turn) -> ObjectInfo:
        """Put the row; the file's trailer too, because only now the version is known."""
        bucket_id, row = turn.find(self._bucket, self._key, self._name, creates=True)
        # A staged write belongs to the bucket it began in, not to a later one of the same name.
        if self.bucket_id not in (None, bucket_id):
            raise BucketNotFoundError.of(self._bucket)
        version, old_place = (row[1], row[5]) if row is not None else (0, None)
        check_version(self._bucket, self._name, version, self._if_version)
        version += 1
        created_ns = time.time_ns()
        file, place = self.file, None
        size = len(self._data) if self._data is not None else 0
        if file is not None:
            size, place = file.size, file.place
            record = self._record(place, bucket_id, version, size, self._checksum, created_ns, self._custom)
            file.finish(trailer.encode(record))
            # What lies in the row goes with this transaction, and there is no older file that recovery could take
            # back if a power cut tore this one.
            self.sync_first = self._settings.durable or (row is not None and row[6] is not None)
        custom = index.encode_custom(self._custom)
        turn.connection.execute(
            _PUT, (bucket_id, self._key, size, version, self._checksum, created_ns, custom, place, self._data)
        )
        if old_place is not None:
            turn.connection.execute(_TRASH, (old_place, bucket_id, self._key, version - 1))
        return index.object_info(self._bucket, self._name, size, version, self._checksum, created_ns, custom)

    def committed(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.keep()

    def undo(self) -> None:
        """Remove the file."""
        if self.file is not None:
            self.file.discard()


class Delete(_ObjectOperation):
    """The end of an object, if it is the one that is meant."""

    def __init__(self, bucket: str, key: bytes, name: str, only: Only | None = None) -> None:
        super().__init__(bucket, key, name)
        self._only = only

    def apply(self, turn: Turn) -> ObjectInfo:
        """Remove the row; its file goes to the trash."""
        bucket_id, row = self._find(turn)
        info = index.object_info(self._bucket, self._name, *row[:5])
        check_only(info, self._only)
        turn.connection.execute(_DELETE, (bucket_id, self._key))
        if row[5] is not None:
            turn.connection.execute(_TRASH, (row[5], bucket_id, self._key, row[1]))
        return info


class SetCustom(_ObjectOperation):
    """Other custom metadata for an object: in its row, and in one more trailer of its file."""

    def __init__(self, settings: LocalSettings, bucket: str, key: bytes, name: str, change: ChangeCustom) -> None:
        super().__init__(bucket, key, name)
        self._settings = settings
        self._change = change
        self._appended: tuple[str, int] | None = None

    def apply(self, turn: Turn) -> ObjectInfo:
        """Update the row, then append the trailer."""
        bucket_id, row = self._find(turn)
        size, version, checksum, created_ns, old, place, _ = row
        custom = check_custom(self._change(index.decode_custom(old)), self._settings.custom_bytes_max)
        if place is not None:
            record = self._record(place, bucket_id, version, size, checksum, created_ns, custom)
            self._append(turn.store.path(place), record, index.decode_custom(old))
        encoded = index.encode_custom(custom)
        turn.connection.execute(_SET_CUSTOM, (encoded, bucket_id, self._key))
        return index.object_info(self._bucket, self._name, size, version, checksum, created_ns, encoded)

    def rolled_back(self) -> None:
        """Cut the trailer off again."""
        if self._appended is not None:
            path, end = self._appended
            self._appended = None
            if os.stat(path).st_size > end:  # else a change before this one in the batch was cut off already
                os.truncate(path, end)

    def _append(self, path: str, record: trailer.Record, before: dict[str, str]) -> None:
        data = trailer.encode(record)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            end = os.fstat(descriptor).st_size
            if end - record.size > trailer.FOLD_BYTES:
                end = trailer.fold(descriptor, msgspec.structs.replace(record, custom=before))
            self._appended = (path, end)
            if os.pwrite(descriptor, data, end) != len(data):
                raise OSError(errno.ENOSPC, "the disk is full")
            if self._settings.durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


class CreateBucket(Operation[BucketInfo]):
    """A new bucket."""

    of_all = True

    def __init__(self, bucket: str, props: Mapping[str, Any]) -> None:
        super().__init__()
        self._bucket = bucket
        self._props = dict(props)
        self._encoded = index.encode_props(self._props)

    @property
    def what(self) -> str:
        """The bucket's address."""
        return f"ais://{self._bucket}"

    def apply(self, turn: Turn) -> BucketInfo:
        """Insert the row."""
        connection = turn.connection
        if connection.execute("SELECT 1 FROM buckets WHERE name = ?", (self._bucket,)).fetchone():
            raise BucketExistsError.of(self._bucket)
        created_ns = time.time_ns()
        cursor = connection.execute(
            "INSERT INTO buckets (name, created_ns, props) VALUES (?, ?, ?)", (self._bucket, created_ns, self._encoded)
        )
        assert cursor.lastrowid is not None
        return BucketInfo(self._bucket, cursor.lastrowid, created_ns, self._props)


class DeleteBucket(Operation[None]):
    """The end of a bucket: its row goes now, its objects are purged in pieces by the reclaimer."""

    of_all = True

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self._bucket = bucket

    @property
    def what(self) -> str:
        """The bucket's address."""
        return f"ais://{self._bucket}"

    def apply(self, turn: Turn) -> None:
        """Move the row from the buckets to the doomed; other mountpaths hear of it from the removed."""
        connection = turn.connection
        row = connection.execute("SELECT id FROM buckets WHERE name = ?", (self._bucket,)).fetchone()
        if row is None:
            raise BucketNotFoundError.of(self._bucket)
        connection.execute("DELETE FROM buckets WHERE id = ?", row)
        connection.execute("INSERT INTO doomed VALUES (?)", row)
        connection.execute("INSERT INTO removed VALUES (?)", row)

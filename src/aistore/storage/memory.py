"""The contract of an engine at its plainest, in one process's memory: for tests and demonstrations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from msgspec import structs

from ..errors import BucketExistsError, BucketNotFoundError, InternalError, ObjectDamagedError, ObjectNotFoundError
from ..model.buckets import BucketInfo
from ..model.objects import Checksum, ListOptions, ListPage, ObjectInfo, Only, PutOptions
from .arguments import check_custom, check_only, check_version, encode_name, encode_text, listing_bounds
from .checksums import STORED_TYPE, Hasher


class BytesReading:
    """A Reading of bytes that are in memory anyway."""

    __slots__ = ("_data", "info", "path")

    def __init__(self, info: ObjectInfo, data: bytes) -> None:
        self.info = info
        self.path: str | None = None
        self._data = data

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``."""
        if start < 0 or length < 0 or start + length > len(self._data):
            raise InternalError(
                f"ais://{self.info.bucket}/{self.info.name}: bytes {start} to {start + length} of {len(self._data)}"
            )
        return self._data if length == len(self._data) else self._data[start : start + length]

    read_cached = read

    def peek(self) -> bytes:
        """Return all bytes."""
        return self._data

    def damaged(self, problem: str) -> ObjectDamagedError:
        """Return the error for bytes that changed in memory."""
        return ObjectDamagedError(f"ais://{self.info.bucket}/{self.info.name} is damaged: it {problem}")

    def suspected(self) -> bool:
        """Say no: memory is not suspected."""
        return False

    def close(self) -> None:
        """Do nothing: there is no descriptor."""

    def __enter__(self) -> BytesReading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Bucket:
    def __init__(self, info: BucketInfo) -> None:
        self.info = info
        self.objects: dict[bytes, tuple[ObjectInfo, bytes]] = {}


class MemoryStaging:
    """A write in progress, in memory."""

    def __init__(self, engine: MemoryEngine, bucket: _Bucket, name: str, options: PutOptions) -> None:
        self._engine = engine
        self._bucket = bucket
        self._name = name
        self._options = options
        self._hasher = Hasher(options.expected)
        self._data = bytearray()
        self._open = True

    def write(self, chunk: bytes | memoryview) -> None:
        """Append ``chunk``."""
        if not self._open:
            raise InternalError("this write has ended already")
        self._hasher.update(chunk)
        self._data += chunk

    def commit(self) -> Future[ObjectInfo]:
        """Publish."""
        if not self._open:
            raise InternalError("this write has ended already")
        self._open = False
        return _future(
            lambda: self._engine.publish(self._bucket, self._name, bytes(self._data), self._hasher, self._options)
        )

    def abort(self) -> None:
        """Drop what was written."""
        self._open = False


def _future(action: Callable[[], ObjectInfo]) -> Future[ObjectInfo]:
    future: Future[ObjectInfo] = Future()
    try:
        future.set_result(action())
    except Exception as error:
        future.set_exception(error)
    return future


class MemoryEngine:
    """An Engine whose buckets are dictionaries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._next_id = 1

    def create_bucket(self, bucket: str, props: Mapping[str, Any]) -> BucketInfo:
        """Create an empty bucket; raises BucketExistsError."""
        encode_text(bucket)
        with self._lock:
            if bucket in self._buckets:
                raise BucketExistsError.of(bucket)
            info = BucketInfo(bucket, self._next_id, time.time_ns(), dict(props))
            self._next_id += 1
            self._buckets[bucket] = _Bucket(info)
            return info

    def delete_bucket(self, bucket: str) -> None:
        """Remove a bucket and all that is in it; raises BucketNotFoundError."""
        with self._lock:
            self._bucket(bucket)
            del self._buckets[bucket]

    def head_bucket(self, bucket: str) -> BucketInfo:
        """Return a bucket's properties; raises BucketNotFoundError."""
        with self._lock:
            return self._bucket(bucket).info

    def list_buckets(self) -> list[BucketInfo]:
        """Return all buckets, by name."""
        with self._lock:
            return [self._buckets[name].info for name in sorted(self._buckets, key=str.encode)]

    def get(self, bucket: str, name: str) -> BytesReading:
        """Open an object for reading; raises BucketNotFoundError, ObjectNotFoundError."""
        with self._lock:
            info, data = self._object(bucket, name)
            return BytesReading(info, data)

    def get_many(self, bucket: str, names: Sequence[str]) -> dict[str, BytesReading]:
        """Open those of many objects that are there; raises BucketNotFoundError."""
        absent = set(self.absent(bucket, names))
        return {name: self.get(bucket, name) for name in names if name not in absent}

    def absent(self, bucket: str, names: Sequence[str]) -> list[str]:
        """Return those of many names that have no object; raises BucketNotFoundError."""
        with self._lock:
            objects = self._bucket(bucket).objects
            return [name for name in names if encode_text(name) not in objects]

    def kept(self, bucket: str, name: str) -> None:
        """Return None: there is nothing faster than ``get``."""

    def head(self, bucket: str, name: str) -> ObjectInfo:
        """Return what is known of an object; raises as ``get``."""
        with self._lock:
            return self._object(bucket, name)[0]

    def put(self, bucket: str, name: str, data: bytes, options: PutOptions) -> Future[ObjectInfo]:
        """Write a whole object; the future raises as ``Staging.commit``."""
        try:
            staging = self.stage(bucket, name, options)
        except BucketNotFoundError as error:
            future: Future[ObjectInfo] = Future()
            future.set_exception(error)
            return future
        staging.write(data)
        return staging.commit()

    def stage(self, bucket: str, name: str, options: PutOptions) -> MemoryStaging:
        """Begin to write an object piece by piece; raises BucketNotFoundError."""
        encode_name(name)
        check_custom(options.custom)
        with self._lock:
            return MemoryStaging(self, self._bucket(bucket), name, options)

    def publish(self, bucket: _Bucket, name: str, data: bytes, hasher: Hasher, options: PutOptions) -> ObjectInfo:
        """Make a staged object visible; called by MemoryStaging.commit."""
        key = name.encode()
        checksum = Checksum(STORED_TYPE, hasher.finish(f"ais://{bucket.info.name}/{name}"))
        with self._lock:
            if self._buckets.get(bucket.info.name) is not bucket:
                raise BucketNotFoundError.of(bucket.info.name)
            version = bucket.objects[key][0].version if key in bucket.objects else 0
            check_version(bucket.info.name, name, version, options.if_version)
            custom = check_custom(options.custom)
            info = ObjectInfo(bucket.info.name, name, len(data), version + 1, checksum, time.time_ns(), custom)
            bucket.objects[key] = (info, data)
            return info

    def delete(self, bucket: str, name: str, *, only: Only | None = None) -> Future[ObjectInfo]:
        """Remove an object; the future gives what was removed, or raises as ``get``, or ConflictError."""

        def remove() -> ObjectInfo:
            with self._lock:
                info, _ = self._object(bucket, name)
                check_only(info, only)
                del self._bucket(bucket).objects[name.encode()]
                return info

        return _future(remove)

    def set_custom(self, bucket: str, name: str, custom: Mapping[str, str], *, replace: bool) -> Future[ObjectInfo]:
        """Merge ``custom`` into the object's custom metadata, or replace it; the version stays."""
        encode_name(name)
        added = check_custom(custom)

        def change() -> ObjectInfo:
            with self._lock:
                info, data = self._object(bucket, name)
                merged = check_custom(added if replace else {**info.custom, **added})
                changed = _with_custom(info, merged)
                self._bucket(bucket).objects[name.encode()] = (changed, data)
                return changed

        return _future(change)

    def list(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of a listing; raises BucketNotFoundError."""
        first, end = listing_bounds(options)
        with self._lock:
            objects = self._bucket(bucket).objects
            keys = sorted(key for key in objects if key >= first and (end is None or key < end))
            entries = [objects[key][0] for key in keys[: options.limit]]
        return ListPage(entries, entries[-1].name if len(keys) > options.limit else "")

    def close(self) -> None:
        """Do nothing: memory goes with the object."""

    def _bucket(self, bucket: str) -> _Bucket:
        found = self._buckets.get(bucket)
        if found is None:
            raise BucketNotFoundError.of(bucket)
        return found

    def _object(self, bucket: str, name: str) -> tuple[ObjectInfo, bytes]:
        key = encode_text(name)
        found = self._bucket(bucket).objects.get(key)
        if found is None:
            raise ObjectNotFoundError.of(bucket, name)
        return found


def _with_custom(info: ObjectInfo, custom: Mapping[str, str]) -> ObjectInfo:
    return structs.replace(info, custom=custom)

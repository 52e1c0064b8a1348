"""An engine over an object store: buckets are prefixes, objects lie there under their own names.

Every other tool can read them. What the store cannot do, the engine cannot do, and says so: ``lacks`` names what of the
engine contract is missing, and the conformance suite checks the stated error instead.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from msgspec import structs

from ...errors import (
    AmbiguousWriteError,
    BackendUnavailableError,
    BucketNotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    StaleConditionError,
    StoredNotFoundError,
)
from ...model.buckets import BucketInfo
from ...model.objects import Checksum, ListOptions, ListPage, ObjectInfo, Only, PutOptions
from ..arguments import check_custom, check_only, check_version, encode_name, listing_bounds
from ..checksums import STORED_TYPE, Hasher
from .bucket_documents import BucketDocuments
from .contract import ABSENT, Absent, ObjectStore, StoredInfo
from .metadata import NONCE, UNKNOWN, decode, encode
from .reading import StoredReading
from .staging import StoredStaging

_WRITERS = 16
# A writer that lost this many races for one key gives up; eight writers at once need about eight.
_ATTEMPTS = 100
_BYTES_PER_SECOND_MIN = 1 << 20  # guessed: a connection slower than this is given up on


class ObjectStoreEngine:
    """An Engine; ``store.capabilities`` should be probed ones. Each write waits for the store in a thread of ours."""

    def __init__(self, store: ObjectStore, staging_directory: str = "") -> None:
        self._store = store
        self._directory = staging_directory or tempfile.gettempdir()
        self._buckets = BucketDocuments(store)
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="store-write")
        self.lacks = _lacks(store)

    def create_bucket(self, bucket: str, props: Mapping[str, Any]) -> BucketInfo:
        """Create an empty bucket; raises BucketExistsError."""
        return self._buckets.create(bucket, props)

    def delete_bucket(self, bucket: str) -> None:
        """Remove a bucket and all that is in it, in one step for readers; raises BucketNotFoundError."""
        self._buckets.begin_delete(bucket)
        self._buckets.finish_delete(bucket)

    def head_bucket(self, bucket: str) -> BucketInfo:
        """Return a bucket's properties; raises BucketNotFoundError."""
        return self._buckets.find(bucket)

    def list_buckets(self) -> list[BucketInfo]:
        """Return all buckets, by name."""
        return self._buckets.list()

    def get(self, bucket: str, name: str) -> StoredReading:
        """Open an object for reading; raises BucketNotFoundError, ObjectNotFoundError. One request and the bucket's."""
        key = self._key(bucket, name)
        try:
            body = self._store.get(key)
        except StoredNotFoundError as error:
            raise ObjectNotFoundError.of(bucket, name) from error
        assert body is not None
        reading = StoredReading(self._store, key, decode(bucket, name, body.info), body.info.etag, body)
        try:
            reading.keep()
        except BaseException:
            reading.close()
            raise
        return reading

    def get_many(self, bucket: str, names: Sequence[str]) -> dict[str, StoredReading]:
        """Open those of many objects that are there, one after the other; raises BucketNotFoundError."""
        self.head_bucket(bucket)
        found = {}
        for name in names:
            with contextlib.suppress(ObjectNotFoundError):
                found[name] = self.get(bucket, name)
        return found

    def absent(self, bucket: str, names: Sequence[str]) -> list[str]:
        """Return those of many names that have no object, asking for one after the other; raises as ``get_many``."""
        self.head_bucket(bucket)
        absent = []
        for name in names:
            try:
                self.head(bucket, name)
            except ObjectNotFoundError:
                absent.append(name)
        return absent

    def kept(self, bucket: str, name: str) -> None:
        """Return None: nothing is kept here."""

    def head(self, bucket: str, name: str) -> ObjectInfo:
        """Return what is known of an object; raises as ``get``."""
        return decode(bucket, name, self._head(bucket, name))

    def put(self, bucket: str, name: str, data: bytes, options: PutOptions) -> Future[ObjectInfo]:
        """Write a whole object; the future raises as ``Staging.commit``."""
        try:
            staging = self.stage(bucket, name, options)
        except BucketNotFoundError as error:
            failed: Future[ObjectInfo] = Future()
            failed.set_exception(error)
            return failed
        staging.write(data)
        return staging.commit()

    def stage(self, bucket: str, name: str, options: PutOptions) -> StoredStaging:
        """Begin to write an object piece by piece; raises BucketNotFoundError, NotSupportedError."""
        encode_name(name)
        custom = check_custom(options.custom)
        hasher = Hasher(options.expected)
        key = self._key(bucket, name)
        self._check_able(options)
        found = self._buckets.find(bucket)

        def commit(data: Any, hasher: Hasher) -> Future[ObjectInfo]:
            return self._writers.submit(self._publish, found, key, name, data, hasher, options, custom)

        return StoredStaging(hasher, commit, self._directory)

    def delete(self, bucket: str, name: str, *, only: Only | None = None) -> Future[ObjectInfo]:
        """Remove an object; the future gives what was removed, or raises as ``get``, or ConflictError.

        Stores know no condition for a removal: what somebody writes between the look and it is removed too.
        """

        def remove() -> ObjectInfo:
            info = decode(bucket, name, self._head(bucket, name))
            check_only(info, only)
            self._store.delete(self._key_of(bucket, name))
            return info

        return self._writers.submit(remove)

    def set_custom(self, bucket: str, name: str, custom: Mapping[str, str], *, replace: bool) -> Future[ObjectInfo]:
        """Merge ``custom`` into the object's custom metadata, or replace it; the version stays.

        Stores change metadata with the bytes only, so these are fetched and written again.
        """
        encode_name(name)
        added = check_custom(custom)
        return self._writers.submit(self._rewrite, bucket, name, added, replace)

    def list(self, bucket: str, options: ListOptions) -> ListPage:
        """Return one page of a listing; raises BucketNotFoundError.

        A store lists sizes and times: version, checksum and custom metadata of the entries are not filled in.
        """
        listing_bounds(options)
        self._buckets.find(bucket)
        room = f"{bucket}/"
        after = room + options.start_after if options.start_after else ""
        page = self._store.list(room + options.prefix, after, options.limit)
        entries = [
            ObjectInfo(bucket, entry.key[len(room) :], entry.size, 1, UNKNOWN, entry.modified_ns)
            for entry in page.entries
        ]
        return ListPage(entries, page.continuation[len(room) :])

    def close(self) -> None:
        """Finish accepted writes and give every resource back."""
        self._writers.shutdown()
        self._store.close()

    # What the verbs share.

    def _key_of(self, bucket: str, name: str) -> str:
        encode_name(name)
        return f"{bucket}/{name}"

    def _key(self, bucket: str, name: str) -> str:
        key = self._key_of(bucket, name)
        self._buckets.find(bucket)
        return key

    def _head(self, bucket: str, name: str) -> StoredInfo:
        key = self._key(bucket, name)
        try:
            return self._store.head(key)
        except StoredNotFoundError as error:
            raise ObjectNotFoundError.of(bucket, name) from error

    def _check_able(self, options: PutOptions) -> None:
        able = self._store.capabilities
        if options.custom and not able.metadata:
            raise NotSupportedError(f"{self._store.url} keeps no metadata, so no custom metadata either")
        if options.if_version == 0 and not able.conditional_create:
            raise NotSupportedError(f"{self._store.url} does not write under the condition that nothing is there")
        if options.if_version and not (able.conditional_replace and able.metadata):
            raise NotSupportedError(f"{self._store.url} keeps no versions, so no write can require one")

    def _publish(
        self,
        found: BucketInfo,
        key: str,
        name: str,
        data: Any,
        hasher: Hasher,
        options: PutOptions,
        custom: Mapping[str, str],
    ) -> ObjectInfo:
        checksum = Checksum(STORED_TYPE, hasher.finish(f"ais://{found.name}/{name}"))
        if self._buckets.find(found.name).id != found.id:
            raise BucketNotFoundError.of(found.name)
        for _ in range(_ATTEMPTS):
            before = self._current(key)
            version = decode(found.name, name, before).version if before else 0
            check_version(found.name, name, version, options.if_version)
            info = ObjectInfo(found.name, name, len(data), version + 1, checksum, time.time_ns(), custom)
            try:
                return self._write(key, info, data, before)
            except StaleConditionError:
                continue
        raise BackendUnavailableError(f"ais://{found.name}/{name} is written by too many at once")

    def _write(self, key: str, info: ObjectInfo, data: Any, before: StoredInfo | None) -> ObjectInfo:
        """Write over ``before``; raises StaleConditionError if that is not what is there."""
        able = self._store.capabilities
        seconds = 60.0 + len(data) / _BYTES_PER_SECOND_MIN
        condition: Absent | str | None = None
        if before is None and able.conditional_create:
            condition = ABSENT
        elif before is not None and able.conditional_replace:
            condition = before.etag
        if not able.metadata:
            self._store.put(key, data, {}, ABSENT if condition is ABSENT else None, seconds)
            return decode(info.bucket, info.name, self._store.head(key))
        nonce = secrets.token_hex(8)
        metadata = encode(info.version, info.checksum.value, nonce, info.custom, info.created_ns)
        try:
            self._store.put(key, data, metadata, condition, seconds)
        except AmbiguousWriteError:
            there = self._current(key)
            if there is None or there.metadata.get(NONCE) != nonce:
                raise
        return info

    def _current(self, key: str) -> StoredInfo | None:
        try:
            return self._store.head(key)
        except StoredNotFoundError:
            return None

    def _rewrite(self, bucket: str, name: str, added: Mapping[str, str], replace: bool) -> ObjectInfo:
        self._head(bucket, name)
        self._check_able(PutOptions(custom=added))
        for _ in range(_ATTEMPTS):
            with self.get(bucket, name) as reading:
                before = self._head(bucket, name)
                old = decode(bucket, name, before)
                if (old.version, old.created_ns) != (reading.info.version, reading.info.created_ns):
                    continue
                merged = check_custom(added if replace else {**old.custom, **added})
                data = reading.read(0, old.size)
            try:
                return self._write(self._key_of(bucket, name), structs.replace(old, custom=merged), data, before)
            except StaleConditionError:
                continue
        raise BackendUnavailableError(f"ais://{bucket}/{name} is written by too many at once")


def _lacks(store: ObjectStore) -> frozenset[str]:
    """Return what of the engine contract is missing, in the words of ``conformance.py``."""
    able = store.capabilities
    has = {
        "listed facts": False,
        "any name": False,
        "byte order": able.byte_order,
        "versions": able.conditional_replace and able.metadata,
        "metadata": able.metadata,
        "nesting": able.nesting,
    }
    return frozenset(what for what, there in has.items() if not there)

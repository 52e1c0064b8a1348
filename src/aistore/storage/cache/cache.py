"""The cache: whole objects of a store, kept on this machine's disk together with what the store says of them.

Every HTTP worker of a node has an instance of its own over the same directory; evictor.py keeps it within its bounds,
in one process. A copy is a row of the local engine, whose bytes and facts change in one step; which copies may be given
out, and when the store has to be asked first, is the business of whoever uses the cache.

``kept``, ``open``, ``facts``, ``usage`` and trying a lock are quick. What changes something waits for a transaction.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from ...errors import (
    BucketExistsError,
    BucketNotFoundError,
    NotFoundError,
    ObjectDamagedError,
    OutOfSpaceError,
    StaleConditionError,
)
from ...model.objects import Checksum, ListOptions, ListPage, ObjectInfo, PutOptions
from ...observe.counters import COUNTERS
from ..local.engine import LocalEngine
from ..local.hot import HotObject
from ..local.layout import Mountpath
from ..local.placement import ROOT
from .facts import CacheBucket, CachedFacts, decode_facts, encode_facts, info_of
from .keylocks import KeyLock, open_key_locks
from .layout import boot_name, open_cache_directory
from .reading import KeptCopy, OpenedCopy
from .recency import Recency, slot_of
from .settings import CacheSettings
from .staging import CacheStaging
from .totals import Totals, TotalsReader

_DEFAULT_SETTINGS = CacheSettings()
_COPY = ""  # among a HotObject's replies


class Usage(NamedTuple):
    """What a cache holds: objects and their bytes, bytes of those pinned as last counted, and what it may hold."""

    objects: int
    bytes: int
    pinned_bytes: int
    capacity_bytes: int


class Cache:
    """Copies of objects in one directory. Its methods may be called from different threads.

    Never share an instance over a fork. Raises ConflictError for a directory that is no cache and cannot become one.
    """

    def __init__(self, directory: str, settings: CacheSettings = _DEFAULT_SETTINGS) -> None:
        self.settings = settings
        self.places = open_cache_directory(directory)
        with ExitStack() as opened:
            self._engine = LocalEngine(self.places.objects, settings.local())
            opened.callback(self._engine.close)
            self._totals = TotalsReader(Mountpath(f"{self.places.objects}/{ROOT}"))
            opened.callback(self._totals.close)
            self._locks = open_key_locks(self.places)
            opened.callback(self._locks.close)
            self.recency = Recency(self.places.recency)
            self._boot = boot_name(self.places)
            self._hits, self._misses, _, _ = settings.counts
            opened.pop_all()

    def open(self, bucket: CacheBucket, name: str) -> OpenedCopy | KeptCopy | None:
        """Return the copy of an object, opened for reading, or None. A damaged copy is forgotten when it is noticed."""
        key = bucket.key
        hot = self._engine.kept(key, name)
        if hot is not None:
            return self._copy(hot, bucket, key)
        try:
            reading = self._engine.get(key, name)
        except NotFoundError:
            self._miss()
            return None
        except ObjectDamagedError:
            self.forget(bucket, name)
            self._miss()
            return None
        if isinstance(reading, HotObject):
            return self._copy(reading, bucket, key)
        self.recency.touch(slot_of(key, name))
        hits = self._hits
        COUNTERS.words[hits] += 1
        facts = decode_facts(reading.info.custom, self._boot)
        return OpenedCopy(reading, info_of(bucket, reading.info, facts), facts)

    def kept(self, bucket: CacheBucket, name: str) -> KeptCopy | None:
        """Return the copy of an object if it is in this process's memory and unchanged: no system call, no error."""
        key = bucket.key
        hot = self._engine.kept(key, name)
        return None if hot is None else self._copy(hot, bucket, key)

    def facts(self, bucket: CacheBucket, name: str) -> CachedFacts | None:
        """Return what is known of the copy of an object, or None."""
        key = bucket.key
        try:
            return decode_facts(self._engine.head(key, name).custom, self._boot)
        except NotFoundError:
            return None

    def stage(self, bucket: CacheBucket, name: str, options: PutOptions) -> CacheStaging:
        """Begin a copy; of ``options`` only the expected checksums and the size count.

        Raises OutOfSpaceError when there is no room for it now: then read and write the store without the cache.
        """
        self._check_room(options.size or 0, bucket, name)
        wanted = PutOptions(expected=options.expected, size=options.size)
        key = bucket.checked().key
        while True:
            try:
                staging = self._engine.stage(key, name, wanted)
            except BucketNotFoundError:
                self._create(key)
            except OutOfSpaceError:
                self.recency.want(options.size or 1)
                raise
            else:
                return CacheStaging(staging, bucket, name, self._boot, self.recency)

    def put(
        self, bucket: CacheBucket, name: str, data: bytes, checksum: Checksum, facts: CachedFacts
    ) -> Future[ObjectInfo]:
        """Make bytes that are all here the object's copy, hashed and written by the thread that commits.

        ``checksum`` is what they must have, if its value is not empty. Whoever holds the key's lock must wait for the
        future before letting it go; it raises as that of ``CacheStaging.commit``. Raises OutOfSpaceError.
        """
        self._check_room(len(data), bucket, name)
        key = bucket.checked().key
        try:
            self._engine.head_bucket(key)
        except BucketNotFoundError:
            self._create(key)
        options = PutOptions(encode_facts(facts, self._boot), (checksum,) if checksum.value else (), size=len(data))
        self.recency.touch(slot_of(key, name))
        return self._engine.put(key, name, data, options)

    def forget(self, bucket: CacheBucket, name: str) -> bool:
        """Have no copy of an object, whatever process is killed from now on; return whether there was one.

        A commit under way is not waited for: hold the key's lock, as who commits must.
        """
        key = bucket.key
        try:
            self._engine.head(key, name)  # most writes are of objects without a copy: no transaction for them
            self._engine.delete(key, name).result()
        except NotFoundError:
            return False
        return True

    def remove(self, key: str, name: str) -> Future[ObjectInfo]:
        """Begin to remove a copy, for eviction; ``key`` is the bucket's. The future raises NotFoundError."""
        return self._engine.delete(key, name)

    def restamp(self, bucket: CacheBucket, name: str, facts: CachedFacts) -> Future[bool]:
        """Give the copy a new stamp, if it is the one that ``facts`` are of; the future says whether it is.

        A copy is the same by ETag, version and time: an ETag alone comes again with the same bytes. A stamp never goes
        back in one run of the machine. Nobody needs to wait: a stamp that is lost costs a question.
        """
        boot = self._boot

        def change(custom: Mapping[str, str]) -> Mapping[str, str]:
            known = decode_facts(custom, boot)
            if _identity(known) != _identity(facts):
                raise StaleConditionError(f"{bucket.url}/{name} is another copy now")
            return encode_facts(msgspec.structs.replace(facts, stamp=max(known.stamp, facts.stamp)), boot)

        after: Future[bool] = Future()
        after.set_running_or_notify_cancel()

        def done(before: Future[ObjectInfo]) -> None:
            error = before.exception()
            if error is None or isinstance(error, (StaleConditionError, NotFoundError)):
                after.set_result(error is None)
            else:
                after.set_exception(error)

        self._engine.change_custom(bucket.key, name, change).add_done_callback(done)
        return after

    def lock(self, bucket: CacheBucket, name: str) -> KeyLock:
        """Return the lock of an object's key, not taken yet."""
        return self._locks.lock(bucket.key, name)

    def buckets(self) -> list[CacheBucket]:
        """Return all buckets that have, or had, copies."""
        return [CacheBucket.from_key(found.name) for found in self._engine.list_buckets()]

    def list(self, bucket: CacheBucket, options: ListOptions) -> ListPage:
        """Return one page of the objects that have a copy, in byte order of names."""
        try:
            page = self._engine.list(bucket.key, options)
        except BucketNotFoundError:
            return ListPage([], "")
        boot = self._boot
        infos = [info_of(bucket, found, decode_facts(found.custom, boot)) for found in page.entries]
        return ListPage(infos, page.continuation)

    def drop_bucket(self, bucket: CacheBucket) -> bool:
        """Have no copy of any object of a bucket, in one step; return whether there was anything of it."""
        try:
            self._engine.delete_bucket(bucket.key)
        except BucketNotFoundError:
            return False
        return True

    def usage(self, bucket: CacheBucket | None = None) -> Usage:
        """Return what the cache holds, or what it holds of one bucket (then nothing is said of pins)."""
        if bucket is not None:
            return Usage(*self._totals.of_bucket(bucket.key), 0, self.capacity())
        totals: Totals = self._totals.read()
        return Usage(*totals, self.recency.pinned[1], self.capacity())

    def capacity(self) -> int:
        """Return how many bytes of objects the cache may hold."""
        space = os.statvfs(self.places.objects)
        return self.settings.capacity(space.f_blocks * space.f_frsize)

    def close(self) -> None:
        """Finish what was committed, drop what was not, free all locks and resources. May be called twice."""
        self._engine.close()
        self._totals.close()
        self._locks.close()
        self.recency.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _copy(self, hot: HotObject, bucket: CacheBucket, key: str) -> KeptCopy:
        copy: KeptCopy | None = hot.replies.get(_COPY)
        if copy is None:
            found = hot.info
            facts = decode_facts(found.custom, self._boot)
            made = KeptCopy(hot, info_of(bucket, found, facts), facts, slot_of(key, found.name))
            copy = hot.replies.setdefault(_COPY, made)
        ticks = self.recency.ticks
        ticks[copy.slot] = ticks[0]
        hits = self._hits
        COUNTERS.words[hits] += 1
        return copy

    def _miss(self) -> None:
        misses = self._misses
        COUNTERS.words[misses] += 1

    def _create(self, key: str) -> None:
        try:
            self._engine.create_bucket(key, {})
        except BucketExistsError:
            pass

    def _check_room(self, size: int, bucket: CacheBucket, name: str) -> None:
        """Raise OutOfSpaceError when ``size`` bytes are too many, now or ever."""
        capacity = self.capacity()
        used, pinned = self._totals.read().bytes, self.recency.pinned[1]
        if used + size <= capacity:
            return
        if size + pinned <= capacity:
            self.recency.want(max(size, 1))
        raise OutOfSpaceError(
            f"{bucket.url}/{name}: the cache is full with {used} of {capacity} bytes, {pinned} of them pinned",
            hint="a larger --cache-size keeps more; reads and writes go on without a copy",
        )


def _identity(facts: CachedFacts) -> tuple[str, int, int]:
    return facts.etag, facts.version, facts.modified_ns

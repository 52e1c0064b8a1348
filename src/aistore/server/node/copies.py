"""The node's cache of objects, as the cluster's code wants it: what waits for a disk or a lock does so in threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from ...cluster.documents import BucketRecord
from ...cluster.world import Staged
from ...errors import AisError, BackendUnavailableError, InternalError, ObjectDamagedError, OutOfSpaceError
from ...model.objects import PutOptions
from ...storage.cache.cache import Cache
from ...storage.cache.facts import CacheBucket, CachedFacts, CachedReading
from ...storage.objectstore.contract import StoredBody, StoredInfo
from ...storage.objectstore.metadata import checksum_of
from ...storage.objectstore.whole import WholeBody
from ...storage.verified import wrong_checksum
from .stores import in_thread

_log = logging.getLogger("aistore.cluster")

T = TypeVar("T")

_LOCK_PAUSE_SECONDS = (0.0005, 0.02)


def cache_bucket(bucket: BucketRecord) -> CacheBucket:
    """Return the name of a bucket in the cache."""
    return CacheBucket(bucket.provider, bucket.name, bucket.id)


async def _to_its_end(work: asyncio.Future[T]) -> T:
    """Return what becomes of work; who is cancelled meanwhile goes on, and frees its locks, only when that has ended.

    Else a copy could be committed after its lock was given to somebody who changed the object.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((work,))
        if not work.cancelled():
            work.exception()  # nobody is there to hear of it
        raise


class NodeCache:
    """The copies of one process of a node."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._cache: Cache | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a cache yet."""
        return self._cache is not None

    @property
    def cache(self) -> Cache:
        """The cache below."""
        if self._cache is None:
            raise InternalError("there is no bucket, so there is no cache of its objects")
        return self._cache

    def use(self, cache: Cache) -> None:
        """Keep copies in ``cache`` from now on; where there is one already, that stays."""
        if self._cache is None:
            self._cache = cache
        else:
            cache.close()

    def close(self) -> None:
        """Close the cache."""
        if self._cache is not None:
            self._cache.close()

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await _to_its_end(in_thread(self._threads, work, *arguments))

    def open(self, bucket: BucketRecord, name: str) -> CachedReading | None:
        """Open a copy."""
        return self.cache.open(cache_bucket(bucket), name)

    def facts(self, bucket: BucketRecord, name: str) -> CachedFacts | None:
        """Return what is known of a copy."""
        return self.cache.facts(cache_bucket(bucket), name)

    @asynccontextmanager
    async def locked(self, bucket: BucketRecord, name: str, seconds: float = float("inf")) -> AsyncIterator[bool]:
        """Hold an object's lock, if it can be had in about ``seconds``."""
        lock = self.cache.lock(cache_bucket(bucket), name)
        pause, longest = _LOCK_PAUSE_SECONDS
        waited = 0.0
        while not lock.try_acquire():
            if waited >= seconds:
                yield False
                return
            await asyncio.sleep(pause)
            waited += pause
            pause = min(longest, 1.5 * pause)
        try:
            yield True
        finally:
            lock.release()

    async def forget(self, bucket: BucketRecord, name: str) -> None:
        """Drop a copy."""
        key = cache_bucket(bucket)
        if self.cache.facts(key, name) is not None:
            await self._run(self.cache.forget, key, name)

    async def keep(self, bucket: BucketRecord, name: str, staged: Staged, facts: CachedFacts) -> None:
        """Make what was staged the copy. The object is written by now: what fails here costs a copy, nothing more."""
        assert isinstance(staged, StagedCopy)
        try:
            await _to_its_end(asyncio.wrap_future(staged.staging.commit(facts)))
        except AisError as error:
            _log.warning("%s/%s could not be kept here: %s", bucket.uri, name, error.message)

    async def fill(self, bucket: BucketRecord, name: str, body: StoredBody, facts: CachedFacts) -> CachedReading | None:
        """Make the copy from the store's bytes and open it."""
        return await self._run(self._fill, cache_bucket(bucket), name, body, facts)

    def _fill(self, bucket: CacheBucket, name: str, body: StoredBody, facts: CachedFacts) -> CachedReading | None:
        try:
            staging = self.cache.stage(bucket, name, PutOptions(size=body.length))
        except OutOfSpaceError:
            body.close()
            return None
        try:
            with body:
                for chunk in body.chunks():
                    staging.write(bytes(chunk))
            size, checksum = staging.finish()
            if size != body.info.size:
                raise BackendUnavailableError(
                    f"{bucket.provider}://{bucket.name}/{name}: {size} of {body.info.size} bytes came", hint="try again"
                )
            check_whole(bucket.url, name, body.info, checksum.value)
            staging.commit(facts).result()
        except OutOfSpaceError:
            return None
        finally:
            staging.abort()
        return self.cache.open(bucket, name)

    async def fill_whole(self, bucket: BucketRecord, name: str, body: WholeBody, facts: CachedFacts) -> None:
        """Make the copy from bytes that are all here; without room there is none afterwards."""
        with suppress(OutOfSpaceError):
            made = self.cache.put(cache_bucket(bucket), name, body.read(), checksum_of(body.info.metadata), facts)
            await _to_its_end(asyncio.wrap_future(made))

    async def restamp(self, bucket: BucketRecord, name: str, facts: CachedFacts) -> None:
        """Replace the facts of a copy."""
        try:
            await self._run(self.cache.restamp, cache_bucket(bucket), name, facts)
        except AisError as error:  # then the next read compares again
            _log.warning("%s/%s: its facts stay: %s", bucket.uri, name, error.message)


def check_whole(bucket: str, name: str, stored: StoredInfo, checksum: str) -> None:
    """Raise ObjectDamagedError when bytes from the store do not have the checksum with which they were written."""
    noted = checksum_of(stored.metadata)
    if noted.value and noted.value != checksum:
        raise ObjectDamagedError(
            f"{bucket}/{name} is damaged: it {wrong_checksum(checksum, noted.value)}",
            hint="the bytes came so from the object store; write it again",
        )


class StagedCopy:
    """What a client sent, hashed and ready for the store."""

    def __init__(self, staging: Any, size: int, checksum: str) -> None:
        self.staging = staging
        self.size = size
        self.checksum = checksum

    def buffer(self) -> Any:
        """Return the bytes."""
        return self.staging.buffer()

"""Results that are kept, to be given out again: those that must come out equal if they were computed once more.

They are objects of a bounded cache of this node (``storage/cache``), named by what they were made of (seeds.py), so
there is nothing that could become stale. Each ETL has a bucket of its own in it, which goes with the ETL.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from importlib import metadata
from typing import NamedTuple

from ..errors import AisError, ClientGoneError, ObjectDamagedError, OutOfSpaceError
from ..model.objects import ObjectInfo, PutOptions
from ..settings import Limits, ServeSettings
from ..storage.cache.cache import Cache
from ..storage.cache.facts import CacheBucket, CachedFacts
from ..storage.cache.settings import RESULT_COUNTS, CacheSettings, parse_capacity
from . import exchange
from .running import Gone, Result
from .seeds import Recipe

_log = logging.getLogger("aistore.etl")

_PROVIDER = "etl"
_COPY_BYTES = 1 << 20
#: Between looks at whether a result is there that somebody else computes: the first, and the longest.
_PAUSE_SECONDS = (0.001, 0.02)


class Place(NamedTuple):
    """Where a result is kept."""

    bucket: CacheBucket
    name: str


def results_directory(data: str) -> str:
    """Return where a store keeps results."""
    return os.path.join(data, "results")


def results_settings(serve: ServeSettings) -> CacheSettings | None:
    """Return how much may be kept, None for nothing; raises BadRequestError."""
    if serve.transform_cache == "0":
        return None
    asked = parse_capacity(serve.transform_cache)
    # What is read again is read in another order an epoch later: memory would hardly ever have it.
    return CacheSettings(
        capacity_bytes=asked.capacity_bytes, capacity_percent=asked.capacity_percent, hot_bytes_max=0,
        counts=RESULT_COUNTS,
    )  # fmt: skip


def results_bucket(etl: str, uid: int) -> CacheBucket:
    """Return the bucket of an ETL's results; ``uid`` tells it from others that had its name."""
    return CacheBucket(_PROVIDER, etl, f"{uid:x}")


class Results:
    """The kept results, as one HTTP worker uses them. Belongs to the event loop."""

    def __init__(
        self, directory: str, spool: str, settings: CacheSettings | None, threads: Executor, limits: Limits
    ) -> None:
        self.directory = directory
        self._spool = spool
        self._settings = settings
        self._threads = threads
        self._limits = limits
        self._opening: asyncio.Future[tuple[Cache, str]] | None = None

    @property
    def are_kept(self) -> bool:
        """Whether this store keeps results."""
        return self._settings is not None

    async def place(self, etl: str, uid: int, bucket: str, recipe: Recipe) -> Place:
        """Return where a result is kept, if it is."""
        _, environment = await self._opened()
        return Place(results_bucket(etl, uid), recipe.result(bucket, environment))

    @asynccontextmanager
    async def turn(self, place: Place, seconds: float, gone: Gone | None) -> AsyncIterator[Result | None]:
        """Return the result that is kept; or None, and then it is the caller's turn to compute and keep it.

        Others who ask for it wait until the caller is done, but no longer than ``seconds``. Raises ClientGoneError when
        the client goes away meanwhile.
        """
        cache, _ = await self._opened()
        loop, watch = asyncio.get_running_loop(), _Watch(gone)
        deadline, (pause, longest) = loop.time() + seconds, _PAUSE_SECONDS
        with cache.lock(place.bucket, place.name) as lock:
            try:
                while (found := await self._find(cache, place)) is None and not lock.held and loop.time() < deadline:
                    if not lock.try_acquire():
                        await watch.pause(pause)
                        pause = min(longest, 1.5 * pause)
            finally:
                watch.end()
            yield found

    async def keep(self, place: Place, result: Result) -> None:
        """Keep a result. Where that fails it is computed again another time, and nothing else is lost."""
        cache, _ = await self._opened()
        descriptor = os.dup(result.descriptor) if result.data is None else -1  # the thread's own: the caller may go
        try:
            committing = asyncio.get_running_loop().run_in_executor(
                self._threads, _store, cache, place, result.size, result.data, descriptor
            )
            await asyncio.wrap_future(await committing)
        except OutOfSpaceError:  # room is being made
            pass
        except (AisError, OSError) as error:
            _log.warning("a result of etl job %s could not be kept: %s", place.bucket.name, error)

    async def _find(self, cache: Cache, place: Place) -> Result | None:
        if cache.facts(place.bucket, place.name) is None:
            return None
        try:
            copy = cache.open(place.bucket, place.name)
            if copy is None:
                return None
            with copy:
                size = copy.info.size
                if size > _COPY_BYTES:
                    memory = self._limits.memfd_input_bytes_max
                    return Result(size, None, await self._in_thread(copy, memory))
                data = copy.read_cached(0, size)
                if data is None:
                    loop = asyncio.get_running_loop()
                    data = await loop.run_in_executor(self._threads, copy.read, 0, size)
                return Result(size, data)
        except ObjectDamagedError as error:
            _log.warning("a result of etl job %s is computed again: %s", place.bucket.name, error.message)
            await asyncio.get_running_loop().run_in_executor(self._threads, cache.forget, place.bucket, place.name)
            return None

    async def _in_thread(self, copy: object, memory_bytes_max: int) -> int:
        """Return a descriptor with a copy of a large result, verified before anybody gets any of it."""
        return await exchange.in_thread(
            self._threads, exchange.input_from_reading, copy, memory_bytes_max, self._spool
        )  # fmt: skip

    async def kept(self) -> dict[str, tuple[int, int]]:
        """Return how many results there are of each ETL, by name, and their bytes."""
        if not os.path.isdir(self.directory) or self._settings is None:
            return {}
        cache, _ = await self._opened()
        return await asyncio.get_running_loop().run_in_executor(self._threads, _kept, cache)

    async def capacity(self) -> int:
        """Return how many bytes of results may be kept."""
        if self._settings is None or not os.path.isdir(self.directory):
            return 0
        cache, _ = await self._opened()
        return cache.capacity()

    async def _opened(self) -> tuple[Cache, str]:
        """Return the cache, and the digest of what the store is installed with."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            assert self._settings is not None
            self._opening = asyncio.get_running_loop().run_in_executor(
                self._threads, _open, self.directory, self._settings
            )
        return await asyncio.shield(self._opening)

    def close(self) -> None:
        """Finish what is being kept and give everything back, when the threads have ended."""
        opening = self._opening
        if opening is not None and opening.done() and not opening.cancelled() and opening.exception() is None:
            opening.result()[0].close()


class _Watch:
    """Pauses that end when the client goes away."""

    def __init__(self, gone: Gone | None) -> None:
        self._gone = gone
        self._watching: asyncio.Future[None] | None = None

    async def pause(self, seconds: float) -> None:
        if self._gone is None:
            await asyncio.sleep(seconds)
            return
        if self._watching is None:
            self._watching = asyncio.ensure_future(self._gone())
        await asyncio.wait((self._watching,), timeout=seconds)
        if self._watching.done():
            raise ClientGoneError

    def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()


def _open(directory: str, settings: CacheSettings) -> tuple[Cache, str]:
    installed = sorted(f"{found.name}=={found.version}" for found in metadata.distributions())
    return Cache(directory, settings), hashlib.sha256("\n".join(installed).encode()).hexdigest()[:16]


def _store(cache: Cache, place: Place, size: int, data: bytes | None, descriptor: int) -> Future[ObjectInfo]:
    """Begin to commit a result; closes ``descriptor``. Blocks."""
    try:
        staging = cache.stage(place.bucket, place.name, PutOptions(size=size))
        try:
            if data is not None:
                staging.write(data)
            else:
                for start in range(0, size, _COPY_BYTES):
                    staging.write(exchange.read_exactly(descriptor, start, min(_COPY_BYTES, size - start)))
            return staging.commit(CachedFacts("", 1, time.time_ns(), 0))
        finally:
            staging.abort()
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _kept(cache: Cache) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for bucket in cache.buckets():
        usage = cache.usage(bucket)
        objects, size = found.get(bucket.name, (0, 0))
        found[bucket.name] = objects + usage.objects, size + usage.bytes
    return found

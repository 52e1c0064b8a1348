"""Results that are kept, to be given out again: those that must come out equal if they were computed once more.

They are objects of a bounded cache of this node (``storage/cache``), named by what they were made of (seeds.py), so
there is nothing that could become stale. Each ETL has a bucket of its own in it, which goes with the ETL.
"""

from __future__ import annotations

import asyncio
import dataclasses
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
from ..storage.cache.reading import KeptCopy, OpenedCopy
from ..storage.cache.settings import RESULT_COUNTS, CacheSettings, parse_capacity
from . import exchange
from .running import Gone, Result
from .seeds import Recipe

_log = logging.getLogger("aistore.etl")

_PROVIDER = "etl"
_COPY_BYTES = 1 << 20
#: Between looks at whether somebody is done who computes a result: the first, and the longest. Each is half as long
#: again as the one before, so that who waits for long looks rarely: a look costs 15 us of CPU.
_PAUSE_SECONDS = (0.001, 0.05)


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
    return dataclasses.replace(asked, counts=RESULT_COUNTS)


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
        self._cache: Cache | None = None
        self._environment = ""  # a digest of what the store is installed with

    @property
    def are_kept(self) -> bool:
        """Whether this store keeps results."""
        return self._settings is not None

    async def open(self) -> None:
        """Open what is kept, if it is not open yet: before anything of it is used."""
        if self._cache is not None:
            return
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            assert self._settings is not None
            self._opening = asyncio.get_running_loop().run_in_executor(
                self._threads, _open, self.directory, self._settings
            )
        self._cache, self._environment = await asyncio.shield(self._opening)

    def place(self, etl: str, uid: int, bucket: str, recipe: Recipe) -> Place:
        """Return where a result is kept, if it is."""
        return Place(results_bucket(etl, uid), recipe.result(bucket, self._environment))

    @asynccontextmanager
    async def turn(self, place: Place, seconds: float, gone: Gone | None) -> AsyncIterator[Result | None]:
        """Return the result that is kept; or None, and then it is the caller's turn to compute and keep it.

        Others who ask for it wait until the caller is done, but no longer than ``seconds``. Raises ClientGoneError when
        the client goes away meanwhile.
        """
        assert self._cache is not None
        loop, watch = asyncio.get_running_loop(), _Watch(gone)
        deadline, (pause, longest) = loop.time() + seconds, _PAUSE_SECONDS
        with self._cache.lock(place.bucket, place.name) as lock:
            try:
                while not lock.try_acquire() and loop.time() < deadline:
                    await watch.pause(pause)
                    pause = min(longest, 1.5 * pause)
                found = await self.find(place)
            finally:
                watch.end()
            yield found

    async def keep(self, place: Place, result: Result) -> None:
        """Keep a result. Where that fails it is computed again another time, and nothing else is lost."""
        cache = self._cache
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

    async def find(self, place: Place) -> Result | None:
        """Return the result that is kept, if there is one; verified."""
        assert self._cache is not None
        try:
            copy = self._cache.open(place.bucket, place.name)
            if copy is None:
                return None
            with copy:
                size = copy.info.size
                if size > _COPY_BYTES:
                    return Result(size, None, await self._copied(copy))
                data = copy.read_cached(0, size)
                if data is None:
                    data = await asyncio.get_running_loop().run_in_executor(self._threads, copy.read, 0, size)
                return Result(size, data)
        except ObjectDamagedError as error:
            _log.warning("a result of etl job %s is computed again: %s", place.bucket.name, error.message)
            await asyncio.get_running_loop().run_in_executor(
                self._threads, self._cache.forget, place.bucket, place.name
            )
            return None

    async def _copied(self, copy: OpenedCopy | KeptCopy) -> int:
        """Return a descriptor with a copy of a large result, verified before anybody gets any of it."""
        memory = self._limits.memfd_input_bytes_max
        return await exchange.in_thread(self._threads, exchange.input_from_reading, copy, memory, self._spool)

    async def kept(self) -> dict[str, tuple[int, int]]:
        """Return how many results there are of each ETL, by name, and their bytes."""
        if self._settings is None or not os.path.isdir(self.directory):
            return {}
        await self.open()
        assert self._cache is not None
        return await asyncio.get_running_loop().run_in_executor(self._threads, _kept, self._cache)

    def capacity(self) -> int:
        """Return how many bytes of results may be kept; 0 as long as this process has not looked for any."""
        return self._cache.capacity() if self._cache is not None else 0

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


def _store(cache: Cache | None, place: Place, size: int, data: bytes | None, descriptor: int) -> Future[ObjectInfo]:
    """Begin to commit a result; closes ``descriptor``. Blocks."""
    assert cache is not None
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

"""The kept results of transforms (results.py), as the controller uses them."""

from __future__ import annotations

import asyncio
import dataclasses
import os

from ..storage.cache.cache import Cache
from ..storage.cache.facts import CacheBucket
from ..storage.cache.settings import CacheSettings
from .results import results_bucket


class ResultsKeeper:
    """Says how many results there are of an ETL, and removes those of one that is gone."""

    def __init__(self, directory: str, settings: CacheSettings | None) -> None:
        self._directory = directory
        self._settings = settings
        self._cache: Cache | None = None
        self._turn = asyncio.Lock()

    @property
    def are_kept(self) -> bool:
        """Whether this store keeps results."""
        return self._settings is not None

    async def usage(self, etl: str, uid: int) -> tuple[int, int]:
        """Return how many results of an ETL there are, and their bytes."""
        async with self._turn:
            return await asyncio.to_thread(self._usage, results_bucket(etl, uid))

    async def keep_only(self, etls: set[tuple[str, int]]) -> None:
        """Have no results but those of these ETLs, by name and uid; also of those that went unnoticed before."""
        async with self._turn:
            await asyncio.to_thread(self._keep_only, {results_bucket(*etl) for etl in etls})

    def _opened(self) -> Cache | None:
        if self._cache is None and self._settings is not None and os.path.isdir(self._directory):
            self._cache = Cache(self._directory, dataclasses.replace(self._settings, hot_bytes_max=0))
        return self._cache

    def _usage(self, bucket: CacheBucket) -> tuple[int, int]:
        cache = self._opened()
        if cache is None:
            return 0, 0
        usage = cache.usage(bucket)
        return usage.objects, usage.bytes

    def _keep_only(self, buckets: set[CacheBucket]) -> None:
        cache = self._opened()
        for bucket in cache.buckets() if cache is not None else []:
            if bucket not in buckets:
                cache.drop_bucket(bucket)  # type: ignore[union-attr]

    def close(self) -> None:
        """Give everything back."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

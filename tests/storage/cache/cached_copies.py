"""Short ways to make copies, for several test files."""

from __future__ import annotations

from aistore.model.objects import ObjectInfo, PutOptions
from aistore.storage.cache.cache import Cache
from aistore.storage.cache.facts import CacheBucket, CachedFacts

LAKE = CacheBucket("aws", "lake", "7")


def facts_for(version: int, stamp: int = 1, **custom: str) -> CachedFacts:
    return CachedFacts(f'"etag-{version}"', version, 1_000 + version, stamp, custom)


def fill(
    cache: Cache, name: str, data: bytes, facts: CachedFacts | None = None, bucket: CacheBucket = LAKE
) -> ObjectInfo:
    staging = cache.stage(bucket, name, PutOptions(size=len(data)))
    staging.write(data)
    return staging.commit(facts or facts_for(1)).result()


def content(cache: Cache, name: str, bucket: CacheBucket = LAKE) -> bytes | None:
    reading = cache.open(bucket, name)
    if reading is None:
        return None
    with reading:
        return reading.read(0, reading.info.size)

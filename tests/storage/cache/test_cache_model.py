"""Random histories of two instances of a cache, with eviction, against a dictionary."""

from __future__ import annotations

import random
import shutil
import tempfile

import xxhash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aistore.errors import OutOfSpaceError
from aistore.model.objects import Checksum, ListOptions, ObjectInfo, PutOptions
from aistore.storage.cache.cache import Cache
from aistore.storage.cache.facts import CacheBucket, CachedFacts
from aistore.storage.cache.keeper import CacheKeeper
from aistore.storage.cache.settings import CacheSettings, Pin

CAPACITY = 9_000
SETTINGS = CacheSettings(
    capacity_bytes=CAPACITY, high_percent=60, low_percent=40, pinned=(Pin("aws", "b", "a"),), reserve_bytes=0,
    staged_in_memory_max=1_500,
)  # fmt: skip
BUCKETS = [CacheBucket("aws", "b", "1"), CacheBucket("aws", "b", "2"), CacheBucket("ais", "b", "1")]
NAMES = ["a", "a/b", "b", "b/ü", "c"]

instances = st.integers(0, 1)
buckets = st.sampled_from(BUCKETS)
names = st.sampled_from(NAMES)
sizes = st.sampled_from([0, 256, 257, 1_400, 1_600, 3_000])
customs = st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2)


class CacheHistory(RuleBasedStateMachine):
    """What is in the model is in the cache, but for what eviction took; nothing else is."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.caches = [Cache(self.directory, SETTINGS), Cache(self.directory, SETTINGS)]
        self.keeper = CacheKeeper(self.directory, SETTINGS)
        self.now = 0.0
        self.model: dict[tuple[CacheBucket, str], tuple[bytes, CachedFacts]] = {}
        self.version = 0

    @rule(at=instances, bucket=buckets, name=names, size=sizes, custom=customs, whole=st.booleans())
    def fill(self, at: int, bucket: CacheBucket, name: str, size: int, custom: dict[str, str], whole: bool) -> None:
        self.version += 1
        data = random.Random(self.version).randbytes(size)
        facts = CachedFacts(f'"{self.version}"', self.version, self.version, 1, custom)
        held = self.held()
        try:
            staging = self.caches[at].stage(bucket, name, PutOptions(size=size))
        except OutOfSpaceError:
            assert held + size > CAPACITY
            return
        for piece in [data] if whole else [data[:100], data[100:]]:
            staging.write(piece)
        if not whole:
            assert staging.finish() == (size, Checksum("xxhash2", xxhash.xxh64_hexdigest(data)))
            assert bytes(memoryview(staging.buffer())) == data
        info = staging.commit(facts).result()
        assert (info.bucket, info.name, info.size, info.version, info.custom) == ("b", name, size, self.version, custom)
        self.model[bucket, name] = data, facts

    @rule(at=instances, bucket=buckets)
    def crowd(self, at: int, bucket: CacheBucket) -> None:
        for name in NAMES:
            self.fill(at, bucket, name, 1_400, {}, whole=True)

    @rule(at=instances, bucket=buckets, name=names)
    def abort(self, at: int, bucket: CacheBucket, name: str) -> None:
        try:
            staging = self.caches[at].stage(bucket, name, PutOptions())
        except OutOfSpaceError:
            return
        staging.write(bytes(2_000))
        staging.abort()

    @rule(at=instances, bucket=buckets, name=names)
    def forget(self, at: int, bucket: CacheBucket, name: str) -> None:
        assert self.caches[at].forget(bucket, name) == ((bucket, name) in self.model)
        self.model.pop((bucket, name), None)

    @rule(at=instances, bucket=buckets, name=names, stamp=st.integers(0, 5), version_off=st.sampled_from([0, 0, 1]))
    def restamp(self, at: int, bucket: CacheBucket, name: str, stamp: int, version_off: int) -> None:
        known = self.model.get((bucket, name))
        facts = known[1] if known else CachedFacts("", 0, 0, 0)
        new = CachedFacts(facts.etag, facts.version + version_off, facts.modified_ns, stamp, {"re": str(stamp)})
        done = self.caches[at].restamp(bucket, name, new).result()
        assert done == (known is not None and not version_off)
        if known and done:
            new = CachedFacts(new.etag, new.version, new.modified_ns, max(stamp, facts.stamp), new.custom)
            self.model[bucket, name] = known[0], new

    @rule(at=instances, bucket=buckets)
    def drop(self, at: int, bucket: CacheBucket) -> None:
        self.caches[at].drop_bucket(bucket)
        self.model = {key: value for key, value in self.model.items() if key[0] != bucket}

    @rule()
    def evict(self) -> None:
        before = self.held()
        self.now += 61  # what is pinned is counted each minute
        while self.keeper.step(self.now):
            pass
        present = {(bucket, info.name) for bucket in BUCKETS for info in self.entries(bucket)}
        assert present <= set(self.model)
        pinned = {key for key in self.model if key[0].provider == "aws" and key[1].startswith("a")}
        assert pinned <= present
        self.model = {key: value for key, value in self.model.items() if key in present}
        pinned_bytes = sum(len(self.model[key][0]) for key in pinned)
        assert self.caches[0].usage().pinned_bytes == pinned_bytes
        if before > CAPACITY * 0.6:
            assert self.held() <= max(CAPACITY * 0.4, pinned_bytes)
        assert before - self.held() < 3_000 + max(0, before - CAPACITY * 0.4)  # wanted room may be 3,000 bytes

    @rule(at=instances)
    def reopen(self, at: int) -> None:
        self.caches[at].close()
        self.caches[at] = Cache(self.directory, SETTINGS)

    @rule(at=instances, bucket=buckets, name=names)
    def read(self, at: int, bucket: CacheBucket, name: str) -> None:
        cache = self.caches[at]
        known = self.model.get((bucket, name))
        kept = cache.kept(bucket, name)
        if kept is not None:
            assert known == (kept.read(0, kept.info.size), kept.facts)
        assert cache.facts(bucket, name) == (known[1] if known else None)
        reading = cache.open(bucket, name)
        assert (reading is None) == (known is None)
        if reading is not None and known is not None:
            with reading:
                assert (reading.read(0, reading.info.size), reading.facts) == known
                assert reading.info.custom == known[1].custom

    @invariant()
    def totals(self) -> None:
        assert self.caches[0].usage()[:2] == (len(self.model), self.held())

    @rule(bucket=buckets)
    def listing(self, bucket: CacheBucket) -> None:
        expected = sorted((name.encode(), len(data), facts.version, facts.custom)
                          for (where, name), (data, facts) in self.model.items() if where == bucket)  # fmt: skip
        found = [(info.name.encode(), info.size, info.version, info.custom) for info in self.entries(bucket)]
        assert found == expected

    def held(self) -> int:
        return sum(len(data) for data, _ in self.model.values())

    def entries(self, bucket: CacheBucket) -> list[ObjectInfo]:
        return self.caches[1].list(bucket, ListOptions()).entries

    def teardown(self) -> None:
        for one in (*self.caches, self.keeper):
            one.close()
        shutil.rmtree(self.directory)


CacheHistory.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestCacheHistory = CacheHistory.TestCase

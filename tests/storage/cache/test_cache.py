"""What one process sees of a cache: copies with facts, staging, forgetting, readings as every engine's."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable

import pytest
import xxhash
from cached_copies import LAKE, content, facts_for, fill

from aistore.errors import (
    BadRequestError,
    BucketNotFoundError,
    ChecksumMismatchError,
    ConflictError,
    InternalError,
    ObjectDamagedError,
    OutOfSpaceError,
)
from aistore.model.objects import Checksum, ListOptions, PutOptions
from aistore.storage.arguments import CUSTOM_BYTES_MAX
from aistore.storage.cache.cache import Cache
from aistore.storage.cache.facts import CacheBucket, CachedFacts, encode_facts
from aistore.storage.cache.layout import open_cache_directory, own_cache, refuse_cache_as_data
from aistore.storage.cache.settings import CacheSettings, parse_capacity
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.layout import open_directory
from aistore.storage.verified import VerifiedRead

#: In the row; in memory and then a file; in a file while it comes.
SIZES = [0, 5, 256, 257, 20_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_has_the_bytes_and_the_facts_of_the_store(cache: Cache, size: int) -> None:
    data = random.Random(size).randbytes(size)
    facts = facts_for(41, stamp=3, color="red", f="not ours")
    info = fill(cache, "a/ü", data, facts)
    assert (info.bucket, info.name, info.size, info.version, info.created_ns) == ("lake", "a/ü", size, 41, 1_041)
    assert info.checksum == Checksum("xxhash2", xxhash.xxh64_hexdigest(data))
    assert info.custom == {"color": "red", "f": "not ours"}
    for _ in range(2):  # from the disk, then from memory
        reading = cache.open(LAKE, "a/ü")
        assert reading is not None
        assert (reading.info, reading.facts, reading.path) == (info, facts, None)
        assert reading.read(0, size) == data
        assert reading.read(size // 3, size // 2) == data[size // 3 : size // 3 + size // 2]
        assert reading.read_cached(0, min(size, 7)) in (None, data[:7])
        reading.close()
        reading.close()
    assert cache.facts(LAKE, "a/ü") == facts
    assert cache.usage()[:2] == (1, size)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_staged_can_be_sent_before_it_is_committed(cache: Cache, size: int) -> None:
    data = random.Random(size).randbytes(size)
    expected = (Checksum("xxhash2", xxhash.xxh64_hexdigest(data)),)
    staging = cache.stage(LAKE, "n", PutOptions(expected=expected))
    for start in range(0, size, 300_000):
        staging.write(data[start : start + 300_000])
    assert staging.finish() == (size, expected[0])
    assert staging.finish() == (size, expected[0])
    buffer = staging.buffer()
    assert isinstance(buffer, mmap.mmap) == (size > 1 << 20)
    assert bytes(memoryview(buffer)) == data
    assert cache.open(LAKE, "n") is None
    with pytest.raises(InternalError):
        staging.write(b"more")
    staging.commit(facts_for(1)).result()
    assert content(cache, "n") == data
    cache.forget(LAKE, "n")
    assert bytes(memoryview(buffer)) == data


def test_bytes_that_were_not_announced_are_refused_before_anything_is_sent(cache: Cache) -> None:
    for size in (5, 3_000_000):
        staging = cache.stage(LAKE, "n", PutOptions(expected=(Checksum("md5", "0" * 32),)))
        staging.write(bytes(size))
        with pytest.raises(ChecksumMismatchError, match=r"^s3://lake/n: the bytes received have md5 "):
            staging.finish()
        with pytest.raises(InternalError):
            staging.buffer()
        staging.abort()
        assert cache.open(LAKE, "n") is None
    assert count_files(cache) == 0


def test_an_aborted_copy_leaves_nothing(cache: Cache) -> None:
    fill(cache, "n", b"old")
    staging = cache.stage(LAKE, "n", PutOptions())
    staging.write(bytes(3_000_000))
    staging.finish()
    staging.abort()
    staging.abort()
    assert content(cache, "n") == b"old"
    assert count_files(cache) == 0


def test_a_forgotten_copy_is_gone_everywhere(cache: Cache, directory: str) -> None:
    fill(cache, "n", bytes(20_000))
    with Cache(directory) as other:
        for one in (cache, other):
            assert content(one, "n") == bytes(20_000)
            assert one.kept(LAKE, "n") is not None
        assert other.forget(LAKE, "n")
        for one in (cache, other):
            assert one.kept(LAKE, "n") is None
            assert one.open(LAKE, "n") is None
            assert one.facts(LAKE, "n") is None
            assert not one.forget(LAKE, "n")


def test_an_opened_copy_outlives_its_name(cache: Cache) -> None:
    fill(cache, "n", b"1" * 3_000_000)
    reading = cache.open(LAKE, "n")
    assert reading is not None
    fill(cache, "n", b"2" * 3_000_000, facts_for(2))
    cache.forget(LAKE, "n")
    read = VerifiedRead(reading)
    pieces = [read(start, 1_000_000) for start in range(0, 3_000_000, 1_000_000)]
    assert b"".join(pieces) == b"1" * 3_000_000
    assert reading.facts == facts_for(1)


def test_a_kept_copy_is_one_for_all_and_new_when_it_changes(cache: Cache) -> None:
    fill(cache, "n", bytes(1_000))
    assert cache.kept(LAKE, "n") is None
    content(cache, "n")
    kept = cache.kept(LAKE, "n")
    assert kept is not None
    kept.replies["reply"] = b"ready"
    assert cache.kept(LAKE, "n") is kept
    assert cache.open(LAKE, "n") is kept
    assert cache.restamp(LAKE, "n", facts_for(1, stamp=5)).result()
    assert cache.kept(LAKE, "n") is None
    content(cache, "n")
    kept = cache.kept(LAKE, "n")
    assert kept is not None
    assert (kept.facts.stamp, kept.replies) == (5, {})


def test_a_stamp_is_for_the_copy_it_was_made_for(cache: Cache) -> None:
    assert not cache.restamp(LAKE, "n", facts_for(1)).result()
    fill(cache, "n", b"1", facts_for(1, stamp=4))
    assert cache.restamp(LAKE, "n", facts_for(1, stamp=6, a="b")).result()
    assert cache.facts(LAKE, "n") == facts_for(1, stamp=6, a="b")
    assert cache.restamp(LAKE, "n", facts_for(1, stamp=5)).result()
    assert cache.facts(LAKE, "n") == facts_for(1, stamp=6)
    assert not cache.restamp(LAKE, "n", facts_for(2, stamp=9)).result()
    for same_bytes in (CachedFacts('"etag-1"', 2, 1_001, 9), CachedFacts('"etag-1"', 1, 1_002, 9)):
        assert not cache.restamp(LAKE, "n", same_bytes).result()
    assert cache.facts(LAKE, "n") == facts_for(1, stamp=6)


def test_stamps_of_another_run_of_the_machine_are_void(cache: Cache) -> None:
    fill(cache, "n", b"1", facts_for(1, stamp=4))
    custom = encode_facts(facts_for(1, stamp=4), "another boot")
    cache._engine.set_custom(LAKE.key, "n", custom, replace=True).result()
    assert cache.facts(LAKE, "n") == facts_for(1, stamp=0)
    assert cache.restamp(LAKE, "n", facts_for(1, stamp=2)).result()
    assert cache.facts(LAKE, "n") == facts_for(1, stamp=2)


def test_a_bucket_made_again_finds_nothing_old(cache: Cache) -> None:
    again = CacheBucket("aws", "lake", "8")
    fill(cache, "n", b"old")
    assert cache.open(again, "n") is None
    assert cache.list(again, ListOptions()).entries == []
    fill(cache, "n", b"new", bucket=again)
    assert (content(cache, "n"), content(cache, "n", again)) == (b"old", b"new")
    assert sorted(cache.buckets()) == [LAKE, again]
    staging = cache.stage(LAKE, "late", PutOptions())
    assert cache.drop_bucket(LAKE)
    assert not cache.drop_bucket(LAKE)
    assert (content(cache, "n"), content(cache, "n", again)) == (None, b"new")
    with pytest.raises(BucketNotFoundError):
        staging.commit(facts_for(1)).result()
    assert cache.usage(again)[:2] == (1, 3)


def test_a_listing_has_what_clients_are_told(cache: Cache) -> None:
    for number in range(30):
        fill(cache, f"p/{number:02}", bytes(number), facts_for(number, n=str(number)))
    page = cache.list(LAKE, ListOptions("p/", "p/09", 10))
    assert [entry.name for entry in page.entries] == [f"p/{number}" for number in range(10, 20)]
    assert page.continuation == "p/19"
    assert [(entry.bucket, entry.version, entry.custom) for entry in page.entries][3] == ("lake", 13, {"n": "13"})


def test_metadata_of_the_largest_size_fits(cache: Cache) -> None:
    custom = {chr(0x21 + number % 90) + chr(0x21 + number // 90): "" for number in range(CUSTOM_BYTES_MAX // 2)}
    facts = CachedFacts('"' + "e" * 1_000 + '"', 1, 1, 1, custom)
    for size in (10, 10_000):
        fill(cache, "n", bytes(size), facts)
        assert cache.facts(LAKE, "n") == facts
        assert cache.restamp(LAKE, "n", facts).result()
    with pytest.raises(BadRequestError, match="ETag"):
        fill(cache, "n", b"", CachedFacts("e" * 2_000, 1, 1, 1))


def damage_byte(path: str) -> None:
    with open(path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff")


@pytest.mark.parametrize("harm", [damage_byte, os.unlink])
def test_a_damaged_copy_is_noticed_and_can_be_fetched_again(cache: Cache, harm: Callable[[str], None]) -> None:
    fill(cache, "n", bytes(20_000))
    (path,) = files(cache)
    harm(path)
    reading = cache.open(LAKE, "n")
    if harm is damage_byte:
        assert reading is not None
        with pytest.raises(ObjectDamagedError):
            reading.read(0, 20_000)
        assert reading.suspected()
        cache.forget(LAKE, "n")
    assert cache.open(LAKE, "n") is None
    fill(cache, "n", bytes(20_000))
    assert content(cache, "n") == bytes(20_000)


def test_a_full_cache_says_so_and_keeps_what_it_has(directory: str) -> None:
    with Cache(directory, CacheSettings(capacity_bytes=100_000)) as cache:
        for number in range(5):
            fill(cache, str(number), bytes(20_000))
        with pytest.raises(OutOfSpaceError, match=r"s3://lake/n: the cache is full with 100000 of 100000 bytes"):
            cache.stage(LAKE, "n", PutOptions(size=1))
        assert cache.recency.wanted() == 1
        with pytest.raises(OutOfSpaceError):
            cache.stage(LAKE, "n", PutOptions(size=100_001))
        assert cache.recency.wanted() == 0  # nothing that could be evicted would make room for it
        cache.forget(LAKE, "0")
        fill(cache, "n", bytes(20_000))


def test_totals_follow_every_change(cache: Cache) -> None:
    rng = random.Random(1)
    sizes: dict[str, int] = {}
    for _ in range(300):
        name = str(rng.randrange(20))
        if rng.random() < 0.3:
            cache.forget(LAKE, name)
            sizes.pop(name, None)
        else:
            sizes[name] = rng.randrange(600)
            fill(cache, name, bytes(sizes[name]))
        assert cache.usage()[:2] == (len(sizes), sum(sizes.values()))


def test_a_cache_is_no_data_directory_and_the_reverse(directory: str, tmp_path: object) -> None:
    data = f"{tmp_path}/data"
    open_directory(data)
    with pytest.raises(ConflictError, match="is the data directory of a store and cannot be a cache"):
        Cache(data)
    Cache(directory).close()
    with pytest.raises(ConflictError, match="is a cache of a store and cannot be a data directory"):
        LocalEngine(directory)
    for part in (directory, f"{directory}/objects", f"{directory}/new"):
        with pytest.raises(ConflictError, match=f"{directory} is a cache of a store"):
            refuse_cache_as_data(part)
    refuse_cache_as_data(data)
    os.makedirs(f"{tmp_path}/home/photos")
    with pytest.raises(ConflictError, match="not empty and not a cache of this store: it has photos"):
        Cache(f"{tmp_path}/home")


def test_a_cache_of_a_newer_format_is_left_alone(directory: str) -> None:
    open_cache_directory(directory)
    with open(f"{directory}/cache.json", "w", encoding="utf-8") as file:
        file.write('{"kind": "pyaistore cache directory", "format": 2}')
    with pytest.raises(ConflictError, match="has cache format 2"):
        Cache(directory)


def test_a_cache_has_one_owner(directory: str) -> None:
    owner = own_cache(directory)
    with pytest.raises(ConflictError, match="in use by process"):
        own_cache(directory)
    owner.close()
    own_cache(directory).close()


def test_capacity_is_written_as_bytes_or_as_a_share() -> None:
    assert parse_capacity("80%").capacity(1_000) == 800
    assert parse_capacity("500GiB").capacity(1) == 500 << 30
    assert parse_capacity("2 TB").capacity(1) == 2 * 10**12
    assert parse_capacity("1.5k").capacity(1) == 1_500
    assert parse_capacity("4096").capacity(1) == 4_096
    for text in ("", "0", "101%", "0%", "GiB", "-1", "five", "1 PB"):
        with pytest.raises(BadRequestError):
            parse_capacity(text)


def files(cache: Cache) -> list[str]:
    return [
        os.path.join(where, name) for where, _, names in os.walk(f"{cache.places.objects}/mp0/data") for name in names
    ]


def count_files(cache: Cache) -> int:
    return len(files(cache))

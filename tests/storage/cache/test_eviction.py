"""Bounds of a cache: what goes, what stays, when, and what becomes of its space."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from cached_copies import LAKE, content, facts_for, fill

from aistore.errors import OutOfSpaceError
from aistore.model.objects import ListOptions, PutOptions
from aistore.observe.counters import COUNTERS
from aistore.observe.layout import EVICTED, EVICTED_BYTES
from aistore.storage.cache.cache import Cache
from aistore.storage.cache.facts import CacheBucket
from aistore.storage.cache.keeper import CacheKeeper, recover_cache
from aistore.storage.cache.layout import own_cache
from aistore.storage.cache.recency import TICK_MAX, Recency, slot_of
from aistore.storage.cache.settings import CacheSettings, Pin

OBJECT = 10_000
#: One hundred objects; eviction begins above 90 and ends at 50.
SETTINGS = CacheSettings(capacity_bytes=100 * OBJECT, high_percent=90, low_percent=50, reserve_bytes=0)


class Node:
    """A cache and its keeper, with a clock of their own."""

    def __init__(self, directory: str, settings: CacheSettings = SETTINGS) -> None:
        self.cache = Cache(directory, settings)
        self.keeper = CacheKeeper(directory, settings)
        self.now = 1_000.0

    def fill(self, names: range) -> None:
        for name in names:
            fill(self.cache, f"{name:04}", bytes(OBJECT), facts_for(name))

    def keep(self, seconds: float = 1.0) -> None:
        """Let time pass and work be done."""
        self.now += seconds
        while self.keeper.step(self.now):
            pass

    def names(self) -> list[int]:
        return [int(info.name) for info in self.cache.list(LAKE, ListOptions()).entries]

    def close(self) -> None:
        self.keeper.close()
        self.cache.close()


@pytest.fixture
def node(directory: str) -> Iterator[Node]:
    made = Node(directory)
    yield made
    made.close()


def test_the_least_recently_used_go(node: Node) -> None:
    for start in range(0, 90, 10):
        node.fill(range(start, start + 10))
        node.keep(60)
    assert node.names() == list(range(90))
    for name in range(10):  # the oldest, but used again
        assert content(node.cache, f"{name:04}") == bytes(OBJECT)
    node.keep(60)
    before = COUNTERS.words[EVICTED], COUNTERS.words[EVICTED_BYTES]
    node.fill(range(90, 92))
    node.keep()
    assert node.names() == [*range(10), *range(52, 92)]
    assert node.cache.usage()[:2] == (50, 50 * OBJECT)
    assert (COUNTERS.words[EVICTED] - before[0], COUNTERS.words[EVICTED_BYTES] - before[1]) == (42, 42 * OBJECT)
    node.keep()
    assert len(node.names()) == 50


def test_what_is_read_from_memory_is_used(node: Node) -> None:
    node.fill(range(60))
    for name in range(10):
        content(node.cache, f"{name:04}")
    node.keep(60)
    for name in range(10):
        assert node.cache.kept(LAKE, f"{name:04}") is not None
    node.fill(range(60, 92))
    node.keep(60)
    assert set(range(10)) <= set(node.names())


def test_a_run_over_one_tick_goes_on_where_the_last_one_ended(node: Node) -> None:
    node.fill(range(92))
    node.keep()
    assert node.names() == list(range(42, 92))
    node.fill(range(42))
    ticks = node.cache.recency.ticks
    for name in range(92):
        ticks[slot_of(LAKE.key, f"{name:04}")] = 1
    node.keep()
    assert node.names() == [*range(42), *range(84, 92)]


def test_pinned_and_locked_copies_stay(directory: str) -> None:
    pins = (Pin("aws", "lake", "000"), Pin("aws", "lake", "0001"), Pin("aws", "pond", ""), Pin("gcp", "lake", ""))
    with ExitStack() as held:
        node = Node(directory, dataclasses.replace(SETTINGS, pinned=pins))
        held.callback(node.close)
        node.fill(range(92))
        lock = node.cache.lock(LAKE, "0020")
        assert lock.try_acquire()
        node.keep()
        assert node.names() == [*range(10), 20, *range(53, 92)]
        usage = node.cache.usage()
        assert (usage.bytes, usage.pinned_bytes) == (50 * OBJECT, 10 * OBJECT)
        lock.release()


def test_a_cache_full_of_pinned_copies_refuses_more_and_ends_its_runs(directory: str) -> None:
    with ExitStack() as held:
        node = Node(directory, dataclasses.replace(SETTINGS, pinned=(Pin("aws", "lake"),)))
        held.callback(node.close)
        node.fill(range(100))
        for _ in range(3):
            node.keep()
        with pytest.raises(OutOfSpaceError, match="1000000 of them pinned"):
            node.cache.stage(LAKE, "n", PutOptions(size=1))
        assert len(node.names()) == 100
        node.keeper.pin(())
        node.keep(60)
        assert len(node.names()) == 50
        assert node.cache.usage().pinned_bytes == 0


def test_a_refused_object_gets_its_room(node: Node) -> None:
    node.fill(range(80))
    with pytest.raises(OutOfSpaceError):
        node.cache.stage(LAKE, "big", PutOptions(size=30 * OBJECT))
    node.keep()
    fill(node.cache, "9999", bytes(30 * OBJECT))
    assert node.names() == [*range(60, 80), 9999]


def test_an_evicted_copy_can_be_read_by_who_has_it_open(node: Node) -> None:
    fill(node.cache, "0000", b"x" * OBJECT)
    reading = node.cache.open(LAKE, "0000")
    assert reading is not None
    node.keep(60)
    node.fill(range(1, 100))
    for _ in range(5):
        node.keep()
    assert 0 not in node.names()
    assert reading.read(0, OBJECT) == b"x" * OBJECT
    reading.close()


def test_space_comes_back_within_seconds(node: Node) -> None:
    node.fill(range(92))
    for _ in range(4):
        node.keep()
    assert sum(len(names) for _, _, names in os.walk(f"{node.cache.places.objects}/mp0/data")) == 50
    node.cache.drop_bucket(LAKE)
    assert node.cache.usage()[:2] == (0, 0)
    for _ in range(4):
        node.keep()
    assert sum(len(names) for _, _, names in os.walk(f"{node.cache.places.objects}/mp0/data")) == 0


def test_removed_buckets_do_not_push_others_out(node: Node) -> None:
    other = CacheBucket("gcp", "pond", "3")
    for name in range(60):
        fill(node.cache, f"{name:04}", bytes(OBJECT), bucket=other)
    node.fill(range(40))
    node.cache.drop_bucket(other)
    node.keep()
    assert len(node.names()) == 40


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_others_fill_is_given_way_to(tmp_path: object) -> None:
    disk = f"{tmp_path}/disk"
    os.mkdir(disk)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a file system here")
    settings = CacheSettings(capacity_percent=100, reserve_bytes=2 << 20)
    try:
        with ExitStack() as held:
            node = Node(f"{disk}/cache", settings)
            held.callback(node.close)
            for name in range(30):
                fill(node.cache, f"{name:04}", bytes(1 << 20))
            space = os.statvfs(disk)
            with open(f"{disk}/others", "wb") as file:
                file.write(bytes(space.f_bavail * space.f_frsize - (1 << 20)))
            with pytest.raises(OutOfSpaceError, match="would stay free"):
                node.cache.stage(LAKE, "n", PutOptions(size=1 << 20))
            for _ in range(12):
                node.keep()
            kept = len(node.names())
            assert 15 < kept < 30
            fill(node.cache, "9999", bytes(1 << 20))
            for _ in range(12):
                node.keep()
            assert kept - 3 < len(node.names()) < 30  # no more than was needed
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_ticks_go_on_while_the_cache_is_used(tmp_path: object) -> None:
    with Recency(f"{tmp_path}/recency") as recency, Recency(f"{tmp_path}/recency") as other:
        old, slot = slot_of("b", "old"), slot_of("b", "n")
        assert not recency.advance()
        other.touch(old)
        for _ in range(TICK_MAX - 1):
            other.touch(slot)
            assert recency.advance()
        assert not recency.advance()
        assert (other.now, recency.ticks[old], recency.ticks[slot]) == (TICK_MAX, 1, TICK_MAX - 1)
        other.touch(slot)
        assert recency.advance()
        assert (other.now, recency.ticks[old], recency.ticks[slot]) == (TICK_MAX // 2 + 1, 0, TICK_MAX // 2)


def test_slots_are_spread() -> None:
    slots = {slot_of("b", f"train/{number:08}.jpg") for number in range(50_000)}
    assert len(slots) > 49_000


def test_a_cache_whose_index_is_gone_is_begun_anew(directory: str) -> None:
    owner = own_cache(directory)
    recover_cache(directory)
    with Cache(directory) as cache:
        fill(cache, "n", bytes(20_000))
    with open(f"{directory}/objects/mp0/index.db", "r+b") as file:
        file.write(b"no database" * 100)
    recover_cache(directory)
    with Cache(directory) as cache:
        assert cache.open(LAKE, "n") is None
        fill(cache, "n", bytes(20_000))
        assert content(cache, "n") == bytes(20_000)
    recover_cache(directory)
    with Cache(directory) as cache:
        assert content(cache, "n") == bytes(20_000)
    owner.close()

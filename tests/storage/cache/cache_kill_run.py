"""Kills processes that work on a cache at random moments, and checks what the others and the next ones find.

``cache_kill_run.py KILLS SEED DIRECTORY`` prints what was done, as JSON. Workers fill, forget, restamp and read, under
the locks of keys, and note in a shared file before and after each step what a key may hold from then on; a keeper
evicts. All are forked from this process, which has everything imported and no threads.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback

from aistore.errors import OutOfSpaceError
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.cache.cache import Cache
from aistore.storage.cache.facts import CacheBucket, CachedFacts
from aistore.storage.cache.keeper import CacheKeeper, recover_cache
from aistore.storage.cache.settings import CacheSettings, Pin

WORKERS = 3
KEYS = 24
BUCKET = CacheBucket("ais", "b", "1")
SIZES = (100, 3_000, 20_000, 70_000)
SETTINGS = CacheSettings(
    capacity_bytes=600_000, high_percent=60, low_percent=40, pinned=(Pin("ais", "b", "00"),), reserve_bytes=0,
    staged_in_memory_max=30_000,
)  # fmt: skip
#: What a key may hold: a version that was (0: surely no other), and one that is being written.
_NOTE = struct.Struct("<QQ")
_COUNTS = ("fills", "forgets", "restamps", "hits", "misses", "refused", "evicted")


def data_of(name: str, version: int) -> bytes:
    size = SIZES[(version * 7 + int(name)) % len(SIZES)]
    return random.Random(f"{name}/{version}").randbytes(16) * (size // 16)


def facts_of(version: int, stamp: int) -> CachedFacts:
    return CachedFacts(f'"{version}"', version, version, stamp, {"version": str(version)})


class Notes:
    """What each key may hold, and how often what was done: a file mapped by all."""

    def __init__(self, path: str) -> None:
        with open(path, "a+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def read(self, key: int) -> tuple[int, int]:
        return _NOTE.unpack_from(self._map, key * _NOTE.size)

    def write(self, key: int, had: int, writing: int = 0) -> None:
        _NOTE.pack_into(self._map, key * _NOTE.size, had, writing)

    def next_version(self) -> int:
        return time.monotonic_ns()  # of one key: it is locked

    def count(self, worker: int, what: str) -> None:
        at = 2048 + 8 * (worker * len(_COUNTS) + _COUNTS.index(what))
        self._map[at : at + 8] = (int.from_bytes(self._map[at : at + 8], "little") + 1).to_bytes(8, "little")

    def counts(self) -> dict[str, int]:
        found = dict.fromkeys(_COUNTS, 0)
        for worker in range(WORKERS + 1):
            for number, what in enumerate(_COUNTS):
                at = 2048 + 8 * (worker * len(_COUNTS) + number)
                found[what] += int.from_bytes(self._map[at : at + 8], "little")
        return found


def check(cache: Cache, name: str, allowed: tuple[int, int] | None) -> bool:
    """Say whether there is a copy; it must be one of a version that is ``allowed``, with the bytes of that version."""
    reading = cache.open(BUCKET, name)
    if reading is None:
        return False
    with reading:
        version = reading.facts.version
        assert allowed is None or version in allowed, f"{name}: version {version} of {allowed}"
        assert reading.facts.etag == f'"{version}"', f"{name}: facts of different versions"
        assert reading.info.custom == {"version": str(version)}, f"{name}: metadata of another version"
        assert reading.read(0, reading.info.size) == data_of(name, version), f"{name}: bytes of another version"
    return True


def work(directory: str, notes: Notes, worker: int, rng: random.Random) -> None:
    cache = Cache(directory, SETTINGS)
    while True:
        key = rng.randrange(KEYS)
        name = f"{key:02}"
        if rng.random() < 0.3:
            notes.count(worker, "hits" if check(cache, name, None) else "misses")
            continue
        with cache.lock(BUCKET, name) as lock:
            while not lock.try_acquire():
                time.sleep(0.001)
            had, writing = notes.read(key)
            notes.count(worker, "hits" if check(cache, name, (had, writing)) else "misses")
            change(cache, notes, worker, key, rng)


def change(cache: Cache, notes: Notes, worker: int, key: int, rng: random.Random) -> None:
    """Do one change of a key that is locked."""
    name = f"{key:02}"
    known = cache.facts(BUCKET, name)
    what = rng.choice(["fill", "fill", "fill", "forget", "restamp"])
    if what == "restamp" and known is not None:
        assert cache.restamp(BUCKET, name, facts_of(known.version, known.stamp + 1)).result()
        after = cache.facts(BUCKET, name)
        assert after is None or after.stamp == known.stamp + 1  # nobody evicts it while it is locked
        assert after is not None, f"{name}: gone while it was locked"
        notes.count(worker, "restamps")
        return
    cache.forget(BUCKET, name)
    notes.write(key, 0)
    assert cache.facts(BUCKET, name) is None
    notes.count(worker, "forgets")
    if what == "fill":
        version = notes.next_version()
        data = data_of(name, version)
        try:
            staging = cache.stage(BUCKET, name, PutOptions(size=len(data)))
            for start in range(0, len(data), 9_000):
                staging.write(data[start : start + 9_000])
            staging.finish()
            assert bytes(memoryview(staging.buffer())) == data
            notes.write(key, 0, version)
            staging.commit(facts_of(version, 1)).result()
        except OutOfSpaceError:
            notes.count(worker, "refused")
            return
        notes.write(key, version)
        notes.count(worker, "fills")


def keep(directory: str, notes: Notes) -> None:
    keeper = CacheKeeper(directory, SETTINGS, tick_seconds=0.02, grace_seconds=0.0)
    now = 0.0
    while True:
        now += 1.0
        if keeper.step(now):
            notes.count(WORKERS, "evicted")
        else:
            time.sleep(0.002)


def start(directory: str, notes: Notes, place: int, seed: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        if place == WORKERS:
            keep(directory, notes)
        else:
            work(directory, notes, place, random.Random(seed))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def check_all(directory: str, notes: Notes) -> None:
    """Clean up as the next owner does, then compare every key with its note."""
    recover_cache(directory)
    with Cache(directory, SETTINGS) as cache:
        present = [name for name in map("{:02}".format, range(KEYS)) if check(cache, name, notes.read(int(name)))]
        page = cache.list(BUCKET, ListOptions())
        assert [info.name for info in page.entries] == present
        assert cache.usage()[:2] == (len(present), sum(info.size for info in page.entries))
        for name in present:
            assert cache.lock(BUCKET, name).try_acquire(), f"{name} is locked by nobody"


def main() -> None:
    kills, seed, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    rng = random.Random(seed)
    notes = Notes(f"{directory}.notes")
    Cache(directory, SETTINGS).close()
    running: dict[int, int] = {}
    done = restarts = 0
    failed = False
    try:
        while done < kills and not failed:
            for place in set(range(WORKERS + 1)) - set(running):
                running[place] = start(directory, notes, place, rng.randrange(1 << 30))
            time.sleep(rng.uniform(0.005, 0.08))
            # Mostly one; at times all at once, as when the store is killed: then its next start cleans up.
            everyone = rng.random() < 0.1
            for place in list(running) if everyone else [rng.randrange(WORKERS + 1)]:
                done += 1
                pid = running.pop(place)
                os.kill(pid, signal.SIGKILL)
                failed |= os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL
            if everyone:
                restarts += 1
                check_all(directory, notes)
    finally:
        for pid in running.values():
            os.kill(pid, signal.SIGKILL)
            failed |= os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL
    check_all(directory, notes)
    print(json.dumps({"kills": done, "restarts": restarts, "seed": seed, **notes.counts()}))
    sys.exit(failed)


if __name__ == "__main__":
    main()

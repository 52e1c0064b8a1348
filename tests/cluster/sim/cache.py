"""The copies that one node keeps, shared by its processes: ``world.Cache`` without a disk.

It outlives its processes, unless the disk is said to be lost. Locks are freed when the process that holds them dies, as
the kernel frees those of the real one. What takes time here can be interrupted by death before or after its effect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aistore.cluster.documents import BucketRecord
from aistore.model.objects import Checksum, ObjectInfo

from .loop import CURRENT, Process

Key = tuple[str, str]


@dataclass(frozen=True)
class Copy:
    """An open copy: ``world.CachedReading``."""

    facts: Any
    data: bytes
    info: ObjectInfo

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data

    def close(self) -> None:
        """Do nothing."""


class Disk:
    """What lies on a node's disk, and who of its processes holds which lock."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.rows: dict[Key, Copy] = {}
        self.full = 0.0  # chance that there is no room
        self.holders: dict[Key, Process] = {}
        self.waiting: dict[Key, list[asyncio.Future[None]]] = {}

    def lose(self) -> None:
        """Forget everything: a new disk."""
        self.rows.clear()

    def evict(self) -> None:
        """Drop some copy, as the controller does when the disk fills."""
        if self.rows:
            del self.rows[self.chance.choice(sorted(self.rows))]

    def try_lock(self, key: Key, process: Process) -> bool:
        """Take a lock if nobody alive has it."""
        if key in self.holders:
            return False
        self.holders[key] = process
        return True

    def unlock(self, key: Key, process: Process) -> None:
        """Give a lock back, and let those who wait try in any order."""
        if self.holders.get(key) is process:
            del self.holders[key]
            waiting = self.waiting.pop(key, [])
            self.chance.shuffle(waiting)
            for one in waiting:
                if not one.done():
                    one.set_result(None)

    def free(self, process: Process) -> None:
        """Free all locks of a process that died."""
        for key in [key for key, holder in self.holders.items() if holder is process]:
            self.unlock(key, process)


class NodeCache:
    """A node's disk as one of its processes uses it."""

    def __init__(self, disk: Disk, clock: Any) -> None:
        self._disk = disk
        self._clock = clock

    async def _work(self) -> None:
        chance = self._disk.chance
        await self._clock.sleep(chance.random() * (0.3 if chance.random() < 0.02 else 0.002))

    def open(self, bucket: BucketRecord, name: str) -> Copy | None:
        """Open a copy."""
        return self._disk.rows.get((bucket.id, name))

    def facts(self, bucket: BucketRecord, name: str) -> Any:
        """Return what is known of a copy."""
        copy = self._disk.rows.get((bucket.id, name))
        return copy.facts if copy else None

    def locked(
        self, bucket: BucketRecord, name: str, seconds: float = float("inf")
    ) -> AbstractAsyncContextManager[bool]:
        """Keep every other process of this node, and every other task, from changing an object meanwhile."""
        return self._hold((bucket.id, name), seconds)

    @asynccontextmanager
    async def _hold(self, key: Key, seconds: float) -> AsyncIterator[bool]:
        process = CURRENT.get()
        assert process is not None
        while not self._disk.try_lock(key, process):
            waiting = asyncio.get_running_loop().create_future()
            self._disk.waiting.setdefault(key, []).append(waiting)
            until = self._clock.now() + seconds
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(waiting, None if seconds == float("inf") else seconds)
            if self._clock.now() >= until:
                yield False
                return
        try:
            yield True
        finally:
            if not process.dead:
                self._disk.unlock(key, process)

    async def forget(self, bucket: BucketRecord, name: str) -> None:
        """Drop a copy."""
        await self._work()
        self._disk.rows.pop((bucket.id, name), None)
        await self._work()

    async def keep(self, bucket: BucketRecord, name: str, staged: Any, facts: Any) -> None:
        """Make what was staged the copy."""
        await self._put(bucket, name, bytes(staged.buffer()), facts)

    async def fill(self, bucket: BucketRecord, name: str, body: Any, facts: Any) -> Copy | None:
        """Make the copy from the store's bytes and open it."""
        return await self._put(bucket, name, body.read(), facts)

    async def fill_whole(self, bucket: BucketRecord, name: str, body: Any, facts: Any) -> None:
        """Make the copy from bytes that are all here."""
        await self._put(bucket, name, body.read(), facts)

    async def _put(self, bucket: BucketRecord, name: str, data: bytes, facts: Any) -> Copy | None:
        key = (bucket.id, name)
        await self._work()
        copy = _copy(bucket, name, data, facts)
        if self._disk.chance.random() < self._disk.full:
            self._disk.rows.pop(key, None)
            return None
        self._disk.rows[key] = copy
        await self._work()
        return copy

    async def restamp(self, bucket: BucketRecord, name: str, facts: Any) -> None:
        """Replace the facts of a copy whose ETag they have."""
        await self._work()
        key = (bucket.id, name)
        copy = self._disk.rows.get(key)
        if copy is not None and copy.facts.etag == facts.etag:
            self._disk.rows[key] = _copy(bucket, name, copy.data, facts)


def _copy(bucket: BucketRecord, name: str, data: bytes, facts: Any) -> Copy:
    checksum = Checksum("none", "")
    info = ObjectInfo(bucket.name, name, len(data), facts.version, checksum, facts.modified_ns, facts.custom)
    return Copy(facts, data, info)

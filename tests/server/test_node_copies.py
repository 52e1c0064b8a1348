"""The cache as a node's event loop uses it: what is cancelled keeps its lock until its thread has ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aistore.cluster.documents import BucketRecord
from aistore.server.node.copies import NodeCache, cache_bucket
from aistore.storage.cache.cache import Cache
from aistore.storage.cache.facts import CachedFacts
from aistore.storage.objectstore.contract import StoredInfo

RECORD = BucketRecord("ais", "b", "1", 0)
FACTS = CachedFacts('"1"', 1, 1, 1)


class SlowBody:
    """A store's bytes, the second half of which comes when ``go`` is set."""

    def __init__(self) -> None:
        self.info = StoredInfo("n", 8, '"1"', 1, {})
        self.start, self.length = 0, 8
        self.half = threading.Event()
        self.go = threading.Event()

    def chunks(self) -> Iterator[bytes]:
        yield b"half"
        self.half.set()
        assert self.go.wait(30)
        yield b"full"

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def close(self) -> None: ...

    def __enter__(self) -> SlowBody:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("cancellations", [1, 3])
def test_a_cancelled_fill_keeps_its_lock_until_it_has_ended(tmp_path: Path, cancellations: int) -> None:
    async def run() -> None:
        body = SlowBody()

        async def fill() -> None:
            async with copies.locked(RECORD, "n"):
                await copies.fill(RECORD, "n", body, FACTS)

        filling = asyncio.ensure_future(fill())
        await asyncio.to_thread(body.half.wait)
        for _ in range(cancellations):
            filling.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
        other = cache.lock(cache_bucket(RECORD), "n")
        assert not other.try_acquire()
        body.go.set()
        with pytest.raises(asyncio.CancelledError):
            await filling
        assert cache.facts(cache_bucket(RECORD), "n") == FACTS
        assert other.try_acquire()
        other.release()

    with ThreadPoolExecutor(2) as threads, Cache(str(tmp_path / "cache")) as cache:
        copies = NodeCache(threads)
        copies.use(cache)
        asyncio.run(run())

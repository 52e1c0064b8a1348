"""The simulator's own parts: virtual time, processes that stop, a network that loses, a store that keeps its word."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from sim.loop import Clock, Process, StuckError, VirtualLoop
from sim.network import STORE, Network, Weather
from sim.store import ObjectStore, StoreClient

from aistore.errors import AmbiguousWriteError, BackendUnavailableError, StaleConditionError, StoredNotFoundError
from aistore.storage.objectstore.contract import ABSENT


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    assert loop.unhandled == []
    loop.end()


@pytest.fixture
def network(loop: VirtualLoop) -> Network:
    return Network(loop, random.Random(1))


def test_sleeping_takes_no_time_and_is_ordered(loop: VirtualLoop) -> None:
    seen: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append(f"{name} {loop.now:g}")

    async def both() -> None:
        await asyncio.gather(sleeper("late", 3600), sleeper("early", 10))

    loop.run_until_complete(both())
    assert seen == ["early 10", "late 3600"]


def test_each_process_has_its_own_clock(loop: VirtualLoop) -> None:
    fast = Process(loop, "fast", Clock(offset=500, rate=1.01))
    ended: list[float] = []

    async def work() -> None:
        begin = loop.time()
        await asyncio.sleep(101)
        assert loop.time() - begin == pytest.approx(101)
        ended.append(loop.now)

    fast.start(work())
    loop.run_until_complete(asyncio.sleep(200))
    assert ended == [pytest.approx(100)]


def test_a_paused_process_takes_no_step_and_catches_up(loop: VirtualLoop) -> None:
    process = Process(loop, "node")
    seen: list[float] = []

    async def ticks() -> None:
        for _ in range(5):
            await asyncio.sleep(1)
            seen.append(loop.now)

    async def schedule() -> None:
        process.start(ticks())
        await asyncio.sleep(2.5)
        process.pause()
        await asyncio.sleep(10)
        assert seen == [1, 2]
        process.resume()
        await asyncio.sleep(10)

    loop.run_until_complete(schedule())
    assert seen == [1, 2, 12.5, 13.5, 14.5]


def test_a_killed_process_runs_no_finally_block(loop: VirtualLoop) -> None:
    process = Process(loop, "node")
    lock = asyncio.Lock()
    seen: list[str] = []

    async def work() -> None:
        try:
            async with lock, asyncio.timeout(50) if hasattr(asyncio, "timeout") else lock:
                await asyncio.sleep(100)
        finally:
            seen.append("finally")

    async def schedule() -> None:
        process.start(work())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(1000)

    loop.run_until_complete(schedule())
    assert seen == []
    assert lock.locked()


def test_a_run_without_anything_left_to_happen_ends(loop: VirtualLoop) -> None:
    async def wait() -> None:
        await loop.create_future()

    with pytest.raises(StuckError):
        loop.run_until_complete(wait())


def run_as(loop: VirtualLoop, process: Process, work: Coroutine[Any, Any, Any]) -> Any:
    return loop.run_until_complete(process.start(work))


def test_conditional_writes_hold(loop: VirtualLoop, network: Network) -> None:
    store = ObjectStore(network)
    client = StoreClient(store, "n1", "ais/")

    async def work() -> None:
        first = await client.put("k", b"one", {"ais-version": "1"}, ABSENT, 5)
        with pytest.raises(StaleConditionError):
            await client.put("k", b"two", {}, ABSENT, 5)
        second = await client.put("k", b"two", {}, first.etag, 5)
        with pytest.raises(StaleConditionError):
            await client.put("k", b"three", {}, first.etag, 5)
        assert (await client.head("k")).etag == second.etag != first.etag
        assert await client.get("k", second.etag) is None
        body = await client.get("k", first.etag)
        assert body is not None
        assert body.read() == b"two"
        again = await client.put("k", b"one", {}, None, 5)
        assert again.etag == first.etag  # of the bytes, as S3's
        assert [info.key for info in (await client.list("")).entries] == ["k"]
        await client.delete("k", 5)
        await client.delete("k", 5)
        with pytest.raises(StoredNotFoundError):
            await client.head("k")

    run_as(loop, Process(loop, "n1"), work())
    assert [value for _, key, value, _ in store.log if key == "ais/k"] == [b"one", b"two", b"one", None]


def test_a_listing_comes_in_pages(loop: VirtualLoop, network: Network) -> None:
    client = StoreClient(ObjectStore(network), "n1")

    async def work() -> None:
        for number in range(5):
            await client.put(f"a/{number}", b"", {}, None, 5)
        await client.put("b", b"", {}, None, 5)
        page = await client.list("a/", limit=3)
        rest = await client.list("a/", start_after=page.continuation, limit=3)
        assert [info.key for info in [*page.entries, *rest.entries]] == [f"a/{number}" for number in range(5)]
        assert rest.continuation == ""

    run_as(loop, Process(loop, "n1"), work())


def test_lost_answers_are_ambiguous_and_requests_arrive_late_or_twice(loop: VirtualLoop, network: Network) -> None:
    store = ObjectStore(network)
    client = StoreClient(store, "n1")
    process = Process(loop, "n1")

    async def write(value: bytes) -> None:
        await client.put("k", value, {}, None, 5)

    network.cut = {(STORE, "n1")}
    with pytest.raises(AmbiguousWriteError):
        run_as(loop, process, write(b"no answer"))
    assert store.objects["k"][1] == b"no answer"

    network.cut = {("n1", STORE)}
    with pytest.raises(AmbiguousWriteError):
        run_as(loop, process, write(b"never sent"))
    with pytest.raises(BackendUnavailableError):
        run_as(loop, process, client.head("k"))
    assert store.objects["k"][1] == b"no answer"

    network.cut = set()
    network.weather = Weather(late=1, late_seconds=1000)
    with pytest.raises(AmbiguousWriteError):
        run_as(loop, process, write(b"late"))
    assert store.objects["k"][1] == b"no answer"
    loop.run_until_complete(asyncio.sleep(1000))
    assert store.objects["k"][1] == b"late"

    network.weather = Weather(twice=1)
    run_as(loop, process, client.put("once", b"1", {}, ABSENT, 5))
    run_as(loop, process, client.delete("once", 5))
    loop.run_until_complete(asyncio.sleep(500))
    assert store.objects["once"][1] == b"1"  # the second copy of the create, after the delete


def test_an_outage_refuses_everything(loop: VirtualLoop, network: Network) -> None:
    store = ObjectStore(network)
    client = StoreClient(store, "n1")
    process = Process(loop, "n1")
    store.down = True
    for work in (client.head("k"), client.list("")):
        with pytest.raises(BackendUnavailableError):
            run_as(loop, process, work)
    for _ in range(20):
        with pytest.raises((AmbiguousWriteError, BackendUnavailableError)):
            run_as(loop, process, client.put("k", b"", {}, None, 5))
    assert "k" in store.objects  # one of them hit the store before the outage did

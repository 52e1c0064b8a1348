"""What is left of one object through one transform when its request ends early."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import xxhash

from aistore.etl.dispatch import Dispatcher
from aistore.model.objects import Checksum, ObjectInfo
from aistore.settings import Limits

DATA = bytes(2 << 20)
INFO = ObjectInfo("b", "o", len(DATA), 1, Checksum("xxhash2", xxhash.xxh64_hexdigest(DATA)), 0)


class SlowReading:
    """A Reading whose disk is slow until it is told otherwise."""

    info, path = INFO, None

    def __init__(self) -> None:
        self.reads, self.goes_on = threading.Event(), threading.Event()

    def read(self, start: int, length: int) -> bytes:
        self.reads.set()
        assert self.goes_on.wait(30)
        return DATA[start : start + length]

    def read_cached(self, start: int, length: int) -> bytes | None:
        return None

    def close(self) -> None:
        pass


class Controller:
    async def call(self, verb: str, **arguments: Any) -> Any:
        return {"name": "etl", "socket_path": "/nowhere", "object_timeout_seconds": 1, "output_bytes_max": 1}


def descriptors() -> list[str]:
    """Return what this process has open, memory files by their names."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            pass
    return found


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="transforms are for Linux")
def test_a_copy_that_nobody_waits_for_is_closed() -> None:
    async def run(threads: ThreadPoolExecutor) -> None:
        reading: Any = SlowReading()
        dispatcher = Dispatcher(Controller(), threads, Limits(), "/nowhere")
        transforming = asyncio.ensure_future(dispatcher.transform("etl", reading))
        await asyncio.to_thread(reading.reads.wait, 30)
        transforming.cancel()
        await asyncio.gather(transforming, return_exceptions=True)
        reading.goes_on.set()
        await asyncio.to_thread(threads.shutdown)
        await asyncio.sleep(0)

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(run(threads))
    assert [path for path in descriptors() if "memfd:input" in path] == []

"""What the dispatcher decides without a transform: how many copies it holds in memory, when a worker may begin."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from aistore.errors import OverloadedError
from aistore.etl.dispatch import Dispatcher
from aistore.etl.peers import MESSAGES_KIND
from aistore.etl.running import Running
from aistore.etl.warm import _Call
from aistore.settings import Limits


def test_copies_in_memory_are_bounded() -> None:
    limits = Limits(etl_input_bytes_max=100, memfd_input_bytes_max=1000)
    running = Running("some-etl", "/nowhere", 1.0)
    with ThreadPoolExecutor(1) as threads:
        dispatcher = Dispatcher(None, threads, limits, "/nowhere")  # type: ignore[arg-type]
        assert dispatcher._hold_input(running, 500) == 500  # one object may be larger than all may be together
        with pytest.raises(OverloadedError, match="some-etl"):
            dispatcher._hold_input(running, 1)
        assert dispatcher._hold_input(running, 1001) == 0  # goes through a file


def test_a_worker_does_not_begin_for_nobody() -> None:
    """Else it would be busy for as long as the object takes, and nobody would know whom to kill."""

    async def leave() -> None:
        ours, worker = socket.socketpair(socket.AF_UNIX, MESSAGES_KIND)
        with worker:
            running = Running("some-etl", "", 10.0, 1 << 20)
            call = _Call(ours, running, 10.0, None)  # type: ignore[arg-type]  # asked about workers alone
            call._queued_too_long(0.0)
            with pytest.raises(BrokenPipeError):
                worker.send(b"S")
            with pytest.raises(OverloadedError):
                await call.answer
            call.close()

    asyncio.run(leave())

"""The clock that leases are counted on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from ...fallbacks import lacks

_log = logging.getLogger("aistore.cluster")


class BootClock:
    """Seconds since the machine started, those it slept through included, the same in all of its processes."""

    def __init__(self) -> None:
        # Elsewhere than on Linux the monotonic clock may stand still while the machine sleeps: a lease then seems to
        # hold for longer than others wait. Only the store's own checks guard writes there.
        self._kind = time.CLOCK_MONOTONIC if lacks("boot-clock") else time.CLOCK_BOOTTIME
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """Return the time."""
        return time.clock_gettime(self._kind)

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        await asyncio.sleep(seconds)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run ``work`` in the background until it ends or ``close``."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of the cluster ended", exc_info=task.exception())

    async def close(self) -> None:
        """End everything that was spawned."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

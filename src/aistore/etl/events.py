"""The events of a process tree that was launched, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from .launcher import Launched

_AT_ONCE, _PAUSE_SECONDS = 50, 0.005  # two events for each object of `isolation: fork`, at most 2,000 objects a second


async def events_of(launched: Launched) -> AsyncIterator[dict[str, Any]]:
    """Yield what the process tree says until its end. One that says things without end does not keep the loop busy."""
    loop = asyncio.get_running_loop()
    taken = 0
    descriptor = launched.control.fileno()
    while True:
        readable = loop.create_future()
        loop.add_reader(descriptor, _set_done, readable)
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
        try:
            event = launched.receive(timeout_seconds=0)
        except BlockingIOError:  # a part of a message
            continue
        if event is None:
            return
        yield event
        taken += 1
        if taken % _AT_ONCE == 0:
            await asyncio.sleep(_PAUSE_SECONDS)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

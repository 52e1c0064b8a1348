"""The events of a process tree that was launched, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from .launcher import Launched


async def events_of(launched: Launched) -> AsyncIterator[dict[str, Any]]:
    """Yield what the process tree says until its end."""
    loop = asyncio.get_running_loop()
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


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

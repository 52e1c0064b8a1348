"""Waiting for an object store on behalf of a client, as long as it makes sense.

A node that has lost its lease may be cut off from the store, while others are not: a client is better told soon, so
that it asks another node, than when the last attempt to reach the store has failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ...errors import NotHomeError

_log = logging.getLogger("aistore.cluster")

T = TypeVar("T")

#: How long a node without a lease waits for the store: longer than it takes to get one back after it stood still.
LAPSED_SECONDS = 3.0
_LOOK_SECONDS = 0.5


async def read_while_leased(work: Coroutine[Any, Any, T], is_leased: Callable[[], bool]) -> T:
    """Return what a read comes to; raises NotHomeError when it takes long without a lease, and ends it."""
    reading = asyncio.ensure_future(work)
    try:
        await _wait(reading, is_leased)
    except BaseException:
        reading.add_done_callback(_close)
        reading.cancel()
        raise
    return reading.result()


async def write_while_leased(work: Coroutine[Any, Any, T], is_leased: Callable[[], bool]) -> T:
    """Return what a write comes to; raises NotHomeError when it takes long without a lease.

    It goes on then, as it does when the client goes away: nothing frees its lock before the store has answered.
    """
    writing = asyncio.ensure_future(work)
    try:
        await _wait(writing, is_leased)
    except BaseException:
        writing.add_done_callback(_hear)
        raise
    return writing.result()


async def _wait(work: asyncio.Future[T], is_leased: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    leased = loop.time()
    while not work.done():
        if is_leased():
            leased = loop.time()
        elif loop.time() - leased > LAPSED_SECONDS:
            raise NotHomeError(
                "this node has lost its lease, and the object store does not answer it",
                hint="try again: another node may reach it; a write may have been done",
            )
        await asyncio.wait((work,), timeout=_LOOK_SECONDS)


def _close(reading: asyncio.Future[Any]) -> None:
    """Close what a read came to after all."""
    if not reading.cancelled() and reading.exception() is None:
        found = reading.result()
        found = getattr(found, "body", found)
        if hasattr(found, "close"):
            found.close()


def _hear(writing: asyncio.Future[Any]) -> None:
    """Hear of an error that nobody can be told any more."""
    if not writing.cancelled() and writing.exception() is not None:
        _log.warning("a write whose client did not wait for it: %s", writing.exception())

"""Ends what a client keeps waiting: a request body of which no byte has come for too long.

The other waits for a client end elsewhere: headers that never end and idle connections by Granian's own clock, replies
that nobody reads by the kernel's (both in asgi.py).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from ..errors import RequestTimeoutError
from ..observe.counters import COUNTERS
from ..observe.layout import STALLED

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class _Cancellable(Protocol):
    def cancel(self) -> object: ...


class Stalls:
    """The bodies that are waited for, oldest first, and one timer for all of them.

    A timer per message would cost more than the message. Belongs to one event loop.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._numbers = itertools.count()
        self._waits: dict[int, tuple[float, _Cancellable]] = {}
        self._ended: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, receive: Receive) -> Receive:
        """Return ``receive`` with the limit on each wait for the body; what comes after the body may take its time."""
        body = True

        async def watched() -> Mapping[str, Any]:
            nonlocal body
            message = await (self._within_limit(receive()) if body else receive())
            body = message.get("more_body", False)
            return message

        return watched

    async def _within_limit(self, awaitable: Any) -> Mapping[str, Any]:
        """Wait for ``awaitable``, one of Granian's; raises RequestTimeoutError after the time that a body has."""
        if not hasattr(awaitable, "cancel"):  # done already
            return await awaitable  # type: ignore[no-any-return]
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        self._waits[number] = (loop.time() + self._seconds, awaitable)
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._end_overdue, loop)
        try:
            return await awaitable  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            if number not in self._ended:
                raise
            COUNTERS.words[STALLED] += 1
            raise RequestTimeoutError(
                f"no byte of the request body came for {self._seconds:g} s", hint="send it faster, or in smaller parts"
            ) from None
        finally:
            self._waits.pop(number, None)
            self._ended.discard(number)

    def _end_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for number, (due, awaitable) in list(self._waits.items()):
            if due > now:
                self._timer = loop.call_at(due, self._end_overdue, loop)
                return
            del self._waits[number]
            self._ended.add(number)
            awaitable.cancel()
        self._timer = None

"""The connections of one HTTP worker to one transform's server: kept while they can be used again, and bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from ...errors import EtlNotRunningError, OverloadedError
from ...settings import Limits
from .watch import Watch


class Reusable(Protocol):
    """A connection as its pool knows it."""

    idle_since: float

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for."""

    def close(self) -> None:
        """Give it back to the system."""


C = TypeVar("C", bound=Reusable)


class Pool(Generic[C]):
    """Connections to one server. Belongs to one event loop, but for ``lend``."""

    def __init__(
        self, open_one: Callable[[], Awaitable[C]], limits: Limits, *, connections_max: int, idle_seconds: float
    ) -> None:
        self._open_one = open_one
        self._connections_max = connections_max
        self._idle_seconds = idle_seconds
        self._queue = limits.etl_queue
        self._queue_wait_seconds = limits.etl_queue_wait_seconds
        self._loop = asyncio.get_running_loop()
        self._idle: list[C] = []
        self._busy = 0
        # Each is written by one thread alone.
        self._lent = self._returned = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def busy(self) -> int:
        """How many connections are in use, or being made."""
        return self._busy + self._lent - self._returned

    @property
    def idle(self) -> int:
        """How many are kept for the next call."""
        return len(self._idle)

    async def take(self, watch: Watch, *, fresh: bool = False) -> C:
        """Return a connection for one call, a new one if it has to be ``fresh``; give it back.

        Waits while too many are in use; raises OverloadedError when too many calls wait, or one for too long, what
        ``watch`` says, and whatever making one raises.
        """
        if self.busy < self._connections_max:
            self._busy += 1
        else:
            await self._turn(watch)
        try:
            while not fresh and (connection := self._take_idle()) is not None:
                if connection.is_quiet:
                    return connection
                connection.close()
            return await self._open(watch)
        except BaseException:
            self._leave()
            raise

    def give(self, connection: C, *, reusable: bool) -> None:
        """Take a connection back."""
        if reusable and not self._closed:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(self._idle_seconds, self._sweep)
        else:
            connection.close()
        self._leave()

    def lend(self) -> C | None:
        """Return an idle connection if there is one that nobody waits for; have it back with ``take_back``.

        For one thread that is not the event loop's; never waits.
        """
        if self._closed or self._waiting or self.busy >= self._connections_max:
            return None
        connection = self._take_idle()
        if connection is not None:
            self._lent += 1
        return connection

    def take_back(self, connection: C, *, reusable: bool) -> None:
        """Take back what was lent."""
        self.adopt()
        self.give(connection, reusable=reusable)

    def adopt(self) -> None:
        """Treat a connection that was lent as one that was taken."""
        self._returned += 1
        self._busy += 1

    def _take_idle(self) -> C | None:
        try:
            return self._idle.pop()
        except IndexError:  # another thread may have been quicker
            return None

    def close(self) -> None:
        """End what is idle, and the rest as it comes back; who waits for a turn has to look for another server."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while (connection := self._take_idle()) is not None:
            connection.close()
        for turn in self._waiting:
            _settle(turn, False)

    async def _turn(self, watch: Watch) -> None:
        """Wait until another call leaves its place to this one."""
        if len(self._waiting) >= self._queue:
            raise OverloadedError(
                f"{self._queue} objects wait for this transform already", hint="try again in a second"
            )
        turn: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append(turn)
        late = self._loop.call_later(self._queue_wait_seconds, _settle, turn, False)
        watch.guard(lambda: _settle(turn, False))
        try:
            has_place = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._leave()
            raise
        finally:
            late.cancel()
            watch.guard(None)
            if turn in self._waiting:
                self._waiting.remove(turn)
        if not has_place:
            watch.check()
            if self._closed:
                raise EtlNotRunningError("the transform was stopped while the object waited", hint="try again")
            raise OverloadedError(f"the transform had no time for the object in {self._queue_wait_seconds:.0f} s")

    async def _open(self, watch: Watch) -> C:
        opening = asyncio.ensure_future(self._open_one())
        watch.guard(lambda: _cancel(opening))
        try:
            return await opening
        except asyncio.CancelledError:
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                opening.result().close()
            watch.check()
            raise
        finally:
            watch.guard(None)

    def _leave(self) -> None:
        """Give a place to the call that has waited longest, if there is one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._busy -= 1

    def _sweep(self) -> None:
        """End what was idle for too long: servers do so themselves after some seconds."""
        oldest = self._loop.time() - self._idle_seconds
        self._sweeper = None
        with contextlib.suppress(IndexError):  # another thread has just taken the last one
            while self._idle[0].idle_since <= oldest:
                self._idle.pop(0).close()
            pause = max(0.0, self._idle[0].idle_since - oldest)
            self._sweeper = self._loop.call_later(pause, self._sweep)


def _settle(turn: asyncio.Future[bool], has_turn: bool) -> None:
    if not turn.done():
        turn.set_result(has_turn)


def _cancel(opening: asyncio.Future[C]) -> None:
    opening.cancel()

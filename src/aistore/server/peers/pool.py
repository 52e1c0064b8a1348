"""The connections to one node: kept while they may be used again, bounded; and whether the node answers at all.

A node that refused or did not answer is taken as silent for a short while, longer or shorter by chance so that its
callers do not come back together: they are told at once. After that one call tries, and until it has heard something
the others are told so for another while, so that not all of them wait for the time-out again.
"""

from __future__ import annotations

import asyncio
import random
import select
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...errors import OverloadedError, PeerUnreachableError
from .connection import Connection


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """Bounds of calls to other nodes; times in seconds."""

    # Within one network a connection is there in a millisecond, or after one lost packet in a second. Derived.
    connect_seconds: float = 3.0
    # No byte of a request taken, or of a reply sent, for so long. As long as a client's may take (Limits).
    stall_seconds: float = 30.0
    # What was sent is not even received for so long: the machine is gone, or the way to it. Derived: some lost packets.
    vanished_seconds: float = 5.0
    # An idle connection is closed before the other side does it, after 60 s (Limits.header_seconds).
    idle_seconds: float = 30.0
    # How long a node that did not answer is not asked again, a quarter more or less. Guessed: what a restart takes.
    unreachable_seconds: float = 1.0
    # Connections of one HTTP worker to one node; more calls wait. Derived: half of the requests that may be under way.
    connections_max: int = 512
    # How often time-outs are looked at: so much later than due may they come.
    sweep_seconds: float = 0.5


class Peer:
    """One node as this process calls it. Belongs to one event loop."""

    def __init__(self, node_id: str, url: str, limits: PeerLimits) -> None:
        self.node_id = node_id
        self.url = url
        self.limits = limits
        self.stall_seconds = limits.stall_seconds
        self.vanished_seconds = limits.vanished_seconds
        self.heard = 0.0
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        #: What the Host header says.
        self.authority = parts.netloc.rpartition("@")[2]
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._silent_since = self._silent_until = -1.0
        self._why_silent = ""
        self._closed = False

    @property
    def connections(self) -> int:
        """How many connections there are, those being made included."""
        return len(self._all) + self._opening

    def unreachable(self, why: str, *, counts: bool = False, sent: bool = True) -> PeerUnreachableError:
        """Return the error that tells ``why``; ``counts``: the node is taken as one that does not answer."""
        if counts:
            self._silent_since, self._why_silent = self._loop.time(), why
            self._silent_until = self._silent_since + self._pause()
        error = PeerUnreachableError(f"node {self.node_id} at {self.authority} {why}", hint="try again in a moment")
        error.sent = sent
        return error

    async def acquire(self, *, fresh: bool, certain: bool) -> Connection:
        """Return a connection for one request; raises PeerUnreachableError, OverloadedError.

        ``fresh``: a new one. ``certain``: look at the socket of an idle one first, because the request cannot be sent
        twice.
        """
        if self._why_silent:
            self._check_silence()
        while True:
            connection = None if fresh else self._take_idle(certain=certain)
            if connection is not None:
                return connection
            if self.connections < self.limits.connections_max:
                return await self._open()
            if self._idle:  # a fresh one was asked for: make room
                self._idle.pop().close()
            connection = await self._turn()
            if connection is not None and connection.alive() and not fresh:
                return connection

    def _pause(self) -> float:
        return self.limits.unreachable_seconds * random.uniform(0.75, 1.25)  # noqa: S311  # no secret

    def _check_silence(self) -> None:
        now = self._loop.time()
        if self.heard > self._silent_since:
            self._why_silent = ""
        elif now < self._silent_until:
            raise self.unreachable(f"{self._why_silent}, a moment ago", sent=False)
        else:
            self._silent_until = now + self._pause()  # this call tries

    def _take_idle(self, *, certain: bool) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive() and not (certain and _has_something(connection.descriptor)):
                return connection
            connection.close()
        return None

    async def _turn(self) -> Connection | None:
        """Wait for a connection that another call gives back, or for the place of one that has ended (None)."""
        waiting: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(waiting)
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), self.stall_seconds)
        except asyncio.TimeoutError:
            self._give_up(waiting)
            raise OverloadedError(
                f"{self.limits.connections_max} calls of node {self.node_id} are under way in this process already",
                hint="try again in a moment",
            ) from None
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise

    def _give_up(self, waiting: asyncio.Future[Connection | None]) -> None:
        if not waiting.done():
            waiting.cancel()
            return
        connection = waiting.result()
        if connection is None:
            self._next(None)
        else:
            self.release(connection)

    def _next(self, connection: Connection | None) -> bool:
        """Give a connection, or the place for one, to the call that has waited longest; False if none waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False

    async def _open(self) -> Connection:
        if self._closed:
            raise self.unreachable("is not called any more: this process ends", sent=False)
        connection = Connection(self, self._loop)
        self._opening += 1
        try:
            making = self._loop.create_connection(lambda: connection, self._host, self._port)
            await asyncio.wait_for(making, self.limits.connect_seconds)
        except asyncio.TimeoutError:
            why = f"did not take a connection within {self.limits.connect_seconds:g} s"
            raise self.unreachable(why, counts=True, sent=False) from None
        except OSError as error:
            why = f"cannot be connected to ({error.strerror or error})"
            raise self.unreachable(why, counts=True, sent=False) from error
        else:
            self._all.add(connection)
            return connection
        finally:
            self._opening -= 1
            if connection not in self._all:
                connection.close()  # it may have been made in the moment in which nobody waited any more
                self._next(None)

    def release(self, connection: Connection) -> None:
        """Take a connection back that another request can use."""
        connection.used = True
        if self._closed:
            connection.close()
        elif not connection.alive():
            self._next(None)
        elif not self._next(connection):
            connection.idle_since = self._loop.time()
            self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Take note of a connection's end."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._next(None)

    def sweep(self) -> None:
        """End what is overdue, and connections that were idle for too long."""
        now = self._loop.time()
        for connection in list(self._all):
            if connection.due <= now:
                connection.overdue()
        while self._idle and self._idle[0].idle_since + self.limits.idle_seconds <= now:
            self._idle.pop(0).close()

    def retire(self) -> None:
        """End idle connections, and the others once their calls are done."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """End all connections; calls that are under way fail."""
        self._closed = True
        for connection in list(self._all):
            connection.fail("is not called any more")


def _has_something(descriptor: int) -> bool:
    """Say whether a socket has anything to read: on an idle connection, its end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))

"""An object that is sent to a transform's server before the event loop hears of it (server/early_transforms.py).

Two threads meet here. One takes an idle connection from the pool and sends the request on it; whatever comes back the
event loop hears, as on every connection. It may hear that before the other thread has come to the next line of its
program. So the one says that it is done and then looks whether something was heard, and the other takes note of what it
hears and then looks whether the one is done: whichever is last goes on with it.

Only a whole plain result that follows a whole request is one here. Everything else (an error, what was put elsewhere,
what is large or cut or no HTTP) stays with the connection and goes the ordinary way with it, which sends nothing again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable

from ...wire.http1 import Head, MalformedReplyError, parse_head
from ..passing import Passing
from ..running import Ask, Running
from .connection import Connection
from .pool import Pool
from .requests import request_head

#: Larger results are collected by the ordinary way, which has a place for them.
_RESULT_BYTES_MAX = 512 << 10
#: Up to here a request is copied into one piece; above, the system takes it in two.
_COPIED_BYTES_MAX = 16 << 10


class SentToServer:
    """An object on its way through a server on a connection that was lent. Ends with ``close`` or ``take_over``.

    ``send`` belongs to the thread that makes it, everything else to the event loop.
    """

    __slots__ = (
        "_connection", "_data", "_due", "_head", "_hear", "_is_clean", "_loop", "_pool", "_request_head", "is_decided",
        "is_sent", "result", "running", "unsent",
    )  # fmt: skip

    def __init__(
        self, running: Running, pool: Pool[Connection], connection: Connection, head: bytes, data: bytes,
        loop: asyncio.AbstractEventLoop,
    ) -> None:  # fmt: skip
        self.running = running
        self._pool = pool
        self._connection: Connection | None = connection
        self._request_head = head
        self._data = data
        self._loop = loop
        self._hear: Callable[[int], None] | None = None
        self._head: Head | None = None
        self._due = 0  # bytes of the whole reply, once its head has come
        self._is_clean = False
        #: Whether the thread that sends is done with it, and what it could not send.
        self.is_sent = False
        self.unsent = b""
        #: Whether it is known what has come of it: ``result``, or None for what goes the ordinary way.
        self.is_decided = False
        self.result: bytes | None = None

    @property
    def number(self) -> int:
        """What tells it from others that are under way: a descriptor."""
        assert self._connection is not None
        return self._connection.sender.fileno()

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return len(self._data)

    def passing(self, directory: str) -> Passing:
        """Return the object, for whoever sends it again."""
        return Passing(self._data, directory)

    def send(self, hear: Callable[[int], None]) -> None:
        """Send the request; ``hear`` is called with the number, on the event loop, when something has come of it."""
        connection, head, data = self._connection, self._request_head, self._data
        assert connection is not None
        self._hear = hear
        connection.listen(self._heard)
        count, size = 0, len(head) + len(data)
        # What fails here the loop is told too, or finds out.
        with contextlib.suppress(OSError):
            if size <= _COPIED_BYTES_MAX:
                count = connection.sender.send(head + data)
            else:
                count = connection.sender.sendmsg((head, data))
        if count < size:
            self.unsent = (head + data)[count:]
        self.is_sent = True
        if self.unsent or not connection.has_heard_all:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._heard)

    def _heard(self) -> None:
        if self.is_sent and self._connection is not None and self._hear is not None:
            self._hear(self.number)

    def receive(self) -> None:
        """Look at what has come."""
        connection = self._connection
        assert connection is not None
        if self.unsent or connection.has_ended or not self._goes_well(connection):
            self.is_decided = True
        elif self._head is None:
            connection.wait_for(connection.buffered + 1)
        elif connection.buffered < self._due:
            connection.wait_for(self._due)
        else:
            self.is_decided, self._is_clean = True, self._head.keep_alive
            self.result = connection.take_heard(self._head.size)

    def _goes_well(self, connection: Connection) -> bool:
        """Say whether what has come is, or begins, a result of this way; reads the head when it is there."""
        if self._head is None:
            try:
                head = parse_head(connection.heard(), bodiless=False, until_end=True)
            except MalformedReplyError:
                return False
            if head is None:
                return True
            if not 200 <= head.status < 300 or head.status == 204 or head.length is None:
                return False
            if head.length > _RESULT_BYTES_MAX:
                return False
            self._head, self._due = head, head.size + head.length
        return connection.buffered <= self._due

    def take_over(self) -> tuple[Connection, Pool[Connection]]:
        """Return the connection and its pool: from now on it is one that was taken from there."""
        connection, self._connection = self._connection, None
        assert connection is not None
        connection.listen(None)
        self._pool.adopt()
        return connection, self._pool

    @property
    def is_taken_over(self) -> bool:
        """Whether somebody else has the connection."""
        return self._connection is None

    def close(self) -> None:
        """Give the connection back; it is ended unless the result came whole. May be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.listen(None)
            self._pool.take_back(connection, reusable=self._is_clean and connection.has_heard_all)


def send_early(
    pool: Pool[Connection], running: Running, ask: Ask, data: bytes, loop: asyncio.AbstractEventLoop
) -> SentToServer | None:
    """Return an object that is about to be sent, None if there is no connection for it at this moment.

    For one thread that is not the event loop's.
    """
    head = request_head(running, ask, length=len(data), file="", node_url="")
    connection = pool.lend()
    if connection is None:
        return None
    if not connection.is_quiet:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(functools.partial(pool.take_back, connection, reusable=False))
        return None
    return SentToServer(running, pool, connection, head, data, loop)

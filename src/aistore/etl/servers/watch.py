"""What ends a call of a transform early: its time is up, or the client that waits for it went away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from ...errors import ClientGoneError, TransformTimeoutError
from ..running import Gone

# Asking the HTTP server whether a client is still there costs two rounds between its threads; one that left is found
# out this much later.
WATCH_AFTER_SECONDS = 0.05


class Watch:
    """Looks after one call for as long as it is entered, its client after a while. Belongs to one event loop.

    What the call waits for is given to ``guard``; when the call has to end, that is ended, and ``check`` raises why.
    """

    def __init__(self, seconds: float, gone: Gone | None, after_seconds: float = WATCH_AFTER_SECONDS) -> None:
        self._seconds = seconds
        self._gone = gone
        self._after_seconds = after_seconds
        self._loop = asyncio.get_running_loop()
        self._end: Callable[[], None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._watching: asyncio.Future[None] | None = None
        self.error: Exception | None = None

    def __enter__(self) -> Watch:
        self._timers.append(self._loop.call_later(self._seconds, self._late))
        if self._gone is not None:
            self._timers.append(self._loop.call_later(self._after_seconds, self._begin))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def guard(self, end: Callable[[], None] | None) -> None:
        """Call ``end`` when the call has to end, at once if it has to already; None guards nothing."""
        self._end = end
        if end is not None and self.error is not None:
            end()

    def check(self) -> None:
        """Raise TransformTimeoutError or ClientGoneError if the call has to end."""
        if self.error is not None:
            raise self.error

    def _late(self) -> None:
        self._fail(TransformTimeoutError(f"timeout: the transform did not answer within {self._seconds:g} s"))

    def _begin(self) -> None:
        assert self._gone is not None
        self._watching = asyncio.ensure_future(self._gone())
        self._watching.add_done_callback(self._left)

    def _left(self, watching: asyncio.Future[None]) -> None:
        if not watching.cancelled():
            watching.exception()  # a failure to watch is the client's end all the same
            self._fail(ClientGoneError())

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            if self._end is not None:
                self._end()

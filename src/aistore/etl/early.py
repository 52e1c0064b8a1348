"""An object that was sent early, until its answer is here: what is counted of it, and the result as bytes."""

from __future__ import annotations

import os
from time import monotonic

from ..errors import TransformError
from . import exchange
from .counted import CountedObject, count_busy
from .sent import SentEarly
from .warm import COPIED_RESULT_BYTES_MAX

#: What a worker says when the result is there, as it spells it (worker/failure.py); any other is looked at there.
_DONE = b'{"ok": true}'


class EarlyObject:
    """An object that was sent. From ``leaves_at`` on (a monotonic time) it should go on the ordinary way.

    That is ``wait_seconds`` from now as long as no worker has begun with it, then ``work_seconds`` from its begin.
    """

    __slots__ = ("_counted", "_work_seconds", "leaves_at", "sent")

    def __init__(self, sent: SentEarly, wait_seconds: float, work_seconds: float) -> None:
        self.sent = sent
        self.leaves_at = monotonic() + wait_seconds
        self._work_seconds = work_seconds
        self._counted = CountedObject(sent.running.name, sent.running.uid, sent.size)
        self._counted.__enter__()

    def hear(self) -> bool:
        """Read what the worker says; True if its answer is here."""
        sent = self.sent
        had_begun = sent.peer is not None
        sent.receive()
        if sent.peer is not None and not had_begun:
            count_busy(sent.running.name, sent.running.uid, 1)
            self.leaves_at = monotonic() + self._work_seconds
        return sent.answer is not None

    def result(self) -> bytes | None:
        """Return the result, None if there is none or it takes more than to read it."""
        size = self._size()
        if size is None:
            return None
        try:
            return exchange.read_unsealed(self.sent.output, size)
        except TransformError:
            return None

    def result_in(self, buffer: memoryview) -> memoryview | None:
        """Return the result in ``buffer``, None as ``result`` does."""
        size = self._size()
        if size is None or size > len(buffer):
            return None
        try:
            exchange.read_unsealed_into(self.sent.output, buffer[:size])
        except TransformError:
            return None
        return buffer[:size]

    def _size(self) -> int | None:
        if self.sent.answer != _DONE:
            return None
        size = os.fstat(self.sent.output).st_size
        return size if size <= COPIED_RESULT_BYTES_MAX else None

    def end(self, out_bytes: int = -1) -> None:
        """Count the object; without a result it is counted where it goes on."""
        if self.sent.peer is not None:
            count_busy(self.sent.running.name, self.sent.running.uid, -1)
        self._counted.out_bytes = out_bytes
        self._counted.__exit__(None, None, None)

"""What an HTTP worker takes on: so many requests, so many bytes of memory. More is told at once to come again.

Reads that are answered at once (app.py) are not counted: they are over before a count would mean anything.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import OverloadedError
from ..observe.counters import COUNTERS
from ..observe.layout import REFUSED
from ..settings import Limits

#: Pieces of one reply that can be in memory when its client does not read: four in Granian's channel and one waiting
#: to enter it, one with the HTTP library, one read ahead.
PIECES_HELD = 7
#: The smallest piece. Measured: a worker sends 320 to 520 MiB/s of these, 1,200 to 1,500 MiB/s in pieces of 1 MiB.
PIECE_BYTES_MIN = 64 << 10
#: When so much was in use and all of it is free again, the allocator is told to give it back, after a while: it would
#: keep it. Measured: 400 MiB of 500 after hundreds of uploads.
_TRIM_BYTES, _TRIM_SECONDS = 32 << 20, 5.0
#: The allocator keeps so much of what is freed, and does not where it is in pieces that are larger than any of a reply.
#: Derived: what some requests at once have in pieces. Each thread's share of the allocator keeps as much.
_KEPT_BYTES, _MAPPED_BYTES_MIN = 8 << 20, 4 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


class Admission:
    """Counts of one HTTP worker. Belongs to one event loop."""

    def __init__(self, limits: Limits, in_thread: Callable[[Callable[[], None]], object]) -> None:
        self._limits = limits
        self._in_thread = in_thread
        self._peak = 0
        self._trim: asyncio.TimerHandle | None = None
        self._requests = 0
        self._body_bytes_free = limits.body_bytes_max
        self._reply_bytes_free = limits.reply_bytes_max

    @property
    def requests(self) -> int:
        """Requests under way."""
        return self._requests

    @contextmanager
    def request(self, *, always: bool) -> Iterator[Callable[[int], None]]:
        """Count a request while it is under way; raises OverloadedError beyond the limit, unless ``always``.

        Yields a function that holds memory for so many bytes of the request's body until the request ends. It raises
        OverloadedError when the memory for bodies is all in use.
        """
        if self._requests >= self._limits.requests_max and not always:
            COUNTERS.words[REFUSED] += 1
            raise OverloadedError(
                f"{self._limits.requests_max} requests are under way in this process already",
                hint="try again in a moment, with fewer connections",
            )
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if size > self._body_bytes_free:
                COUNTERS.words[REFUSED] += 1
                raise OverloadedError(
                    f"request bodies of {self._limits.body_bytes_max} bytes are being read in this process already",
                    hint="try again in a moment, with fewer uploads at once",
                )
            self._body_bytes_free -= size
            held += size
            self._note_peak()

        self._requests += 1
        try:
            yield hold
        finally:
            self._requests -= 1
            self._body_bytes_free += held
            if self._requests == 0 and self._peak >= _TRIM_BYTES and self._trim is None:
                self._trim = asyncio.get_running_loop().call_later(_TRIM_SECONDS, self._give_back)

    def take_piece(self) -> int:
        """Return the size of the pieces in which a reply may be sent, and hold memory for it until ``give_piece``.

        An eighth of what is free, so that many who read slowly hold little each; never less than the smallest piece,
        which the number of requests bounds.
        """
        piece = min(self._limits.piece_bytes, max(PIECE_BYTES_MIN, self._reply_bytes_free // 8 // PIECES_HELD))
        self._reply_bytes_free -= piece * PIECES_HELD
        self._note_peak()
        return piece

    def give_piece(self, piece: int) -> None:
        """Take back what ``take_piece`` held."""
        self._reply_bytes_free += piece * PIECES_HELD

    def take_entry(self, size: int, held: int) -> bool:
        """Hold memory for one more entry of a batch that holds ``held`` bytes already; False when it has to wait.

        One entry each may always have. More of them may have half of what is free: one batch alone as much as it wants,
        hundreds together little more than all there is.
        """
        if held and (held + size > self._limits.batch_window_bytes or size > self._reply_bytes_free // 2):
            return False
        self._reply_bytes_free -= size
        self._note_peak()
        return True

    def give_entries(self, size: int) -> None:
        """Take back what ``take_entry`` held."""
        self._reply_bytes_free += size

    def _note_peak(self) -> None:
        limits = self._limits
        used = limits.body_bytes_max + limits.reply_bytes_max - self._body_bytes_free - self._reply_bytes_free
        self._peak = max(self._peak, used)

    def _give_back(self) -> None:
        self._trim, self._peak = None, 0
        self._note_peak()  # what is in use again counts for the next time
        self._in_thread(give_memory_back)


def keep_freed_memory() -> None:
    """Make the allocator keep some of what is freed for what is allocated next, where it can be told to (glibc).

    Else every object of a few hundred KiB on its way through moves the end of the heap there and back, and the system
    empties each of its pages again. Measured: an object of 1 MiB through a transform's server and back 1,180 us of CPU
    instead of 2,500, one of 110 KiB 160 instead of 210.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        change(_M_MMAP_THRESHOLD, _MAPPED_BYTES_MIN)
        change(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_memory_back() -> None:
    """Make the allocator return free memory to the system, where it can be told to (glibc). Takes milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

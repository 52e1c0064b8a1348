"""What an HTTP worker takes on: so many requests, so many bytes of memory. More is told at once to come again.

Reads that are answered at once (app.py) are not counted: they are over before a count would mean anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import OverloadedError
from ..settings import Limits

#: Pieces of one reply that can be in memory when its client does not read: four in Granian's channel and one waiting
#: to enter it, one with the HTTP library, one read ahead.
PIECES_HELD = 7
#: The smallest piece. Measured: a third of the throughput of 1 MiB, and hundreds of slow readers fit.
PIECE_BYTES_MIN = 64 << 10


class Admission:
    """Counts of one HTTP worker. Belongs to one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
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
            raise OverloadedError(
                f"{self._limits.requests_max} requests are under way in this process already",
                hint="try again in a moment, with fewer connections",
            )
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if size > self._body_bytes_free:
                raise OverloadedError(
                    f"request bodies of {self._limits.body_bytes_max} bytes are being read in this process already",
                    hint="try again in a moment, with fewer uploads at once",
                )
            self._body_bytes_free -= size
            held += size

        self._requests += 1
        try:
            yield hold
        finally:
            self._requests -= 1
            self._body_bytes_free += held

    def take_piece(self) -> int:
        """Return the size of the pieces in which a reply may be sent, and hold memory for it until ``give_piece``.

        An eighth of what is free, so that many who read slowly hold little each; never less than the smallest piece,
        which the number of requests bounds.
        """
        piece = min(self._limits.piece_bytes, max(PIECE_BYTES_MIN, self._reply_bytes_free // 8 // PIECES_HELD))
        self._reply_bytes_free -= piece * PIECES_HELD
        return piece

    def give_piece(self, piece: int) -> None:
        """Take back what ``take_piece`` held."""
        self._reply_bytes_free += piece * PIECES_HELD

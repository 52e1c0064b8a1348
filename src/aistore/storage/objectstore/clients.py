"""The library's clients of one store: one for reads, which tries again, and one for writes of each time limit.

The library fixes timeouts and retries when a client is made, so a write that has 7 seconds left takes the client of the
nearest limit below. A client costs 14 ms and a pool of connections, and there are at most 24 of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

#: Makes a client from the library's client options and retry options.
Maker = Callable[[Any, Any], Any]

_CONNECT_SECONDS = 5.0
# Without a byte for this long a read is tried again. A store that was restarted answers within a few seconds.
_SILENCE_SECONDS = 10.0
_READ_RETRIES = 4
_READ_RETRY_SECONDS = 20.0
# The whole of one read, its body included: only so that nothing lasts for ever; silence ends it much sooner.
_READ_SECONDS = 6 * 3600.0

#: Time limits of writes, each a quarter above the last: 1 s to about 3 minutes, then what an upload of 5 GB may take.
WRITE_LIMITS = (*(round(1.25**step, 2) for step in range(24)), 600.0, 3600.0)


class Clients:
    """Clients of one place, made when they are first used. Thread-safe."""

    def __init__(self, make: Maker) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: dict[float, Any] = {}

    def reading(self) -> Any:
        """Return the client that tries again."""
        return self._made.get(0.0) or self._client(0.0)

    def writing(self, seconds: float) -> Any:
        """Return a client that sends once and gives up after at most ``seconds``, but not before 1 s."""
        limit = max((limit for limit in WRITE_LIMITS if limit <= seconds), default=WRITE_LIMITS[0])
        return self._made.get(limit) or self._client(limit)

    def close(self) -> None:
        """Let go of all of them, and with the last use of each of its connections."""
        with self._lock:
            self._made.clear()

    def _client(self, limit: float) -> Any:
        with self._lock:
            found = self._made.get(limit)
            if found is None:
                found = self._made[limit] = self._make(_options(limit), _retries(limit))
            return found


def _options(limit: float) -> dict[str, Any]:
    if limit:
        connect = min(_CONNECT_SECONDS, limit)
        return {"timeout": timedelta(seconds=limit), "connect_timeout": timedelta(seconds=connect)}
    return {
        "timeout": timedelta(seconds=_READ_SECONDS),
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=_SILENCE_SECONDS),
    }


def _retries(limit: float) -> dict[str, Any]:
    if limit:
        return {"max_retries": 0}
    return {
        "max_retries": _READ_RETRIES,
        "retry_timeout": timedelta(seconds=_READ_RETRY_SECONDS),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
    }

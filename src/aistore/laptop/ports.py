"""Free ports of this machine, below those that the system gives to outgoing connections."""

from __future__ import annotations

import random
import socket

from ..errors import AisError

#: Ephemeral ports begin at 32768 on Linux, higher elsewhere: nobody gets one of these by chance before we use it.
_FIRST, _LAST = 10_500, 21_900
_TRIES = 200


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether nobody listens on ``port`` of ``host`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_block(count: int, *, also_above: int = 0, host: str = "127.0.0.1") -> int:
    """Return a port from which on ``count`` are free, and so are those ``also_above`` higher. Raises AisError."""
    for _ in range(_TRIES):
        first = random.randrange(_FIRST, _LAST, 8)  # noqa: S311 - in steps, so that two that look at once seldom meet
        wanted = [*range(first, first + count)]
        wanted += [port + also_above for port in wanted if also_above]
        if all(is_free(port, host) for port in wanted):
            return first
    raise AisError(f"found no {count} free ports in a row on {host}")

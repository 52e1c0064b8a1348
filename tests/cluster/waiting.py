"""Waiting for what a store does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Return when ``condition`` holds; fail with ``what`` when it does not within some time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)

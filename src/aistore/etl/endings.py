"""How workers end, and when so many of them did that their transform is given up."""

from __future__ import annotations

import os
import signal

#: Objects in a row that ended their worker, without one that succeeded on any worker of the node. Guessed: a run of
#: broken files in a data set is shorter, and a transform that cannot do anything is found out within seconds.
CRASHES_MAX = 20


class CrashesInARow:
    """Counts objects that ended their worker since one succeeded."""

    def __init__(self) -> None:
        self._count = 0
        self._done = -1

    def note(self, done: int) -> int:
        """Count one more and return how many there are in a row; ``done`` objects have succeeded by now."""
        if done != self._done:
            self._count, self._done = 0, done
        self._count += 1
        return self._count


def how_it_ended(status: int | None) -> str:
    """Return what a wait status says, as the end of a sentence."""
    if status is None:
        return "ended without an answer"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"was ended by {name}"
    return f"ended with exit status {os.WEXITSTATUS(status)}"

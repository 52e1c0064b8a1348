"""How many workers an ETL should have, as a pure machine: no clock, no processes.

More when an object waits and nobody is idle: twice as many, until the limit. Fewer when some had nothing to do: those
beyond what was busy at one moment in the last ``idle_seconds`` may go, in the end the last one too.
"""


class Demand:
    """``wanted`` is how many there should be, at least ``least`` and at most ``limit``."""

    def __init__(self, limit: int, least: int, idle_seconds: float, now: float) -> None:
        self.limit = limit
        self.least = least
        self.wanted = 1
        self._idle_seconds = idle_seconds
        self._peak = 1
        self._period_end = now + idle_seconds

    @property
    def period_end(self) -> float:
        """When it is next decided who had nothing to do."""
        return self._period_end

    def look(self, now: float, busy: int) -> None:
        """Take note of how many workers are busy, or were since the last look."""
        self._peak = max(self._peak, busy)
        if now >= self._period_end:
            self.wanted = max(self.least, min(self.wanted, self._peak))
            self._peak, self._period_end = busy, now + self._idle_seconds

    def grow(self, now: float, running: int) -> None:
        """Have more than ``running`` workers: an object waits for one."""
        if self.wanted == 0:  # what was idle so far says nothing about those that come now
            self._period_end = now + self._idle_seconds
        self.wanted = max(self.wanted, min(self.limit, max(1, 2 * running)))
        self._peak = max(self._peak, min(self.limit, running + 1))

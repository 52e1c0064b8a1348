"""When to send a request again, and after how long: logic without I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to insist.

    A connection that is refused or breaks is tried ``attempts_max`` times in all, with a random, growing pause between.
    A store that says "busy, try later" (503 with Retry-After) is believed for ``busy_seconds_max`` in all. With
    ``budget_seconds`` both are tried for so long instead, and so is a 503 that names no time.
    """

    attempts_max: int = 5
    pause_seconds: float = 0.1
    pause_seconds_max: float = 5.0
    busy_seconds_max: float = 60.0
    budget_seconds: float | None = None

    def pause_after_failure(self, failures: int, waited_seconds: float = 0.0) -> float | None:
        """Return the seconds to wait after the ``failures``-th broken connection, None to give up.

        Half of the pause is random: clients that lost one store at one moment do not come back at one moment.
        """
        if self.budget_seconds is None:
            if failures >= self.attempts_max:
                return None
        elif waited_seconds >= self.budget_seconds:
            return None
        pause: float = min(self.pause_seconds * 2 ** min(failures - 1, 30), self.pause_seconds_max)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreading load, not a secret

    def pause_when_busy(self, retry_after_seconds: float, waited_seconds: float) -> float | None:
        """Return the seconds to wait after a 503 that names a time, None when patience has run out."""
        patience = self.busy_seconds_max if self.budget_seconds is None else self.budget_seconds
        pause = max(retry_after_seconds, self.pause_seconds) * random.uniform(1.0, 1.25)  # noqa: S311
        return pause if waited_seconds + pause <= patience else None

    def pause_after_refusal(self, retry_after: str | None, refusals: int, waited_seconds: float) -> float | None:
        """Return the seconds to wait after the ``refusals``-th 503 with this Retry-After, None to give up."""
        told = parse_retry_after(retry_after)
        if told is not None:
            return self.pause_when_busy(told, waited_seconds)
        if self.budget_seconds is None:
            return None
        return self.pause_after_failure(refusals, waited_seconds)


def parse_retry_after(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header; None without one, and for a date, which needs a common clock."""
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None

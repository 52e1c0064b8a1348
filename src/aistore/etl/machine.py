"""The life of one ETL as a pure machine: an event goes in, the new state and what to do come out. No I/O, no clock.

::

    (new) ──begin──▶ Initializing ──ready──▶ Running
                        │  ▲                  │  │
                 failed │  │ begin     crashed│  │ stop
                        ▼  │  (restart)       │  ▼
                      Aborted ◀───────────────┴──

An ETL whose process dies is begun again, at most ``RESTARTS_MAX`` times within ``RESTART_WINDOW_SECONDS``; after that
it is Aborted with the reason. One that ran before and does not come up again has crashed too: that a process was killed
on its way up says nothing about the code. Until it is up no crash is forgotten, however long each takes. Only what its
user has just asked for, and waits for, fails at once. A stopped ETL is Aborted too, for the field has no other word,
and its message says that it was stopped.

What ends with the guard, the store's own process beside it, was killed by somebody else: that does not count.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from ..model.etl import Stage

RESTARTS_MAX = 5
RESTART_WINDOW_SECONDS = 60.0
RESTART_PAUSE_SECONDS = 0.2  # before the first restart; each further one waits twice as long


class Todo(enum.Enum):
    """What the driver has to do after an event."""

    NOTHING = enum.auto()
    LAUNCH = enum.auto()
    LAUNCH_LATER = enum.auto()
    CLOSE = enum.auto()


@dataclass(frozen=True)
class Life:
    """Stage, the reason for it, whether it should be running, and when it was restarted lately (seconds)."""

    stage: Stage = Stage.UNKNOWN
    message: str = ""
    wanted: bool = True
    restarts: tuple[float, ...] = field(default=())

    def begin(self) -> tuple[Life, Todo]:
        """The ETL was initialised, started by its user, or found at the start of the store."""
        return Life(Stage.INITIALIZING, wanted=True), Todo.LAUNCH

    def progress(self, message: str) -> Life:
        """Something happened on the way to Running."""
        return replace(self, message=message) if self.stage is Stage.INITIALIZING else self

    def ready(self) -> Life:
        """The transform takes objects."""
        return replace(self, stage=Stage.RUNNING, message="") if self.stage is Stage.INITIALIZING else self

    def failed(self, reason: str) -> tuple[Life, Todo]:
        """It could not be made ready."""
        return replace(self, stage=Stage.ABORTED, message=reason), Todo.CLOSE

    def stop(self) -> tuple[Life, Todo]:
        """Its user stopped it."""
        return replace(self, stage=Stage.ABORTED, message="stopped", wanted=False), Todo.CLOSE

    def crashed(self, reason: str, now: float, *, counts: bool = True) -> tuple[Life, Todo]:
        """Its process ended while it should run, or it did not come up again; ``now`` in seconds, monotonic.

        ``counts`` False: it can do nothing for it.
        """
        if not self.wanted or self.stage is Stage.ABORTED:
            return self, Todo.NOTHING
        up = self.stage is Stage.RUNNING
        lately = [when for when in self.restarts if not up or now - when < RESTART_WINDOW_SECONDS]
        recent = (*lately, now) if counts else tuple(lately)
        if len(recent) > RESTARTS_MAX:
            text = f"crashed {len(recent)} times in {now - recent[0]:.0f} s, last: {reason}"
            return replace(self, stage=Stage.ABORTED, message=text, restarts=recent), Todo.CLOSE
        return replace(
            self, stage=Stage.INITIALIZING, message=f"restarting: {reason}", restarts=recent
        ), Todo.LAUNCH_LATER

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next restart."""
        return RESTART_PAUSE_SECONDS * 2.0 ** max(0, len(self.restarts) - 1)

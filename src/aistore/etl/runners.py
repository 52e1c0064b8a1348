"""What runs an ETL on this node, as the one who drives its life (managed.py) sees it.

There is one kind of runner for code that the store's own workers run, and others for transforms that are servers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..model.etl import EtlSpec
from .environments.lock import Lock
from .log import TransformLog
from .places import Places

#: Hears what happens on the way to Running: a stage in a word (``installing``), and details.
ReportProgress = Callable[[str, str], Awaitable[None]]


class Ended(Protocol):
    """Hears that what was ready has ended by itself."""

    def __call__(self, reason: str, *, wanted: bool = False) -> None:
        """Take the reason; ``wanted``: it asked for its end, so it is not started again."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The ETL that a runner is for. ``uid`` tells it from others of its name, ``number`` from others of this run."""

    spec: EtlSpec
    uid: int
    number: int
    places: Places
    log: TransformLog

    @property
    def scratch(self) -> str:
        """The directory of its processes' temporary files."""
        return self.places.scratch(self.number)


class Runner(Protocol):
    """Makes one ETL ready on this node and ends it, any number of times.

    One call at a time, all in the controller's loop; what blocks goes to threads.
    """

    @property
    def lock(self) -> Lock | None:
        """What its dependencies came to, if it has an environment: kept with the ETL."""

    @property
    def environment_directory(self) -> str | None:
        """The cached environment that it uses, which must stay."""

    @property
    def prepared(self) -> bool:
        """Whether ``launch`` may be called without ``prepare``."""

    @property
    def blameless(self) -> bool:
        """Whether what was launched last was ended by somebody else, for which the ETL can do nothing."""

    @property
    def tree(self) -> int:
        """The process at the top of what was launched, 0 if nothing is, or it is not on this machine."""

    async def prepare(self, progress: ReportProgress, deadline: float, cancel: threading.Event) -> None:
        """Get what it needs to be launched. ``deadline`` is on ``time.monotonic()``.

        Raises AisError with the reason, also soon after ``cancel`` is set.
        """

    async def launch(self, progress: ReportProgress, ended: Ended) -> asyncio.Future[None]:
        """Start it; the future is done when it takes objects, or has failed with an EtlInitError.

        Whoever waits for it may cancel it. After it was done, ``ended`` is called at most once.
        """

    async def end(self) -> None:
        """End what was launched, if anything was, and leave nothing of it but files in its directories."""

    async def remove(self) -> None:
        """Remove those files too: nothing is launched any more."""

    def found(self) -> dict[str, Any]:
        """Return where it takes objects: the fields of ``Running`` that only the runner knows."""

    def details(self) -> dict[str, Any]:
        """Return what listings tell of how it runs."""

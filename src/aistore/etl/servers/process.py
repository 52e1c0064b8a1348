"""Starts the server of a transform as processes of this machine, in the sandbox and in its environment."""

from __future__ import annotations

import os
import threading
from typing import Any

from ...fallbacks import cores_for
from ..dependencies import Dependencies, OnDependencies
from ..environments.lock import Lock
from ..launcher import Launched
from ..runners import Assignment, ReportProgress
from .launch import ServerOptions, launch_server
from .starter import Start


class ProcessStarter(OnDependencies):
    """A ``Starter``; ``lock`` and ``locked`` as in ``Dependencies``."""

    def __init__(self, assignment: Assignment, lock: Lock | None, *, locked: bool) -> None:
        self._etl = assignment
        self._dependencies = Dependencies(
            assignment.spec, assignment.places.environments, assignment.log, lock, locked=locked
        )

    @property
    def advice(self) -> str:
        """What of its dependencies it had to do without."""
        return self._dependencies.left_out

    async def prepare(self, progress: ReportProgress, deadline: float, cancel: threading.Event) -> None:
        """Find or make the environment."""
        await self._dependencies.prepare(progress, deadline, cancel)

    def start(self, start: Start) -> Launched:
        """Start the process tree."""
        assert self.environment is not None
        spec, scratch = self._etl.spec, self._etl.scratch
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        options = ServerOptions(
            spec=spec,
            python=self.environment.python,
            base_python=self._dependencies.base_python,
            scratch=scratch,
            files=start.files,
            target_url=start.target_url,
            environment=self.environment.directory,
            workers=spec.workers or cores_for(spec.cpus),
            hidden=(self._etl.places.hidden,),
        )
        return launch_server(options, start.sockets, start.calls, start.log_fd)

    def clean(self, *, guarded: bool) -> None:
        """Nothing is left: processes end with their guard."""

    def details(self) -> dict[str, Any]:
        """Return its interpreter."""
        return {
            "python": self.environment.python if self.environment else "",
            "environment_reused": self.environment.reused if self.environment else False,
        }

"""How the server of a transform is started: as a process of this machine (process.py), or as a container."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from socket import socket
from typing import Any, Protocol

from ..environments.lock import Lock
from ..launcher import Launched
from ..runners import ReportProgress


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a server: its two doors (worker/doors.py), the directory of files that it can read, and its log.

    ``target_url`` may have ``{calls_port}`` in it.
    """

    sockets: socket
    calls: socket
    files: str
    target_url: str
    log_fd: int


class Starter(Protocol):
    """Starts the server of one ETL, any number of times."""

    @property
    def lock(self) -> Lock | None:
        """What its dependencies came to, if it has any."""

    @property
    def environment_directory(self) -> str | None:
        """The cached environment that it uses."""

    @property
    def prepared(self) -> bool:
        """Whether it has what it needs to start."""

    @property
    def advice(self) -> str:
        """What may help whoever's server does not come up."""

    async def prepare(self, progress: ReportProgress, deadline: float, cancel: threading.Event) -> None:
        """Get what it needs to start; raises AisError."""

    def start(self, start: Start) -> Launched:
        """Start the server; its events tell how that goes, the first of them at which port it listens. Blocks shortly.

        Raises EtlInitError when it cannot be started at all.
        """

    def clean(self, *, guarded: bool) -> None:
        """Remove what the last start has left, if its guard has not done so (``guarded``). Blocks shortly."""

    def details(self) -> dict[str, Any]:
        """Return what listings tell of how it is run."""

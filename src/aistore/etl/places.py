"""Where the controller keeps what belongs to transforms."""

from __future__ import annotations

import os
import secrets

from ..observe.totals import TotalsReader
from ..settings import DEFAULT_ETL_IDLE_SECONDS


class Places:
    """The directories of transforms on this node; ``hidden`` is what they never see (default: ``data``).

    ``queue`` is how many objects may wait for workers, ``idle_seconds`` how long workers without any stay.
    ``container_engine`` is the program that runs images (default: one that is there).
    """

    def __init__(
        self, data: str, runtime: str, queue: int, hidden: str = "", idle_seconds: float = DEFAULT_ETL_IDLE_SECONDS,
        container_engine: str = "",
    ) -> None:  # fmt: skip
        self.hidden = hidden or data
        self.environments = os.path.join(data, "envs")
        self.etls = os.path.join(data, "etl")
        self.container_engine = container_engine
        self.runtime = runtime
        self.queue = queue
        self.idle_seconds = idle_seconds
        self.totals = TotalsReader(runtime)
        # Sockets and marks of a killed controller are still there, and HTTP workers know their names: each run has its
        # own.
        self.run = secrets.token_hex(4)
        for name in os.listdir(runtime):
            if name.startswith("etl-") and name.endswith((".sock", ".call", ".mark")):
                os.unlink(os.path.join(runtime, name))
        for directory in (self.environments, self.etls):
            os.makedirs(directory, exist_ok=True)

    def exchange(self, number: int) -> str:
        """Return the directory of files for the calls of the ETL that is this controller's ``number``-th."""
        return os.path.join(self.runtime, f"exchange-{number}")

    def socket(self, number: int, incarnation: int) -> str:
        """Return the path of a socket of the ETL that is this controller's ``number``-th, launched so many times."""
        return os.path.join(self.runtime, f"etl-{self.run}-{number}-{incarnation}.sock")

    def mark(self, number: int, launches: int) -> str:
        """Return the path of a file that says that the ETL runs as it was launched last."""
        return os.path.join(self.runtime, f"etl-{self.run}-{number}-{launches}.mark")

    def scratch(self, number: int) -> str:
        """Return the directory of temporary files of the ETL that is this controller's ``number``-th."""
        return os.path.join(self.runtime, f"scratch-{number}")

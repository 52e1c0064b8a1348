"""The environment of one ETL: made from its specification, with its lock, in a thread."""

from __future__ import annotations

import asyncio
import threading

from ..model.etl import EtlSpec, Sandbox
from .confinement import confined_run
from .environments.commands import run_command
from .environments.environment import Environment, prepare
from .environments.lock import Lock, check_lock, runtime_of
from .environments.runtimes import resolve_runtime
from .environments.snapshot import is_snapshot, left_out
from .log import TransformLog
from .runners import ReportProgress

_LEFT_OUT_SHOWN = 20


class Dependencies:
    """What an ETL depends on, and the environment that has it.

    ``locked``: ``lock`` is that of other nodes too, so it is this lock that is installed, or nothing.
    """

    def __init__(self, spec: EtlSpec, environments: str, log: TransformLog, lock: Lock | None, *, locked: bool) -> None:
        self._spec = spec
        self._directory = environments
        self._log = log
        self._locked = locked
        self.lock = lock
        self.environment: Environment | None = None
        self.base_python = ""

    async def prepare(self, report: ReportProgress, deadline: float, cancel: threading.Event) -> None:
        """Find or make the environment; raises as ``environment.prepare`` does."""
        loop = asyncio.get_running_loop()

        def progress(stage: str, message: str) -> None:
            asyncio.run_coroutine_threadsafe(_as_coroutine(report, stage, message), loop)

        def work() -> Environment:
            spec, shared = self._spec, self.lock if self._locked else None
            # What "python3" is differs from node to node.
            runtime = resolve_runtime(spec.runtime if shared is None else runtime_of(shared))
            if shared is not None:
                check_lock(shared, runtime)
            self.base_python = runtime.python
            return prepare(
                spec.dependencies,
                runtime,
                self._directory,
                progress=progress,
                deadline=deadline,
                cancel=cancel,
                run=confined_run() if spec.sandbox is Sandbox.ON else run_command,
                lock=self.lock,
                snapshot=is_snapshot(spec.code, spec.dependencies),
            )

        self.environment = await asyncio.to_thread(work)
        if self.lock is None or not self._locked:
            self.lock = self.environment.lock
        if self.left_out:
            self._log.write(f"Warning: {self.left_out}\n")
            await report("resolving", f"Warning: {self.left_out}")

    @property
    def left_out(self) -> str:
        """The dependencies that this ETL was made without, in words; only a snapshot can have any."""
        spec = self._spec
        if self.lock is None or not is_snapshot(spec.code, spec.dependencies):
            return ""
        names = left_out(spec.dependencies, self.lock)
        if not names:
            return ""
        shown, more = names[:_LEFT_OUT_SHOWN], len(names) - _LEFT_OUT_SHOWN
        return f"left out, because the package index has nothing of the kind for {spec.runtime}: {', '.join(shown)}" + (
            f" and {more} more" if more > 0 else ""
        )


class OnDependencies:
    """What runs on the environment of its ETL's dependencies: the part of a ``Runner`` that tells of it."""

    _dependencies: Dependencies

    @property
    def lock(self) -> Lock | None:
        """What its dependencies came to."""
        return self._dependencies.lock

    @property
    def environment(self) -> Environment | None:
        """Its environment, once it is prepared."""
        return self._dependencies.environment

    @property
    def environment_directory(self) -> str | None:
        """The cached environment that it uses."""
        return self.environment.directory if self.environment else None

    @property
    def prepared(self) -> bool:
        """Whether it has its environment."""
        return self.environment is not None


async def _as_coroutine(report: ReportProgress, stage: str, message: str) -> None:
    await report(stage, message)

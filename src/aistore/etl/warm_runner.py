"""Runs an ETL made of code: a parent process that imported what it needs, and warm workers forked from it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from typing import Any

from ..errors import EtlInitError, EtlNotRunningError
from ..fallbacks import cores_for
from ..model.etl import Isolation, Network, Sandbox
from . import launcher
from .counted import set_workers
from .dependencies import Dependencies, OnDependencies
from .environments.environment import Environment
from .environments.lock import Lock
from .events import events_of
from .peers import MESSAGES_KIND
from .runners import Assignment, Ended, ReportProgress
from .worker.clearing import remove_tree

_EXIT_STATUSES_KEPT = 256
_EXIT_STATUS_WAIT_SECONDS = 2.0


class WarmRunner(OnDependencies):
    """The process tree of one ETL made of code. A ``Runner``; ``lock`` and ``locked`` as in ``Dependencies``."""

    def __init__(self, assignment: Assignment, lock: Lock | None, *, locked: bool) -> None:
        self._etl = assignment
        self._dependencies = Dependencies(
            assignment.spec, assignment.places.environments, assignment.log, lock, locked=locked
        )
        self.layers: list[str] = []
        self.missing: list[str] = []
        self.launched: launcher.Launched | None = None
        self._incarnation = 0
        self._listener: socket.socket | None = None
        self._watch: asyncio.Task[None] | None = None
        self._statuses: dict[int, int] = {}
        self._excesses: dict[int, str] = {}  # of workers that the guard ended: what they had too much of
        self._exited = asyncio.Condition()
        self._up = False

    @property
    def blameless(self) -> bool:
        """Whether somebody killed the guard, the store's own process beside it."""
        return self.launched is not None and self.launched.guard_was_killed

    @property
    def tree(self) -> int:
        """The guard, above all others."""
        return self.launched.guard_pid if self.launched is not None else 0

    @property
    def socket_path(self) -> str:
        """Where the workers of this incarnation accept."""
        return self._etl.places.socket(self._etl.number, self._incarnation)

    async def prepare(self, progress: ReportProgress, deadline: float, cancel: threading.Event) -> None:
        """Find or make the environment."""
        await self._dependencies.prepare(progress, deadline, cancel)

    async def launch(self, progress: ReportProgress, ended: Ended) -> asyncio.Future[None]:
        """Start the parent process; its workers then accept."""
        assert self.environment is not None
        self._incarnation += 1
        self._listener = socket.socket(socket.AF_UNIX, MESSAGES_KIND)
        _unlink(self.socket_path)  # a controller that was killed left it
        self._listener.bind(self.socket_path)
        self._listener.listen(self._etl.places.queue)
        options = self._launch_options(self.environment)
        self.launched = await asyncio.to_thread(launcher.launch, options, self._listener, self._etl.log.writer)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.ensure_future(self._watch_parent(self.launched, ready, progress, ended))
        return ready

    def _launch_options(self, environment: Environment) -> launcher.LaunchOptions:
        spec, scratch = self._etl.spec, self._etl.scratch
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        fork = spec.isolation is Isolation.FORK
        return launcher.LaunchOptions(
            name=spec.name,
            kind="script" if spec.communication == "io://" else "function",
            code=spec.code,
            python=environment.python,
            base_python=self._dependencies.base_python,
            environment=environment.directory,
            scratch=scratch,
            workers=spec.workers or cores_for(spec.cpus),
            idle_seconds=self._etl.places.idle_seconds,
            objects_per_worker=1 if fork else launcher.OBJECTS_PER_WORKER,
            memory_bytes_max=spec.memory_bytes,
            sandbox=spec.sandbox is Sandbox.ON,
            hidden=(self._etl.places.hidden,),
            filename=spec.filename,
            env=dict(spec.env),
            network=spec.network is Network.FULL,
            cpus=spec.cpus,
        )

    async def _watch_parent(
        self, launched: launcher.Launched, ready: asyncio.Future[None], progress: ReportProgress, ended: Ended
    ) -> None:
        """Read the parent's messages until it ends, and say so."""
        reason = "the transform's parent process ended"
        confined = imports = False
        async for event in events_of(launched):
            kind = event["event"]
            if kind == "sandbox" and not confined:  # the first is the sandbox's own; the code could send others
                confined = True
                self.layers, self.missing = list(event.get("layers", [])), list(event.get("missing", []))
            elif kind == "importing" and not imports:  # the code could send more of them
                imports = True
                await progress("importing", self.environment.python if self.environment else "")
            elif kind == "ready" and not ready.done():
                self._up = True
                ready.set_result(None)
            elif kind == "failed":
                reason = _failure_text(event)
                break
            elif kind == "excess":
                self._etl.log.write(event["message"] + "\n")
                reason = event["message"] if event["whole"] else reason
                self._note_excess(event["pid"], event["message"])
            elif kind == "worker":
                self._statuses.pop(event["pid"], None)  # of an earlier process with that number
                self._excesses.pop(event["pid"], None)
                set_workers(self._etl.spec.name, self._etl.uid, launched.workers)
            elif kind == "exited":
                set_workers(self._etl.spec.name, self._etl.uid, launched.workers)
                await self._note_exit(event["pid"], event["status"])
        if ready.cancelled():
            return
        if not ready.done():
            text = self._etl.log.tail(2000)
            message = reason if "\n" in reason or not text else f"{reason}\n{text}"
            ready.set_exception(EtlInitError(message, hint=self._dependencies.left_out))
            return
        await self._note_end()
        ended(reason)

    def _note_excess(self, pid: int, message: str) -> None:
        self._excesses[pid] = message
        while len(self._excesses) > _EXIT_STATUSES_KEPT:
            del self._excesses[next(iter(self._excesses))]

    async def _note_exit(self, pid: int, status: int) -> None:
        async with self._exited:
            self._statuses[pid] = status
            while len(self._statuses) > _EXIT_STATUSES_KEPT:
                del self._statuses[next(iter(self._statuses))]
            self._exited.notify_all()

    async def _note_end(self) -> None:
        async with self._exited:
            self._up = False
            self._exited.notify_all()

    async def exit_status(self, pid: int, socket_path: str) -> tuple[int | None, str]:
        """Return the wait status with which a worker ended, None if its parent does not tell within some seconds.

        With it comes what the guard ended it for, empty if it did not.
        Raises EtlNotRunningError if the whole process tree that accepted at ``socket_path`` has ended.
        """

        def gone() -> bool:
            return not self._up or self.socket_path != socket_path

        async def wait() -> None:
            async with self._exited:
                await self._exited.wait_for(lambda: pid in self._statuses or gone())

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), _EXIT_STATUS_WAIT_SECONDS)
        if pid not in self._statuses and gone():  # which is not the object's fault
            raise EtlNotRunningError(f"etl job {self._etl.spec.name} ended during the object", hint="try again")
        return self._statuses.get(pid), self._excesses.get(pid, "")

    def end_worker(self, pid: int, turn: int, socket_path: str) -> None:
        """Have a worker ended that is at its ``turn``-th object, if it is of the processes at ``socket_path``."""
        if self.launched is not None and self.socket_path == socket_path:
            self.launched.end_worker(pid, turn)

    async def end(self) -> None:
        """End the whole process tree."""
        set_workers(self._etl.spec.name, self._etl.uid, 0)
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await self._note_end()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        launched, self.launched = self.launched, None
        if launched is not None:
            launched.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            _unlink(self.socket_path)

    async def remove(self) -> None:
        """Remove its temporary files."""
        await asyncio.to_thread(remove_tree, self._etl.scratch)

    def found(self) -> dict[str, Any]:
        """Return where its workers accept."""
        return {"socket_path": self.socket_path}

    def details(self) -> dict[str, Any]:
        """Return its interpreter and its sandbox."""
        return {
            "python": self.environment.python if self.environment else "",
            "environment_reused": self.environment.reused if self.environment else False,
            "sandbox_layers": self.layers,
            "sandbox_missing": self.missing,
        }


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _failure_text(event: dict[str, Any]) -> str:
    what = {
        "syntax": "the transform's code does not compile",
        "import": "an import of the transform failed",
        "contract": "the transform's code does not do what its communication type needs",
        "sandbox": "the sandbox cannot be set up on this machine",
        "workers": "the transform's workers end as soon as they are started",
    }.get(str(event.get("reason")), "the transform could not be made ready")
    return f"{what}: {event.get('traceback') or event.get('message') or ''}".rstrip()

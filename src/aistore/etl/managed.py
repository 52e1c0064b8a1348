"""One ETL in the controller: drives its life (machine.py) with an environment, a parent process, a log."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from ..errors import AisError, ConflictError, EtlInitError, EtlNotFoundError, EtlNotRunningError
from ..fallbacks import usable_cores
from ..model.etl import EtlSpec, Isolation, Sandbox, Stage
from ..observe.layout import ETL_ERRORS, ETL_IN_BYTES, ETL_OBJECTS, ETL_OUT_BYTES
from ..observe.totals import TotalsReader
from . import launcher
from .confinement import confined_run
from .counted import count_restart, set_workers
from .environments.commands import run_command
from .environments.environment import Environment, prepare
from .environments.lock import Lock, check_lock, runtime_of
from .environments.runtimes import resolve_runtime
from .environments.snapshot import is_snapshot, left_out
from .log import TransformLog
from .machine import Life, Todo
from .peers import MESSAGES_KIND

ReportProgress = Callable[[str, str], Awaitable[None]]

_log = logging.getLogger("aistore.etl")

_EXIT_STATUSES_KEPT = 256
_EXIT_STATUS_WAIT_SECONDS = 2.0


class Places:
    """Where the controller keeps what belongs to transforms; ``hidden`` is what they never see (default: ``data``)."""

    def __init__(self, data: str, runtime: str, queue: int, hidden: str = "") -> None:
        self.hidden = hidden or data
        self.environments = os.path.join(data, "envs")
        self.etls = os.path.join(data, "etl")
        self.runtime = runtime
        self.queue = queue
        self.totals = TotalsReader(runtime)
        # Sockets of a killed controller are still there, and HTTP workers know their names: each run has its own.
        self.run = secrets.token_hex(4)
        for name in os.listdir(runtime):
            if name.startswith("etl-") and name.endswith(".sock"):
                os.unlink(os.path.join(runtime, name))
        for directory in (self.environments, self.etls):
            os.makedirs(directory, exist_ok=True)


class ManagedEtl:
    """One ETL. All methods run in the controller's loop; what blocks goes to threads.

    ``locked``: its ``lock`` is that of other nodes too, so it is this lock that is installed, or nothing.
    """

    def __init__(
        self, spec: EtlSpec, places: Places, number: int, lock: Lock | None = None, uid: int = 0, *,
        locked: bool = False,
    ) -> None:  # fmt: skip
        self.spec = spec
        self.uid = uid
        self.lock = lock
        self._locked = locked
        self.life = Life()
        self.environment: Environment | None = None
        self.layers: list[str] = []
        self.missing: list[str] = []
        self.log = TransformLog(os.path.join(places.etls, f"{spec.name}.log"))
        self.changed = asyncio.Condition()
        self._places = places
        self._number = number
        self._incarnation = 0
        self._launched: launcher.Launched | None = None
        self._listener: socket.socket | None = None
        self._cancel = threading.Event()
        self._statuses: dict[int, int] = {}
        self._base_python = ""
        self._watch: asyncio.Task[None] | None = None
        self._restart: asyncio.Task[None] | None = None
        # One at a time makes the ETL ready, starts it again or ends it: what one of them has made (processes, sockets,
        # the log) the next one finds whole. Whoever wants to end it says so before it waits for its turn.
        self._turn = asyncio.Lock()
        self._ending = 0
        self._interrupted = asyncio.Event()
        self._closed = False

    @property
    def runs(self) -> bool:
        """Whether it takes objects."""
        return self.life.stage is Stage.RUNNING

    @property
    def socket_path(self) -> str:
        """Where the workers of this incarnation accept."""
        return os.path.join(self._places.runtime, f"etl-{self._places.run}-{self._number}-{self._incarnation}.sock")

    @property
    def scratch(self) -> str:
        """The directory of its processes' temporary files."""
        return os.path.join(self._places.runtime, f"scratch-{self._number}")

    async def bring_up(self, report: ReportProgress) -> None:
        """Make the transform ready, or raise EtlInitError with the reason; ends in Running or Aborted.

        Raises ConflictError if it is not stopped, or is being stopped, and EtlNotFoundError if it was removed.
        """
        async with self._turn:
            if self._closed:
                raise EtlNotFoundError.of(self.spec.name)
            if self._ending or self.life.stage is Stage.RUNNING:
                stage = "stopping" if self._ending else self.life.stage.value
                raise ConflictError(f"etl job {self.spec.name}: can't start during {stage} stage")
            await self._set(self.life.begin()[0])
            self._cancel = threading.Event()
            deadline = time.monotonic() + self.spec.init_timeout_seconds
            try:
                await self._prepare(report, deadline)
                await self._launch(report, deadline)
            except BaseException as error:
                self._cancel.set()
                known = isinstance(error, AisError)
                await self._abort(str(error) if known else f"{type(error).__name__}: {error}")
                raise
        await report("ready", f"{self.spec.name} takes objects")

    async def bring_up_again(self, report: ReportProgress) -> None:
        """Make a transform ready that ran before, with the restarts of one that crashed; ends in Running or Aborted."""
        async with self._turn:
            if self._closed or self._ending:
                return
            await self._set(self.life.begin()[0])
            self._cancel = threading.Event()
            await self._come_up(report)

    async def _come_up(self, report: ReportProgress) -> None:
        """Launch it until it is ready, stopped, or has not come up too often; whoever calls has the turn."""
        while True:
            deadline = time.monotonic() + self.spec.init_timeout_seconds
            try:
                if self.environment is None:
                    await self._prepare(report, deadline)
                await self._launch(report, deadline)
                return
            except AisError as error:
                reason = str(error)
            except Exception as error:
                _log.exception("etl job %s could not be started again", self.spec.name)
                reason = f"{type(error).__name__}: {error}"
            if self._ending:  # by whoever waits for the turn
                await self._end_processes()
                return
            _log.warning("etl job %s did not come up again: %s", self.spec.name, reason)
            if not await self._may_try_again(reason):
                return

    async def _may_try_again(self, reason: str) -> bool:
        """Note a crash; return whether to launch again, after a pause."""
        foul = self._launched is not None and self._launched.guard_was_killed
        life, todo = self.life.crashed(reason, time.monotonic(), counts=not foul)
        await self._set(life)
        await self._end_processes()
        if todo is not Todo.LAUNCH_LATER:
            return False
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._interrupted.wait(), life.pause_seconds)
        return not self._ending

    async def _prepare(self, report: ReportProgress, deadline: float) -> None:
        loop = asyncio.get_running_loop()

        def progress(stage: str, message: str) -> None:
            asyncio.run_coroutine_threadsafe(self._progress(report, stage, message), loop)

        def work() -> Environment:
            shared = self.lock if self._locked else None
            # What "python3" is differs from node to node.
            runtime = resolve_runtime(self.spec.runtime if shared is None else runtime_of(shared))
            if shared is not None:
                check_lock(shared, runtime)
            self._base_python = runtime.python
            return prepare(
                self.spec.dependencies,
                runtime,
                self._places.environments,
                progress=progress,
                deadline=deadline,
                cancel=self._cancel,
                run=confined_run() if self.spec.sandbox is Sandbox.ON else run_command,
                lock=self.lock,
                snapshot=is_snapshot(self.spec.code, self.spec.dependencies),
            )

        self.environment = await asyncio.to_thread(work)
        if self.lock is None or not self._locked:
            self.lock = self.environment.lock
        if self.left_out:
            self.log.write(f"Warning: {self._left_out_text()}\n")
            await self._progress(report, "resolving", f"Warning: {self._left_out_text()}")
        if self._ending:
            raise self._was_stopped()

    @property
    def left_out(self) -> list[str]:
        """The dependencies that this ETL was made without; only a snapshot can have any."""
        if self.lock is None or not is_snapshot(self.spec.code, self.spec.dependencies):
            return []
        return left_out(self.spec.dependencies, self.lock)

    def _left_out_text(self) -> str:
        shown, more = self.left_out[:20], len(self.left_out) - 20
        return (
            f"left out, because the package index has nothing of the kind for {self.spec.runtime}: {', '.join(shown)}"
            + (f" and {more} more" if more > 0 else "")
        )

    async def _progress(self, report: ReportProgress, stage: str, message: str) -> None:
        await self._set(self.life.progress(f"{stage}: {message}" if message else stage))
        await report(stage, message)

    def _was_stopped(self) -> EtlInitError:
        return EtlInitError(f"etl job {self.spec.name} was stopped while it was being made ready")

    async def _launch(self, report: ReportProgress, deadline: float) -> None:
        """Start the parent process and wait until its workers accept."""
        assert self.environment is not None
        await self._end_processes()
        self._incarnation += 1
        self._listener = socket.socket(socket.AF_UNIX, MESSAGES_KIND)
        _unlink(self.socket_path)  # a controller that was killed left it
        self._listener.bind(self.socket_path)
        self._listener.listen(self._places.queue)
        options = self._launch_options(self.environment)
        launched = await asyncio.to_thread(launcher.launch, options, self._listener, self.log.writer)
        self._launched = launched
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.ensure_future(self._watch_parent(launched, ready, report))
        stopped = asyncio.ensure_future(self._interrupted.wait())
        try:
            seconds = max(0.0, deadline - time.monotonic())
            await asyncio.wait((ready, stopped), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        if self._ending:
            ready.cancel()
            raise self._was_stopped()
        if not ready.done():
            ready.cancel()
            raise EtlInitError(
                f"timeout: etl job {self.spec.name} was not ready within {self.spec.init_timeout_seconds:g} s "
                f"({self.life.message or 'starting'})",
                hint="give it more time with --init-timeout",
            )
        try:
            ready.result()
        except EtlInitError as error:
            if self.left_out and not error.hint:
                raise EtlInitError(error.message, hint=self._left_out_text()) from error
            raise
        await self._set(self.life.ready())
        set_workers(self.spec.name, self.uid, options.workers)

    def _launch_options(self, environment: Environment) -> launcher.LaunchOptions:
        spec = self.spec
        os.makedirs(self.scratch, mode=0o700, exist_ok=True)
        fork = spec.isolation is Isolation.FORK
        return launcher.LaunchOptions(
            name=spec.name,
            kind="script" if spec.communication == "io://" else "function",
            code=spec.code,
            python=environment.python,
            base_python=self._base_python,
            environment=environment.directory,
            scratch=self.scratch,
            workers=spec.workers or usable_cores(),
            objects_per_worker=1 if fork else launcher.OBJECTS_PER_WORKER,
            sandbox=spec.sandbox is Sandbox.ON,
            hidden=(self._places.hidden,),
            filename=spec.filename,
        )

    async def _watch_parent(
        self, launched: launcher.Launched, ready: asyncio.Future[None], report: ReportProgress
    ) -> None:
        """Read the parent's messages until it ends, then restart it if it should be running."""
        reason = "the transform's parent process ended"
        confined = False
        async for event in _events(launched):
            kind = event["event"]
            if kind == "sandbox" and not confined:  # the first is the sandbox's own; the code could send others
                confined = True
                self.layers, self.missing = list(event.get("layers", [])), list(event.get("missing", []))
            elif kind == "importing":
                await self._progress(report, "importing", self.environment.python if self.environment else "")
            elif kind == "ready" and not ready.done():
                ready.set_result(None)
            elif kind == "failed":
                reason = _failure_text(event)
                break
            elif kind == "worker":
                self._statuses.pop(event["pid"], None)  # of an earlier process with that number
            elif kind == "exited":
                await self._note_exit(event["pid"], event["status"])
        if ready.cancelled():
            return
        if not ready.done():
            text = self.log.tail(2000)
            ready.set_exception(EtlInitError(reason if "\n" in reason or not text else f"{reason}\n{text}"))
            return
        self._restart = asyncio.ensure_future(self._crashed(launched, reason))

    async def _note_exit(self, pid: int, status: int) -> None:
        async with self.changed:
            self._statuses[pid] = status
            while len(self._statuses) > _EXIT_STATUSES_KEPT:
                del self._statuses[next(iter(self._statuses))]
            self.changed.notify_all()

    async def exit_status(self, pid: int, socket_path: str) -> int | None:
        """Return the wait status with which a worker ended, None if its parent does not tell within some seconds.

        Raises EtlNotRunningError if the whole process tree that accepted at ``socket_path`` has ended.
        """

        def gone() -> bool:
            return self.life.stage is not Stage.RUNNING or self.socket_path != socket_path

        async def wait() -> None:
            async with self.changed:
                await self.changed.wait_for(lambda: pid in self._statuses or gone())

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), _EXIT_STATUS_WAIT_SECONDS)
        if pid not in self._statuses and gone():  # which is not the object's fault
            raise EtlNotRunningError(f"etl job {self.spec.name} ended during the object", hint="try again")
        return self._statuses.get(pid)

    def end_worker(self, pid: int, turn: int, socket_path: str) -> None:
        """Have a worker ended that is at its ``turn``-th object, if it is of the processes at ``socket_path``."""
        if self._launched is not None and self.socket_path == socket_path:
            self._launched.end_worker(pid, turn)

    async def _crashed(self, launched: launcher.Launched, reason: str) -> None:
        """Start the transform again whose parent ended, unless it was stopped or made anew meanwhile."""
        async with self._turn:
            if self._launched is not launched or self._ending:
                return
            count_restart(self.spec.name, self.uid)
            if await self._may_try_again(reason):
                await self._come_up(_no_report)

    async def settled(self, seconds: float) -> None:
        """Return when the ETL is not being made ready any more, or after ``seconds``."""

        async def changed() -> None:
            async with self.changed:
                await self.changed.wait_for(lambda: self.life.stage is not Stage.INITIALIZING)

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(changed(), seconds)

    async def wait_running(self, seconds: float) -> None:
        """Return when the ETL takes objects; raises EtlNotRunningError if it is stopped, or not ready in time."""
        if self.life.stage is Stage.INITIALIZING:
            await self.settled(seconds)
        if self.life.stage is Stage.INITIALIZING:
            raise EtlNotRunningError(
                f"etl job {self.spec.name} is still Initializing ({self.life.message})", hint="try again later"
            )
        if self.life.stage is not Stage.RUNNING:
            first_line = self.life.message.splitlines()[0] if self.life.message else ""
            raise EtlNotRunningError(
                f"etl job {self.spec.name} is {self.life.stage.value} ({first_line})",
                hint=f"start it with `ais etl start {self.spec.name}`", status=409,
            )  # fmt: skip

    @contextlib.asynccontextmanager
    async def _ends(self) -> AsyncIterator[None]:
        """Take the turn to end this ETL; whoever is making it ready gives up for that."""
        self._ending += 1
        self._interrupted.set()
        self._cancel.set()
        try:
            async with self._turn:
                yield
        finally:
            self._ending -= 1
            if not self._ending:
                self._interrupted.clear()

    async def stop(self) -> None:
        """End the transform's processes; the ETL stays and can be started again."""
        async with self._ends():
            await self._set(self.life.stop()[0])
            await self._end_processes()

    async def _abort(self, reason: str) -> None:
        await self._set(self.life.failed(reason)[0])
        await self._end_processes()

    async def _end_processes(self) -> None:
        set_workers(self.spec.name, self.uid, 0)
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await asyncio.to_thread(self._close_processes)

    def _close_processes(self) -> None:
        launched, self._launched = self._launched, None
        if launched is not None:
            launched.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            _unlink(self.socket_path)

    async def _set(self, life: Life) -> None:
        async with self.changed:
            self.life = life
            self.changed.notify_all()

    def counts(self) -> tuple[int, int, int, int]:
        """Return objects, errors, bytes in and bytes out, of all HTTP workers and since the store or the ETL began."""
        numbers = self._places.totals.read().etl(self.spec.name, self.uid)
        return (
            numbers[ETL_OBJECTS], numbers[ETL_ERRORS], numbers[ETL_IN_BYTES], numbers[ETL_OUT_BYTES],
        )  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """Return the ETL's line in listings."""
        objects, errors, in_bytes, out_bytes = self.counts()
        return {
            "id": self.spec.name, "stage": self.life.stage.value, "xaction_id": f"etl-{self._number}",
            "obj_count": objects, "errors": errors, "in_bytes": in_bytes, "out_bytes": out_bytes,
            "communication": self.spec.communication, "runtime": self.spec.runtime,
            "sandbox": self.spec.sandbox.value, "isolation": self.spec.isolation.value, "message": self.life.message,
        }  # fmt: skip

    def details(self) -> dict[str, Any]:
        """Return everything there is to know about the ETL, its code included."""
        return {
            "init_msg": {
                "name": self.spec.name,
                "communication": self.spec.communication,
                "init_timeout": f"{self.spec.init_timeout_seconds:g}s",
                "obj_timeout": f"{self.spec.object_timeout_seconds:g}s",
                "support_direct_put": False,
                "runtime": {
                    "image": "",
                    "command": [],
                    "env": [],
                },
            },
            "obj_errors": [],
            **self.summary(),
            "code": self.spec.code,
            "dependencies": self.spec.dependencies,
            "digest": self.digest(),
            "lock": msgspec.to_builtins(self.lock),
            "python": self.environment.python if self.environment else "",
            "environment_reused": self.environment.reused if self.environment else False,
            "sandbox_layers": self.layers,
            "sandbox_missing": self.missing,
        }  # fmt: skip

    def digest(self) -> str:
        """Return what changes with anything that can change a result: the specification and the packages it runs on."""
        lock = self.lock.digest() if self.lock is not None else ""
        return hashlib.sha256(f"{self.spec.digest()} {lock}".encode()).hexdigest()[:16]

    async def close(self) -> None:
        """End everything of this ETL for good, without changing what is wanted of it. May be called again."""
        async with self._ends():
            if self._closed:
                return
            self._closed = True
            if self.life.stage is not Stage.ABORTED:
                await self._set(self.life.failed("ended with the store")[0])
            await self._end_processes()
            await asyncio.to_thread(shutil.rmtree, self.scratch, ignore_errors=True)
            self.log.close()


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


async def _events(launched: launcher.Launched) -> AsyncIterator[dict[str, Any]]:
    """Yield the parent's messages until its end."""
    loop = asyncio.get_running_loop()
    descriptor = launched.control.fileno()
    while True:
        readable = loop.create_future()
        loop.add_reader(descriptor, _set_done, readable)
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
        try:
            event = launched.receive(timeout_seconds=0)
        except BlockingIOError:  # a part of a message
            continue
        if event is None:
            return
        yield event


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _no_report(stage: str, message: str) -> None:
    """Nobody waits for this."""


def _failure_text(event: dict[str, Any]) -> str:
    what = {
        "syntax": "the transform's code does not compile",
        "import": "an import of the transform failed",
        "contract": "the transform's code does not do what its communication type needs",
        "sandbox": "the sandbox cannot be set up on this machine",
    }.get(str(event.get("reason")), "the transform could not be made ready")
    return f"{what}: {event.get('traceback') or event.get('message') or ''}".rstrip()

"""One ETL in the controller: drives its life (machine.py) with what runs it (runners.py), and a log."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ..errors import AisError, ConflictError, EtlInitError, EtlNotFoundError, EtlNotRunningError
from ..model.etl import EtlSpec, Source, Stage
from ..observe.layout import (
    ETL_CACHE_HIT_BYTES,
    ETL_CACHE_HITS,
    ETL_CACHE_MISSES,
    ETL_ERRORS,
    ETL_IN_BYTES,
    ETL_OBJECTS,
    ETL_OUT_BYTES,
)
from .containers.starter import ContainerStarter
from .counted import count_restart
from .endings import CRASHES_MAX, CrashesInARow, how_it_ended
from .environments.lock import Lock
from .log import TransformLog
from .machine import Life, Todo
from .places import Places
from .runners import Assignment, ReportProgress, Runner
from .servers.process import ProcessStarter
from .servers.runner import ServerRunner
from .specs.runtime_message import shown_message
from .usage import NOTHING, Meter
from .warm_runner import WarmRunner

_log = logging.getLogger("aistore.etl")

_LOG_SHOWN_BYTES = 2000


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
        self.life = Life()
        self.log = TransformLog(os.path.join(places.etls, f"{spec.name}.log"))
        self.runner = _runner(Assignment(spec, uid, number, places, self.log), lock, locked=locked)
        self.changed = asyncio.Condition()
        self._places = places
        self._number = number
        self._launches = 0
        self._cancel = threading.Event()
        self._restart: asyncio.Task[None] | None = None
        self._giving_up: asyncio.Task[None] | None = None
        self._crashes = CrashesInARow()
        self._meter = Meter(0)
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
    def lock(self) -> Lock | None:
        """What its dependencies came to."""
        return self.runner.lock

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
                if not self.runner.prepared:
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
        life, todo = self.life.crashed(reason, time.monotonic(), counts=not self.runner.blameless)
        await self._set(life)
        await self._end_processes()
        if todo is not Todo.LAUNCH_LATER:
            return False
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._interrupted.wait(), life.pause_seconds)
        return not self._ending

    async def _prepare(self, report: ReportProgress, deadline: float) -> None:
        await self.runner.prepare(self._progress_to(report), deadline, self._cancel)
        if self._ending:
            raise self._was_stopped()

    def _progress_to(self, report: ReportProgress) -> ReportProgress:
        """Return what notes progress in this ETL's life, and then tells ``report``."""

        async def progress(stage: str, message: str) -> None:
            await self._set(self.life.progress(f"{stage}: {message}" if message else stage))
            await report(stage, message)

        return progress

    def _was_stopped(self) -> EtlInitError:
        return EtlInitError(f"etl job {self.spec.name} was stopped while it was being made ready")

    async def _launch(self, report: ReportProgress, deadline: float) -> None:
        """Launch it and wait until it takes objects."""
        await self._end_processes()
        launch = self._launches
        ready = await self.runner.launch(self._progress_to(report), functools.partial(self._ended, launch))
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
            said = self.log.tail(_LOG_SHOWN_BYTES)
            raise EtlInitError(
                f"timeout: etl job {self.spec.name} was not ready within {self.spec.init_timeout_seconds:g} s "
                f"({self.life.message or 'starting'})" + (f"\n{said}" if said else ""),
                hint="give it more time with --init-timeout",
            )
        ready.result()
        with open(self._mark, "w"):
            pass
        self._crashes = CrashesInARow()
        await self._set(self.life.ready())

    def _ended(self, launch: int, reason: str, *, wanted: bool = False) -> None:
        """Start it again, if nobody else has to do with it: what was launched has ended by itself."""
        self._restart = asyncio.ensure_future(self._crashed(launch, reason, wanted))

    async def _crashed(self, launch: int, reason: str, wanted: bool) -> None:
        """Start the transform again that ended, unless it was stopped or made anew meanwhile, or wanted its end."""
        async with self._turn:
            if self._launches != launch or self._ending:
                return
            if wanted:
                await self._abort(reason)
                return
            count_restart(self.spec.name, self.uid)
            if await self._may_try_again(reason):
                await self._come_up(_no_report)

    def note_crash(self, status: int | None, said: str) -> None:
        """Note that an object ended its worker, which ``said`` something before on standard error.

        A transform of which so many in a row do is given up.
        """
        self.log.write(f"{said}\nWarning: an object's process {how_it_ended(status)}\n".lstrip())
        if self.life.stage is not Stage.RUNNING:
            return
        count = self._crashes.note(self.counts()[0])
        if count == CRASHES_MAX:
            reason = f"{count} objects in a row ended their worker, the last {how_it_ended(status)}"
            self._giving_up = asyncio.ensure_future(self._give_up(self._launches, reason))

    async def _give_up(self, launch: int, reason: str) -> None:
        async with self._turn:
            if self._launches == launch and not self._ending and self.life.stage is Stage.RUNNING:
                _log.warning("etl job %s is given up: %s", self.spec.name, reason)
                await self._abort(reason)

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

    @property
    def _mark(self) -> str:
        """A file that is there while what was launched last is what there is of this ETL."""
        return self._places.mark(self._number, self._launches)

    async def _end_processes(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark)  # first: from now on nobody gives out what it made before
        self._launches += 1
        await self.runner.end()

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

    def _cache_counts(self) -> dict[str, int]:
        numbers = self._places.totals.read().etl(self.spec.name, self.uid)
        return {
            "cache_hits": numbers[ETL_CACHE_HITS], "cache_hit_bytes": numbers[ETL_CACHE_HIT_BYTES],
            "cache_misses": numbers[ETL_CACHE_MISSES],
        }  # fmt: skip

    async def usage(self) -> dict[str, Any]:
        """Return cores in use lately, and of the processes CPU seconds, memory in bytes (PSS) and number.

        Zeros while nothing runs, and where the system does not tell.
        """
        tree = self.runner.tree
        if tree != self._meter.root:
            self._meter = Meter(tree)
        meter = self._meter
        cores, used = await asyncio.to_thread(meter.read) if tree else NOTHING
        return {
            "cpu": round(cores, 3), "cpu_seconds": used.cpu_seconds, "mem": used.memory_bytes,
            "processes": used.processes,
        }  # fmt: skip

    def found(self) -> dict[str, Any]:
        """Return where it takes objects, as ``Running`` has it."""
        return {
            **self.runner.found(), "name": self.spec.name, "uid": self.uid, "digest": self.digest(),
            "object_timeout_seconds": self.spec.object_timeout_seconds, "mark": self._mark,
            "deterministic": self.spec.deterministic, "cache": self.spec.cache,
        }  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """Return the ETL's line in listings."""
        objects, errors, in_bytes, out_bytes = self.counts()
        return {
            "id": self.spec.name, "stage": self.life.stage.value, "xaction_id": f"etl-{self._number}",
            "obj_count": objects, "errors": errors, "in_bytes": in_bytes, "out_bytes": out_bytes,
            "communication": self.spec.communication, "runtime": self.spec.runtime,
            "source": self.spec.source.value, "sandbox": self.spec.sandbox.value,
            "isolation": self.spec.isolation.value, "message": self.life.message,
        }  # fmt: skip

    def details(self) -> dict[str, Any]:
        """Return everything there is to know about the ETL, its code included."""
        return {
            "init_msg": shown_message(self.spec),
            "obj_errors": [],
            **self.summary(),
            "code": self.spec.code,
            "dependencies": self.spec.dependencies,
            "network": self.spec.network.value,
            "deterministic": self.spec.deterministic,
            "digest": self.digest(),
            "cache": self.spec.cache,
            **self._cache_counts(),
            "lock": msgspec.to_builtins(self.lock),
            **self.runner.details(),
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
            await self.runner.remove()
            self.log.close()


def _runner(assignment: Assignment, lock: Lock | None, *, locked: bool) -> Runner:
    """Return what runs an ETL of that kind."""
    if assignment.spec.source is Source.CODE:
        return WarmRunner(assignment, lock, locked=locked)
    if assignment.spec.source is Source.IMAGE:
        return ServerRunner(assignment, ContainerStarter(assignment))
    return ServerRunner(assignment, ProcessStarter(assignment, lock, locked=locked))


async def _no_report(stage: str, message: str) -> None:
    """Nobody waits for this."""

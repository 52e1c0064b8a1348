"""Runs a transform that is a server, on this node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import threading
from typing import Any

import msgspec

from ...errors import EtlInitError
from .. import launcher
from ..counted import set_workers
from ..environments.lock import Lock
from ..events import events_of
from ..runners import Assignment, Ended, ReportProgress
from ..running import Running
from .connect import calls_path
from .files import CallDirectories
from .health import Health
from .starter import Start, Starter

_LOG_SHOWN_BYTES = 2000
_BACKLOG = 1024
_ENDED_BY_SIGNAL = 128
_GUARD_SECONDS = 5.0
_CANNOT_CALL = (
    "a transform of type {} comes to the store for its objects, and this one would not reach it: a container's network "
    "is not entered here, or the sandbox has neither namespaces nor Linux 6.7; use hpush://, or files (ETL_DIRECT_FQN)"
)
_TELL_SECONDS = 0.2  # how often progress tells what keeps a server from being ready


class ServerRunner:
    """The server of one ETL, which ``starter`` starts. A ``Runner``."""

    def __init__(self, assignment: Assignment, starter: Starter) -> None:
        self._etl = assignment
        self.starter = starter
        self._directories = CallDirectories(assignment.places.exchange(assignment.number))
        self._secret = secrets.token_urlsafe(24)
        self.layers: list[str] = []
        self.missing: list[str] = []
        self.launched: launcher.Launched | None = None
        self._incarnation = 0
        self._doors: list[socket.socket] = []
        self._running = self._at(0, 0)
        self._watch: asyncio.Task[None] | None = None

    @property
    def lock(self) -> Lock | None:
        """What its dependencies came to."""
        return self.starter.lock

    @property
    def environment_directory(self) -> str | None:
        """The cached environment that it uses."""
        return self.starter.environment_directory

    @property
    def prepared(self) -> bool:
        """Whether it can be started."""
        return self.starter.prepared

    @property
    def tree(self) -> int:
        """Pid of the process that all of its processes descend from, 0 if there is none."""
        return self.launched.guard_pid if self.launched is not None else 0

    @property
    def blameless(self) -> bool:
        """Whether somebody killed the guard, the store's own process beside it."""
        return self.launched is not None and self.launched.guard_was_killed

    async def prepare(self, progress: ReportProgress, deadline: float, cancel: threading.Event) -> None:
        """Get what it needs to start."""
        await self.starter.prepare(progress, deadline, cancel)

    async def launch(self, progress: ReportProgress, ended: Ended) -> asyncio.Future[None]:
        """Start the server; it then has to answer at ``/health``."""
        self._incarnation += 1
        self._running = self._at(0, 0)
        self._doors = [_door(path) for path in self._door_paths()]
        self._directories.make()
        sockets, calls = self._doors
        start = Start(sockets, calls, self._directories.files, self._target_url("{calls_port}"), self._etl.log.writer)
        launched = await asyncio.to_thread(self.starter.start, start)
        self.launched = launched
        for door in self._doors:  # the guard has them
            door.close()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.ensure_future(self._watch_server(launched, ready, progress, ended))
        return ready

    def _door_paths(self) -> list[str]:
        sockets = self._etl.places.socket(self._etl.number, self._incarnation)
        return [sockets, calls_path(sockets)]

    def _target_url(self, port: object) -> str:
        return f"http://127.0.0.1:{port}/v1/etl/_object/{self._etl.spec.name}/{self._secret}"

    def _at(self, port: int, calls_port: int) -> Running:
        """Return where it is reached; without a port for its calls it can make none."""
        spec = self._etl.spec
        return Running(
            name=spec.name,
            socket_path=self._door_paths()[0],
            object_timeout_seconds=spec.object_timeout_seconds,
            communication=spec.communication,
            port=port,
            target_url=self._target_url(calls_port),
            gateway=bool(calls_port),
            files=self._directories.files,
            calls=self._directories.calls,
            direct_file=spec.direct_file,
            direct_put=spec.direct_put and bool(calls_port),
            push_to_root=spec.push_to_root,
        )

    async def _watch_server(
        self, launched: launcher.Launched, ready: asyncio.Future[None], progress: ReportProgress, ended: Ended
    ) -> None:
        """Wait until the server is healthy, and then until it ends, and say so."""
        reason, wanted, excess = "somebody ended the guard of the transform's server", False, ""
        healthy: asyncio.Task[None] | None = None
        try:
            async for event in events_of(launched):
                kind = event["event"]
                if kind == "sandbox":
                    self.layers, self.missing = event["layers"], event["missing"]
                    self._running = self._at(int(event["port"]), int(event["calls_port"]))
                    if self._could_get_nothing():
                        reason = _CANNOT_CALL.format(self._etl.spec.communication)
                        break
                    healthy = asyncio.ensure_future(self._wait_healthy(ready, progress))
                elif kind == "excess":
                    self._etl.log.write(f"{event['message']}\n")
                elif kind == "failed":
                    reason = f"the server cannot be started: {event['message']}"
                    break
                elif kind == "excess":
                    self._etl.log.write(f"{event['message']}\n")
                    excess = f"{event['message']}: "
                elif kind == "ended":
                    how, wanted = _how_it_ended(event["status"])
                    reason = excess + how
                    break
            else:
                await asyncio.to_thread(launched.wait, _GUARD_SECONDS)  # else nobody knows yet that it was killed
        finally:
            if healthy is not None:
                healthy.cancel()
                await asyncio.gather(healthy, return_exceptions=True)
        if ready.cancelled():
            return
        if not ready.done():
            said = self._etl.log.tail(_LOG_SHOWN_BYTES)
            ready.set_exception(EtlInitError(f"{reason}\n{said}" if said else reason, hint=self.starter.advice))
            return
        said = self._etl.log.tail(_LOG_SHOWN_BYTES)
        ended(f"{reason}\n{said}" if said else reason, wanted=wanted)

    def _could_get_nothing(self) -> bool:
        """Whether it would have to come for its objects, and cannot."""
        pulls = self._etl.spec.communication in ("hpull://", "hrev://") and not self._etl.spec.direct_file
        return pulls and not self._running.gateway

    async def _wait_healthy(self, ready: asyncio.Future[None], progress: ReportProgress) -> None:
        health = Health(self._running)
        asking = asyncio.ensure_future(health.wait())
        told = ""
        try:
            while not (await asyncio.wait((asking,), timeout=_TELL_SECONDS))[0]:
                if health.says != told:
                    told = health.says
                    await progress("starting", told)
        finally:
            asking.cancel()
        set_workers(self._etl.spec.name, self._etl.uid, 1)
        if not ready.done():
            ready.set_result(None)

    async def end(self) -> None:
        """End the whole process tree."""
        set_workers(self._etl.spec.name, self._etl.uid, 0)
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        launched, self.launched = self.launched, None
        if launched is not None:
            launched.close()
            self.starter.clean(guarded=not launched.guard_was_killed)
        for door in self._doors:
            door.close()
        for path in self._door_paths():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._directories.remove()

    async def remove(self) -> None:
        """Remove its temporary files."""
        await asyncio.to_thread(shutil.rmtree, self._etl.scratch, ignore_errors=True)

    def found(self) -> dict[str, Any]:
        """Return where its server is reached."""
        answer: dict[str, Any] = msgspec.to_builtins(self._running)
        return answer

    def details(self) -> dict[str, Any]:
        """Return how it is run, and its sandbox."""
        return {**self.starter.details(), "sandbox_layers": self.layers, "sandbox_missing": self.missing}


def _door(path: str) -> socket.socket:
    """Return a listening Unix socket, for the guard."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # a controller that was killed left it
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(path)
    door.listen(_BACKLOG)
    return door


def _how_it_ended(status: int) -> tuple[str, bool]:
    """Return how a server ended, in words, and whether somebody asked it to.

    A transform may ask its container to end, with SIGTERM to process 1; who asks does not want it back.
    """
    if status <= _ENDED_BY_SIGNAL:
        return f"the transform's server ended with exit status {status}", False
    number = status - _ENDED_BY_SIGNAL
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"the transform's server ended with exit status {status}", False
    return f"the transform's server was ended by {name}", number == signal.SIGTERM

"""Starts the server of a transform as a container."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import sys
import threading
from dataclasses import replace
from typing import Any

from ...fallbacks import cores_for, lacking
from ...model.etl import Network, Sandbox
from ..environments.lock import Lock
from ..launcher import SCRATCH_BYTES_MAX, Launched, start_guard
from ..places import Places
from ..runners import Assignment, ReportProgress
from ..servers.launch import CALLS_PORT, contract_variables
from ..servers.starter import Start
from .engine import ALTERNATIVES, RUN_LABEL, STORE_LABEL, Engine, EngineError, find_engine, remove_leftovers
from .network import choose_network

_log = logging.getLogger("aistore.etl")

_GUARD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.py")
_PROCESSES_MAX, _DESCRIPTORS_MAX = 1024, 4096
_USER_PROCESSES_MAX = 16_384  # of a user, who may have others outside; the default of engines is often not allowed
#: Variables that the engine's own command goes by, so that a container's cannot be handed through it by name.
_OF_THE_ENGINE = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|PWD|TMPDIR|LANG|LC_.*|LD_.*|GO.*|SSL_.*|XDG_.*|DOCKER.*|CONTAINER.*|PODMAN.*|"
    r"BUILDAH.*|STORAGE_.*|REGISTRY_.*|NETAVARK_.*|_.*|(?i:.*_proxy)"
)


class ContainerStarter:
    """A ``Starter`` of the image of one ETL."""

    def __init__(self, assignment: Assignment) -> None:
        self._etl = assignment
        self._engine: Engine | None = None
        self._started = 0

    @property
    def lock(self) -> Lock | None:
        """None: an image has what it needs."""
        return None

    @property
    def environment_directory(self) -> str | None:
        """None."""
        return None

    @property
    def prepared(self) -> bool:
        """Whether there is an engine."""
        return self._engine is not None

    @property
    def advice(self) -> str:
        """What to do without containers."""
        return "" if self._engine else ALTERNATIVES

    async def prepare(self, progress: ReportProgress, deadline: float, cancel: threading.Event) -> None:
        """Find an engine that answers; raises EtlInitError."""
        engine = await asyncio.to_thread(find_engine, self._etl.places.container_engine)
        choose_network(self._etl.spec, engine)
        await asyncio.to_thread(note_containers, self._etl.places)
        self._engine = engine
        await progress("starting", f"{engine.name} {self._etl.spec.image}")

    @property
    def _name(self) -> str:
        return f"ais-{self._etl.spec.name}-{self._etl.places.run}-{self._etl.number}-{self._started}".lower()

    def start(self, start: Start) -> Launched:
        """Start the container; an image that is not there yet is pulled first, by its guard."""
        assert self._engine is not None
        self._started += 1
        spec = self._etl.spec
        enters = choose_network(spec, self._engine)
        variables = {
            **contract_variables(spec if enters else replace(spec, direct_put=False)),
            "NUM_WORKERS": str(spec.workers or cores_for(spec.cpus)), **dict(spec.env),
            "PORT": str(spec.port), "AIS_TARGET_URL": start.target_url.replace("{calls_port}", str(CALLS_PORT)),
        }  # fmt: skip
        by_name = {name: value for name, value in variables.items() if not _OF_THE_ENGINE.fullmatch(name)}
        named = [f"{name}" if name in by_name else f"{name}={value}" for name, value in variables.items()]
        os.makedirs(self._etl.scratch, mode=0o700, exist_ok=True)
        config = {
            "engine": self._engine.program, "name": self._name, "image": spec.image, "enters": enters,
            "run": [*self._limits(start.files, enters), *(f"--env={each}" for each in named), *self._image()],
            "env": by_name, "port": spec.port, "calls_port": CALLS_PORT, "sockets_fd": start.sockets.fileno(),
            "calls_fd": start.calls.fileno(), "scratch": self._etl.scratch, "lacking": lacking(),
            "layers": self._layers(), "missing": [],
        }  # fmt: skip
        doors = [start.sockets.fileno(), start.calls.fileno()]

        def program(file: int) -> list[str]:
            return [sys.executable, "-I", "-S", "-B", _GUARD, f"@{file}"]

        return start_guard(spec.name, config, program, doors, start.log_fd, env=os.environ)

    def _limits(self, files: str, enters: bool) -> list[str]:
        """Return what the container is called, and what it may do."""
        spec = self._etl.spec
        options = [
            "--name", self._name, "--label", f"{STORE_LABEL}={store_of(self._etl.places)}",
            "--label", f"{RUN_LABEL}={self._etl.places.run}", "--log-driver", "none", "--volume", f"{files}:{files}:ro",
            "--ulimit", f"nofile={_DESCRIPTORS_MAX}:{_DESCRIPTORS_MAX}", "--ulimit", "core=0:0",
            "--ulimit", f"nproc={_USER_PROCESSES_MAX}:{_USER_PROCESSES_MAX}",
        ]  # fmt: skip
        if spec.sandbox is Sandbox.ON:
            options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
            options += ["--pids-limit", str(_PROCESSES_MAX)]
            if spec.network is Network.NONE:  # else it may install what it needs when it starts
                options += ["--read-only", "--tmpfs", f"/tmp:rw,size={SCRATCH_BYTES_MAX},mode=1777"]
        if spec.network is Network.NONE:
            options += ["--network", "none"]
        if not enters:
            options += ["--publish", f"127.0.0.1::{spec.port}"]
        if spec.memory_bytes:
            options += ["--memory", f"{spec.memory_bytes}b", "--memory-swap", f"{spec.memory_bytes}b"]
        if spec.cpus:
            options += ["--cpus", f"{spec.cpus:g}"]
        return options

    def _image(self) -> list[str]:
        """Return the image with its command; a given one replaces the image's entry point, as in a pod."""
        spec = self._etl.spec
        if not spec.command:
            return [spec.image]
        return ["--entrypoint", spec.command[0], spec.image, *spec.command[1:]]

    def _layers(self) -> list[str]:
        assert self._engine is not None
        spec = self._etl.spec
        layers = [f"container ({self._engine.name})", "rlimits"]
        if spec.sandbox is Sandbox.ON:
            layers += ["no capabilities", "no new privileges"]
        if spec.network is Network.NONE:
            layers.append("no network")
        return layers

    def clean(self, *, guarded: bool) -> None:
        """Remove the container where its guard was killed."""
        if guarded or self._engine is None:
            return
        try:
            self._engine.remove(self._name)
        except EngineError as error:
            _log.error("the container %s cannot be removed: %s", self._name, error)

    def details(self) -> dict[str, Any]:
        """Return which engine runs it."""
        return {"engine": self._engine.program if self._engine else "", "python": "", "environment_reused": False}


def store_of(places: Places) -> str:
    """Return what containers of this store are labelled with."""
    return hashlib.sha256(os.path.realpath(places.etls).encode()).hexdigest()[:16]


def _note(places: Places) -> str:
    return os.path.join(places.etls, "containers")


def note_containers(places: Places) -> None:
    """Note that this store has run containers: its next start looks for those that were left."""
    with open(_note(places), "w", encoding="ascii"):
        pass


async def remove_those_left(places: Places) -> None:
    """Remove the containers that a controller which was killed has left."""
    if not os.path.exists(_note(places)):
        return
    try:
        engine = await asyncio.to_thread(find_engine, places.container_engine)
        left = await asyncio.to_thread(remove_leftovers, engine, store_of(places), places.run)
    except Exception as error:
        _log.warning("containers of an earlier run may be left: %s", error)
        return
    for name in left:
        _log.warning("removed the container %s of an earlier run", name)

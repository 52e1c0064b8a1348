"""A container engine by its command line, and which one this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from ...errors import EtlInitError

#: The engines that are looked for, in this order. podman has no daemon that could be away.
ENGINES = ("podman", "docker")
_SECONDS = 30.0
_WORDS_SHOWN = 300

#: Which store a container belongs to, and which run of its controller.
STORE_LABEL, RUN_LABEL = "io.github.pyaistore.store", "io.github.pyaistore.run"

ALTERNATIVES = (
    "install podman or docker (AIS_CONTAINER_ENGINE names one that is elsewhere), or give the transform as a command "
    "(runtime.command without an image), as code (ais etl init code) or as a class (init_class); AIStore's own "
    "runtime_python and transformer_echo, _md5, _hello_world, _hash_with_args, _compress and _torchvision need none"
)


class EngineError(Exception):
    """The engine refused a command, or did not answer; the message has its words."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine. Its methods block."""

    program: str

    @property
    def name(self) -> str:
        """What people call it."""
        return os.path.basename(self.program)

    def call(self, *arguments: str) -> str:
        """Run a command of the engine and return what it prints; raises EngineError."""
        try:
            done = subprocess.run(
                [self.program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, cwd="/"
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"`{self.name} {arguments[0]}` does not end") from error
        except OSError as error:
            raise EngineError(str(error)) from error
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip()[-_WORDS_SHOWN:]
            raise EngineError(words or f"`{self.name} {arguments[0]}` ended with exit status {done.returncode}")
        return done.stdout.decode(errors="replace").strip()

    def remove(self, container: str) -> None:
        """End a container at once and remove it, if it is there; raises EngineError."""
        try:
            self.call("kill", container)  # removing alone would wait for it to end by itself
        except EngineError:
            pass  # it has ended, or is not there
        try:
            self.call("rm", "-f", container)
        except EngineError:
            if container in self.containers():
                raise

    def containers(self, *filters: str) -> dict[str, str]:
        """Return the containers with all these labels (``key=value``), running or not: name and run of its store."""
        chosen = [argument for each in filters for argument in ("--filter", f"label={each}")]
        printed = self.call("ps", "-a", *chosen, "--format", f'{{{{.Names}}}} {{{{.Label "{RUN_LABEL}"}}}}')
        lines = (line.partition(" ") for line in printed.splitlines())
        return {name: run for name, _, run in lines if name}


def find_engine(configured: str = "") -> Engine:
    """Return an engine that answers; raises EtlInitError that says what was tried. Blocks."""
    tried = []
    for candidate in [configured] if configured else ENGINES:
        program = shutil.which(candidate)
        if program is None:
            continue
        try:
            Engine(program).containers(f"{RUN_LABEL}=none")
        except EngineError as error:
            tried.append(f"{candidate}: {error}")
        else:
            return Engine(program)
    if configured and not tried:
        tried = [f"{configured} is no program"]
    detail = f" ({'; '.join(tried)})" if tried else ""
    raise EtlInitError(f"this machine has no container engine that works{detail}", hint=ALTERNATIVES)


def remove_leftovers(engine: Engine, store: str, run: str) -> list[str]:
    """Remove what earlier runs of this store's controller have left, and return their names; raises EngineError."""
    left = [name for name, of_run in engine.containers(f"{STORE_LABEL}={store}").items() if of_run != run]
    for name in left:
        engine.remove(name)
    return left

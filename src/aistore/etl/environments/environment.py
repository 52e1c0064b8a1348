"""Environments: from a dependency list and a runtime to an interpreter that has it all.

Three answers, the cheapest first: the runtime itself when nothing is asked for; the interpreter that serves the store
when it already satisfies the list; an environment of its own, resolved once into a lock, installed once per lock and
shared by every ETL with that lock.

**How long a lock holds.** The lock is kept with its ETL, and given back to ``prepare`` for a restart or another node:
nothing is resolved twice for one ETL. A *new* ETL resolves again, so that "latest" means what people expect, unless
the same text was resolved for the same runtime and index within a day: then its lock is taken, and init is a matter of
milliseconds. A day, because that is how often a person expects a new release to be noticed (guessed).

Resolving and installing run foreign code (``setup.py``). Both go through ``run``, confined to ``env/`` of their build;
the lock and all else is written by us, outside of it (the layout: ``cache.py``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from ...errors import EtlInitError
from . import cache
from .commands import CommandCancelled, CommandSpec, CommandTimeout, Run, check_in_time, run_command
from .installer import PipOutput, Settings, cache_directory, pip_install, pip_runner, read_settings, work_directory
from .lock import Lock, lock_from_report, make_lock
from .requirements import Requirements, parse_requirements
from .runtimes import Runtime
from .satisfied import satisfied_by_serving
from .snapshot import parse_snapshot, without_missing

REPORT_BYTES_MAX = 64 << 20  # pip's report holds every package's metadata: 20 KB each, so a few thousand packages

#: Hears of stages (``resolving``, ``installing``) and what happens in them.
Progress = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter that has what a transform asked for.

    ``directory`` is the cached environment, None when the interpreter is one of the machine's own (``reused``).
    """

    python: str
    lock: Lock
    directory: str | None
    reused: bool


def prepare(
    dependencies: str,
    runtime: Runtime,
    envs_dir: str,
    *,
    progress: Progress,
    deadline: float,
    cancel: threading.Event | None = None,
    run: Run = run_command,
    lock: Lock | None = None,
    snapshot: bool = False,
) -> Environment:
    """Return an environment of ``runtime`` that has ``dependencies`` (the text of a requirements file). Blocks.

    ``deadline`` is on ``time.monotonic()``. ``run`` runs the installer: the caller's sandbox. A ``lock`` that an
    earlier call returned for the same dependencies is installed as it is, without resolving. A ``snapshot`` may lose
    entries that cannot be had (snapshot.py).

    Raises BadRequestError for a list that cannot be honoured, and EtlInitError with the installer's own words when it
    fails, is out of time or cancelled; then every process that was started has ended.
    """
    requirements = parse_snapshot(dependencies) if snapshot else parse_requirements(dependencies)
    if not requirements.entries:
        return Environment(runtime.python, make_lock(runtime, []), None, True)
    if runtime.serving:
        packages = satisfied_by_serving(requirements)
        if packages is not None and lock in (None, make_lock(runtime, packages)):
            progress("resolving", "every dependency is installed where the store runs")
            return Environment(runtime.python, make_lock(runtime, packages), None, True)
    if not runtime.has_venv:
        raise EtlInitError(
            f"{runtime.name} ({runtime.python}) cannot make environments: its venv module is missing",
            hint=f"install it, for example with `apt install {runtime.name}-venv`",
        )
    return _Builder(requirements, runtime, envs_dir, progress, deadline, cancel, run, snapshot).environment(lock)


class _Builder:
    """One call of ``prepare`` that has something to install."""

    def __init__(
        self,
        requirements: Requirements,
        runtime: Runtime,
        envs_dir: str,
        progress: Progress,
        deadline: float,
        cancel: threading.Event | None,
        run: Run,
        snapshot: bool,
    ) -> None:
        self._requirements = requirements
        self._runtime = runtime
        self._envs = os.path.abspath(envs_dir)
        self._progress = progress
        self._deadline = deadline
        self._cancel = cancel
        self._run = run
        self._snapshot = snapshot
        self._stage = "resolving"

    def environment(self, lock: Lock | None) -> Environment:
        """Find or build the environment; EtlInitError says at which stage it stopped."""
        try:
            return self._from_lock(lock) if lock is not None else self._from_list()
        except CommandTimeout as error:
            raise EtlInitError(
                f"the dependencies were not ready in time: the init timeout passed while {self._stage}",
                hint="give it longer with --init-timeout, for example 30m; what was finished is kept for the next try",
            ) from error
        except CommandCancelled as error:
            raise EtlInitError(f"cancelled while {self._stage} the dependencies") from error

    def _from_list(self) -> Environment:
        settings = read_settings(os.environ, self._runtime)
        with self._one_at_a_time(self._request_digest(settings)) as request:
            lock = cache.remembered(self._envs, request)
            try:
                if lock is not None:
                    return self._from_lock(lock, settings)
                with cache.box(self._envs, self._deadline, self._cancel) as box:
                    lock = self._resolve(box, settings)
                    cache.remember(self._envs, request, lock)
                    return self._from_lock(lock, settings, box)
            except EtlInitError:
                # A lock that does not install (a release was withdrawn) must not stand in the way of the next try.
                cache.remember(self._envs, request, None)
                raise

    def _from_lock(self, lock: Lock, settings: Settings | None = None, box: str | None = None) -> Environment:
        with self._one_at_a_time(lock.digest()):
            found = cache.published(self._envs, lock, self._runtime.python)
            if found is None:
                new = cache.box(self._envs, self._deadline, self._cancel) if box is None else nullcontext(box)
                with new as build:
                    found = self._install(build, lock, settings or read_settings(os.environ, self._runtime))
            return Environment(os.path.join(found, "env", "bin", "python"), lock, found, False)

    def _resolve(self, box: str, settings: Settings) -> Lock:
        self._enter("resolving", "resolving the dependencies")
        options: list[str] = []
        while True:
            env = self._new_venv(box)
            report = os.path.join(work_directory(env), "report.json")
            arguments = ["--dry-run", "--ignore-installed", "--report", report, *options]
            try:
                self._pip(env, settings, arguments, self._requirements.text())
                return lock_from_report(self._runtime, _read_report(report))
            except EtlInitError as error:
                if not self._snapshot or not self._loosen(str(error), options):
                    raise

    def _loosen(self, said: str, options: list[str]) -> bool:
        """Take from a snapshot what keeps pip from resolving it; False if that is nothing a snapshot may lose."""
        if "ResolutionImpossible" in said and not options:
            options.append("--no-deps")
            return True
        fewer = without_missing(self._requirements, said)
        if fewer is None:
            return False
        self._requirements = fewer
        return True

    def _install(self, box: str, lock: Lock, settings: Settings) -> str:
        """Install ``lock`` in ``box``, publish it, and return its directory."""
        self._enter("installing", f"installing {len(lock.packages)} packages")
        build = cache.name_box(box, lock)
        env = self._new_venv(build)
        options = "".join(f"{option}\n" for option in self._requirements.options if option != "--require-hashes")
        self._pip(env, settings, ["--no-deps"], options + lock.requirements(self._requirements.credentials()))
        check_in_time(self._deadline, self._cancel)
        shutil.rmtree(work_directory(env))
        cache.publish(build, lock)
        return build

    def _pip(self, env: str, settings: Settings, arguments: list[str], requirements: str) -> None:
        resolving = self._stage == "resolving"
        output = PipOutput(
            lambda line: self._progress(self._stage, line),
            self._requirements.line_of if resolving else lambda line: None,
        )
        command = pip_install(env, self._runtime, pip_runner(self._runtime), settings, arguments)
        listed = os.path.join(work_directory(env), "requirements.txt")
        cache.write_new(listed, requirements)
        command = command.with_arguments("--requirement", listed)
        status = self._run(command, output.line, self._deadline, self._cancel)
        if status != 0:
            where = f"packages were looked for in: {settings.index(self._requirements.options)}"
            raise EtlInitError(
                f"{self._stage} the dependencies failed:\n{output.reason()}",
                hint=f"{output.hint(self._runtime)}{where}",
            )

    def _new_venv(self, box: str) -> str:
        """Make an empty environment in ``box``; of an earlier one nothing stays but what pip had downloaded."""
        env, downloads = os.path.join(box, "env"), os.path.join(box, "downloads")
        if os.path.lexists(env):
            # Foreign code wrote here: a link must not have us move a directory of somebody else.
            if os.path.realpath(cache_directory(env)) == cache_directory(os.path.realpath(env)):
                os.rename(cache_directory(env), downloads)
            shutil.rmtree(env)
        # The interpreter itself and not the link to it in the store's own environment: Python 3.10 would make the new
        # environment depend on that one, which the sandbox does not show.
        argv = (os.path.realpath(self._runtime.python), "-I", "-m", "venv", "--without-pip", env)
        output = PipOutput(lambda line: None)
        spec = CommandSpec(argv, {"PATH": os.defpath}, (), env, network=False)
        if run_command(spec, output.line, self._deadline, self._cancel) != 0:
            raise EtlInitError(f"{self._runtime.python} could not make an environment: {output.reason()}")
        os.mkdir(work_directory(env), 0o755)
        if os.path.lexists(downloads):
            os.rename(downloads, cache_directory(env))
        return env

    def _request_digest(self, settings: Settings) -> str:
        """Return what decides a resolution: the list, the interpreter, and where packages come from."""
        runtime = (os.path.realpath(self._runtime.python), self._runtime.version, self._runtime.platform)
        content = [self._requirements.text(), self._snapshot, runtime, sorted(settings.env.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    @contextmanager
    def _one_at_a_time(self, name: str) -> Iterator[str]:
        def waiting() -> None:
            self._enter(self._stage, "waiting for another ETL that prepares the same environment")

        with cache.held(self._envs, name, self._deadline, self._cancel, waiting):
            yield name

    def _enter(self, stage: str, message: str) -> None:
        self._stage = stage
        self._progress(stage, message)


def _read_report(path: str) -> str:
    """Return pip's report. Foreign code could have written it: no links, no pipes, no end of bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise EtlInitError(f"pip left no report of what it resolved: {error.strerror}") from error
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > REPORT_BYTES_MAX:
            raise EtlInitError(f"pip's report of {found.st_size} bytes is not one")
        return file.read(REPORT_BYTES_MAX).decode(errors="replace")

"""Commands: one subprocess with a deadline, whose lines are heard as they come and whose tree ends with it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

LINE_BYTES_MAX = 64 << 10  # a longer line is delivered in pieces: memory stays flat whatever a setup.py prints

_POLL_SECONDS = 0.1  # how late a cancellation is noticed
_GUARD_SECONDS = 15.0  # guessed: the sandbox's guard takes up to 10 s to find the last process that hides


class CommandTimeout(Exception):
    """The deadline passed; the command and its children were killed."""


class CommandCancelled(Exception):
    """The caller withdrew; the command and its children were killed."""


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A command that runs foreign code, and what it needs: the launcher builds its sandbox from this.

    ``read`` are the paths that must be readable beside the system's own directories (missing ones may be left out);
    ``write`` is the one directory it writes to, which whoever confines the command makes writable for the user that
    it runs as. ``network`` says whether it talks to the package index. ``env`` is its whole environment.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # may hold the credentials of a package index
    read: tuple[str, ...]
    write: str
    network: bool = True

    def with_arguments(self, *arguments: str) -> CommandSpec:
        """Return the same command with ``arguments`` at the end."""
        return replace(self, argv=(*self.argv, *arguments))


#: Runs a command: (what, for each line of its output, deadline on the monotonic clock, cancel) -> exit status.
#: Raises CommandTimeout or CommandCancelled, having ended everything that the command started.
Run = Callable[[CommandSpec, Callable[[str], None], float, "threading.Event | None"], int]


def run_command(
    spec: CommandSpec, on_line: Callable[[str], None], deadline: float, cancel: threading.Event | None = None
) -> int:
    """Run ``spec`` as a plain subprocess, without a sandbox. See ``Run``; standard output and error are one stream."""
    return _run(spec, on_line, deadline, cancel)


def run_guarded(
    guard: Callable[[int], Sequence[str]],
    spec: CommandSpec,
    on_line: Callable[[str], None],
    deadline: float,
    cancel: threading.Event | None = None,
) -> int:
    """Run ``spec`` below a guard, as ``run_command`` does; the guard ends what has hidden from us, or outlived us.

    ``guard`` gives the start of the command line for a descriptor: the guard inherits it, and at its end of file, which
    comes with our end too, it kills everything that runs below it (``worker/confine.py`` has it as ``life_fd``).
    """
    life, ours = os.pipe()
    try:
        return _run(replace(spec, argv=(*guard(life), *spec.argv)), on_line, deadline, cancel, life, ours)
    finally:
        os.close(life)


def _run(
    spec: CommandSpec,
    on_line: Callable[[str], None],
    deadline: float,
    cancel: threading.Event | None,
    life: int | None = None,
    ours: int | None = None,
) -> int:
    """Run ``spec``, which inherits ``life``: it ends when ``ours``, the other end of that pipe, is closed, here."""
    process = None
    try:
        process = subprocess.Popen(
            spec.argv,
            env=dict(spec.env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=() if life is None else (life,),
            start_new_session=True,  # a process group to kill: pip starts compilers
        )
        assert process.stdout is not None
        _relay(process.stdout.fileno(), on_line, deadline, cancel)
        return _wait(process, deadline, cancel)
    finally:
        if ours is not None:
            os.close(ours)
        if process is not None:
            _end(process, guarded=ours is not None)


def _end(process: subprocess.Popen[bytes], guarded: bool) -> None:
    """End ``process`` and its group, after a normal end too: what a setup.py left running has no business here.

    One that is ``guarded`` was told to end, and kills also those that left its group: it has the time to do so.
    """
    try:
        process.wait(_GUARD_SECONDS if guarded else 0)
    except subprocess.TimeoutExpired:
        pass
    _kill_group(process.pid)
    assert process.stdout is not None
    process.stdout.close()
    process.wait()


def check_in_time(deadline: float, cancel: threading.Event | None) -> None:
    """Raise CommandCancelled or CommandTimeout if it is time to stop."""
    if cancel is not None and cancel.is_set():
        raise CommandCancelled
    if time.monotonic() >= deadline:
        raise CommandTimeout


def pause(seconds: float, deadline: float, cancel: threading.Event | None) -> None:
    """Wait ``seconds``, less if it is time to stop, which then raises."""
    seconds = max(0.0, min(seconds, deadline - time.monotonic()))
    if cancel is not None:
        cancel.wait(seconds)
    else:
        time.sleep(seconds)
    check_in_time(deadline, cancel)


def _relay(descriptor: int, on_line: Callable[[str], None], deadline: float, cancel: threading.Event | None) -> None:
    """Deliver lines until the output ends."""
    held = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            check_in_time(deadline, cancel)
            if not selector.select(_POLL_SECONDS):
                continue
            piece = os.read(descriptor, LINE_BYTES_MAX)
            *lines, held = (held + piece).replace(b"\r", b"\n").split(b"\n")
            if held and (not piece or len(held) >= LINE_BYTES_MAX):
                lines, held = [*lines, held], b""
            for line in lines:
                if line.strip():
                    on_line(line.decode(errors="replace").rstrip())
            if not piece:
                return


def _wait(process: subprocess.Popen[bytes], deadline: float, cancel: threading.Event | None) -> int:
    while True:
        try:
            return process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            check_in_time(deadline, cancel)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # all gone (macOS says so with EPERM)

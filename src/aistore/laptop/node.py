"""One node of a cluster on this machine: `ais serve` in processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import AisError
from .guarded import GuardedProcess
from .processes import descendants, is_running

_READY = re.compile(r"ready at (http://\S+)")
_GRACE_SECONDS = 20.0  # longer than `ais serve` gives its own processes
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine


class LocalNode:
    """A node that `ais serve` with ``arguments`` runs; what it says to standard error goes to ``log_path``.

    ``through`` is a command that runs it elsewhere, such as in a network namespace.
    """

    def __init__(
        self,
        number: int,
        arguments: Sequence[str],
        *,
        directory: str,
        environment: Mapping[str, str],
        through: tuple[str, ...] = (),
    ) -> None:
        self.number = number
        self.directory = directory
        self.log_path = os.path.join(directory, "node.log")
        self.endpoint = ""
        self.id = ""
        self._command = [*through, sys.executable, "-m", "aistore", "serve", *arguments]
        self._environment = dict(environment)
        self._process: GuardedProcess | None = None
        self._paused = False

    @property
    def process(self) -> GuardedProcess:
        """Its supervisor, once it was begun."""
        assert self._process is not None, f"node {self.number} was not started"
        return self._process

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; a paused one runs."""
        return self._process is not None and not self._process.ended

    def begin(self) -> None:
        """Start it and come back at once; `wait_ready` waits. Several can start at a time."""
        os.makedirs(self.directory, exist_ok=True)
        self._process = GuardedProcess(
            self._command, log=self.log_path, env=self._environment, grace_seconds=_GRACE_SECONDS, talk=True
        )

    def wait_ready(self, timeout_seconds: float = 60.0) -> LocalNode:
        """Wait until it serves; raises AisError with the end of its log."""
        match = _READY.search(self.process.read_line(timeout_seconds))
        if match is None:
            self.stop()
            raise AisError(f"node {self.number} did not start; the end of {self.log_path}:\n{self.log()[-2000:]}")
        self.endpoint = match[1]
        self.id = self.ask("snode")["daemon_id"]
        return self

    def start(self, timeout_seconds: float = 60.0) -> LocalNode:
        """Start it, for the first time or again, and wait until it serves."""
        self.begin()
        return self.wait_ready(timeout_seconds)

    def ask(self, what: str, timeout_seconds: float = 5.0) -> Any:
        """Return what this very node answers to ``GET /v1/daemon?what=``; raises OSError when it does not."""
        with _OPENER.open(f"{self.endpoint}/v1/daemon?what={what}", timeout=timeout_seconds) as reply:
            return json.load(reply)

    def log(self) -> str:
        """Return what it wrote to standard error, of all its runs."""
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self) -> int:
        """Stop it as SIGTERM does and return its exit status; 0 if it was not started."""
        if self._process is None:
            return 0
        self.begin_stop()
        status = self._process.end()
        self._process = None
        return status

    def begin_stop(self) -> None:
        """Ask it to stop and come back at once; `stop` waits. Several can stop at a time."""
        if self._paused:
            self.resume()  # its supervisor would wait for processes that cannot end
        self.process.begin_end()

    def kill(self) -> None:
        """Kill all its processes with SIGKILL, as when its machine loses power."""
        supervisor = self.process.pid
        # Stopped first, so that none of them acts on the death of another; the supervisor would start it again.
        paused = self._pause()
        for pid in paused - {supervisor}:
            _send(pid, signal.SIGKILL)
        self.process.signal(signal.SIGKILL)
        self.process.wait(10)
        self.process.end()
        self._process, self._paused = None, False
        poll(10, f"the processes of node {self.number} to be gone", lambda: not any(map(is_running, paused)))

    def pause(self) -> None:
        """Stop all its processes with SIGSTOP: its connections stay open, nothing answers."""
        self._paused = True
        self._pause()

    def _pause(self) -> set[int]:
        paused: set[int] = set()
        while True:  # until nobody is left who could start another
            found = {self.process.pid, *descendants(self.process.pid)} - paused
            if not found:
                return paused
            for pid in found:
                _send(pid, signal.SIGSTOP)
            paused |= found

    def resume(self) -> None:
        """Let a paused node go on."""
        for pid in (*descendants(self.process.pid), self.process.pid):
            _send(pid, signal.SIGCONT)
        self._paused = False

    def processes(self) -> dict[int, str]:
        """Return its processes by id, each with its command line; its supervisor is not among them."""
        return descendants(self.process.pid)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def poll(seconds: float, what: str, true: Callable[[], bool]) -> None:
    """Call ``true`` until it returns something true; raises TimeoutError that says ``what`` was waited for.

    An OSError from it counts as "not yet" and is told in the end.
    """
    deadline = time.monotonic() + seconds
    last: object = ""
    while True:
        try:
            if true():
                return
        except OSError as error:
            last = f" (last: {error})"
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}{last}")
        time.sleep(0.02)

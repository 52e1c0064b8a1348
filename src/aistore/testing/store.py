"""A whole store in processes of its own, on a free port, for tests.

>>> with StoreProcess() as store:  # doctest: +SKIP
...     client = aistore.Client(store.endpoint)
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from types import TracebackType

_READY = re.compile(r"ready at (http://\S+)")


class StoreProcess:
    """Starts ``ais serve`` on port 0 and waits for its own word that it is ready.

    ``data`` is kept when it is given, else it is a temporary directory that ``stop`` removes. ``arguments`` are passed
    to ``ais serve``; ``env`` is added to this process's environment. ``through`` is a command that runs the store: the
    store's own command is added to it.
    """

    def __init__(
        self,
        data: str | None = None,
        *,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        through: tuple[str, ...] = (),
    ) -> None:
        self._own_data = data is None
        self.data = data or tempfile.mkdtemp(prefix="ais-test-")
        self._arguments = arguments
        self._through = through
        self._env = {**os.environ, **(env or {})}
        self.endpoint = ""
        self.process: subprocess.Popen[str] | None = None
        self.errors_path = tempfile.mkstemp(prefix="ais-test-", suffix=".log")[1]

    def start(self, timeout_seconds: float = 60.0) -> StoreProcess:
        """Start the store; raises RuntimeError with its error output when it does not get ready."""
        command = [*self._through, sys.executable, "-m", "aistore", "serve", "--data", self.data, "--port", "0"]
        command += self._arguments
        with open(self.errors_path, "a", encoding="utf-8") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._env)
        match = _READY.search(self._first_line(timeout_seconds))
        if match is None:
            errors_text = self.errors()
            self.stop()
            raise RuntimeError(f"the store did not start:\n{errors_text}")
        self.endpoint = match[1]
        return self

    def _first_line(self, timeout_seconds: float) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_seconds):
                return ""
        return self.process.stdout.readline()

    def errors(self) -> str:
        """Return what the store wrote to standard error so far."""
        try:
            with open(self.errors_path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        assert self.process is not None
        return self.process.pid

    def children(self) -> dict[int, str]:
        """Return the supervisor's children by pid, each with its command line."""
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                try:
                    with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                        parent = int(stat.read().rpartition(")")[2].split()[1])
                    with open(f"/proc/{entry}/cmdline", "rb") as cmdline:
                        command = cmdline.read().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if parent == self.pid and command:
                    found[int(entry)] = command
        return found

    def kill(self) -> None:
        """Kill the supervisor with SIGKILL, as a crash would; what it started has to end by itself."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def end(self, timeout_seconds: float = 30.0) -> int:
        """Stop the store with SIGTERM and keep its data; return its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f"the store did not stop within {timeout_seconds:.0f} s") from None
        finally:
            self._reap()
        return self.process.returncode

    def _reap(self) -> None:
        assert self.process is not None
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self) -> None:
        """Stop the store if it runs; remove its data if it is temporary."""
        if self.process is not None and self.process.poll() is None:
            self.end()
        if self.process is not None:
            self._reap()
        if self._own_data:
            shutil.rmtree(self.data, ignore_errors=True)
        try:
            os.unlink(self.errors_path)
        except FileNotFoundError:
            pass

    def __enter__(self) -> StoreProcess:
        return self.start() if self.process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

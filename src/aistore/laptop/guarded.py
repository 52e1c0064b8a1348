"""A process that ends when the one that started it ends, even by kill -9: started and watched by a guard (guard.py)."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ..errors import AisError

_GUARD = os.path.join(os.path.dirname(__file__), "guard.py")


class GuardedProcess:
    """Starts ``command`` at once; raises AisError when there is no such program.

    Its output and errors are appended to the file ``log``, or, with ``talk``, its output comes through ``output``, a
    pipe. ``grace_seconds`` is how long ``end`` and the guard let it end by itself before they kill it.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: str,
        env: Mapping[str, str],
        directory: str | None = None,
        grace_seconds: float = 20.0,
        talk: bool = False,
    ) -> None:
        self._grace_seconds = grace_seconds
        lifeline, self._lifeline = os.pipe()
        self._report, report = os.pipe()
        guard = [sys.executable, "-I", "-S", _GUARD, str(lifeline), str(report), str(grace_seconds)]
        try:
            with open(log, "ab") as file:
                self._guard = subprocess.Popen(
                    [*guard, *command],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if talk else file, stderr=file,
                    env=env, cwd=directory, pass_fds=(lifeline, report), start_new_session=True,
                )  # fmt: skip
        except BaseException:
            os.close(self._lifeline)
            os.close(self._report)
            raise
        finally:
            os.close(lifeline)
            os.close(report)
        self.output = self._guard.stdout
        said = self._read_report()
        if not said.isdecimal():
            self.end()
            raise AisError(f"cannot start: {said or 'the process that watches over it ended'}")
        self.pid = int(said)

    def _read_report(self) -> str:
        said = b""
        while not said.endswith(b"\n"):
            piece = os.read(self._report, 4096)
            if not piece:
                break
            said += piece
        return said.decode(errors="replace").strip()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the process has ended, for selectors."""
        return self._report

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._guard.poll() is not None

    @property
    def status(self) -> int | None:
        """Its exit status, 128 + N if signal N ended it; None while it runs."""
        return self._guard.poll()

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        if self._lifeline >= 0:
            try:
                os.write(self._lifeline, bytes([number]))
            except BrokenPipeError:
                pass

    def wait(self, timeout_seconds: float) -> int:
        """Wait until it has ended and return its status; raises TimeoutError."""
        try:
            return self._guard.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"process {self.pid} did not end within {timeout_seconds:g} s") from None

    def read_line(self, timeout_seconds: float) -> str:
        """Return the next line of its output; empty if none came in time, or it ended without one."""
        assert self.output is not None, "the process was started without talk=True"
        with selectors.DefaultSelector() as selector:
            selector.register(self.output, selectors.EVENT_READ)
            if not selector.select(timeout_seconds):
                return ""
        return self.output.readline().decode(errors="replace")

    def begin_end(self) -> None:
        """Ask it to end and come back at once; `end` waits. So several can end at a time."""
        if self._lifeline >= 0:
            self.signal(0)  # not by closing alone: a forked child of ours may hold a copy
            os.close(self._lifeline)
            self._lifeline = -1

    def end(self) -> int:
        """End it, by force when it does not do so in its time; return its status. May be called again."""
        self.begin_end()
        try:
            status = self._guard.wait(self._grace_seconds + 10)
        except subprocess.TimeoutExpired:
            self._guard.kill()  # the kernel kills the command then
            status = self._guard.wait()
        if self._report >= 0:
            os.close(self._report)
            self._report = -1
        if self.output is not None:
            self.output.close()
        return status

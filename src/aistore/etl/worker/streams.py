"""Standard input, output and error of one object: descriptors 0, 1 and 2 and the Python objects on them."""

import io
import os
import sys
from typing import Any, List


class Streams:
    """New ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` on the descriptors 0, 1 and 2, like those of a new process.

    The descriptors themselves stay open when the wrappers are closed.
    """

    def __init__(self) -> None:
        self._input = io.BufferedReader(_file(0, "rb", "<stdin>"))
        self._output = io.BufferedWriter(_file(1, "wb", "<stdout>"))
        self._errors = io.BufferedWriter(_file(2, "wb", "<stderr>"))
        self.stdin = io.TextIOWrapper(self._input, encoding="utf-8")
        self.stdout = io.TextIOWrapper(self._output, encoding="utf-8")
        self.stderr = io.TextIOWrapper(self._errors, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        for stream, mode in ((self.stdin, "r"), (self.stdout, "w"), (self.stderr, "w")):
            stream.mode = mode  # type: ignore[misc]

    def install(self) -> None:
        """Make these the standard streams of the process."""
        sys.stdin = sys.__stdin__ = self.stdin  # type: ignore[misc]
        sys.stdout = sys.__stdout__ = self.stdout  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self.stderr  # type: ignore[misc]

    def flush(self) -> None:
        """Flush standard output and error, whatever the program put in their place; raises OSError of the first."""
        failed = None
        seen: List[Any] = []
        for stream in (self.stdout, self._output, sys.stdout, self.stderr, self._errors, sys.stderr):
            if stream is None or any(stream is other for other in seen):
                continue
            seen.append(stream)
            try:
                if not getattr(stream, "closed", False):
                    stream.flush()
            except OSError as error:
                failed = failed or error
            except (ValueError, AttributeError):
                pass  # detached, or not a stream at all
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Close the wrappers: a library that kept one gets an error for its next write, not a stale buffer."""
        for stream in (self.stdin, self.stdout, self.stderr, self._input, self._output, self._errors):
            try:
                stream.close()
            except (OSError, ValueError):
                _drop(stream)


def _file(fd: int, mode: str, name: str) -> Any:
    raw = io.FileIO(fd, mode, closefd=False)
    raw.name = name
    return raw


def _drop(stream: Any) -> None:
    """Close the bottom of a stream whose flush fails (a result over its limit): nothing is left to write."""
    raw = getattr(stream, "raw", None)
    if raw is not None:
        try:
            raw.close()
        except (OSError, ValueError):
            pass


def point(fd: int, number: int) -> None:
    """Make descriptor ``number`` (0, 1 or 2) a duplicate of ``fd`` that subprocesses inherit."""
    os.dup2(fd, number, inheritable=True)

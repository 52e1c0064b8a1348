"""Standard input, output and error of one object: descriptors 0, 1 and 2 and the Python objects on them."""

import io
import os
import sys
import weakref
from typing import Any, Callable, List, Optional, Tuple


class Streams:
    """``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` on the descriptors 0, 1 and 2, like those of a new process.

    The descriptors themselves stay open when the wrappers are closed. Making them takes 30 us, so another object gets
    the same ones where no program could tell: nobody else holds one, and none was changed.
    """

    def __init__(self) -> None:
        raw = _file(0, "rb", "<stdin>"), _file(1, "wb", "<stdout>"), _file(2, "wb", "<stderr>")
        self._input, self._output, self._errors = (
            io.BufferedReader(raw[0]), io.BufferedWriter(raw[1]), io.BufferedWriter(raw[2])
        )  # fmt: skip
        self.stdin = io.TextIOWrapper(self._input, encoding="utf-8")
        self.stdout = io.TextIOWrapper(self._output, encoding="utf-8")
        self.stderr = io.TextIOWrapper(self._errors, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        for stream, mode in ((self.stdin, "r"), (self.stdout, "w"), (self.stderr, "w")):
            stream.mode = mode  # type: ignore[misc]
            stream.reconfigure = _reconfigure(stream)  # type: ignore[method-assign]
        self._broken = False  # something could not be written, and is still in a buffer
        self._install()
        self._all = (*raw, self._input, self._output, self._errors, self.stdin, self.stdout, self.stderr)
        del raw, stream
        self._attributes = [dict(vars(each)) for each in self._all]
        self._holders = self._count_holders()

    def _install(self) -> None:
        sys.stdin = sys.__stdin__ = self.stdin  # type: ignore[misc]
        sys.stdout = sys.__stdout__ = self.stdout  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self.stderr  # type: ignore[misc]

    def _count_holders(self) -> List[int]:
        return [*map(sys.getrefcount, self._all), *map(weakref.getweakrefcount, self._all)]

    def own(self) -> Tuple[Any, ...]:
        """Return the objects here that may have something to write."""
        return self.stdin, self.stdout, self.stderr, self._output, self._errors

    def can_be_renewed(self) -> bool:
        """Return whether nobody could tell these from new ones once what was read ahead is forgotten."""
        installed = (
            sys.stdin is sys.__stdin__ is self.stdin
            and sys.stdout is sys.__stdout__ is self.stdout
            and sys.stderr is sys.__stderr__ is self.stderr
        )
        if self._broken or not installed or self._count_holders() != self._holders:
            return False
        if self.stdin.closed or self.stdout.closed or self.stderr.closed:
            return False
        return list(map(vars, self._all)) == self._attributes

    def renew(self) -> bool:
        """Forget what was read ahead, with descriptor 0 at the null device; False: that cannot be done."""
        try:
            self.stdin.seek(0, os.SEEK_END)  # the one way to seek that does not look whether it is in the buffer
        except (OSError, ValueError):  # the input was no file
            return False
        return True

    def flush(self) -> None:
        """Flush standard output and error, whatever the program put in their place; raises OSError of the first."""
        failed = None
        for ours, below, now in ((self.stdout, self._output, sys.stdout), (self.stderr, self._errors, sys.stderr)):
            try:
                ours.flush()
            except OSError as error:
                failed = failed or error
            except ValueError:  # closed, or detached from the one below
                later = _flush(below)
                failed = failed or later
            if now is not ours:
                later = _flush(now)
                failed = failed or later
        if failed is not None:
            self._broken = True
            raise failed

    def close(self) -> None:
        """Close the wrappers: a library that kept one gets an error for its next write, not a stale buffer."""
        for stream in (self.stdin, self.stdout, self.stderr, self._input, self._output, self._errors):
            try:
                stream.close()
            except (OSError, ValueError):
                _drop(stream)
        for stream in (self.stdin, self.stdout, self.stderr):
            vars(stream).pop("reconfigure", None)  # which holds the stream


def _reconfigure(stream: io.TextIOWrapper) -> Callable[..., None]:
    """Return the method of that name, which cannot be seen to have been called: this one then goes away."""

    def reconfigure(**options: Any) -> None:
        vars(stream).pop("reconfigure", None)
        stream.reconfigure(**options)

    return reconfigure


def _flush(stream: Any) -> Optional[OSError]:
    """Flush what may be any object, and return what kept it from that."""
    try:
        if not getattr(stream, "closed", False):
            stream.flush()
    except OSError as error:
        return error
    except (ValueError, AttributeError):  # detached, or not a stream at all
        pass
    return None


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

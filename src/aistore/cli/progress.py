"""What a person sees while waiting: a bar for bytes or steps, a spinner for stages. On standard error, on terminals."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from .output import plain_lines

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
    from rich.status import Status

#: A bar appears only when the wait is longer than this.
PATIENCE_SECONDS = 1.0


class Bar:
    """Counts bytes, and shows them as a bar once it takes longer than a second. Used by many threads.

    ``total`` None is for an amount that is not known beforehand.
    """

    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._visible = sys.stderr.isatty()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._visible = False
            if self._bar is not None:
                self._bar.stop()

    def advance(self, size: int) -> None:
        """Count ``size`` more bytes (fewer, if negative: an upload that began again)."""
        with self._lock:
            self._done += size
            if not self._visible:
                return
            if self._bar is None:
                if time.monotonic() - self._started < PATIENCE_SECONDS:
                    return
                self._show()
            assert self._bar is not None
            assert self._task is not None
            self._bar.update(self._task, completed=self._done)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            Speed(),
        )
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._label, total=self._total)
        self._bar.start()


class Steps:
    """Counts steps of something that somebody else does, and shows them as a bar once it takes longer than a second."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._visible = sys.stderr.isatty()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, remark: str) -> None:
        """Show that ``done`` of ``total`` steps are done; 0 if nobody knows how many there are."""
        if not self._visible or time.monotonic() - self._started < PATIENCE_SECONDS:
            return
        if self._bar is None:
            self._show()
        assert self._bar is not None
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total or None, remark=remark)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[remark]}", markup=False),
        )
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._label, total=None, remark="")
        self._bar.start()


class Stages:
    """Shows the stages of something long: a live line on a terminal, else a line per stage."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._live = sys.stderr.isatty()
        self._status: Status | None = None
        self._stage = ""
        self._started = time.monotonic()

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
        if self._stage and self._live:
            outcome = "" if error is None else " (interrupted)" if kind is KeyboardInterrupt else " (failed)"
            self._print(f"{self._stage}{outcome} {time.monotonic() - self._started:.1f}s")

    def update(self, stage: str, message: str) -> None:
        """Show that ``stage`` is under way."""
        if not stage:
            return
        text = plain_lines(f"{stage}: {message}" if message else stage)  # what an installer says, among others
        if not self._live:
            self._print(text)
            return
        if stage != self._stage:
            if self._stage:
                self._print(f"{self._stage} {time.monotonic() - self._started:.1f}s")
            self._stage, self._started = stage, time.monotonic()
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False, markup=False).status("")
            self._status.start()
        from rich.text import Text

        self._status.update(Text(f"{self._label}: {text}"))

    def _print(self, text: str) -> None:
        if self._status is not None:
            self._status.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)

"""Doing the same to many objects at once, and keeping account of what failed."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import click

from ..errors import AisError
from .output import format_size, plain, plain_lines

Item = TypeVar("Item")


class StoppedError(Exception):
    """Another transfer has failed, or the person has lost patience: this one ends early."""


@dataclass
class Account:
    """How many were done, their bytes, and how many failed; ``cut_short`` if the others were not tried."""

    done: int = 0
    size: int = 0
    failed: int = 0
    cut_short: bool = False


def move_all(
    items: Iterable[Item],
    move: Callable[[Item, threading.Event], int],
    *,
    label: Callable[[Item], str],
    verb: str,
    workers: int,
    go_on: bool,
) -> Account:
    """Call ``move(item, stop)`` for every item in ``workers`` threads; it returns the bytes moved.

    An error is reported at once; then the rest is stopped, or with ``go_on`` not. The threads end with the process:
    an interrupt does not wait for a large file, and says how many were done (``verb``: put, got). At most a few items
    are taken ahead, so ``items`` may be endless.
    """
    waiting: queue.Queue[Item | None] = queue.Queue(maxsize=workers * 2)
    account, lock, stop = Account(), threading.Lock(), threading.Event()

    def work() -> None:
        while (item := waiting.get()) is not None:
            if stop.is_set():
                account.cut_short = True
                continue
            try:
                size = move(item, stop)
            except StoppedError:
                account.cut_short = True
                continue
            except (AisError, OSError) as error:
                with lock:
                    account.failed += 1
                    if not stop.is_set():
                        report(label(item), error)
                    if not go_on:
                        stop.set()
            else:
                with lock:
                    account.done += 1
                    account.size += size

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for item in items:
            if stop.is_set():
                account.cut_short = True
                break
            waiting.put(item)
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
    except BaseException as error:
        stop.set()
        for thread in threads:  # a moment for files that are half written to be removed
            thread.join(0.2)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"{account.done:,} {verb} ({format_size(account.size)})") from None
        raise
    return account


def report(label: str, error: AisError | OSError) -> None:
    """Write the error of one object."""
    if isinstance(error, AisError):
        text = error.message + (f" ({error.hint})" if error.hint else "")
    else:
        text = error.strerror or str(error)
    before = "" if text.startswith((f"{label}:", f"{label} ")) else f"{plain(label)}: "
    click.echo(f"Error: {before}{plain_lines(text)}", err=True)


def conclude(account: Account, verb: str) -> None:
    """End the command with exit code 1 if anything failed."""
    if account.failed:
        sys.stdout.flush()
        click.echo(f"Error: {account.failed:,} not {verb}, {account.done:,} {verb}", err=True)
        if account.cut_short:
            click.echo("Hint: it stopped at the first error; --cont-on-err goes on with the rest", err=True)
        raise click.exceptions.Exit(1)


class CountedFile:
    """A file that tells how much of it was sent and can be stopped.

    It is read once for its checksum and then again, from where it began, to be sent: what counts is the last reading.
    """

    def __init__(self, file: BinaryIO, advance: Callable[[int], None], stop: threading.Event) -> None:
        self._file = file
        self._advance = advance
        self._stop = stop
        self._sending = not file.seekable()
        self._sent = 0
        self.name = getattr(file, "name", "the stream")

    def read(self, size: int = -1) -> bytes:
        """Read, counting when the bytes are on their way."""
        if self._stop.is_set():
            raise StoppedError
        data = self._file.read(size)
        if self._sending:
            self._sent += len(data)
            self._advance(len(data))
        return data

    def seekable(self) -> bool:
        """Whether the file can be read twice."""
        return self._file.seekable()

    def tell(self) -> int:
        """Return where the file stands."""
        return self._file.tell()

    def seek(self, position: int) -> int:
        """Go back to be sent, or to be sent again."""
        self._advance(-self._sent)
        self._sending, self._sent = True, 0
        return self._file.seek(position)

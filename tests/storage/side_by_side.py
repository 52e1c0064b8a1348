"""Several Python processes that begin their work at the same moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def side_by_side(
    commands: Sequence[Sequence[object]], *, stderr: int | None = None
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start Python with each of the ``commands``, its arguments; all begin once all are there. At the end they die.

    Each says "ready" on its standard output and reads a line from its standard input before it begins.
    """
    children = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
        )
        for command in commands
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        yield children
    finally:
        for child in children:
            with child:
                child.kill()

"""What a person has: a shell with `ais` in it, and environments to install other clients into (package_index.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from package_index import PATIENCE, Index

__all__ = ["CHECKOUT", "PATIENCE", "Index", "Said", "Shell"]

CHECKOUT = Path(__file__).parents[2]


class Said(NamedTuple):
    """What a line of shell wrote, and its exit code."""

    stdout: str
    stderr: str
    returncode: int


class Shell:
    """A real shell in a directory, with `ais` and `python` of this environment and AIS_ENDPOINT set."""

    def __init__(self, directory: Path, endpoint: str, programs: str = os.path.dirname(sys.executable)) -> None:
        self.directory = directory
        self.endpoint = endpoint
        home = directory / "home"
        home.mkdir(exist_ok=True)
        self.environment = {
            "PATH": programs + os.pathsep + os.environ["PATH"],
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
        }
        if endpoint:
            self.environment["AIS_ENDPOINT"] = endpoint

    def try_(self, line: str) -> Said:
        """Run a line, whatever comes of it; a part of a pipe that fails makes the line fail."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=self.directory, env=self.environment, timeout=PATIENCE,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        return Said(done.stdout, done.stderr, done.returncode)

    def __call__(self, line: str) -> str:
        """Run a line that has to work; return its standard output."""
        said = self.try_(line)
        assert said.returncode == 0, f"$ {line}\n{said.stdout}{said.stderr}[exit code {said.returncode}]"
        return said.stdout

    def init_stages(self, line: str) -> list[str]:
        """Run an `ais etl init` that has to work; return the stages that it went through."""
        said = self.try_(line)
        assert said.returncode == 0, said.stderr
        return list(dict.fromkeys(text.partition(":")[0] for text in said.stderr.splitlines()))

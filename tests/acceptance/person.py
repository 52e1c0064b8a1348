"""What a person has: a shell with `ais` in it, and environments to install other clients into."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parents[2]

#: No command here may take longer than this (seconds): a hang fails with a name instead of stopping the run.
PATIENCE = 300.0


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


class Index:
    """Installs packages as a person would; the pip settings are those of this machine."""

    def __init__(self, environments: Path) -> None:
        self._environments = environments

    def environment(self, name: str, *packages: str) -> Path:
        """Return the interpreter of a virtual environment with ``packages``, made in this session or an earlier one."""
        directory = self._environments / re.sub(
            r"[^\w.-]+", "-", f"{name}-py{sys.version_info[0]}{sys.version_info[1]}"
        )
        python, complete = directory / "bin" / "python", directory / "complete"
        if not complete.exists() or complete.read_text() != repr(packages):
            subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True, timeout=PATIENCE)
            self.install(python, *packages)
            complete.write_text(repr(packages))
        return python

    def install(self, python: Path, *packages: str) -> None:
        """Install ``packages`` into the environment of ``python``."""
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stderr}"

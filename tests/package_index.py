"""Environments with other packages, made by pip as a person would make them, and kept from session to session."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

#: No installation may take longer than this (seconds).
PATIENCE = 300.0

#: NVIDIA's SDK with its web servers for transforms; without cloudpickle it cannot be sent a class.
SDK_SERVERS = ("aistore[etl]==2.0.0", "cloudpickle")


class Index:
    """Installs packages as a person would; the pip settings are those of this machine."""

    def __init__(self, environments: Path) -> None:
        self._environments = environments

    def environment(self, name: str, *packages: str, of: str = sys.executable) -> Path:
        """Return the interpreter of a virtual environment with ``packages``, made in this session or an earlier one."""
        directory = self._environments / re.sub(
            r"[^\w.-]+", "-", f"{name}-py{sys.version_info[0]}{sys.version_info[1]}"
        )
        python, complete = directory / "bin" / "python", directory / "complete"
        if not complete.exists() or complete.read_text() != repr(packages):
            subprocess.run([of, "-m", "venv", "--clear", directory], check=True, timeout=PATIENCE)
            self.install(python, *packages)
            complete.write_text(repr(packages))
        return python

    def install(self, python: Path, *packages: str) -> None:
        """Install ``packages`` into the environment of ``python``."""
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stderr}"


def reached(cache: pytest.Cache, folder: Path) -> Index:
    """Return the package index; skips where it cannot be reached."""
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--timeout", "10"]
    done = subprocess.run([*probe, "--dest", folder, "cowsay==6.1"], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        pytest.skip(f"no package index can be reached: {lines[-1] if lines else 'pip said nothing'}")
    return Index(cache.mkdir("acceptance"))

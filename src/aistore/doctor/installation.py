"""Checks of what is installed here: the Python, this package and its extras, and what could be in its place."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Iterable

from .. import __version__
from .._conflict import find_conflict
from .finding import Finding, Level

PYTHON_MIN = (3, 10)
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

#: Modules that an extra brings, which a plain install does not have.
EXTRAS = {"server": ("granian", "uvloop", "packaging"), "pytorch": ("torch", "numpy", "PIL")}


def missing_of(extra: str) -> list[str]:
    """Return the modules of ``extra`` that are not installed."""
    return [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]


def install_command(extra: str) -> str:
    """Return the command that installs ``extra`` into this environment."""
    return f"{shlex.quote(sys.executable)} -m pip install 'pyaistore[{extra}]'"


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Check the version of this interpreter."""
    found = f"Python {'.'.join(map(str, version))} ({sys.executable})"
    if version < PYTHON_MIN:
        return Finding("python", Level.FAIL, found, f"pyaistore needs Python {'.'.join(map(str, PYTHON_MIN))} or newer")
    return Finding("python", Level.OK, found)


def check_extras() -> list[Finding]:
    """Check which extras are installed; a client needs none."""
    findings = [Finding("pyaistore", Level.OK, f"{__version__} ({PACKAGE})")]
    for extra in EXTRAS:
        missing = missing_of(extra)
        if not missing:
            findings.append(Finding(extra, Level.OK, "installed"))
        else:
            what = {"server": "`ais serve`", "pytorch": "aistore.pytorch"}[extra]
            found = f"not installed: {', '.join(missing)}"
            findings.append(Finding(extra, Level.SKIP, found, f"for {what}: {install_command(extra)}"))
    return findings


def check_conflict(paths: Iterable[str] | None = None) -> Finding:
    """Check for NVIDIA's package in the same environment."""
    problem = find_conflict(paths)
    if problem:
        found, _, advice = problem.partition(". ")
        return Finding("conflict", Level.FAIL, found, advice)
    return Finding("conflict", Level.OK, "NVIDIA's `aistore` is not installed beside pyaistore")


def check_shadows(paths: Iterable[str] | None = None) -> Finding:
    """Check for another module called ``aistore`` that a program here would import."""
    places = [os.getcwd(), *(sys.path if paths is None else paths)]
    others = []
    for place in dict.fromkeys(os.path.abspath(place or ".") for place in places):
        for candidate in (os.path.join(place, "aistore.py"), os.path.join(place, "aistore", "__init__.py")):
            ours = os.path.realpath(os.path.dirname(candidate)) == os.path.realpath(PACKAGE)
            if os.path.isfile(candidate) and not ours:
                others.append(candidate)
    if others:
        return Finding(
            "shadows", Level.WARN, f"also called aistore: {', '.join(others)}",
            "rename it, or run programs from elsewhere: `import aistore` takes the first one found",
        )  # fmt: skip
    return Finding("shadows", Level.OK, "no other module is called aistore")

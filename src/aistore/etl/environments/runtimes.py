"""Runtimes: the Python interpreters on this machine that can run a transform.

A runtime's name is the field's: ``python3`` is the interpreter that serves the store, ``python3.11`` one of that
version. Nothing is installed for a runtime that is missing: the error says how to.
"""

from __future__ import annotations

import glob
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...errors import BadRequestError, EtlInitError

#: The transform's harness and pip's resolution report both need this much.
VERSION_MIN = (3, 8)

PROBE_TIMEOUT_SECONDS = 10.0  # guessed: an interpreter starts in 20 ms, one on a cold network disk in seconds

_NAME = re.compile(r"python([23])(?:\.(\d+))?")
_EXECUTABLE = re.compile(r"python(3(\.\d+)?)?")

# Runs in any Python 3, however old; ``-I`` keeps the caller's PYTHON* variables and directory out of the answer.
_PROBE = """
import json, os, platform, sys, sysconfig
try:
    import venv
except ImportError:
    venv = None
print(json.dumps({
    "executable": sys.executable, "version": list(sys.version_info[:3]), "venv": venv is not None,
    "implementation": platform.python_implementation(), "platform": sysconfig.get_platform(),
    "prefix": sys.prefix, "base_prefix": sys.base_prefix,
}))
"""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One interpreter, as it described itself when it was run.

    ``has_venv`` is whether it can make environments (distributions of Linux package that apart). ``reachable`` is
    whether other users can execute it: an interpreter below a home of mode 0700 serves only its owner.
    """

    name: str
    python: str
    version: str
    implementation: str
    platform: str
    prefix: str
    base_prefix: str
    has_venv: bool
    reachable: bool
    serving: bool

    @property
    def version_info(self) -> tuple[int, ...]:
        """The version as numbers, for comparing."""
        return tuple(int(part) for part in self.version.split("."))


_probed: dict[tuple[str, int], Runtime | None] = {}


def find_runtimes() -> dict[str, Runtime]:
    """Return the runtimes of this machine by name, ``python3`` and one ``python3.X`` for each version found.

    Each interpreter is run once to learn what it is, and again only when its file changes. Where several have one
    version, the serving interpreter comes first, then those that every user can execute, then the latest patch level.
    """
    serving = _serving()
    found = {"python3": serving, serving.name: serving}
    for path in _candidates():
        runtime = _probe(path)
        if runtime is None or runtime.version_info[:2] < VERSION_MIN:
            continue
        known = found.get(runtime.name)
        if known is None or _preference(runtime) > _preference(known):
            found[runtime.name] = runtime
    return dict(sorted(found.items(), key=lambda item: (item[0] != "python3", item[1].version_info)))


def resolve_runtime(name: str) -> Runtime:
    """Return the runtime called ``name`` (empty means ``python3``).

    Raises BadRequestError for a name that is no Python runtime, EtlInitError for one that this machine cannot run;
    the message names the runtimes that it can.
    """
    match = _NAME.fullmatch(name or "python3")
    if match is not None and match[0] in ("python3", f"python3.{sys.version_info[1]}"):
        return _serving()  # without the second or two that running all the others takes
    runtimes = find_runtimes()
    here = "this machine has: " + ", ".join(f"{key} ({found.version})" for key, found in runtimes.items())
    if match is None:
        raise BadRequestError(f"unknown runtime {name!r}", hint=f"expected python3 or python3.X; {here}")
    major, minor = int(match[1]), int(match[2] or -1)
    if match[0] in runtimes:
        return runtimes[match[0]]
    if major != 3 or 0 <= minor < VERSION_MIN[1]:
        raise EtlInitError(
            f"runtime {name!r} is too old: transforms need Python {VERSION_MIN[0]}.{VERSION_MIN[1]} or newer", hint=here
        )
    version = f"{major}.{minor}"
    raise EtlInitError(
        f"runtime {name!r} is not installed on this machine",
        hint=f"install it (for example `apt install python{version}-venv`, `pyenv install {version}` or"
        f" `uv python install {version}`) or choose another; {here}",
    )


def _preference(runtime: Runtime) -> tuple[bool, bool, bool, tuple[int, ...]]:
    return runtime.serving, runtime.reachable, runtime.has_venv, runtime.version_info


def _serving() -> Runtime:
    runtime = _probe(sys.executable)
    if runtime is None:
        raise EtlInitError(f"the serving interpreter {sys.executable!r} does not run", hint="was it removed?")
    return replace(runtime, python=sys.executable, serving=True)


def _candidates() -> Iterator[str]:
    """Yield paths of possible interpreters, each file once.

    The shims of version managers are passed over (slow, and they start what the current directory selects): the
    versions behind them are found where the managers install them. A virtual environment is somebody's own; the
    interpreter it was made from is the runtime.
    """
    home = os.path.expanduser("~")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    patterns = (
        os.path.join(os.environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv"), "versions", "*", "bin"),
        os.path.join(os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(data, "uv", "python"), "*", "bin"),
        "/usr/local/bin",
        "/usr/bin",
        "/opt/*/bin",
        "/Library/Frameworks/Python.framework/Versions/*/bin",
    )
    path = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(entry)]
    seen: set[str] = set()
    for directory in [*path, *(match for pattern in patterns for match in sorted(glob.glob(pattern)))]:
        if os.path.basename(directory) == "shims" or os.path.exists(os.path.join(directory, "..", "pyvenv.cfg")):
            continue
        for executable in _executables(directory):
            real = os.path.realpath(executable)
            if real not in seen:
                seen.add(real)
                yield executable


def _executables(directory: str) -> list[str]:
    try:
        names = [name for name in os.listdir(directory) if _EXECUTABLE.fullmatch(name)]
    except OSError:
        return []
    return [os.path.join(directory, name) for name in sorted(names, key=len, reverse=True)]


def _probe(path: str) -> Runtime | None:
    """Return what ``path`` says it is, or None: not an interpreter, a shim without a version behind it, too slow."""
    try:
        key = (path, os.stat(path).st_mtime_ns)
    except OSError:
        return None
    if key not in _probed:
        _probed[key] = _run_probe(path)
    return _probed[key]


def _run_probe(path: str) -> Runtime | None:
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_TIMEOUT_SECONDS,
            cwd="/",
            check=True,
        )
        answer = json.loads(done.stdout)
        version = answer["version"]
        # What the interpreter calls itself: a shim is not a path to keep, the file behind it is.
        python = str(answer["executable"])
        return Runtime(
            name=f"python{version[0]}.{version[1]}",
            python=python,
            version=".".join(str(part) for part in version),
            implementation=answer["implementation"],
            platform=answer["platform"],
            prefix=answer["prefix"],
            base_prefix=answer["base_prefix"],
            has_venv=answer["venv"],
            reachable=_others_can_execute(os.path.realpath(python)),
            serving=False,
        )
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, IndexError):
        return None


def _others_can_execute(path: str) -> bool:
    """Whether the mode bits let any user execute the file ``path``, directories above it included."""
    while True:
        if not os.stat(path).st_mode & stat.S_IXOTH:
            return False
        parent = os.path.dirname(path)
        if parent == path:
            return True
        path = parent

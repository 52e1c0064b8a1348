"""What a confined process may read, which user it is, and how a command is run in the sandbox: the trusted side.

The read list is computed outside of the sandbox and therefore only from what is trusted: the system, and what a
trusted interpreter says of itself. Of an environment that foreign code was installed into, nothing is run or believed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import EtlInitError
from ..fallbacks import lacking, lacks
from .environments.commands import CommandSpec, Run, run_guarded

WORKER_DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker")

#: Users of ETLs where the store runs as root: systemd's range for dynamic users, which no account has.
UID_FIRST, UID_LAST = 61184, 65519

#: What every program may need of a Linux system, environment aside. Nothing here belongs to a user.
_SYSTEM_PATHS = (
    "/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/nix/store", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/fonts",
    "/etc/os-release", "/etc/debian_version", "/etc/lsb-release", "/etc/alpine-release", "/etc/redhat-release",
    "/etc/system-release",
)  # fmt: skip

#: What a program needs to know that ``localhost`` is itself.
OWN_HOST_PATHS = ("/etc/hosts", "/etc/nsswitch.conf")

#: What a program needs to find and trust a server.
NETWORK_PATHS = (
    *OWN_HOST_PATHS, "/etc/resolv.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services",
    "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/ca-certificates.conf",
)  # fmt: skip

_INSTALLER_PROCESSES_MAX = 4096  # guessed: compilers in parallel, on many cores
_INSTALLER_DISK_BYTES_MAX = 64 << 30  # guessed: the largest environments have 10 GB, and as much while they are made

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_QUERY_SECONDS = 60  # an interpreter on a cold network disk

_QUERY = """
import json, sys, sysconfig
paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sysconfig.get_paths().values()]
found = {"version": list(sys.version_info[:3]), "executable": sys.executable, "paths": paths, "path": sys.path}
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python: its ``executable``, its ``version`` and the paths it must be able to ``read``."""

    executable: str
    version: tuple[int, ...]
    read: tuple[str, ...]


def inspect_interpreter(python: str) -> Interpreter:
    """Ask a trusted interpreter where it lives; raises EtlInitError if it cannot be run or is too old.

    It is asked again only when its file has changed.
    """
    try:
        return _inspect(python, os.stat(python).st_mtime_ns)
    except OSError as error:
        raise EtlInitError(f"the interpreter {python} cannot be run: {error}") from error


@functools.lru_cache(maxsize=64)
def _inspect(python: str, _changed_ns: int) -> Interpreter:
    try:
        answer = subprocess.run(
            [python, "-I", "-B", "-c", _QUERY], capture_output=True, timeout=_QUERY_SECONDS, check=True, cwd="/",
            env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
        )  # fmt: skip
        found = json.loads(answer.stdout)
    except subprocess.CalledProcessError as error:
        text = error.stderr.decode(errors="replace").strip()[-500:]
        raise EtlInitError(f"the interpreter {python} does not work: {text}") from error
    except (ValueError, subprocess.TimeoutExpired) as error:
        raise EtlInitError(f"the interpreter {python} cannot be run: {error}") from error
    version = tuple(found["version"])
    if version < (3, 8):
        raise EtlInitError(
            f"{python} is Python {'.'.join(map(str, version))}", hint="transforms need Python 3.8 or newer"
        )
    paths = [python, *found["paths"], *(path for path in found["path"] if os.path.isdir(path))]
    executables = _link_chain(python) + _link_chain(found["executable"])
    return Interpreter(found["executable"], version, tuple(_minimal([*paths, *executables])))


def readable_paths(interpreter: Interpreter, *more: str, network: bool = False) -> list[str]:
    """Return what an ETL may read: system libraries, its interpreter, our worker code, and ``more``.

    With ``network`` that includes what a program needs to find and trust a server.
    """
    return _minimal([*_SYSTEM_PATHS, *(NETWORK_PATHS if network else ()), *interpreter.read, WORKER_DIRECTORY, *more])


def _link_chain(path: str) -> list[str]:
    """Return ``path`` and each place its symbolic links lead to (a venv's python, pyenv's, the system's)."""
    chain = [path]
    while os.path.islink(path) and len(chain) < 40:
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        chain.append(path)
    return [*chain, os.path.realpath(path)]


def _minimal(paths: Sequence[str]) -> list[str]:
    """Return the existing ``paths`` as absolute ones, and what they resolve to, without those inside another."""
    absolute = {os.path.abspath(path) for path in paths if path and os.path.exists(path)}
    absolute |= {os.path.realpath(path) for path in absolute}
    kept: list[str] = []
    for path in sorted(absolute):
        if path != "/" and not (kept and _inside(path, kept)):
            kept.append(path)
    return kept


def _inside(path: str, directories: Sequence[str]) -> bool:
    return any(path == directory or path.startswith(directory + "/") for directory in directories)


def check_hidden(read: Sequence[str], hidden: Sequence[str]) -> None:
    """Raise EtlInitError if a directory that transforms must never see lies inside what they may read."""
    for directory in map(os.path.realpath, hidden):
        for path in read:
            if _inside(directory, [path]):
                raise EtlInitError(
                    f"{directory} lies inside {path}, which transforms must be able to read",
                    hint="keep the store's data elsewhere, or use an interpreter in a directory of its own",
                )


_uids: set[int] = set()
_uids_lock = threading.Lock()


def reserve_uid() -> int:
    """Return a user id that no process on this machine and no other ETL of this store has; raises EtlInitError."""
    with _uids_lock:
        taken = _uids | _uids_of_processes()
        # From anywhere in the range: another store may be reserving too, or its processes not be visible.
        count = UID_LAST + 1 - UID_FIRST
        offset = secrets.randbelow(count)
        for step in range(count):
            uid = UID_FIRST + (offset + step) % count
            if uid not in taken:
                _uids.add(uid)
                return uid
    raise EtlInitError(f"every user id from {UID_FIRST} to {UID_LAST} is in use")


def release_uid(uid: int | None) -> None:
    """Give a user id back; None is none."""
    with _uids_lock:
        _uids.discard(-1 if uid is None else uid)


def _uids_of_processes() -> set[int]:
    uids: set[int] = set()
    for name in [] if lacks("proc") else os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                uids.add(os.stat(f"/proc/{name}").st_uid)
    return uids


def memory_bytes_default() -> int:
    """Return what the processes of one ETL may use together where nobody says: half of what this machine has.

    Of a container that is what it is limited to.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            machine = min(machine, int(file.read()))
    return machine // 2


def confine_command(config: dict[str, Any] | str) -> list[str]:
    """Return the start of a command line that runs the rest of it in the sandbox ``config`` (or ``@<fd>`` with it).

    The store's own interpreter sets the sandbox up, without site-packages: nothing foreign runs before it holds.
    """
    text = config if isinstance(config, str) else json.dumps(config)
    return [sys.executable, "-I", "-S", "-B", os.path.join(WORKER_DIRECTORY, "confine.py"), text, "--"]


def confined_run(*, namespaces: bool = True) -> Run:
    """Return a ``Run`` (environments/) that runs installers confined: they write to their own directory only."""

    def run(spec: CommandSpec, *arguments: Any) -> int:
        with _own_user() as uid:
            config = {
                "mode": "on", "uid": uid, "gid": uid, "read": _minimal([*_SYSTEM_PATHS, *NETWORK_PATHS, *spec.read]),
                "write": [spec.write], "scratch": spec.env.get("TMPDIR", spec.write), "network": spec.network,
                "namespaces": namespaces, "must_reach": [spec.argv[0]], "lacking": lacking(),
                "installs": True, "memory_bytes_max": memory_bytes_default(), "processes_max": _INSTALLER_PROCESSES_MAX,
                "disk_bytes_max": _INSTALLER_DISK_BYTES_MAX,
            }  # fmt: skip
            return run_guarded(lambda life: confine_command({**config, "life_fd": life}), spec, *arguments)

    return run


@contextlib.contextmanager
def _own_user() -> Iterator[int | None]:
    uid = reserve_uid() if os.geteuid() == 0 else None
    try:
        yield uid
    finally:
        release_uid(uid)

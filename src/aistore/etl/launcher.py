"""Starts an ETL's process tree and ends it: the trusted side of ``worker/PROTOCOL.md``.

Nothing that the ETL's author or a package can have written runs outside the sandbox: the process is started with the
store's own interpreter (``confine.py``), enters the sandbox, and only then becomes the interpreter of the ETL. Its
``.pth`` files, its ``sitecustomize`` and the variables that the user gave act inside.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import EtlInitError
from ..model.etl import OUTPUT_BYTES_MAX

WORKER_DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker")

OBJECTS_PER_WORKER = 10_000  # measured: 10,000 objects with torch leave a worker as it was; a bound for slow leaks
MEMORY_GROWTH_BYTES_MAX = 1 << 30  # guessed: a worker that keeps a GiB more than it started with leaks
SCRATCH_BYTES_MAX = 1 << 30  # guessed: temporary files of one ETL

#: Users of ETLs where the store runs as root: systemd's range for dynamic users, which no account has.
UID_FIRST, UID_LAST = 61184, 65519

#: What every program may need of a Linux system, environment aside. Nothing here belongs to a user.
_SYSTEM_PATHS = (
    "/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/nix/store", "/etc/ld.so.cache", "/etc/ld.so.conf",
    "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/fonts",
    "/System", "/Library/Frameworks",
)  # fmt: skip

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MESSAGE_BYTES_MAX = 64 << 10
_INLINE_CODE_BYTES_MAX = 32 << 10
_QUERY_SECONDS = 60  # an interpreter on a cold network disk
_CLOSE_SECONDS = 15.0  # kernel work only: memory of killed processes is given back

# Threads of libraries fight each other in several workers, and those of a forked pool hang: one each.
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_QUERY = """
import json, sys, sysconfig
paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *sysconfig.get_paths().values()]
print(json.dumps({"version": list(sys.version_info[:3]), "executable": sys.executable, "paths": paths, "path": sys.path}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python: its ``executable``, its ``version`` and the directories it must be able to ``read``."""

    executable: str
    version: tuple[int, int, int]
    read: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What to start.

    ``kind`` is ``script`` or ``function``. ``python`` runs inside the sandbox; ``base_python`` is the trusted
    interpreter that it was made from and that is asked, outside the sandbox, for its paths (default: ``python``
    itself, which is then run outside once). ``environment`` is the directory of ``python`` where its content is not
    trusted. ``scratch`` is an existing directory of this ETL alone. ``hidden`` are directories that the transform
    must never see, first of all the store's data.
    """

    name: str
    kind: str
    code: str
    python: str
    scratch: str
    base_python: str = ""
    environment: str | None = None
    workers: int = 1
    objects_per_worker: int = OBJECTS_PER_WORKER
    output_bytes_max: int = OUTPUT_BYTES_MAX
    memory_growth_bytes_max: int = MEMORY_GROWTH_BYTES_MAX
    scratch_bytes_max: int = SCRATCH_BYTES_MAX
    sandbox: bool = True
    network: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[str] = ()
    uid: int | None = None


class Launched:
    """A running ETL: its control socket and its process tree.

    ``control`` is a ``SOCK_SEQPACKET`` socket; ``receive`` and ``send`` speak JSON on it. ``guard_pid`` is the
    trusted process that holds the tree together. Close it when done; closing leaves no process behind.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, life: int, uid: int | None) -> None:
        self._process = process
        self._life = life
        self._lock = threading.Lock()
        self.control = control
        self.uid = uid

    @property
    def guard_pid(self) -> int:
        """Pid of the process that ends when the ETL has ended."""
        return self._process.pid

    def receive(self, timeout_seconds: float | None = None) -> dict[str, Any] | None:
        """Return the next event, or None when the ETL has ended; raises TimeoutError.

        For a loop of events: watch ``control`` and call this when it is readable. A message that is not what the
        protocol says ends the ETL for its reader: None.
        """
        self.control.settimeout(timeout_seconds)
        try:
            data = self.control.recv(_MESSAGE_BYTES_MAX)
            message = json.loads(data) if data else None
        except (ConnectionResetError, ValueError):
            return None
        return message if isinstance(message, dict) and isinstance(message.get("event"), str) else None

    def set_workers(self, count: int) -> None:
        """Ask for ``count`` workers."""
        with contextlib.suppress(OSError):  # it has just ended; its reader will see
            self.control.send(json.dumps({"command": "workers", "count": count}).encode())

    def running(self) -> bool:
        """Return whether the tree still exists."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the ETL at once and wait until none of its processes is left. May be called again."""
        with self._lock:
            if self._life >= 0:
                os.close(self._life)
                self._life = -1
                self.control.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:  # stopped by someone, or a process in uninterruptible sleep
            self._process.kill()
            self._process.wait()
        _release_uid(self.uid)


def launch(options: LaunchOptions, listener: socket.socket, log_fd: int) -> Launched:
    """Start the process tree of an ETL and send it its configuration; its events tell how that goes.

    ``listener`` is the listening ``SOCK_SEQPACKET`` socket (blocking) that its workers accept from. Standard output
    and error go to ``log_fd``. Raises EtlInitError when it cannot be started at all.
    """
    interpreter = inspect_interpreter(options.base_python or options.python)
    read = readable_paths(interpreter, options.environment)
    _check_hidden(read, options.hidden)
    uid = options.uid
    if uid is None and options.sandbox and os.geteuid() == 0:
        uid = reserve_uid()
    sandbox = {
        "mode": "on" if options.sandbox else "off", "uid": uid, "gid": uid, "read": read,
        "write": [options.scratch], "scratch": options.scratch, "scratch_bytes_max": options.scratch_bytes_max,
        "output_bytes_max": options.output_bytes_max, "network": options.network,
        "env": environment_variables(options),
    }  # fmt: skip
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    life_read, life_write = os.pipe()
    try:
        with theirs:
            sandbox.update(report_fd=theirs.fileno(), life_fd=life_read)
            process = _start(sandbox, options.python, (theirs.fileno(), listener.fileno(), life_read), log_fd)
    except BaseException as error:
        control.close()
        os.close(life_write)
        _release_uid(uid)
        if isinstance(error, OSError):
            raise EtlInitError(f"etl {options.name}: {sys.executable} cannot be started: {error}") from error
        raise
    finally:
        os.close(life_read)
    launched = Launched(process, control, life_write, uid)
    try:
        _send_configuration(control, options)
    except OSError:
        pass  # it ended before it read that; its control socket and log tell why
    return launched


def _start(
    sandbox: dict[str, Any], python: str, descriptors: tuple[int, int, int], log_fd: int
) -> subprocess.Popen[bytes]:
    control, listener, life = descriptors
    with _anonymous_file(json.dumps(sandbox).encode()) as file:
        command = [
            sys.executable, "-I", "-S", "-B", os.path.join(WORKER_DIRECTORY, "confine.py"), f"@{file.fileno()}", "--",
            python, "-s", "-B", os.path.join(WORKER_DIRECTORY, "main.py"), str(control), str(listener),
        ]  # fmt: skip
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, cwd="/", start_new_session=True,
            env={"PATH": _PATH, "LANG": "C.UTF-8"}, pass_fds=(control, listener, life, file.fileno()),
        )  # fmt: skip


def _send_configuration(control: socket.socket, options: LaunchOptions) -> None:
    config: dict[str, Any] = {
        "name": options.name, "kind": options.kind, "filename": os.path.join(options.scratch, f"{options.name}.py"),
        "workers": options.workers, "objects_per_worker": options.objects_per_worker,
        "output_bytes_max": options.output_bytes_max, "memory_growth_bytes_max": options.memory_growth_bytes_max,
    }  # fmt: skip
    code = options.code.encode()
    if len(code) <= _INLINE_CODE_BYTES_MAX:
        control.send(json.dumps({**config, "code": options.code}).encode())
        return
    with _anonymous_file(code) as file:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))]
        control.sendmsg([json.dumps({**config, "code_fd": True}).encode()], rights)


def _anonymous_file(content: bytes) -> Any:
    """Return a temporary file without a name that holds ``content``, at its start."""
    file = tempfile.TemporaryFile() if not hasattr(os, "memfd_create") else open(os.memfd_create("aistore"), "w+b")  # noqa: SIM115
    file.write(content)
    file.seek(0)
    return file


def environment_variables(options: LaunchOptions) -> dict[str, str]:
    """Return the environment of an ETL: nothing of the store's own but what every process needs, and what was given."""
    bin_directory = os.path.dirname(options.python)
    variables = {
        "PATH": f"{bin_directory}:{_PATH}", "HOME": options.scratch, "TMPDIR": options.scratch, "LANG": "C.UTF-8",
        "USER": "etl", "LOGNAME": "etl", **dict.fromkeys(_ONE_THREAD, "1"),
    }  # fmt: skip
    return {**variables, **options.env}


def inspect_interpreter(python: str) -> Interpreter:
    """Ask a trusted interpreter where it lives; raises EtlInitError if it cannot be run or is too old."""
    try:
        answer = subprocess.run(
            [python, "-I", "-B", "-c", _QUERY], capture_output=True, timeout=_QUERY_SECONDS, check=True, cwd="/",
            env={"PATH": _PATH, "LANG": "C.UTF-8"},
        )  # fmt: skip
        found = json.loads(answer.stdout)
    except subprocess.CalledProcessError as error:
        text = error.stderr.decode(errors="replace").strip()[-500:]
        raise EtlInitError(f"the interpreter {python} does not work: {text}") from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise EtlInitError(f"the interpreter {python} cannot be run: {error}") from error
    version = tuple(found["version"])
    if version < (3, 8):
        raise EtlInitError(
            f"{python} is Python {'.'.join(map(str, version))}", hint="transforms need Python 3.8 or newer"
        )
    paths = [python, *found["paths"], *(path for path in found["path"] if os.path.isdir(path))]
    executables = _link_chain(python) + _link_chain(found["executable"])
    return Interpreter(found["executable"], version, tuple(_minimal([*paths, *executables])))


def readable_paths(interpreter: Interpreter, environment: str | None) -> list[str]:
    """Return what an ETL may read: system libraries, its interpreter, its environment and our worker code."""
    system = [path for path in _SYSTEM_PATHS if os.path.exists(path)]
    own = [*interpreter.read, WORKER_DIRECTORY]
    return _minimal([*system, *own, *([os.path.realpath(environment)] if environment else [])])


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
    return any(
        path == directory or path.startswith(directory + "/") for directory in directories if os.path.isdir(directory)
    )


def _check_hidden(read: Sequence[str], hidden: Sequence[str]) -> None:
    for directory in map(os.path.realpath, hidden):
        for path in read:
            if _inside(directory, [path]):
                raise EtlInitError(
                    f"{directory} lies inside {path}, which transforms must be able to read",
                    hint="move the store's data elsewhere, or use an interpreter in a directory of its own",
                )


_uids: set[int] = set()
_uids_lock = threading.Lock()


def reserve_uid() -> int:
    """Return a user id that no process on this machine and no other ETL of this store has; raises EtlInitError."""
    with _uids_lock:
        taken = _uids | _uids_of_processes()
        for uid in range(UID_FIRST, UID_LAST + 1):
            if uid not in taken:
                _uids.add(uid)
                return uid
    raise EtlInitError(f"every user id from {UID_FIRST} to {UID_LAST} is in use")


def _release_uid(uid: int | None) -> None:
    with _uids_lock:
        _uids.discard(-1 if uid is None else uid)


def _uids_of_processes() -> set[int]:
    uids = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                uids.add(os.stat(f"/proc/{name}").st_uid)
    return uids

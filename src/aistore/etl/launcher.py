"""Starts an ETL's process tree and ends it: the trusted side of ``worker/PROTOCOL.md``.

Nothing that the ETL's author or a package can have written runs outside the sandbox: the process is started with the
store's own interpreter (``confine.py``), enters the sandbox, and only then becomes the interpreter of the ETL. Its
``.pth`` files, its ``sitecustomize`` and the variables that the user gave act inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import EtlInitError
from ..fallbacks import lacking, lacks
from ..model.etl import OUTPUT_BYTES_MAX
from ..settings import DEFAULT_ETL_IDLE_SECONDS
from . import confinement
from .peers import CREDENTIALS_ROOM, MESSAGES_KIND, ask_for_credentials, sender_of
from .worker.clearing import clear
from .worker.messages import Ancillary, Messages, descriptors_of

OBJECTS_PER_WORKER = 10_000  # measured: 10,000 objects with torch leave a worker as it was; a bound for slow leaks
MEMORY_GROWTH_BYTES_MAX = 1 << 30  # guessed: a worker that keeps a GiB more than it started with leaks
THREAD_SECONDS_MAX = 30.0  # guessed: how long a thread may outlive its program; a timeout of the object comes first
SCRATCH_BYTES_MAX = 1 << 30  # guessed: temporary files of one ETL
PROCESSES_MAX = 1024  # guessed: processes and threads of one ETL, beside one for each worker

_MESSAGE_BYTES_MAX = 64 << 10
_INLINE_CODE_BYTES_MAX = 32 << 10
_PIDS_MAX = 4096  # four times as many as there can be workers
_CLOSE_SECONDS = 15.0  # kernel work only: memory of killed processes is given back

#: Threads of libraries fight each other in several workers, and those of a forked pool hang: one each.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What to start.

    ``kind`` is ``script`` or ``function``. ``python`` runs inside the sandbox; ``base_python`` is the trusted
    interpreter that it was made from and that is asked, outside the sandbox, for its paths (default: ``python``
    itself, which is then run outside once). ``environment`` is the directory of ``python`` where its content is not
    trusted. ``scratch`` is an existing directory of this ETL alone, emptied at the end. ``hidden`` are directories
    that the transform must never see, first of all the store's data. ``namespaces`` False does without them even
    where the system has them. With ``network`` it reaches what this machine reaches. ``cpus``
    is how many cores it has, rounded up; 0 for all. ``filename`` is what tracebacks
    call the code (default: where it lies). Root gives the ETL a user of its own: ``uid``, or one that nobody has.
    ``workers`` is how many there are at most; those that have nothing to do for ``idle_seconds`` end.
    ``memory_bytes_max`` is for all its processes together; 0 is ``confinement.memory_bytes_default``.
    """

    name: str
    kind: str
    code: str
    python: str
    scratch: str
    base_python: str = ""
    environment: str | None = None
    workers: int = 1
    idle_seconds: float = DEFAULT_ETL_IDLE_SECONDS
    objects_per_worker: int = OBJECTS_PER_WORKER
    output_bytes_max: int = OUTPUT_BYTES_MAX
    memory_growth_bytes_max: int = MEMORY_GROWTH_BYTES_MAX
    scratch_bytes_max: int = SCRATCH_BYTES_MAX
    memory_bytes_max: int = 0
    thread_seconds_max: float = THREAD_SECONDS_MAX
    sandbox: bool = True
    namespaces: bool = True
    network: bool = False
    cpus: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[str] = ()
    uid: int | None = None
    filename: str = ""


class Launched:
    """A running ETL: its control socket and its process tree.

    Watch ``control`` and call ``receive`` when it is readable. ``guard_pid`` is the trusted process that ends when
    the ETL has ended. Close it when done; closing leaves no process and no scratch file behind.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, life: int, uid: int | None, scratch: str
    ) -> None:
        self._process = process
        self._life = life
        self._uid = uid
        self._scratch = scratch
        self._lock = threading.Lock()
        self._pids: dict[int, int] = {}  # of workers: as they see it in their pid namespace, as we do
        self.control = control
        self._messages = Messages(control)

    @property
    def guard_pid(self) -> int:
        """Pid of the process that ends when the ETL has ended."""
        return self._process.pid

    def receive(self, timeout_seconds: float | None = None) -> dict[str, Any] | None:
        """Return the next event, or None when the ETL has ended; raises TimeoutError, with 0 BlockingIOError.

        A message that is not as the protocol says counts as the end. Process ids in events are ours.
        """
        self.control.settimeout(timeout_seconds)
        room = CREDENTIALS_ROOM + socket.CMSG_SPACE(64)
        try:
            try:
                data, ancillary = self._messages.receive(_MESSAGE_BYTES_MAX, room)
            except ConnectionResetError:  # it ended without reading all we sent; what it sent comes after this
                data, ancillary = self._messages.receive(_MESSAGE_BYTES_MAX, room)
        except (BlockingIOError, TimeoutError):
            raise
        except OSError:
            return None
        sender = _take_ancillary(ancillary)  # before anything of the message is looked at: it may bring descriptors
        try:
            message = json.loads(data) if data else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(message, dict) or not isinstance(message.get("event"), str):
            return None
        return self._with_our_pid(message, sender)

    def _with_our_pid(self, event: dict[str, Any], sender: int) -> dict[str, Any] | None:
        """Replace a pid of the ETL's own pid namespace; None if the event is not one."""
        kind, pid = event["event"], event.get("pid")
        if kind == "sandbox":
            layers = [*_list_of(event.get("layers", [])), *_list_of(event.get("missing", []))]
            return event if all(isinstance(layer, str) for layer in layers) else None
        if kind == "excess":  # the guard's word: what the code says of itself in these words is not heard
            known = sender == self.guard_pid and isinstance(event.get("message"), str)
            return event if known else {"event": "unknown"}
        if kind not in ("worker", "exited", "ready"):
            return event
        if type(pid) is not int or not 0 < pid < 1 << 31:
            return None
        if kind == "exited":
            if type(event.get("status")) is not int or not 0 <= event["status"] <= 0xFFFF:
                return None
            return {**event, "pid": self._pids.pop(pid, pid)}
        # The kernel's word for who sent this, beside what it calls itself. Without it everybody uses the numbers that
        # the ETL itself does.
        ours = pid if lacks("credentials") else sender
        if kind == "worker":
            self._pids[pid] = ours
            if len(self._pids) > _PIDS_MAX:  # the end of some was not told, while nobody read
                self._pids = {number: known for number, known in self._pids.items() if _exists(known)}
            if len(self._pids) > _PIDS_MAX:  # nobody has so many workers: the code sends these
                return None
        return {**event, "pid": ours}

    @property
    def workers(self) -> int:
        """How many workers have started and not been said to have ended, by the events received so far."""
        return len(self._pids)

    def end_worker(self, pid: int, turn: int) -> None:
        """Have the parent kill its worker ``pid`` if that is still at its ``turn``-th object."""
        with contextlib.suppress(OSError):  # it has just ended; whoever reads its events will see
            self._messages.send(json.dumps({"command": "kill", "pid": pid, "turn": turn}).encode())

    def running(self) -> bool:
        """Return whether the tree still exists."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> None:
        """Wait for the guard, whose connection has ended, to have ended itself. Blocks."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    @property
    def guard_was_killed(self) -> bool:
        """Whether a signal ended the guard, which nothing inside the sandbox can send it."""
        return (self._process.poll() or 0) < 0

    def close(self) -> None:
        """End the ETL at once and wait until none of its processes is left. May be called again. Blocks."""
        with self._lock:
            if self._life < 0:
                return
            os.close(self._life)
            self._life = -1
            try:
                self._process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:  # stopped by someone, or a process in uninterruptible sleep
                self._process.kill()
                self._process.wait()
            self.control.close()
            confinement.release_uid(self._uid)
            clear(self._scratch)


def launch(options: LaunchOptions, listener: socket.socket, log_fd: int) -> Launched:
    """Start the process tree of an ETL and send it its configuration; its events tell how that goes. Blocks shortly.

    ``listener`` is the listening socket of ``peers.MESSAGES_KIND`` that its workers accept from. Standard output and
    error go to ``log_fd``. Raises EtlInitError when it cannot be started at all.
    """
    # Without "..": in the new root there may be no directory to go up from.
    options = replace(options, python=os.path.abspath(options.python), scratch=os.path.abspath(options.scratch))
    interpreter = confinement.inspect_interpreter(options.base_python or options.python)
    environments = [options.environment] if options.environment else []
    read = confinement.readable_paths(interpreter, *environments, network=options.network)
    if options.sandbox:
        confinement.check_hidden(read, options.hidden)
    # Workers wait in accept(), unless they have to watch a pipe at the same time.
    os.set_blocking(listener.fileno(), not lacks("parent-death-signal"))
    uid = options.uid
    if uid is None and options.sandbox and os.geteuid() == 0:
        uid = confinement.reserve_uid()
    config = {
        "mode": "on" if options.sandbox else "off", "uid": uid, "gid": uid, "read": read,
        "write": [options.scratch], "scratch": options.scratch, "scratch_bytes_max": options.scratch_bytes_max,
        "output_bytes_max": options.output_bytes_max, "network": options.network, "env": environment_variables(options),
        "namespaces": options.namespaces, "must_reach": [options.python, confinement.WORKER_DIRECTORY],
        "lacking": lacking(), "cpus": options.cpus, "tmp": "cwd", "processes_max": PROCESSES_MAX + options.workers,
        "memory_bytes_max": options.memory_bytes_max or confinement.memory_bytes_default(),
    }  # fmt: skip
    main = os.path.join(confinement.WORKER_DIRECTORY, "main.py")

    def command(control: int) -> list[str]:
        return [options.python, "-s", "-B", main, str(control), str(listener.fileno())]

    launched = start_confined(options.name, config, command, [listener.fileno()], log_fd)
    with contextlib.suppress(OSError):  # it ended before it read this; its events and its log tell why
        _send_configuration(Messages(launched.control), options, read)
    return launched


def start_confined(
    name: str, config: dict[str, Any], command: Callable[[int], list[str]], descriptors: Sequence[int], log_fd: int
) -> Launched:
    """Run ``command``, which is told the number of its control socket, in the sandbox ``config`` (confine.py).

    It gets ``descriptors`` too. Whatever happens, the ``uid`` of ``config`` is given back in the end. Raises
    EtlInitError when it cannot be started at all.
    """
    env = {"PATH": confinement.SYSTEM_PATH, "LANG": "C.UTF-8"}

    def program(file: int) -> list[str]:
        return [*confinement.confine_command(f"@{file}"), *command(config["report_fd"])]

    try:
        return start_guard(name, config, program, descriptors, log_fd, env=env)
    except BaseException:
        confinement.release_uid(config["uid"])
        raise


def start_guard(
    name: str, config: dict[str, Any], program: Callable[[int], list[str]], descriptors: Sequence[int], log_fd: int, *,
    env: Mapping[str, str],
) -> Launched:  # fmt: skip
    """Start a guard, whose command line is told the descriptor of its ``config``; it gets a control and a life pipe.

    Raises EtlInitError when it cannot be started.
    """
    control, theirs = socket.socketpair(socket.AF_UNIX, MESSAGES_KIND)
    ask_for_credentials(control)
    life_read, life_write = os.pipe()
    try:
        config.update(report_fd=theirs.fileno(), life_fd=life_read)
        with theirs, _anonymous_file(json.dumps(config).encode()) as file:
            process = subprocess.Popen(
                program(file.fileno()), stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, cwd="/",
                start_new_session=True, env=env, pass_fds=(theirs.fileno(), life_read, file.fileno(), *descriptors),
            )  # fmt: skip
    except BaseException as error:
        control.close()
        os.close(life_write)
        if isinstance(error, OSError):
            raise EtlInitError(f"etl job {name} cannot be started: {error}") from error
        raise
    finally:
        os.close(life_read)
    return Launched(process, control, life_write, config.get("uid"), config["scratch"])


def _send_configuration(control: Messages, options: LaunchOptions, read: list[str]) -> None:
    config: dict[str, Any] = {
        "name": options.name, "kind": options.kind, "filename": os.path.join(options.scratch, f"{options.name}.py"),
        "title": options.filename,
        "workers": options.workers, "idle_seconds": options.idle_seconds,
        "objects_per_worker": options.objects_per_worker,
        "output_bytes_max": options.output_bytes_max, "memory_growth_bytes_max": options.memory_growth_bytes_max,
        "thread_seconds_max": options.thread_seconds_max, "lacking": lacking(),
        "readable": read if options.sandbox else None,
    }  # fmt: skip
    code = options.code.encode()
    if len(code) <= _INLINE_CODE_BYTES_MAX:
        control.send(json.dumps({**config, "code": options.code}).encode())
        return
    with _anonymous_file(code) as file:
        control.send(json.dumps({**config, "code_fd": True}).encode(), [file.fileno()])


def environment_variables(options: LaunchOptions) -> dict[str, str]:
    """Return the environment of an ETL: nothing of the store's own but what every process needs, and what was given."""
    variables = {
        "PATH": f"{os.path.dirname(options.python)}:{confinement.SYSTEM_PATH}", "HOME": options.scratch,
        "TMPDIR": options.scratch, "LANG": "C.UTF-8", "USER": "etl", "LOGNAME": "etl",
        "PYTHONHASHSEED": "0",  # or what a set is iterated in differed between workers, and with it results
        **dict.fromkeys(ONE_THREAD, "1"),
    }  # fmt: skip
    return {**variables, **options.env}


def _anonymous_file(content: bytes) -> Any:
    """Return a temporary file without a name that holds ``content``, at its start."""
    file: Any = tempfile.TemporaryFile() if lacks("memfd") else open(os.memfd_create("aistore"), "w+b")  # noqa: SIM115
    file.write(content)
    file.seek(0)
    return file


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return True


def _list_of(value: object) -> list[object]:
    """Return a list of the wire; a list of nothing that is allowed if it is none."""
    return value if isinstance(value, list) else [None]


def _take_ancillary(ancillary: Ancillary) -> int:
    """Return the pid in the credentials of a message; descriptors that came with it are closed."""
    for fd in descriptors_of(ancillary):
        os.close(fd)
    return sender_of(ancillary)

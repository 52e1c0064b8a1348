"""The supervisor: starts the store's processes, keeps them running, ends them. It does nothing else.

It owns the data directory's lock and the listening socket. A child that dies is started again, sooner the longer it
had lived; a child whose supervisor dies ends itself (process.py).
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from .. import __version__
from ..errors import AisError, BadRequestError, ConflictError
from ..etl.probe import SandboxFound, probe_sandbox
from ..etl.results import results_directory, results_settings
from ..fallbacks import VARIABLE, taken_away
from ..observe.counters import COUNTERS
from ..observe.layout import RESTARTS
from ..settings import DEFAULT_LEASE_SECONDS, ProcessSettings, ServeSettings, make_runtime_directory
from ..storage.cache.keeper import recover_cache
from ..storage.cache.layout import own_cache, refuse_cache_as_data
from ..storage.local.housekeeping import recover_store
from ..storage.local.locks import Ownership, acquire_ownership
from ..storage.local.members import attach
from .access import is_loopback
from .holder import describe_port_holder
from .identity import node_identity
from .node.alone import backed_cache
from .node.start import open_cluster
from .process import begin

_log = logging.getLogger("aistore.supervisor")

_READY_SECONDS = 60.0
#: A node that joins a cluster installs what the cluster's transforms need before.
_JOIN_SECONDS = 960.0
_STOP_SECONDS = 15.0
_BACKOFF_SECONDS_MAX = 5.0
_LISTEN_BACKLOG = 4096

#: The HTTP library's allocator, too, gives memory back soon. Else it does so only when it is asked for more: after 500
#: slow downloads an idle worker kept 200 MiB, with this it is at its 30 MiB two seconds later.
_ALLOCATOR = {"_RJEM_MALLOC_CONF": "background_thread:true,dirty_decay_ms:2000,muzzy_decay_ms:0"}

# Not `python -m`: it imports from the working directory first, whatever a user has there under a module's name.
_START = "import sys; sys.path[:1] = filter(None, sys.path[:1]); from {} import main; main()"


@dataclass
class _Child:
    """One kind of child at one place in the table."""

    place: str
    module: str
    listens: bool
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    start_again_at: float = 0.0


class Supervisor:
    """Runs one store until it is told to stop."""

    def __init__(self, settings: ServeSettings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._children = [_Child("controller", "aistore.server.controller", listens=False)]
        self._children += [
            _Child(f"http-{number}", "aistore.server.http_worker", listens=True)
            for number in range(settings.worker_count)
        ]
        self._stopping = False
        self._wake_reader, self._wake_writer = os.pipe()
        self._lifeline_reader, self._lifeline_writer = os.pipe()

    def run(self) -> int:
        """Start everything, say so in one line, run until SIGTERM or SIGINT; return the exit status."""
        check_exposure(self._settings)
        results_settings(self._settings)  # a size that is none
        with ExitStack() as held:
            ownership = held.enter_context(closing(self._own()))
            if self._settings.store:
                recover_cache(self._settings.cache)
                found, asked = open_cluster(self._settings.store), self._settings
                self._settings = replace(
                    asked, cluster_secret=asked.cluster_secret or found.secret, store_capabilities=found.capabilities,
                    lease_seconds=asked.lease_seconds or found.lease_seconds or DEFAULT_LEASE_SECONDS,
                )  # fmt: skip
            listener = held.enter_context(listen(self._settings.host, self._settings.port))
            runtime = make_runtime_directory(self._settings.data)
            held.callback(shutil.rmtree, runtime, ignore_errors=True)
            port: int = listener.getsockname()[1]
            url = f"http://{_url_host(self._settings.host)}:{port}"
            ownership.announce(url)
            if not self._settings.store:
                recover_store(self._settings.data)
            for cache in (backed_cache(self._settings.data), results_directory(self._settings.data)):
                if os.path.isdir(cache):
                    recover_cache(cache)
            for path in self._settings.mountpaths:
                attach(self._settings.data, path)
            settings = ProcessSettings(
                replace(self._settings, port=port), runtime, node_identity(self._settings.data), time.time_ns(), port
            )
            os.makedirs(settings.spool, exist_ok=True)
            begin("supervisor", settings)
            held.callback(self._end_children)
            self._handle_signals()
            self._supervise(settings, listener, url)
        return 0

    def _own(self) -> Ownership:
        """Become the owner of the directory that this store writes to; raises ConflictError."""
        if self._settings.store:
            return own_cache(self._settings.cache)
        refuse_cache_as_data(self._settings.data)
        return acquire_ownership(self._settings.data)

    def _handle_signals(self) -> None:
        def wake(number: int, frame: object) -> None:
            if number != signal.SIGCHLD:
                self._stopping = True
            try:
                os.write(self._wake_writer, b"1")
            except BlockingIOError:
                pass

        os.set_blocking(self._wake_writer, False)
        os.set_blocking(self._wake_reader, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, wake)

    def _supervise(self, settings: ProcessSettings, listener: socket.socket, url: str) -> None:
        readers = [self._start(child, settings, listener) for child in self._children]
        sandbox = probe_sandbox()  # while they start
        if not self._wait_ready(readers):
            return
        for child in self._children:
            child.failures = 0
        self._say(
            f"pyaistore {__version__} ready at {url} ({self._where(settings)}, "
            f"{len(self._children) - 1} HTTP workers, pid {os.getpid()})\n{_how_it_runs(sandbox)}"
        )
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while not self._stopping:
                selector.select(self._restart_dead(settings, listener))
                self._drain_wakes()

    def _where(self, settings: ProcessSettings) -> str:
        serve = self._settings
        if serve.store:
            return f"node {settings.target_id} of the cluster in {serve.store}, cache in {serve.cache}"
        return f"data in {serve.data}"

    def _drain_wakes(self) -> None:
        try:
            os.read(self._wake_reader, 4096)
        except BlockingIOError:
            pass

    def _start(self, child: _Child, settings: ProcessSettings, listener: socket.socket) -> int:
        """Start one child; return the read end of the pipe on which it says that it is ready."""
        ready_reader, ready_writer = os.pipe()
        pass_fds = [self._lifeline_reader, ready_writer]
        listen_argument = "-"
        if child.listens:
            pass_fds.append(listener.fileno())
            listen_argument = str(listener.fileno())
        arguments = [listen_argument, str(self._lifeline_reader), str(ready_writer), child.place]
        command = [sys.executable, "-c", _START.format(child.module), *arguments]
        child.process = subprocess.Popen(
            command, pass_fds=pass_fds, stdin=subprocess.PIPE, start_new_session=True, env={**_ALLOCATOR, **os.environ}
        )
        os.close(ready_writer)
        assert child.process.stdin is not None
        try:
            child.process.stdin.write(settings.encode())
            child.process.stdin.close()
        except BrokenPipeError:
            pass  # it died already; the caller sees that
        child.started = time.monotonic()
        return ready_reader

    def _wait_ready(self, readers: list[int]) -> bool:
        """Wait until every child is ready; raises AisError when one cannot be, returns False when told to stop."""
        seconds = _JOIN_SECONDS if self._settings.store else _READY_SECONDS
        deadline = time.monotonic() + seconds
        waiting = set(readers)
        with selectors.DefaultSelector() as selector:
            for reader in readers:
                selector.register(reader, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while waiting and not self._stopping:
                for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                    if key.fd in waiting:
                        said = os.read(key.fd, 1)
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        waiting.discard(key.fd)
                        if not said:
                            raise AisError("a process of the store ended while it started", hint="its error is above")
                    else:
                        self._drain_wakes()
                if time.monotonic() > deadline:
                    raise AisError(f"the store's processes were not ready within {seconds:.0f} s")
        for reader in waiting:
            os.close(reader)
        return not self._stopping

    def _restart_dead(self, settings: ProcessSettings, listener: socket.socket) -> float | None:
        """Start dead children again when their back-off is over; return the seconds until the next one is due."""
        now = time.monotonic()
        due: list[float] = []
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._note_death(child, now)
            if child.process is None:
                if child.start_again_at <= now:
                    os.close(self._start(child, settings, listener))
                else:
                    due.append(child.start_again_at - now)
        return min(due) if due else None

    def _note_death(self, child: _Child, now: float) -> None:
        assert child.process is not None
        status, pid = child.process.returncode, child.process.pid
        kill_session(pid)
        child.failures = 0 if now - child.started > 10 else child.failures + 1
        pause = 0.0 if child.failures == 0 else min(_BACKOFF_SECONDS_MAX, 0.1 * 2**child.failures)
        child.start_again_at = now + pause
        child.process = None
        how = f"signal {-status}" if status < 0 else f"status {status}"
        COUNTERS.words[RESTARTS] += 1
        _log.warning("%s (pid %d) ended with %s, starting it again", child.module, pid, how)

    def _end_children(self) -> None:
        """Ask the children to stop, HTTP workers first, wait, then kill what is left.

        The controller goes last: requests that are still answered need its transforms.
        """
        deadline = time.monotonic() + _STOP_SECONDS
        for listens in (True, False):
            running = [child.process for child in self._children if child.process and child.listens == listens]
            for process in running:
                if process.poll() is None:
                    process.terminate()
            for process in running:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                kill_session(process.pid)
        for descriptor in (self._wake_reader, self._wake_writer, self._lifeline_reader, self._lifeline_writer):
            os.close(descriptor)


def _how_it_runs(sandbox: SandboxFound) -> str:
    """Return the second line of a start: the walls around transforms, what was taken away, how to stop."""
    walls = f"sandbox for transforms: {sandbox.profile}"
    if sandbox.error:
        walls += " (they are refused unless made with --sandbox off; `ais doctor` says why)"
    away = sorted(taken_away())
    return walls + (f"; {VARIABLE}={','.join(away)}" if away else "") + "; Ctrl-C stops the store"


def kill_session(pid: int) -> None:
    """Kill what is left of a dead child's process group: a killed controller's helpers, an installer."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)


def check_exposure(settings: ServeSettings) -> None:
    """Refuse to be reachable from other machines without a token, unless told that this is meant."""
    if settings.token or settings.insecure or is_loopback(settings.host):
        return
    raise BadRequestError(
        f"refusing to listen on {settings.host} without a token: anyone who reaches it could run code here",
        hint="set AIS_AUTHN_TOKEN to a secret for the store and its clients, or pass --insecure on a private network",
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises ConflictError that names who has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"port {port} of {host} is in use by {describe_port_holder(port)}",
                hint="stop it, or choose another port with --port (0 takes a free one)",
            ) from error
        if error.errno == errno.EACCES:
            raise BadRequestError(
                f"port {port} needs privileges", hint="choose a port above 1023 with --port"
            ) from error
        raise BadRequestError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="check --host and --port"
        ) from error
    except OverflowError as error:
        listener.close()
        raise BadRequestError(f"{port} is not a port", hint="expected 0 to 65535") from error
    return listener

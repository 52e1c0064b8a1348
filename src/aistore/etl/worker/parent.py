"""The parent of an ETL: loads the program once, forks the workers, forks new ones when they end."""

import mmap
import os
import select
import signal
import time
import traceback
import warnings
from typing import Any, Dict, NoReturn

from . import harness, lacking, process
from .control import Control
from .lacking import lacks
from .program import LoadError, Program, load
from .spawned import SLOT_BYTES, Spawner, slot_of

_BACKOFF_SECONDS = (0.05, 5.0)  # before a worker that died without taking an object is replaced: first, longest
_WORKERS_MAX = 1024


def run(control_fd: int, listen_fd: int) -> NoReturn:
    """Be the parent of an ETL until the controller closes the control socket."""
    os.set_inheritable(listen_fd, False)
    control = Control(control_fd)
    config = control.receive()
    if config is None:
        os._exit(0)
    lacking.declare(config.get("lacking", ()))
    process.die_with_parent()
    try:
        program = load(config, lambda: control.send("importing"))
    except LoadError as error:
        control.send("failed", reason=error.reason, message=error.message, traceback=error.traceback)
        os._exit(1)
    pool = _Pool(program, config, listen_fd, control)
    pool.start()
    control.send("ready", pid=os.getpid())
    pool.run()


class _Pool:
    """The workers of one ETL."""

    def __init__(self, program: Program, config: Dict[str, Any], listener: int, control: Control) -> None:
        self._program = program
        self._settings = harness.Settings(config)
        self._listener = listener
        self._control = control
        self._count = min(int(config.get("workers", 1)), _WORKERS_MAX)
        self._spawner = Spawner(config, SLOT_BYTES * _WORKERS_MAX) if lacks("fork") else None
        self._slots = self._spawner.slots if self._spawner else mmap.mmap(-1, SLOT_BYTES * _WORKERS_MAX)
        # Only this process has its write end, so its end of file is our end.
        self._life = os.pipe() if lacks("parent-death-signal") else (-1, -1)
        self._workers: Dict[int, int] = {}  # pid to slot
        self._quick_deaths = 0
        self._resume_at = 0.0  # time.monotonic() before which no worker is forked
        self._guard = os.getppid()
        self._wakeup = os.pipe()
        self._own_children = set(process.children())  # of libraries: a resource tracker, for example

    def start(self) -> None:
        """Fork the first workers."""
        for fd in self._wakeup:
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        self._fill()

    def run(self) -> NoReturn:
        """Replace workers that end and obey the controller, until it goes."""
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(self._wakeup[0], select.POLLIN)
        while True:
            waiting = max(0.0, self._resume_at - time.monotonic()) if len(self._workers) < self._count else 1.0
            ready = dict(poll.poll(min(1.0, waiting) * 1000 + 1))
            if lacks("parent-death-signal") and os.getppid() != self._guard:
                self._end()
            if self._wakeup[0] in ready:
                os.read(self._wakeup[0], 4096)
            if self._control.fileno() in ready:
                message = self._control.receive()
                if message is None:
                    self._end()
                if message.get("command") == "kill":
                    self._kill(int(message["pid"]), int(message["turn"]))
            self._reap()
            self._fill()

    def _end(self) -> NoReturn:
        for pid in self._workers:
            process.kill_group(pid)
        if lacks("parent-death-signal"):  # else the guard waits for them, who are its children now
            for pid in self._workers:
                os.waitpid(pid, 0)
        os._exit(0)

    def _fill(self) -> None:
        while len(self._workers) < self._count and time.monotonic() >= self._resume_at:
            self._fork()

    def _kill(self, pid: int, turn: int) -> None:
        """End a worker, unless it has another object by now."""
        slot = self._workers.get(pid)
        if slot is not None and slot_of(self._slots, slot)[0] == turn:
            process.kill_group(pid)

    def _fork(self) -> None:
        taken = set(self._workers.values())
        slot = next(number for number in range(_WORKERS_MAX) if number not in taken)
        memory = slot_of(self._slots, slot)
        memory[0] = memory[1] = 0
        if self._spawner is not None:
            self._workers[self._spawner.spawn(self._control.fileno(), self._listener, self._life[0], slot)] = slot
            return
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 warns about threads: those of a library, idle
            pid = os.fork()
        if pid:
            self._workers[pid] = slot
            return
        try:
            process.die_with_parent(parent)
            process.become_subreaper()
            harness.prepare_process()
            self._control.send("worker", pid=os.getpid())
            for fd in (self._control.fileno(), *self._wakeup, self._life[1]):
                if fd >= 0:
                    os.close(fd)
            harness.Worker(self._program, self._settings, self._listener, memory, self._life[0]).serve()
        except BaseException:
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            os._exit(70)  # EX_SOFTWARE: our own mistake

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            slot = self._workers.pop(pid, None)
            if slot is None:
                continue  # a process that a worker left behind
            process.kill_group(pid)
            memory = slot_of(self._slots, slot)
            retired, quick = bool(memory[1]), memory[0] == 0
            self._quick_deaths = self._quick_deaths + 1 if quick else 0
            if self._quick_deaths:
                first, longest = _BACKOFF_SECONDS
                self._resume_at = time.monotonic() + min(longest, first * 2 ** min(self._quick_deaths, 16))
            process.kill_orphans(self._own_children.union(self._workers))
            self._control.send("exited", pid=pid, status=status, reason="retired" if retired else "crashed")

"""The parent of an ETL: loads the program once, forks the workers that are needed, forks new ones when they end."""

import mmap
import os
import select
import signal
import socket
import struct
import tempfile
import time
import traceback
import warnings
from typing import Any, Dict, NoReturn

from . import clearing, harness, lacking, leftovers, process
from .control import Control
from .demand import Demand
from .lacking import lacks
from .program import LoadError, Program, load
from .slots import BUSY, IDLE, RETIRED, SLOTS_BYTES, WORKERS_MAX, Slot
from .spawned import Spawner

_BACKOFF_SECONDS = (0.05, 5.0)  # before a worker that died without taking an object is replaced: first, longest
_QUICK_DEATHS_MAX = 4  # such workers in a row, after which the parent itself ends, to be started again
# How long objects may go to idle workers without a look at whether one waits. A look costs 15 us, so this is a
# thousandth of a core while objects come, and a worker comes so much later.
_LOOK_SECONDS = 0.01
_LOOK_AT_LIMIT_SECONDS = 0.1  # where it only tells who has nothing to do
_WAIT_SECONDS = 1.0


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
    """The workers of one ETL.

    A connection that waits while nobody is idle calls for one more. To know of it without being woken for each one, the
    listening socket is watched only while nobody is idle, or few objects come; else the slots are looked at now and
    then. So an object waits for a look and a fork at most.
    """

    def __init__(self, program: Program, config: Dict[str, Any], listener: int, control: Control) -> None:
        self._program = program
        self._settings = harness.Settings(config)
        self._listener = listener
        self._control = control
        limit = max(1, min(int(config.get("workers", 1)), WORKERS_MAX))
        self._spawner = Spawner(config, SLOTS_BYTES) if lacks("fork") else None
        self._memory = self._spawner.memory if self._spawner else mmap.mmap(-1, SLOTS_BYTES)
        # Where a worker imports everything again the last one stays.
        self._demand = Demand(limit, 1 if self._spawner else 0, self._settings.idle_seconds, time.monotonic())
        # Only this process has its write end, so its end of file is our end.
        self._life = os.pipe() if lacks("parent-death-signal") else (-1, -1)
        self._workers: Dict[int, int] = {}  # pid to slot
        self._slots: Dict[int, Slot] = {}  # by pid as well
        self._idle = 0
        self._taken = 0  # objects, by workers that have ended and by those that live, at the last look
        self._taken_by_ended = 0
        self._busy_times = False  # too many objects come to be woken for each
        self._quick_deaths = 0
        self._resume_at = 0.0  # time.monotonic() before which no worker is forked
        self._guard = os.getppid()
        self._scratch = os.environ.get("TMPDIR") or tempfile.gettempdir()
        self._wakeup = os.pipe()
        self._poll = select.poll()
        self._watched = False
        self._sweep_at = 0.0
        self._own_children = set(process.children())  # of libraries: a resource tracker, for example

    def start(self) -> None:
        """Fork the first worker."""
        for fd in self._wakeup:
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Nobody but the guard has to end this process. Where workers can send it a signal, a handler would let them.
        ends = (lambda *_: self._end()) if lacks("parent-death-signal") else signal.SIG_IGN
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, ends)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        self._poll.register(self._control.fileno(), select.POLLIN)
        self._poll.register(self._wakeup[0], select.POLLIN)
        if not lacks("parent-death-signal"):  # else they wait in poll
            _wake_from_accept(self._listener, self._settings.accept_seconds)
        self._fill()

    def run(self) -> NoReturn:
        """Have as many workers as are needed and obey the controller, until it goes."""
        while True:
            waits = self._wait()
            self._reap()
            self._sweep()
            self._look(waits)
            self._fill()

    def _sweep(self) -> None:
        """End what has left its worker: now and then, for it costs more than a look."""
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + _WAIT_SECONDS
            process.kill_orphans(self._own_children.union(self._workers))

    def _wait(self) -> bool:
        """Return when there may be something to do; say whether an object waits, as far as that was watched."""
        now = time.monotonic()
        at_limit = self._running() >= self._demand.limit
        paused = now < self._resume_at
        self._watch(not at_limit and not paused and (not self._idle or not self._busy_times))
        seconds = _WAIT_SECONDS
        if paused and self._running() < self._demand.wanted:
            seconds = self._resume_at - now
        elif self._busy_times:
            seconds = _LOOK_AT_LIMIT_SECONDS if at_limit else _LOOK_SECONDS
        elif self._workers:
            seconds = self._demand.period_end - now
        ready = dict(self._poll.poll(max(0.0, min(_WAIT_SECONDS, seconds)) * 1000 + 1))
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
        return self._listener in ready

    def _watch(self, on: bool) -> None:
        if on and not self._watched:
            self._poll.register(self._listener, select.POLLIN)
        elif self._watched and not on:
            self._poll.unregister(self._listener)
        self._watched = on

    def _running(self) -> int:
        return sum(slot.state != RETIRED for slot in self._slots.values())

    def _look(self, waits: bool) -> None:
        """Take note of who is busy, and decide on how many workers there should be."""
        now = time.monotonic()
        states = [slot.state for slot in self._slots.values()]
        self._idle = states.count(IDLE)
        taken = self._taken_by_ended + sum(slot.turns for slot in self._slots.values())
        since, self._taken = taken - self._taken, taken
        self._demand.look(now, max(states.count(BUSY), min(1, since)))
        if waits and not self._idle:
            self._demand.grow(now, len(states) - states.count(RETIRED))
        self._busy_times = since > 1 or (waits and self._idle > 0)
        surplus = sum(not slot.leaves for slot in self._slots.values()) - self._demand.wanted
        for slot in self._slots.values():
            if surplus > 0 and slot.state == IDLE and not slot.leaves:
                slot.dismiss()
                surplus -= 1

    def _end(self) -> NoReturn:
        for pid in self._workers:
            process.kill_group(pid)
        if lacks("parent-death-signal"):  # else the guard waits for them, who are its children now
            for pid in self._workers:
                os.waitpid(pid, 0)
        os._exit(0)

    def _fill(self) -> None:
        while self._running() < self._demand.wanted and time.monotonic() >= self._resume_at:
            try:
                self._fork()
            except OSError as error:  # no memory, or too many processes: objects wait for those that are there
                os.write(2, "no worker can be started: {}\n".format(error).encode("utf-8", "replace"))
                self._resume_at = time.monotonic() + _WAIT_SECONDS
            else:
                self._idle += 1

    def _kill(self, pid: int, turn: int) -> None:
        """End a worker, unless it has another object by now."""
        slot = self._slots.get(pid)
        if slot is not None and slot.turns == turn:
            process.kill_group(pid)

    def _fork(self) -> None:
        taken = set(self._workers.values())
        number = next(number for number in range(WORKERS_MAX) if number not in taken)
        slot = Slot(self._memory, number)
        slot.clear()
        if self._spawner is not None:
            pid = self._spawner.spawn(self._control.fileno(), self._listener, self._life[0], number)
            self._workers[pid], self._slots[pid] = number, slot
            return
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 warns about threads: those of a library, idle
            pid = os.fork()
        if pid:
            self._workers[pid], self._slots[pid] = number, slot
            return
        try:
            process.die_with_parent(parent)
            process.become_subreaper()
            harness.prepare_process()
            self._control.send("worker", pid=os.getpid())
            for fd in (self._control.fileno(), *self._wakeup, self._life[1]):
                if fd >= 0:
                    os.close(fd)
            harness.Worker(self._program, self._settings, self._listener, slot, self._life[0]).serve()
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
            slot = self._slots.pop(pid, None)
            if slot is None:
                continue  # a process that a worker left behind
            del self._workers[pid]
            process.kill_group(pid)
            self._taken_by_ended += slot.turns
            retired = slot.state == RETIRED
            self._note_death(status, quick=not slot.turns and not retired)
            process.kill_orphans(self._own_children.union(self._workers))
            clearing.remove_tree(os.path.join(self._scratch, leftovers.directory_of(pid)))
            self._control.send("exited", pid=pid, status=status, reason="retired" if retired else "crashed")

    def _note_death(self, status: int, *, quick: bool) -> None:
        """Pause before the next worker where they die before they take an object; give up where they all do."""
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        if not self._quick_deaths:
            return
        if self._quick_deaths >= _QUICK_DEATHS_MAX:
            how = "by signal {}".format(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (
                "with exit status {}".format(os.WEXITSTATUS(status)))  # fmt: skip
            message = "{} workers in a row ended before they took an object, the last {}".format(
                self._quick_deaths, how)  # fmt: skip
            self._control.send("failed", reason="workers", message=message, traceback="")
            self._end()
        first, longest = _BACKOFF_SECONDS
        self._resume_at = time.monotonic() + min(longest, first * 2 ** min(self._quick_deaths, 16))


def _wake_from_accept(listener: int, seconds: float) -> None:
    """Have ``accept`` of the listening socket return now and then, so that who waits in it can end."""
    with socket.socket(fileno=os.dup(listener)) as connection:
        value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)

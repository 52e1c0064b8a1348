"""The guard: a trusted process outside the sandbox that ends with its command and leaves no process behind."""

import json
import os
import select
import signal
import socket
import time
from typing import Any, Dict, NoReturn, Optional, Set

from . import process
from .doors import Doors
from .lacking import lacks
from .messages import Messages
from .watch import Excess, Watch

_GRACE_SECONDS = 2.0  # for a parent that has to end its workers itself
_SWEEP_SECONDS = 2.0  # how long a process that left its worker may live, where no pid namespace holds it


def watch(child: int, config: Dict[str, Any], plan: Any, doors: Optional[Doors] = None) -> NoReturn:
    """Wait until ``child`` ends or the life pipe does, kill whatever is left of its tree, exit as the child did.

    The exit status is the child's, or 128 + the number of the signal that ended it. With ``doors`` it answers at them,
    and tells the store how the child ended.
    """
    process.become_subreaper()
    life = config.get("life_fd", -1)
    wake_read, wake_write = os.pipe()
    kept = {0, 1, 2, life, wake_read, wake_write, config.get("report_fd", -1)}
    _close_others(kept.union(doors.descriptors()) if doors else kept)
    os.set_blocking(wake_write, False)
    ended = []  # signals that ask us to end

    def end(number: int, _frame: Any) -> None:
        ended.append(number)

    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(wake_read, select.POLLIN)
    if life >= 0:
        poll.register(life, select.POLLIN | select.POLLHUP)
    for fd in doors.filenos() if doors else ():
        poll.register(fd, select.POLLIN)
    status = None
    looking = Watch(config, child, plan.uid, plan.namespaces)
    look_at = 0.0
    while status is None:
        ready = dict(poll.poll(min(_SWEEP_SECONDS, max(0.0, look_at - time.monotonic())) * 1000 + 1))
        if wake_read in ready:
            os.read(wake_read, 4096)
        if doors:
            for fd in set(doors.filenos()).intersection(ready):
                doors.answer(fd)
        status = _reap(child)
        if status is None and (life in ready or ended):
            status = _end(child)
        if status is None:
            process.kill_orphans({child})
            if time.monotonic() >= look_at:
                excess, pause = looking.look()
                look_at = time.monotonic() + pause
                if excess is not None:
                    _tell(config.get("report_fd", -1), excess, excess.pid == child)
                    process.kill_tree(excess.pid)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    if doors:
        _tell_end(config["report_fd"], code)
    _end_all(None if plan.namespaces else plan.uid)  # with its first process a pid namespace has ended
    os._exit(code)


def _tell_end(report_fd: int, code: int) -> None:
    try:
        Messages(socket.socket(fileno=report_fd)).send(json.dumps({"event": "ended", "status": code}).encode())
    except OSError:  # the store has ended, or ends it
        pass


def _tell(report_fd: int, excess: Excess, whole: bool) -> None:
    """Say what there was too much of: to the store where it listens, else where the command prints."""
    if report_fd < 0:
        os.write(2, "{}\n".format(excess.message).encode())
        return
    connection = socket.socket(fileno=report_fd)
    try:
        event = {"event": "excess", "pid": excess.pid, "whole": whole, "message": excess.message}
        Messages(connection).send(json.dumps(event).encode(), flags=getattr(socket, "MSG_DONTWAIT", 0))
    except OSError:  # it does not read, or has ended
        pass
    finally:
        connection.detach()


def _end(child: int) -> int:
    """Kill ``child`` and return its status. Where nothing else would, it first may end what it has started."""
    if lacks("parent-death-signal"):
        os.kill(child, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status
            time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _reap(child: int) -> Any:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == child:
            return status


def _end_all(uid: Any) -> None:
    """Kill every process of ``uid``, if the ETL has a user of its own, and every descendant, until none is left."""
    if uid is not None:
        killer = os.fork()
        if killer == 0:
            try:
                os.setresuid(uid, uid, 0)
                os.kill(-1, signal.SIGKILL)
            except OSError:
                pass
            os._exit(0)
        os.waitpid(killer, 0)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        process.kill_orphans(())
        try:
            os.waitpid(-1, 0 if process.children() else os.WNOHANG)
        except ChildProcessError:
            return


def _close_others(keep: Set[int]) -> None:
    try:
        numbers = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:
        numbers = list(range(3, 256))
    for fd in numbers:
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass

"""Processes: dying with the parent, adopting orphans, ending what is left behind."""

import ctypes
import os
import signal
import sys
from typing import Container, List, Optional

from .lacking import lacks

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, *arguments: int) -> int:
    """Return what the system call answers, -1 where it fails or the system is not Linux."""
    if not sys.platform.startswith("linux"):
        return -1
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, *values))


def die_with_parent(parent: Optional[int] = None) -> None:
    """Have the kernel kill this process when its parent ends; exit at once if ``parent`` is no longer it.

    A change of user clears this, so it is called after that.
    """
    if not lacks("parent-death-signal"):
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(0)


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends: none can slip away by forking twice."""
    if not (lacks("parent-death-signal") or lacks("proc")):  # whom it adopts, it must be able to find
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_group(pid: int) -> None:
    """Kill the process group of a worker, which has its pid, if any of it is left."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass


def children(pid: Optional[int] = None) -> List[int]:
    """Return the pids of the children of ``pid``, or of this process; empty where ``/proc`` does not tell."""
    found: List[int] = []
    if lacks("proc"):
        return found
    tasks = "/proc/{}/task".format("self" if pid is None else pid)
    try:
        for thread in os.listdir(tasks):
            with open("{}/{}/children".format(tasks, thread), encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found


def kill_tree(pid: int) -> None:
    """Kill a process with all its descendants, faster than they can start new ones: each is stopped before.

    For a process of which none has left: those whose parent ends come to the process itself, or to this one.
    """
    stopped: List[int] = []
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            os.kill(one, signal.SIGSTOP)  # what is stopped has no new children, so the next look sees them all
        except OSError:
            continue
        stopped.append(one)
        waiting += children(one)
    for one in reversed(stopped):
        try:
            os.kill(one, signal.SIGKILL)
        except OSError:
            pass


def kill_orphans(known: Container[int]) -> None:
    """Kill the children that are not ``known``: descendants of workers that have ended."""
    for pid in children():
        if pid not in known:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass

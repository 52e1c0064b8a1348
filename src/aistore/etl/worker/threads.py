"""Threads that a program leaves behind: waited for like at the end of a process, within a limit."""

import _thread
import sys
import threading
import time
from typing import Any, Set


class ThreadWatch:
    """Knows the threads that were there before a program ran."""

    def __init__(self) -> None:
        self._before: Set[Any] = set()
        self._alone = {threading.current_thread()}
        self._count = _thread._count()  # when the worker starts: a late one is found after the next object

    def begin(self) -> None:
        """Note which threads there are."""
        self._before = set(threading.enumerate()) if threading.active_count() > 1 else self._alone

    def wait(self, seconds: float) -> str:
        """Wait for new threads that are not daemons; return the name of one that still runs after ``seconds``."""
        if threading.active_count() <= len(self._before):
            return ""
        _finish_executors()
        deadline = time.monotonic() + seconds
        while True:
            waiting = [thread for thread in threading.enumerate() if thread not in self._before and not thread.daemon]
            if not waiting:
                return ""
            waiting[0].join(max(0.0, deadline - time.monotonic()))
            if waiting[0].is_alive():
                return waiting[0].name

    def left(self) -> bool:
        """Return whether a new thread of any kind still runs."""
        return bool(_thread._count() > self._count)


def _finish_executors() -> None:
    """Let the executors of concurrent.futures finish as they do at the end of a process, and be usable afterwards."""
    for name, flag in (("concurrent.futures.process", "_global_shutdown"), ("concurrent.futures.thread", "_shutdown")):
        module = sys.modules.get(name)
        if module is None or not (
            getattr(module, "_threads_queues", None) or getattr(module, "_threads_wakeups", None)
        ):
            continue
        try:
            module._python_exit()
        finally:
            setattr(module, flag, False)

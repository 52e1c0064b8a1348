"""What every process of the store does at its start and end: signals, its parent's death, its log."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading

from ..fallbacks import lacks
from ..observe.counters import COUNTERS
from ..observe.log import configure_log
from ..settings import Limits, ProcessSettings

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OWN_DESCRIPTORS = 80  # three per thread that reads the index, sockets, generations. Measured: 50 to 60


def read_settings() -> ProcessSettings:
    """Read this process's settings from standard input: they hold a token, which no command line should show."""
    return ProcessSettings.decode(sys.stdin.buffer.read())


def begin(place: str, settings: ProcessSettings) -> None:
    """Log and count as the process at ``place`` of the supervisor's table (``http-0``)."""
    serve = settings.serve
    configure_log(
        place, level=serve.log_level, form=serve.log_format, access=serve.access_log, token=serve.token,
        cluster_secret=serve.cluster_secret,
    )  # fmt: skip
    COUNTERS.open(settings.runtime, place)


def raise_descriptor_limit() -> None:
    """Use as many descriptors as the system allows: each object that waits for a transform takes four."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS: "unlimited" is more than it takes
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_allowed(limits: Limits) -> int:
    """Return how many connections this process may accept, so that descriptors are left to serve them with.

    Accepting without a free descriptor fails again and again for the same connection, which shows as a busy, slow
    store; a connection that waits to be accepted costs nothing.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return limits.connections_per_worker
    # An object being read or written takes one, one that waits for a transform three more.
    needed = _OWN_DESCRIPTORS + limits.requests_max + 3 * min(limits.etl_queue, limits.requests_max)
    return min(limits.connections_per_worker, max((allowed - _OWN_DESCRIPTORS) // 2, allowed - needed))


def end_with_parent(lifeline: int) -> None:
    """Make sure this process ends when its supervisor does, however it ends.

    ``lifeline`` is the read end of a pipe whose write end only the supervisor holds: end of file means that it is
    gone. On Linux the kernel's parent-death signal does the same sooner.
    """
    if not lacks("parent-death-signal"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def say_ready(descriptor: int) -> None:
    """Tell the supervisor that this process does its work now."""
    try:
        os.write(descriptor, b"1")
    except BrokenPipeError:
        pass  # it waits only at the start of the store, not when it starts one process again
    os.close(descriptor)

"""What some hosts lack, and the setting that takes it away from one that has it.

``AIS_WITHOUT`` is a list of the words below (or ``all``), for tests of the fallbacks and for finding faults: what is
named is not used even where the system has it. It can only make things less. Where it takes a wall of the sandbox away,
the rule for hosts without that wall holds: transforms are refused unless they are made with ``--sandbox off``.

The variable is read here and nowhere else; processes of transforms, which run in another interpreter, are told
(``etl/worker/lacking.py``). docs/platforms.md has the table for people.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from .errors import BadRequestError

VARIABLE = "AIS_WITHOUT"


class Feature(NamedTuple):
    """Something of the system that the store uses: what for, what it does without, and whether Python offers it.

    ``wall`` marks a layer of the sandbox; whether the kernel has that is found out where it is built.
    """

    word: str
    used_for: str
    without: str
    offered: Callable[[], bool]
    wall: bool = False


def _on_linux() -> bool:
    return sys.platform.startswith("linux")


FEATURES = (
    Feature("landlock", "which files a transform reaches", "no sandbox", _on_linux, wall=True),
    Feature("seccomp", "which system calls a transform makes", "no sandbox", _on_linux, wall=True),
    Feature("namespaces", "a file system, network and processes of its own", "Landlock and seccomp alone", _on_linux,
            wall=True),
    Feature("memfd", "objects and results in memory", "unlinked files; large results are copied on receipt",
            lambda: hasattr(os, "memfd_create")),
    Feature("fork", "workers that share what their parent imported", "each worker starts and imports by itself",
            _on_linux),  # elsewhere frameworks of the system do not survive a fork without exec
    Feature("pidfd", "killing the process that was meant", "its number, checked against when it started",
            lambda: hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")),
    Feature("credentials", "the kernel's word for who sent a message", "the transform's parent ends its worker",
            lambda: hasattr(socket, "SCM_CREDENTIALS") and hasattr(socket, "SO_PASSCRED")),
    Feature("seqpacket", "messages of Unix sockets", "a stream, each message after its length", _on_linux),
    Feature("parent-death-signal", "ending with the parent at once", "pipes whose end says so", _on_linux),
    Feature("nowait-read", "answering cached objects without a thread", "every read goes through a thread",
            lambda: hasattr(os, "RWF_NOWAIT") and hasattr(os, "preadv")),
    Feature("proc", "naming who is in the way; memory and descendants of workers", "not named; peak memory alone",
            lambda: os.path.isdir("/proc/self")),
    Feature("affinity", "cores this process may use", "cores of the machine", lambda: hasattr(os, "sched_getaffinity")),
    Feature("tmpfile", "files that never had a name", "files unlinked after they were made",
            lambda: hasattr(os, "O_TMPFILE")),
    Feature("fadvise", "scrubbing without filling the page cache", "what was scrubbed stays in it",
            lambda: hasattr(os, "posix_fadvise")),
    Feature("user-timeout", "ending replies that their client does not read", "they stay until it closes",
            lambda: hasattr(socket, "TCP_USER_TIMEOUT")),
    Feature("boot-clock", "leases that run out while the machine sleeps", "they stand still with it",
            lambda: hasattr(time, "CLOCK_BOOTTIME")),
    Feature("range-locks", "locking an object for all processes of a node", "a lock file for each locked object",
            lambda: _on_linux() and hasattr(importlib.import_module("fcntl"), "F_OFD_SETLK")),
    Feature("fdatasync", "syncing content without times", "fsync", lambda: hasattr(os, "fdatasync")),
)  # fmt: skip

_BY_WORD = {feature.word: feature for feature in FEATURES}
WALLS = tuple(feature.word for feature in FEATURES if feature.wall)


@functools.cache
def _parse(text: str) -> frozenset[str]:
    words = frozenset(text.replace(",", " ").split())
    unknown = sorted(words - set(_BY_WORD) - {"all"})
    if unknown:
        raise BadRequestError(
            f"{VARIABLE} names what the store does not know: {', '.join(unknown)}",
            hint="expected some of: " + ", ".join([*_BY_WORD, "all"]),
        )
    return frozenset(_BY_WORD) if "all" in words else words


def taken_away() -> frozenset[str]:
    """Return the words of AIS_WITHOUT; raises BadRequestError for one that is unknown."""
    return _parse(os.environ.get(VARIABLE, ""))


@functools.cache  # asked for every object that is transformed
def lacks(word: str) -> bool:
    """Return whether the feature cannot be used: taken away, or not there."""
    return word in taken_away() or not _BY_WORD[word].offered()


def lacking() -> list[str]:
    """Return the words of all features that cannot be used, in the order of the table."""
    return [feature.word for feature in FEATURES if lacks(feature.word)]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return (os.cpu_count() or 1) if lacks("affinity") else len(os.sched_getaffinity(0))


def cores_for(cpus: float) -> int:
    """Return how many of the cores that this process may use somebody has who is limited to ``cpus``; 0 for all."""
    return min(usable_cores(), math.ceil(cpus)) if cpus else usable_cores()

"""The processes below a process, as the system knows them."""

from __future__ import annotations

import os

from ..errors import NotSupportedError
from ..fallbacks import lacks


def is_running(pid: int) -> bool:
    """Return whether there is a process ``pid`` that is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> dict[int, str]:
    """Return the processes that ``pid`` and its children started and that still run, by id with their command lines.

    Zombies and processes whose parent ended are not among them. Raises NotSupportedError where there is no /proc.
    """
    if lacks("proc"):
        raise NotSupportedError("this system does not tell which processes belong together (it has no /proc)")
    children: dict[int, list[int]] = {}
    commands: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                    state, parent = stat.read().rpartition(")")[2].split()[:2]
                with open(f"/proc/{entry}/cmdline", "rb") as cmdline:
                    command = cmdline.read().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry))
                commands[int(entry)] = command
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found[child] = commands[child]
            waiting.append(child)
    return found

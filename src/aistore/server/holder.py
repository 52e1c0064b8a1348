"""Who holds a port: for the error that a newcomer sees first."""

from __future__ import annotations

import os

from ..fallbacks import lacks


def describe_port_holder(port: int) -> str:
    """Return ``<command> (pid N)`` of the process that listens on ``port``, or ``another process``."""
    if lacks("proc"):
        return f"another process (`lsof -i :{port}` names it)"
    inodes = _listening_inodes(port)
    if inodes:
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and _holds(entry, inodes):
                return f"{_command(entry)} (pid {entry})"
    return "another process"


def _listening_inodes(port: int) -> set[str]:
    """Return the socket inodes that listen on ``port``, from /proc/net/tcp{,6} (state 0A is LISTEN)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                for line in lines:
                    fields = line.split()
                    if len(fields) > 9 and fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                        inodes.add(f"socket:[{fields[9]}]")
        except OSError:
            continue
    return inodes


def _holds(pid: str, inodes: set[str]) -> bool:
    try:
        return any(_target(f"/proc/{pid}/fd/{fd}") in inodes for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(400).decode(errors="replace").split("\0")
    except OSError:
        return "a process"
    return f"`{' '.join(filter(None, words))[:80]}`"

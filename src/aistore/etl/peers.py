"""Who is at the other end of a Unix socket, and how that process is ended and no other.

The kernel adds the sender's pid to a message where the receiver asked for it; nobody can lie about it. Where the
kernel does not, the number is the transform's own word, and nothing of ours acts on it: the transform's parent, which
has no more rights than the transform, is asked to end its worker.
"""

from __future__ import annotations

import os
import signal
import socket
import struct

from ..fallbacks import lacks
from .worker.messages import Ancillary

#: What carries messages to a transform and back; without its own kind a stream, framed (worker/messages.py).
MESSAGES_KIND = socket.SOCK_STREAM if lacks("seqpacket") else socket.SOCK_SEQPACKET

_CREDENTIALS = struct.Struct("3i")
_VERIFIED = not lacks("credentials")
CREDENTIALS_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size) if _VERIFIED else 0


def ask_for_credentials(connection: socket.socket) -> None:
    """Have the kernel add the sender's pid to every message that ``connection`` receives, where it can."""
    if _VERIFIED:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def sender_of(ancillary: Ancillary) -> int:
    """Return the pid that the kernel added to a message, 0 if it added none."""
    for level, kind, data in ancillary:
        if _VERIFIED and level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid: int = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
            return pid
    return 0


class Peer:
    """The worker that began an object: ``pid``, and which of its objects this is (``turn``, only if unverified)."""

    __slots__ = ("_held", "_started", "pid", "turn", "verified")

    def __init__(self, sender: int, begun: bytes) -> None:
        """Note who sent ``begun``: ``S``, or where the kernel does not tell ``S<pid> <turn>`` (worker/PROTOCOL.md)."""
        self.verified = _VERIFIED
        self.pid, self.turn, self._held, self._started = sender, 0, -1, ""
        if not self.verified:
            numbers = begun[1:].split()
            if len(numbers) == 2 and all(number.isdigit() and len(number) < 20 for number in numbers):
                self.pid, self.turn = int(numbers[0]), int(numbers[1])
        elif lacks("pidfd"):
            self._started = _start_of(self.pid)
        elif self.pid > 1:
            try:
                self._held = os.pidfd_open(self.pid)
            except ProcessLookupError:
                pass  # it has ended

    def kill(self) -> None:
        """End the process, and with its group what it started. For a verified peer.

        A transform could let a child of its own answer for it and end, and its number be another process's by now. So
        it is signalled by descriptor: only while that reaches the process does the number still mean it. Without
        descriptors, a process that started at the same moment and leads a group is taken for the same.
        """
        try:
            if self._held >= 0:
                signal.pidfd_send_signal(self._held, signal.SIGKILL)
            elif not self._is_the_same():
                return
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def _is_the_same(self) -> bool:
        known = lacks("pidfd") and self.pid > 1
        return known and os.getpgid(self.pid) == self.pid and _start_of(self.pid) == self._started

    def close(self) -> None:
        """Let go of the process. May be called twice."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


def _start_of(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty where that is not told."""
    if lacks("proc"):
        return ""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]  # field 22, starttime (proc_pid_stat(5))
    except (OSError, IndexError):
        return ""

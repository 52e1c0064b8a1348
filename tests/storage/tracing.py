"""Runs a function in a forked process and kills that right before the n-th system call that changes a file.

seccomp makes the kernel stop at these calls alone, ptrace tells us and lets us go on; both work for any code in the
process, SQLite's too. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long

_TRACEME, _CONT, _SETOPTIONS = 0, 7, 0x4200
_O_CLONE, _O_SECCOMP, _O_EXITKILL = 0x8, 0x80, 0x100000
_EVENT_SECCOMP, _EVENT_CLONE = 7, 3
_WALL = 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000

#: Calls that change a file or a directory; of opening only what creates.
_NUMBERS = {
    "x86_64": {
        "openat": 257, "write": 1, "writev": 20, "pwrite64": 18, "pwritev": 296, "truncate": 76, "ftruncate": 77,
        "fallocate": 285, "rename": 82, "renameat": 264, "renameat2": 316, "unlink": 87, "unlinkat": 263, "mkdir": 83,
        "mkdirat": 258, "rmdir": 84,
    },
    "aarch64": {
        "openat": 56, "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70, "truncate": 45, "ftruncate": 46,
        "fallocate": 47, "renameat": 38, "renameat2": 276, "unlinkat": 35, "mkdirat": 34,
    },
}  # fmt: skip


class Killed(Exception):
    """The process was killed at the call asked for."""


def why_not() -> str:
    """Return why processes cannot be traced here, or nothing."""
    if platform.system() != "Linux" or platform.machine() not in _NUMBERS:
        return f"needs Linux on {' or '.join(_NUMBERS)}"
    try:
        run_until(lambda: None, 1 << 40)
    except OSError as error:
        return f"ptrace or seccomp is not permitted: {error}"
    return ""


def run_until(function: Callable[[], None], point: int) -> int:
    """Run ``function`` in a fork, kill it before its ``point``-th changing call (from 1) by raising Killed.

    Return the number of calls that it made when it ended before. The caller must have no threads and no children.
    """
    pid = os.fork()
    if pid == 0:
        _be_traced(function)
    _, status = os.waitpid(pid, _WALL)
    if not os.WIFSTOPPED(status):
        raise OSError(0, "the process could not ask to be traced")
    _ptrace(_SETOPTIONS, pid, _O_CLONE | _O_SECCOMP | _O_EXITKILL)
    _ptrace(_CONT, pid, 0)
    calls = 0
    while True:
        task, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            if task != pid:
                continue  # a thread ended
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
                return calls
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 77:
                raise OSError(0, "no filter can be installed")
            raise AssertionError(f"the traced process ended with {status:#x}")
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_SECCOMP:
            calls += 1
            if calls == point:
                os.kill(pid, signal.SIGKILL)
                _reap(pid)
                raise Killed
        forward = number if event == 0 and number not in (signal.SIGTRAP, signal.SIGSTOP) else 0
        _ptrace(_CONT, task, forward)


def _reap(pid: int) -> None:
    while True:
        task, status = os.waitpid(-1, _WALL)
        if task == pid and not os.WIFSTOPPED(status):
            return


def _ptrace(request: int, pid: int, data: int) -> None:
    if _libc.ptrace(request, pid, None, data) != 0 and ctypes.get_errno() != 3:  # ESRCH: a thread that just ended
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")


def _be_traced(function: Callable[[], None]) -> None:
    status = 1
    try:
        if _libc.ptrace(_TRACEME, 0, None, None) != 0:
            os._exit(78)
        os.kill(os.getpid(), signal.SIGSTOP)
        if not _install_filter():
            os._exit(77)
        function()
        status = 0
    finally:
        if status:
            import traceback

            traceback.print_exc()
        os._exit(status)


def _install_filter() -> bool:
    numbers = _NUMBERS[platform.machine()]
    program = [(_LOAD, 0, 0, 0)]
    for name, number in numbers.items():
        if name == "openat":
            # The flags are the third argument, low word first.
            program += [(_EQUAL, 0, 3, number), (_LOAD, 0, 0, 16 + 2 * 8), (_ANY_BIT, 0, 1, os.O_CREAT)]
            program += [(_RETURN, 0, 0, _TRACE), (_LOAD, 0, 0, 0)]
        else:
            program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _TRACE)]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    prctl = _libc.prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    argument = ctypes.create_string_buffer(header, len(header))
    prctl(_PR_SET_NO_NEW_PRIVS, 1, None, 0, 0)
    return bool(prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(argument), 0, 0) == 0)

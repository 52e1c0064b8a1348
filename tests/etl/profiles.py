"""Hosts of each kind, made of this one: a program that becomes the user, refuses what is refused there, and executes.

``python profiles.py <profile> <command> [argument ...]``, as root for all of them, else for those of ordinary users.

``root``        root, with everything
``user``        an ordinary user, who may make namespaces
``confined``    an ordinary user where namespaces are refused, as in most containers: Landlock and seccomp alone
``none``        no sandbox at all, as on macOS
``root-confined``, ``root-stuck``   root where namespaces are refused; with an interpreter that other users can reach,
                and one that they cannot
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "src")
sys.path.insert(0, SOURCE)

from aistore.etl.worker.sandbox import kernel  # noqa: E402

NOBODY = 65534
HOST_PROFILES = ("root", "user", "confined", "none")
#: Rarer hosts, which differ little: ``AIS_ATTACK_HOSTS=all`` tries those too.
_MORE_PROFILES = ("root-confined", "root-stuck") if os.environ.get("AIS_ATTACK_HOSTS") == "all" else ()
PROFILES = (*HOST_PROFILES, *_MORE_PROFILES)
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000


def why_not(profile: str) -> str:
    """Return why this machine cannot be such a host, or an empty text."""
    if not sys.platform.startswith("linux"):
        return "profiles are made of Linux"
    if os.geteuid() != 0 and (profile.startswith("root") or profile == "none"):
        return f"the profile {profile} needs root"
    if os.geteuid() == 0 and not _may_unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC):
        return "hosts are made by root with mounts of its own, which this machine refuses"
    if profile in ("root", "user") and not _may_unshare(
        kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
    ):
        return f"the profile {profile} needs namespaces, which this machine refuses"
    return ""


def _may_unshare(flags: int) -> bool:
    child = os.fork()
    if child == 0:
        try:
            kernel.call("unshare", flags)
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def become(profile: str) -> None:
    """Make this process one of a host of that kind."""
    is_root = os.geteuid() == 0
    if is_root:
        # What the attacks of a host without sandbox do to mounts, host name and queues ends with this process.
        kernel.call("unshare", kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC)
        kernel.call("mount", None, b"/", None, 16384 | 1 << 18, None)  # MS_REC | MS_PRIVATE
        if profile != "root-stuck":
            _make_reachable([sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), SOURCE])
    if is_root and profile in ("user", "confined"):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if profile not in ("root", "user", "none"):
        refuse("unshare", "setns", "mount", "fsopen", "open_tree", clone_flags=_NAMESPACES)


def _make_reachable(paths: list[str]) -> None:
    """Let every user pass to ``paths``, here and in no other process, where a directory above is somebody's own."""
    blocked: dict[str, list[str]] = {}
    for path in paths:
        above = _first_blocked(os.path.realpath(path))
        if above:
            blocked.setdefault(above, []).append(os.path.realpath(path))
    for directory, needed in blocked.items():
        kept = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in dict.fromkeys(needed)}
        kernel.call("mount", b"tmpfs", directory.encode(), b"tmpfs", 0, b"mode=755")
        for path, fd in kept.items():
            os.makedirs(path, exist_ok=True)
            kernel.call("mount", f"/proc/self/fd/{fd}".encode(), path.encode(), None, 4096 | 16384, None)
            os.close(fd)


def _first_blocked(path: str) -> str:
    """Return the uppermost directory of ``path`` that other users cannot pass, if there is one."""
    found = ""
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & stat.S_IXOTH:
            found = path
    return found


def reachable_python() -> str | None:
    """Return a Python of at least 3.10 that every user can execute."""
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        if not os.path.exists(path) or _first_blocked(os.path.realpath(path)):
            continue
        if subprocess.run([path, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"]).returncode == 0:
            return path
    return None


def refuse(*names: str, clone_flags: int = 0) -> None:
    """Have system calls fail with EPERM from now on, and ``clone`` with any of ``clone_flags``; clone3 is absent."""
    program = [(0x20, 0, 0, 0)]
    for name in names:
        program += [(0x15, 0, 1, kernel.number(name)), (0x06, 0, 0, 0x50001)]
    if clone_flags:
        program += [(0x15, 0, 1, kernel.number("clone3")), (0x06, 0, 0, 0x50026)]
        program += [(0x15, 0, 4, kernel.number("clone")), (0x20, 0, 0, 16), (0x45, 0, 1, clone_flags)]
        program += [(0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
    program.append((0x06, 0, 0, 0x7FFF0000))
    code = b"".join(struct.pack("HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    kernel.set_no_new_privileges()
    kernel.call("seccomp", 1, 0, ctypes.byref(Program(len(program), ctypes.cast(buffer, ctypes.c_void_p))))


if __name__ == "__main__":
    become(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])

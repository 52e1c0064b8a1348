"""Namespaces: a file system, a network, processes and a host name of the sandbox's own (namespaces(7)).

The new root is a small tmpfs with nothing in it but bind mounts of what may be read, a scratch directory, five
devices and a ``/proc`` of the sandbox's own processes. What is not there cannot be named, whoever owns it, and what
lies under a directory that others cannot enter (a venv in a home of mode 0700) is reachable all the same.
"""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
from typing import Any, Dict, List

from . import kernel

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_DETACH = 2

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
                 "stderr": "/proc/self/fd/2"}  # fmt: skip
SHARED_MEMORY = "/dev/shm"
_WORKING_DIRECTORY = "/proc/self/cwd"  # of whoever looks: what is not shared cannot be left for others to find
_SCRATCH_INODES = 200_000  # guessed: files of one ETL in its scratch directory
_SHARED_MEMORY_BYTES_MAX = 1 << 30
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_INTERFACE = struct.Struct("16sH22x")  # struct ifreq: a name, flags
_BASES = ("/tmp", "/mnt", "/var")  # something that exists, to build the new root on; nobody else sees it


def flags(config: Dict[str, Any]) -> int:
    """Return the namespaces that the process itself enters (the pid namespace is for its children)."""
    own = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    return own if config.get("network") or config.get("serves") else own | kernel.CLONE_NEWNET


def has_guards_network(config: Dict[str, Any]) -> bool:
    """Return whether its network is also the guard's, who reaches into it, and nobody else's."""
    return bool(config.get("serves")) and not config.get("network")


def probe(config: Dict[str, Any]) -> str:
    """Try in a child whether this user may make the namespaces and their mounts; return why not, or ``""``.

    Trying is the only way to know: seccomp filters, AppArmor and sysctls each refuse another step.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            prepare(config)
            grandchild = os.fork()
            if grandchild == 0:
                kernel.call("unshare", flags(config))
                build_root(config)
                os._exit(0)
            if os.waitpid(grandchild, 0)[1]:
                os._exit(1)
            os.write(writing, b"ok")
        except OSError as error:
            os.write(writing, str(error).encode("utf-8", "replace")[:200])
        finally:
            os._exit(0)
    os.close(writing)
    answer = b""
    while True:
        piece = os.read(reading, 4096)
        if not piece:
            break
        answer += piece
    os.close(reading)
    os.waitpid(child, 0)
    return "" if answer == b"ok" else answer.decode("utf-8", "replace") or "mounting a file system is refused"


def prepare(config: Dict[str, Any]) -> None:
    """Have the next child start a pid namespace; without root, in a user namespace that holds only this user.

    The network that it shares with this process, the guard, is entered now.
    """
    network = kernel.CLONE_NEWNET if has_guards_network(config) else 0
    if os.geteuid() == 0:
        kernel.call("unshare", kernel.CLONE_NEWPID | network)
    else:
        _enter_user_namespace(kernel.CLONE_NEWPID | network)
    if network:
        _raise_loopback()


def _enter_user_namespace(more: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.call("unshare", kernel.CLONE_NEWUSER | more)
    maps = (("setgroups", "deny"), ("uid_map", "{0} {0} 1".format(uid)), ("gid_map", "{0} {0} 1".format(gid)))
    for name, text in maps:
        fd = os.open("/proc/self/{}".format(name), os.O_WRONLY)
        try:
            os.write(fd, text.encode())  # unbuffered: a refusal must be seen here
        finally:
            os.close(fd)


def _raise_loopback() -> None:
    """Switch the loopback interface on, in a network that was just made."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0))
        flags = _INTERFACE.unpack(answer)[1]
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, _INTERFACE.pack(b"lo", flags | _IFF_UP))


def enter(config: Dict[str, Any]) -> None:
    """Enter the namespaces and the new root."""
    kernel.call("unshare", flags(config))
    build_root(config)


def enter_network_of(pid: int) -> None:
    """Enter the network of another process, for which one has to be root."""
    network = os.open("/proc/{}/ns/net".format(pid), os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.call("setns", network, kernel.CLONE_NEWNET)
    finally:
        os.close(network)


def build_root(config: Dict[str, Any]) -> None:
    """Build the new root and make it the root of this process."""
    _mount(None, "/", None, _REC | _PRIVATE)
    read = [path for path in config["read"] if path not in config["write"]]
    sources = {path: os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC) for path in [*read, *config["write"]]}
    devices = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in DEVICES if os.path.exists(path)}
    root = next(path for path in _BASES if os.path.isdir(path))
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=4m,mode=755")
    for path in sorted(sources):
        if path in config["write"]:
            continue
        _provide(root, path, sources[path], writable=False)
    _scratch(root, config, sources)
    _devices(root, config, devices)
    os.mkdir(root + "/proc", 0o755)
    _mount("proc", root + "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    for name in ("tmp", "var/tmp"):
        if not os.path.lexists(os.path.join(root, name)):
            os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
            os.symlink(_WORKING_DIRECTORY if config.get("tmp") == "cwd" else config["scratch"], root + "/" + name)
    for fd in (*sources.values(), *devices.values()):
        os.close(fd)
    os.chdir(root)
    kernel.call("pivot_root", b".", b".")
    kernel.call("umount2", b".", _DETACH)
    os.chdir("/")
    _set_attributes("/", _ATTR_RDONLY, 0)


def _scratch(root: str, config: Dict[str, Any], sources: Dict[str, int]) -> None:
    """Provide what may be written: scratch space in memory if its size is limited, else the directories themselves."""
    owner = os.geteuid() if config.get("uid") is None else config["uid"]
    group = os.getegid() if config.get("gid") is None else config["gid"]
    size = config.get("scratch_bytes_max")
    for path in config["write"]:
        if path == config["scratch"] and size:
            target = _directory(root, path)
            options = "size={},nr_inodes={},mode=700,uid={},gid={}".format(size, _SCRATCH_INODES, owner, group)
            _mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, options)
        else:
            _provide(root, path, sources[path], writable=True)


def _devices(root: str, config: Dict[str, Any], devices: Dict[str, int]) -> None:
    os.mkdir(root + "/dev", 0o755)
    for path, fd in devices.items():
        _touch(root + path)
        _mount("/proc/self/fd/{}".format(fd), root + path, None, _BIND)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, "{}/dev/{}".format(root, name))
    if config.get("tmp") == "cwd":
        os.symlink(_WORKING_DIRECTORY, root + SHARED_MEMORY)
        return
    os.mkdir(root + SHARED_MEMORY)
    size = min(config.get("scratch_bytes_max") or _SHARED_MEMORY_BYTES_MAX, _SHARED_MEMORY_BYTES_MAX)
    _mount("tmpfs", root + SHARED_MEMORY, "tmpfs", _NOSUID | _NODEV | _NOEXEC, "size={},mode=1777".format(size))


def _provide(root: str, path: str, source: int, writable: bool) -> None:
    """Put ``path`` into the new root: a symbolic link as it is, anything else as a bind mount."""
    target = root + path
    if os.path.lexists(target):
        return  # inside of something that is there already
    mode = os.fstat(source).st_mode
    if stat.S_ISLNK(mode):
        _directory(root, os.path.dirname(path))
        os.symlink(os.readlink(path), target)
        return
    if stat.S_ISDIR(mode):
        _directory(root, path)
    else:
        _directory(root, os.path.dirname(path))
        _touch(target)
    _mount("/proc/self/fd/{}".format(source), target, None, _BIND | _REC)
    _set_attributes(target, _ATTR_NOSUID | _ATTR_NODEV | (0 if writable else _ATTR_RDONLY), _AT_RECURSIVE)


def _directory(root: str, path: str) -> str:
    """Make ``path`` and the directories above it in the new root."""
    made = root
    for part in path.strip("/").split("/"):
        made = os.path.join(made, part)
        try:
            os.mkdir(made, 0o755)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno != errno.EROFS or not os.path.isdir(made):
                raise
    return made


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _mount(source: Any, target: str, kind: Any, options: int, data: str = "") -> None:
    encoded: List[Any] = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    try:
        kernel.call("mount", *encoded, options, data.encode() or None)
    except OSError as error:
        raise OSError(error.errno, "mount of {}: {}".format(target, os.strerror(error.errno or 0))) from None


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def _set_attributes(path: str, attributes: int, recursive: int) -> None:
    value = _MountAttributes(attributes, 0, 0, 0)
    kernel.call("mount_setattr", _AT_FDCWD, os.fsencode(path), recursive, ctypes.byref(value), ctypes.sizeof(value))

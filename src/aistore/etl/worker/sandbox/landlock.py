"""Landlock: which files a process may reach, which ports, and whom it may signal (landlock(7))."""

import ctypes
import os
import stat
from typing import Iterable, List, NamedTuple, Optional, Tuple

from . import kernel

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FILES_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2

# By ABI: the first ABI that knows all accesses below a bit, and the size of the attributes it takes.
_FILE_ACCESSES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_ABI_NETWORK, _ABI_SCOPES = 4, 6

_CREATE_VERSION = 1
_RULE_PATH, _RULE_PORT = 1, 2


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class Ports(NamedTuple):
    """What a program that serves is left of TCP: the port that it listens at, and the one that it connects to."""

    listens: int
    connects: int


class _PortRule(ctypes.Structure):
    _fields_ = [("access", ctypes.c_uint64), ("port", ctypes.c_uint64)]


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def abi() -> int:
    """Return the kernel's Landlock version, 0 if it has none."""
    try:
        return kernel.call("landlock_create_ruleset", 0, 0, _CREATE_VERSION)
    except OSError:
        return 0


def scopes_signals(version: int) -> bool:
    """Return whether that version keeps signals inside the sandbox."""
    return version >= _ABI_SCOPES


def missing(version: int, network: bool) -> List[str]:
    """Return what that version cannot restrict, in words."""
    lacks = []
    if version < 3:
        lacks.append("landlock: truncating files by path (needs Linux 6.2)")
    if version < _ABI_NETWORK and not network:
        lacks.append("landlock: TCP ports (needs Linux 6.7)")
    if not scopes_signals(version):
        lacks.append("landlock: signals and abstract sockets (needs Linux 6.12)")
    return lacks


def restricts_ports(version: int) -> bool:
    """Return whether that version knows of TCP ports."""
    return version >= _ABI_NETWORK


def restrict(version: int, rules: Iterable[Tuple[str, bool]], network: bool, ports: Optional[Ports] = None) -> None:
    """Restrict this process for good to ``rules``: pairs of a path and whether it may be written to.

    Without ``network`` it is left no TCP port but ``ports``. What does not exist or cannot be opened is left out.
    """
    handled = _FILE_ACCESSES[max(known for known in _FILE_ACCESSES if known <= version)]
    attributes = _Ruleset(handled, 0, 0)
    size = 8
    if version >= _ABI_NETWORK:
        attributes.network, size = (0 if network else _BIND_TCP | _CONNECT_TCP), 16
    if version >= _ABI_SCOPES:
        attributes.scopes, size = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS, 24
    ruleset = kernel.call("landlock_create_ruleset", ctypes.byref(attributes), size, 0)
    try:
        for path, writable in rules:
            _allow(ruleset, path, handled if writable else handled & _READ)
        if ports is not None and attributes.network:
            _allow_port(ruleset, ports.listens, _BIND_TCP)
            _allow_port(ruleset, ports.connects, _CONNECT_TCP)
        kernel.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def restrict_worker(read: Iterable[str], directory: str, devices: Iterable[str]) -> None:
    """Put this process into a domain of its own, inside of the one that it is in: it writes to ``directory`` alone.

    Processes of sibling domains do not trace one another, nor signal one another where the kernel keeps signals inside.
    """
    rules = [(path, False) for path in read]
    rules += [(path, True) for path in (directory, *devices)]
    restrict(abi(), rules, network=True)  # of the network the domain around it decides


def _allow_port(ruleset: int, port: int, access: int) -> None:
    kernel.call("landlock_add_rule", ruleset, _RULE_PORT, ctypes.byref(_PortRule(access, port)), 0)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _FILES_ONLY
        kernel.call("landlock_add_rule", ruleset, _RULE_PATH, ctypes.byref(_PathRule(access, fd)), 0)
    finally:
        os.close(fd)

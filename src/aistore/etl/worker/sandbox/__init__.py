"""The sandbox: what of it this kernel and this user can have, and how a process enters it."""

import math
import os
import platform
import resource
import stat
import sys
from typing import Any, Dict, List, Optional, Tuple

from .. import process
from ..lacking import lacks
from . import kernel, landlock, namespaces, seccomp

_DESCRIPTORS_MAX = 4096
_OTHERS_ROOM = 4096  # guessed: how many more processes and threads a user may start elsewhere, beside an ETL

#: What programs read of /proc where it shows the whole machine: nothing of any process.
_PROC_FILES = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/loadavg", "/proc/uptime",
    "/proc/filesystems", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/random", "/proc/sys/vm/overcommit_memory",
)  # fmt: skip


class SandboxError(Exception):
    """The sandbox cannot be entered; the message says what is missing and what to do."""


class Plan:
    """What was decided before the fork.

    ``uid`` is the ETL's own user, or None; ``namespaces`` whether it gets its own; ``missing`` what it cannot have.
    ``own_network`` says that the guard is in the ETL's network, for one that serves; ``ports`` are its ports.
    """

    def __init__(self) -> None:
        self.uid: Optional[int] = None
        self.namespaces = False
        self.own_network = False
        self.landlock = 0
        self.ports: Optional[landlock.Ports] = None
        self.missing: List[str] = []
        self.error = ""


def plan(config: Dict[str, Any]) -> Plan:
    """Decide what can be used, and prepare this process (the guard) for the fork."""
    chosen = Plan()
    if config.get("mode") == "off":
        return chosen
    if not sys.platform.startswith("linux") or platform.machine() not in kernel.MACHINES:
        chosen.error = "the sandbox needs Linux on x86_64 or aarch64, this is {} on {}".format(
            sys.platform, platform.machine()
        )
        return chosen
    chosen.landlock = 0 if lacks("landlock") else landlock.abi()
    if not chosen.landlock:
        chosen.error = "this kernel has no Landlock (Linux 5.13 or newer, with landlock among its security modules)"
        return chosen
    if lacks("seccomp"):
        chosen.error = "this system has no filter of system calls (seccomp)"
        return chosen
    off = config.get("namespaces") is False or lacks("namespaces")
    refusal = "turned off" if off else namespaces.probe(config)
    if refusal:
        chosen.missing.append("namespaces ({}): names and sizes of files outside can be seen".format(refusal))
    else:
        namespaces.prepare(config)
        chosen.namespaces = True
        chosen.own_network = namespaces.has_guards_network(config)
    if os.geteuid() == 0 and config.get("uid") is not None:
        _choose_user(config, chosen)
    chosen.missing += landlock.missing(chosen.landlock, bool(config.get("network")) or chosen.own_network)
    return chosen


def _choose_user(config: Dict[str, Any], chosen: Plan) -> None:
    """Take the ETL's own user, unless it could not reach what it has to run."""
    paths = [*config.get("must_reach", ()), *(() if chosen.namespaces else (config["scratch"],))]
    blocked = [path for path in paths if not _reachable(path, chosen.namespaces, config["read"])]
    if blocked:
        chosen.missing.append("a user of its own: other users cannot reach {}".format(blocked[0]))
    else:
        chosen.uid = config["uid"]


def _reachable(path: str, mounted: bool, read: List[str]) -> bool:
    """Return whether any user may pass every directory down to ``path`` (only inside its bind mount if ``mounted``)."""
    path = os.path.realpath(path)
    tops = [top for top in read if path == top or path.startswith(top + "/")] if mounted else []
    top = max(tops, key=len) if tops else "/"
    while True:
        path = os.path.dirname(path)
        if len(path) < len(top) or (mounted and not tops):
            return True
        if not os.stat(path).st_mode & stat.S_IXOTH:
            return False
        if path in (top, "/"):
            return True


def enter(config: Dict[str, Any], chosen: Plan) -> Dict[str, Any]:
    """Enter the sandbox; return its layers and what is missing. Raises SandboxError."""
    if config.get("mode") == "off":
        _limit(config, chosen)
        process.die_with_parent()
        os.chdir(config["scratch"])
        return {"layers": ["rlimits"], "missing": []}
    advice = "; `--sandbox off` runs the transform without a sandbox, with all rights of the store"
    if chosen.error:
        raise SandboxError(chosen.error + advice)
    try:
        layers = _enter(config, chosen)
    except OSError as error:
        raise SandboxError("the sandbox could not be entered: {}{}".format(error, advice)) from error
    return {"layers": layers, "missing": chosen.missing}


def _enter(config: Dict[str, Any], chosen: Plan) -> List[str]:
    layers = []
    network = bool(config.get("network"))
    is_root = os.geteuid() == 0
    if chosen.uid is not None:
        for path in config["write"]:
            _give(path, chosen.uid, config["gid"])
    if chosen.namespaces:
        namespaces.enter(config if chosen.uid is not None else dict(config, uid=None, gid=None))
        layers.append("namespaces: mount, pid, ipc, uts" + ("" if network else ", network"))
    _limit(config, chosen)
    if is_root and chosen.uid is not None:
        os.setgroups([])
        kernel.call("prctl", 8, 0, 0, 0, 0)  # PR_SET_KEEPCAPS: none survive the change of user
        _drop_bounding_set()
        os.setresgid(config["gid"], config["gid"], config["gid"])
        os.setresuid(chosen.uid, chosen.uid, chosen.uid)
        kernel.call("prctl", kernel.PR_SET_DUMPABLE, 1, 0, 0, 0)  # the guard has to see what it uses, also without exec
        layers.append("user {}".format(chosen.uid))
    kernel.drop_capabilities()
    layers.append("no capabilities")
    process.die_with_parent()
    kernel.set_no_new_privileges()
    layers += ["no new privileges", "rlimits"]
    os.chdir(config["scratch"])
    landlock.restrict(chosen.landlock, _rules(config, chosen), network or chosen.own_network, chosen.ports)
    layers.append("landlock (version {})".format(chosen.landlock))
    scoped = landlock.scopes_signals(chosen.landlock) or chosen.namespaces or chosen.uid is not None
    own_files = chosen.uid is not None or (chosen.namespaces and not is_root)  # root would own the devices
    changes = bool(config.get("installs")) or (bool(config.get("serves")) and own_files)
    restrictions = seccomp.Restrictions(
        network, chosen.uid is not None, chosen.namespaces, not scoped, _serving(config, chosen), changes
    )
    restrictions.pinned = bool(config.get("cpus"))
    seccomp.install(restrictions)
    layers.append("seccomp")
    return layers


def _serving(config: Dict[str, Any], chosen: Plan) -> str:
    """Return what a program that serves may do with sockets, in a word of seccomp.py."""
    if not config.get("serves") or config.get("network"):
        return ""
    if chosen.own_network:
        return seccomp.OWN_NETWORK
    return seccomp.CALLS_BACK if can_call_back(chosen) else seccomp.ONLY_LISTENS


def can_call_back(chosen: Plan) -> bool:
    """Return whether a program that serves may connect to the store, and to nothing else.

    Without a network of its own that takes a Landlock that knows ports; else it connects to nothing at all.
    """
    return chosen.own_network or not chosen.landlock or landlock.restricts_ports(chosen.landlock)


def _give(directory: str, uid: int, gid: int) -> None:
    """Make ``uid`` the owner of a directory that the store has made, and of what is in it."""
    for parent, directories, files in os.walk(directory):
        for name in (".", *directories, *files):
            os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)


def _drop_bounding_set() -> None:
    for capability in range(64):
        try:
            kernel.call("prctl", kernel.PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError:
            return


def _rules(config: Dict[str, Any], chosen: Plan) -> List[Tuple[str, bool]]:
    """Return the paths that Landlock allows, each with whether it may be written to."""
    rules = [(path, False) for path in config["read"]]
    rules += [(path, True) for path in (*config["write"], config["scratch"], *namespaces.DEVICES)]
    if chosen.namespaces:
        rules += [("/proc", False), ("/dev", False), (namespaces.SHARED_MEMORY, True)]
    else:
        rules += [(path, False) for path in _PROC_FILES]
    return rules


def _limit(config: Dict[str, Any], chosen: Plan) -> None:
    """Bound the size of files, the number of descriptors and processes, and core dumps; go first when memory ends."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)  # what open() needs may be out of reach by now
        os.write(fd, b"1000")
        os.close(fd)
    except OSError:  # not Linux
        pass
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _DESCRIPTORS_MAX)
    if config.get("output_bytes_max") is not None:
        _lower(resource.RLIMIT_FSIZE, config["output_bytes_max"])
    if config.get("processes_max") is not None:
        _lower(resource.RLIMIT_NPROC, config["processes_max"] + _others_of_user(chosen))
    if config.get("cpus") and not lacks("affinity"):
        os.sched_setaffinity(0, _cores(float(config["cpus"])))


def _others_of_user(chosen: Plan) -> int:
    """Return how many processes and threads count that are not the ETL's, with room for those to come.

    The kernel counts by user, and since Linux 5.14, which is before Landlock's second version, by user namespace.
    """
    if chosen.uid is not None or (chosen.namespaces and os.geteuid() != 0 and chosen.landlock >= 2):
        return 0
    found = 0
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit():
            try:
                if os.stat("/proc/" + name).st_uid == os.getuid():
                    found += len(os.listdir("/proc/{}/task".format(name)))
            except OSError:  # it has ended
                pass
    return 2 * found + _OTHERS_ROOM


def _cores(cpus: float) -> List[int]:
    """Return as many cores as ``cpus`` is, rounded up, of those that this process may use; not always the same."""
    usable = sorted(os.sched_getaffinity(0))
    first = os.getpid() % len(usable)
    return (usable[first:] + usable[:first])[: max(1, math.ceil(cpus))]


def _lower(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))

"""The system call filter: a list of what is refused, in classic BPF (seccomp(2), filter.rst).

A refused call fails with EPERM, so that programs report it; clone3 and some others with ENOSYS, because libraries then
take an older way, and so does every call that is newer than this list. Of ioctl it is the other way round: what is
allowed is listed.
"""

import ctypes
import platform
import struct
from typing import List, Tuple

from . import kernel

_EPERM, _ENOTTY, _ENOSYS = 1, 25, 38
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_MODE_FILTER, _SPEC_ALLOW = 1, 4

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_TYPE_MASK = 1, 2, 0xF
_MSG_FASTOPEN = 0x20000000
_IPPROTO_TCP = 6
_NETLINK_ROUTE = 0
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_F_SETOWN, _F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 8, 15, 0x8901, 0x8902
#: Of a file that can be opened and is its user's: a lease holds up whoever opens it next, a notification tells of them.
_F_SETLEASE, _F_NOTIFY = 1024, 1026
#: Change an inode, its directory or its file system, by a descriptor that was opened read-only: FS_IOC_SETFLAGS (and
#: for 32 bits), FS_IOC_FSSETXATTR, FS_IOC_SETVERSION, FS_IOC_ENABLE_VERITY, FS_IOC_SET_ENCRYPTION_POLICY,
#: FS_IOC_ADD_ENCRYPTION_KEY, BTRFS_IOC_SUBVOL_CREATE(_V2), BTRFS_IOC_SNAP_CREATE(_V2).
_CHANGES_BY_IOCTL = (
    0x40086602, 0x40046602, 0x401C5820, 0x40087602, 0x40806685, 0x800C6613, 0xC0506617, 0x5000940E, 0x50009418,
    0x50009401, 0x50009417,
)  # fmt: skip
#: What programs ask of terminals (whether it is one: TCGETS, TCGETS2, TIOCGWINSZ, TIOCGPGRP), of pipes and files
#: (FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, FIGETBSZ, FS_IOC_GETFLAGS, FS_IOC_FIEMAP).
_IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x540F, 0x541B, 0x5421, 0x5451, 0x5450, 0x2, 0x80086601, 0xC020660B)
#: New namespaces, and a child of the caller's parent, which the worker would not know as one that it has to end.
_REFUSED_OF_CLONE = (
    kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_PARENT
)  # fmt: skip

_REFUSED = """
ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp move_pages migrate_pages
bpf perf_event_open userfaultfd memfd_secret keyctl add_key request_key
mount umount2 move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick mount_setattr pivot_root chroot
unshare setns kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct syslog
iopl ioperm modify_ldt settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname vhangup
lsm_set_self_attr quotactl quotactl_fd personality fanotify_init open_by_handle_at name_to_handle_at pidfd_getfd
lookup_dcookie
setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset
shmget shmat shmctl msgget msgctl msgsnd msgrcv semget semctl semop semtimedop mq_open mq_unlink
""".split()
#: io_setup and inotify take of what the machine or the user has little of; inotify also tells what happens in
#: directories that cannot be read.
_ABSENT = """
io_uring_setup io_uring_enter io_uring_register clone3 io_setup inotify_init inotify_init1 inotify_add_watch
""".split()
#: Change the inode behind a descriptor. A descriptor that was opened read-only is enough for these.
_CHANGES_OF_DESCRIPTORS = (
    "fchmod fchmodat2 fchown fchownat fsetxattr fremovexattr setxattrat removexattrat file_setattr "
    "setxattr lsetxattr removexattr lremovexattr"  # by /proc/self/fd; a file in memory takes them of everybody
).split()
#: Change an inode by its path, which may be /proc/self/fd/N.
_CHANGES_OF_PATHS = """
chmod fchmodat chown lchown utime utimes futimesat
""".split()
#: Messages with descriptors on their way belong to no process, so nobody could count what they hold.
_SOCKETS = "connect bind listen sendmsg sendmmsg".split()
_MOUNTS = "statmount listmount".split()
_SIGNALS = "tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal".split()
#: Act on another process of the same user; the argument that names it must be 0 (the caller itself).
_OTHERS = (("prlimit64", 0), ("sched_setscheduler", 0), ("sched_setparam", 0), ("sched_setattr", 0))
#: The same, after an argument that says whom the name is of: it must be a process, as 0 is also "my whole user".
_OTHERS_BY_KIND = (("setpriority", 0), ("ioprio_set", 1))  # PRIO_PROCESS, IOPRIO_WHO_PROCESS


#: What a program that serves may do with sockets: all in a network of its own; else listen, and perhaps connect where
#: Landlock lets it.
OWN_NETWORK, CALLS_BACK, ONLY_LISTENS = "own network", "calls back", "only listens"


class Restrictions:
    """What this sandbox needs of the filter, beside what it always refuses.

    ``network``: internet sockets are allowed.
    ``own_user``: nothing outside belongs to our user, so the kernel's own rules protect files that we are given.
    ``own_processes``: no others are there to be named. ``signals``: nothing else keeps signals inside.
    ``serves``: it is a server, one of the words above. ``changes``: modes and times of files may be changed, as
    installers and servers do.
    """

    def __init__(
        self, network: bool, own_user: bool, own_processes: bool, signals: bool, serves: str = "", changes: bool = False
    ) -> None:
        self.network = network
        self.own_user = own_user
        self.own_processes = own_processes
        self.signals = signals
        self.serves = serves
        self.pinned = False  # to its cores
        self.changes = changes


def install(restrictions: Restrictions) -> None:
    """Install the filter in this process, which must have no other threads; raises OSError."""
    instructions = build(restrictions, platform.machine())
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    program = Program(len(instructions), ctypes.cast(buffer, ctypes.c_void_p))
    try:
        # Without this flag kernels before 5.16 slow every filtered process down for a leak between threads of one.
        kernel.call("seccomp", _MODE_FILTER, _SPEC_ALLOW, ctypes.byref(program))
    except OSError:
        kernel.call("seccomp", _MODE_FILTER, 0, ctypes.byref(program))


def build(restrictions: Restrictions, machine: str) -> List[Tuple[int, int, int, int]]:
    """Return the filter's instructions (code, jump if true, jump if false, operand) for ``machine``."""
    architecture, column = kernel.MACHINES[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, kernel.SYSCALL_LAST + 1),  # x32 has bit 30
        (_RETURN, 0, 0, _ERRNO | _ENOSYS),
    ]

    def rule(name: str, body: List[Tuple[int, int, int, int]]) -> None:
        number = kernel.SYSCALLS[name][column]
        if number >= 0:
            program.extend([(_EQUAL, 0, len(body), number), *body])

    for name in _ABSENT:
        rule(name, [(_RETURN, 0, 0, _ERRNO | _ENOSYS)])
    for name in _refused(restrictions):
        rule(name, [_REFUSE])
    for name, argument in _OTHERS:
        rule(name, _refuse_unless(argument, (0,)))
    for name, process in _OTHERS_BY_KIND:
        rule(name, [_load(0), (_EQUAL, 0, 2, process), _load(1), (_EQUAL, 1, 0, 0), _REFUSE, (_RETURN, 0, 0, _ALLOW)])
    rule("clone", [_load(0), (_ANY_BIT, 0, 1, _REFUSED_OF_CLONE), _REFUSE, (_RETURN, 0, 0, _ALLOW)])
    owners = (_FIOSETOWN, _SIOCSPGRP) if restrictions.signals else ()
    if restrictions.network:
        rule("ioctl", _refuse_if(1, (_TIOCSTI, _TIOCLINUX, *_CHANGES_BY_IOCTL, *owners)))
    else:
        rule("ioctl", _refuse_unless(1, _IOCTLS, (_RETURN, 0, 0, _ERRNO | _ENOTTY)))  # "not of this kind of file"
    # Who hides from being counted, or hands what it started to its parent.
    rule("prctl", [
        _load(0), (_EQUAL, 1, 0, kernel.PR_SET_DUMPABLE), (_EQUAL, 0, 3, kernel.PR_SET_CHILD_SUBREAPER),
        _load(1), (_EQUAL, 0, 1, 0), _REFUSE, (_RETURN, 0, 0, _ALLOW),
    ])  # fmt: skip
    # A datagram socket could send to any address; a connected pair of the other kinds cannot.
    rule("socketpair", [
        _load(0), (_EQUAL, 0, 3, _AF_UNIX),
        _load(1), (_AND, 0, 0, _SOCK_TYPE_MASK), (_EQUAL, 0, 1, _SOCK_DGRAM), _REFUSE, (_RETURN, 0, 0, _ALLOW),
    ])  # fmt: skip
    if restrictions.network:
        rule("socket", [
            _load(0), (_EQUAL, 4, 0, _AF_INET), (_EQUAL, 3, 0, _AF_INET6), (_EQUAL, 0, 3, _AF_NETLINK),
            _load(2), (_EQUAL, 0, 1, _NETLINK_ROUTE), (_RETURN, 0, 0, _ALLOW), _REFUSE,
        ])  # fmt: skip
    elif restrictions.serves == OWN_NETWORK:
        rule("socket", _refuse_unless(0, (_AF_UNIX, _AF_INET, _AF_INET6)))
    elif restrictions.serves:
        # Streams of TCP and of nothing like it, which Landlock would not know.
        rule("socket", [
            _load(0), (_EQUAL, 1, 0, _AF_INET), (_EQUAL, 0, 6, _AF_INET6),
            _load(1), (_AND, 0, 0, _SOCK_TYPE_MASK), (_EQUAL, 0, 3, _SOCK_STREAM),
            _load(2), (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, _IPPROTO_TCP), _REFUSE, (_RETURN, 0, 0, _ALLOW),
        ])  # fmt: skip
        for name, argument in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):  # would connect, unseen by Landlock
            rule(name, [_load(argument), (_ANY_BIT, 0, 1, _MSG_FASTOPEN), _REFUSE, (_RETURN, 0, 0, _ALLOW)])
    if not (restrictions.changes or restrictions.own_user):
        # utimensat(fd, NULL) changes what the descriptor is open on; with a path it may be /proc/self/fd/N.
        rule("utimensat", [_REFUSE])
    elif not restrictions.changes:
        rule("utimensat", [_load(1), (_EQUAL, 0, 3, 0), _load(1, high=True), (_EQUAL, 0, 1, 0), _REFUSE,
                           (_RETURN, 0, 0, _ALLOW)])  # fmt: skip
    if restrictions.signals:
        rule("kill", _refuse_unless(0, (0,)))
    # Whom a descriptor signals, with which signal it likes.
    signalled = (_F_SETOWN, _F_SETOWN_EX) if restrictions.signals else ()
    rule("fcntl", _refuse_if(1, (_F_SETLEASE, _F_NOTIFY, *signalled)))
    if restrictions.pinned:
        rule("sched_setaffinity", [_REFUSE])
    elif not (restrictions.own_user or restrictions.own_processes):
        rule("sched_setaffinity", _refuse_unless(0, (0,)))
    return [*program, (_RETURN, 0, 0, _ALLOW)]


_REFUSE = (_RETURN, 0, 0, _ERRNO | _EPERM)


def _refused(restrictions: Restrictions) -> List[str]:
    names = list(_REFUSED)
    if not (restrictions.network or restrictions.serves):
        names += ["socket", *_SOCKETS]
    if restrictions.serves == ONLY_LISTENS:
        names.append("connect")
    if not restrictions.changes:
        names += _CHANGES_OF_DESCRIPTORS
        if not restrictions.own_user:
            names += _CHANGES_OF_PATHS
    if not restrictions.own_processes:
        names += _MOUNTS
    if restrictions.signals:
        names += _SIGNALS
    return names


def _load(argument: int, high: bool = False) -> Tuple[int, int, int, int]:
    """Load the low or high half of an argument (both machines are little-endian)."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument + (4 if high else 0))


def _refuse_unless(
    argument: int, values: Tuple[int, ...], refusal: Tuple[int, int, int, int] = _REFUSE
) -> List[Tuple[int, int, int, int]]:
    """Refuse a call unless the low half of ``argument`` is one of ``values``."""
    tests = [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [_load(argument), *tests, refusal, (_RETURN, 0, 0, _ALLOW)]


def _refuse_if(argument: int, values: Tuple[int, ...]) -> List[Tuple[int, int, int, int]]:
    """Refuse a call if the low half of ``argument`` is one of ``values``."""
    tests = [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [_load(argument), *tests, (_RETURN, 0, 0, _ALLOW), _REFUSE]

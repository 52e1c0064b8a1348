"""System calls by number, and how an attack tells what it got. Runs inside transforms: standard library, Python 3.8."""

import ctypes
import os
import platform

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"

EPERM, ENOTTY, ENOSYS = 1, 25, 38

#: Number on x86_64 and aarch64 (-1: not there), written down again: a wrong number in the filter must show.
NUMBERS = {
    "unshare": (272, 97), "setns": (308, 268), "clone": (56, 220), "clone3": (435, 435), "bpf": (321, 280),
    "io_uring_setup": (425, 425), "io_uring_register": (427, 427), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "mount": (165, 40), "umount2": (166, 39), "fsopen": (430, 430), "fspick": (433, 433), "open_tree": (428, 428),
    "open_tree_attr": (467, 467), "mount_setattr": (442, 442), "move_mount": (429, 429), "pivot_root": (155, 41),
    "chroot": (161, 51), "personality": (135, 92), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "process_madvise": (440, 440),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "move_pages": (279, 239),
    "setuid": (105, 146), "setgid": (106, 144), "setgroups": (116, 159), "capset": (126, 91), "reboot": (169, 142),
    "acct": (163, 89), "syslog": (103, 116), "quotactl": (179, 60), "quotactl_fd": (443, 443), "swapoff": (168, 225),
    "kexec_load": (246, 104), "finit_module": (313, 273), "delete_module": (176, 106), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "sethostname": (170, 161), "memfd_secret": (447, 447), "fanotify_init": (300, 262),
    "iopl": (172, -1), "modify_ldt": (154, -1), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "io_setup": (206, 0), "inotify_init1": (294, 26), "sendmsg": (46, 211), "listen": (50, 201),
    "rt_sigqueueinfo": (129, 138), "fchmodat2": (452, 452), "fchownat": (260, 54), "lsm_set_self_attr": (460, 460),
    "prctl": (157, 167), "madvise": (28, 233),
}  # fmt: skip


def syscall(name, *arguments):
    """Make a system call; an integer instead of a name is its number."""
    number = name if isinstance(name, int) else NUMBERS[name][0 if X86 else 1]
    if number < 0:
        raise OSError(ENOSYS, "this machine has no " + str(name))
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *values)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def tried(attempts):
    """Make every attempt (name: function); return the names of those that worked."""
    done = []
    for name, attempt in attempts.items():
        try:
            attempt()
            done.append(name)
        except (OSError, AttributeError):
            pass
    return ", ".join(done) or None


def reached(calls):
    """Make every call (name: arguments); return those that the kernel itself answered, and not a filter.

    A filter answers EPERM or ENOSYS; so does a kernel that was built without them. Raises the last if none was.
    """
    done = []
    refusal = None
    for name, arguments in calls.items():
        try:
            if syscall(name, *arguments) == 0 and name in ("clone", "clone3"):
                os._exit(0)  # the child
            done.append(name)
        except OSError as error:
            if error.errno in (EPERM, ENOSYS):
                refusal = error
            else:
                done.append(f"{name} ({os.strerror(error.errno)})")
    if not done and refusal is not None:
        raise refusal
    return ", ".join(done)


def in_child(attack):
    """Make the attack in a process of its own, which it changes; return or raise what it does."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            text = "+" + (attack() or "")
        except OSError as error:
            text = f"-{error.errno}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    os.wait()
    if text[:1] == "-":
        raise OSError(int(text[1:]), os.strerror(int(text[1:])))
    return text[1:] or None

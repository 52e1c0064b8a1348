"""A transform that attacks: run with {"attack": name, ...} as its argument, it prints what happened.

Each attack returns a text when it got what it wanted, and None or an exception when it did not.
"""

import ctypes
import json
import os
import platform
import signal
import socket
import stat
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"


def syscall(number, *arguments):
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *values)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def read_file(path, **_):
    with open(path, "rb") as file:
        return f"read {file.read(100)!r}"


def write_file(path, **_):
    with open(path, "ab") as file:
        file.write(b"changed")
    return "written"


def list_directory(path, **_):
    return f"listed {os.listdir(path)}"


def other_environment(secret, pids, **_):
    for pid in {*pids, *(int(name) for name in _proc() if name.isdigit())}:
        for name in ("environ", "cmdline", "mem", "maps"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    if secret.encode() in file.read(100000):
                        return f"found it in {name} of {pid}"
            except (OSError, ValueError):
                pass
    raise PermissionError("found nowhere")


def _proc():
    try:
        return os.listdir("/proc")
    except OSError:
        return []


def connect(address, **_):
    with socket.socket(socket.AF_INET) as connection:
        connection.settimeout(2)
        connection.connect(tuple(address))
        return "connected"


def open_sockets(path, **_):
    """Sockets that are there already: internet ones, and whether any other can be pointed somewhere else."""
    done, seen = [], 0
    pair = socket.socketpair()
    for fd in range(4096):
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
        except OSError:
            continue
        connection = socket.socket(fileno=os.dup(fd))
        with connection:
            seen += 1
            if connection.family != socket.AF_UNIX:
                done.append("an internet socket is open")
            for name, attempt in (("connected", connection.connect), ("bound", connection.bind)):
                try:
                    attempt(path if name == "connected" else "bound.sock")
                    done.append(name)
                except OSError:
                    pass
    assert seen >= 3, pair  # the pair and the worker's own
    return ", ".join(done) or None


def send_datagram(address, **_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.sendto(b"secret", tuple(address))
        return "sent"


def unix_socket(address, **_):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        return "connected"


def unix_datagram_pair(address, **_):
    """A pair needs no socket(), and a datagram can go to any address."""
    one, _two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"hello", address)
    return "sent"


def ptrace(pids, **_):
    done = []
    for pid in (*pids, os.getppid()):
        if LIBC.ptrace(16, pid, 0, 0) == 0:
            done.append(f"attached to {pid}")
        local = ctypes.create_string_buffer(8)
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(local), 8)
        if LIBC.process_vm_readv(pid, vector, 1, vector, 1, 0) >= 0:
            done.append(f"read memory of {pid}")
    return ", ".join(done) or None


def kill(pids, **_):
    done = []
    for pid in pids:
        for name, send in (
            ("kill", lambda pid: os.kill(pid, signal.SIGTERM)),
            ("killpg", lambda pid: os.killpg(pid, signal.SIGTERM)),
            ("pidfd", lambda pid: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGTERM)),
            ("queue", lambda pid: syscall(129 if X86 else 138, pid, signal.SIGTERM, ctypes.create_string_buffer(128))),
        ):
            try:
                send(pid)
                done.append(f"{name} {pid}")
            except (OSError, AttributeError):
                pass
    return ", ".join(done) or None


def limit_other(pids, **_):
    import resource

    resource.prlimit(pids[0], resource.RLIMIT_NOFILE, (64, 64))
    return "limited"


def renice_other(pids, **_):
    os.setpriority(os.PRIO_PROCESS, pids[0], 19)
    return "reniced"


def renice_user(**_):
    os.setpriority(os.PRIO_USER, 0, 19)
    return "reniced"


def pin_other(pids, **_):
    os.sched_setaffinity(pids[0], {min(os.sched_getaffinity(0))})
    return "pinned"


def signal_by_descriptor(pids, **_):
    """Have the kernel send the signal: a descriptor that is ready signals its owner."""
    import fcntl

    ours, other = socket.socketpair()
    fcntl.fcntl(ours, fcntl.F_SETOWN, pids[0])
    fcntl.fcntl(ours, 10, signal.SIGTERM)  # F_SETSIG
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
    other.send(b"x")  # whether a signal came is seen from outside


def write_environment(paths, **_):
    done = []
    for path in paths:
        for attempt in (
            lambda path: open(os.path.join(path, "evil.pth"), "w").close(),
            lambda path: os.mkdir(os.path.join(path, "evil")),
            lambda path: os.rename(path, path + ".evil"),
            lambda path: os.symlink("/", os.path.join(path, "evil-link")),
        ):
            try:
                attempt(path)
                done.append(f"changed {path}")
            except OSError:
                pass
    return ", ".join(done) or None


def huge_output(size, **_):
    piece = bytes(1 << 20)
    for _ in range(size >> 20):
        os.write(1, piece)
    return "all written"


def huge_output_sparse(size, **_):
    os.ftruncate(1, size)
    return "extended"


def change_descriptors(**_):
    """What O_RDONLY does not stop: mode, times, attributes and owner of an input, and then writing to it."""
    done = []
    link = "/proc/self/fd/0"
    for name, attempt in {
        "fchmod": lambda: os.fchmod(0, 0o666),
        "chmod by link": lambda: os.chmod(link, 0o666),
        "chmod by stdin": lambda: os.chmod("/dev/stdin", 0o666),
        "fchmodat2": lambda: syscall(452, 0, b"", 0o666, 0x1000),
        "futimens": lambda: os.utime(0, (1, 1)),
        "utime by link": lambda: os.utime(link, (1, 1)),
        "fsetxattr": lambda: os.setxattr(0, "user.evil", b"x"),
        "setxattr by link": lambda: os.setxattr(link, "user.evil", b"x"),
        "fchown": lambda: os.fchown(0, os.getuid(), os.getgid()),
        "fchownat empty": lambda: syscall(260 if X86 else 54, 0, b"", os.getuid(), os.getgid(), 0x1000),
        "chown by link": lambda: os.chown(link, os.getuid(), os.getgid()),
        "reopen": lambda: os.write(os.open(link, os.O_RDWR), b"evil"),
        "reopen by stdin": lambda: os.write(os.open("/dev/stdin", os.O_WRONLY), b"evil"),
        "truncate": lambda: os.truncate(link, 0),
        "write": lambda: os.write(0, b"evil"),
    }.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            pass
    return ", ".join(done) or None


def kernel_doors(**_):
    """System calls that have opened kernels before, and those that would undo the sandbox."""
    numbers = {  # x86_64, aarch64; arguments
        "unshare": (272, 97, 0x10000000), "setns": (308, 268, 0, 0), "bpf": (321, 280, 0, 0, 0),
        "io_uring_setup": (425, 425, 1, 0), "userfaultfd": (323, 282, 1), "perf_event_open": (298, 241, 0, 0, 0, 0, 0),
        "add_key": (248, 217, b"user", b"d", b"x", 1, -4), "keyctl": (250, 219, 0, -4, 1),
        "mount": (165, 40, b"none", b"/", b"tmpfs", 0, 0), "fsopen": (430, 430, b"tmpfs", 0),
        "open_tree": (428, 428, -100, b"/", 0), "pivot_root": (155, 41, b".", b"."), "chroot": (161, 51, b"."),
        "clone3": (435, 435, ctypes.create_string_buffer(b"\0\0\0\x10" + bytes(84)), 88),
        "clone": (56, 220, 0x10000000 | 17, 0, 0, 0, 0), "personality": (135, 92, 0x0400000),
        "name_to_handle_at": (303, 264, -100, b"/", ctypes.create_string_buffer(b"\x80" + bytes(200)),
                              ctypes.create_string_buffer(8), 0),
        "open_by_handle_at": (304, 265, -100, ctypes.create_string_buffer(200), 0), "pidfd_getfd": (438, 438, 0, 0, 0),
        "setuid": (105, 146, os.getuid()), "setgroups": (116, 159, 0, 0), "kcmp": (312, 272, 1, 1, 0, 0, 0),
        "reboot": (169, 142, 0, 0, 0, 0), "acct": (163, 89, 0), "syslog": (103, 116, 10, 0, 0),
        "quotactl": (179, 60, 0, 0, 0, 0), "listen": (50, 201, 0, 0), "memfd_secret": (447, 447, 0),
    }  # fmt: skip
    done = []
    for name, (x86, arm, *arguments) in numbers.items():
        try:
            if syscall(x86 if X86 else arm, *arguments) == 0 and name.startswith("clone"):
                os._exit(0)  # the child
            done.append(name)
        except OSError as error:
            if error.errno not in (1, 38):  # it was not the filter that refused
                done.append(f"{name} ({error})")
    return ", ".join(done) or None


def terminal_input(**_):
    import fcntl

    try:
        fcntl.ioctl(0, 0x5412, b"x")
    except OSError as error:
        return None if error.errno == 1 else f"reached the terminal driver: {error}"
    return "typed"


def privileges(**_):
    with open("/proc/self/status") as file:
        fields = dict(line.split(":\t", 1) for line in file)
    expected = {**dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), "0" * 16), "NoNewPrivs": "1", "Seccomp": "2"}
    wrong = {name: fields[name] for name in expected if fields[name].strip() != expected[name]}
    return f"{wrong}" if wrong else None


def gain_by_exec(**_):
    import subprocess

    text = subprocess.run(["/bin/sh", "-c", "cat /etc/shadow; id -u"], stdout=subprocess.PIPE).stdout.decode()
    return text if "root:" in text else None


def kill_init(**_):
    os.kill(1, signal.SIGTERM)
    signal.pause()


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    try:
        happened = globals()[options.pop("attack")](**options)
        print(json.dumps({"happened": happened, "error": None}))
    except OSError as error:
        print(json.dumps({"happened": None, "error": f"{type(error).__name__}: {error}"}))
    except Exception as error:
        print(json.dumps({"happened": "the attack itself is broken", "error": repr(error)}))

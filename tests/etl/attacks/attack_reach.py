"""Attacks on what is not the transform's: files, sockets, processes of others, the kernel.

Each returns a text when it got what it wanted, and None or raises OSError when it did not.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import io
import os
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import time

from attack_calls import LIBC, X86, in_child, reached, syscall, tried


def read_file(path, **_):
    with open(path, "rb") as file:
        return f"read {file.read(100)!r}"


def read_files(paths, **_):
    return tried({path: (lambda path=path: read_file(path)) for path in paths})


def write_file(path, **_):
    with open(path, "ab") as file:
        file.write(b"")
    return "opened for writing"


def list_directory(path, **_):
    return f"listed {os.listdir(path)}"


def names_outside(path, **_):
    return f"{path} has {os.stat(path).st_size} bytes"


def watch_directory(path, touch, **_):
    """Be told what happens in a directory that cannot be read."""
    watching = syscall("inotify_init1", 0)
    watch = LIBC.inotify_add_watch(watching, path.encode(), 0x20)  # IN_OPEN
    if watch < 0:
        raise OSError(ctypes.get_errno(), "inotify_add_watch")
    with contextlib.suppress(OSError):
        os.stat(touch)
    os.set_blocking(watching, False)
    return f"watches {path}"


def links_to(path, **_):
    """Get at a file by a link in a directory of one's own."""
    os.symlink(path, "link")
    os.symlink(os.path.dirname(path), "directory")
    return tried({
        "symbolic link": lambda: open("link", "rb").close(),
        "directory link": lambda: open(os.path.join("directory", os.path.basename(path)), "rb").close(),
        "hard link": lambda: os.link(path, "hard"),
        "upwards": lambda: open("../" * 20 + path, "rb").close(),
    })  # fmt: skip


def archive(path, target, **_):
    """Unpack an archive whose members lead out of the directory: upwards, by an absolute name, through a link."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("../" * 20 + target.lstrip("/"), target):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, os.path.dirname(target)
        tar.addfile(link)
        inside = tarfile.TarInfo("out/" + os.path.basename(target))
        inside.size = 4
        tar.addfile(inside, io.BytesIO(b"evil"))
    done = []
    for number in range(4):
        packed.seek(0)
        with tarfile.open(fileobj=packed) as tar:
            member = tar.getmembers()[number]
            try:
                tar.extract(member, ".", **({"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}))
                if number != 2:
                    done.append(member.name)
            except (OSError, KeyError):
                pass
    return ", ".join(done) or None


def other_processes(secret, pids, **_):
    """Find a secret in what /proc tells of others."""
    for pid in {*pids, *(int(name) for name in _names("/proc") if name.isdigit())} - {os.getpid()}:
        for name in ("environ", "cmdline", "maps", "fd", "cwd", "root"):
            path = f"/proc/{pid}/{name}"
            try:
                text = b"".join(n.encode() for n in os.listdir(path)) if name in ("fd", "cwd", "root") else _bytes(path)
                if secret.encode() in text or (name != "cmdline" and pid in pids):
                    return f"read {path}"
            except OSError:
                pass
    raise PermissionError(errno.EACCES, "found nowhere")


def other_memory(pids, **_):
    return tried({
        f"{mode} of {pid}": (lambda pid=pid, flags=flags: _open_memory(pid, flags))
        for pid in pids for mode, flags in (("reading", os.O_RDONLY), ("writing", os.O_RDWR))
    })  # fmt: skip


def _open_memory(pid, flags):
    os.close(os.open(f"/proc/{pid}/mem", flags))


def _bytes(path):
    with open(path, "rb") as file:
        return file.read(100000)


def _names(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


def write_environment(paths, **_):
    done = []
    for path in paths:
        evil = os.path.join(path, "evil")
        if tried({
            "file": lambda evil=evil: (open(evil, "w").close(), os.unlink(evil)),
            "directory": lambda evil=evil: (os.mkdir(evil), os.rmdir(evil)),
            "link": lambda evil=evil: (os.symlink("/", evil), os.unlink(evil)),
        }):  # fmt: skip
            done.append(path)
    return ", ".join(done) or None


def hold_up_others(path, **_):
    """Take a lease: whoever opens the file for writing next waits for it."""
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, 1024, fcntl.F_RDLCK)  # F_SETLEASE
    fcntl.fcntl(fd, 1024, fcntl.F_UNLCK)
    return f"held a lease on {path}"


def inode_flags(path, **_):
    """Change the flags of a file that was opened read-only."""
    fd = os.open(path, os.O_RDONLY)
    value = array.array("l", [0])
    fcntl.ioctl(fd, 0x80086601, value)  # FS_IOC_GETFLAGS
    fcntl.ioctl(fd, 0x40086602, value)  # FS_IOC_SETFLAGS
    return f"set the flags of {path}"


def handles(path, **_):
    """Open a file by its handle, past all directories."""
    handle, mount = ctypes.create_string_buffer(b"\x80" + bytes(200)), ctypes.create_string_buffer(8)
    syscall("name_to_handle_at", -100, path.encode(), handle, mount, 0)
    syscall("open_by_handle_at", os.open("/", os.O_RDONLY), handle, os.O_RDONLY)
    return "opened"


def kernel_files(**_):
    """What shows or steers the kernel: /sys, devices, what of /proc is no process."""
    wanted = {
        "/sys/kernel": os.listdir, "/sys/fs/cgroup": os.listdir, "/sys/class/net": os.listdir, "/dev/mem": _write,
        "/dev/kmsg": _write, "/dev/kvm": _write, "/dev/fuse": _write, "/dev/net/tun": _write, "/dev/ptmx": _write,
        "/dev/tty": _write, "/dev/sda": _bytes, "/dev/vda": _bytes, "/dev/loop-control": _bytes,
        "/proc/kcore": _bytes, "/proc/sysrq-trigger": _write, "/proc/sys/kernel/core_pattern": _write,
        "/proc/sys/kernel/hostname": _write, "/proc/self/oom_score_adj": _write, "/proc/self/uid_map": _write,
    }  # fmt: skip
    return tried({path: (lambda path=path, how=how: how(path)) for path, how in wanted.items()})


def _write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK))


def connect(address, **_):
    with socket.socket(socket.AF_INET) as connection:
        connection.settimeout(2)
        try:
            connection.connect(tuple(address))
        except TimeoutError:
            return "a packet went out"
    return "connected"


def connect_outward(address, **_):
    """Send a first packet somewhere: without a network there is no route, with one there is no answer."""
    with socket.socket(socket.AF_INET) as connection:
        connection.setblocking(False)
        code = connection.connect_ex(tuple(address))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    return "a packet went out"


def send_datagram(address, **_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.sendto(b"secret", tuple(address))
    return "sent"


def listen_for(**_):
    with socket.socket(socket.AF_INET) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
    return "listened"


def other_sockets(**_):
    """Families of sockets that speak with the kernel or past the network."""
    families = {"netlink": (16, 3, 0), "netfilter": (16, 3, 12), "packet": (17, 3, 0), "crypto": (38, 5, 0),
                "vsock": (40, 1, 0), "raw": (2, 3, 1), "bluetooth": (31, 3, 1), "can": (29, 3, 1),
                "xdp": (44, 3, 0), "unix": (1, 1, 0)}  # fmt: skip
    return tried({name: (lambda kind=kind: socket.socket(*kind).close()) for name, kind in families.items()})


def open_sockets(path, **_):
    """Sockets that are there already: internet ones, and whether any other can be pointed somewhere else."""
    done = []
    pair = socket.socketpair()
    for fd in range(3, 4096):
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            connection = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        with connection:
            if connection.family != socket.AF_UNIX:
                done.append("an internet socket is open")
            for name, attempt in (("connected", connection.connect), ("bound", connection.bind)):
                with contextlib.suppress(OSError):
                    attempt(path if name == "connected" else "bound.sock")
                    done.append(name)
    del pair
    return ", ".join(done) or None


def unix_socket(address, **_):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
    return "connected"


def unix_datagram_pair(address, **_):
    """A pair needs no socket(), and a datagram can go to any address."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, two:
        one.sendto(b"hello", address)
    return "sent"


def ptrace(pids, **_):
    local = ctypes.create_string_buffer(8)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(local), 8)

    def attach(pid):
        if LIBC.ptrace(16, pid, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        LIBC.waitpid(pid, None, 0x40000000)
        LIBC.ptrace(17, pid, 0, 0)

    found = reached({"kcmp": (pids[0], pids[0], 0, 0, 0), "process_madvise": (-1, vector, 1, 20, 0)})
    done = tried({f"attached to {pid}": (lambda pid=pid: attach(pid)) for pid in pids})
    read = tried({f"read {pid}": (lambda pid=pid: syscall("process_vm_readv", pid, vector, 1, vector, 1, 0))
                  for pid in pids})  # fmt: skip
    return ", ".join(filter(None, (done, read, found))) or None


def kill(pids, **_):
    """Signal others in every way there is; the signal does nothing."""
    ways = {
        "kill": lambda pid: os.kill(pid, signal.SIGWINCH),
        "killpg": lambda pid: os.killpg(pid, signal.SIGWINCH),
        "pidfd": lambda pid: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGWINCH),
        "queue": lambda pid: syscall("rt_sigqueueinfo", pid, signal.SIGWINCH, _queued()),
    }
    return tried({
        f"{name} {pid}": (lambda pid=pid, send=send: send(pid)) for pid in pids for name, send in ways.items()
    })  # fmt: skip


def _queued():
    info = ctypes.create_string_buffer(128)
    info[8:12] = (-1 & 0xFFFFFFFF).to_bytes(4, "little")  # si_code SI_QUEUE
    return info


def limit_other(pids, **_):
    import resource

    resource.prlimit(pids[0], resource.RLIMIT_CORE, (0, 0))
    return "limited"


def renice_other(pids, **_):
    os.setpriority(os.PRIO_PROCESS, pids[0], 19)
    return "reniced"


def renice_user(uid, **_):
    os.setpriority(os.PRIO_USER, uid, 1)
    return "reniced"


def pin_other(pids, **_):
    os.sched_setaffinity(pids[0], os.sched_getaffinity(0))
    return "pinned"


def signal_by_descriptor(pids, **_):
    """Have the kernel send the signal: a descriptor that is ready signals its owner."""
    ours, other = socket.socketpair()
    with ours, other:
        fcntl.fcntl(ours, fcntl.F_SETOWN, pids[0])
        fcntl.fcntl(ours, 10, signal.SIGUSR1)  # F_SETSIG
        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
        other.send(b"x")
        time.sleep(0.05)
    # Whether it came is seen by the end of that process.


def change_input(**_):
    """What O_RDONLY does not stop: mode, times, attributes and owner of an input, and then writing to it."""
    link = "/proc/self/fd/0"
    return tried({
        "fchmod": lambda: os.fchmod(0, 0o666),
        "chmod by link": lambda: os.chmod(link, 0o666),
        "chmod by stdin": lambda: os.chmod("/dev/stdin", 0o666),
        "fchmodat2": lambda: syscall("fchmodat2", 0, b"", 0o666, 0x1000),
        "futimens": lambda: os.utime(0, (1, 1)),
        "utime by link": lambda: os.utime(link, (1, 1)),
        "fsetxattr": lambda: os.setxattr(0, "user.evil", b"x"),
        "setxattr by link": lambda: os.setxattr(link, "user.evil", b"x"),
        "fchown": lambda: os.fchown(0, os.getuid(), os.getgid()),
        "fchownat": lambda: syscall("fchownat", 0, b"", os.getuid(), os.getgid(), 0x1000),
        "chown by link": lambda: os.chown(link, os.getuid(), os.getgid()),
        "reopen": lambda: os.write(os.open(link, os.O_RDWR), b"evil"),
        "reopen by stdin": lambda: os.write(os.open("/dev/stdin", os.O_WRONLY), b"evil"),
        "truncate": lambda: os.truncate(link, 0),
        "write": lambda: os.write(0, b"evil"),
    })  # fmt: skip


ZEROS = ctypes.create_string_buffer(256)


def namespaces(**_):
    parts = {"user": 0x10000000, "network": 0x40000000, "mount": 0x20000, "IPC": 0x8000000, "processes": 0x20000000}
    by_unshare = tried({
        name: (lambda flag=flag: in_child(lambda: reached({"unshare": (flag,)}))) for name, flag in parts.items()
    })  # fmt: skip
    return by_unshare or in_child(lambda: reached({
        "setns": (0, 0), "clone": (0x10000000 | 17, 0, 0, 0, 0),
        "clone3": (ctypes.create_string_buffer(b"\0\0\0\x10" + bytes(84)), 88),
    }))  # fmt: skip


def mounts(**_):
    os.makedirs("m", exist_ok=True)
    found = reached({
        "fsopen": (b"tmpfs", 0), "fspick": (-100, b"/", 0), "open_tree": (-100, b"/", 0),
        "open_tree_attr": (-100, b"/", 0, 0, 0), "mount_setattr": (-100, b"/", 0, ZEROS, 32),
        "move_mount": (-1, b"", -1, b"", 0), "pivot_root": (b".", b"."), "umount2": (b"m", 2),
        "mount": (b"none", b"m", b"tmpfs", 0, 0),
    })  # fmt: skip
    with contextlib.suppress(OSError):
        syscall("umount2", b"m", 2)
    return found


def new_root(**_):
    return in_child(lambda: reached({"chroot": (b".",)}))


def bpf(**_):
    return reached({"bpf": (0, 0, 0)})


def io_uring(**_):
    return reached({"io_uring_setup": (1, ctypes.create_string_buffer(120)), "io_uring_register": (-1, 0, 0, 0)})


def userfaultfd(**_):
    return reached({"userfaultfd": (1,)})


def perf(**_):
    return reached({"perf_event_open": (ctypes.create_string_buffer(b"\0" * 4 + b"\x70" + bytes(123)), 0, -1, -1, 0)})


def keyrings(**_):
    return reached(
        {"add_key": (b"user", b"d", b"x", 1, -4), "keyctl": (0, -4, 1), "request_key": (b"user", b"d", 0, -4)}
    )


def descriptors_of_others(pids, **_):
    try:
        held = syscall("pidfd_open", pids[0], 0)
    except OSError:
        held = -1
    return reached({"pidfd_getfd": (held, 0, 0)})


def administration(**_):
    """What only an administrator may, asked in a way that does nothing."""
    return reached({
        "reboot": (0, 0, 0, 0), "quotactl": (0, 0, 0, 0), "quotactl_fd": (-1, 0, 0, 0), "swapoff": (b"/none",),
        "kexec_load": (0, 0, 0, 1 << 30), "finit_module": (-1, b"", 0), "delete_module": (b"none", 0),
        "syslog": (10, 0, 0), "acct": (b"/none/none",), "fanotify_init": (1 << 30, 0), "iopl": (9,),
        "modify_ldt": (0, 0, 0), "lsm_set_self_attr": (0, 0, 0, 0),
    })  # fmt: skip


def clocks(**_):
    """Asked with what cannot be: an address that is none, a clock that is none."""
    return reached({"settimeofday": (1, 0), "clock_settime": (99, 1), "sethostname": (1, 1 << 30)})


def identities(**_):
    return in_child(lambda: reached({
        "setuid": (os.getuid(),), "setgid": (os.getgid(),), "setgroups": (0, 0), "capset": (ZEROS, ZEROS)
    }))  # fmt: skip


def other_personality(**_):
    return reached({"personality": (0xFFFFFFFF,)})


def secret_memory(**_):
    """Memory that the kernel itself does not map, and nobody can look at."""
    return reached({"memfd_secret": (1 << 20,)})


def new_calls(**_):
    """System calls that no list knows yet."""
    probe = dict.fromkeys(range(470, 480), (-1, -1, -1, -1, -1, -1))
    done = []
    for number, arguments in probe.items():
        try:
            syscall(number, *arguments)
            done.append(str(number))
        except OSError as error:
            if error.errno != 38:
                done.append(f"{number} ({error})")
    return ", ".join(done) or None


def system_v(**_):
    """Objects that stay when the processes have gone."""
    return reached({"shmget": (0, 4096, 0o1600), "msgget": (0, 0o1600), "semget": (0, 1, 0o1600)})


def terminal(**_):
    """Type into the terminal that the store was started from."""
    done = []
    for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
        try:
            fcntl.ioctl(0, request, b"\x03")
            done.append(name)
        except OSError as error:
            if error.errno not in (1, 25):
                done.append(f"{name} ({error})")
    return ", ".join(done) or None


def asks_kernel(**_):
    """An ioctl that no program needs of a file: whether the filter lets it through to the file system."""
    try:
        fcntl.ioctl(0, 0x40806685, bytes(128))  # FS_IOC_ENABLE_VERITY
    except OSError as error:
        return None if error.errno == 25 and _filtered() else f"reached the file system: {error}"
    return "done"


def _filtered():
    return LIBC.prctl(21, 0, 0, 0, 0) == 2  # PR_GET_SECCOMP


def privileges(**_):
    """Capabilities, and a way to new ones."""
    if LIBC.prctl(39, 0, 0, 0, 0) != 1:  # PR_GET_NO_NEW_PRIVS
        return "may gain privileges"
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    LIBC.syscall(125 if X86 else 90, ctypes.byref(header), ctypes.byref(data))  # capget
    return "has capabilities" if any(data) else None


def gain_by_exec(**_):
    """Become somebody else by a program that has the setuid bit."""
    done = []
    for program in ("/usr/bin/su", "/bin/su", "/usr/bin/sudo", "/usr/bin/newgrp", "/usr/bin/pkexec"):
        with contextlib.suppress(OSError):
            if os.stat(program).st_mode & stat.S_ISUID:
                done.append(program)
    script = "cat /etc/shadow; id -u"
    text = subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return "read /etc/shadow" if b"root:" in text else None


def version(**_):
    return sys.version

"""Attacks on the objects before, after and beside this one, in the same transform.

Some come in two steps: what the first leaves behind, the second, with the next object, looks for.
"""

import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

from attack_calls import LIBC, syscall, tried

SECRET = "a secret of the object before"


def sockets():
    """Yield the sockets that are open."""
    for fd in range(3, 4096):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield socket.socket(fileno=os.dup(fd))
        except OSError:
            pass


def leave_environment(**_):
    os.environ["EVIL"] = SECRET
    os.environ["PATH"] = "/evil"


def find_environment(**_):
    return os.environ.get("EVIL") or (os.environ["PATH"] == "/evil" and "PATH") or None


def leave_environment_of_c(**_):
    LIBC.setenv(b"EVIL", SECRET.encode(), 1)


def find_environment_of_c(**_):
    found = ctypes.cast(LIBC.getenv, ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_char_p))(b"EVIL")
    printed = subprocess.run(["/bin/sh", "-c", "echo $EVIL"], stdout=subprocess.PIPE).stdout.strip()
    return (found or printed).decode() or None


PLACES = ("/tmp", "/var/tmp", "/dev/shm", "~", ".", "..")


def leave_files(**_):
    for place in PLACES:
        with contextlib.suppress(OSError), open(os.path.join(os.path.expanduser(place), "evil"), "w") as file:
            file.write(SECRET)


def find_files(**_):
    found = tried({
        place: lambda place=place: open(os.path.join(os.path.expanduser(place), "evil")).close() for place in PLACES
    })  # fmt: skip
    for place in PLACES:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(os.path.expanduser(place), "evil"))
    return found


def leave_state(**_):
    os.chdir("/")
    os.umask(0)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.alarm(1)
    sys.path.insert(0, "/evil")
    sys.stdout.evil = True
    import builtins

    builtins.evil = True


def find_state(**_):
    import builtins

    umask = os.umask(0o77)
    found = {
        "directory": os.getcwd() == "/", "umask": umask == 0, "path": sys.path[0] == "/evil",
        "handler": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN, "builtins": hasattr(builtins, "evil"),
        "alarm": signal.alarm(0) > 0, "stdout": hasattr(sys.stdout, "evil"),
    }  # fmt: skip
    return ", ".join(name for name, there in found.items() if there) or None


def leave_module(**_):
    json.evil = SECRET
    json.decoder.JSONDecoder.evil = SECRET


def find_module(**_):
    return getattr(json, "evil", None)


def leave_descriptor(**_):
    """Keep this object open for the next."""
    os.dup2(0, 60)


def find_descriptor(**_):
    try:
        return os.pread(60, 100, 0).decode()
    except OSError:
        return None


def leave_output(**_):
    """Have something written later: a buffer, an exit handler, a destructor, a thread."""
    import atexit

    kept = open(os.dup(1), "w")  # noqa: SIM115
    kept.write(SECRET)
    sys.leaked = kept
    atexit.register(print, "")
    sys.stdout.write("")

    class Last:
        def __del__(self):
            kept.flush()

    cycle = [Last()]
    cycle.append(cycle)


def find_output(**_):
    """The output of this object is what is looked at; here nothing is done."""
    sys.leaked.close() if getattr(sys, "leaked", None) else None


def leave_thread(**_):
    def wait():
        while True:
            time.sleep(0.01)
            with contextlib.suppress(Exception):
                os.write(1, b"from a thread of the object before")

    threading.Thread(target=wait, daemon=True).start()


def leave_child(name, **_):
    """A process that outlives its object, in each way there is to slip away from whoever counts children."""
    _daemon(name)
    LIBC.prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans are not to come to the worker
    _daemon(name)
    with contextlib.suppress(OSError):
        if syscall("clone", 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:  # CLONE_PARENT: no child of the worker
            _linger(name)


def _daemon(name):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _linger(name)
        os._exit(0)
    with contextlib.suppress(OSError):
        os.wait()


def _linger(name):
    os.setsid()
    LIBC.prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.close(fd)
    time.sleep(300)
    os._exit(0)


def take_next_object(**_):
    """Accept the next object's connection, instead of a worker that would."""
    for each in sockets():
        if each.getsockopt(socket.SOL_SOCKET, 30):  # SO_ACCEPTCONN
            return "can accept for others"
    return None


def kill_first(signals, **_):
    """Ask what looks like the first process of the machine to end."""
    return tried({str(number): (lambda number=number: os.kill(1, number)) for number in signals})


def kill_parent(**_):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.kill(os.getppid(), number)


def wait_beside(ready, **_):
    """The neighbour: has a file and a secret, and waits."""
    with open("neighbour-" + SECRET.replace(" ", "-"), "w") as file:
        file.write(SECRET)
    end = time.monotonic() + ready
    while time.monotonic() < end:
        time.sleep(0.02)
    return "undisturbed"


def _neighbours():
    """Return the pids of the other workers: from /proc where it shows them, else those near this one's."""
    found = [int(name) for name in _list("/proc") if name.isdigit()]
    return [pid for pid in found or range(max(2, os.getpid() - 8), os.getpid() + 8) if pid not in (os.getpid(), 1)]


def _list(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


def kill_neighbours(**_):
    return tried({str(pid): (lambda pid=pid: os.kill(pid, 0)) for pid in [*_neighbours(), os.getppid()]})


def neighbours_memory(**_):
    def open_memory(pid):
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))

    def attach(pid):
        if LIBC.ptrace(16, pid, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        LIBC.waitpid(pid, None, 0x40000000)
        LIBC.ptrace(17, pid, 0, 0)

    pids = [*_neighbours(), os.getppid()]
    return tried({f"memory of {pid}": (lambda pid=pid: open_memory(pid)) for pid in pids}) or tried(
        {f"attached to {pid}": (lambda pid=pid: attach(pid)) for pid in pids}
    )


def neighbours_files(**_):
    above = os.path.dirname(os.environ["TMPDIR"])
    done = []
    for name in _list(above) or [f"worker-{pid}" for pid in _neighbours()]:
        path = os.path.join(above, name)
        if path == os.environ["TMPDIR"] or not name.startswith("worker-"):
            continue
        with contextlib.suppress(OSError):
            done += [f"{name} has {each}" for each in os.listdir(path)]
    return ", ".join(done) or None


def change_result(**_):
    """Answer by oneself, and change the result again and again afterwards; see ``leave_child`` for how to stay."""
    os.write(1, b"a" * 1000)
    mapping = mmap.mmap(1, 1000)
    if os.fork() == 0:
        os.setsid()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            mapping[0:1000] = b"b" * 1000
            os.ftruncate(1, 10)
            os.ftruncate(1, 1000)
        os._exit(0)


def shrink_large_result(**_):
    """The same with one that is sent in pieces."""
    os.ftruncate(1, 4 << 20)
    if os.fork() == 0:
        os.setsid()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                os.ftruncate(1, 0)
        os._exit(0)


def keep_mapping(**_):
    """Keep a way to write to the result that no seal takes away."""
    os.ftruncate(1, 4 << 20)
    sys.leaked_mapping = mmap.mmap(1, 4 << 20)


def answer_garbage(text, times, **_):
    """Answer instead of the worker, with what is no answer."""
    for each in sockets():
        with contextlib.suppress(OSError):
            if not each.getsockopt(socket.SOL_SOCKET, 30):
                each.send(text.encode() * times)
    time.sleep(0.2)

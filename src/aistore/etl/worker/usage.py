"""What processes use, as ``/proc`` tells it (proc(5)): which there are, their memory, their temporary files."""

import os
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from .process import children

_STACK_BYTES = 16 << 10  # of the kernel, for each thread
_SOCKET_BYTES, _PIPE_BYTES = 256 << 10, 64 << 10  # what one can hold that nobody reads from
_HIDDEN_LOOKS = 3  # a process is not to be looked at while it becomes another program

_STATUS = re.compile(rb"^(State|RssAnon|VmSwap|VmPTE|Threads):\s+(\w+)", re.MULTILINE)
_PSS = re.compile(rb"^(?:Pss_Anon|SwapPss):\s+(\d+) kB", re.MULTILINE)
_SHARED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ...s \S+ (\S+) (\d+) +(?:/dev/zero|/memfd:|/SYSV)", re.MULTILINE)


class Process(NamedTuple):
    """One process: ``branch`` is the worker that it is or descends from, else the parent; bytes of its own, at most."""

    pid: int
    branch: int
    threads: int
    private: int
    tables: int


def processes_below(parent: int) -> List[Process]:
    """Return all descendants of this process, whose child is ``parent``.

    One that comes or goes meanwhile is seen the next time, or never was.
    """
    found: List[Process] = []
    waiting = [(pid, pid) for pid in children()]
    seen: Set[int] = set()
    while waiting:
        pid, branch = waiting.pop()
        if pid in seen:
            continue
        seen.add(pid)
        status = _status(pid)
        if status is None:
            continue
        threads = status.get(b"Threads", 1)
        tables = status.get(b"VmPTE", 0) * 1024 + threads * _STACK_BYTES
        private = (status.get(b"RssAnon", 0) + status.get(b"VmSwap", 0)) * 1024
        found.append(Process(pid, branch, threads, private, tables))
        waiting += [(child, child if pid == parent else branch) for child in children(pid)]
    return found


def _status(pid: int) -> Optional[Dict[bytes, int]]:
    """Return numbers of a process; None if it has ended."""
    try:
        with open("/proc/{}/status".format(pid), "rb") as file:
            fields = dict(_STATUS.findall(file.read()))
    except OSError:
        return None
    if fields.pop(b"State", b"Z") in (b"Z", b"X"):
        return None
    return {name: int(value) for name, value in fields.items()}


def cpu_ticks(pid: int) -> int:
    """Return the processor time of a process so far, in clock ticks."""
    try:
        with open("/proc/{}/stat".format(pid), "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime, stime


def share_of(process: Process) -> int:
    """Return the bytes of its own memory, where pages that several processes share count for each by its share."""
    try:
        with open("/proc/{}/smaps_rollup".format(process.pid), "rb") as file:
            found = _PSS.findall(file.read())
    except OSError:
        return process.private
    return sum(map(int, found)) * 1024 if found else process.private  # before Linux 5.9 it does not tell


class Kept:
    """What only descriptors and mappings keep: memory files, shared memory, buffers of sockets and pipes."""

    def __init__(self) -> None:
        self.sizes: Dict[object, int] = {}
        self.branches: Dict[object, Set[int]] = {}
        self._hidden: Dict[int, int] = {}

    def total(self) -> int:
        """Return its bytes, as they were last seen."""
        return sum(self.sizes.values())

    def look(self, processes: Sequence[Process]) -> Optional[Process]:
        """Look at it anew. Return a process that does not let itself be looked at, which none has a reason for."""
        self.sizes, self.branches = {}, {}
        before, self._hidden = self._hidden, {}
        for process in processes:
            try:
                self._descriptors(process)
                self._mappings(process)
            except PermissionError:
                self._hidden[process.pid] = before.get(process.pid, 0) + 1
                if self._hidden[process.pid] >= _HIDDEN_LOOKS:
                    return process
            except OSError:  # it has ended
                pass
        return None

    def _descriptors(self, process: Process) -> None:
        for path, target in _open_files(process.pid):
            if target.startswith("/memfd:"):
                found = os.stat(path)
                device = "{:02x}:{:02x}".format(os.major(found.st_dev), os.minor(found.st_dev)).encode()
                self._note(process, (device, found.st_ino), found.st_blocks * 512)
            elif target.startswith("socket:"):
                self._note(process, target, _SOCKET_BYTES)
            elif target.startswith("pipe:"):
                self._note(process, target, _PIPE_BYTES)

    def _mappings(self, process: Process) -> None:
        with open("/proc/{}/maps".format(process.pid), "rb") as file:
            mapped = file.read()
        for start, end, device, inode in _SHARED.findall(mapped):
            key = (device, int(inode))
            if key not in self.sizes:  # what is open is known better
                self._note(process, key, int(end, 16) - int(start, 16))

    def _note(self, process: Process, key: object, size: int) -> None:
        self.sizes[key] = max(size, self.sizes.get(key, 0))
        self.branches.setdefault(key, set()).add(process.branch)


def _open_files(pid: int) -> Iterator[Tuple[str, str]]:
    """Yield the descriptors of a process, as paths, and what each is open on."""
    directory = "/proc/{}/fd".format(pid)
    for number in os.listdir(directory):
        path = "{}/{}".format(directory, number)
        try:
            yield path, os.readlink(path)
        except FileNotFoundError:  # closed by now
            pass


def hold(directories: Sequence[str]) -> Dict[str, int]:
    """Return a descriptor for each of ``directories`` that there is: whoever has it need not reach what is above."""
    held = {}
    for directory in directories:
        try:
            held[directory] = os.open(directory, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
        except OSError:
            pass
    return held


def files_below(held: Dict[str, int]) -> Iterator[Tuple[str, int]]:
    """Yield path and bytes on disk of everything below directories; raises OSError for what is out of reach.

    Goes there meanwhile: relative paths are all that a user may use whose way from the root is barred.
    """
    linked: Set[Tuple[int, int]] = set()
    try:
        for directory, descriptor in held.items():
            os.fchdir(descriptor)
            for path, size in _files_here(linked):
                yield os.path.join(directory, path[2:]), size
    finally:
        os.chdir("/")


def _files_here(linked: Set[Tuple[int, int]]) -> Iterator[Tuple[str, int]]:
    waiting = ["."]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # gone by now, or another user's still: a transform cannot close one that it has filled
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except (FileNotFoundError, PermissionError):
                continue
            if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                if (found.st_dev, found.st_ino) in linked:
                    continue
                linked.add((found.st_dev, found.st_ino))
            yield entry.path, found.st_blocks * 512
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def removed_files(process: Process, directory: str) -> Dict[Tuple[int, int], int]:
    """Return the bytes of files of ``directory`` that were removed and that the process has still open, by inode."""
    sizes: Dict[Tuple[int, int], int] = {}
    try:
        for path, target in _open_files(process.pid):
            if target.startswith(directory + "/") and target.endswith(" (deleted)"):
                found = os.stat(path)
                sizes[(found.st_dev, found.st_ino)] = found.st_blocks * 512
    except OSError:
        pass
    return sizes

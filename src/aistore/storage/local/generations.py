"""Data files in the making: each engine instance writes into small directories, generations, that are its own.

A generation has a marker in ``open/``, locked while its owner may still be writing. When a generation is full and all
its writes are known to the index or undone, the owner says so in the marker and lets the lock go: once that is on the
disk the reclaimer removes the marker, which *seals* the generation: nobody needs to look at it again. A killed owner
lets the lock go as well but says nothing: then recovery (recovery.py) compares the files with the index first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import secrets
import threading

from ...errors import InternalError, OutOfSpaceError
from .layout import Mountpath
from .syncing import CAN_SYNC_ALL, sync_data, sync_directory, sync_file_system

#: From this many files of one transaction on, the whole file system is synced instead of one file after the other.
#: Measured: 64 files of 20 KB cost 13 ms one by one, 8 ms in 8 threads and 2.4 ms at once; 8 files 2.4 and 0.8 ms.
#: Somebody else's writes wait with ours then, which the sync that every second has anyhow keeps few: beside 100 MB/s of
#: them 64 files cost 19, 9 and 14 ms.
_SYNC_ALL_FILES = 8


_COPY_BYTES = 1 << 20
#: What an owner writes into the marker of a generation that it lets go itself: each of its files is known to the index
#: or removed. Nobody has to compare them then, which would cost 35 us a file.
SETTLED = b"settled"


class _Generation:
    """One directory of files, owned by this process while ``marker`` (a descriptor) is open."""

    __slots__ = ("files", "full", "marker", "name", "unsettled", "unsure")

    def __init__(self, name: str, marker: int) -> None:
        self.name = name
        self.marker = marker
        self.files = 0
        self.unsettled = 0
        #: Whether there may be a file that the index does not know.
        self.unsure = False
        self.full = False


class NewFile:
    """A file being written: its bytes first, its trailer at the commit. Not for use by two threads at once."""

    __slots__ = ("_descriptor", "_generation", "_lost", "_owner", "_repeated", "place", "size")

    def __init__(self, owner: Generations, generation: _Generation, place: str, descriptor: int) -> None:
        self._owner = owner
        self._generation = generation
        self._descriptor = descriptor
        self._repeated = False
        self._lost = False
        self.place = place
        self.size = 0

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append to the object's bytes."""
        written = os.write(self._descriptor, chunk)
        if written != len(chunk):
            view = memoryview(chunk)[written:]
            while view:
                view = view[os.write(self._descriptor, view) :]
        self.size += len(chunk)

    def finish(self, trailer: bytes) -> None:
        """Put the trailer after the bytes; may be repeated when a transaction is."""
        if os.pwrite(self._descriptor, trailer, self.size) != len(trailer):
            raise OutOfSpaceError(f"{self.place}: the disk is full")
        if self._repeated:  # the first one may have been longer; truncating always would cost 70 us of kernel time
            os.ftruncate(self._descriptor, self.size + len(trailer))
        self._repeated = True

    def mapped(self) -> mmap.mmap:
        """Return the object's bytes as a read-only mapping, good for as long as it is held; there has to be a byte."""
        return mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_READ)

    def sync(self) -> None:
        """Bring the bytes to the disk; raises OSError, and ever after when it did once."""
        if self._lost:
            raise OSError(errno.EIO, f"{self.place}: the disk failed to take its bytes")
        try:
            sync_data(self._descriptor)
        except OSError:
            self._lost = True  # the kernel says so only once, and takes the lost pages for written then
            raise

    def moved_to(self, owner: Generations) -> NewFile:
        """Return the file as one of ``owner``'s: itself, or a copy of its bytes, and then it is gone."""
        if owner is self._owner:
            return self
        owner.check_room(self.size)
        copy = owner.new_file()
        try:
            while copy.size < self.size:
                copy.write(os.pread(self._descriptor, min(_COPY_BYTES, self.size - copy.size), copy.size))
        except BaseException:
            copy.discard()
            raise
        self.discard()
        return copy

    def keep(self) -> None:
        """Close the file; the index knows it now."""
        self._close(unlink=False)

    def discard(self) -> None:
        """Close and remove the file, if its disk lets it; does nothing after ``keep``."""
        self._close(unlink=True)

    def _close(self, *, unlink: bool) -> None:
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        if unlink:
            try:
                os.unlink(self._owner.path(self.place))
            except OSError:  # a disk that fails or is gone: what is left there is for recovery to find
                self._generation.unsure = True
        self._owner.settle(self._generation)


class Generations:
    """The generations of one engine instance."""

    def __init__(self, mountpath: Mountpath, files_max: int, reserve_bytes: int) -> None:
        self._mountpath = mountpath
        self._files_max = files_max
        self._prefix = f"{mountpath.data}/"
        # Kept open: a failure to write is told once to each descriptor that was open when it happened.
        self._disk = os.open(mountpath.data, os.O_RDONLY | os.O_CLOEXEC)
        #: Generations that a power cut cannot take away, nor their markers.
        self._on_disk: set[str] = set()
        # Reentrant: an abandoned staging is dropped by the garbage collector, which may run in here.
        self._lock = threading.RLock()
        self._current: _Generation | None = None
        self._owned: set[_Generation] = set()
        space = os.statvfs(mountpath.data)
        self._reserve_bytes = min(reserve_bytes, space.f_blocks * space.f_frsize // 20)

    def path(self, place: str) -> str:
        """Return the path of a file from its place."""
        return self._prefix + place

    def check_room(self, size: int) -> None:
        """Raise OutOfSpaceError when ``size`` more bytes would touch the reserve."""
        space = os.statvfs(self._mountpath.data)
        if space.f_bavail * space.f_frsize - size < self._reserve_bytes:
            raise OutOfSpaceError(
                f"{self._mountpath.data}: less than {self._reserve_bytes >> 10} KiB would stay free",
                hint="delete objects or enlarge the disk; reads go on",
            )

    def new_file(self) -> NewFile:
        """Create a file with a place of its own."""
        with self._lock:
            generation = self._current
            if generation is None:
                generation = self._current = self._begin()
                self._owned.add(generation)
            generation.unsettled += 1
            place = f"{generation.name}/{generation.files:x}"
            generation.files += 1
            # After ``close`` nobody comes to let a generation go: each file takes its own with it.
            if generation.files >= self._files_max or self._disk < 0:
                generation.full = True
                self._current = None
        try:
            descriptor = os.open(self._prefix + place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except BaseException:
            self.settle(generation)
            raise
        return NewFile(self, generation, place, descriptor)

    def sync(self, files: list[NewFile]) -> None:
        """Bring new files to the disk, with all that leads to them; raises OSError."""
        if CAN_SYNC_ALL and len(files) >= _SYNC_ALL_FILES:
            sync_file_system(self._disk)
            return
        for file in files:
            file.sync()
        names = {file.place.partition("/")[0] for file in files}
        for name in names:
            sync_directory(self._prefix + name)
        if not names <= self._on_disk:
            sync_directory(self._mountpath.data)
            sync_directory(self._mountpath.markers)
            self._on_disk = names  # older generations are full

    def settle(self, generation: _Generation) -> None:
        """Count one file less whose fate is open; the last one of a full generation lets it go."""
        with self._lock:
            generation.unsettled -= 1
            self._release_if_done(generation)

    def close(self) -> None:
        """Let every generation go as soon as its files are settled."""
        with self._lock:
            self._current = None
            for generation in list(self._owned):
                generation.full = True
                self._release_if_done(generation)
            if self._disk >= 0:
                os.close(self._disk)
                self._disk = -1

    def _release_if_done(self, generation: _Generation) -> None:
        if generation.full and not generation.unsettled and generation in self._owned:
            self._owned.remove(generation)
            if not generation.unsure:
                with contextlib.suppress(OSError):  # a full disk: then the files are compared
                    os.pwrite(generation.marker, SETTLED, 0)
            os.close(generation.marker)

    def _begin(self) -> _Generation:
        for _ in range(100):
            # Random and never told to clients: see trailer.py for what that is good for.
            name = secrets.token_hex(8)
            path = f"{self._mountpath.markers}/{name}"
            marker = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between creation and lock, recovery may have taken the marker for a dead owner's and removed it.
                if os.fstat(marker).st_nlink == 1:
                    os.mkdir(self._prefix + name, 0o700)
                    return _Generation(name, marker)
            except BlockingIOError:
                pass
            except BaseException:
                os.close(marker)
                raise
            os.close(marker)
        raise InternalError(f"{self._mountpath.markers}: no generation could be begun")

"""A write in progress: small objects stay in memory, larger ones go to their file as chunks come."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Mapping
from concurrent.futures import Future

from ...errors import InternalError
from ...model.objects import Checksum, ObjectInfo
from ..checksums import STORED_TYPE, Hasher
from .generations import NewFile
from .opened import OpenMountpath
from .operations import Write
from .settings import LocalSettings


class LocalStaging:
    """A Staging of the local engine. Its methods may be called from different threads."""

    def __init__(self, disk: OpenMountpath, write: Write, hasher: Hasher, settings: LocalSettings) -> None:
        self._file: NewFile | None = None
        self._head = bytearray()
        self._disk = disk
        self._write = write
        self._hasher = hasher
        self._in_memory_max = max(settings.inline_bytes_max, settings.staged_in_memory_max)
        self._open = True
        self._finished = False
        # A cancelled request aborts while its last chunk may still be on the way to the disk in another thread.
        self._lock = threading.Lock()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append ``chunk``; raises OutOfSpaceError, and then nothing is left of the write.

        Raises MountpathUnavailableError when its disk was let go.
        """
        with self._lock:
            self._check_open()
            if self._finished:
                raise InternalError(f"{self._write.what}: written to after its end")
            try:
                self._disk.health.check()  # a long upload ends with its disk, not at its own end
                self._append(chunk)
            except Exception as error:
                self._drop()
                raise self._disk.health.fault(error, self._write.what) from error

    def finish(self, what: str = "") -> tuple[int, Checksum]:
        """Say that all bytes were written, and return how many and their checksum. May be called twice.

        Raises ChecksumMismatchError for ``what``, the object's address, and then nothing is left of the write.
        """
        with self._lock:
            self._check_open()
            self._finished = True
            try:
                checksum = self._write.hashed(what)
            except BaseException:
                self._drop()
                raise
            return len(self._head) if self._file is None else self._file.size, Checksum(STORED_TYPE, checksum)

    def buffer(self) -> bytes | mmap.mmap:
        """Return the bytes after ``finish``: a read-only mapping of those that are in a file.

        The mapping stays good whatever becomes of the write, as long as somebody holds it.
        """
        with self._lock:
            self._check_open()
            if not self._finished:
                raise InternalError(f"{self._write.what}: its bytes were asked for before its end")
            return bytes(self._head) if self._file is None else self._file.mapped()

    def commit(self, custom: Mapping[str, str] | None = None) -> Future[ObjectInfo]:
        """Publish, with other custom metadata than was staged if any is given.

        The future raises ChecksumMismatchError, ConflictError, BucketNotFoundError.
        """
        with self._lock:
            self._check_open()
            if custom is not None:
                self._write.with_custom(custom)
            file, self._file = self._file, None
            self._open = False
            operation = self._write.with_file(file) if file else self._write.with_data(bytes(self._head), hashed=True)
            try:
                return self._disk.committer.submit(operation)
            except BaseException:
                operation.undo()
                raise

    def abort(self) -> None:
        """Drop what was written."""
        with self._lock:
            self._drop()

    def __del__(self) -> None:
        self._drop()

    def _append(self, chunk: bytes | memoryview) -> None:
        self._hasher.update(chunk)
        if self._file is None:
            if len(self._head) + len(chunk) <= self._in_memory_max:
                self._head += chunk
                return
            self._disk.store.check_room(len(chunk))
            self._file = self._disk.store.new_file()
            if self._head:
                self._file.write(self._head)
                self._head = bytearray()
        else:
            self._disk.store.check_room(len(chunk))
        self._file.write(chunk)

    def _check_open(self) -> None:
        if not self._open:
            raise InternalError(f"{self._write.what}: this write has ended already")

    def _drop(self) -> None:
        self._open = False
        file, self._file = self._file, None
        self._head = bytearray()
        if file is not None:
            file.discard()

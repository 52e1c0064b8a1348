"""A write in progress: small objects stay in memory, larger ones go to their file as chunks come."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from ...errors import InternalError
from ...model.objects import ObjectInfo
from ..checksums import Hasher
from .generations import NewFile
from .opened import OpenMountpath
from .operations import Write


class LocalStaging:
    """A Staging of the local engine. Its methods may be called from different threads."""

    def __init__(self, disk: OpenMountpath, write: Write, hasher: Hasher, inline_bytes_max: int) -> None:
        self._file: NewFile | None = None
        self._head = b""
        self._disk = disk
        self._write = write
        self._hasher = hasher
        self._inline_bytes_max = inline_bytes_max
        self._open = True
        # A cancelled request aborts while its last chunk may still be on the way to the disk in another thread.
        self._lock = threading.Lock()

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``; raises OutOfSpaceError, and then nothing is left of the write.

        Raises MountpathUnavailableError when its disk was let go.
        """
        with self._lock:
            self._check_open()
            try:
                self._disk.health.check()  # a long upload ends with its disk, not at its own end
                self._append(chunk)
            except Exception as error:
                self._drop()
                raise self._disk.health.fault(error, self._write.what) from error

    def commit(self) -> Future[ObjectInfo]:
        """Publish; the future raises ChecksumMismatchError, ConflictError, BucketNotFoundError."""
        with self._lock:
            self._check_open()
            file, self._file = self._file, None
            self._open = False
            operation = self._write.with_file(file) if file else self._write.with_data(self._head, hashed=True)
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

    def _append(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        if self._file is None:
            if len(self._head) + len(chunk) <= self._inline_bytes_max:
                self._head += chunk
                return
            self._disk.store.check_room(len(chunk))
            self._file = self._disk.store.new_file()
            if self._head:
                self._file.write(self._head)
                self._head = b""
        else:
            self._disk.store.check_room(len(chunk))
        self._file.write(chunk)

    def _check_open(self) -> None:
        if not self._open:
            raise InternalError(f"{self._write.what}: this write has ended already")

    def _drop(self) -> None:
        self._open = False
        file, self._file = self._file, None
        self._head = b""
        if file is not None:
            file.discard()

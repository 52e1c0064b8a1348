"""A write in progress to an object store: the bytes wait here until they are all there, then go in one request."""

from __future__ import annotations

import errno
import mmap
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO, Any

from ...errors import InternalError, OutOfSpaceError
from ...model.objects import ObjectInfo
from ..checksums import Hasher

_MEMORY_BYTES = 1 << 20


class StoredStaging:
    """Up to 1 MiB waits in memory, more in a file without a name, which is mapped for the request."""

    def __init__(self, hasher: Hasher, commit: Callable[[Any, Hasher], Future[ObjectInfo]], directory: str) -> None:
        self._hasher = hasher
        self._commit = commit
        self._directory = directory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._open = True

    def write(self, chunk: bytes | memoryview) -> None:
        """Append ``chunk``; raises OutOfSpaceError."""
        self._check_open()
        self._hasher.update(chunk)
        try:
            if self._file is None and len(self._memory) + len(chunk) <= _MEMORY_BYTES:
                self._memory += chunk
                return
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - commit or abort closes it
                self._file.write(self._memory)
                self._memory.clear()
            self._file.write(chunk)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutOfSpaceError(f"no room in {self._directory} for an object that is being written") from error

    def commit(self) -> Future[ObjectInfo]:
        """Send it."""
        self._check_open()
        self._open = False
        if self._file is None:
            return self._commit(bytes(self._memory), self._hasher)
        self._file.flush()
        # The mapping goes with its last use; closing it could meet the library, which reads it without a copy.
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file.close()
        return self._commit(mapped, self._hasher)

    def abort(self) -> None:
        """Drop what was written."""
        self._open = False
        self._memory.clear()
        if self._file is not None:
            self._file.close()

    def _check_open(self) -> None:
        if not self._open:
            raise InternalError("this write has ended already")

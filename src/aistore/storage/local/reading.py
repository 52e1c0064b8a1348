"""An object's file, opened for reading."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

from ...errors import InternalError
from ...fallbacks import lacks
from ...model.objects import ObjectInfo

#: Linux has had RWF_NOWAIT since 4.14; without it nothing is surely cached.
_NOWAIT = None if lacks("nowait-read") else os.RWF_NOWAIT
_SCRATCH_BYTES = 1 << 20  # larger reads than this belong in a thread whether cached or not: copying takes 0.1 ms


class _Descriptor:
    """A descriptor that is closed when the last one who uses it lets go.

    One thread may close a Reading while another one reads from it. Were the descriptor closed at once, its number could
    be given to another object's file in between, and that object's bytes be read.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class _Scratch(threading.local):
    """Memory to read into, for each thread: bytes cannot be read into, and clearing new memory costs a third more."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_SCRATCH_BYTES))


_scratch = _Scratch()


class FileReading:
    """A Reading of the first ``info.size`` bytes of an immutable file.

    ``fault`` makes the error to raise of the operating system's and the object's address; ``seen`` is called with the
    whole object when ``read_cached`` returns it.
    """

    __slots__ = ("_descriptor", "_fault", "_seen", "info", "path")

    def __init__(
        self, info: ObjectInfo, path: str, descriptor: int, fault: Callable[[OSError, str], Exception],
        seen: Callable[[bytes], None] | None = None,
    ) -> None:  # fmt: skip
        self._fault = fault
        self._seen = seen
        self._descriptor: _Descriptor | None = _Descriptor(descriptor)
        self.info = info
        self.path: str | None = path

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; raises InternalError if the object or the disk holds fewer."""
        descriptor = self._checked(start, length)
        try:
            data = os.pread(descriptor.number, length, start)
            if len(data) == length:
                return data
            pieces = [data]
            while data and length > len(data):
                length -= len(data)
                start += len(data)
                data = os.pread(descriptor.number, length, start)
                pieces.append(data)
        except OSError as error:
            raise self._fault(error, self._what()) from error
        if length > len(data):
            raise InternalError(
                f"{self._what()}: its file {self.path} ends at byte {start}, {self.info.size} were stored",
                hint="the disk lost bytes: restore the object from its source",
            )
        return b"".join(pieces)

    def read_cached(self, start: int, length: int) -> bytes | None:
        """Return the bytes if the page cache has all of them, else None."""
        descriptor = self._checked(start, length)
        if _NOWAIT is None or length > _SCRATCH_BYTES:
            return None
        view = _scratch.view[:length]
        try:
            # Fewer bytes than asked for means that the rest is not in memory.
            if os.preadv(descriptor.number, (view,), start, _NOWAIT) != length:
                return None
        except OSError:  # EAGAIN: not cached; EOPNOTSUPP: this file system cannot tell
            return None
        data = bytes(view)
        if self._seen is not None and length == self.info.size:
            self._seen(data)
        return data

    def close(self) -> None:
        """Give the descriptor back, as soon as no read uses it."""
        self._descriptor = None

    def __enter__(self) -> FileReading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._descriptor = None

    def _checked(self, start: int, length: int) -> _Descriptor:
        descriptor = self._descriptor
        if descriptor is None:
            raise InternalError(f"{self._what()}: read after close")
        if start < 0 or length < 0 or start + length > self.info.size:
            raise InternalError(f"{self._what()}: bytes {start} to {start + length} of {self.info.size}")
        return descriptor

    def _what(self) -> str:
        return f"ais://{self.info.bucket}/{self.info.name}"

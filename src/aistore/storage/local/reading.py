"""An object's file, opened for reading."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

import xxhash

from ...errors import InternalError, ObjectDamagedError
from ...fallbacks import lacks
from ...model.objects import ObjectInfo
from ..verified import wrong_checksum
from .damage import DamageLog

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

    ``damage`` is where damage is noted; ``fault`` makes the error to raise of the operating system's and the object's
    address. ``seen`` is called with the whole object when it was read and verified.
    """

    __slots__ = ("_damage", "_descriptor", "_fault", "_seen", "info", "path")

    def __init__(
        self, info: ObjectInfo, path: str, descriptor: int, damage: DamageLog,
        fault: Callable[[OSError, str], Exception], seen: Callable[[bytes], None] | None = None,
    ) -> None:  # fmt: skip
        self._damage = damage
        self._fault = fault
        self._seen = seen
        self._descriptor: _Descriptor | None = _Descriptor(descriptor)
        self.info = info
        self.path: str | None = path

    def read(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``, verified if that is all of them; raises ObjectDamagedError."""
        descriptor = self._checked(start, length)
        try:
            data = _read(descriptor.number, start, length)
        except OSError as error:
            fault = self._fault(error, self._what())
            if type(fault) is InternalError:  # of this file alone
                fault = self.damaged(f"cannot be read: {error.strerror}")
            raise fault from error
        if len(data) < length:
            raise self.damaged(f"ends at byte {start + len(data)}, {self.info.size} were stored")
        if length == self.info.size:
            found = xxhash.xxh64_hexdigest(data)
            if found != self.info.checksum.value:
                raise self.damaged(wrong_checksum(found, self.info.checksum.value))
            if self._seen is not None:
                self._seen(data)
        return data

    def read_cached(self, start: int, length: int) -> bytes | None:
        """Return the bytes if the page cache has all of them, verified as by ``read``, else None."""
        view = self._view_cached(start, length)
        if view is None:
            return None
        data = bytes(view)
        if length == self.info.size and self._seen is not None:
            self._seen(data)
        return data

    def peek(self) -> memoryview | None:
        """Return all bytes if the page cache has them, verified; good until this thread reads again."""
        return self._view_cached(0, self.info.size)

    def _view_cached(self, start: int, length: int) -> memoryview | None:
        """Return the bytes in the memory of this thread, those of the whole object verified."""
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
        if length == self.info.size and xxhash.xxh64_hexdigest(view) != self.info.checksum.value:
            return None  # `read` will say so
        return view

    def damaged(self, problem: str) -> ObjectDamagedError:
        """Note that the file is damaged and return the error to raise."""
        return self._damage.note(self.info, self.path or "", problem)

    def suspected(self) -> bool:
        """Say whether damage of this file was noted before."""
        return self._damage.suspects(self.info)

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


def _read(descriptor: int, start: int, length: int) -> bytes:
    """Return ``length`` bytes from ``start``, fewer only at the end of the file."""
    data = os.pread(descriptor, length, start)
    if len(data) == length:
        return data
    pieces = [data]
    while data and length > len(data):
        length -= len(data)
        start += len(data)
        data = os.pread(descriptor, length, start)
        pieces.append(data)
    return b"".join(pieces)

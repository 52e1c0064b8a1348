"""An object on its way into a transform: bytes in memory, or a file that nobody can write to."""

from __future__ import annotations

import os

from . import exchange


class Passing:
    """What a transform gets of an object. Workers of code take it as a descriptor, servers as bytes where it has some.

    Close it when the transform is done with it.
    """

    __slots__ = ("_descriptor", "_directory", "data", "size")

    def __init__(self, data: bytes | None, directory: str, descriptor: int = -1) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self.data = data
        self.size = len(data) if data is not None else os.fstat(descriptor).st_size

    @classmethod
    def of_file(cls, descriptor: int, directory: str) -> Passing:
        """Return what a file has; the descriptor is its own from now on."""
        return cls(None, directory, descriptor)

    @property
    def descriptor(self) -> int:
        """A file with the bytes, positioned at its start when it is first asked for; made then if there is none."""
        if self._descriptor < 0:
            assert self.data is not None
            self._descriptor = exchange.input_from_bytes(self.data, self._directory)
        return self._descriptor

    def read(self, start: int, length: int) -> bytes:
        """Return a part of the bytes."""
        if self.data is not None:
            return self.data if not start and length >= self.size else self.data[start : start + length]
        return os.pread(self._descriptor, length, start)

    def close(self) -> None:
        """Give the file back. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

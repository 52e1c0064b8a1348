"""What a transform writes to its standard output and error outside of an object's own streams, kept in two files.

The transform holds a pipe and not the file, so that it can neither fill the disk nor rewrite what it said.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select

LOG_BYTES_MAX = 4 << 20  # of each of the two files
_AT_ONCE_BYTES_MAX, _PAUSE_SECONDS = 1 << 20, 0.1  # who prints without end waits, and not the others here


class TransformLog:
    """Reads the pipe in the controller's loop; ``writer`` is the end that the transform's processes get."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        self._at_once = 0
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def _listen(self) -> None:
        self._pause, self._at_once = None, 0
        asyncio.get_running_loop().add_reader(self._reader, self._readable)

    def _readable(self) -> None:
        self._at_once += self._drain()
        if self._at_once >= _AT_ONCE_BYTES_MAX:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._reader)
            self._pause = loop.call_later(_PAUSE_SECONDS, self._listen)

    def write(self, text: str) -> None:
        """Add a line of the store's own.

        Not through the pipe: the transform can fill that, and whoever wrote to it here would wait for itself.
        """
        self._drain()
        self._append(text.encode()[: select.PIPE_BUF])

    def _drain(self) -> int:
        try:
            data = os.read(self._reader, 1 << 16)
        except BlockingIOError:
            return 0
        self._append(data)
        return len(data)

    def _append(self, data: bytes) -> None:
        try:
            if self._size + len(data) > LOG_BYTES_MAX:
                self._begin_again()
            self._size += os.write(self._file, data)
        except OSError:
            pass  # a full disk costs these lines, and nothing else

    def _begin_again(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # moved before, when there was no room for the next one
            os.replace(self._path, self._path + ".1")
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.close(self._file)
        self._file, self._size = file, 0

    def tail(self, limit: int) -> str:
        """Return the last ``limit`` bytes as text, with what is in the pipe."""
        self._drain()
        pieces = []
        for path in (self._path + ".1", self._path):
            try:
                with open(path, "rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
                    pieces.append(file.read(limit))
            except FileNotFoundError:
                continue
        return b"".join(pieces)[-limit:].decode(errors="replace").strip()

    def close(self) -> None:
        """Close the pipe and the file."""
        asyncio.get_running_loop().remove_reader(self._reader)
        if self._pause is not None:
            self._pause.cancel()
        for descriptor in (self._reader, self.writer, self._file):
            os.close(descriptor)

    def remove(self) -> None:
        """Remove the files."""
        for path in (self._path + ".1", self._path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

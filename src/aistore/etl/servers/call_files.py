"""Files of calls that are under way: the object for a transform that comes for it, the result that one puts.

The HTTP worker that a transform's own call reaches (gateway.py) may be another than the one whose call it is about, so
what is under way is told by files, in a directory of the ETL that only the store can read. ``<key>-<id>`` is there as
long as call ``id`` of the object with that ``key`` is, and holds the object's bytes as they were when the call began;
``<key>-<id>.put`` is what the transform put for it. Files for transforms that read objects as files are in another
directory, ``<id>/<base name of the object>``, which the transform can read and not write.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from types import TracebackType

from ...errors import ConflictError, NotFoundError, TransformError
from ...model.etl import OUTPUT_BYTES_MAX
from .. import exchange
from ..passing import Passing
from ..running import Ask, Result, Running
from .replies import MEMORY_BYTES_MAX, too_large
from .requests import uname

_PUT, _PART = ".put", ".part"
_ID_BYTES = 16
_FILE_NAME_BYTES_MAX = 255
#: Objects up to this size are copied at once, larger ones in a thread.
_INLINE_BYTES_MAX = 256 << 10


class CallFiles:
    """The files of one call, as a context: made as they are needed, removed at its end."""

    def __init__(self, running: Running, ask: Ask, source: Passing, threads: Executor) -> None:
        self._running = running
        self._ask = ask
        self._source = source
        self._threads = threads
        self._undo: list[Callable[[], None]] = []
        self._copying: asyncio.Future[None] | None = None

    async def __aenter__(self) -> CallFiles:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._copying is not None and not self._copying.done():
            await asyncio.wait((self._copying,))  # its thread still makes what has to be removed
        for undo in reversed(self._undo):
            with contextlib.suppress(FileNotFoundError):
                undo()

    @functools.cached_property
    def id(self) -> str:
        """What the call is known by."""
        return secrets.token_hex(_ID_BYTES)

    @functools.cached_property
    def _offered(self) -> str:
        return os.path.join(self._running.calls, f"{key_of(uname(self._ask))}-{self.id}")

    @property
    def can_be_file(self) -> bool:
        """Whether the transform can have the object as a file with the object's own base name."""
        name = self._name
        return bool(self._running.files) and 0 < len(name.encode()) <= _FILE_NAME_BYTES_MAX and "\0" not in name

    @property
    def _name(self) -> str:
        return self._ask.object.rpartition("/")[2]

    async def file(self) -> str:
        """Make a file of the object's own base name that the transform can read, and return its path."""
        directory = os.path.join(self._running.files, self.id)
        path = os.path.join(directory, self._name)
        os.mkdir(directory)
        self._undo.append(lambda: os.rmdir(directory))
        os.chmod(directory, 0o755)  # noqa: S103  # the transform reads it, whatever the umask is
        await self._copy(path, 0o444)
        return path

    async def offer(self) -> None:
        """Let the transform come for the object, and put its result."""
        part = self._offered + _PART
        self._undo.append(lambda: os.unlink(self._offered + _PUT))
        await self._copy(part, 0o400)
        os.rename(part, self._offered)
        self._undo.append(lambda: os.unlink(self._offered))

    def put(self, told: int | None) -> Result:
        """Return what the transform has put, nothing if it has not; ``told`` is how many bytes it says these are.

        Raises TransformError where that is not so.
        """
        path = self._offered + _PUT
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if told:
                raise TransformError(
                    f"the transform says that it has put its result of {told} bytes, and nothing came"
                ) from None
            return Result(0, b"")
        os.unlink(path)
        result = Result(os.fstat(descriptor).st_size, None, descriptor)
        if told is not None and told != result.size:
            result.close()
            raise TransformError(f"the transform says that its result has {told} bytes, and put {result.size}")
        if result.size > MEMORY_BYTES_MAX:
            return result
        try:
            return Result(result.size, result.read_all())
        finally:
            result.close()

    async def _copy(self, path: str, mode: int) -> None:
        self._undo.append(lambda: os.unlink(path))
        if self._source.size <= _INLINE_BYTES_MAX:
            exchange.write_file(self._source.read, path, mode)
            return
        loop = asyncio.get_running_loop()
        self._copying = loop.run_in_executor(self._threads, exchange.write_file, self._source.read, path, mode)
        await asyncio.shield(self._copying)


class Offers:
    """What the calls that are under way through one ETL offer it, from the side of its own calls."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def open(self, name: str) -> int:
        """Return a descriptor of the object with that unique name; raises NotFoundError if no call is about it."""
        for call in self._calls(name):
            with contextlib.suppress(FileNotFoundError):  # that call has just ended
                return os.open(os.path.join(self._directory, call), os.O_RDONLY | os.O_CLOEXEC)
        raise _not_under_way(name)

    def begin_put(self, name: str, call_id: str) -> PutFile:
        """Begin to take the result of a call: ``call_id``, or the only one there is about the object.

        Raises NotFoundError, and ConflictError where nobody can tell which call is meant.
        """
        calls = self._calls(name)
        if call_id:
            calls = [call for call in calls if call.endswith(f"-{call_id}")]
        if not calls:
            raise _not_under_way(name)
        if len(calls) > 1:
            raise ConflictError(
                f"{name} goes through this transform {len(calls)} times at once",
                hint="put the result to the address in Ais-Node-Url, which says which call it is for",
            )
        return PutFile(os.path.join(self._directory, calls[0]))

    def _calls(self, name: str) -> list[str]:
        begins = f"{key_of(name)}-"
        return [file for file in os.listdir(self._directory) if file.startswith(begins) and "." not in file]


class PutFile:
    """A result that a transform is putting. Ends with ``commit`` or ``abort``. What it does may wait for a disk."""

    def __init__(self, call: str) -> None:
        self._call = call
        self._part = f"{call}.{secrets.token_hex(_ID_BYTES)}{_PART}"
        self._file = open(self._part, "xb", buffering=0)  # noqa: SIM115  # commit and abort close it
        self._writing = threading.Lock()  # a thread may still write when its request has ended
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Take a piece; raises TransformError when the result gets too large."""
        self.size += len(piece)
        if self.size > OUTPUT_BYTES_MAX:
            raise too_large(OUTPUT_BYTES_MAX)
        with self._writing:
            if not self._file.closed:
                exchange.write_all(self._file.fileno(), piece)

    def commit(self) -> None:
        """Hand the result to the call; raises NotFoundError if that has ended."""
        self._file.close()
        os.rename(self._part, self._call + _PUT)
        if not os.path.exists(self._call):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._call + _PUT)
            raise NotFoundError("the call that this result is for has ended")

    def abort(self) -> None:
        """Leave nothing of it. May be called after ``commit``."""
        with self._writing:
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part)


def key_of(name: str) -> str:
    """Return what files of the object with that unique name begin with."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _not_under_way(name: str) -> NotFoundError:
    return NotFoundError(
        f"{name} does not exist for this transform",
        hint="a transform can read what it was asked for",
    )

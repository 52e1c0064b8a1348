"""The files that an object travels in between the store and a transform: memory, or unlinked disk files.

A transform never holds a descriptor of the store's own files. What it gets is a copy: sealed memory, or for large
objects an unlinked file opened read-only; so nothing that it does to a descriptor (chmod, truncate, setxattr, reopen
through ``/proc/self/fd``) reaches stored bytes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from ..errors import InternalError, TransformError
from ..fallbacks import lacks

if TYPE_CHECKING:
    from ..storage.engine import Reading

_COPY_BYTES = 1 << 20
# Linux 3.17; Python names them only from 3.13 on (include/uapi/linux/fcntl.h).
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8
_SEALED = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE


def exchange_file(name: str, directory: str) -> int:
    """Return the descriptor of an empty file: sealable memory, or where there is none unlinked in ``directory``."""
    if lacks("memfd"):
        writing, reading = unlinked_file(directory)
        os.close(reading)
        return writing
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def input_from_bytes(data: bytes | memoryview, directory: str) -> int:
    """Return a file that holds ``data`` and cannot be written to, positioned at its start.

    It is sealed memory, or where there is none an unlinked file in ``directory``.
    """
    if lacks("memfd"):
        descriptor, reading = unlinked_file(directory)
        try:
            write_all(descriptor, data)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(descriptor)
        return reading
    descriptor = exchange_file("input", directory)
    try:
        write_all(descriptor, data)
        fcntl.fcntl(descriptor, F_ADD_SEALS, _SEALED | F_SEAL_SEAL)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def input_from_reading(reading: Reading, memory_bytes_max: int, directory: str) -> int:
    """Copy a whole object for a transform, checking its checksum on the way; blocks, so it belongs in a thread.

    Up to ``memory_bytes_max`` bytes it is a sealed memory file, above that an unlinked file in ``directory``.
    Raises ObjectDamagedError when the bytes are not those that were stored.
    """
    from ..storage.verified import VerifiedRead  # here: nothing else here needs more than the standard library

    info = reading.info
    in_memory = info.size <= memory_bytes_max and not lacks("memfd")
    read_only = -1
    if in_memory:
        descriptor = exchange_file("input", directory)
    else:
        descriptor, read_only = unlinked_file(directory)
    try:
        read = VerifiedRead(reading)
        for start in range(0, info.size, _COPY_BYTES):
            write_all(descriptor, read(start, min(_COPY_BYTES, info.size - start)))
        if in_memory:
            fcntl.fcntl(descriptor, F_ADD_SEALS, _SEALED | F_SEAL_SEAL)
            os.lseek(descriptor, 0, os.SEEK_SET)
            return descriptor
    except BaseException:
        for opened in (descriptor, read_only):
            if opened >= 0:
                os.close(opened)
        raise
    os.close(descriptor)
    return read_only


def unlinked_file(directory: str) -> tuple[int, int]:
    """Return two descriptors of one new file without a name: for reading and writing, and for reading alone."""
    if not (lacks("tmpfile") or lacks("proc")):
        try:
            writing = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o400)
        except OSError:  # a file system without it
            pass
        else:
            try:
                return writing, os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC)
            except BaseException:
                os.close(writing)
                raise
    writing, path = tempfile.mkstemp(prefix=".exchange-", dir=directory)
    try:
        reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.fchmod(writing, 0o400)
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.unlink(path)
    return writing, reading


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data``."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_file(read: Callable[[int, int], bytes], path: str, mode: int) -> None:
    """Write a new file at ``path``, with that ``mode``, that has all that can be read. Blocks if that is much."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)  # whatever the umask is
        start = 0
        while piece := read(start, _COPY_BYTES):
            write_all(descriptor, piece)
            start += len(piece)
    finally:
        os.close(descriptor)


def copy_result(descriptor: int, directory: str) -> int:
    """Copy a result that cannot be sealed to a file of our own, close it, return the copy's descriptor. Blocks.

    What the transform still writes to its own file changes nothing of the copy, and nobody can write to the copy.
    """
    copy, reading = unlinked_file(directory)
    try:
        size = 0
        end = os.fstat(descriptor).st_size
        while size < end:
            piece = os.pread(descriptor, min(_COPY_BYTES, end - size), size)
            if not piece:
                break
            write_all(copy, piece)
            size += len(piece)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(copy)
        os.close(descriptor)
    return reading


def seal_result(descriptor: int) -> int:
    """Freeze a result and return its size in bytes; raises TransformError when the transform can still change it."""
    try:
        fcntl.fcntl(descriptor, F_ADD_SEALS, _SEALED)
    except PermissionError:  # the transform sealed it itself, against sealing
        if fcntl.fcntl(descriptor, F_GET_SEALS) & _SEALED != _SEALED:
            raise TransformError("the transform sealed its output in a way that leaves it writable") from None
    except OSError as error:  # EBUSY
        raise TransformError("the transform left a writable memory mapping of its output open") from error
    return os.fstat(descriptor).st_size


def read_exactly(descriptor: int, start: int, length: int) -> bytes:
    """Return ``length`` bytes from ``start`` of a sealed file."""
    data = os.pread(descriptor, length, start)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), start + len(data))
        if not more:
            raise InternalError(f"a result ends at {start + len(data)} bytes instead of {start + length}")
        data += more
    return data


def checksum_of(descriptor: int) -> str:
    """Return the checksum that the content of a file would be stored with, and close it. Blocks."""
    import xxhash  # here: nothing else here needs more than the standard library

    digest, start = xxhash.xxh64(), 0
    try:
        while piece := os.pread(descriptor, _COPY_BYTES, start):
            digest.update(piece)
            start += len(piece)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def read_unsealed(descriptor: int, size: int) -> bytes:
    """Return ``size`` bytes of a result that can still change; raises TransformError if some of them are gone."""
    try:
        return read_exactly(descriptor, 0, size)
    except InternalError as error:
        raise TransformError("the transform cut its result off after it had answered") from error


def read_unsealed_into(descriptor: int, buffer: memoryview) -> None:
    """Fill ``buffer`` from the start of a result that can still change; raises TransformError if it is shorter."""
    start = 0
    while start < len(buffer):
        count = os.preadv(descriptor, (buffer[start:],), start)
        if not count:
            raise TransformError("the transform cut its result off after it had answered")
        start += count


def read_tail(descriptor: int, limit: int) -> str:
    """Return the last ``limit`` bytes of a file as text: what a transform wrote to standard error."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, limit, max(0, size - limit)).decode(errors="replace")


async def in_thread(threads: Executor, copy: Callable[..., int], *arguments: Any) -> int:
    """Run what makes a descriptor in a thread; if nobody waits for it any more, close that."""
    copying = asyncio.get_running_loop().run_in_executor(threads, copy, *arguments)
    try:
        return await asyncio.shield(copying)
    except asyncio.CancelledError:
        copying.add_done_callback(_close_result)  # the thread goes on, and what it makes has no other owner
        raise


def _close_result(copying: asyncio.Future[int]) -> None:
    """Close the descriptor that nobody waits for any more."""
    if not copying.cancelled() and copying.exception() is None:
        os.close(copying.result())

"""One object compared with its row: the bytes with their checksum, the trailer with the index."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import NamedTuple

import xxhash

from ..verified import wrong_checksum
from . import trailer
from .layout import Mountpath
from .page_cache import Visit

PIECE_BYTES = 1 << 20

#: The columns of the table of objects, in its order.
COLUMNS = "bucket, name, size, version, checksum, created_ns, custom, place, data"


class Row(NamedTuple):
    """A row of the table of objects."""

    bucket: int
    name: bytes
    size: int
    version: int
    checksum: str
    created_ns: int
    custom: bytes | None
    place: str | None
    data: bytes | None


class Problem(NamedTuple):
    """What is wrong with an object: a ``kind``, and a phrase that goes on after "its file …"."""

    kind: str
    text: str


#: Kinds of problems: in all but the last, the bytes of the object are lost.
MISSING, UNREADABLE, SHORT, CHECKSUM, TRAILER = "missing", "unreadable", "short", "checksum", "trailer"


def inspect(mountpath: Mountpath, row: Row, *, read: bool = True) -> Generator[int, None, Problem | None]:
    """Yield the bytes of each piece after it was read, and return what is wrong. ``read`` False looks at no bytes.

    Custom metadata is not compared: a writer killed between trailer and commit leaves the two different, rightly.
    """
    if row.place is None:
        return _inspect_inline(row)
    try:
        descriptor = os.open(f"{mountpath.data}/{row.place}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Problem(MISSING, "is gone")
    except OSError as error:
        return Problem(UNREADABLE, f"cannot be opened: {error.strerror}")
    try:
        return (yield from _inspect_file(descriptor, row, read=read))
    except OSError as error:
        return Problem(UNREADABLE, f"cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)


def _inspect_inline(row: Row) -> Problem | None:
    if not isinstance(row.data, bytes):
        return Problem(CHECKSUM, "has no bytes")
    found = xxhash.xxh64_hexdigest(row.data)
    return None if found == row.checksum else Problem(CHECKSUM, wrong_checksum(found, row.checksum))


def _inspect_file(descriptor: int, row: Row, *, read: bool) -> Generator[int, None, Problem | None]:
    assert row.place is not None
    end = os.fstat(descriptor).st_size
    if end < row.size:
        return Problem(SHORT, f"ends at byte {end}, {row.size} were stored")
    visit = Visit(descriptor)
    try:
        found = row.checksum
        if read:
            found = yield from _digest(descriptor, visit, row.size, end)
        record = trailer.read_last(descriptor, row.place)
        whole = trailer.ends_whole(descriptor)
    finally:
        visit.leave()
    if found != row.checksum:
        blame = "; its trailer has that too, so the index is wrong" if record and record.checksum == found else ""
        return Problem(CHECKSUM, wrong_checksum(found, row.checksum) + blame)
    if record is None:
        return Problem(TRAILER, "has no trailer that can be read; its bytes are not affected")
    said = (record.bucket_id, record.name, record.size, record.version, record.checksum, record.created_ns)
    if said != row[:6]:
        name = record.name.decode(errors="replace")
        return Problem(TRAILER, f"says that it is version {record.version} of ais://{record.bucket}/{name}")
    if not whole:
        return Problem(TRAILER, "ends with a trailer that cannot be read; its bytes are not affected")
    return None


def _digest(descriptor: int, visit: Visit, size: int, end: int) -> Generator[int, None, str]:
    """Yield the sizes of pieces and return the checksum of the first ``size`` bytes of a file of ``end`` bytes."""
    digest = xxhash.xxh64()
    for start in range(0, size, PIECE_BYTES):
        last = start + PIECE_BYTES >= size
        visit.leave()
        visit.announce(start, (end if last else start + PIECE_BYTES) - start)
        stop = min(start + PIECE_BYTES, size)
        while start < stop and (data := os.pread(descriptor, stop - start, start)):
            digest.update(data)
            start += len(data)
            yield len(data)
    return digest.hexdigest()

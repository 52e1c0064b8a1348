r"""What follows the object's bytes in a data file, so that an index can be made again from files alone.

A file is the object's bytes, then one or more trailers; the last valid one counts::

    8 bytes   marker  b"\x89AIS\r\n\x1a\n"
    u16       format version
    u32       length of the record
    ...       record, msgpack (see Record)
    u64       XXH64 of everything above
    u32       length of the whole trailer, so that it can be found from the end

Numbers are little-endian. The record names the file it was written to: an object whose bytes look like a trailer
cannot pass for one, because nobody outside the store knows the names of files.
"""

from __future__ import annotations

import errno
import os
import struct

import msgspec
import xxhash

from .syncing import sync_data

MARKER = b"\x89AIS\r\n\x1a\n"
FORMAT = 1

_HEAD = struct.Struct("<8sHI")
_TAIL = struct.Struct("<QI")
_OVERHEAD = _HEAD.size + _TAIL.size

#: How far from the end a valid trailer is looked for when the last one is torn. Derived: two trailers with names
#: and custom metadata of the largest size (33 KiB and a few hundred bytes each).
_SEARCH_BYTES = 80 << 10


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that the index knows of an object kept in a file, and the place of that file. May only grow."""

    place: str
    bucket_id: int
    bucket: str
    name: bytes
    version: int
    size: int
    checksum: str
    created_ns: int
    custom: dict[str, str] = {}


#: From this many bytes of trailers on, a file's are folded into one before the next is added. Derived: far enough from
#: the object that its one trailer and the last one do not touch, and with one more within ``_SEARCH_BYTES``.
FOLD_BYTES = 48 << 10

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return the trailer of ``record``, ready to be appended."""
    payload = _encoder.encode(record)
    head = _HEAD.pack(MARKER, FORMAT, len(payload)) + payload
    return head + _TAIL.pack(xxhash.xxh64_intdigest(head), len(head) + _TAIL.size)


def fold(descriptor: int, record: Record) -> int:
    """Replace all trailers of a file by one of ``record``, what the last one says; return the file's new length.

    Until the file is cut there is a whole trailer at its end, from then on one behind the object, both on the disk.
    """
    data = encode(record)
    sync_data(descriptor)
    if os.pwrite(descriptor, data, record.size) != len(data):
        raise OSError(errno.ENOSPC, "the disk is full")
    sync_data(descriptor)
    os.ftruncate(descriptor, record.size + len(data))
    return record.size + len(data)


def read_last(descriptor: int, place: str) -> Record | None:
    """Return the last valid trailer of the file ``place``, or None when it has none (its write never ended)."""
    end = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, min(end, 4096), max(0, end - 4096))
    record = _last_in(tail, end, place)
    if record is None and end:
        tail = os.pread(descriptor, min(end, _SEARCH_BYTES), max(0, end - _SEARCH_BYTES))
        record = _last_in(tail, end, place)
    return record


def ends_whole(descriptor: int) -> bool:
    """Say whether the file ends with a valid trailer, rather than with one that is torn or damaged."""
    end = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, min(end, _SEARCH_BYTES), max(0, end - _SEARCH_BYTES))
    if len(tail) < _OVERHEAD:
        return False
    start = len(tail) - _TAIL.unpack_from(tail, len(tail) - _TAIL.size)[1]
    return start >= 0 and _parse(tail, start) is not None


def _last_in(tail: bytes, end: int, place: str) -> Record | None:
    start = tail.rfind(MARKER)
    while start >= 0:
        record = _parse(tail, start)
        # The object's bytes lie before its first trailer, so a record cannot claim more than that.
        if record is not None and record.place == place and record.size <= end - len(tail) + start:
            return record
        start = tail.rfind(MARKER, 0, start)
    return None


def _parse(data: bytes, start: int) -> Record | None:
    if len(data) - start < _OVERHEAD:
        return None
    _, version, length = _HEAD.unpack_from(data, start)
    stop = start + _HEAD.size + length
    if stop + _TAIL.size > len(data):
        return None
    digest, whole = _TAIL.unpack_from(data, stop)
    if version != FORMAT or whole != length + _OVERHEAD or digest != xxhash.xxh64_intdigest(data[start:stop]):
        return None
    try:
        return _decoder.decode(data[start + _HEAD.size : stop])
    except msgspec.DecodeError:
        return None

"""The batch reply: many objects, transformed or not, in one streamed body.

Request: ``POST /v1/batch/<bucket>`` with ``{"entries": [["train/1.jpg", "my-first-etl"], ["train/1.cls", ""]],
"etl_args": "", "seed": "42"}``; the second item of an entry is the ETL to read it through, empty for none. Several with
commas between (``"resize,gray"``) are a pipeline: each gets what the one before it made. Without ``seed`` every call
differs.

Reply: one frame per entry, in the order of the request, then an end frame. A frame is a header of 24 bytes, little
endian, then ``length`` bytes::

    u16 status    200, or the HTTP status of this entry's error; 0 marks the end frame
    u16 reserved  0
    u32 index     position of the entry in the request; in the end frame the number of entries
    u64 length    bytes that follow: the object, or the JSON error body
    u64 checksum  XXH64 (seed 0) of those bytes

Why not a tar as the field's GetBatch has: parsing tar in Python costs twice the client's CPU, and it cannot say which
entry failed and why.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import xxhash

from ..errors import InternalError

CONTENT_TYPE = "application/vnd.pyaistore.batch"
ENTRIES_MAX = 8192

_HEADER = struct.Struct("<HHIQQ")
HEADER_BYTES = _HEADER.size
assert HEADER_BYTES == 24


class BatchRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a batch request."""

    entries: list[tuple[str, str]]
    etl_args: str = ""
    seed: str | None = None


class Frame(NamedTuple):
    """One entry of a batch reply: ``data`` is the object if ``status`` is 200, else a JSON error body."""

    status: int
    position: int
    data: bytes


def encode_header(status: int, index: int, data: bytes) -> bytes:
    """Return the header that goes before ``data``."""
    return _HEADER.pack(status, 0, index, len(data), xxhash.xxh64_intdigest(data))


def encode_end(count: int) -> bytes:
    """Return the end frame of a reply of ``count`` entries."""
    return _HEADER.pack(0, 0, count, 0, 0)


def read_frames(read: Callable[[int], bytes]) -> Iterator[Frame]:
    """Yield the frames of a reply; ``read(n)`` returns exactly ``n`` bytes, or fewer at the end of the body.

    Raises InternalError when the body ends before its end frame or a checksum does not match.
    """
    count = 0
    while True:
        header = read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            raise InternalError(f"the batch reply was cut short after {count} entries")
        status, _, index, length, checksum = _HEADER.unpack(header)
        if status == 0:
            if index != count:
                raise InternalError(f"the batch reply ended after {count} of {index} entries")
            return
        data = read(length)
        if len(data) < length:
            raise InternalError(f"the batch reply was cut short in entry {index}")
        if xxhash.xxh64_intdigest(data) != checksum:
            raise InternalError(f"entry {index} of the batch reply has the wrong checksum")
        yield Frame(status, index, data)
        count += 1

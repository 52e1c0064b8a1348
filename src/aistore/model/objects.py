"""Objects: what is known about one, how one is written, which part of one is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from ..errors import BadRequestError, RangeNotSatisfiableError

# What a listing makes 10,000 of for each page are structs: three times as quick to make as a dataclass.


class Checksum(msgspec.Struct, frozen=True, gc=False):
    """A checksum as the wire names it: ``type`` (``xxhash2`` is XXH64 with seed 0) and lower-case hex ``value``."""

    type: str
    value: str


def can_be_told(key: str, value: str) -> bool:
    """Say whether a pair of custom metadata survives its way in a header, as ``key=value, key=value``.

    Printable ASCII, no comma, no ``=`` in a key, no space around.
    """
    both = key + value
    spelled = bool(key) and "=" not in key and "," not in both and both == both.strip()
    return spelled and both.isascii() and both.isprintable()


class ObjectInfo(msgspec.Struct, frozen=True, gc=False):
    """What the store knows about one object; ``size`` in bytes, ``created_ns`` in Unix nanoseconds.

    ``etag`` is how an object store behind this one tells the version from others; empty without one.
    """

    bucket: str
    name: str
    size: int
    version: int
    checksum: Checksum
    created_ns: int
    custom: Mapping[str, str] = msgspec.field(default_factory=dict)
    etag: str = ""


#: Says whether an object is the one that is meant. Called while nobody else can change it, perhaps twice: be quick.
Only = Callable[[ObjectInfo], bool]


@dataclass(frozen=True, slots=True)
class PutOptions:
    """How an object is written.

    ``expected`` are checksums that the bytes must have. ``if_version`` is a precondition: None for none, 0 for "must
    not exist", N for "must be at version N". ``size`` is how many bytes will come, where that is known, so that a full
    disk can say so before they do.
    """

    custom: Mapping[str, str] = field(default_factory=dict)
    expected: tuple[Checksum, ...] = ()
    if_version: int | None = None
    size: int | None = None


class ByteRange(NamedTuple):
    """A part of an object: ``length`` bytes from ``start``."""

    start: int
    length: int


_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def parse_range(header: str, size: int) -> ByteRange:
    """Return the part of an object of ``size`` bytes that a ``Range`` header asks for (RFC 9110, section 14).

    An end beyond the object is clamped. Raises RangeNotSatisfiableError for a start beyond the object, for an empty
    object and for several ranges, BadRequestError for text that is no byte range.
    """
    if "," in header:
        raise RangeNotSatisfiableError(f"several ranges in one request ({header[:64]!r}) are not supported")
    match = _RANGE.fullmatch(header.strip().replace(" ", ""))
    if not match or match[1] == match[2] == "":
        raise BadRequestError(
            f"malformed range {header[:64]!r}", hint="expected bytes=<first>-<last>, or bytes=-<count>"
        )
    first, last = match[1], match[2]
    if len(first) > 20 or len(last) > 20:
        raise RangeNotSatisfiableError(f"range {header[:64]!r} is outside the object of {size} bytes")
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            raise RangeNotSatisfiableError(f"range {header!r} ends before it starts")
    if start >= size:
        raise RangeNotSatisfiableError(f"range {header!r} is outside the object of {size} bytes")
    return ByteRange(start, end - start)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Which page of a listing: names that start with ``prefix`` and sort after ``start_after``, at most ``limit``."""

    prefix: str = ""
    start_after: str = ""
    limit: int = 10_000


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a listing in byte order of names; ``continuation`` is its last name if more may follow."""

    entries: list[ObjectInfo]
    continuation: str

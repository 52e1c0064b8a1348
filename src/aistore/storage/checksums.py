"""Checksums made while bytes flow in, and compared with those that the client announced."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import xxhash

from ..errors import BadRequestError, ChecksumMismatchError
from ..model.objects import Checksum

#: The type stored with every object: XXH64 with seed 0, under the name that the wire gives it.
STORED_TYPE = "xxhash2"


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


_MAKERS: dict[str, Callable[[], _Hash]] = {
    "xxhash2": xxhash.xxh64,
    "xxhash": xxhash.xxh64,
    "xxh64": xxhash.xxh64,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}

#: The types that a client may announce with a write.
SUPPORTED_TYPES = tuple(_MAKERS)


class Hasher:
    """Hashes one object's bytes for the stored checksum and for each one expected.

    Raises BadRequestError at once when a checksum of a type that cannot be computed is expected: storing bytes that
    the client wanted verified, unverified, would be a silent fallback.
    """

    __slots__ = ("_expected", "_others", "_stored")

    def __init__(self, expected: tuple[Checksum, ...] = ()) -> None:
        self._stored = xxhash.xxh64()
        self._expected = expected
        self._others: dict[str, _Hash] = {}
        for checksum in expected:
            maker = _MAKERS.get(checksum.type)
            if maker is None:
                raise BadRequestError(
                    f"checksum type {checksum.type!r} is not supported",
                    hint="expected one of: " + ", ".join(SUPPORTED_TYPES),
                )
            if maker is not xxhash.xxh64:
                self._others.setdefault(checksum.type, maker())

    def update(self, chunk: bytes | memoryview) -> None:
        """Take in the next bytes."""
        self._stored.update(chunk)
        for other in self._others.values():
            other.update(chunk)

    def finish(self, what: str) -> str:
        """Return the stored checksum's hex value; raises ChecksumMismatchError for ``what``, the object's address."""
        stored = self._stored.hexdigest()
        for checksum in self._expected:
            other = self._others.get(checksum.type)
            actual = other.hexdigest() if other is not None else stored
            if actual != checksum.value.lower():
                raise ChecksumMismatchError(
                    f"{what}: the bytes received have {checksum.type} {actual}, the client announced {checksum.value}",
                    hint="nothing was stored; send the object again",
                )
        return stored

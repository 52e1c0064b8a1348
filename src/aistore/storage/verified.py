"""Reading a whole object in pieces without ever giving out all of it when its bytes are not those that were stored."""

from __future__ import annotations

import xxhash

from .checksums import STORED_TYPE
from .engine import Reading

_PIECE_BYTES = 1 << 20


class VerifiedRead:
    """Called as ``Reading.read`` is, from the start to the end in order; the last piece comes only if all was right.

    Raises ObjectDamagedError instead of giving out the last piece.
    """

    __slots__ = ("_digest", "_position", "_reading")

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._digest = xxhash.xxh64()
        self._position = 0

    def __call__(self, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``, which is where the last call ended."""
        info = self._reading.info
        assert start == self._position
        data = self._reading.read(start, length)
        self._position += length
        if length == info.size:
            return data  # the reading has verified it
        self._digest.update(data)
        if self._position == info.size and info.checksum.type == STORED_TYPE:
            found = self._digest.hexdigest()
            if found != info.checksum.value:
                raise self._reading.damaged(wrong_checksum(found, info.checksum.value))
        return data


def verify(reading: Reading) -> None:
    """Read all of an object and keep nothing; raises ObjectDamagedError. Blocks, so it belongs in a thread."""
    read = VerifiedRead(reading)
    for start in range(0, reading.info.size, _PIECE_BYTES):
        read(start, min(_PIECE_BYTES, reading.info.size - start))


def wrong_checksum(found: str, stored: str) -> str:
    """Return what is said of bytes with the checksum ``found``."""
    return f"has {STORED_TYPE} {found}, {stored} was stored"

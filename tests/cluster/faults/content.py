"""The contents of test objects: they name the write they come from, and show that they are whole."""

from __future__ import annotations

_FILLER = bytes(range(256)) * 16


def make(tag: str, size: int) -> bytes:
    """Return ``size`` bytes, at least as many as it takes to say ``tag`` and the size."""
    head = f"{tag}:{size}:".encode()
    padding = max(0, size - len(head))
    return head + (_FILLER * (padding // len(_FILLER) + 1))[:padding]


def tag_of(data: bytes) -> str:
    """Return the tag of the write that made ``data``; raises ValueError for what no write has made."""
    tag, size, _ = data.split(b":", 2)
    if make(tag.decode(), int(size)) != data:
        raise ValueError(f"{len(data)} bytes are not what was written as {tag!r}: they begin {data[:40]!r}")
    return tag.decode()

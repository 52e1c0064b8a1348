"""The trailer of a data file: found from the end, believed only when whole and in its own file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aistore.storage.local import trailer
from aistore.storage.local.trailer import Record


def record(place: str = "g/1", size: int = 1000, **changes) -> Record:
    fields = {"bucket_id": 1, "bucket": "b", "name": b"dir/\x00\xc3\xbc", "version": 3, "checksum": "0123456789abcdef",
              "created_ns": 1, "custom": {"k": "v"}}  # fmt: skip
    return Record(place=place, size=size, **{**fields, **changes})


def last(path: Path, content: bytes, place: str = "g/1") -> Record | None:
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return trailer.read_last(descriptor, place)
    finally:
        os.close(descriptor)


def test_comes_back(tmp_path: Path) -> None:
    assert last(tmp_path / "f", b"x" * 1000 + trailer.encode(record())) == record()
    assert last(tmp_path / "f", trailer.encode(record(size=0))) == record(size=0)


def test_the_format_is_what_was_published(tmp_path: Path) -> None:
    """Bytes written by format 1 must be read for ever."""
    published = bytes.fromhex(
        "894149530d0a1a0a01007000000089a5706c616365a3672f31a96275636b65745f696401a66275636b6574a162a46e616d65"
        "c4076469722f00c3bca776657273696f6e03a473697a65cd03e8a8636865636b73756db03031323334353637383961626364"
        "6566aa637265617465645f6e7301a6637573746f6d81a16ba176ade084cffab4170a8a000000"
    )
    assert last(tmp_path / "f", b"x" * 1000 + published) == record()
    assert trailer.encode(record()) == published


def test_the_last_one_counts(tmp_path: Path) -> None:
    changed = record(custom={"other": "x" * 30_000})
    content = b"x" * 1000 + trailer.encode(record()) + trailer.encode(changed)
    assert last(tmp_path / "f", content) == changed


@pytest.mark.parametrize("custom", [{}, {"k": "x" * 32_000}])
def test_a_torn_one_gives_way_to_the_one_before(tmp_path: Path, custom: dict[str, str]) -> None:
    whole = trailer.encode(record())
    torn = trailer.encode(record(custom=custom))
    for length in {1, 8, 13, 14, 100, len(torn) // 2, len(torn) - 1}:
        assert last(tmp_path / "f", b"x" * 1000 + whole + torn[:length]) == record()


def test_an_unfinished_file_has_none(tmp_path: Path) -> None:
    whole = trailer.encode(record())
    assert last(tmp_path / "f", b"") is None
    assert last(tmp_path / "f", b"x" * 100_000) is None
    for length in range(len(whole)):
        assert last(tmp_path / "f", b"x" * 1000 + whole[:length]) is None


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    whole = trailer.encode(record())
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        assert last(tmp_path / "f", b"x" * 1000 + bytes(damaged)) is None


def test_an_object_cannot_pass_for_a_trailer(tmp_path: Path) -> None:
    fake = trailer.encode(record(place="guess/1", size=0))
    assert last(tmp_path / "f", fake) is None
    # Right in place, but claiming bytes that the file does not have before it.
    assert last(tmp_path / "f", b"x" * 999 + trailer.encode(record())) is None

"""The verbs of an object store, on every kind that can be had here: memory, a directory, and a real `weed` over S3."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.errors import (
    BadRequestError,
    NotSupportedError,
    RangeNotSatisfiableError,
    StaleConditionError,
    StoredNotFoundError,
    TooLargeError,
)
from aistore.storage.objectstore.contract import ABSENT
from aistore.storage.objectstore.store import ObstoreStore


def content(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def keys(store: ObstoreStore, prefix: str = "", limit: int = 1000) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        page = store.list(prefix, after, limit)
        assert len(page.entries) <= limit
        found += [entry.key for entry in page.entries]
        after = page.continuation
        if not after:
            return found


@pytest.mark.parametrize("size", [0, 1, 20_000, (1 << 20) + 1, 9_000_000])
def test_what_was_put_comes_back(store: ObstoreStore, size: int) -> None:
    data = content(size)
    put = store.put("dir/o", data)
    assert (put.key, put.size) == ("dir/o", size)
    head = store.head("dir/o")
    assert (head.key, head.size, head.etag) == ("dir/o", size, put.etag)
    assert head.modified_ns > 0
    body = store.get("dir/o")
    assert body is not None
    assert (body.start, body.length, body.info.etag) == (0, size, put.etag)
    assert body.read() == data
    streamed = store.get("dir/o")
    assert streamed is not None
    assert b"".join(map(bytes, streamed.chunks())) == data


def test_ranges(store: ObstoreStore) -> None:
    store.put("o", content(1000))
    for start, length, expected in [
        (0, 10, content(1000)[:10]),
        (990, None, content(1000)[990:]),
        (990, 100, content(1000)[990:]),
        (0, 1000, content(1000)),
        (5, 0, b""),
        (1000, 0, b""),
    ]:
        body = store.get("o", start, length)
        assert body is not None
        assert (body.start, body.length) == (start, len(expected))
        assert body.read() == expected
    for start, length in [(1000, None), (1000, 1), (5000, 10)]:
        with pytest.raises(RangeNotSatisfiableError, match="o"):
            store.get("o", start, length)


def test_a_mapped_file_is_put(store: ObstoreStore, tmp_path: Path) -> None:
    file = tmp_path / "staged#1"  # a name that no listing of the directory store shows
    file.write_bytes(content(3_000_000))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert store.put("o", mapped).size == 3_000_000
    body = store.get("o")
    assert body is not None
    assert body.read() == content(3_000_000)


def test_parts(store: ObstoreStore) -> None:
    pieces = [content(size) for size in (1, 5_000_000, 20_000_000, 7)]
    assert store.put_parts("o", iter(pieces)).size == 25_000_008
    body = store.get("o")
    assert body is not None
    assert b"".join(map(bytes, body.chunks())) == b"".join(pieces)

    def broken() -> Iterator[bytes]:
        yield content(20_000_000)
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError, match="went away"):
        store.put_parts("half", broken())
    assert keys(store) == ["o"]


def test_what_is_not_there(store: ObstoreStore) -> None:
    for verb in (store.head, store.get):
        with pytest.raises(StoredNotFoundError, match="nothing/here"):
            verb("nothing/here")
    store.delete("nothing/here")
    store.put("a", b"1")
    store.put("b", b"1")
    store.delete_many(["a", "nothing", "b", "nothing/else"])
    assert keys(store) == []
    store.delete_many([])


def test_conditions(store: ObstoreStore) -> None:
    first = store.put("o", b"1", condition=ABSENT)
    with pytest.raises(StaleConditionError, match="o"):
        store.put("o", b"2", condition=ABSENT)
    if not store.capabilities.conditional_replace:
        with pytest.raises(NotSupportedError, match="condition"):
            store.put("o", b"2", condition=first.etag)
        return
    second = store.put("o", b"22", condition=first.etag)
    with pytest.raises(StaleConditionError, match="o"):
        store.put("o", b"3", condition=first.etag)
    with pytest.raises(StaleConditionError, match="other"):
        store.put("other", b"3", condition=first.etag)
    assert store.head("o").etag == second.etag
    assert keys(store) == ["o"]


def test_conditional_reads(store: ObstoreStore) -> None:
    old = store.put("o", b"1").etag
    assert store.get("o", unless_etag=old) is None
    assert store.get("o", 0, 0, unless_etag=old) is None
    new = store.put("o", b"22").etag
    body = store.get("o", unless_etag=old)
    assert body is not None
    assert (body.read(), body.info.etag) == (b"22", new)
    body = store.get("o", 1, 1, if_etag=new)
    assert body is not None
    assert body.read() == b"2"
    for start, length in [(0, None), (0, 1), (0, 0)]:
        with pytest.raises(StaleConditionError, match="o"):
            store.get("o", start, length, if_etag=old)


def test_metadata(store: ObstoreStore) -> None:
    metadata = {"ais-version": "17", "ais-custom": "a b%20c; ~"}
    if not store.capabilities.metadata:
        with pytest.raises(NotSupportedError, match="metadata"):
            store.put("o", b"1", metadata)
        assert keys(store) == []
        return
    store.put("o", b"1", metadata)
    assert store.head("o").metadata == metadata
    body = store.get("o")
    assert body is not None
    assert body.info.metadata == metadata
    store.put("o", b"1")
    assert store.head("o").metadata == {}
    for bad in ({"Upper": "x"}, {"x": "é"}, {"x": " x"}, {"x": ""}, {"x": "a\nb"}, {"": "x"}):
        with pytest.raises(BadRequestError, match="metadata"):
            store.put("o", b"1", bad)
    with pytest.raises(TooLargeError, match="metadata"):
        store.put("o", b"1", {"x": "y" * store.capabilities.metadata_bytes_max})


#: Keys that every store keeps as they are.
GOOD = (
    "a b", "a.b", "A", "~/x", "...", "a/.hidden", "ÿ", "é", "e\u0301", "\u07ff", "\u0800", "\U00010000", "\U0010fffd",
    "%2F", "a%00", "?q=1", "*", "'", '"', "&amp;", "<x>", ";--", "+", "a+b", "x" * 200, "é" * 120, " ", "#", "x#y",
)  # fmt: skip
BAD = (
    "", "/leading", "double//slash", "trailing/", ".", "..", "../up", "a/../b", "a/.", "\0", "a\0b", "\n", "\x7f",
    "\x80", "\uffff", "\ufffe", "\ud800", "x" * 1025, "é" * 513,
)  # fmt: skip


def test_names_stay_as_they_are(store: ObstoreStore) -> None:
    good = [f"n{number}/{name}" for number, name in enumerate(GOOD)]
    for number, name in enumerate(good):
        store.put(name, b"%d" % number)
    for number, name in enumerate(good):
        body = store.get(name)
        assert body is not None
        assert body.read() == b"%d" % number
        assert keys(store, f"n{number}/") == [name]
    assert sorted(keys(store)) == sorted(good)


@pytest.mark.parametrize("name", BAD)
def test_names_that_would_change_are_refused(store: ObstoreStore, name: str) -> None:
    for verb in (store.head, store.get, store.delete, lambda key: store.put(key, b"x")):
        with pytest.raises(BadRequestError, match="cannot be a key"):
            verb(name)
    with pytest.raises(BadRequestError, match="cannot be a key"):
        store.delete_many(["fine", name])


NAMES = sorted(
    {f"{part}/{number}" for part in ("test", "train", "val") for number in range(10)}
    | {"a-b", "a.b", "a/b/c", "ab", "a/b-c", "a0", "é/1", "é-", "train-1", "train.2/x", "train/5-/y", "0/0", "p/ x"}
)


def test_pages(store: ObstoreStore) -> None:
    for name in NAMES:
        store.put(name, b"x")
    if store.capabilities.nesting:
        for name in ("a", "a/b", "train"):
            store.put(name, b"x")
    everything = keys(store)
    assert sorted(everything) == sorted([*NAMES, *(("a", "a/b", "train") if store.capabilities.nesting else ())])
    if store.capabilities.byte_order:
        assert everything == sorted(everything, key=str.encode)
    for limit in (1, 2, 7, len(everything)):
        assert keys(store, "", limit) == everything
    for prefix in ("t", "tr", "train", "train/", "train/5", "a", "a/", "a-", "a/b", "a/b-", "é", "0", "x", "p/ ", "p/"):
        expected = [name for name in everything if name.startswith(prefix)]
        for limit in (1, 3, 1000):
            assert keys(store, prefix, limit) == expected, (prefix, limit)
    for prefix in ("//", "/", "a//", "../"):
        assert keys(store, prefix) == []
    with pytest.raises(BadRequestError, match="page"):
        store.list("", "", 0)


def test_one_level(store: ObstoreStore) -> None:
    for name in ("x", "train/1", "train/2", "train/deep/1", "val/1", "test-/1"):
        store.put(name, b"x")
    for number in range(30):
        store.put(f"many/{number}/o", b"x")
    groups = store.list_groups()
    assert sorted(groups.groups) == ["many/", "test-/", "train/", "val/"]
    assert [entry.key for entry in groups.entries] == ["x"]
    groups = store.list_groups("train/")
    assert groups.groups == ["train/deep/"]
    assert [entry.key for entry in groups.entries] == ["train/1", "train/2"]
    assert len(store.list_groups("many/").groups) == 30
    with pytest.raises(BadRequestError, match="level"):
        store.list_groups("train")

"""What can still be read of a damaged index: rows by ranges of keys, around the pages that SQLite cannot read."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from . import index
from .inspection import COLUMNS, Row

#: How often a range of keys that cannot be read is halved, in the hope of a page in it that can. Guessed: at most
#: 512 look-ups for each bad page, a tenth of a second or so.
_HALVINGS = 8
#: Buckets that nothing tells of any more are looked for by their numbers; most of those are of removed ones.
_GUESSES_MAX, _HALVINGS_OF_GUESSES = 10_000, 3
#: Tables that are copied each in its own way.
_OWN = {"buckets", "objects", "doomed", "trash", "sqlite_sequence"}
#: Sorts after every name: no UTF-8 begins with it.
_END = b"\xf5"
_PAGE_BYTES = 4096
_COPIED_AT_ONCE = 1000


class Gap(NamedTuple):
    """A range of names of one bucket in which nothing could be read, between two that could."""

    bucket: int
    after: bytes
    before: bytes

    def __str__(self) -> str:
        """Return the range in words."""
        after = f"after {self.after.decode(errors='replace')!r}" if self.after else "from the first one"
        before = f"before {self.before.decode(errors='replace')!r}" if self.before != _END else "to the last one"
        return f"{after} and {before}" if self.after and self.before != _END else f"{after} {before}"


class Salvaged(NamedTuple):
    """What came out of the old index: numbers of rows, whether buckets and the small tables are whole, and the gaps."""

    buckets: int
    objects: int
    inline: int
    buckets_whole: bool
    rest_whole: bool
    gaps: list[Gap]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.buckets_whole and self.rest_whole and not self.gaps


def open_readable(database: str) -> sqlite3.Connection:
    """Return a connection that changes nothing, neither rows nor the log; raises sqlite3.Error only when used."""
    from urllib.parse import quote

    connection = sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True, isolation_level=None)
    connection.text_factory = lambda data: data.decode(errors="replace")  # a damaged row may have anything
    return connection


def salvage(old: str, target: sqlite3.Connection, scratch: str, known_buckets: Iterable[int] = ()) -> Salvaged:
    """Copy what is readable of the index at ``old`` into ``target``, an empty index; in its open transaction.

    ``scratch`` is a path for a copy that is needed when the first page is damaged; ``known_buckets`` are numbers of
    buckets to look for beside those that the index itself tells of.
    """
    if not os.path.exists(old):
        return Salvaged(0, 0, 0, False, False, [])
    try:
        with closing(_open(old, scratch)) as source:
            return _copy(source, target, known_buckets)
    finally:
        for path in (scratch, f"{scratch}-wal", f"{scratch}-shm"):
            if os.path.exists(path):
                os.unlink(path)


def _open(old: str, scratch: str) -> sqlite3.Connection:
    connection = open_readable(old)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master, buckets LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        if "malformed" in str(error) and _has_tables(connection):
            return connection
        connection.close()
        _copy_with_first_page(old, scratch)
        return open_readable(scratch)
    return connection


def _has_tables(connection: sqlite3.Connection) -> bool:
    try:
        (count,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'objects'").fetchone()
    except sqlite3.Error:
        return False
    return bool(count)


def _copy_with_first_page(old: str, scratch: str) -> None:
    """Copy the index and give the copy the first page of a new one, which has the same tables at the same pages."""
    index.create(scratch)
    with open(scratch, "rb") as file:
        page = bytearray(file.read(_PAGE_BYTES))
    os.unlink(scratch)
    shutil.copyfile(old, scratch)
    if os.path.exists(f"{old}-wal"):
        shutil.copyfile(f"{old}-wal", f"{scratch}-wal")
    # https://sqlite.org/fileformat2.html: the number of pages, no free ones, and "this number is valid".
    page[28:32] = (os.path.getsize(old) // _PAGE_BYTES).to_bytes(4, "big")
    page[32:40] = bytes(8)
    page[92:96] = page[24:28]
    with open(scratch, "r+b") as file:
        file.write(page)


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, known_buckets: Iterable[int]) -> Salvaged:
    buckets, buckets_whole = _both_ends(source, "SELECT id, name, created_ns, props FROM buckets", "id")
    buckets = [row for row in buckets if _is_bucket(row)]
    target.executemany("INSERT OR IGNORE INTO buckets (id, name, created_ns, props) VALUES (?, ?, ?, ?)", buckets)
    doomed, doomed_whole = _both_ends(source, "SELECT bucket FROM doomed", "bucket")
    target.executemany("INSERT OR IGNORE INTO doomed VALUES (?)", doomed)
    trash, rest_whole = _both_ends(source, "SELECT * FROM trash", "seq")
    # An index of the first version does not know what the files were.
    trash = [(*row, None, None, None)[:5] for row in trash]
    target.executemany("INSERT OR IGNORE INTO trash (seq, place, bucket, name, version) VALUES (?, ?, ?, ?, ?)", trash)
    sequences, sequences_whole = _both_ends(source, "SELECT name, seq FROM sqlite_sequence", "rowid")
    for name, seq in sequences:
        raise_sequence(target, name, seq)
    others_whole = _copy_others(source, target)
    gaps: list[Gap] = []
    objects = inline = 0
    known = {row[0] for row in buckets} | {row[0] for row in doomed} | set(known_buckets)
    guessed = set() if buckets_whole else set(range(1, _last_number(sequences, known) + 1)) - known
    for bucket in sorted(known | guessed):
        halvings = _HALVINGS if bucket in known else _HALVINGS_OF_GUESSES
        for batch in _batches(_range(source, bucket, b"", _END, halvings, gaps)):
            sound = [row for row in batch if _is_object(row)]
            objects += len(sound)
            inline += sum(row[7] is None for row in sound)
            marks = ", ".join("?" * len(Row._fields))
            target.executemany(f"INSERT OR IGNORE INTO objects ({COLUMNS}) VALUES ({marks})", sound)  # noqa: S608
    return Salvaged(
        len(buckets), objects, inline, buckets_whole and doomed_whole and sequences_whole, rest_whole and others_whole,
        [_widened(gap, target) for gap in _merged(gaps)],
    )  # fmt: skip


def _copy_others(source: sqlite3.Connection, target: sqlite3.Connection) -> bool:
    """Copy the small tables that later versions of the schema added; return whether all of them could be read."""
    try:
        wanted = (_tables(target) & _tables(source)) - _OWN  # an older index does not have all of them
    except sqlite3.Error:
        return False
    whole = True
    for name in wanted:
        rows, complete = _both_ends(source, f"SELECT * FROM {name}", "1")  # noqa: S608
        whole &= complete
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            target.executemany(f"INSERT OR IGNORE INTO {name} VALUES ({marks})", rows)  # noqa: S608
    return whole


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _last_number(sequences: list[tuple[Any, ...]], known: set[int]) -> int:
    told = [seq for name, seq in sequences if name == "buckets" and isinstance(seq, int)]
    return min(max([*told, *known], default=0), _GUESSES_MAX)


def raise_sequence(target: sqlite3.Connection, table: str, least: int) -> None:
    """Make sure that the next number of ``table`` is greater than ``least``."""
    if not isinstance(least, int):
        return
    row = target.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    if row is None:
        target.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, least))
    elif row[0] < least:
        target.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (least, table))


def _both_ends(source: sqlite3.Connection, query: str, key: str) -> tuple[list[tuple[Any, ...]], bool]:
    """Return the rows of a small table that can be read from its beginning and from its end, and if that is all."""
    rows: dict[Any, tuple[Any, ...]] = {}
    for order in ("ASC", "DESC"):
        try:
            for row in source.execute(f"{query} ORDER BY {key} {order}"):
                rows[row[0]] = row
            return list(rows.values()), True
        except sqlite3.Error:
            continue
    return list(rows.values()), False


def _range(
    source: sqlite3.Connection, bucket: int, after: bytes, before: bytes, halvings: int, gaps: list[Gap]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows between two names, from both ends of what cannot be read, then from the middle of that."""
    query = f"SELECT {COLUMNS} FROM objects WHERE bucket = ? AND name > ? AND name < ? ORDER BY name"  # noqa: S608
    try:
        for row in source.execute(query, (bucket, after, before)):
            yield row
            after = row[1]
        return
    except sqlite3.Error:
        pass
    try:
        for row in source.execute(f"{query} DESC", (bucket, after, before)):
            yield row
            before = row[1]
        return
    except sqlite3.Error:
        pass
    middle = _middle(after, before) if halvings else None
    if middle is None:
        gaps.append(Gap(bucket, after, before))
        return
    yield from _range(source, bucket, after, middle + b"\0", halvings - 1, gaps)
    yield from _range(source, bucket, middle, before, halvings - 1, gaps)


def _middle(after: bytes, before: bytes) -> bytes | None:
    """Return what lies half way between two names, None if nothing does."""
    length = max(len(after), len(before)) + 1
    both = int.from_bytes(after.ljust(length, b"\0"), "big") + int.from_bytes(before.ljust(length, b"\0"), "big")
    middle = (both // 2).to_bytes(length, "big")
    return middle if after < middle < before else None


def _merged(gaps: list[Gap]) -> list[Gap]:
    merged: list[Gap] = []
    for gap in sorted(gaps):
        if merged and merged[-1].bucket == gap.bucket and gap.after <= merged[-1].before:
            merged[-1] = merged[-1]._replace(before=max(gap.before, merged[-1].before))
        else:
            merged.append(gap)
    return merged


def _widened(gap: Gap, target: sqlite3.Connection) -> Gap:
    """Return the gap between names that exist, rather than between those that were tried."""
    query = "SELECT {}(name) FROM objects WHERE bucket = ? AND name {} ?"
    (after,) = target.execute(query.format("max", "<="), (gap.bucket, gap.after)).fetchone()
    (before,) = target.execute(query.format("min", ">="), (gap.bucket, gap.before)).fetchone()
    return Gap(gap.bucket, after or b"", before or _END)


def _batches(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    batch: list[tuple[Any, ...]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _COPIED_AT_ONCE:
            yield batch
            batch = []
    yield batch


def _is_bucket(row: tuple[Any, ...]) -> bool:
    if not (isinstance(row[1], str) and isinstance(row[2], int) and isinstance(row[3], bytes)):
        return False
    try:
        index.decode_props(row[3])
    except ValueError:
        return False
    return True


def _is_object(row: tuple[Any, ...]) -> bool:
    kinds: tuple[Any, ...] = (
        int,
        bytes,
        int,
        int,
        str,
        int,
        (bytes, type(None)),
        (str, type(None)),
        (bytes, type(None)),
    )
    if not all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True)) or (row[7] is None) == (
        row[8] is None
    ):
        return False
    try:
        row[1].decode()
        index.decode_custom(row[6])
    except ValueError:
        return False
    return True

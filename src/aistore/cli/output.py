"""How results are shown: one record is a row of a table or an object of JSON.

Names come from the store and may hold anything; what could steer a terminal or break a line is shown escaped. JSON has
them as they are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Record = dict[str, Any]


class Column(NamedTuple):
    """A column: its title, the record's key, and how the value is written."""

    title: str
    key: str
    spell: Callable[[Any], str] = str


def format_size(size: int) -> str:
    """Return bytes as the field's CLI writes them: ``1B``, ``17.88KiB``, ``2.00GiB``."""
    if size < 1024:
        return f"{size}B"
    value, units = size / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.2f}{units[0]}"


def counted(count: int, noun: str) -> str:
    """Return ``1 file``, ``1,200 files``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_time(nanoseconds: int) -> str:
    """Return a time in Unix nanoseconds as UTC text; ``-`` for none."""
    if not nanoseconds:
        return "-"
    from datetime import datetime, timezone

    moment = datetime.fromtimestamp(nanoseconds / 1e9, tz=timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def plain(text: str) -> str:
    """Return ``text`` with control characters spelt out."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


def plain_lines(text: str) -> str:
    """Return ``text`` of several lines as `plain` does; line ends and tabs stay."""
    return text if text.isprintable() else re.sub(r"[^\n\t]+", lambda found: plain(found[0]), text)


def write_table(pages: Iterable[list[Record]], columns: Sequence[Column], *, headers: bool = True) -> int:
    """Write records as aligned columns, page by page as they come; return how many there were.

    Columns are as wide as what was seen so far, so a later page may be wider than an earlier one.
    """
    widths = [len(column.title) for column in columns] if headers else [0] * len(columns)
    count = 0
    for page in pages:
        rows = [[plain(column.spell(record[column.key])) or "-" for column in columns] for record in page]
        widths = [max(width, *map(len, cells)) for width, cells in zip(widths, zip(*rows, strict=True), strict=True)]
        if headers and not count:
            rows.insert(0, [column.title for column in columns])
        count += len(page)
        sys.stdout.write("".join(_line(cells, widths) for cells in rows))
    return count


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=True))
    return "".join(padded).rstrip() + "\n"


def write_json_list(pages: Iterable[list[Record]]) -> int:
    """Write records as one JSON array, a record per line, as they come; return how many there were."""
    count = 0
    for page in pages:
        lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in page)
        sys.stdout.write((",\n" if count else "[\n") + lines)
        count += len(page)
    sys.stdout.write("\n]\n" if count else "[]\n")
    return count


def write_records(records: list[Record], columns: Sequence[Column], *, as_json: bool, headers: bool = True) -> None:
    """Write a short list, as a table or as JSON."""
    pages = [records] if records else []
    if as_json:
        write_json_list(pages)
    else:
        write_table(pages, columns, headers=headers)


def write_properties(record: Record, *, as_json: bool, headers: bool = True) -> None:
    """Write one record as PROPERTY and VALUE, sorted by name, or as a JSON object with the raw values."""
    if as_json:
        sys.stdout.write(json.dumps(record, ensure_ascii=False, indent=2) + "\n")
        return
    rows = [{"property": key, "value": _spell(value)} for key, value in sorted(record.items())]
    write_table([rows], [Column("PROPERTY", "property"), Column("VALUE", "value")], headers=headers)


def _spell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_spell(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

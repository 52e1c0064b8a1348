"""The counters of all processes of a run, added up."""

from __future__ import annotations

import operator
from typing import NamedTuple

from . import layout
from .counters import counter_files, etl_of_row, map_table, rows_of


class Process(NamedTuple):
    """Who counts at a place: its name (``http-0``), its process id, when it started (Unix nanoseconds)."""

    place: str
    pid: int
    started_ns: int


class Totals(NamedTuple):
    """One look at the counters of a run: sums over all places by word, numbers of each transform, and who counts."""

    words: list[int]
    etls: dict[tuple[str, int], list[int]]
    processes: list[Process]

    def etl(self, name: str, uid: int) -> list[int]:
        """Return the numbers of one transform, in the order of ``layout.ETL_SCALARS``; zeros if nobody counted yet."""
        return self.etls.get((name, uid)) or [0] * len(layout.ETL_SCALARS)

    def etls_by_name(self) -> dict[str, list[int]]:
        """Return the numbers of all transforms that had a name, together, by name."""
        found: dict[str, list[int]] = {}
        for (name, _), numbers in sorted(self.etls.items()):
            found[name] = (
                [have + more for have, more in zip(found[name], numbers, strict=True)] if name in found else numbers
            )
        return found


class TotalsReader:
    """Reads the counters of a run; keeps the files mapped."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._tables: dict[str, memoryview] = {}

    def read(self) -> Totals:
        """Add up all places."""
        words = [0] * layout.ETLS
        etls: dict[tuple[str, int], list[int]] = {}
        processes = []
        for place, path in counter_files(self._directory).items():
            if path not in self._tables:
                self._tables[path] = memoryview(map_table(path)).cast("q")
            table = self._tables[path]
            processes.append(Process(place, table[layout.PROCESS_ID], table[layout.STARTED_NS]))
            words = _sum(words, table[: layout.ETLS].tolist())
            for row in rows_of(table):
                numbers = table[row + layout.ETL_NUMBERS : row + layout.ETL_ROW_WORDS].tolist()
                key = etl_of_row(table, row)
                etls[key] = (
                    [have + more for have, more in zip(etls[key], numbers, strict=True)] if key in etls else numbers
                )
        layout.fold(words)
        return Totals(words, etls, processes)


def _sum(have: list[int] | None, more: list[int]) -> list[int]:
    return more if have is None else list(map(operator.add, have, more))

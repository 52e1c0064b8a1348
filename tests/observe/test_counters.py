"""Counters: no increment is lost between threads, none goes back when a process starts anew."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.observe import layout
from aistore.observe.counters import Counters
from aistore.observe.totals import TotalsReader


@pytest.fixture
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_take_turns_often")
def test_threads_lose_no_increment(tmp_path: Path) -> None:
    counters = Counters()
    counters.open(str(tmp_path), "http-0")
    rounds, begin = 50_000, threading.Barrier(4)

    def count() -> None:
        begin.wait()
        words, word, size = counters.words, layout.GET + layout.OUT_BYTES, 3
        for _ in range(rounds):
            words[word] += size
            counters.words[layout.HOT_HITS] += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    totals = TotalsReader(str(tmp_path)).read()
    assert totals.words[layout.GET + layout.OUT_BYTES] == 4 * rounds * 3
    assert totals.words[layout.HOT_HITS] == 4 * rounds


def test_who_starts_anew_goes_on_where_its_predecessor_ended(tmp_path: Path) -> None:
    reader = TotalsReader(str(tmp_path))
    for times in (1, 2, 3):
        counters = Counters()
        counters.open(str(tmp_path), "http-0")
        counters.words[layout.COMMITS] += 1
        counters.words[layout.INFLIGHT] += 1
        row = counters.etl("up-case", 7)
        counters.words[row + layout.ETL_OBJECTS] += 2
        counters.words[row + layout.ETL_BUSY] += 1
        totals = reader.read()
        assert totals.words[layout.COMMITS] == times
        assert totals.words[layout.INFLIGHT] == 1, "nobody is left to end what a dead process had begun"
        assert totals.etl("up-case", 7)[layout.ETL_OBJECTS] == 2 * times
        assert totals.etl("up-case", 7)[layout.ETL_BUSY] == 1
        assert [(process.place, process.pid) for process in totals.processes] == [("http-0", os.getpid())]


def test_processes_are_added_up(tmp_path: Path) -> None:
    places = {}
    for number, name in enumerate(("http-0", "http-1", "controller")):
        places[name] = counters = Counters()
        counters.open(str(tmp_path), name)
        counters.words[layout.STATUS + 200] += 10**number
        counters.words[counters.etl("first-etl", 1) + layout.ETL_OBJECTS] += 10**number
    places["http-1"].words[places["http-1"].etl("first-etl", 2) + layout.ETL_OBJECTS] += 5
    totals = TotalsReader(str(tmp_path)).read()
    assert totals.words[layout.STATUS + 200] == 111
    assert totals.etl("first-etl", 1)[layout.ETL_OBJECTS] == 111
    assert totals.etl("first-etl", 2)[layout.ETL_OBJECTS] == 5
    assert totals.etls_by_name()["first-etl"][layout.ETL_OBJECTS] == 116
    assert totals.etl("first-etl", 3) == [0] * len(layout.ETL_SCALARS)


def test_transforms_beyond_the_table_share_its_last_row(tmp_path: Path) -> None:
    counters = Counters()
    counters.open(str(tmp_path), "http-0")
    for number in range(layout.ETL_ROWS + 100):
        counters.words[counters.etl(f"etl-{number}", number) + layout.ETL_OBJECTS] += 1
    found = TotalsReader(str(tmp_path)).read().etls_by_name()
    assert len(found) == layout.ETL_ROWS
    assert found["others"][layout.ETL_OBJECTS] == 101
    assert found["etl-0"][layout.ETL_OBJECTS] == 1


def test_a_name_of_full_length_comes_back_whole(tmp_path: Path) -> None:
    counters = Counters()
    counters.open(str(tmp_path), "http-0")
    counters.etl("x" * 32, 2**62)
    assert list(TotalsReader(str(tmp_path)).read().etls) == [("x" * 32, 2**62)]


def test_words_do_not_overlap() -> None:
    first, last = layout.OPERATION_WORDS[0][1], layout.OPERATION_WORDS[-1][1]
    assert (last - first) % (len(layout.OPERATIONS) - 1) == 0
    assert layout.KEPT_HEAD + layout.HISTOGRAM + len(layout.LATENCY_NS) + 1 == layout.STATUS
    assert last < layout.KEPT_GET < layout.KEPT_HEAD
    assert layout.error_word("ErrBckNotFound") != layout.error_word("ErrObjNotFound")
    assert layout.error_word("no such code") == layout.COMMIT_HISTOGRAM - 1
    assert layout.SCALAR_WORDS[-1] == (layout.RESTARTS, layout.SCALARS[-1])
    assert layout.RESTARTS + 1 == layout.ETLS

"""The text of metrics, read by the library whose format it is; and disks that do not answer."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from aistore.server.exposition import Family, exposition
from aistore.server.store import DiskFacts
from aistore.storage.local.engine import LocalEngine


def test_labels_and_help_may_hold_anything() -> None:
    values = ['plain "quoted" \\ back', "two\nlines", "ünï", "a,b={c}", ""]
    family = Family("ais_test", "gauge", 'One\nline with a \\ back and "quotes".')
    for number, value in enumerate(values):
        family.add(number, path=value, other="x")
    (read,) = text_string_to_metric_families(exposition([family]).decode())
    assert [sample.labels for sample in read.samples] == [{"path": value, "other": "x"} for value in values]
    assert [sample.value for sample in read.samples] == [0, 1, 2, 3, 4]
    assert read.documentation == family.help


def test_numbers_are_whole() -> None:
    numbers = (2**62, 0.1, 1e-9, -1, 123456789.125)
    families = [Family(f"ais_{position}", "gauge", "A number.").add(number) for position, number in enumerate(numbers)]
    read = list(text_string_to_metric_families(exposition(families).decode()))
    assert [family.samples[0].value for family in read] == list(numbers)
    assert b" 4611686018427387904\n" in exposition(families)


def test_a_histogram_adds_up() -> None:
    family = Family("ais_seconds", "histogram", "Times.").add_histogram((0.1, 1.0), (3, 0, 2), 4.5, op="get")
    (read,) = text_string_to_metric_families(exposition([family]).decode())
    buckets = [(float(s.labels["le"]), s.value) for s in read.samples if s.name == "ais_seconds_bucket"]
    assert buckets == [(0.1, 3), (1.0, 3), (math.inf, 5)]
    assert {s.name: s.value for s in read.samples if "le" not in s.labels} == {
        "ais_seconds_sum": 4.5, "ais_seconds_count": 5,
    }  # fmt: skip


def test_a_disk_that_hangs_holds_up_one_thread_and_nobody_else(tmp_path: Path) -> None:
    LocalEngine(str(tmp_path)).close()
    hangs = threading.Event()

    async def ask() -> None:
        with ThreadPoolExecutor(1) as threads:
            disks = DiskFacts(threads, str(tmp_path), seconds_max=0.05)
            stuck = threads.submit(hangs.wait)  # as a system call on a sick disk would be
            assert await disks.get() is None
            assert await disks.get() is None
            hangs.set()
            stuck.result()
            patient = DiskFacts(threads, str(tmp_path), seconds_max=60.0)
            facts = await patient.get()
            assert facts is not None
            assert [(one.name, one.available, one.open_generations) for one in facts] == [("mp0", True, 0)]
            assert await DiskFacts(threads, str(tmp_path / "gone"), seconds_max=60.0).get() is None

    asyncio.run(ask())

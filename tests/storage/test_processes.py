"""Several processes at work on one directory at once."""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path

from side_by_side import side_by_side

from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.reclaim import Reclaimer

WRITER = """
import sys
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine

directory, me = sys.argv[1], sys.argv[2]
engine = LocalEngine(directory)
print("ready", flush=True)
sys.stdin.readline()
for number in range(150):
    size = 5_000 if number % 2 else 50
    engine.put("b", f"{me}/{number:03}", me.encode() * size, PutOptions()).result()
    engine.put("b", "counter", me.encode() * size, PutOptions()).result()
    if number % 10 == 0:
        names = [entry.name for entry in engine.list("b", ListOptions(prefix=me)).entries]
        assert names == [f"{me}/{done:03}" for done in range(number + 1)], names
        assert len(engine.list("b", ListOptions(prefix="kept/")).entries) == 500
engine.close()
"""

READER = """
import sys
from aistore.storage.local.engine import LocalEngine

engine = LocalEngine(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
last = 0
while last < 600:
    with engine.get("b", "counter") as reading:
        data = reading.read(0, reading.info.size)
    assert len(set(data)) == 1 and len(data) in (1, 50, 5_000), "torn or mixed"
    assert reading.info.version >= last, "an older version after a newer one"
    last = reading.info.version
engine.close()
"""


def test_writers_readers_and_the_reclaimer(tmp_path: Path) -> None:
    directory = str(tmp_path / "store")
    engine = LocalEngine(directory)
    engine.create_bucket("b", {})
    for number in range(500):
        engine.put("b", f"kept/{number}", b"k", PutOptions())
    engine.put("b", "counter", b"0", PutOptions()).result()
    commands: list[list[object]] = [["-c", WRITER, directory, number] for number in range(1, 5)]
    commands += [["-c", READER, directory]] * 2
    reclaimer = Reclaimer(directory)
    with closing(reclaimer), side_by_side(commands) as children:
        now = 0.0
        while any(child.poll() is None for child in children):
            now += 1.0
            if not reclaimer.step(now):
                engine.head("b", "counter")
        assert [child.returncode for child in children] == [0] * len(children)
    assert engine.head("b", "counter").version == 601
    assert len(engine.list("b", ListOptions()).entries) == 500 + 600 + 1
    engine.close()


def test_many_processes_begin_one_directory(tmp_path: Path) -> None:
    code = (
        "import sys; from aistore.storage.local.engine import LocalEngine; print('ready', flush=True);"
        "sys.stdin.readline(); e = LocalEngine(sys.argv[1]); e.create_bucket('b' + sys.argv[2], {}); e.close()"
    )
    with side_by_side([["-c", code, tmp_path / "store", number] for number in range(5)]) as children:
        assert [child.wait(60) for child in children] == [0] * 5
    with closing(LocalEngine(str(tmp_path / "store"))) as engine:
        assert len(engine.list_buckets()) == 5


CHURN = """
import random, sys
from aistore.errors import ObjectNotFoundError
from aistore.model.objects import PutOptions
from aistore.storage.local.engine import LocalEngine

directory, me, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
engine, source = LocalEngine(directory), random.Random(me)
print("ready", flush=True)
sys.stdin.readline()
while True:
    name = source.choice(names)
    if source.random() < 0.5:
        engine.put("b", name, b"x" * source.choice((1, 1000)), PutOptions())
    else:
        try:
            engine.delete("b", name).result()
        except ObjectNotFoundError:
            pass
"""


def test_listings_under_change_miss_no_untouched_name(tmp_path: Path) -> None:
    """Names from all of Unicode; those that come and go lie anywhere between those that stay."""
    source = random.Random(7)
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    names = {"".join(source.choices(letters, k=source.randrange(1, 9))) for _ in range(900)}
    stays, changes = sorted(names)[::2], [name for name in sorted(names)[1::2] if "\0" not in name]
    engine = LocalEngine(str(tmp_path / "store"))
    engine.create_bucket("b", {})
    for future in [engine.put("b", name, b"", PutOptions()) for name in stays]:
        future.result()
    with (
        closing(engine),
        side_by_side([["-c", CHURN, tmp_path / "store", number, *changes] for number in range(2)]) as children,
    ):
        seen: set[str] = set()
        listings, deadline = 0, time.monotonic() + 60
        while listings < 60 or (len(seen) <= 10 and time.monotonic() < deadline):  # they may take long to start
            listings += 1
            limit, found, after = source.randrange(1, 200), [], ""
            while True:
                page = engine.list("b", ListOptions(limit=limit, start_after=after))
                found += [entry.name for entry in page.entries]
                after = page.continuation
                if not after:
                    break
            assert found == sorted(set(found), key=str.encode)
            assert set(stays) <= set(found)
            assert set(found) <= names
            seen |= set(found) - set(stays)
        assert len(seen) > 10  # they did come and go
        assert [child.poll() for child in children] == [None, None]

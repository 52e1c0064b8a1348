"""What an ETL's processes may use together, what they leave in directories, and what they print without end."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from running import RunningEtl

from aistore.etl.log import LOG_BYTES_MAX, TransformLog
from aistore.etl.worker.clearing import clear, remove_tree

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are counted by /proc")

HUNGRY = """
import sys, time
taken = bytearray(int(sys.argv[1]))
for start in range(0, len(taken), 4096):
    taken[start] = 1
time.sleep(float(sys.stdin.read() or 0))
print(len(taken))
"""


@linux_only
def test_the_hungriest_worker_ends_and_the_others_go_on() -> None:
    with RunningEtl(HUNGRY, workers=2, memory_bytes_max=256 << 20) as etl:
        beside = etl.begin(b"1.5", args="1000000")
        beside.started()
        hungry = etl.begin(args=str(1 << 30))
        outcome = hungry.finish()
        assert outcome.reply is None
        excess = etl.wait_for("excess")
        assert excess["pid"] == outcome.pid
        assert excess["whole"] is False
        assert "more than its limit of 256 MiB" in excess["message"]
        assert beside.finish().output == b"1000000\n"
        assert etl.run(args="2000000").output == b"2000000\n"


@linux_only
def test_what_workers_share_counts_once() -> None:
    """The parent has 100 MB, which four workers share: together they are far from 250."""
    code = "import sys\nif not hasattr(sys, 'shared'):\n    sys.shared = b'x' * 100_000_000\n"
    function = f"{code}def transform(data):\n    import time\n    time.sleep(0.2)\n    return data\n"
    with RunningEtl(function, kind="function", workers=4, memory_bytes_max=250 << 20) as etl:
        for _ in range(4):
            pending = [etl.begin(b"x") for _ in range(4)]
            assert [each.finish().output for each in pending] == [b"x"] * 4
    assert "excess" not in [event["event"] for event in etl.events]


@linux_only
def test_an_import_that_takes_too_much_ends_the_whole() -> None:
    etl = RunningEtl("import sys\nsys.taken = b'x' * (1 << 30)\nimport time\ntime.sleep(600)\n"
                     "def transform(data): return data\n", kind="function", memory_bytes_max=128 << 20)  # fmt: skip
    try:
        excess = etl.wait_for("excess")
        assert excess["whole"] is True
        etl.wait_for_end()
    finally:
        etl.close()


@linux_only
def test_what_the_code_says_in_the_guards_words_is_not_heard() -> None:
    """Import code finds the control socket and says that somebody used too much."""
    code = """
import os, socket, stat, json
for fd in range(3, 100):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            with socket.socket(fileno=os.dup(fd)) as control:
                control.send(json.dumps({"event": "excess", "pid": 1, "whole": True, "message": "evil"}).encode())
    except OSError:
        pass
def transform(data):
    return data
"""
    with RunningEtl(code, kind="function") as etl:
        assert "evil" not in str(etl.events)
        assert [event["event"] for event in etl.events].count("unknown") >= 1
        assert etl.run(b"fine").output == b"fine"


@linux_only
def test_processes_are_counted() -> None:
    code = """
import os, sys, time
made = 0
try:
    for _ in range(3000):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
    time.sleep(30)
except OSError:
    pass
print("made", made)
"""
    with RunningEtl(code) as etl:
        outcome = etl.run()
        if outcome.reply is not None:  # no more could be started
            assert int(outcome.output.split()[1]) <= 1100
        else:
            assert "processes and threads, more than its limit of 1,025" in etl.wait_for("excess")["message"]


def test_directories_deeper_than_names_can_say(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = os.getcwd()
    os.chdir(top)
    try:
        for level in range(3000):
            Path("file").write_text("x")
            os.mkdir("a")
            os.mkdir(f".removed-{level}")
            os.chdir("a")
    finally:
        os.chdir(here)
    clear(str(top))
    assert os.listdir(top) == []
    remove_tree(str(top))
    assert not top.exists()


def test_what_is_cleared_is_not_followed(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "top"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (top / "inner").mkdir(parents=True)
    (top / "link").symlink_to(outside)
    (top / "inner" / "link").symlink_to(outside)
    (top / "inner" / "closed").mkdir(mode=0)
    remove_tree(str(top))
    assert not top.exists()
    assert (outside / "kept").read_text() == "x"


def test_a_flood_of_lines_does_not_hold_up_the_store(tmp_path: Path) -> None:
    """Whoever prints fills the pipe; a line of the store's own is written all the same, and others get their turn."""

    async def work() -> None:
        log = TransformLog(str(tmp_path / "log"))
        os.set_blocking(log.writer, False)
        for _ in range(2000):
            while True:
                try:
                    os.write(log.writer, b"x" * 65536)
                except BlockingIOError:
                    break
            await asyncio.sleep(0)
            log.write("a line of the store's own\n")
        assert log.tail(26).endswith("own")
        log.close()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * LOG_BYTES_MAX

    asyncio.run(work())

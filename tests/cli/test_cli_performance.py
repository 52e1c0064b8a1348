"""`ais show performance`: what was done to a store, in columns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from aistore.client import Client
from aistore.testing import StoreProcess


@pytest.fixture(scope="module")
def cli_store() -> Iterator[StoreProcess]:
    """Return a store of these tests alone, with known traffic: other tests would be counted too."""
    with StoreProcess(arguments=("--workers", "2")) as process, Client(process.endpoint) as client:
        bucket = client.bucket("b").create()
        for number in range(10):
            bucket.object(str(number)).put(b"x" * 2048)
        for number in range(20):
            assert len(bucket.object(str(number % 10)).get().read()) == 2048
        bucket.object("9").delete()
        yield process


def test_what_was_counted(transcript: Callable[[str], None]) -> None:
    transcript(r"""
        $ ais show performance counters | sed 's/^t[^ ]*/T/' | tr -s ' '
        TARGET GET(n) GET(size) PUT(n) PUT(size) DELETE(n)
        T 20 40.00KiB 10 20.00KiB 1
        $ ais show performance counters --average-size -H | tr -s ' ' | cut -d ' ' -f 2-
        20 40.00KiB / 2.00KiB 10 20.00KiB / 2.00KiB 1
        $ ais show performance | head -1 | tr -s ' '
        TARGET GET(n) GET(t) GET(total/avg size) PUT(n) PUT(t) PUT(total/avg size) DELETE(n) DELETE(t)
        $ ais show performance latency --regex '^get' | head -1 | tr -s ' '
        TARGET GET(n) GET(t)
        $ ais show performance counters --regex get --json | sed 's/"t[A-Za-z0-9]\{8\}"/"T"/'
        [{"target": "T", "get.n": 20, "get.size": 40960, "err.get.n": 0}]
        $ ais show performance capacity | head -1 | tr -s ' '
        TARGET MOUNTPATH USED AVAIL USE(%)
        $ ais show performance throughput
        Nothing was done.
    """)


def test_watching(transcript: Callable[[str], None]) -> None:
    transcript(r"""
        $ ais show performance counters --refresh 100ms --count 2 --regex get
        ---------- <time> ----------
        Nothing was done.
        ---------- <time> ----------
        Nothing was done.
    """)


def test_rates_are_those_of_the_interval(cli_store: StoreProcess) -> None:
    command = [sys.executable, "-m", "aistore", "--endpoint", cli_store.endpoint]
    command += ["show", "performance", "throughput", "--refresh", "300ms", "--json"]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert watching.stdout is not None
        with watching.stdout, Client(cli_store.endpoint) as client:
            lines = iter(watching.stdout)
            assert json.loads(next(lines))[0]["get.bps"] == 0
            reading = client.bucket("b").object("1")
            seen: dict[str, int] = {}
            for _ in range(20):  # each interval ends at its own time: one of the next has them
                for _ in range(50):
                    reading.get().read()
                (seen,) = json.loads(next(lines))
                if seen["get.bps"]:
                    break
            assert seen["get.bps"] > 0
            assert seen["put.bps"] == 0
    finally:
        watching.kill()
        watching.wait()


def test_mistakes(transcript: Callable[[str], None]) -> None:
    transcript(r"""
        $ ais show performance counters no-such-node 2>&1 | sed 's/t[A-Za-z0-9]\{8\}$/T/'
        Error: no such target: no-such-node
        Hint: expected one of: T
        $ ais show performance speed 2>&1 | tail -1 | cut -d , -f 1-2
        Error: Invalid value for '[VIEW]': 'speed' is not one of 'counters', 'throughput'
        $ ais show performance counters --refresh often
        ! Error: 'often' is not a duration
        ! Hint: expected for example 45s, 5m or 1h30m
        [1]
        $ ais show performance counters --refresh 1ms
        ! Error: --refresh 1ms is too short
        ! Hint: expected 100ms at least
        [1]
        $ ais show performance counters --regex '('
        ! Error: --regex '(' is no regular expression: missing ), unterminated subpattern at position 0
        [1]
    """)


def test_one_target_can_be_named_as_the_field_does(cli_store: StoreProcess) -> None:
    with Client(cli_store.endpoint) as client:
        (node,) = client.performance()
    assert re.fullmatch(r"t[A-Za-z0-9]{8}", node.node)
    for name in (node.node, f"t[{node.node}]"):
        command = [
            sys.executable,
            "-m",
            "aistore",
            "--endpoint",
            cli_store.endpoint,
            "show",
            "performance",
            "capacity",
            name,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert node.node in done.stdout

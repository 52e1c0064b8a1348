"""The network of fault tests: what is cut is silent, what is slow takes its time, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from aistore.testing import Network

_ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("on", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            while piece := connection.recv(65536):
                connection.sendall(piece)
"""
_ASK = """
import socket, sys, threading, time
started = time.monotonic()
with socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2])) as connection:
    connection.settimeout(float(sys.argv[2]))
    sent = b"x" * int(sys.argv[3])
    threading.Thread(target=connection.sendall, args=(sent,)).start()
    got = 0
    while got < len(sent):
        got += len(connection.recv(1 << 20))
print(time.monotonic() - started)
"""


@pytest.fixture
def ask(network: Network) -> Iterator[Callable[..., float]]:
    """Return a function that has one machine talk to the echo at "b" and returns the seconds that took."""
    place = network.place("b")
    echo = subprocess.Popen(
        [*place.through, sys.executable, "-c", _ECHO, place.host], stdout=subprocess.PIPE, text=True
    )
    assert echo.stdout is not None
    assert echo.stdout.readline() == "on\n"

    def run(asker: str, *, timeout: float = 10.0, size: int = 10) -> float:
        through = network.place(asker).through
        command = [*through, sys.executable, "-c", _ASK, place.host, str(timeout), str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConnectionError(done.stderr.splitlines()[-1])
        return float(done.stdout)

    yield run
    echo.kill()
    echo.wait()
    echo.stdout.close()


def test_machines_reach_one_another_until_they_are_cut(network: Network, ask: Callable[..., float]) -> None:
    ask("a")
    ask("host")
    network.cut("a", "b")
    with pytest.raises(ConnectionError, match="timed out"):
        ask("a", timeout=0.5)
    ask("host")
    ask("c")
    network.heal("a", "b")
    ask("a")
    network.isolate("b")
    for asker in ("a", "c", "host"):
        with pytest.raises(ConnectionError, match="timed out"):
            ask(asker, timeout=0.5)
    network.heal_all()
    ask("c")


def test_a_path_can_be_cut_one_way(network: Network, ask: Callable[..., float]) -> None:
    network.cut("b", "a", both_ways=False)
    with pytest.raises(ConnectionError, match="timed out"):
        ask("a", timeout=0.5)
    passed, lost = network.counts()
    assert passed > 0  # what was asked arrived
    assert lost > 0


def test_a_slow_path_takes_its_time(network: Network, ask: Callable[..., float]) -> None:
    network.shape("a", "b", delay_seconds=0.1)
    assert ask("a") >= 0.4  # there and back to connect, there and back to talk


def test_a_lossy_path_loses_and_tcp_brings_all(network: Network, ask: Callable[..., float]) -> None:
    network.shape("a", "b", loss=0.05)
    ask("a", timeout=30, size=10_000_000)
    passed, lost = network.counts()
    assert 0.02 < lost / (passed + lost) < 0.1


def test_a_killed_test_leaves_no_device() -> None:
    script = (
        "import time\nfrom aistore.testing import Network\nnetwork = Network()\nnetwork.place('a')\n"
        "print(network.place('host').host, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        address = test.stdout.readline().strip()
        if not address:
            pytest.skip("no network of namespaces can be made here")
        os.kill(test.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError:
                return
        assert time.monotonic() < deadline, f"{address} is still there"
        time.sleep(0.02)

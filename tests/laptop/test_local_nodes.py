"""The nodes of a cluster on one machine, as processes. Here each is a store of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.errors import AisError
from aistore.laptop.guarded import GuardedProcess
from aistore.laptop.processes import is_running
from aistore.testing import LocalNode


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LocalNode]:
    made = LocalNode(
        1, ["--data", str(tmp_path / "data"), "--port", "0"], directory=str(tmp_path), environment=os.environ
    )
    yield made
    made.stop()


def test_a_node_stops_and_starts_again(node: LocalNode) -> None:
    node.start()
    named = node.id
    assert node.ask("smap")["tmap"].keys() == {named}
    assert node.stop() == 0
    assert not node.running
    assert node.start().id == named


def test_a_killed_node_leaves_no_process(node: LocalNode) -> None:
    node.start()
    processes = {node.process.pid, *node.processes()}
    assert len(processes) >= 4
    node.kill()
    assert not [pid for pid in processes if is_running(pid)]
    assert not node.running
    assert node.start().ask("snode")["daemon_id"] == node.id


def test_a_paused_node_keeps_its_connections_and_answers_nothing(node: LocalNode) -> None:
    node.start()
    node.pause()
    with pytest.raises(OSError, match="timed out"):
        node.ask("snode", timeout_seconds=0.3)
    node.resume()
    assert node.ask("snode")["daemon_id"] == node.id
    node.pause()
    assert node.stop() == 0  # a paused one ends too, and in order


def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        node = LocalNode(
            3, ["--data", str(tmp_path / "data"), "--port", port], directory=str(tmp_path), environment=os.environ
        )
        with pytest.raises(AisError, match=rf"(?s)node 3 did not start.*port {port} of 127.0.0.1 is in use"):
            node.start()
    assert not node.running


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ignores = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('on', flush=True)\ntime.sleep(600)"
    process = GuardedProcess(
        [sys.executable, "-c", ignores], log=str(tmp_path / "log"), env=os.environ, grace_seconds=0.1, talk=True
    )
    assert process.read_line(20) == "on\n"
    assert process.end() == 128 + signal.SIGKILL
    assert not is_running(process.pid)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AisError, match="no-such-program"):
        GuardedProcess(["no-such-program"], log=str(tmp_path / "log"), env=os.environ)


@pytest.mark.parametrize("victim", ["parent", "guard"])
def test_it_ends_when_what_holds_it_is_killed(tmp_path: Path, victim: str) -> None:
    script = (
        "import os, sys, time\nfrom aistore.laptop.guarded import GuardedProcess\n"
        "child = GuardedProcess(['sleep', '600'], log=sys.argv[1], env=os.environ)\n"
        "print(child.pid, child._guard.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child, guard = map(int, parent.stdout.readline().split())
        os.kill(parent.pid if victim == "parent" else guard, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while is_running(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.kill()

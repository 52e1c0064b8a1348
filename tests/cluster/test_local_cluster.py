"""A cluster on one machine, from its start to its end: it is one store, and nothing is left of it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aistore.client import Client
from aistore.errors import AisError
from aistore.laptop.processes import descendants, is_running
from aistore.testing import LocalCluster, Network


def listens(endpoint: str) -> bool:
    host, _, port = endpoint.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_what_one_node_takes_every_node_gives(cluster: LocalCluster) -> None:
    clients = [Client(node.endpoint) for node in cluster.running]
    clients[0].bucket("one-store").create()
    before = sum(cluster.status(node.number)["cached_objects"] for node in cluster.running)
    for number in range(30):
        clients[number % 3].bucket("one-store").object(f"a/{number}").put(b"x" * 1000 * number)
    for client in clients:
        bucket = client.bucket("one-store")
        assert sorted(entry.name for entry in bucket.list()) == sorted(f"a/{number}" for number in range(30))
        assert all(bucket.object(f"a/{number}").get().read() == b"x" * 1000 * number for number in range(30))
    # Each object is kept by its home alone.
    assert sum(cluster.status(node.number)["cached_objects"] for node in cluster.running) == before + 30


def test_a_cluster_leaves_nothing_behind() -> None:
    others = descendants(os.getpid())
    with LocalCluster(nodes=2, lease_seconds=4) as cluster:
        cluster.wait_settled()
        client = Client(cluster.node(2).endpoint)
        client.bucket("b").create().object("x").put(b"1")
        processes = descendants(os.getpid()).keys() - others
        endpoints = [cluster.weed.endpoint, *(node.endpoint for node in cluster.running)]
        assert cluster.weed.process.pid in processes
        assert len(processes) >= 2 * 4 + 1
        assert all(map(listens, endpoints))
        client.close()
    assert not os.path.exists(cluster.directory)
    assert not [pid for pid in processes if is_running(pid)]
    assert not [endpoint for endpoint in endpoints if listens(endpoint)]


def test_nodes_come_and_go(new_cluster: Callable[..., LocalCluster]) -> None:
    cluster = new_cluster(nodes=2)
    bucket = Client(cluster.node(1).endpoint).bucket("b").create()
    for number in range(20):
        bucket.object(str(number)).put(str(number).encode())
    cluster.add()
    cluster.node(2).kill()
    for node in cluster.running:  # at once: its objects are in the store
        found = [Client(node.endpoint).bucket("b").object(str(number)).get().read() for number in range(20)]
        assert found == [str(number).encode() for number in range(20)]
    cluster.wait_settled()
    assert cluster.map(1)[1] == {cluster.node(1).id, cluster.node(3).id}
    cluster.node(2).start()
    cluster.wait_settled()
    assert len(cluster.map(2)[1]) == 3
    # Who waits for a state hears of a node that ended by itself.
    with pytest.raises(AisError, match="node 3 ended by itself"):
        cluster.wait_until(lambda: bool(cluster.node(3).process.signal(signal.SIGKILL)), "nothing")


def test_a_node_cut_off_from_the_store_comes_back(network: Network, new_cluster: Callable[..., LocalCluster]) -> None:
    cluster = new_cluster(nodes=2, place=network.place)
    one, two = cluster.node(1), cluster.node(2)
    bucket = Client(one.endpoint).bucket("b").create()
    for number in range(20):
        bucket.object(str(number)).put(b"old")
    network.cut("node2", "store")

    def alone() -> bool:
        status = cluster.status(1)
        return cluster.map(1)[1] == {one.id} and status["settled"] == status["epoch"]

    cluster.wait_until(alone, "node 1 to be alone")
    for number in range(20):
        bucket.object(str(number)).put(b"new")
    network.heal("node2", "store")
    cluster.wait_settled()
    there = Client(two.endpoint).bucket("b")
    assert {there.object(str(number)).get().read() for number in range(20)} == {b"new"}


class Started(NamedTuple):
    """A running `ais cluster start-local`, and what it printed until it was ready."""

    process: subprocess.Popen[str]
    said: list[str]

    @property
    def endpoints(self) -> list[str]:
        return re.findall(r"http://\S+", "".join(self.said))

    @property
    def pids(self) -> set[int]:
        return {int(pid) for pid in re.findall(r"pid (\d+)", "".join(self.said))}


@pytest.fixture
def start_local() -> Iterator[Callable[..., Started]]:
    """Return a function that starts the command on free ports and waits until it says that it is ready."""
    started: list[Started] = []

    def start(*arguments: str) -> Started:
        command = [sys.executable, "-m", "aistore", "cluster", "start-local", "--port", "0", "--lease", "4", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(Started(process, []))
        assert process.stdout is not None
        for line in process.stdout:
            started[-1].said.append(line)
            if line.startswith("Ctrl-C"):
                break
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
        one.process.wait(60)
        assert one.process.stdout is not None
        one.process.stdout.close()


def test_the_command_runs_a_cluster_until_ctrl_c(start_local: Callable[..., Started]) -> None:
    started = start_local("--nodes", "2")
    assert [line.split()[0] for line in started.said] == ["store", "node", "node", "2", "In", "Ctrl-C"], started.said
    directory = re.search(r" in (\S+) \(removed at the end\)", started.said[3])
    assert directory is not None
    Client(started.endpoints[1]).bucket("b").create().object("x").put(b"1")
    assert Client(started.endpoints[2]).bucket("b").object("x").get().read() == b"1"
    # A node that dies is told of, and the cluster goes on.
    os.kill(int(re.findall(r"pid (\d+)", started.said[2])[0]), signal.SIGKILL)
    assert started.process.stdout is not None
    assert re.match(r"node 2 \(t\w+, http://\S+\) ended with signal 9 \(SIGKILL\)", started.process.stdout.readline())
    assert Client(started.endpoints[1]).bucket("b").object("x").get().read() == b"1"
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(60) == 0
    assert not os.path.exists(directory[1])
    assert not [endpoint for endpoint in started.endpoints if listens(endpoint)]
    assert not [pid for pid in started.pids if is_running(pid)]


def test_a_kept_directory_outlives_a_killed_command(start_local: Callable[..., Started], tmp_path: Path) -> None:
    first = start_local("--nodes", "1", "--dir", str(tmp_path))
    Client(first.endpoints[1]).bucket("kept").create().object("x").put(b"1")
    second = start_local("--nodes", "1", "--dir", str(tmp_path))
    assert second.process.wait(60) == 1
    assert f"Error: {tmp_path} is in use by another cluster (process {first.process.pid})\n" in second.said
    processes = descendants(first.process.pid)
    assert first.pids <= processes.keys()
    first.process.kill()
    deadline = time.monotonic() + 60
    while left := [command for pid, command in processes.items() if is_running(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    third = start_local("--nodes", "1", "--dir", str(tmp_path))
    assert Client(third.endpoints[1]).bucket("kept").object("x").get().read() == b"1"
    # Without its object store a cluster is none.
    store, node = map(int, re.findall(r"pid (\d+)", "".join(third.said)))
    os.kill(store, signal.SIGKILL)
    assert third.process.stdout is not None
    assert "Error: the object store ended with signal 9 (SIGKILL)" in third.process.stdout.read()
    assert third.process.wait(60) == 1
    assert not is_running(node)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("much work")
    command = [sys.executable, "-m", "aistore", "cluster", "start-local", "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "holds other things than a cluster: thesis.tex" in done.stderr
    assert os.listdir(tmp_path) == ["thesis.tex"]

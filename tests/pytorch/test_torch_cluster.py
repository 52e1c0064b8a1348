"""A training loop over a cluster whose nodes come and go sees every sample and no error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="aistore.pytorch needs torch")

from stub_cluster import StubCluster

from aistore.client import Client
from aistore.errors import NotSupportedError
from aistore.pytorch import Dataset
from aistore.testing import LocalCluster

NAMES = [f"train/{number:04}.bin" for number in range(240)]


def as_text(name: str, data: bytes) -> str:
    assert data == name.encode() * 20
    return name


@pytest.fixture
def cluster():
    with StubCluster("n1", "n2", "n3") as stub:
        stub.objects.update({name: name.encode() * 20 for name in NAMES})
        yield stub


def without(cluster: StubCluster, gone: str) -> Callable[[], None]:
    return lambda: cluster.change([node for node in cluster.members if node != gone])


def trouble(cluster: StubCluster) -> dict[int, Callable[[], object]]:
    """Return what happens at which batch of the training."""
    return {
        3: cluster.nodes["n2"].kill,  # and the map does not know yet
        8: without(cluster, "n2"),
        12: lambda: cluster.join("n4"),
        16: cluster.nodes["n1"].kill,  # the endpoint
        20: without(cluster, "n1"),
        24: lambda: setattr(cluster.nodes["n3"], "state", "lapsed"),
        28: lambda: setattr(cluster.nodes["n3"], "state", "up"),
        32: lambda: cluster.nodes["n1"].start() or cluster.change([*cluster.members, "n1"]),
        36: lambda: cluster.join("n5"),
    }


def train(url: str, workers: int, happens: dict[int, Callable[[], object]], reached: Callable[[], bool]) -> int:
    """Train in a process of its own, epoch by epoch, while things happen; return the number of batches."""
    script, step = Path(__file__).with_name("cluster_training.py"), 0
    command = [sys.executable, script, url, str(workers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdin
        assert training.stdout
        epochs = 0
        while happens or not reached():
            epochs += 1
            assert epochs < 1000
            seen: list[str] = []
            while True:
                happens.pop(step, lambda: None)()
                step += 1
                training.stdin.write("\n")
                training.stdin.flush()
                line = training.stdout.readline()
                assert line, "the training loop saw an error"
                if not line.strip():
                    break
                seen += line.split()
            assert sorted(seen) == NAMES
        training.stdin.close()
    assert training.returncode == 0
    return step


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_while_nodes_come_and_go(cluster, workers):
    # The map is asked for once a second at most, so the last node to join may have to wait for its requests.
    train(cluster.nodes["n1"].url, workers, trouble(cluster), lambda: bool(cluster.nodes["n5"].received))
    assert cluster.nodes["n4"].received


@pytest.mark.slow
def test_training_on_a_real_cluster_goes_on(count):
    """Node 2 is killed and the map goes on without it; it comes back; the endpoint is killed, and stays so."""
    try:
        running = LocalCluster(3, arguments=["--lease", "3"]).start()
    except NotSupportedError as error:
        pytest.skip(str(error))
    with running:
        running.wait_settled()
        with Client(running.node(1).endpoint) as client:
            bucket = client.bucket("b").create()
            for name in NAMES:
                bucket.object(name).put(name.encode() * 20)
        happens = {
            3: running.node(2).kill,
            40: running.node(2).start,
            60: running.node(1).kill,
        }
        gone = running.node(1).id
        batches = train(running.node(1).endpoint, 2, happens, lambda: gone not in running.map(2)[1])
    count("batches of a training loop on a cluster that changed", batches)


def test_batches_go_to_every_home_side_by_side(cluster):
    dataset = Dataset(cluster.nodes["n3"].url, "b", "train/", loader=as_text)
    assert [name for (name,) in dataset.__getitems__(range(len(NAMES)))] == NAMES
    for node in cluster.nodes.values():
        names = [path for path in node.received if not path.startswith("/v1/")]
        assert names
        assert all(cluster.home(name) is node for name in names)


def test_the_budget_ends(cluster):
    from aistore.errors import StoreUnreachableError

    dataset = Dataset(cluster.nodes["n1"].url, "b", "train/", loader=as_text, retry_seconds=0.3)
    assert dataset[0]
    for node in cluster.nodes.values():
        node.kill()
    with pytest.raises(StoreUnreachableError):
        dataset[1]

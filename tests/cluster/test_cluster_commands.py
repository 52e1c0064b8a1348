"""`ais cluster` and `ais show cluster`, on a cluster and on a store that is one machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aistore.client import Client
from aistore.testing import LocalCluster, StoreProcess


def ais(endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aistore", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "AIS_ENDPOINT": endpoint},
    )  # fmt: skip


def rows(text: str) -> dict[str, list[str]]:
    """Return the table of nodes: the cells after the first, by the first, its heading included."""
    return {cells[0]: cells[1:] for cells in (line.split() for line in text.partition("\n\n")[0].splitlines())}


def test_a_cluster_is_shown_node_by_node(cluster: LocalCluster) -> None:
    Client(cluster.node(1).endpoint).bucket("shown").create().object("x").put(b"x" * 2048)
    done = ais(cluster.node(2).endpoint, "show", "cluster")
    table = rows(done.stdout)
    assert table.pop("NODE") == ["STATE", "EPOCH", "CACHED", "OBJECTS", "CAPACITY", "LOAD", "URL", "STATUS"]
    assert {node: cells[6:] for node, cells in table.items()} == {
        node.id: [node.endpoint, "settled"] for node in cluster.running
    }
    assert {cells[0] for cells in table.values()} == {"online"}
    assert sum(int(cells[3]) for cells in table.values()) >= 1
    assert re.search(rf"Nodes: +3\n +Store: +{cluster.store_url}\n +Cached: .*\n.*\n +Status: +ready\n", done.stdout)
    assert ais(cluster.node(1).endpoint, "cluster", "show", "smap", "-H").stdout.count("target") == 3


def test_json_has_all_that_is_known(cluster: LocalCluster) -> None:
    shown = json.loads(ais(cluster.node(1).endpoint, "show", "cluster", "--json").stdout)
    targets = {node["node"]: node for node in shown["nodes"] if node["type"] == "target"}
    assert targets.keys() == {node.id for node in cluster.running}
    for node in cluster.running:
        said = targets[node.id]
        assert (said["state"], said["url"], said["error"]) == ("online", node.endpoint, "")
        assert said["epoch"] == said["settled"] == cluster.status(node.number)["epoch"]
        assert 0 < said["lease_seconds_left"] <= 6


def test_cost_follows_from_the_settings(cluster: LocalCluster) -> None:
    shown = json.loads(ais(cluster.node(1).endpoint, "show", "cluster", "--cost", "--json").stdout)
    status = cluster.status(1)
    assert (status["lease_seconds"], status["renew_seconds"]) == (6, 2)
    month = 30 * 24 * 3600
    assert {row["request"]: row["month"] for row in shown} == {
        "PUT": 3 * month // 2, "LIST": 3 * month // 2, "GET": round(3 * month / status["poll_seconds"])
    }  # fmt: skip
    table = ais(cluster.node(1).endpoint, "show", "cluster", "--cost").stdout
    assert re.search(r"PUT +write the node's lease +2 s +3 +3,888,000\n", table)


def test_a_node_is_drained_and_removed(new_cluster: Callable[..., LocalCluster]) -> None:
    cluster = new_cluster()
    one, two, three = cluster.running
    bucket = Client(one.endpoint).bucket("b").create()
    for number in range(20):
        bucket.object(str(number)).put(b"1")
    assert ais(one.endpoint, "cluster", "drain", three.id).stdout.startswith(f"{three.id} drained")
    assert ais(one.endpoint, "cluster", "wait").stdout == f"3 nodes, epoch {cluster.status(1)['epoch']} settled\n"
    assert rows(ais(one.endpoint, "show", "cluster").stdout)[three.id][0] == "draining"
    drained = Client(three.endpoint).bucket("b")
    assert all(drained.object(str(number)).get().read() == b"1" for number in range(20))
    assert ais(one.endpoint, "cluster", "drain", three.id, "--undo").returncode == 0
    assert rows(ais(one.endpoint, "show", "cluster").stdout)[three.id][0] == "online"

    unsure = ais(one.endpoint, "cluster", "remove", three.id)
    assert (unsure.returncode, unsure.stdout) == (2, "")
    assert f"this removes node {three.id} from the cluster: pass -y to confirm" in unsure.stderr
    assert ais(one.endpoint, "cluster", "remove", three.id, "-y").stdout == f"{three.id} removed\n"
    three.stop()
    waited = ais(one.endpoint, "cluster", "wait", "--nodes", "2")
    assert waited.stdout.startswith("2 nodes, epoch "), waited.stderr
    assert rows(ais(two.endpoint, "show", "cluster").stdout).keys() == {"NODE", one.id, two.id}
    assert all(bucket.object(str(number)).get().read() == b"1" for number in range(20))


def test_the_last_home_is_neither_drained_nor_removed(new_cluster: Callable[..., LocalCluster]) -> None:
    cluster = new_cluster(nodes=2)
    one, two = cluster.running
    assert ais(one.endpoint, "cluster", "drain", one.id).returncode == 0
    for arguments in (["drain", two.id], ["remove", two.id, "-y"]):
        refused = ais(one.endpoint, "cluster", *arguments)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"node {two.id} is the only one that keeps objects" in refused.stderr
    assert ais(one.endpoint, "cluster", "remove", one.id, "-y").returncode == 0
    assert rows(ais(two.endpoint, "show", "cluster").stdout).keys() == {"NODE", two.id}


def test_a_node_with_another_lease_is_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    started = subprocess.run(
        [
            sys.executable, "-m", "aistore", "serve", "--port", "0", "--workers", "1", "--lease", "7",
            "--store", cluster.store_url, "--cache", str(tmp_path / "cache"),
        ],
        capture_output=True, text=True, check=False, env={**os.environ, **cluster.environment}, timeout=60,
    )  # fmt: skip
    assert started.returncode == 1
    assert "the nodes of this cluster have leases of 6 s" in started.stderr
    assert "--lease 6" in started.stderr
    assert "Traceback" not in started.stderr
    assert len(cluster.map(1)[1]) == 3


def test_a_node_that_does_not_answer_is_shown(new_cluster: Callable[..., LocalCluster]) -> None:
    cluster = new_cluster(nodes=2, lease_seconds=60)
    cluster.node(2).kill()
    dead = cluster.node(2).id
    done = ais(cluster.node(1).endpoint, "show", "cluster")
    assert done.returncode == 0
    assert rows(done.stdout)[dead][-3:] == ["does", "not", "answer"]
    assert f"\n{dead} does not answer: " in done.stdout
    late = ais(cluster.node(1).endpoint, "cluster", "wait", "--timeout", "0")
    assert late.returncode == 1
    assert late.stderr.startswith(f"Error: gave up after 0 s: node {dead} does not answer")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster", "drain", "tNoSuchId"], "'tNoSuchId'"),
        (["cluster", "drain", "machine7"], "'machine7'"),
        (["cluster", "remove", "tNoSuchId", "-y"], "'tNoSuchId'"),
        (["cluster", "wait", "--nodes", "7", "--timeout", "0"], "there are 3 nodes, not 7"),
    ],
)
def test_what_cannot_be_is_said(cluster: LocalCluster, arguments: list[str], said: str) -> None:
    done = ais(cluster.node(1).endpoint, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster", "drain", "tNoSuchId"], "this store is one machine"),
        (["cluster", "wait"], "this store is one machine"),
        (["show", "cluster", "--cost"], "this store is one machine"),
    ],
)
def test_one_machine_has_no_nodes(store: StoreProcess, arguments: list[str], said: str) -> None:
    done = ais(store.endpoint, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    "url", ["nonsense", "http://", "ftp://x", "https://h", "http://h/path", "http://u:p@h", "http://h:x", "http://h:0"]
)
def test_an_address_that_no_node_could_call_is_refused(url: str, tmp_path: Path) -> None:
    done = ais("", "serve", "--store", "s3://lake/x", "--cache", str(tmp_path / "cache"), "--advertise", url)
    assert done.returncode == 1
    assert "is no address of a node" in done.stderr
    assert "http://host:port" in done.stderr

"""A cluster whose network is cut, slow and lossy, under load. Each node, the store and the clients are machines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from faults.limits import LEASE_SECONDS, UnderLoad, thorough, wait_for_map
from faults.load import make_transform

from aistore.errors import NotSupportedError
from aistore.testing import LocalCluster, Network
from aistore.testing.network import HOST

_MACHINES = (HOST, "store", "node1", "node2", "node3")


class Apart(NamedTuple):
    """A cluster of machines."""

    cluster: LocalCluster
    network: Network


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    try:
        with Network() as network:
            directory = str(tmp_path_factory.mktemp("apart"))
            with LocalCluster(3, directory, lease_seconds=LEASE_SECONDS, place=network.place) as cluster:
                cluster.wait_settled()
                make_transform(cluster)
                yield Apart(cluster, network)
    except NotSupportedError as error:
        pytest.skip(str(error))


@pytest.fixture
def apart(machines: Apart) -> Iterator[Apart]:
    """Return a settled cluster of machines that reach each other."""
    machines.cluster.wait_settled()
    yield machines
    machines.network.heal_all()


def test_a_node_is_cut_off_from_the_store(apart: Apart, under_load: UnderLoad) -> None:
    """Clients and the other nodes still reach it; others write what it was home to."""
    cluster, network = apart
    with under_load(cluster, "a node is cut off from the object store") as load:
        network.cut("node2", "store")
        wait_for_map(cluster, 1, 3)
        load.wait_busy(60, 30)
        network.heal("node2", "store")
        cluster.wait_settled()


@thorough
def test_a_node_is_cut_off_from_the_others(apart: Apart, under_load: UnderLoad) -> None:
    """It has the store, and clients reach it: it stays a member, and forwards nothing."""
    cluster, network = apart
    with under_load(cluster, "a node is cut off from the other nodes") as load:
        for other in ("node1", "node3"):
            network.cut("node2", other)
        time.sleep(2 * LEASE_SECONDS)
        load.wait_busy()
        assert len(cluster.map(1)[1]) == 3
        for other in ("node1", "node3"):
            network.heal("node2", other)


@thorough
def test_a_path_is_cut_in_one_direction(apart: Apart, under_load: UnderLoad) -> None:
    """What a node asks the store for is done, and it is never told."""
    cluster, network = apart
    with under_load(cluster, "answers of the object store to a node are lost") as load:
        network.cut("store", "node2", both_ways=False)
        wait_for_map(cluster, 1, 3)
        load.wait_busy(60, 30)
        network.heal("store", "node2")
        cluster.wait_settled()


@thorough
def test_all_paths_are_slow_and_lossy(apart: Apart, under_load: UnderLoad) -> None:
    cluster, network = apart
    with under_load(cluster, "20 ms on all paths, 2 % of all packets lost") as load:
        for index, one in enumerate(_MACHINES):
            for other in _MACHINES[index + 1 :]:
                network.shape(one, other, delay_seconds=0.02, loss=0.02)
        load.wait_busy(150, 50)
        time.sleep(2 * LEASE_SECONDS)
        network.heal_all()
        cluster.wait_settled()


@thorough
def test_a_node_is_cut_off_from_everybody(apart: Apart, under_load: UnderLoad) -> None:
    """As when a switch dies: for clients too."""
    cluster, network = apart
    with under_load(cluster, "a node is cut off from everybody") as load:
        network.isolate("node2")
        wait_for_map(cluster, 1, 3)
        load.wait_busy(60, 30)
        network.heal_all()
        cluster.wait_settled()

"""Processes of a cluster die, stand still and come back under load: nothing is lost, nothing old is read."""

from __future__ import annotations

import os
import signal
import time

from faults.limits import LEASE_SECONDS, UnderLoad, thorough, wait_for_map

from aistore.client import Client
from aistore.laptop.node import poll
from aistore.laptop.processes import is_running
from aistore.testing import LocalCluster, LocalNode


def process_of(node: LocalNode, place: str) -> int:
    """Return a process of a node by its place: "controller", "http-0"."""
    return next(pid for pid, command in node.processes().items() if command.endswith(f" {place}"))


def wait_for_another(cluster: LocalCluster, node: LocalNode, place: str, pid: int) -> None:
    """Wait until a process of a node that was killed is there again."""

    def found() -> bool:
        return any(one != pid and command.endswith(f" {place}") for one, command in node.processes().items())

    cluster.wait_until(found, f"another {place} of node {node.number}")


def test_a_node_is_killed(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "a node is killed and started again"):
        three.node(2).kill()
        wait_for_map(three, 1, 3)
        three.wait_settled()
        three.node(2).start()
        three.wait_settled()


def test_http_workers_are_killed(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "an HTTP worker of each node is killed"):
        for node in three.running:
            pid = process_of(node, "http-0")
            os.kill(pid, signal.SIGKILL)
            wait_for_another(three, node, "http-0", pid)
        three.wait_settled()


def test_a_controller_is_killed(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "a controller is killed"):
        pid = process_of(three.node(2), "controller")
        os.kill(pid, signal.SIGKILL)
        wait_for_another(three, three.node(2), "controller", pid)
        three.wait_settled()


@thorough
def test_a_supervisor_is_killed(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "a supervisor is killed, its node started again"):
        node, left = three.node(2), three.node(2).processes()
        node.process.signal(signal.SIGKILL)
        poll(30, "the processes of a dead supervisor to end", lambda: not any(map(is_running, left)))
        node.stop()
        node.start()
        three.wait_settled()


def test_a_node_stands_still(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "a node stands still for longer than a lease"):
        three.node(2).pause()
        wait_for_map(three, 1, 3)
        time.sleep(LEASE_SECONDS)  # the others go on without it
        three.node(2).resume()
        three.wait_settled()


def test_a_controller_stands_still(three: LocalCluster, under_load: UnderLoad) -> None:
    """Its HTTP workers go on, without a lease: they may neither write nor give out what they have."""
    with under_load(three, "a controller stands still for longer than a lease"):
        pid = process_of(three.node(2), "controller")
        os.kill(pid, signal.SIGSTOP)
        wait_for_map(three, 1, 3)
        time.sleep(LEASE_SECONDS)
        os.kill(pid, signal.SIGCONT)
        three.wait_settled()


def test_an_http_worker_stands_still(three: LocalCluster, under_load: UnderLoad) -> None:
    """A map that changes meanwhile does not wait for it: it is killed."""
    with under_load(three, "an HTTP worker stands still while the map changes"):
        pid = process_of(three.node(2), "http-0")
        os.kill(pid, signal.SIGSTOP)
        with Client(three.node(1).endpoint) as client:
            client.nodes().drain(three.node(3).id)
            wait_for_another(three, three.node(2), "http-0", pid)
            client.nodes().undrain(three.node(3).id)
        three.wait_settled()


@thorough
def test_a_node_is_stopped(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "a node is stopped and started again"):
        assert three.node(2).stop() == 0
        three.wait_settled()
        three.node(2).start()
        three.wait_settled()


@thorough
def test_a_node_is_drained_and_removed(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "a node is drained, removed, and joins again"), Client(three.node(1).endpoint) as client:
        client.nodes().drain(three.node(2).id)
        three.wait_settled()
        client.nodes().undrain(three.node(2).id)
        client.nodes().remove(three.node(2).id)
        wait_for_map(three, 1, 3)
        three.node(2).stop()
        three.wait_settled()
        three.node(2).start()
        three.wait_settled()


def test_the_store_is_killed(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "the object store is killed and started again"):
        three.weed.kill()
        time.sleep(2 * LEASE_SECONDS)
        three.weed.start()
        three.wait_settled()


@thorough
def test_the_store_stands_still(three: LocalCluster, under_load: UnderLoad) -> None:
    with under_load(three, "the object store stands still for two leases"):
        three.weed.process.signal(signal.SIGSTOP)
        time.sleep(2 * LEASE_SECONDS)
        three.weed.process.signal(signal.SIGCONT)
        three.wait_settled()


def test_the_store_stands_still_while_a_node_joins(three: LocalCluster) -> None:
    node = three.node(2)
    node.kill()
    node.begin()
    poll(30, "a controller", lambda: any(command.endswith(" controller") for command in node.processes().values()))
    three.weed.process.signal(signal.SIGSTOP)
    time.sleep(1.5 * LEASE_SECONDS)  # longer than one answer is waited for
    three.weed.process.signal(signal.SIGCONT)
    node.wait_ready()
    three.wait_settled()

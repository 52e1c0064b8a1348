"""A client of a cluster goes straight home, and a change of the cluster is no error."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from stub_cluster import StubCluster

from aistore.client import Client, RetryPolicy
from aistore.client.endpoint import parse_endpoint
from aistore.client.transport import Transport
from aistore.errors import ObjectNotFoundError, StoreUnreachableError

PATIENT = RetryPolicy(pause_seconds=0.01, budget_seconds=30)
NAMES = [f"train/{number:03}.jpg" for number in range(60)]


@pytest.fixture
def cluster():
    with StubCluster("n1", "n2", "n3") as stub:
        stub.objects.update({name: name.encode() * 10 for name in NAMES})
        yield stub


def read(client: Client, name: str) -> bytes:
    return client.bucket("b").object(name).get().read()


def warm(client: Client) -> None:
    """Have the client know the map, and every node."""
    for name in NAMES:
        read(client, name)


def forget_requests(cluster: StubCluster) -> None:
    for node in cluster.nodes.values():
        node.received.clear()
        node.asked = 0


def strays(cluster: StubCluster) -> int:
    """Return how many requests came to a node that is not the home of their object."""
    return sum(
        cluster.home(path.removeprefix("/v1/objects/b/")) is not node
        for node in cluster.nodes.values()
        for path in node.received
        if not path.startswith("/v1/batch/")
    )


def test_reads_and_writes_go_straight_home(cluster):
    with Client(cluster.nodes["n1"].url) as client:
        warm(client)
        assert strays(cluster) <= 1  # the first, for which the map is not asked for
        forget_requests(cluster)
        for name in NAMES:
            handle = client.bucket("b").object(name)
            handle.put(b"new")
            assert handle.get().read() == b"new"
            handle.delete()
        assert strays(cluster) == 0
        assert all(node.received for node in cluster.nodes.values())
        assert sum(node.asked for node in cluster.nodes.values()) == 0


def test_one_object_costs_one_request(cluster):
    with Client(cluster.nodes["n1"].url) as client:
        read(client, NAMES[0])
    assert sum(node.asked for node in cluster.nodes.values()) == 0


def test_a_batch_is_asked_of_every_home_and_keeps_its_order(cluster):
    with Client(cluster.nodes["n2"].url) as client:
        names = [*NAMES, "missing", *reversed(NAMES)]
        results = list(client.bucket("b").batch(names))
    assert results[: len(NAMES)] == [name.encode() * 10 for name in NAMES]
    assert isinstance(results[len(NAMES)], ObjectNotFoundError)
    assert results[len(NAMES) + 1 :] == [name.encode() * 10 for name in reversed(NAMES)]
    assert strays(cluster) == 0
    assert [sum(path.startswith("/v1/batch/") for path in node.received) for node in cluster.nodes.values()] == [1] * 3


def test_a_batch_that_is_left_early_leaves_nothing(cluster):
    before = threading.active_count()
    with Client(cluster.nodes["n1"].url) as client:
        results = client.bucket("b").batch(NAMES * 40)
        assert next(results) == NAMES[0].encode() * 10
        results.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "ais-batch" and thread.is_alive()]
    assert threading.active_count() <= before + 6  # the stub's


def test_a_client_that_is_told_not_to_stays_at_its_endpoint(cluster):
    with Client(cluster.nodes["n1"].url, follow_map=False) as client:
        warm(client)
        list(client.bucket("b").batch(NAMES))
    assert not cluster.nodes["n2"].received + cluster.nodes["n3"].received


@pytest.mark.parametrize("tells", [True, False])
def test_a_node_that_joins_gets_its_share(cluster, tells, monkeypatch):
    cluster.tells = tells
    if not tells:
        monkeypatch.setattr("aistore.client.routing.MAP_SECONDS", 0.0)
    monkeypatch.setattr("aistore.client.routing.REFRESH_SECONDS", 0.0)
    with Client(cluster.nodes["n1"].url) as client:
        warm(client)
        cluster.join("n4")
        warm(client)
        forget_requests(cluster)
        warm(client)
    assert cluster.nodes["n4"].received
    assert strays(cluster) == 0


@pytest.mark.parametrize("victim", ["n1", "n2"], ids=["the endpoint", "another node"])
def test_a_node_that_dies_is_no_error(cluster, victim):
    with Client(cluster.nodes["n1"].url, retry=PATIENT) as client:
        warm(client)
        cluster.nodes[victim].kill()
        warm(client)
        for name in NAMES:
            client.bucket("b").object(name).put(b"new")
        assert list(client.bucket("b").batch(NAMES)) == [b"new"] * len(NAMES)
        cluster.change([node for node in cluster.members if node != victim])
        warm(client)
        forget_requests(cluster)
        for name in NAMES:
            assert read(client, name) == b"new"
    assert sum(len(node.received) for node in cluster.nodes.values()) == len(NAMES)


def test_a_node_that_comes_back_is_gone_to_again(cluster, monkeypatch):
    monkeypatch.setattr("aistore.client.routing.AVOIDED_SECONDS", 0.0)
    with Client(cluster.nodes["n1"].url, retry=PATIENT) as client:
        warm(client)
        cluster.nodes["n3"].kill()
        warm(client)
        cluster.nodes["n3"].start()
        forget_requests(cluster)
        warm(client)
    assert strays(cluster) == 0
    assert cluster.nodes["n3"].received


def test_a_home_that_may_not_answer_is_gone_around(cluster):
    with Client(cluster.nodes["n1"].url, retry=PATIENT) as client:
        warm(client)
        cluster.nodes["n3"].state = "lapsed"
        warm(client)
        list(client.bucket("b").batch(NAMES))


def test_a_silent_node_is_found_out(cluster, monkeypatch):
    monkeypatch.setattr("aistore.client.transport.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("aistore.client.routing.PROBE_SECONDS", 0.2)
    with Client(cluster.nodes["n1"].url, retry=PATIENT) as client:
        warm(client)
        cluster.nodes["n2"].state = "silent"
        warm(client)
        assert list(client.bucket("b").batch(NAMES)) == [name.encode() * 10 for name in NAMES]


def test_addresses_that_cannot_be_reached_cost_little(cluster, monkeypatch):
    """The addresses of the map are of another network: refused here, or another store answers there."""
    with socket.socket() as nobody, StubCluster("n9") as other:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        other.nodes["n9"].state = "foreign"
        cluster.nodes["n2"].advertised = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        cluster.nodes["n3"].advertised = other.nodes["n9"].url
        tried = []
        fetch = Transport._fetch_map

        def counting(self, endpoint, seconds):
            tried.append(endpoint.url)
            return fetch(self, endpoint, seconds)

        monkeypatch.setattr(Transport, "_fetch_map", counting)
        with Client(cluster.nodes["n1"].url) as client:
            for _ in range(5):
                warm(client)
                list(client.bucket("b").batch(NAMES))
        assert not other.nodes["n9"].received
    assert 3 <= len(tried) <= 12  # the map and two probes, again after 2 s, 4 s, …; not once for each of 600 objects
    assert not cluster.nodes["n2"].received + cluster.nodes["n3"].received


def test_endpoints_are_tried_in_turn(cluster):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        urls = f"127.0.0.1:{nobody.getsockname()[1]},{cluster.nodes['n2'].url}"
        with Client(urls) as client:
            assert len(client.buckets.__self__.transport.endpoints) == 2
            client.bucket("b").object("x").put(b"1")
            assert read(client, "x") == b"1"
            assert client.cluster().uuid == "stub"


def test_when_nobody_answers_the_error_names_the_endpoint(cluster):
    retry = RetryPolicy(pause_seconds=0.01, budget_seconds=0.2)
    url = cluster.nodes["n1"].url
    with Client(url, retry=retry) as client:
        warm(client)
        for node in cluster.nodes.values():
            node.kill()
        with pytest.raises(StoreUnreachableError, match="no store answers at"):
            read(client, NAMES[0])


def test_an_object_that_is_not_there_is_asked_for_once(cluster):
    with Client(cluster.nodes["n1"].url) as client:
        warm(client)
        forget_requests(cluster)
        for number in range(20):
            with pytest.raises(ObjectNotFoundError):
                read(client, f"missing/{number}")
    assert sum(len(node.received) for node in cluster.nodes.values()) == 20
    assert sum(node.asked for node in cluster.nodes.values()) <= 2  # not more often than once a second


def test_no_token_goes_to_a_node_without_tls():
    """What the map says of a cluster behind TLS does not lead a client to speak without it."""
    from aistore.client.cluster_map import read_cluster_map

    with StubCluster("n1") as stub:
        import json

        smap = json.loads(stub.smap(stub.nodes["n1"]))
    assert not read_cluster_map(smap, parse_endpoint("https://h")).endpoints
    assert read_cluster_map(smap, parse_endpoint("http://h")).endpoints


def test_nodes_that_leave_are_no_homes():
    from aistore.client.cluster_map import read_cluster_map

    nodes = {f"n{flags}": {"flags": flags, "public_net": {"direct_url": "http://h:1"}} for flags in (0, 2, 4, 8)}
    found = read_cluster_map({"tmap": nodes, "uuid": "u", "version": "3"}, parse_endpoint("http://h"))
    assert (sorted(found.digests), found.version) == (["n0", "n2"], 3)


def test_a_forked_child_finds_its_own_way(cluster):
    with Client(cluster.nodes["n1"].url) as client:
        warm(client)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                warm(client)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0

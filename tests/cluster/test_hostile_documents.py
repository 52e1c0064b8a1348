"""The documents of a cluster, broken or replaced by somebody while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import urllib3
from hostile import create, the_store
from msgspec import structs

from aistore.cluster.documents import check_follows, decode_root, encode_root, new_root
from aistore.errors import AisError, ConflictError, NotSupportedError
from aistore.laptop.weed import BUCKET, Weed
from aistore.storage.objectstore.contract import ObjectStore
from aistore.testing import LocalCluster

ROOT = ".ais/root"
HTTP = urllib3.PoolManager(retries=False)


@pytest.fixture(scope="module")
def pair(weed: Weed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Return a cluster of two nodes of the module's own."""
    with LocalCluster(2, lease_seconds=3, store=(weed, f"s3://{BUCKET}/hostile-documents")) as running:
        running.wait_settled()
        assert create(HTTP, running.node(1).endpoint, "b") == 200
        yield running


@pytest.fixture
def store(pair: LocalCluster) -> ObjectStore:
    return the_store(pair)


def serves(cluster: LocalCluster, statuses: set[int] = frozenset({200})) -> None:
    """Write and read through each node."""
    for number, node in enumerate(cluster.running):
        url = f"{node.endpoint}/v1/objects/b/{number}"
        assert HTTP.request("PUT", url, body=b"1").status in statuses
        assert HTTP.request("GET", url).status in statuses


def renewed(cluster: LocalCluster, store: ObjectStore) -> Callable[[], bool]:
    """Return a function that says whether each node has renewed its lease twice since."""

    def counters() -> dict[str, int]:
        found = {}
        for entry in store.list(".ais/leases/").entries:
            body = store.get(entry.key)
            assert body is not None
            try:
                lease = json.loads(body.read())
                found[lease["node"]] = lease["counter"]
            except (ValueError, KeyError):
                pass
        return {node.id: found.get(node.id, 0) for node in cluster.running}

    before = counters()
    return lambda: all(count >= before[node] + 3 for node, count in counters().items())


@pytest.mark.parametrize("what", ["gone", "garbage"])
def test_a_cluster_goes_on_without_its_document(pair: LocalCluster, store: ObjectStore, what: str) -> None:
    body = store.get(ROOT)
    assert body is not None
    good = body.read()
    if what == "gone":
        store.delete(ROOT)
    else:
        store.put(ROOT, b"\xff{" + b"x" * (9 << 20))
    pair.wait_until(renewed(pair, store), "leases to be renewed")
    serves(pair)
    answer = HTTP.request("POST", pair.node(1).endpoint + "/v1/buckets/c", json={"action": "create-bck"})
    assert answer.status == 503
    assert "put back what was there" in answer.data.decode()
    if what == "gone":
        with pytest.raises(AisError, match="is gone, but nodes were here"):
            pair.add()
        pair.nodes.pop(3).stop()
        with pytest.raises(AisError):
            store.head(ROOT)
    store.put(ROOT, good)
    pair.wait_settled()
    serves(pair)
    assert create(HTTP, pair.node(2).endpoint, f"after-{what}") == 200


def test_leases_and_jobs_that_cannot_be_read_hurt_nobody(pair: LocalCluster, store: ObjectStore) -> None:
    for entry in store.list(".ais/leases/").entries:
        store.put(entry.key, b"\xff")
    for key in ("leases/garbage", f"leases/{pair.node(1).id}.zz", "jobs/garbage", "jobs/a/b"):
        store.put(".ais/" + key, b"\xff{}")
    pair.add()
    pair.wait_until(renewed(pair, store), "leases to be renewed")
    pair.wait_settled()
    serves(pair)
    pair.nodes.pop(3).stop()
    pair.wait_settled()
    for key in ("leases/garbage", f"leases/{pair.node(1).id}.zz", "jobs/garbage", "jobs/a/b"):
        store.delete(".ais/" + key)


def test_nobody_acts_on_a_document_that_was_replaced(new_cluster: Callable[..., LocalCluster]) -> None:
    """Others may act on it already, with other homes: who knew the one before it stops until it is started again."""
    cluster = new_cluster(nodes=2, lease_seconds=3)
    store = the_store(cluster)
    body = store.get(ROOT)
    assert body is not None
    older = body.read()
    assert create(HTTP, cluster.node(1).endpoint, "b") == 200
    serves(cluster)
    store.put(ROOT, older)

    def fenced() -> bool:
        return all(cluster.status(node.number)["lease_seconds_left"] == 0 for node in cluster.running)

    cluster.wait_until(fenced, "nodes to stop acting")
    for node in cluster.running:
        assert HTTP.request("PUT", f"{node.endpoint}/v1/objects/b/x", body=b"1").status == 503
        assert "root was replaced: version" in node.log()
        assert "Traceback" not in node.log()


def test_which_documents_follow_another() -> None:
    root = new_root()
    for follows in (root, structs.replace(root, version=2), structs.replace(root, version=9, epoch=3)):
        check_follows(follows, root)
    later = structs.replace(root, version=5)
    for other in (root, structs.replace(later, uuid="another", version=9), structs.replace(later, epoch=1)):
        with pytest.raises(ConflictError, match="was replaced"):
            check_follows(other, later)
    with pytest.raises(NotSupportedError, match="has the format 2"):
        decode_root(encode_root(structs.replace(root, format=2)), "x")

"""Clients that want of a cluster what they should not get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from aistore.testing import LocalCluster


@pytest.fixture(scope="module")
def http() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False) as pool:
        yield pool


def create(http: urllib3.PoolManager, endpoint: str, bucket: str, props: dict[str, Any] | None = None) -> int:
    name, _, provider = bucket.partition("@")
    path = f"/v1/buckets/{name}?provider={provider or 'ais'}"
    return http.request("POST", endpoint + path, json={"action": "create-bck", "value": props or {}}).status


def test_the_clusters_own_place_is_not_reached_by_the_name_of_its_store(
    cluster: LocalCluster, http: urllib3.PoolManager
) -> None:
    """Its document has the secret of its nodes, and the copies of its objects have homes."""
    lake, _, base = cluster.store_url.removeprefix("s3://").partition("/")
    endpoint = cluster.node(1).endpoint
    assert create(http, endpoint, f"{lake}@aws") == 200
    for props in ({}, {"extra": {"aws": {"endpoint": cluster.weed.endpoint + "/"}}}):
        if props:
            http.request("DELETE", f"{endpoint}/v1/buckets/{lake}?provider=aws", json={"action": "evict-remote-bck"})
            assert create(http, endpoint, f"{lake}@aws", props) == 200
        for node in cluster.running:
            for name in (f"{base}/.ais/root", f"{base}/b/x"):
                url = f"{node.endpoint}/v1/objects/{lake}/{name}?provider=aws"
                for method in ("GET", "HEAD", "PUT", "DELETE"):
                    answer = http.request(method, url, body=b"x" if method == "PUT" else None)
                    assert answer.status == 403, (method, name, answer.data)
        assert http.request("PUT", f"{endpoint}/v1/objects/{lake}/beside?provider=aws", body=b"1").status == 200
    http.request("DELETE", f"{endpoint}/v1/buckets/{lake}?provider=aws", json={"action": "evict-remote-bck"})


def test_files_of_a_node_are_no_bucket(cluster: LocalCluster, http: urllib3.PoolManager) -> None:
    for url in ("file:///etc", f"{cluster.store_url}/.ais", "memory://z"):
        props = {"extra": {"http": {"original_url": url}}}
        assert create(http, cluster.node(1).endpoint, "files@ht", props) == 400


def test_what_a_client_names_wrongly_is_its_mistake(cluster: LocalCluster, http: urllib3.PoolManager) -> None:
    endpoint = cluster.node(1).endpoint
    assert create(http, endpoint, "nowhere@aws", {"extra": {"aws": {"endpoint": "garbage"}}}) == 400
    assert create(http, endpoint, "nowhere@aws", {"extra": {"aws": {"profile": "../../etc/passwd"}}}) == 400
    assert create(http, endpoint, "no-such-bucket@aws") == 400

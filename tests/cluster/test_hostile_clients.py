"""Clients that want of a cluster what they should not get."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import urllib3
from hostile import create, the_store

from aistore.testing import LocalCluster


@pytest.fixture(scope="module")
def http() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False) as pool:
        yield pool


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


FOREIGN = {
    "version-huge": {"ais-version": "9" * 30},
    "version-negative": {"ais-version": "-5"},
    "version-zero": {"ais-version": "0"},
    "custom-no-json": {"ais-custom": "{{{"},
    "custom-list": {"ais-custom": "[1]"},
    "custom-deep": {"ais-custom": "[" * 1900},
    "custom-nested": {"ais-custom": '{"a":{"b":[1,2]},"c":null}'},
    "custom-splits-headers": {"ais-custom": '{"a\\r\\nx: y":"b\\r\\nset-cookie: z","":"e","k=v, x":"1,2","good":"1"}'},
    "custom-no-text": {"ais-custom": '{"a":"\\ud800","b":"\\u0000\\uffff"}'},
    "checksum-junk": {"ais-checksum": "zz zz"},
}


def test_what_other_programs_note_with_objects(cluster: LocalCluster, http: urllib3.PoolManager) -> None:
    bucket = "foreign-notes"
    assert create(http, cluster.node(1).endpoint, bucket) == 200
    store = the_store(cluster)
    for name, noted in {**FOREIGN, "damaged": {"ais-checksum": "0" * 16}}.items():
        store.put(f"{bucket}/{name}", name.encode(), noted)
    for name in FOREIGN:
        for node in cluster.running:
            url = f"{node.endpoint}/v1/objects/{bucket}/{name}"
            for method in ("HEAD", "GET", "GET"):
                answer = http.request(method, url)
                assert (answer.status, answer.headers["ais-version"]) == (200, "1"), (name, method, answer.data)
                assert answer.headers.get("ais-custom-md") == ("good=1" if "splits" in name else None)
                assert "set-cookie" not in answer.headers
                assert answer.data == (name.encode() if method == "GET" else b"")
        kept = http.request("PUT", url, body=b"new", headers={"If-None-Match": "*"})
        assert kept.status == 409, (name, kept.data)
        assert http.request("PUT", url, body=b"new").headers["ais-version"] == "2"
    # Bytes that are not those of the checksum noted with them are damage, not an object.
    for node in cluster.running:
        url = f"{node.endpoint}/v1/objects/{bucket}/damaged"
        assert [http.request("GET", url).status for _ in range(2)] == [500, 500]
        assert http.request("PATCH", url, json={"action": "", "value": {"k": "v"}}).status == 500
    assert http.request("PUT", url, body=b"again").status == 200
    assert {http.request("GET", f"{n.endpoint}/v1/objects/{bucket}/damaged").data for n in cluster.running} == {
        b"again"
    }

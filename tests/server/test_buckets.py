"""Buckets, listings, the cluster map and the guard over HTTP."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec
import pytest
import urllib3

from aistore.testing import StoreProcess


@pytest.fixture(scope="module")
def http_pool(store: StoreProcess) -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False) as pool:
        yield pool


def fresh_name() -> str:
    return f"b-{uuid.uuid4().hex[:12]}"


def create(pool: urllib3.PoolManager, store: StoreProcess, name: str) -> int:
    return pool.request("POST", f"{store.endpoint}/v1/buckets/{name}", body=b'{"action":"create-bck"}').status


def test_life_of_a_bucket(http_pool: urllib3.PoolManager, store: StoreProcess) -> None:
    name = fresh_name()
    url = f"{store.endpoint}/v1/buckets/{name}"
    assert http_pool.request("HEAD", url).status == 404
    assert create(http_pool, store, name) == 200
    reply = http_pool.request("POST", url, body=b'{"action":"create_bck"}')  # as it was spelt in 2021
    assert reply.status == 409
    assert reply.json()["message"] == f'bucket "ais://{name}" already exists'
    head = http_pool.request("HEAD", url)
    assert json.loads(head.headers["ais-bucket-props"])["checksum"]["type"] == "xxhash2"
    buckets = http_pool.request(
        "GET", f"{store.endpoint}/v1/buckets?provider=ais", body=b'{"action":"list","name":"","value":null}'
    ).json()
    assert {"name": name, "provider": "ais", "namespace": {"uuid": "", "name": ""}} in buckets
    http_pool.request("PUT", f"{store.endpoint}/v1/objects/{name}/x", body=b"x" * 1000)
    assert http_pool.request("DELETE", url, body=b'{"action":"destroy-bck"}').status == 200
    assert http_pool.request("GET", f"{store.endpoint}/v1/objects/{name}/x").status == 404
    assert http_pool.request("DELETE", url, body=b'{"action":"destroy-bck"}').status == 404
    assert create(http_pool, store, name) == 200
    assert http_pool.request("GET", url).json()["entries"] == []


@pytest.mark.parametrize("name", ["a b", ".hidden", "a..b", "x" * 65, "ä", "a%2Fb"])
def test_bucket_names_that_are_refused(http_pool: urllib3.PoolManager, store: StoreProcess, name: str) -> None:
    reply = http_pool.request("POST", f"{store.endpoint}/v1/buckets/{name}", body=b'{"action":"create-bck"}')
    assert reply.status == 400, reply.data


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"action": 7}', b'{"value": null}', b"\xff\xfe", b'"x"'])
def test_bad_control_messages(http_pool: urllib3.PoolManager, store: StoreProcess, body: bytes) -> None:
    reply = http_pool.request("POST", f"{store.endpoint}/v1/buckets/{fresh_name()}", body=body)
    assert reply.status == 400
    assert reply.json()["message"]


def test_keys_of_messages_in_any_case(http_pool: urllib3.PoolManager, store: StoreProcess) -> None:
    url = f"{store.endpoint}/v1/buckets/{fresh_name()}"
    assert http_pool.request("POST", url, body=b'{"Action":"create-bck"}').status == 200


def list_page(
    pool: urllib3.PoolManager, url: str, accept: str = "application/json", **value: object
) -> dict[str, object]:
    body = json.dumps({"action": "list", "name": "", "value": value}).encode()
    reply = pool.request("GET", url, body=body, headers={"Accept": accept})
    assert reply.status == 200, reply.data
    assert reply.headers["content-type"] == accept
    page: dict[str, object] = msgspec.msgpack.decode(reply.data) if "msgpack" in accept else reply.json()
    return page


def test_listing_in_pages(http_pool: urllib3.PoolManager, store: StoreProcess) -> None:
    name = fresh_name()
    create(http_pool, store, name)
    names = sorted([f"dir{i % 3}/{i:03d}" for i in range(25)] + ["dir1", "dir1-x", "zé"], key=str.encode)
    for each in names:
        http_pool.request("PUT", f"{store.endpoint}/v1/objects/{name}/{each}", body=each.encode())
    url = f"{store.endpoint}/v1/buckets/{name}"
    for accept, keys in (
        ("application/json", ("entries", "name", "continuation_token")),
        ("application/msgpack", ("Entries", "n", "ContinuationToken")),
    ):
        listed: list[str] = []
        token = ""
        while True:
            page = list_page(http_pool, url, accept, pagesize=4, continuation_token=token)
            entries: list[dict[str, str]] = page[keys[0]]  # type: ignore[assignment]
            assert len(entries) <= 4
            listed += [entry[keys[1]] for entry in entries]
            token = str(page[keys[2]])
            if not token:
                break
        assert listed == names
    page = list_page(http_pool, url, prefix="dir1", start_after="dir1/010", props="name,size,version,checksum,atime")
    assert [entry["name"] for entry in page["entries"]] == [  # type: ignore[union-attr,index]
        each for each in names if each.startswith("dir1") and each > "dir1/010"
    ]
    first = page["entries"][0]  # type: ignore[index]
    assert (first["size"], first["version"]) == ("8", "1")


def test_listing_refuses_what_it_cannot_do(http_pool: urllib3.PoolManager, store: StoreProcess) -> None:
    name = fresh_name()
    create(http_pool, store, name)
    url = f"{store.endpoint}/v1/buckets/{name}"
    for value, status in (
        ({"props": "nonsense"}, 400),
        ({"pagesize": "many"}, 400),
        ({"prefix": 7}, 400),
        ({"flags": "8"}, 501),
        ({"flags": "x"}, 400),
    ):
        body = json.dumps({"action": "list", "value": value}).encode()
        assert http_pool.request("GET", url, body=body).status == status, value
    reply = http_pool.request("GET", f"{store.endpoint}/v1/buckets/{fresh_name()}")
    assert reply.status == 404


def test_easy_urls(http_pool: urllib3.PoolManager, store: StoreProcess) -> None:
    name = fresh_name()
    create(http_pool, store, name)
    assert http_pool.request("PUT", f"{store.endpoint}/ais/{name}/a/b", body=b"x").status == 200
    assert http_pool.request("GET", f"{store.endpoint}/ais/{name}/a/b").data == b"x"
    assert [entry["name"] for entry in http_pool.request("GET", f"{store.endpoint}/ais/{name}").json()["entries"]] == [
        "a/b"
    ]


def test_cluster_map_and_health(http_pool: urllib3.PoolManager, store: StoreProcess) -> None:
    assert http_pool.request("GET", f"{store.endpoint}/v1/health").status == 200
    smap = http_pool.request("GET", f"{store.endpoint}/v1/daemon?what=smap").json()
    (target,) = smap["tmap"].values()
    assert target["public_net"]["direct_url"] == store.endpoint
    assert smap["version"] == "1"
    status = http_pool.request(
        "GET", f"{store.endpoint}/v1/reverse/daemon?what=node_status", headers={"Ais-Node-Id": target["daemon_id"]}
    )
    assert status.json()["status"] == "online"
    assert http_pool.request("GET", f"{store.endpoint}/v1/daemon?what=nonsense").status == 501
    assert http_pool.request("GET", f"{store.endpoint}/v1/daemon").status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "localhost:1234"}, 200),
        ({}, 200),
    ],
)
def test_web_pages_cannot_change_the_store(
    http_pool: urllib3.PoolManager, store: StoreProcess, headers: dict[str, str], status: int
) -> None:
    url = f"{store.endpoint}/v1/buckets/{fresh_name()}"
    reply = http_pool.request("POST", url, body=b'{"action":"create-bck"}', headers=headers)
    assert reply.status == status, reply.data


def test_a_foreign_name_for_this_machine_may_not_even_read(http_pool: urllib3.PoolManager, store: StoreProcess) -> None:
    for path in ("/v1/buckets", "/v1/objects/b/x", "/v1/etl"):
        reply = http_pool.request("GET", store.endpoint + path, headers={"Host": "rebound.example:8080"})
        assert reply.status == 403
        assert "--allow-host rebound.example" in reply.json()["hint"]


def test_a_page_of_the_store_itself_may(http_pool: urllib3.PoolManager, store: StoreProcess) -> None:
    url = f"{store.endpoint}/v1/buckets/{fresh_name()}"
    headers = {"Origin": store.endpoint, "Host": urlsplit(store.endpoint).netloc}
    assert http_pool.request("POST", url, body=b'{"action":"create-bck"}', headers=headers).status == 200

"""Replies that are found ready made: whatever a request asks for beside the object still counts."""

from __future__ import annotations

import os
from collections.abc import Callable

import urllib3

from aistore.testing import StoreProcess

NewStore = Callable[..., StoreProcess]
TOKEN = {"authorization": "Bearer not-a-secret"}


def test_a_kept_reply_is_for_those_who_may_read(new_store: NewStore) -> None:
    store = new_store(arguments=("--workers", "1"), env={"AIS_AUTHN_TOKEN": "not-a-secret"})
    data = os.urandom(20_000)
    with urllib3.PoolManager(retries=False, headers=TOKEN) as pool:
        url = object_url(pool, store)
        assert pool.request("PUT", url, body=data).status == 200
        for _ in range(3):
            assert pool.request("GET", url).data == data
        for headers in ({}, {"authorization": "Bearer wrong"}):
            assert pool.request("GET", url, headers=headers).status == 401
            assert pool.request("HEAD", url, headers=headers).status == 401
        foreign = {**TOKEN, "host": "attacker.example"}
        assert pool.request("GET", url, headers=foreign).status == 403
        assert pool.request("GET", url).data == data


def test_a_kept_reply_is_for_plain_requests(new_store: NewStore) -> None:
    store = new_store(arguments=("--workers", "1"))
    with urllib3.PoolManager(retries=False) as pool:
        url = object_url(pool, store)
        for version in range(1, 4):
            data = os.urandom(20_000)
            assert pool.request("PUT", url, body=data).status == 200
            for _ in range(3):
                reply = pool.request("GET", url)
                assert (reply.status, reply.data) == (200, data)
                assert reply.headers["ais-version"] == str(version)
                part = pool.request("GET", url, headers={"range": "bytes=5-9"})
                assert (part.status, part.data) == (206, data[5:10])
                head = pool.request("HEAD", url)
                assert (head.status, head.data, head.headers["content-length"]) == (200, b"", "20000")
                assert head.headers["ais-name"] == "x"
                some = pool.request("HEAD", f"{url}?props=version")
                assert (some.headers["ais-version"], some.headers.get("ais-name")) == (str(version), None)
                assert pool.request("GET", f"{url}?etl_name=no-such-etl").status == 404
                assert pool.request("POST", url).status == 400
        assert pool.request("DELETE", url).status in (200, 204)
        assert pool.request("GET", url).status == 404
        assert pool.request("HEAD", url).status == 404


def object_url(pool: urllib3.PoolManager, store: StoreProcess) -> str:
    reply = pool.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}')
    assert reply.status == 200, reply.data
    return f"{store.endpoint}/v1/objects/b/x"

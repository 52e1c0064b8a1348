"""Ids of requests and what the store's log says of them: enough to find an error again, and never a secret."""

from __future__ import annotations

import asyncio
import glob
import json
import logging
import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

from aistore.observe import layout
from aistore.observe.counters import COUNTERS
from aistore.server.record import Recorder, Recording, shown_query
from aistore.settings import Limits, ServeSettings
from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

NewStore = Callable[..., StoreProcess]
TOKEN = "a-token-that-nobody-may-see"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def logged(store: StoreProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.errors().splitlines()]


def accesses(store: StoreProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.errors().split("\n")[:-1] if '"aistore.access"' in line]


def test_every_request_has_an_id(store: StoreProcess) -> None:
    with urllib3.PoolManager(retries=False) as pool:
        bucket = f"{store.endpoint}/v1/buckets/ids"
        seen = [pool.request("POST", bucket, body=b'{"action":"create-bck"}').headers["x-request-id"]]
        for path in ("/v1/health", "/v1/objects/ids/missing", "/v1/no-such-path", "/v1/objects/ids/%ff"):
            seen.append(pool.request("GET", store.endpoint + path).headers["x-request-id"])
        assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", name) for name in seen)
        assert len(set(seen)) == len(seen)
        reply = pool.request("GET", f"{store.endpoint}/v1/objects/ids/missing")
        assert reply.json()["request_id"] == reply.headers["x-request-id"]
        head = pool.request("HEAD", f"{store.endpoint}/v1/objects/ids/missing")
        assert json.loads(head.headers["hdr-error"])["request_id"] == head.headers["x-request-id"]


def test_a_clients_own_id_is_kept(store: StoreProcess) -> None:
    with urllib3.PoolManager(retries=False) as pool:
        pool.request("POST", f"{store.endpoint}/v1/buckets/own-ids", body=b'{"action":"create-bck"}')
        url = f"{store.endpoint}/v1/objects/own-ids/x"
        assert (
            pool.request("PUT", url, body=b"x" * 2000, headers={"x-request-id": "put-1"}).headers["x-request-id"]
            == "put-1"
        )
        for number in range(5):  # on the event loop, answered at once, and from memory
            reply = pool.request("GET", url, headers={"x-request-id": f"get-{number}"})
            assert (reply.data, reply.headers["x-request-id"]) == (b"x" * 2000, f"get-{number}")
            assert pool.request("GET", url).headers.get("x-request-id") != f"get-{number}"
            assert pool.request("HEAD", url, headers={"x-request-id": "h"}).headers["x-request-id"] == "h"
        for bad in ("a b", "x" * 129, '"', "a,b"):
            reply = pool.request("GET", f"{store.endpoint}/v1/health", headers={"x-request-id": bad})
            assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", reply.headers["x-request-id"])


def test_what_a_user_sees_is_in_the_log(new_store: NewStore) -> None:
    store = new_store(arguments=("--workers", "1", "--log-format", "json"))
    with urllib3.PoolManager(retries=False) as pool:
        pool.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}')
        url = f"{store.endpoint}/v1/objects/b/x"
        assert pool.request("PUT", url, body=b"x" * 5000).status == 200
        code = encode_base64("def transform(data):\n    raise ValueError('no such picture')\n")
        assert (
            pool.request("POST", f"{store.endpoint}/v1/etl/init_code", json={"code": code, "id": "fail-it"}).status
            == 200
        )
        assert pool.request("GET", f"{store.endpoint}/v1/objects/b/missing").status == 404  # is in no log
        failed = pool.request("GET", f"{url}?etl_name=fail-it")
        entries = {"entries": [["x", "fail-it"]]}
        batch = pool.request("POST", f"{store.endpoint}/v1/batch/b", json=entries, headers={"x-request-id": "my-batch"})
        assert b'"request_id":"my-batch"' in batch.data
        pool.request("PUT", f"{store.endpoint}/v1/objects/b/lost", body=b"y" * 6000)
        (file,) = (
            path for path in glob.glob(f"{glob.escape(store.data)}/mp*/data/*/*") if os.path.getsize(path) > 6000
        )
        os.unlink(file)
        broken = pool.request("GET", f"{store.endpoint}/v1/objects/b/lost")
        assert (failed.status, broken.status) == (422, 500)
    transform, entry, damage, lost = logged(store)
    assert (transform["request"], transform["code"], transform["level"]) == (
        failed.json()["request_id"], "ErrETLTransform", "warning",
    )  # fmt: skip
    assert transform["error"].endswith("ValueError: no such picture")
    assert "ais://b/x" in transform["error"]
    assert entry["request"] == "my-batch"
    assert (damage["logger"], damage["level"]) == ("aistore.storage", "error")
    assert (lost["request"], lost["code"], lost["level"]) == (broken.json()["request_id"], "ErrObjDamaged", "error")


def test_the_access_log_has_every_request_and_no_secret(new_store: NewStore) -> None:
    arguments = ("--workers", "1", "--log-format", "json", "--log-level", "debug", "--access-log")
    store = new_store(arguments=arguments, env={"AIS_AUTHN_TOKEN": TOKEN})
    other = "another-secret"
    with urllib3.PoolManager(retries=False, headers=BEARER) as pool:
        pool.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}')
        url = f"{store.endpoint}/v1/objects/b/x"
        ids = [pool.request("PUT", url, body=b"x" * 2000).headers["x-request-id"]]
        ids += [pool.request("GET", url).headers["x-request-id"] for _ in range(4)]
        ids.append(pool.request("GET", url, headers={**BEARER, "x-request-id": "mine"}).headers["x-request-id"])
        pool.request("GET", f"{url}?provider=ais&X-Amz-Signature={other}&etl_args={other}")
        pool.request("GET", f"{url}?what=%0aforged&token={TOKEN}")
        pool.request("GET", f"{store.endpoint}/v1/objects/b/{TOKEN}")
        pool.request("GET", url, headers={"authorization": f"Bearer {other}"})
        deadline = time.monotonic() + 10  # a line is written behind its reply
        while len(access := accesses(store)) < 11 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(access) == 11
    assert [event["request"] for event in access[1:7]] == ids
    assert len(set(ids)) == len(ids)
    put, get = access[1], access[4]
    assert (put["method"], put["path"], put["status"], put["in_bytes"]) == ("PUT", "/v1/objects/b/x", 200, 2000)
    assert (get["method"], get["status"], get["out_bytes"]) == ("GET", 200, 2000)
    assert get["ms"] > 0
    assert re.fullmatch(r"127\.0\.0\.1:\d+", get["client"])
    assert access[7]["query"] == "provider=ais&X-Amz-Signature=***&etl_args=***"
    assert access[10]["status"] == 401
    assert TOKEN not in store.errors()
    assert other not in store.errors()


def test_queries_are_shown_without_what_may_be_a_secret() -> None:
    assert shown_query("what=smap&props=name,size") == "what=smap&props=name,size"
    assert shown_query("token=a&password=b&X-Amz-Signature=c") == "token=***&password=***&X-Amz-Signature=***"
    assert shown_query("flag&empty=") == "flag=&empty="
    assert len(shown_query("a=b&" * 10_000)) < 10_000


def test_requests_that_begin_late_to_answer_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    scope = {
        "type": "http", "method": "GET", "raw_path": b"/v1/objects/b/x", "query_string": b"token=secret",
        "headers": [(b"x-request-id", b"slow-1")], "client": ("127.0.0.1", 1),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None: ...

    async def request(slow_seconds: float) -> None:
        settings = ServeSettings(data="", limits=Limits(slow_request_seconds=slow_seconds))
        with Recording(Recorder(settings), scope, receive, send) as recording:
            await recording.send({"type": "http.response.start", "status": 200, "headers": []})
            await recording.send({"type": "http.response.body", "body": b"x"})

    before = COUNTERS.words[layout.SLOW]
    with caplog.at_level(logging.WARNING, "aistore.server"):
        asyncio.run(request(60.0))
        assert not caplog.records
        asyncio.run(request(0.0))
    (record,) = caplog.records
    assert record.getMessage() == "slow request"
    found = vars(record)["fields"]
    assert (found["method"], found["path"], found["query"], found["status"]) == (
        "GET",
        "/v1/objects/b/x",
        "token=***",
        200,
    )
    assert COUNTERS.words[layout.SLOW] == before + 1

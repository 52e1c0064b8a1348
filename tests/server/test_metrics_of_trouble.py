"""Metrics of what should not happen: limits that were hit, replies that were cut, damage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import urllib3
from raw_http import connect, exchange, make_bucket, read_head, statuses

from aistore import errors
from aistore.client import Client
from aistore.observe import layout
from aistore.testing import StoreProcess

NewStore = Callable[..., StoreProcess]


def metric(store: StoreProcess, name: str) -> float:
    """Return one metric, 0 if it has no sample."""
    lines = urllib3.request("GET", f"{store.endpoint}/metrics").data.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def reaches(store: StoreProcess, name: str, value: float) -> None:
    deadline = time.monotonic() + 30
    while (found := metric(store, name)) != value:
        assert time.monotonic() < deadline, (name, found, value)
        time.sleep(0.05)


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", "")).encode()


def test_every_error_of_the_wire_has_a_word_of_its_own() -> None:
    kinds = {errors.AisError}
    while more := {child for kind in kinds for child in kind.__subclasses__()} - kinds:
        kinds |= more
    # Defined elsewhere, an error would shift the words of processes that import it.
    assert {kind.__module__ for kind in kinds} == {errors.__name__}
    codes = {kind.code for kind in kinds}
    assert len({layout.error_word(code) for code in codes}) == len(codes)
    assert layout.error_word("other") not in {layout.error_word(code) for code in codes}
    for code in ("ErrObjDamaged", "ErrMountpathUnavailable", "ErrRequestTimeout", "ErrPreconditionFailed"):
        assert code in codes


def test_limits_that_were_hit_are_counted(new_store: NewStore) -> None:
    limits = ("requests_max=4", "body_bytes_max=10000", "body_stall_seconds=1")
    store = new_store(arguments=("--workers", "1", *(part for limit in limits for part in ("--limit", limit))))
    path = f"/v1/objects/{make_bucket(store)}/x"
    with ExitStack() as held:
        for _ in range(4):
            waiting = held.enter_context(connect(store))
            waiting.sendall(head("PUT", path, "Content-Length: 10", "Expect: 100-continue"))
            assert statuses(read_head(waiting)) == [100]
        assert statuses(exchange(store, head("GET", "/v1/buckets", "Connection: close"))) == [503]
        reaches(store, "ais_target_stalled_body_count", 4)
    assert statuses(exchange(store, head("PUT", path, "Content-Length: 20000", "Connection: close"))) == [503]
    assert metric(store, "ais_target_refused_request_count") == 2
    assert metric(store, 'ais_target_errors_total{tcode="ErrRequestTimeout"}') == 4
    reaches(store, "ais_target_inflight_requests", 1)


def test_replies_that_were_left_are_counted(new_store: NewStore) -> None:
    store = new_store(arguments=("--workers", "1"))
    path = f"/v1/objects/{make_bucket(store)}/x"
    assert urllib3.request("PUT", store.endpoint + path, body=bytes(64 << 20)).status == 200
    for _ in range(3):
        with connect(store, receive_bytes=4096) as connection:
            connection.sendall(head("GET", path))
            read_head(connection)
    reaches(store, "ais_target_cut_reply_count", 3)
    assert metric(store, "ais_target_err_get_count") == 3
    reaches(store, "ais_target_inflight_requests", 1)


def test_damage_is_counted_once_by_its_finder(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store(str(tmp_path / "data"), arguments=("--workers", "2"))
    reaches(store, "ais_target_scrub_pass_count", 1)  # the first one, of nothing
    with Client(store.endpoint) as client:
        bucket = client.bucket("b").create()
        for name in ("by-read", "by-scrub", "sound"):
            bucket.object(name).put(name.encode() + os.urandom(20_000))
        for path in (tmp_path / "data").rglob("*"):
            if path.is_file() and path.read_bytes().startswith(b"by-"):
                with path.open("r+b") as file:
                    file.write(b"B")
        for _ in range(4):
            assert urllib3.request("GET", f"{store.endpoint}/v1/objects/b/by-read", retries=False).status == 500
        began = client.start_scrub().began
        while (report := client.scrub_report()).running or report.began < began:
            time.sleep(0.05)
    found = {
        "read_damage_count": 1, "scrub_damage_count": 1, "scrub_object_count": 3,
        "scrub_bytes": report.bytes, "scrub_pass_count": 2,
    }  # fmt: skip
    assert {name: metric(store, f"ais_target_{name}") for name in found} == found
    assert metric(store, 'ais_target_errors_total{tcode="ErrObjDamaged"}') == 4

"""Objects over HTTP, by the words of the wire: what curl and the field's clients send."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
import urllib3
import xxhash

from aistore.testing import StoreProcess


@pytest.fixture(scope="module")
def http_pool(store: StoreProcess) -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False) as pool:
        yield pool


@pytest.fixture
def bucket(store: StoreProcess, http_pool: urllib3.PoolManager) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    reply = http_pool.request("POST", f"{store.endpoint}/v1/buckets/{name}", body=b'{"action":"create-bck"}')
    assert reply.status == 200, reply.data
    return f"{store.endpoint}/v1/objects/{name}"


def error_of(reply: urllib3.BaseHTTPResponse) -> dict[str, object]:
    body: dict[str, object] = json.loads(reply.data)
    assert body["status"] == reply.status
    return body


@pytest.mark.parametrize("size", [0, 1, 256, 257, 20_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000])
def test_what_is_put_is_got(http_pool: urllib3.PoolManager, bucket: str, size: int) -> None:
    data = os.urandom(size)
    reply = http_pool.request("PUT", f"{bucket}/x", body=data)
    assert (reply.status, reply.data) == (200, b"")
    reply = http_pool.request("GET", f"{bucket}/x")
    assert reply.status == 200
    assert reply.data == data
    assert reply.headers["content-length"] == str(size)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["ais-checksum-type"] == "xxhash2"
    assert reply.headers["ais-checksum-value"] == xxhash.xxh64_hexdigest(data)
    assert reply.headers["ais-version"] == "1"
    head = http_pool.request("HEAD", f"{bucket}/x")
    assert head.status == 200
    assert head.headers["content-length"] == str(size)
    assert head.headers["ais-checksum-value"] == reply.headers["ais-checksum-value"]


def test_versions_count_overwrites(http_pool: urllib3.PoolManager, bucket: str) -> None:
    for version in ("1", "2", "3"):
        assert http_pool.request("PUT", f"{bucket}/x", body=version.encode() * 1000).status == 200
        assert http_pool.request("HEAD", f"{bucket}/x").headers["ais-version"] == version


def test_a_chunked_put_streams(http_pool: urllib3.PoolManager, bucket: str) -> None:
    pieces = [os.urandom(70_000) for _ in range(40)]
    reply = http_pool.request("PUT", f"{bucket}/x", body=iter(pieces), headers={"Transfer-Encoding": "chunked"})
    assert reply.status == 200
    assert http_pool.request("GET", f"{bucket}/x").data == b"".join(pieces)


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=5-", 206, 5, 3_000_000),
        ("bytes=-7", 206, 2_999_993, 3_000_000),
        ("bytes=10-99999999", 206, 10, 3_000_000),
        ("bytes=1000-2999", 206, 1000, 3000),
        ("bytes=-99999999", 206, 0, 3_000_000),
        ("bytes=3000000-", 416, 0, 0),
        ("bytes=9-3", 416, 0, 0),
        ("bytes=0-1,4-5", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=-", 400, 0, 0),
        ("lines=1-2", 400, 0, 0),
        ("bytes=" + "9" * 40 + "-", 416, 0, 0),
    ],
)
def test_ranges(http_pool: urllib3.PoolManager, bucket: str, wanted: str, status: int, start: int, end: int) -> None:
    data = bytes(range(256)) * (3_000_000 // 256 + 1)
    data = data[:3_000_000]
    http_pool.request("PUT", f"{bucket}/x", body=data)
    reply = http_pool.request("GET", f"{bucket}/x", headers={"Range": wanted})
    assert reply.status == status, reply.data[:200]
    if status == 206:
        assert reply.data == data[start:end]
        assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/3000000"


@pytest.mark.parametrize(
    "name",
    [
        "a/b c.txt",
        "100%",
        "%2F",
        "a#b?c",
        "ünï/çødé.jpg",
        "日本/語",
        "a//b",
        "/leading",
        "a+b",
        "\U0001f600",
        "x" * 1024,
    ],
)
def test_names_survive_the_url(http_pool: urllib3.PoolManager, bucket: str, name: str) -> None:
    url = f"{bucket}/{quote(name, safe='/')}"
    assert http_pool.request("PUT", url, body=name.encode()).status == 200
    assert http_pool.request("GET", url).data == name.encode()
    everything_quoted = f"{bucket}/{quote(name, safe='')}"
    assert http_pool.request("GET", everything_quoted).data == name.encode()
    bucket_name = urlsplit(bucket).path.rpartition("/")[2]
    listing = http_pool.request("GET", bucket.replace(f"/objects/{bucket_name}", f"/buckets/{bucket_name}"))
    assert [entry["name"] for entry in listing.json()["entries"]] == [name]
    assert http_pool.request("DELETE", url).status == 200
    assert http_pool.request("GET", url).status == 404


@pytest.mark.parametrize("name", ["", "dir/", "../x", "a/../b", "a/./b", "~/x", "x" * 1025, "%FF"])
def test_names_that_no_object_can_have(store: StoreProcess, bucket: str, name: str) -> None:
    """Sent by http.client, because urllib3 tidies paths up before it sends them."""
    parts = urlsplit(bucket)
    for method in ("PUT", "GET"):
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        connection.request(method, f"{parts.path}/{name}", body=b"x" if method == "PUT" else None)
        reply = connection.getresponse()
        body = json.loads(reply.read())
        connection.close()
        assert reply.status == 400, (method, body)
        assert body["message"]


def test_checksums_are_verified(http_pool: urllib3.PoolManager, bucket: str) -> None:
    data = os.urandom(10_000)
    for kind, digest in (
        ("md5", hashlib.md5(data).hexdigest()),
        ("sha256", hashlib.sha256(data).hexdigest()),
        ("xxhash2", xxhash.xxh64_hexdigest(data)),
    ):
        good = {"ais-checksum-type": kind, "ais-checksum-value": digest}
        assert http_pool.request("PUT", f"{bucket}/good", body=data, headers=good).status == 200
        bad = {"ais-checksum-type": kind, "ais-checksum-value": digest[::-1]}
        for body in (data, data * 200):  # whole, and staged
            reply = http_pool.request("PUT", f"{bucket}/bad", body=body, headers=bad)
            assert reply.status == 400
            assert error_of(reply)["tcode"] == "ErrBadChecksum"
    assert http_pool.request("GET", f"{bucket}/bad").status == 404
    reply = http_pool.request(
        "PUT", f"{bucket}/x", body=b"x", headers={"ais-checksum-type": "rot13", "ais-checksum-value": "0"}
    )
    assert reply.status == 400


def test_custom_metadata(http_pool: urllib3.PoolManager, bucket: str) -> None:
    for size in (10, 10_000):
        reply = http_pool.request("PUT", f"{bucket}/x", body=b"x" * size, headers={"ais-custom-md": "a=1, b=two words"})
        assert reply.status == 200
        assert http_pool.request("GET", f"{bucket}/x").headers["ais-custom-md"] == "a=1, b=two words"
        body = b'{"action":"","name":"","value":{"b":"2","c":"3"}}'
        assert http_pool.request("PATCH", f"{bucket}/x", body=body).status == 200
        assert http_pool.request("HEAD", f"{bucket}/x").headers["ais-custom-md"] == "a=1, b=2, c=3"
        assert http_pool.request("PATCH", f"{bucket}/x?set-new-custom=True", body=body).status == 200
        assert http_pool.request("HEAD", f"{bucket}/x").headers["ais-custom-md"] == "b=2, c=3"
        assert http_pool.request("GET", f"{bucket}/x").data == b"x" * size
    for value in ("novalue", "a=1, =2"):
        assert http_pool.request("PUT", f"{bucket}/y", body=b"", headers={"ais-custom-md": value}).status == 400


def test_errors_say_what_and_where(http_pool: urllib3.PoolManager, store: StoreProcess, bucket: str) -> None:
    name = bucket.rpartition("/")[2]
    reply = http_pool.request("GET", f"{bucket}/missing")
    assert reply.status == 404
    assert error_of(reply)["message"] == f"ais://{name}/missing does not exist"
    assert http_pool.request("DELETE", f"{bucket}/missing").status == 404
    head = http_pool.request("HEAD", f"{bucket}/missing")
    assert head.status == 404
    assert json.loads(head.headers["hdr-error"])["tcode"] == "ErrObjNotFound"
    for method in ("GET", "PUT", "DELETE"):
        reply = http_pool.request(
            method, f"{store.endpoint}/v1/objects/no-such-bucket/x", body=b"x" if method == "PUT" else None
        )
        assert reply.status == 404, method
        assert error_of(reply)["message"] == 'bucket "ais://no-such-bucket" does not exist'
    assert http_pool.request("GET", f"{bucket}/x?provider=s3").status == 404
    assert http_pool.request("GET", f"{bucket}/x?provider=oci").status == 501
    assert http_pool.request("GET", f"{bucket}/x?provider=nonsense").status == 400
    reply = http_pool.request("OPTIONS", f"{bucket}/x")
    assert reply.status == 405
    assert "GET" in reply.headers["allow"]
    assert http_pool.request("GET", f"{store.endpoint}/nonsense").status == 404
    assert http_pool.request("GET", f"{bucket}/x?archpath=a.txt").status == 501


def send_raw(endpoint: str, data: bytes) -> bytes:
    """Send bytes, close our half, return everything that comes back."""
    parts = urlsplit(endpoint)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100\r\n\r\nabc",
        b"Content-Length: 5000000\r\n\r\n" + b"x" * 2_000_000,
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n200000\r\n" + b"x" * 0x200000 + b"\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_a_body_cut_short_is_never_stored(
    store: StoreProcess, http_pool: urllib3.PoolManager, bucket: str, body: bytes
) -> None:
    path = urlsplit(bucket).path
    http_pool.request("PUT", f"{bucket}/x", body=b"what was there")
    send_raw(store.endpoint, f"PUT {path}/x HTTP/1.1\r\nHost: localhost\r\n".encode() + body)
    reply = http_pool.request("GET", f"{bucket}/x")
    assert reply.data == b"what was there"
    assert reply.headers["ais-version"] == "1"


def test_if_none_match_creates_once(http_pool: urllib3.PoolManager, bucket: str) -> None:
    statuses: list[int] = []

    def create(number: int) -> None:
        with urllib3.PoolManager(retries=False) as pool:
            reply = pool.request("PUT", f"{bucket}/once", body=b"%d" % number, headers={"If-None-Match": "*"})
            statuses.append(reply.status)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, *[409] * 7]


def test_readers_keep_the_object_they_opened(http_pool: urllib3.PoolManager, bucket: str) -> None:
    """A slow reader of a large object gets one version whole, however often it is replaced or deleted meanwhile."""
    size = 24 << 20
    http_pool.request("PUT", f"{bucket}/x", body=b"1" * size)
    reply = http_pool.request("GET", f"{bucket}/x", preload_content=False)
    first = reply.read(1000)
    for digit in (b"2", b"3"):
        assert http_pool.request("PUT", f"{bucket}/x", body=digit * size).status == 200
    assert http_pool.request("DELETE", f"{bucket}/x").status == 200
    rest = reply.read()
    reply.release_conn()
    assert first + rest == b"1" * size

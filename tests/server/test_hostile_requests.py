"""Requests that no client of ours would send: each gets an answer that says so, and never a 5xx."""

from __future__ import annotations

import json
import socket
import uuid
from urllib.parse import quote, urlsplit

import pytest
import urllib3

from aistore.testing import StoreProcess


@pytest.fixture(scope="module")
def bucket(store: StoreProcess) -> str:
    name = f"hostile-{uuid.uuid4().hex[:12]}"
    assert urllib3.request("POST", f"{store.endpoint}/v1/buckets/{name}", body=b'{"action":"create-bck"}').status == 200
    return name


def exchange(store: StoreProcess, request: bytes) -> bytes:
    """Send bytes as they are and return all that comes back until the store closes the connection."""
    parts = urlsplit(store.endpoint)
    answer = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(request)
        while data := connection.recv(65536):
            answer += data
    return answer


def put(bucket: str, *headers: str, body: bytes = b"x", framing: str = "Content-Length: 1") -> bytes:
    head = [f"PUT /v1/objects/{bucket}/x HTTP/1.1", *headers, framing, "Connection: close", "", ""]
    return "\r\n".join(head).encode("latin-1") + body


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Host: [", 400), ("Host: [::1", 400), ("Host: ]", 400), ("Host: \xff", 403), ("Host: 127.0.0.1.", 403),
        ("Host: localhost.evil.example", 403), ("Host: 127.0.0.1@evil.example", 403), ("Host: [::2]:80", 403),
        ("Host: [::1]:80", 200), ("Host: LOCALHOST:80", 200), ("Host: 127.9.9.9", 200),
        ("Host: 127.0.0.1\r\nOrigin: http://[", 403), ("Host: 127.0.0.1\r\nOrigin: null", 403),
        ("Origin: null", 400), ("Host: 127.0.0.1\r\nOrigin: http://127.0.0.1:81", 403),
        ("Host: 127.0.0.1\r\nOrigin: \xff", 403), ("Host: 127.0.0.1:80\r\nOrigin: HTTP://127.0.0.1:80", 200),
    ],
)  # fmt: skip
def test_hosts_and_origins(store: StoreProcess, bucket: str, header: str, status: int) -> None:
    assert exchange(store, put(bucket, header)).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    "body",
    [
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b"3;" + b"a" * 100_000 + b"\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_malformed_chunks(store: StoreProcess, bucket: str, body: bytes) -> None:
    answer = exchange(store, put(bucket, "Host: 127.0.0.1", body=body, framing="Transfer-Encoding: chunked"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"ended before it was whole" in answer


@pytest.mark.parametrize("name", ["a\x7fb", "a\r\nX-Evil: 1", "é\x85", "😀" * 250, "\x01" * 1000])
def test_errors_of_head_are_json_in_a_header(store: StoreProcess, bucket: str, name: str) -> None:
    reply = urllib3.request("HEAD", f"{store.endpoint}/v1/objects/{bucket}/{quote(name)}")
    assert reply.status == 404
    error = json.loads(reply.headers["hdr-error"])
    assert (error["status"], error["tcode"]) == (404, "ErrObjNotFound")
    assert name[:32] in error["message"]
    assert "x-evil" not in reply.headers


@pytest.mark.parametrize("body", [b'{"a":' * 100_000, b'{"x":' + b"[" * 5000 + b"]" * 5000 + b',"entries":[["x",""]]}'])
@pytest.mark.parametrize("path", ["/v1/batch/{}", "/v1/buckets/{}", "/v1/etl/init_code"])
def test_deep_json(store: StoreProcess, bucket: str, path: str, body: bytes) -> None:
    reply = urllib3.request("POST", store.endpoint + path.format(bucket), body=body)
    assert reply.status == 400, reply.data
    assert reply.headers["connection"] == "close"


def test_an_answer_before_the_body_ends_the_connection(store: StoreProcess) -> None:
    """What is left of an unread body is no next request, and a client with a pool must know."""
    with urllib3.PoolManager(retries=False, maxsize=1) as pool:
        for size in (10, 100_000, 3_000_000):
            reply = pool.request("PUT", f"{store.endpoint}/v1/objects/no-such-bucket/x", body=b"x" * size)
            assert (reply.status, reply.headers["connection"]) == (404, "close")
            assert pool.request("GET", f"{store.endpoint}/v1/health").status == 200

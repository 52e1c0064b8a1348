"""HTTP that is no HTTP, or could be read in two ways, or is right and rare: each case with its answer.

Where nothing else is said, the connection ends after the answer, so that what follows on it is never read as a request.
"""

from __future__ import annotations

import pytest
import urllib3
from raw_http import connect, exchange, make_bucket, read_head, read_to_end, statuses

from aistore.testing import StoreProcess

HOST = b"Host: 127.0.0.1\r\n"
CLOSE = HOST + b"Connection: close\r\n"
NEXT = b"GET /v1/health HTTP/1.1\r\n" + CLOSE + b"\r\n"


@pytest.fixture(scope="module")
def bucket(store: StoreProcess) -> str:
    name = make_bucket(store)
    assert urllib3.request("PUT", f"{store.endpoint}/v1/objects/{name}/x", body=b"0123456789").status == 200
    return name


def put(framing: bytes, body: bytes = b"", headers: bytes = HOST) -> bytes:
    return b"PUT /v1/objects/BUCKET/put HTTP/1.1\r\n" + headers + framing + b"\r\n\r\n" + body


def get(headers: bytes = b"", path: bytes = b"/v1/objects/BUCKET/x", *, version: bytes = b"1.1") -> bytes:
    return b"GET " + path + b" HTTP/" + version + b"\r\n" + CLOSE + headers + b"\r\n"


#: The request, then the statuses of all answers. Each is sent with another request behind it.
FRAMING = {
    "two lengths": (put(b"Content-Length: 2\r\nContent-Length: 3", b"abc"), [400]),
    "a list of lengths": (put(b"Content-Length: 2, 2", b"ab"), [400]),
    "a length with a sign": (put(b"Content-Length: +2", b"ab"), [400]),
    "a negative length": (put(b"Content-Length: -2", b"ab"), [400]),
    "a hexadecimal length": (put(b"Content-Length: 0x2", b"ab"), [400]),
    "no length": (put(b"Content-Length:", b"ab"), [400]),
    "a length in words": (put(b"Content-Length: two", b"ab"), [400]),
    "a length beyond 64 bits": (put(b"Content-Length: 99999999999999999999", b"ab"), [400]),
    "a length beyond the disk": (put(b"Content-Length: 9223372036854775807", b"ab"), [507]),
    # RFC 9112, section 6.3: the chunks count, and the connection ends, so nothing can hide behind the length.
    "a length, then chunks": (put(b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), [200]),
    "chunks, then a length": (put(b"Transfer-Encoding: chunked\r\nContent-Length: 90", b"0\r\n\r\n"), [200]),
    "chunks twice": (put(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), [400]),
    "chunks not last": (put(b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"), [400]),
    "chunks misspelt": (put(b"Transfer-Encoding: xchunked", b"0\r\n\r\n"), [400]),
    "chunks behind a tab": (put(b"Transfer-Encoding:\x0bchunked", b"0\r\n\r\n"), [400]),
    "chunks before a space": (put(b"Transfer-Encoding : chunked", b"0\r\n\r\n"), [400]),
    "chunks in HTTP/1.0": (put(b"Transfer-Encoding: chunked", b"0\r\n\r\n").replace(b"/1.1", b"/1.0"), [400]),
    "compressed": (put(b"Transfer-Encoding: gzip", b"ab"), [400]),
    "a chunk of no size": (put(b"Transfer-Encoding: chunked", b"\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk of another size": (put(b"Transfer-Encoding: chunked", b"1\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk that is none": (put(b"Transfer-Encoding: chunked", b"GET / HTTP/1.1\r\n\r\n"), [400]),
    "a negative chunk": (put(b"Transfer-Encoding: chunked", b"-1\r\nab\r\n0\r\n\r\n"), [400]),
    "a chunk of 2^64 bytes": (put(b"Transfer-Encoding: chunked", b"10000000000000000\r\nab"), [400]),
    "a chunk with a prefix": (put(b"Transfer-Encoding: chunked", b"0x2\r\nab\r\n0\r\n\r\n"), [400]),
    "endless extensions": (put(b"Transfer-Encoding: chunked", b"2;" + b"e" * 100_000 + b"\r\nab"), [400]),
    "endless trailers": (put(b"Transfer-Encoding: chunked", b"0\r\n" + b"X: y\r\n" * 50_000), [400]),
}  # fmt: skip


@pytest.mark.parametrize("case", FRAMING)
def test_lengths_and_chunks_that_are_wrong(store: StoreProcess, bucket: str, case: str) -> None:
    request, expected = FRAMING[case]
    answer = exchange(store, request.replace(b"BUCKET", bucket.encode()) + NEXT)
    assert statuses(answer) == expected, answer
    urllib3.request("DELETE", f"{store.endpoint}/v1/objects/{bucket}/put")


HEADS = {
    "a method of the field's that is not here": (b"FOO /v1/health HTTP/1.1\r\n" + CLOSE + b"\r\n", 405),
    "a method that is none": (b"G@T{ /v1/health HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "a method in lower case": (b"get /v1/health HTTP/1.1\r\n" + CLOSE + b"\r\n", 405),
    "a method of 10,000 letters": (b"G" * 10_000 + b" /v1/health HTTP/1.1\r\n" + CLOSE + b"\r\n", 405),
    "trace": (b"TRACE /v1/health HTTP/1.1\r\n" + CLOSE + b"\r\n", 405),
    "options of all": (b"OPTIONS * HTTP/1.1\r\n" + CLOSE + b"\r\n", 404),
    "a tunnel": (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + CLOSE + b"\r\n", 404),
    "version 9.9": (get(version=b"9.9"), 400),
    "version 1.2": (get(version=b"1.2"), 400),
    "version 0.9": (b"GET /v1/health\r\n\r\n", 400),
    "version 1.0": (b"GET /v1/health HTTP/1.0\r\n\r\n", 200),
    "nothing but text": (b"hello\r\n\r\n", 400),
    "a TLS hello": (bytes.fromhex("16030100a5010000a10303") + b"\1" * 154, 400),
    "the whole address": (get(path=b"http://127.0.0.1/v1/objects/BUCKET/x"), 200),
    "lines before": (b"\r\n\r\n" + get(), 200),
    "lines that end with a line feed": (b"GET /v1/health HTTP/1.1\nHost: localhost\nConnection: close\n\n", 200),
    "a folded header": (get(b"X: a\r\n b\r\n"), 400),
    "a header of nothing": (get(b": x\r\n"), 400),
    "a header without a colon": (get(b"X\r\n"), 400),
    "a NUL in a header": (get(b"X: a\0b\r\n"), 400),
    "a bare return in a header": (get(b"X: a\rb\r\n"), 400),
    "bytes in a header": (get(b"X: \xff\xfe\r\n"), 200),
    "two hosts": (get(b"Host: evil.example\r\n"), 400),
    "two hosts, the first with a port": (get().replace(b"127.0.0.1", b"127.0.0.1:80\r\nHost: evil.example"), 400),
    "no host": (get().replace(HOST, b""), 400),
    "a host of 20,000 letters": (get().replace(b"127.0.0.1", b"x" * 20_000), 400),
    "no host in HTTP/1.0": (get(version=b"1.0").replace(HOST, b""), 200),
    "another host in the address": (get(path=b"http://evil.example/v1/objects/BUCKET/x").replace(HOST, b""), 403),
    "another host, and one in the address": (
        get(path=b"http://127.0.0.1/v1/objects/BUCKET/x").replace(b"t: 127.0.0.1", b"t: evil.example"), 403,
    ),
    "100 headers too many": (get(b"".join(b"X%d: y\r\n" % n for n in range(200))), 431),
    "a header of 200 KB": (get(b"X: " + b"y" * 200_000 + b"\r\n"), 431),
    "a path of 100 KB": (get(path=b"/v1/objects/BUCKET/" + b"x" * 100_000), 414),
    "a path of 2 KB": (get(path=b"/v1/objects/BUCKET/" + b"x" * 2000), 400),
    "no path": (b"GET  HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "a path without a slash": (get(path=b"v1/health"), 400),
    "a NUL in the path": (get(path=b"/v1/objects/BUCKET/a\0b"), 400),
    "bytes in the path": (get(path=b"/v1/objects/BUCKET/\xff"), 400),
    "an encoded NUL": (get(path=b"/v1/objects/BUCKET/a%00b"), 404),
    "encoded bytes that are no UTF-8": (get(path=b"/v1/objects/BUCKET/%ff"), 400),
    "an encoded surrogate": (get(path=b"/v1/objects/BUCKET/%ed%a0%80"), 400),
    "an overlong slash": (get(path=b"/v1/objects/BUCKET/..%c0%af.."), 400),
    "percent signs alone": (get(path=b"/v1/objects/BUCKET/%zz%2%"), 404),
    "dots": (get(path=b"/v1/objects/BUCKET/../../../../etc/passwd"), 400),
    "encoded dots": (get(path=b"/v1/objects/BUCKET/%2e%2e/%2e%2e/etc/passwd"), 400),
    "encoded twice": (get(path=b"/v1/objects/BUCKET/%2578"), 404),
    "an encoded letter": (get(path=b"/v1/objects/BUCKET/%78"), 200),
    "a query that is no UTF-8": (get(path=b"/v1/objects/BUCKET/x?%ff=%fe"), 400),
    "a query of nothing": (get(path=b"/v1/objects/BUCKET/x?&&=&?"), 200),
    "an upgrade to web sockets": (
        get(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n"),
        200,
    ),
    "an upgrade to HTTP/2": (get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n"), 200),
    "an expectation that is none": (get(b"Expect: banana\r\n"), 200),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_request_lines_and_headers(store: StoreProcess, bucket: str, case: str) -> None:
    request, expected = HEADS[case]
    answer = exchange(store, request.replace(b"BUCKET", bucket.encode()))
    assert statuses(answer) == [expected], answer


def test_http_2_is_not_spoken(store: StoreProcess) -> None:
    assert statuses(exchange(store, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")) in ([], [400])


RANGES = {
    b"Range: bytes=2-4": (206, b"234"), b"Range: bytes=8-": (206, b"89"), b"Range: bytes=-3": (206, b"789"),
    b"Range: bytes=0-999999999999999999999999": (416, None), b"Range: bytes=5-999": (206, b"56789"),
    b"Range: bytes=-99999999999999999": (206, b"0123456789"), b"Range: bytes=10-": (416, None),
    b"Range: bytes=-0": (416, None), b"Range: bytes=5-2": (416, None), b"Range: bytes=0-1,3-4": (416, None),
    b"Range: bytes=" + b"0-1," * 10_000: (416, None), b"Range: bytes=abc": (400, None), b"Range: bytes=-": (400, None),
    b"Range: items=0-1": (400, None), b"Range: \xff": (400, None), b"Range: bytes=\xb2-\xb3": (400, None),
    b"Range:": (400, None), b"Range: bytes=0-1\r\nRange: bytes=2-3": (416, None),
    b'Range: bytes=2-4\r\nIf-Range: "another"': (200, b"0123456789"),
    b"Range: bytes=2-4\r\nIf-Range: Sun, 22 Nov 2026 00:00:00 GMT": (200, b"0123456789"),
    b"If-Match: \xff": (412, None), b"If-None-Match: garbage": (200, b"0123456789"),
    b"If-Modified-Since: never": (200, b"0123456789"), b"If-Unmodified-Since: \xff": (200, b"0123456789"),
}  # fmt: skip


@pytest.mark.parametrize("header", RANGES, ids=lambda header: repr(header[:40]))
def test_ranges_and_conditions_of_reads(store: StoreProcess, bucket: str, header: bytes) -> None:
    expected, body = RANGES[header]
    answer = exchange(store, get(header + b"\r\n").replace(b"BUCKET", bucket.encode()))
    assert statuses(answer) == [expected], answer
    assert body is None or answer.partition(b"\r\n\r\n")[2] == body


def test_a_range_meant_for_this_object(store: StoreProcess, bucket: str) -> None:
    url = f"{store.endpoint}/v1/objects/{bucket}/x"
    etag = urllib3.request("HEAD", url, fields={"props": "etag"}).headers["etag"]
    reply = urllib3.request("GET", url, headers={"Range": "bytes=2-4", "If-Range": etag})
    assert (reply.status, reply.data) == (206, b"234")


@pytest.mark.parametrize(
    ("condition", "status"),
    [("If-Match: *", 501), ("If-Unmodified-Since: x", 501), ("If-None-Match: \xff", 400), ("If-None-Match: *", 409)],
)
def test_conditions_of_writes_are_never_ignored(store: StoreProcess, bucket: str, condition: str, status: int) -> None:
    request = put(b"Content-Length: 3", b"new", HOST + condition.encode("latin-1") + b"\r\n")
    answer = exchange(store, request.replace(b"BUCKET/put", bucket.encode() + b"/x"))
    assert statuses(answer) == [status], answer
    assert urllib3.request("GET", f"{store.endpoint}/v1/objects/{bucket}/x").data == b"0123456789"


def test_replies_to_a_pipeline_come_in_order(store: StoreProcess, bucket: str) -> None:
    """Also behind requests with bodies, of every path through the server: at once, in a thread, staged, refused."""
    names = [f"p{number}" for number in range(20)]
    requests = b""
    for number, name in enumerate(names):
        body = name.encode() * (1 if number % 2 else 200_000)
        requests += put(b"Content-Length: %d" % len(body), body).replace(b"/put", b"/" + name.encode())
        chunk = b"Transfer-Encoding: chunked"
        requests += put(chunk, b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nTrailer: 1\r\n\r\n").replace(b"/put", b"/chunked")
        for path in (
            f"/v1/objects/BUCKET/{name}",
            "/v1/health",
            "/v1/objects/BUCKET/none",
            "/v1/objects/BUCKET/chunked",
        ):
            requests += f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    answer = exchange(store, requests.replace(b"BUCKET", bucket.encode()) + NEXT)
    assert statuses(answer) == [200, 200, 200, 200, 404, 200] * len(names) + [200]
    bodies = b"".join(name.encode() * (1 if number % 2 else 200_000) for number, name in enumerate(names))
    sent = [part for part in answer.split(b"\r\n\r\n") if part.startswith(b"p")]
    assert b"".join(part.partition(b"HTTP/1.1 ")[0] for part in sent) == bodies


def test_a_body_that_is_longer_than_its_length_is_the_next_request(store: StoreProcess, bucket: str) -> None:
    answer = exchange(store, put(b"Content-Length: 2", b"abcde").replace(b"BUCKET", bucket.encode()) + NEXT)
    assert statuses(answer) == [200, 405]  # "cdeGET"
    assert urllib3.request("GET", f"{store.endpoint}/v1/objects/{bucket}/put").data == b"ab"


@pytest.mark.parametrize("framing", [b"Content-Length: 50", b"Transfer-Encoding: chunked"])
def test_a_body_that_ends_early_is_an_error(store: StoreProcess, bucket: str, framing: bytes) -> None:
    request = put(framing, b"9\r\nabc").replace(b"BUCKET/put", bucket.encode() + b"/early")
    answer = exchange(store, request, end=True)
    assert statuses(answer) in ([], [400]), answer
    assert urllib3.request("GET", f"{store.endpoint}/v1/objects/{bucket}/early").status == 404


@pytest.mark.parametrize(
    ("line", "length", "status"),
    [
        (b"PUT /v1/objects/BUCKET/e", 5, 100), (b"PUT /v1/objects/BUCKET/e", 3 << 20, 100),
        (b"PUT /v1/objects/no-such-bucket/e", 5, 404), (b"PUT /v1/objects/no-such-bucket/e", 3 << 20, 404),
        (b"PUT /v1/objects/BUCKET/e", 1 << 60, 507), (b"POST /v1/buckets/BUCKET", 20 << 20, 413),
        (b"POST /v1/etl/init_code", 20 << 20, 413), (b"POST /v1/batch/BUCKET", 20 << 20, 413),
        (b"PUT /v1/etl", 20 << 20, 413), (b"DELETE /v1/objects/BUCKET/x", 20 << 20, 413),
        (b"PATCH /v1/objects/BUCKET/x", 20 << 20, 413), (b"PUT /v1/nothing", 5, 404), (b"DELETE /v1/health", 5, 405),
    ],
)  # fmt: skip
def test_refusals_come_before_the_body_is_sent(
    store: StoreProcess, bucket: str, line: bytes, length: int, status: int
) -> None:
    head = b"%b HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (line, HOST, length)
    with connect(store) as connection:
        connection.sendall(head.replace(b"BUCKET", bucket.encode()))
        answer = read_head(connection)
        assert statuses(answer) == [status]
        if status == 100:
            connection.sendall(b"x" * length)
            answer = read_head(connection)
            assert statuses(answer) == [200]
        else:
            assert b"connection: close" in answer
            read_to_end(connection)

"""Requests made up from the OpenAPI description, and real ones with bytes changed: no 5xx, no hang, nothing left.

AIS_FUZZ_EXAMPLES sets how many of each (600 by default).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
import urllib3
from footprint import IO_THREADS, Footprint, footprint, returns_to
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import exchange, statuses

from aistore.server.openapi import describe
from aistore.server.routes import ROUTES
from aistore.testing import StoreProcess

DOCUMENT = json.loads(json.dumps(describe(ROUTES)))
#: Not tried: it makes any directory of this machine part of the store.
LEFT_OUT = "/v1/daemon/mountpaths"
OPERATIONS = [
    (path, method, one)
    for path, methods in DOCUMENT["paths"].items()
    for method, one in methods.items()
    if path != LEFT_OUT
]
OURS = {501, 503, 507}  # not here, come again, disk full: declared answers, not failures

FUZZ = settings(
    max_examples=int(os.environ.get("AIS_FUZZ_EXAMPLES", "600")), deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[StoreProcess]:
    with StoreProcess(arguments=("--workers", "2", "--limit", f"io_threads={IO_THREADS}")) as store:
        url = f"{store.endpoint}/v1/buckets/fuzz"
        assert urllib3.request("POST", url, body=b'{"action":"create-bck"}').status == 200
        for name in ("x", "a/b"):
            urllib3.request("PUT", f"{store.endpoint}/v1/objects/fuzz/{name}", body=os.urandom(5000))
        paths = [
            "/metrics",
            "/v1/buckets",
            "/v1/buckets/fuzz",
            "/v1/etl",
            "/v1/daemon?what=mountpaths",
            "/openapi.json",
        ]
        with ThreadPoolExecutor(16) as pool:  # so that every thread has what it opens once
            list(pool.map(lambda path: urllib3.request("GET", store.endpoint + path), paths * 40))
            url = f"{store.endpoint}/v1/objects/fuzz/warm"
            list(pool.map(lambda _: urllib3.request("PUT", url, body=bytes(2 << 20)), range(40)))
            list(pool.map(lambda _: urllib3.request("GET", url), range(40)))
        before = footprint(store)
        yield store
        assert urllib3.request("GET", f"{store.endpoint}/v1/health").status == 200
        assert "Traceback" not in store.errors(), store.errors()
        assert "ERROR" not in store.errors(), store.errors()
        files = footprint(store).staged - before.staged  # objects were written, and no write is left under way
        returns_to(before, store, files=files)


def test_the_processes_are_the_same_to_the_end(fuzzed: StoreProcess) -> None:
    """The fixture checks it when the tests of this module are done; this one says so."""
    assert isinstance(footprint(fuzzed), Footprint)


# --- values from schemas

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
WORDS = st.sampled_from(
    "list create-bck destroy-bck Create_Bck evict x fuzz prefix value true 0 -1 9999999999999999999999 bytes=0-5 "
    "bytes=9- xxhash2 md5 none k=v name,size python3 io:// hpush:// 60s warm on cHJpbnQoMSk=".split()
)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values of a JSON schema, of the few keywords that the description uses."""
    if "$ref" in schema:
        return values(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([values(one) for one in schema["anyOf"]])
    kinds = {"string": WORDS | st.text(max_size=30), "integer": st.integers(), "boolean": st.booleans()}
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return st.tuples(*(values(one) for one in schema["prefixItems"]))
        return st.lists(values(schema.get("items", {})), max_size=5)
    if kind == "object" and "properties" in schema:
        fields = {name: values(one) for name, one in schema["properties"].items()}
        required = {name: fields.pop(name) for name in schema.get("required", [])}
        return st.fixed_dictionaries(required, optional=fields)
    if kind == "object":
        return st.dictionaries(WORDS | st.text(max_size=8), JSON, max_size=4)
    return kinds.get(kind, JSON) if isinstance(kind, str) else JSON


def bodies(operation: dict[str, Any]) -> st.SearchStrategy[bytes | None]:
    """Return bodies as described, JSON that is something else, bytes that are no JSON, and none."""
    anything = st.none() | st.binary(max_size=200) | JSON.map(_encode)
    contents = operation.get("requestBody", {}).get("content", {})
    if "application/json" in contents:
        return values(contents["application/json"]["schema"]).map(_encode) | anything
    return anything


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


PLACES = {
    "bucket": ["fuzz", "other"], "name": ["x", "a/b", "new"], "etl": ["e1", "e2"], "provider": ["ais", "aws"],
    "verb": ["list", "bring_up"], "secret": ["s3cret"], "uname": ["ais/@#/fuzz/x", "ais/@#/other/y", "fuzz/x"],
}  # fmt: skip
HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)

NOT_IN_HEADERS = re.compile("[^ -~\x80-\xff]")


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, set[int]]:
    """Return a request as bytes, and the statuses that the description has for it; all, when it may be another's."""
    path, method, operation = draw(st.sampled_from(OPERATIONS))
    known = draw(st.integers(0, 3)) > 0
    query, headers = [], [("Host", "127.0.0.1"), ("Connection", "close")]

    def place(match: re.Match[str]) -> str:
        if method == "delete" and path.endswith("/{bucket}"):
            return "other"  # else there is soon nothing left to read
        text = draw(st.sampled_from(PLACES[match[1]]) if known else st.text(max_size=40))
        return quote(text, safe=draw(st.sampled_from(["", "/"])), errors="surrogatepass")

    target = re.sub(r"{(\w+)}", place, path)
    for parameter in operation["parameters"]:
        if parameter["in"] == "path" or draw(st.integers(0, 3)):
            continue
        value = draw(values(parameter["schema"]) | HEADER_TEXT)
        if parameter["in"] == "query":
            query.append(f"{parameter['name']}={quote(str(value), errors='surrogatepass')}")
        else:
            headers.append((parameter["name"], str(value).encode("latin-1", "replace").decode("latin-1")))
    if draw(st.integers(0, 9)) == 0:
        query.append(quote(draw(st.text(max_size=20)), safe="=&%", errors="surrogatepass"))
    if draw(st.booleans()):
        headers.append(("Accept", draw(st.sampled_from(["application/msgpack", "application/x-ndjson", "*/*", ""]))))
    body = draw(bodies(operation))
    if body is not None and draw(st.booleans()):
        headers.append(("Transfer-Encoding", "chunked"))
        body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    elif body is not None:
        headers.append(("Content-Length", str(len(body))))
    lines = [f"{method.upper()} {target}{'?' + '&'.join(query) if query else ''} HTTP/1.1"]
    lines += [f"{name}: {NOT_IN_HEADERS.sub('?', value)}" for name, value in headers]
    declared = {int(status) for status in operation["responses"]}
    if not known and "{" in path:  # the text may name another path, or none
        declared = set(range(200, 500)) | OURS
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""), declared


@FUZZ
@given(requests())
def test_described_requests(fuzzed: StoreProcess, request_: tuple[bytes, set[int]]) -> None:
    request, declared = request_
    (status,) = statuses(exchange(fuzzed, request))[-1:] or (0,)
    assert status in declared, request
    assert status < 500 or status in OURS


# --- bytes changed

SEEDS = [
    b"GET /v1/objects/fuzz/x HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=0-9\r\n\r\n",
    b"PUT /v1/objects/fuzz/new HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /v1/objects/fuzz/n HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b'GET /v1/buckets/fuzz?prefix=x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 17\r\n\r\n{"action":"list"}',
    b"HEAD /v1/objects/fuzz/a%2Fb?props=size,etag HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b'PATCH /v1/objects/fuzz/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 22\r\n\r\n{"value":{"key":"val"}}',
    b"GET /v1/daemon?what=smap HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"%", b"%ff", b"\xff", b"/", b"..", b"?", b"0", b"-1", b"f" * 20, b",",
     b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"\r\n\r\n", b"Host"]
)  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Return one or two real requests with some bytes cut out, doubled, or put in."""
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 8))
        what = draw(st.integers(0, 3))
        if what == 0:
            data = data[:at] + data[at + length :]
        elif what == 1:
            data = data[:at] + data[at : at + length] * 2 + data[at + length :]
        else:
            data = data[:at] + draw(PIECES | st.binary(max_size=6)) + data[at:]
    return data


@FUZZ
@given(mangled())
def test_mangled_requests(fuzzed: StoreProcess, request: bytes) -> None:
    for status in statuses(exchange(fuzzed, request, end=True)):
        assert status < 500 or status in OURS

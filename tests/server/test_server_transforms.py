"""Transforms that are HTTP servers, by every communication type, through a real store and in its sandbox."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import pytest
import urllib3

from aistore import Client
from aistore.errors import TransformCrashError, TransformError
from aistore.fallbacks import lacks
from aistore.testing import StoreProcess

#: Answers with objects in capitals, however it is to get them; some objects say what else it should do.
SERVER = r"""
import http.server, os, socket, struct, hashlib, base64, sys, time, json, urllib.parse, urllib.request
TARGET = os.environ.get("AIS_TARGET_URL", "")

def ask(method, path, data=None):
    request = urllib.request.Request(path, data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *arguments):
        pass
    def say(self, status, body, *headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/health":
            return self.say(200, b"Running")
        if path == "/ws":
            return self.websocket()
        arguments = dict(urllib.parse.parse_qsl(query))
        if "etl_fqn" in arguments:
            data = open(arguments["etl_fqn"], "rb").read()
        else:
            status, data = ask("GET", TARGET + path)
            if status != 200:
                return self.say(500, data)
        self.answer(path[1:], data, arguments)
    def do_PUT(self):
        path, _, query = self.path.partition("?")
        arguments = dict(urllib.parse.parse_qsl(query))
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if "etl_fqn" in arguments:
            assert not data
            data = open(arguments["etl_fqn"], "rb").read() + b"|" + os.path.basename(arguments["etl_fqn"]).encode()
        self.answer(path[1:], data, arguments)
    def answer(self, path, data, arguments):
        if data.startswith(b"fail"):
            return self.say(400, b"told to fail")
        if data.startswith(b"die"):
            os._exit(3)
        if data.startswith(b"slow"):
            time.sleep(30)
        if data.startswith(b"where?"):
            return self.say(200, b"there" if self.headers.get("Ais-Node-Url") else b"here")
        if data.startswith(b"url"):
            return self.say(200, TARGET.encode())
        if data.startswith(b"ask "):
            method, url = data.decode().split()[1:]
            try:
                body = b"x" if method in ("PUT", "POST") else None
                status, body = ask(method, urllib.parse.urljoin(TARGET, url), body)
                return self.say(200, b"%d %b" % (status, body[:500]))
            except OSError as error:
                return self.say(200, b"refused: " + str(error).encode())
        result = data.upper() + arguments.get("etl_args", "").encode()
        there = self.headers.get("Ais-Node-Url")
        if not there:
            return self.say(200, result)
        parts = urllib.parse.urlsplit(there)
        status, body = ask("PUT", TARGET + parts.path + "?" + parts.query, result)
        if status != 200:
            return self.say(502, body)
        self.send_response(204)
        self.send_header("Ais-Direct-Put-Length", str(len(result)))
        self.end_headers()
    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.wfile.flush()
        while True:
            told = json.loads(self.message())
            result = self.message().upper() + told.get("etl_args", "").encode()
            if len(result) < 126:
                size = struct.pack("!B", len(result))
            elif len(result) < 1 << 16:
                size = struct.pack("!BH", 126, len(result))
            else:
                size = struct.pack("!BQ", 127, len(result))
            self.wfile.write(b"\x82" + size + result)
    def message(self):
        data, last = b"", False
        while not last:
            first, second = self.rfile.read(2)
            last, size = first & 0x80, second & 0x7F
            if size == 126:
                size, = struct.unpack("!H", self.rfile.read(2))
            elif size == 127:
                size, = struct.unpack("!Q", self.rfile.read(8))
            mask = self.rfile.read(4)
            piece = self.rfile.read(size)
            whole = int.from_bytes(piece, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            data += whole.to_bytes(size, "big")
        return data

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

#: Name -> fields of the runtime message.
KINDS: dict[str, dict[str, Any]] = {
    "talk-hpush": {"communication": "hpush://"},
    "talk-hpush-put": {"communication": "hpush://", "support_direct_put": True},
    "talk-hpush-file": {"communication": "hpush://", "direct_file": True},
    "talk-hpull": {"communication": "hpull://"},
    "talk-hpull-put": {"communication": "hpull://", "support_direct_put": True},
    "talk-ws": {"communication": "ws://", "support_direct_put": True},
}

Read = Callable[..., tuple[int, bytes]]


def begin(store: StoreProcess, name: str, **fields: Any) -> None:
    """Make a transform that is a server."""
    env = [{"name": "ETL_DIRECT_FQN", "value": "true"}] if fields.pop("direct_file", False) else []
    message = {
        "name": name, "init_timeout": "60s", "obj_timeout": "20s", "support_direct_put": False, **fields,
        "runtime": {"image": "", "command": [sys.executable, "-c", SERVER], "env": env},
    }  # fmt: skip
    with urllib3.PoolManager(retries=False, timeout=90) as pool:
        reply = pool.request("PUT", f"{store.endpoint}/v1/etl", body=json.dumps(message))
        assert reply.status == 200, reply.data


@pytest.fixture(scope="module")
def served(store: StoreProcess) -> Iterator[StoreProcess]:
    """Return a store that has a transform of each kind."""
    if lacks("namespaces"):
        pytest.skip("servers that choose their port need a network of their own")
    with Client(store.endpoint) as client, ExitStack() as removed:
        for name, fields in KINDS.items():
            begin(store, name, **fields)
            removed.callback(client.etl(name).delete)
        yield store


@pytest.fixture(scope="module")
def bucket(served: StoreProcess) -> str:
    with Client(served.endpoint) as client:
        return client.bucket(f"b-{uuid.uuid4().hex[:12]}").create().name


@pytest.fixture(scope="module")
def put(served: StoreProcess, bucket: str) -> Callable[[str, bytes], None]:
    def write(name: str, data: bytes) -> None:
        with Client(served.endpoint) as client:
            client.bucket(bucket).object(name).put(data)

    return write


@pytest.fixture(scope="module")
def get(served: StoreProcess, bucket: str) -> Iterator[Read]:
    """Return a function that reads an object with query parameters."""
    with urllib3.PoolManager(retries=False, timeout=60, maxsize=32) as pool:

        def read(name: str, **query: str) -> tuple[int, bytes]:
            reply = pool.request("GET", f"{served.endpoint}/v1/objects/{bucket}/{quote(name)}", fields=query)
            return reply.status, reply.data

        yield read


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 5000, 200_000, 3_000_000])
def test_every_kind_and_size(put: Callable[[str, bytes], None], get: Read, kind: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    put(f"dir/{size}", data)
    for _ in range(3):
        file = f"|{size}".encode() if kind.endswith("-file") else b""
        assert get(f"dir/{size}", etl_name=kind, etl_args="128") == (200, (data + file).upper() + b"128")


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_all_kinds(put: Callable[[str, bytes], None], get: Read, kind: str) -> None:
    for name in ("ümlaut/名.txt", "sp ace & + ? # %2F", "x" * 300):
        put(name, b"words")
        status, body = get(name, etl_name=kind)
        assert (status, body[:5]) == (200, b"WORDS")


def test_mixed_pipelines(put: Callable[[str, bytes], None], get: Read, served: StoreProcess) -> None:
    put("line", b"abc")
    with Client(served.endpoint) as client:
        client.etl("talk-reverse").init_code("def transform(data):\n    return data[::-1]\n")
        try:
            assert get("line", etl_name="talk-hpull", etl_pipeline="talk-reverse,talk-ws,talk-hpush") == (200, b"CBA")
            assert get("line", etl_name="talk-reverse", etl_pipeline="talk-hpush-file") == (200, b"CBA|LINE")
            large = random.Random(7).randbytes(3_000_000)
            put("long", large)
            assert get("long", etl_name="talk-hpush-put", etl_pipeline="talk-reverse,talk-hpull-put") == (
                200, large.upper()[::-1].upper(),
            )  # fmt: skip
        finally:
            client.etl("talk-reverse").delete()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "talk-ws"])
def test_an_object_that_fails_fails_alone(put: Callable[[str, bytes], None], get: Read, kind: str) -> None:
    put("bad", b"fail")
    status, body = get("bad", etl_name=kind)
    assert status == 422
    assert b"ETL error" in body
    assert b"told to fail" in body
    put("good", b"fine")
    assert get("good", etl_name=kind)[0] == 200


def test_a_client_that_goes_away_leaves_nothing(
    put: Callable[[str, bytes], None], get: Read, served: StoreProcess, bucket: str
) -> None:
    put("slow", b"slow")
    host, _, port = served.endpoint.removeprefix("http://").partition(":")
    for _ in range(8):
        with socket.create_connection((host, int(port)), 10) as connection:
            path = f"/v1/objects/{bucket}/slow?etl_name=talk-hpush"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    put("good", b"fine")
    assert get("good", etl_name="talk-hpush") == (200, b"FINE")


def test_a_server_that_dies_is_there_again(
    served: StoreProcess, bucket: str, put: Callable[[str, bytes], None]
) -> None:
    put("killer", b"die")
    put("good", b"fine")
    begin(served, "talk-mortal", communication="hpush://")
    with Client(served.endpoint) as client:
        objects = client.bucket(bucket)
        try:
            assert objects.object("good").get(etl="talk-mortal").read() == b"FINE"
            with pytest.raises((TransformCrashError, TransformError)):
                objects.object("killer").get(etl="talk-mortal").read()
            assert objects.object("good").get(etl="talk-mortal").read() == b"FINE"
        finally:
            client.etl("talk-mortal").delete()


REFUSED = {
    "objects": ("GET", "/v1/objects/{bucket}/good"),
    "buckets": ("GET", "/v1/buckets"),
    "the map": ("GET", "/v1/daemon?what=smap"),
    "transforms": ("GET", "/v1/etl"),
    "metrics": ("GET", "/metrics"),
    "writing": ("PUT", "/v1/objects/{bucket}/good"),
    "another transform's calls": ("GET", "/v1/etl/_object/talk-hpull/none/{object}"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_nothing_else_of_the_store_is_reached(
    put: Callable[[str, bytes], None], get: Read, bucket: str, what: str
) -> None:
    method, url = REFUSED[what]
    put("good", b"fine")
    put("asks", f"ask {method} {url.format(bucket=bucket, object=quote(f'ais/@#/{bucket}/good', safe=''))}".encode())
    status, said = get("asks", etl_name="talk-hpush")
    assert (status, said[:4]) == (200, b"400 "), said
    assert b"unrecognized request source" in said


def test_the_stores_own_routes_want_the_secret_and_a_call(
    served: StoreProcess, put: Callable[[str, bytes], None], get: Read, bucket: str
) -> None:
    put("url", b"url")
    secret = get("url", etl_name="talk-hpush")[1].decode().rpartition("/")[2]
    uname = quote(f"ais/@#/{bucket}/url", safe="")
    connection = http.client.HTTPConnection(served.endpoint.removeprefix("http://"), timeout=30)
    with contextlib.closing(connection):

        def ask(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()

        for wrong in ("", "x", secret[:-1], secret + "x", "%C3%A9"):
            status, said = ask("GET", f"/v1/etl/_object/talk-hpush/{wrong}/{uname}")
            assert (status, b"unrecognized request source" in said) == (400, True)
        for name in ("no-such-etl", "talk-hpull", "", "%00"):
            assert ask("GET", f"/v1/etl/_object/{name}/{secret}/{uname}")[0] == 400
        for method in ("GET", "HEAD", "PUT"):  # right, but no call is under way; whatever host it is sent to
            assert ask(method, f"/v1/etl/_object/talk-hpush/{secret}/{uname}", Host="store.example")[0] == 404
        assert ask("DELETE", f"/v1/etl/_object/talk-hpush/{secret}/{uname}")[0] == 405


def test_a_jobs_objects_go_through_a_server(
    served: StoreProcess, put: Callable[[str, bytes], None], bucket: str
) -> None:
    for number in range(40):
        put(f"job/{number}", b"words %d" % number)
    for kind in ("talk-hpull", "talk-hpull-put", "talk-hpush-put", "talk-ws"):
        with Client(served.endpoint) as client:
            copies = client.bucket(f"{bucket}-{kind}")
            job = client.bucket(bucket).transform(to=copies, etl=kind, prefix="job/")
            job.wait()
            for number in range(40):
                assert copies.object(f"job/{number}").get().read() == b"WORDS %d" % number


@pytest.mark.parametrize("kind", ["talk-hpush-put", "talk-hpull-put"])
def test_only_what_is_for_a_bucket_is_put(
    served: StoreProcess, put: Callable[[str, bytes], None], get: Read, bucket: str, kind: str
) -> None:
    put("where", b"where?")
    assert get("where", etl_name=kind) == (200, b"here")
    with Client(served.endpoint) as client:
        copies = client.bucket(f"{bucket}-{kind}-where")
        client.bucket(bucket).transform(to=copies, etl=kind, prefix="where").wait()
        assert copies.object("where").get().read() == b"there"


def test_nothing_is_left(served: StoreProcess) -> None:
    """Files of calls are removed, whatever became of them."""
    runtime = os.path.join(served.data, "runtime")
    with open(runtime, encoding="utf-8") as file:
        directory = file.read()
    left = [
        os.path.join(path, name)
        for path, directories, files in os.walk(directory)
        if "/exchange-" in path and path.endswith(("/files", "/calls"))
        for name in [*directories, *files]
    ]
    assert left == []

"""Transforms from specifications on the nodes of a real cluster: each node runs them, and says how they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from aistore.errors import NotSupportedError
from aistore.laptop.cluster import LocalCluster
from aistore.testing import LocalNode

OBJECTS = [f"o{number}" for number in range(12)]

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply(b"OK")
    def do_PUT(self):
        self.reply(self.rfile.read(int(self.headers["Content-Length"]))[::-1])
    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LocalNode]]:
    try:
        with LocalCluster(3, str(tmp_path_factory.mktemp("cluster"))) as running:
            found = [running.node(number) for number in (1, 2, 3)]
            assert call("POST", f"{found[0].endpoint}/v1/buckets/b", b'{"action":"create-bck"}').status == 200
            for name in OBJECTS:
                assert call("PUT", f"{found[0].endpoint}/v1/objects/b/{name}", name.encode()).status == 200
            yield found
    except NotSupportedError as error:
        pytest.skip(str(error))


def call(method: str, url: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False, timeout=120.0) as pool:
        return pool.request(method, url, body=body)


def made(nodes: list[LocalNode], name: str, runtime: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Make a transform by way of the second node; return the message that it was made with."""
    message = {"name": name, "init_timeout": "2m", "obj_timeout": "45s", **fields, "runtime": runtime}
    reply = call("PUT", f"{nodes[1].endpoint}/v1/etl", json.dumps(message).encode())
    assert (reply.status, reply.data[:4]) == (200, b"etl-"), reply.data.decode()
    return message


def test_a_public_transformer_on_every_node(nodes: list[LocalNode]) -> None:
    sent = made(nodes, "cluster-md5", {"image": "aistorage/transformer_md5:latest"}, communication="hpull://")
    for node in nodes:
        for name in OBJECTS:
            reply = call("GET", f"{node.endpoint}/v1/objects/b/{name}?etl_name=cluster-md5")
            assert (reply.status, reply.data.decode()) == (200, hashlib.md5(name.encode()).hexdigest())
        details = call("GET", f"{node.endpoint}/v1/etl/cluster-md5").json()
        assert (details["init_msg"], details["source"]) == (sent, "code")
    assert call("DELETE", f"{nodes[2].endpoint}/v1/etl/cluster-md5").status == 200


def test_a_server_on_every_node(nodes: list[LocalNode]) -> None:
    runtime = {"command": ["python", "server.py"], "code": SERVER, "filename": "server.py"}
    sent = made(nodes, "cluster-server", runtime, communication="hpush://")
    for node in nodes:
        for name in OBJECTS:
            reply = call("GET", f"{node.endpoint}/v1/objects/b/{name}?etl_name=cluster-server")
            assert (reply.status, reply.data.decode()) == (200, name[::-1]), reply.data.decode()
        details = call("GET", f"{node.endpoint}/v1/etl/cluster-server").json()
        assert (details["init_msg"], details["source"]) == (sent, "command")
    again = call("PUT", f"{nodes[0].endpoint}/v1/etl", json.dumps(sent).encode())
    assert (again.status, "etl job cluster-server already exists" in again.json()["message"]) == (409, True)
    assert call("DELETE", f"{nodes[2].endpoint}/v1/etl/cluster-server").status == 200


def test_a_server_that_no_node_can_run(nodes: list[LocalNode]) -> None:
    message = {"name": "cluster-bad", "runtime": {"command": ["python", "-c", "exit('I give up')"]}}
    reply = call("PUT", f"{nodes[0].endpoint}/v1/etl", json.dumps(message).encode())
    assert reply.status == 400
    assert "I give up" in reply.json()["message"]
    assert call("GET", f"{nodes[2].endpoint}/v1/etl").json() == []

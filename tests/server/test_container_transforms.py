"""Transforms that are images, on a real store, with an engine of the test's own that starts real processes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3
from hosts import needs

from aistore.testing import StoreProcess

HERE = os.path.dirname(os.path.abspath(__file__))
FAKE = os.path.join(os.path.dirname(HERE), "etl", "fake_engine.py")
_SECONDS = 60.0

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
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
print("in a container", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

pytestmark = [
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or os.geteuid() != 0, reason="entering a container's network needs root"
    ),
    needs("namespaces"),
]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of an engine that has the image ``some/server``."""
    directory = tmp_path / "engine"
    (directory / "images").mkdir(parents=True)
    (directory / "images" / "some_server").write_text(json.dumps({"command": [sys.executable, "-c", SERVER]}))
    program = tmp_path / "fake"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S -B {FAKE} "$@"\n')
    program.chmod(0o755)
    return directory


def put(store: StoreProcess, **fields: Any) -> urllib3.BaseHTTPResponse:
    message = {"name": "some-image", "runtime": {"image": "some/server"}, **fields}
    return call("PUT", f"{store.endpoint}/v1/etl", json.dumps(message).encode())


def call(method: str, url: str, body: bytes = b"") -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False, timeout=_SECONDS) as pool:
        return pool.request(method, url, body=body)


def containers(state: Path) -> list[str]:
    return [path.name for path in state.iterdir() if path.is_file()]


def test_from_image_to_result_and_nothing_is_left(new_store: Callable[..., StoreProcess], state: Path) -> None:
    env = {"AIS_CONTAINER_ENGINE": str(state.parent / "fake"), "FAKE_ENGINE": str(state)}
    store = new_store(env=env)
    call("POST", f"{store.endpoint}/v1/buckets/b", b'{"action":"create-bck"}')
    call("PUT", f"{store.endpoint}/v1/objects/b/o", b"an object")
    made = put(store)
    assert made.status == 200, made.data.decode()
    assert call("GET", f"{store.endpoint}/v1/objects/b/o?etl_name=some-image").data == b"tcejbo na"
    details = call("GET", f"{store.endpoint}/v1/etl/some-image").json()
    assert details["sandbox_layers"][0] == "container (fake)"
    assert details["init_msg"]["runtime"]["image"] == "some/server"
    assert len(containers(state)) == 1
    store.kill()
    deadline = time.monotonic() + _SECONDS
    while containers(state):  # until its guard has seen that the store has ended
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again = new_store(data=store.data, env=env)
    assert call("GET", f"{again.endpoint}/v1/objects/b/o?etl_name=some-image").data == b"tcejbo na"
    assert call("DELETE", f"{again.endpoint}/v1/etl/some-image").status == 200
    assert containers(state) == []


def test_without_an_engine_it_says_what_else_there_is(new_store: Callable[..., StoreProcess]) -> None:
    store = new_store(env={"AIS_CONTAINER_ENGINE": "/nowhere/docker"})
    reply = put(store)
    assert reply.status == 400
    for word in ("no container engine that works (/nowhere/docker is no program)", "init_class", "runtime.command"):
        assert word in reply.json()["message"] + reply.json()["hint"]
    assert call("GET", f"{store.endpoint}/v1/etl").json() == []

"""Transforms from specifications over HTTP, on a real store: AIStore's runtime message, pods, and what is answered."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import xxhash

from aistore.testing import StoreProcess

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply(b"OK")
    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(f"{self.path} {os.environ['COLOUR']} ".encode() + data)
    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
print("the server is up", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: pod-of-2021
  annotations: {communication_type: "hrev://", wait_timeout: 5m}
spec:
  containers:
    - name: server
      image: aistorage/transformer_md5:latest
      imagePullPolicy: Always
      ports: [{name: default, containerPort: 80}]
      command: ['/code/server.py', '--listen', '0.0.0.0', '--port', '80']
      readinessProbe: {httpGet: {path: /health, port: default}}
"""


class Specs:
    """Makes transforms and removes them when the test ends."""

    def __init__(self, store: StoreProcess, pool: urllib3.PoolManager) -> None:
        self.pool, self.url, self.names = pool, f"{store.endpoint}/v1/etl", list[str]()
        self.object = f"{store.endpoint}/v1/objects/etl-specs/some/object"

    def put(self, name: str = "from-spec", **fields: Any) -> urllib3.BaseHTTPResponse:
        self.names.append(name)
        return self.pool.request("PUT", self.url, body=json.dumps({"name": name, **fields}).encode())

    def post(self, path: str, body: str, name: str) -> urllib3.BaseHTTPResponse:
        self.names.append(name)
        return self.pool.request("POST", f"{self.url}/{path}", body=body.encode())

    def image(self, kind: str, **env: str) -> str:
        name = f"built-in-{kind.replace('_', '-')}"
        variables = [{"name": key, "value": value} for key, value in env.items()]
        reply = self.put(name, runtime={"image": f"aistorage/transformer_{kind}:latest", "env": variables})
        assert (reply.status, reply.data[:4]) == (200, b"etl-"), reply.data.decode()
        return name

    def read(self, name: str, data: bytes, args: str = "") -> bytes:
        self.pool.request("PUT", self.object, body=data)
        reply = self.pool.request("GET", self.object, fields={"etl_name": name, **({"etl_args": args} if args else {})})
        assert reply.status == 200, reply.data.decode()
        return reply.data

    def details(self, name: str) -> dict[str, Any]:
        return dict(self.pool.request("GET", f"{self.url}/{name}").json())


@pytest.fixture(scope="module")
def pool(store: StoreProcess) -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(120)) as pool:
        pool.request("POST", f"{store.endpoint}/v1/buckets/etl-specs", body=b'{"action":"create-bck"}')
        yield pool


@pytest.fixture
def specs(store: StoreProcess, pool: urllib3.PoolManager) -> Iterator[Specs]:
    made = Specs(store, pool)
    yield made
    for name in made.names:
        pool.request("DELETE", f"{made.url}/{name}")


def test_the_public_transformers_that_are_built_in(specs: Specs) -> None:
    assert specs.read(specs.image("echo"), b"hello") == b"hello"
    assert specs.read(specs.image("md5"), b"hello") == hashlib.md5(b"hello").hexdigest().encode()
    assert specs.read(specs.image("hello_world"), b"hello") == b"Hello World!"


def test_the_hash_takes_its_seed_from_the_arguments(specs: Specs) -> None:
    def hashed(seed: int) -> bytes:
        return xxhash.xxh64(b"hello", seed=seed).hexdigest().encode()

    name = specs.image("hash_with_args", SEED_DEFAULT="7")
    assert specs.read(name, b"hello") == hashed(7)
    assert specs.read(name, b"hello", "1234") == hashed(1234)
    assert specs.read(name, b"hello", "no number") == hashed(7)


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({}, gzip.compress(b"hello" * 99, mtime=0)),
        ({"mode": "compress", "compression": "bz2"}, bz2.compress(b"hello" * 99)),
    ],
)
def test_compress_takes_its_options_from_a_variable(specs: Specs, options: dict[str, str], made: bytes) -> None:
    name = specs.image("compress", COMPRESS_OPTIONS=json.dumps(options))
    assert specs.read(name, b"hello" * 99) == made
    specs.pool.request("DELETE", f"{specs.url}/{name}")
    back = specs.image("compress", COMPRESS_OPTIONS=json.dumps({**options, "mode": "decompress"}))
    assert specs.read(back, made) == b"hello" * 99


@pytest.mark.parametrize("options", ["{", "[]", '{"mode": "squeeze"}', '{"level": 9}'])
def test_a_built_in_transformer_that_is_told_nonsense(specs: Specs, options: str) -> None:
    variables = [{"name": "COMPRESS_OPTIONS", "value": options}]
    reply = specs.put(runtime={"image": "aistorage/transformer_compress", "env": variables})
    assert reply.status == 400
    assert "ValueError: COMPRESS_OPTIONS=" in reply.json()["message"]


@pytest.mark.torch
def test_torchvision_takes_its_transforms_from_a_variable(specs: Specs) -> None:
    pytest.importorskip("torchvision")
    image = pytest.importorskip("PIL.Image")
    picture = io.BytesIO()
    image.new("RGB", (60, 40), (200, 10, 10)).save(picture, "JPEG")
    steps = {"Resize": {"size": [20, 30]}, "Grayscale": {"num_output_channels": 1}, "PILToTensor": {}}
    name = specs.image("torchvision", TRANSFORM=json.dumps(steps), FORMAT="png")
    with image.open(io.BytesIO(specs.read(name, picture.getvalue()))) as made:
        assert (made.format, made.size, made.mode) == ("PNG", (30, 20), "L")
    specs.pool.request("DELETE", f"{specs.url}/{name}")
    variables = [{"name": "TRANSFORM", "value": '{"Resise": {}}'}]
    reply = specs.put(name, runtime={"image": "aistorage/transformer_torchvision", "env": variables})
    assert "torchvision.transforms has no 'Resise'" in reply.json()["message"]


@pytest.mark.parametrize("communication", ["hpush", "hpull://", "hrev://", "ws://"])
def test_a_command_that_serves(specs: Specs, communication: str) -> None:
    runtime = {
        "command": ["python", "server.py"], "code": SERVER, "filename": "server.py",
        "env": [{"name": "COLOUR", "value": "blue"}],
    }  # fmt: skip
    reply = specs.put("a-command", communication=communication, runtime=runtime, obj_timeout="9s")
    assert reply.status == 200, reply.data.decode()
    if communication == "hpush":
        assert specs.read("a-command", b"hello") == b"/etl-specs/some/object blue hello"
    found = specs.details("a-command")
    assert found["source"] == "command"
    assert found["init_msg"] == {
        "name": "a-command", "communication": communication.removesuffix("://") + "://", "runtime": runtime,
        "obj_timeout": "9s",
    }  # fmt: skip
    (log,) = specs.pool.request("GET", f"{specs.url}/a-command/logs").json()
    assert b"the server is up" in base64.b64decode(log["logs"])


def test_a_pod_of_2021(specs: Specs) -> None:
    for path in ("init_spec", "init"):
        reply = specs.post(path, POD, "pod-of-2021")
        assert (reply.status, reply.data) == (200, b"pod-of-2021")
        assert specs.read("pod-of-2021", b"hello") == hashlib.md5(b"hello").hexdigest().encode()
        assert specs.pool.request("DELETE", f"{specs.url}/pod-of-2021").status == 200
    reply = specs.post("init_spec?name=own-name", POD, "own-name")
    assert (reply.status, reply.data) == (200, b"own-name")


def test_a_pod_in_a_message(specs: Specs) -> None:
    spec = base64.b64encode(POD.encode()).decode()
    reply = specs.put("own-pod", spec=spec, communication="hpush://", init_timeout="9m")
    assert reply.status == 200, reply.data.decode()
    assert specs.details("own-pod")["init_msg"] == {
        "name": "own-pod", "spec": spec, "communication": "hpush://", "init_timeout": "9m"
    }  # fmt: skip


def test_progress_of_a_specification_is_streamed(specs: Specs) -> None:
    specs.names.append("tells-stages")
    body = json.dumps({"name": "tells-stages", "runtime": {"image": "aistorage/transformer_echo"}}).encode()
    reply = specs.pool.request("PUT", specs.url, body=body, headers={"Accept": "application/x-ndjson"})
    events = [json.loads(line) for line in reply.data.splitlines()]
    assert [event.get("stage") for event in events if "stage" in event] == ["importing", "ready"]
    assert events[-1] == {"name": "tells-stages"}


def test_a_name_that_is_taken(specs: Specs) -> None:
    name = specs.image("echo")
    reply = specs.put(name, runtime={"image": "aistorage/transformer_md5"})
    assert (reply.status, reply.json()["tcode"]) == (409, "ErrETLAlreadyExists")
    assert f"etl job {name} already exists" in reply.json()["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/logs"), ("GET", "/health"), ("GET", "/metrics"), ("POST", "/start"), ("POST", "/stop"),
     ("DELETE", "")],
)  # fmt: skip
def test_every_404_says_which_etl(specs: Specs, method: str, path: str) -> None:
    reply = specs.pool.request(method, f"{specs.url}/no-such-etl{path}")
    assert reply.status == 404
    assert "etl job no-such-etl does not exist" in reply.json()["message"]


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"runtime": {}}, 400, "runtime says nothing to run"),
        ({"runtime": {"image": "a/b"}, "spec": "eA=="}, 400, "both a runtime and a spec"),
        ({"spec": "no base64!"}, 400, "spec: expected the YAML of a pod in base64"),
        ({"spec": 7}, 400, "spec: int is no text"),
        ({"spec": base64.b64encode(b"kind: Job").decode()}, 400, "kind: 'Job' is no pod"),
        ({"runtime": {"command": ["no-such-program-at-all"]}}, 400, "no-such-program-at-all"),
        ({"runtime": {"command": ["python", "-c", "exit('I give up')"]}}, 400, "I give up"),
        ({"runtime": {"image": "aistorage/runtime_python:3.7", "command": ["python"]}}, 400, "too old"),
        (
            {"runtime": {"command": ["python", "-c", "0"]}, "os_packages": ["no-such-package-at-all"]},
            400,
            "'no-such-package-at-all' is not installed on this machine",
        ),
        (
            {"runtime": {"command": ["python", "-c", "import time; time.sleep(60)"]}, "init_timeout": "2s"},
            400,
            "timeout",
        ),
    ],
)
def test_an_init_that_fails_says_why(specs: Specs, fields: dict[str, Any], status: int, words: str) -> None:
    reply = specs.put("fails-to-start", **fields)
    assert reply.status == status, reply.data.decode()
    body = reply.json()
    assert words in body["message"] + body["hint"], body
    assert "fails-to-start" not in [entry["id"] for entry in specs.pool.request("GET", specs.url).json()]
    assert specs.put("fails-to-start", runtime={"image": "aistorage/transformer_echo"}).status == 200


def test_an_image_that_no_engine_can_run(specs: Specs) -> None:
    reply = specs.put(runtime={"image": "example.org/no-such-owner/no-such-image:1.0"}, init_timeout="30s")
    assert reply.status in (400, 501), "which of them it is depends on whether this machine has an engine"
    assert "engine" in reply.json()["message"]
    assert specs.pool.request("GET", specs.url).json() == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_message(specs: Specs, body: bytes) -> None:
    assert specs.pool.request("PUT", specs.url, body=body).status == 400
    assert specs.pool.request("POST", f"{specs.url}/init_spec", body=body).status == 400


def test_there_is_nothing_else_to_put(specs: Specs) -> None:
    assert specs.pool.request("PUT", f"{specs.url}/some-name", body=b"{}").status == 404


def test_what_is_made_from_a_specification_is_there_after_a_restart(new_store: Any, tmp_path: Path) -> None:
    store = new_store(str(tmp_path / "data"))
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(120)) as pool:
        pool.request("POST", f"{store.endpoint}/v1/buckets/etl-specs", body=b'{"action":"create-bck"}')
        specs = Specs(store, pool)
        name = specs.image("hash_with_args", SEED_DEFAULT="7")
        made, sent = specs.read(name, b"hello"), specs.details(name)["init_msg"]
        store.stop()
        again = Specs(new_store(str(tmp_path / "data")), pool)
        assert again.details(name)["init_msg"] == sent
        assert again.read(name, b"hello") == made

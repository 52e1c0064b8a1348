"""Transforms over HTTP, on a real store: making them ready, reading through them, and everything that goes wrong."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import urllib3

from aistore.fallbacks import lacks
from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

UPPER = "import sys\nsys.stdout.write(sys.stdin.read().upper())\n"
REVERSE = "def transform(data):\n    return data[::-1]\n"


@pytest.fixture(scope="module")
def pool(store: StoreProcess) -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(120)) as pool:
        yield pool


@pytest.fixture(scope="module")
def objects(store: StoreProcess, pool: urllib3.PoolManager) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    pool.request("POST", f"{store.endpoint}/v1/buckets/{name}", body=b'{"action":"create-bck"}')
    url = f"{store.endpoint}/v1/objects/{name}"
    for key, data in (("hello", b"hello"), ("empty", b""), ("big", b"abc" * 1_000_000)):
        assert pool.request("PUT", f"{url}/{key}", body=data).status == 200
    return url


class Etls:
    """Makes ETLs and removes them when the test ends."""

    def __init__(self, pool: urllib3.PoolManager, endpoint: str) -> None:
        self.pool, self.url, self.names = pool, f"{endpoint}/v1/etl", list[str]()

    def init(self, code: str, communication: str = "io://", **fields: object) -> urllib3.BaseHTTPResponse:
        message = {"code": encode_base64(code), "communication_type": communication, "runtime": "python3", **fields}
        reply = self.pool.request("POST", f"{self.url}/init_code", body=json.dumps(message).encode())
        if reply.status == 200:
            self.names.append(reply.data.decode())
        return reply

    def ready(self, code: str, communication: str = "io://", **fields: object) -> str:
        reply = self.init(code, communication, **fields)
        assert reply.status == 200, reply.data.decode()
        return reply.data.decode()

    def details(self, name: str) -> dict[str, object]:
        return dict(self.pool.request("GET", f"{self.url}/{name}").json())


@pytest.fixture
def etls(store: StoreProcess, pool: urllib3.PoolManager) -> Iterator[Etls]:
    made = Etls(pool, store.endpoint)
    yield made
    for name in made.names:
        pool.request("DELETE", f"{made.url}/{name}")


def test_a_script_and_a_function(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    script, function = etls.ready(UPPER, id="upper-case"), etls.ready(REVERSE, "hpush://")
    assert script == "upper-case"
    for spelling in ("uuid", "etl_name"):
        reply = pool.request("GET", f"{objects}/hello?{spelling}={script}")
        assert (reply.status, reply.data) == (200, b"HELLO")
        assert reply.headers["content-length"] == "5"
    assert pool.request("GET", f"{objects}/hello?etl_name={function}").data == b"olleh"
    assert pool.request("GET", f"{objects}/empty?etl_name={function}").data == b""
    assert pool.request("GET", f"{objects}/big?etl_name={function}").data == b"cba" * 1_000_000
    assert pool.request("GET", f"{objects}/hello").data == b"hello"


def test_lists_details_and_life(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    name = etls.ready(UPPER, id="life-of-one")
    for path in ("", "/list"):
        listed = {entry["id"]: entry for entry in pool.request("GET", etls.url + path).json()}
        assert listed[name]["stage"] == "Running"
        assert listed[name]["sandbox"] == "on"
    details = etls.details(name)
    assert details["init_msg"]["name"] == name  # type: ignore[index]
    assert details["init_msg"]["communication"] == "io://"  # type: ignore[index]
    assert details["code"] == UPPER
    again = etls.init(UPPER, id=name)
    assert again.status == 409
    assert f"etl job {name} already exists" in again.json()["message"]

    assert pool.request("POST", f"{etls.url}/{name}/start").status == 409
    assert pool.request("POST", f"{etls.url}/{name}/stop").status == 200
    assert pool.request("POST", f"{etls.url}/{name}/stop").status == 200
    reply = pool.request("GET", f"{objects}/hello?uuid={name}")
    assert reply.status == 409
    assert "Aborted (stopped)" in reply.json()["message"]
    assert pool.request("POST", f"{etls.url}/{name}/start").status == 200
    assert pool.request("GET", f"{objects}/hello?uuid={name}").data == b"HELLO"
    assert pool.request("DELETE", f"{etls.url}/stop/{name}").status == 200  # as in 2021
    assert pool.request("DELETE", f"{etls.url}/{name}").status == 200
    assert pool.request("DELETE", f"{etls.url}/{name}").status == 404
    reply = pool.request("GET", f"{objects}/hello?uuid={name}")
    assert reply.status == 404
    assert f"etl job {name} does not exist" in reply.json()["message"]


def test_a_removed_name_can_be_used_again_at_once(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    for code, result in ((UPPER, b"HELLO"), ("print('x', end='')", b"x"), (UPPER, b"HELLO")):
        name = etls.ready(code, id="used-again")
        for _ in range(4):  # by both HTTP workers
            reply = urllib3.request("GET", f"{objects}/hello?uuid={name}", retries=False)
            assert (reply.status, reply.data) == (200, result)
        assert pool.request("DELETE", f"{etls.url}/{name}").status == 200


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"id": "a"}, 400, ["etl name 'a' is not valid", "6 to 32"]),
        ({"id": "spaces in it"}, 400, ["is not valid"]),
        ({"runtime": "python2"}, 400, ["python2"]),
        ({"runtime": "ruby"}, 400, ["ruby", "python3"]),
        ({"runtime": "python3.99"}, 400, ["python3.99"]),
        ({"communication": "carrier-pigeon://"}, 400, ["carrier-pigeon", "io://"]),
        ({"network": "some"}, 400, ["'some'", "network is none or full"]),
        ({"memory": "lots"}, 400, ["memory: 'lots' is not an amount of memory"]),
        ({"cpus": "two"}, 400, ["cpus: 'two' is not a number of cores"]),
        ({"env": {"A=B": "c"}}, 400, ["env: 'A=B'"]),
        ({"env": {"A": 1}}, 400, ["env"]),
        ({"code": "  \n"}, 400, ["code", "empty"]),
        ({"code": "def broken(:\n  pass\n"}, 400, ["does not compile", "line 1"]),
        ({"code": "import math\nimport no_such_module_at_all\n"}, 400, ["import", "no_such_module_at_all", "line 2"]),
        ({"code": "x = 1\n", "communication": "hpush://"}, 400, ["transform"]),
        ({"code": "raise ValueError('at import')\n", "communication": "hpush://"}, 400, ["ValueError: at import"]),
        ({"wait_timeout": "soon"}, 400, ["'soon' is not a duration"]),
        ({"isolation": "total"}, 400, ["isolation"]),
        ({"workers": -1}, 400, ["workers"]),
        ({"filename": "../x.py"}, 400, ["'../x.py' is no name of a file"]),
        (
            {"code": "import time\ntime.sleep(60)\n", "communication": "hpush://", "wait_timeout": "1s"},
            400,
            ["timeout"],
        ),
    ],
)
def test_an_init_that_fails_says_why(
    etls: Etls, pool: urllib3.PoolManager, fields: dict[str, object], status: int, words: list[str]
) -> None:
    arguments = {"code": UPPER, "communication": "io://", "id": "fails-to-start", **fields}
    reply = etls.init(str(arguments.pop("code")), str(arguments.pop("communication")), **arguments)
    assert reply.status == status, reply.data.decode()
    body = reply.json()
    for word in words:
        assert word in body["message"] + body["hint"], body
    assert "fails-to-start" not in [entry["id"] for entry in pool.request("GET", etls.url).json()]
    assert etls.ready(UPPER, id="fails-to-start")  # the name is free


def test_dependencies_that_cannot_be_installed(etls: Etls) -> None:
    reply = etls.init(UPPER, dependencies=encode_base64("no-such-distribution-at-all-1234==9.9\n"))
    assert reply.status == 400
    assert "no-such-distribution-at-all-1234" in reply.json()["message"]


def test_progress_is_streamed(etls: Etls) -> None:
    message = {"code": encode_base64(UPPER), "communication_type": "io://", "id": "tells-stages"}
    etls.names.append("tells-stages")
    reply = etls.pool.request(
        "POST", f"{etls.url}/init_code", body=json.dumps(message).encode(), headers={"Accept": "application/x-ndjson"}
    )
    events = [json.loads(line) for line in reply.data.splitlines()]
    stages = [event["stage"] for event in events if "stage" in event]
    assert stages[-2:] == ["importing", "ready"]
    assert events[-1] == {"name": "tells-stages"}
    reply = etls.pool.request(
        "POST", f"{etls.url}/init_code", body=json.dumps(message).encode(), headers={"Accept": "application/x-ndjson"}
    )
    error = json.loads(reply.data.splitlines()[-1])["error"]
    assert (error["status"], error["tcode"]) == (409, "ErrETLAlreadyExists")


def test_an_object_that_fails_fails_alone(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    code = """
import os, sys, signal, time
what = sys.stdin.read()
if what == "raise":
    raise ValueError("cannot read this one")
if what == "exit":
    print("a word on the way out", file=sys.stderr)
    sys.exit(3)
if what == "hang":
    time.sleep(600)
if what == "crash":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "_exit":
    os._exit(7)
if what == "huge":
    block = b"x" * (1 << 24)
    while True:
        os.write(1, block)
print("fine", end="")
"""
    name, patient = etls.ready(code, obj_timeout="2s", workers=1), etls.ready(code, workers=1)
    for what, status, tcode, words in (
        ("raise", 422, "ErrETLTransform", ["ValueError: cannot read this one", "line 5", "objects/raise", "ETL error"]),
        ("exit", 422, "ErrETLTransform", ["3", "a word on the way out"]),
        ("hang", 422, "ErrETLTimeout", ["timeout", "2 s"]),
        ("crash", 422, "ErrETLCrash", ["SIGKILL"]),
        ("_exit", 422, "ErrETLCrash", ["exit status 7"]),
        ("huge", 422, "ErrETLTransform", ["larger"]),
    )[: 5 if lacks("memfd") else None]:  # a disk does not take so much in 2 s
        assert pool.request("PUT", f"{objects}/objects/{what}", body=what.encode()).status == 200
        etl = patient if what == "huge" else name  # half a GiB can take a busy machine more than 2 s
        reply = pool.request("GET", f"{objects}/objects/{what}?uuid={etl}")
        body = reply.json()
        assert (reply.status, body["tcode"]) == (status, tcode), body
        for word in words:
            assert word in body["message"], body["message"]
        reply = pool.request("GET", f"{objects}/hello?uuid={etl}")
        assert (reply.status, reply.data) == (200, b"fine"), (what, reply.data)
    assert etls.details(name)["stage"] == "Running"


def test_a_missing_object_or_etl(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    name = etls.ready(UPPER)
    assert pool.request("GET", f"{objects}/missing?uuid={name}").json()["tcode"] == "ErrObjNotFound"
    reply = pool.request("GET", f"{objects}/hello?uuid=no-such-etl")
    assert (reply.status, reply.json()["tcode"]) == (404, "ErrETLNotFound")
    reply = pool.request("GET", f"{objects}/hello?uuid={name}", headers={"Range": "bytes=0-1"})
    assert reply.status == 400


def test_random_transforms_differ(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    code = "import random, os\nprint(random.random(), os.getpid())\n"
    for isolation in ("warm", "fork"):
        name = etls.ready(code, isolation=isolation)
        results = [pool.request("GET", f"{objects}/hello?uuid={name}").data.split() for _ in range(12)]
        assert len({number for number, _ in results}) == 12
        if isolation == "fork":
            assert len({pid for _, pid in results}) == 12


def test_a_client_that_goes_away_frees_the_worker(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    code = "import sys, time\nif sys.stdin.read() == 'hello': time.sleep(600)\nprint('ok', end='')\n"
    name = etls.ready(code, workers=1)
    parts = urlsplit(objects)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(f"GET {parts.path}/hello?uuid={name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        busy = False
        while not busy:  # the only worker has our object once another one finds no answer
            try:
                pool.request("GET", f"{objects}/empty?uuid={name}", timeout=0.5)
            except urllib3.exceptions.ReadTimeoutError:
                busy = True
    assert pool.request("GET", f"{objects}/empty?uuid={name}", timeout=30).data == b"ok"


def test_an_answer_that_is_none(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    code = """
import os, socket
def transform(data):
    for number in range(3, 4096):
        try:
            connection = socket.socket(fileno=os.dup(number))
            if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                connection.send(bytes.fromhex(data.decode()))
        except OSError:
            pass
    return b""
"""
    name = etls.ready(code, "hpush://")
    for number, answer in enumerate((b'{"ok":false,"message":"\xff"}', b'{"x":' + b"[" * 60_000, b"no JSON")):
        pool.request("PUT", f"{objects}/answer-{number}", body=answer.hex())
        reply = pool.request("GET", f"{objects}/answer-{number}?uuid={name}")
        assert (reply.status, reply.json()["tcode"]) == (422, "ErrETLCrash")


def test_many_at_once(objects: str, etls: Etls) -> None:
    name = etls.ready(REVERSE, "hpush://")
    failures: list[object] = []

    def read(number: int) -> None:
        with urllib3.PoolManager(retries=False) as own:
            data = b"%d" % number * 5000
            own.request("PUT", f"{objects}/many/{number}", body=data)
            for _ in range(20):
                reply = own.request("GET", f"{objects}/many/{number}?etl_name={name}")
                if (reply.status, reply.data) != (200, data[::-1]):
                    failures.append((number, reply.status, reply.data[:200]))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(10, 26)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_standard_error_is_in_the_logs(pool: urllib3.PoolManager, objects: str, etls: Etls) -> None:
    name = etls.ready("import sys\nprint('a remark', file=sys.stderr)\nprint('ok')\n")
    assert pool.request("GET", f"{objects}/hello?uuid={name}").data == b"ok\n"
    for path in (f"{name}/logs", f"logs/{name}"):
        text, deadline = "", time.monotonic() + 20
        while "a remark" not in text and time.monotonic() < deadline:  # a worker answers first and then writes its log
            (logs,) = pool.request("GET", f"{etls.url}/{path}").json()
            text = base64.b64decode(logs["logs"]).decode()
        assert "a remark" in text


def test_etls_survive_restarts_and_kills(new_store: object, tmp_path: os.PathLike[str]) -> None:
    data = os.path.join(tmp_path, "data")
    store = new_store(data)  # type: ignore[operator]
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(60)) as pool:
        pool.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}')
        pool.request("PUT", f"{store.endpoint}/v1/objects/b/x", body=b"hello")
        etls = Etls(pool, store.endpoint)
        running, stopped = etls.ready(UPPER, id="kept-running"), etls.ready(UPPER, id="kept-stopped")
        pool.request("POST", f"{etls.url}/{stopped}/stop")
        for end in ("end", "kill"):
            getattr(store, end)()
            store = new_store(data)  # type: ignore[operator]
            url = f"{store.endpoint}/v1/objects/b/x"
            assert pool.request("GET", f"{url}?uuid={running}").data == b"HELLO"
            assert pool.request("GET", f"{url}?uuid={stopped}").status == 409

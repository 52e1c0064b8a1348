"""Transforms on the nodes of a real cluster: processes, an object store, and nodes that are killed.

``AIS_KILLS=1000`` kills ten of each kind while objects are read; the default is one of each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from aistore.errors import NotSupportedError
from aistore.etl.endings import CRASHES_MAX
from aistore.laptop.cluster import LocalCluster
from aistore.testing import LocalNode
from aistore.wire.messages import encode_base64

REVERSE = "def transform(data):\n    return data[::-1]\n"
#: Waits in its import while the gate is there, after it has left a mark.
GATED = (
    """
import os, time
open(os.path.join({marks!r}, str(os.getpid())), "w").close()
while os.path.exists({gate!r}):
    time.sleep(0.01)
"""
    + REVERSE
)
#: Runs on as many nodes as there are seats.
SEATED = (
    """
import os
for seat in range({seats}):
    try:
        os.mkdir(os.path.join({room!r}, str(seat)))
        break
    except FileExistsError:
        pass
else:
    raise OSError("no GPU here")
"""
    + REVERSE
)
ROUNDS = max(1, int(os.environ.get("AIS_KILLS", "0")) // 100)
OBJECTS = [f"o{number}" for number in range(24)]
_SECONDS = 60.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    try:
        with LocalCluster(3, str(tmp_path_factory.mktemp("cluster")), arguments=("--lease", "4")) as running:
            assert call("POST", f"{running.node(1).endpoint}/v1/buckets/b", {"action": "create-bck"}).status == 200
            for name in OBJECTS:
                assert call("PUT", f"{running.node(1).endpoint}/v1/objects/b/{name}", name.encode()).status == 200
            yield running
    except NotSupportedError as error:
        pytest.skip(str(error))


@pytest.fixture
def cluster(nodes: LocalCluster) -> Iterator[LocalCluster]:
    """Return three nodes that run and settle, without a transform."""
    for node in nodes.nodes.values():
        if not node.running:
            node.start()
    nodes.wait_settled()
    yield nodes
    for node in nodes.nodes.values():
        if not node.running:
            node.start()
    for entry in listed(nodes.node(1)):
        call("DELETE", f"{nodes.node(1).endpoint}/v1/etl/{entry['id']}")


def call(method: str, url: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    with urllib3.PoolManager(retries=False, timeout=_SECONDS) as pool:
        return pool.request(method, url, body=data, headers=headers)


def init(node: LocalNode, name: str, code: str, **fields: object) -> urllib3.BaseHTTPResponse:
    message = {"id": name, "code": encode_base64(code), "communication_type": "hpush://", "workers": 1, **fields}
    return call("POST", f"{node.endpoint}/v1/etl/init_code", message)


def listed(node: LocalNode) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = call("GET", f"{node.endpoint}/v1/etl").json()
    return entries


def health(node: LocalNode, name: str) -> dict[str, str]:
    reply = call("GET", f"{node.endpoint}/v1/etl/{name}/health")
    return {entry["target_id"]: entry["health_status"] for entry in reply.json()} if reply.status == 200 else {}


def transformed(node: LocalNode, etl: str, name: str) -> urllib3.BaseHTTPResponse:
    return call("GET", f"{node.endpoint}/v1/objects/b/{name}?etl_name={etl}")


def guards(node: LocalNode) -> list[int]:
    """Return the transforms' process trees of a node, by their guards."""
    return [pid for pid, command in node.processes().items() if "confine.py" in command]


def controller_of(node: LocalNode) -> int:
    return next(pid for pid, command in node.processes().items() if "aistore.server.controller" in command)


def http_worker_of(node: LocalNode) -> int:
    return next(pid for pid, command in node.processes().items() if "aistore.server.http_worker" in command)


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_made_stopped_and_removed_everywhere(cluster: LocalCluster) -> None:
    one, two, three = (cluster.node(number) for number in (1, 2, 3))
    reply = init(one, "reverse", REVERSE)
    assert reply.status == 200, reply.data
    ids = sorted(node.id for node in (one, two, three))
    assert health(two, "reverse") == dict.fromkeys(ids, "Running")
    for node in (one, two, three):
        for name in OBJECTS:
            assert transformed(node, "reverse", name).data == name.encode()[::-1]
    counts = {
        entry["target_id"]: entry["obj_count"] for entry in call("GET", f"{one.endpoint}/v1/etl/reverse/metrics").json()
    }
    assert sum(counts.values()) == 3 * len(OBJECTS)
    assert min(counts.values()) > 0  # each ran what it is home to
    assert [entry["obj_count"] for entry in listed(three)] == [3 * len(OBJECTS)]
    (log,) = call("GET", f"{one.endpoint}/v1/etl/reverse/logs/{three.id}").json()
    assert log["target_id"] == three.id
    assert call("GET", f"{one.endpoint}/v1/etl/reverse/logs/t0").status == 404
    assert call("POST", f"{two.endpoint}/v1/etl/reverse/stop", b"{}").status == 200
    assert [guards(node) for node in (one, two, three)] == [[], [], []]
    for node in (one, two, three):
        assert transformed(node, "reverse", "o1").status == 409
    assert call("POST", f"{three.endpoint}/v1/etl/reverse/start", b"{}").status == 200
    assert [len(guards(node)) for node in (one, two, three)] == [1, 1, 1]
    assert transformed(one, "reverse", "o1").data == b"1o"
    assert call("DELETE", f"{three.endpoint}/v1/etl/reverse").status == 200
    assert [guards(node) for node in (one, two, three)] == [[], [], []]
    assert transformed(one, "reverse", "o1").status == 404
    assert [listed(node) for node in (one, two, three)] == [[], [], []]


def test_given_up_on_one_node(cluster: LocalCluster) -> None:
    """A node on which a transform keeps crashing says so; the others go on, and `start` brings it back."""
    one, two = cluster.node(1), cluster.node(2)
    code = "import os\ndef transform(data, etl_args):\n    if etl_args:\n        os.abort()\n    return data[::-1]\n"
    assert init(one, "crashes", code).status == 200
    for _ in range(CRASHES_MAX):
        assert call("GET", f"{one.endpoint}/v1/objects/b/o1?etl_name=crashes&etl_args=die").status == 422
    until(lambda: sorted(health(two, "crashes").values()) == ["Aborted", "Running", "Running"], "it still runs")
    ((home, _),) = (entry for entry in health(two, "crashes").items() if entry[1] == "Aborted")
    used = {entry["target_id"]: entry for entry in call("GET", f"{two.endpoint}/v1/etl/crashes/metrics").json()}
    assert used[home]["mem"] == 0
    assert all(entry["mem"] > 0 for node, entry in used.items() if node != home)
    (line,) = listed(two)
    assert line["stage"] == "Aborted"
    assert f"{home}: {CRASHES_MAX} objects in a row ended their worker" in line["message"]
    assert transformed(two, "crashes", "o1").status == 409
    assert {transformed(two, "crashes", name).status for name in OBJECTS} == {200, 409}
    assert call("POST", f"{two.endpoint}/v1/etl/crashes/start", b"{}").status == 200
    assert set(health(one, "crashes").values()) == {"Running"}
    assert transformed(two, "crashes", "o1").data == b"1o"
    details = call("GET", f"{one.endpoint}/v1/etl/crashes").json()
    assert details["processes"] == sum(node["processes"] for node in details["nodes"]) >= 6


def test_progress_and_the_failure_of_one_node(cluster: LocalCluster, tmp_path: Path) -> None:
    one = cluster.node(1)
    others = {cluster.node(2).id, cluster.node(3).id}
    message = {
        "id": "seat-two", "code": encode_base64(SEATED.format(seats=2, room=str(tmp_path))), "sandbox": "off",
        "communication_type": "hpush://",
    }  # fmt: skip
    reply = call("POST", f"{one.endpoint}/v1/etl/init_code", message, Accept="application/x-ndjson")
    lines = [json.loads(line) for line in reply.data.splitlines()]
    assert {line["message"].partition(":")[0] for line in lines if "stage" in line} == {one.id, *others}
    error = lines[-1]["error"]["message"]
    assert error.startswith(tuple(f"node {other}: an import of the transform failed" for other in others)), error
    assert "no GPU here" in error
    assert [listed(node) for node in cluster.running] == [[], [], []]
    assert [guards(node) for node in cluster.running] == [[], [], []]


def test_the_command_line_tells_of_all_nodes(cluster: LocalCluster, tmp_path: Path) -> None:
    code = tmp_path / "loud.py"
    code.write_text("print('hello from the import')\n" + REVERSE)
    ids = sorted(node.id for node in cluster.running)

    def ais(number: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "AIS_ENDPOINT": cluster.node(number).endpoint}
        command = [sys.executable, "-m", "aistore", "etl", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=True)

    made = ais(1, "init", "code", "--name", "loud-one", "--from-file", str(code))
    assert made.stdout == "loud-one\n"
    ready = [line for line in made.stderr.splitlines() if line.startswith("ready: ")]
    assert sorted(ready) == [f"ready: {one}: loud-one takes objects" for one in ids]
    assert transformed(cluster.node(3), "loud-one", "o1").data == b"1o"
    (line,) = ais(2, "show", "--no-headers").stdout.splitlines()
    assert line.split()[:2] == ["loud-one", "Running"]
    assert line.split()[3] == "1"
    assert ", ".join(f"{one} Running" for one in ids) in ais(2, "show", "loud-one").stdout
    logs = ais(3, "view-logs", "loud-one").stdout
    assert logs == "".join(f"{one}:\nhello from the import\n" for one in ids)
    assert ais(3, "view-logs", "loud-one", ids[1]).stdout == "hello from the import\n"


@pytest.mark.parametrize("kind", ["node", "controller"])
def test_what_a_killed_node_was_making_is_removed(cluster: LocalCluster, tmp_path: Path, kind: str) -> None:
    gate, marks = tmp_path / "gate", tmp_path / "marks"
    gate.touch()
    marks.mkdir()
    one, two, three = (cluster.node(number) for number in (1, 2, 3))
    code = GATED.format(gate=str(gate), marks=str(marks))

    def make() -> None:
        try:
            init(one, "gated-etl", code, sandbox="off")
        except urllib3.exceptions.HTTPError:
            pass

    making = threading.Thread(target=make)
    making.start()
    until(lambda: len(os.listdir(marks)) == 1, "no import began")
    until(lambda: [entry["stage"] for entry in listed(two)] == ["Initializing"], "node 2 does not hear of it")
    assert init(two, "gated-etl", REVERSE).status == 409  # the name is taken, everywhere
    if kind == "node":
        one.kill()
    else:
        os.kill(controller_of(one), signal.SIGKILL)
    making.join()
    until(lambda: listed(two) == [] and listed(three) == [], "the record stays")
    gate.unlink()
    assert init(two, "gated-etl", REVERSE).status == 200
    if kind == "node":
        one.start()
    cluster.wait_settled()
    assert len(health(two, "gated-etl")) == 3
    assert set(health(two, "gated-etl").values()) == {"Running"}


def test_a_node_that_starts_has_them_when_it_is_ready(cluster: LocalCluster) -> None:
    one, three = cluster.node(1), cluster.node(3)
    assert init(one, "reverse", REVERSE).status == 200
    assert init(one, "stopped-etl", REVERSE).status == 200
    three.stop()
    assert call("POST", f"{one.endpoint}/v1/etl/stopped-etl/stop", b"{}").status == 200
    three.start()
    assert health(three, "reverse")[three.id] == "Running"
    assert health(three, "stopped-etl")[three.id] == "Aborted"
    assert len(guards(three)) == 1


def test_a_stop_does_not_wait_for_a_paused_node_forever(cluster: LocalCluster) -> None:
    """It waits until that node's lease has lapsed, from when on the node serves nothing; it follows when it goes on."""
    one, three = cluster.node(1), cluster.node(3)
    assert init(one, "reverse", REVERSE).status == 200
    three.pause()
    try:
        assert call("POST", f"{one.endpoint}/v1/etl/reverse/stop", b"{}").status == 200
        assert guards(one) == []
        (summary,) = listed(one)
        assert summary["stage"] == "Aborted"
    finally:
        three.resume()
    until(lambda: guards(three) == [], "node 3 goes on running it")
    until(
        lambda: health(one, "reverse") == dict.fromkeys([node.id for node in cluster.running], "Aborted"),
        "not all stopped",
    )


@pytest.mark.parametrize("kind", ["node", "controller", "transform", "HTTP worker"])
def test_reads_while_processes_are_killed(cluster: LocalCluster, count: Callable[[str, int], None], kind: str) -> None:
    """Each is answered right or told to come again, and all are answered in the end."""
    node = cluster.node(2)
    assert init(cluster.node(1), "reverse", REVERSE).status == 200
    victims = {"controller": controller_of, "transform": lambda node: guards(node)[0], "HTTP worker": http_worker_of}
    stop, wrong, served = threading.Event(), list[str](), [0]

    def read(number: int) -> None:
        with urllib3.PoolManager(retries=False, timeout=30) as pool:
            while not stop.is_set() and not wrong:
                name = OBJECTS[served[0] % len(OBJECTS)]
                try:
                    reply = pool.request("GET", f"{cluster.node(number).endpoint}/v1/objects/b/{name}?etl_name=reverse")
                except urllib3.exceptions.HTTPError:
                    if number != 2 or kind not in ("node", "HTTP worker"):
                        wrong.append(f"node {number} did not answer")
                    time.sleep(0.05)
                    continue
                if reply.status == 200 and reply.data == name.encode()[::-1]:
                    served[0] += 1
                elif reply.status == 503:
                    count("transformed reads told to come again", 1)
                    time.sleep(0.05)
                else:
                    wrong.append(f"node {number}: {reply.status} {reply.data!r}")

    def await_reads() -> None:
        before = served[0]
        until(lambda: wrong or served[0] > before + 3 * len(OBJECTS), "the reads do not go on")

    readers = [threading.Thread(target=read, args=(number,)) for number in (1, 2, 3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(ROUNDS):
            await_reads()
            if kind == "node":
                node.kill()
                await_reads()
                node.start()
            else:
                until(lambda: guards(node), "the transform does not come back")
                os.kill(victims[kind](node), signal.SIGKILL)
            await_reads()
            until(lambda: wrong or transformed(node, "reverse", "o1").status == 200, "the node does not answer again")
            count(f"kills of a {kind} of a cluster, under transformed reads", 1)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not wrong, "\n".join(wrong)
    cluster.wait_settled()
    until(lambda: list(health(cluster.node(1), "reverse").values()) == ["Running"] * 3, "not all run it again")
    count("transformed reads meanwhile", served[0])

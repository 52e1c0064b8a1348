"""Processes: what is killed comes back, what is stopped is gone, and who is in the way is named."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import urllib3
from hosts import needs

from aistore.server.supervisor import Supervisor
from aistore.settings import ProcessSettings, ServeSettings
from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

NewStore = Callable[..., StoreProcess]

# The client waits out a restart, as ours and every other one does: refused connections, resets, 503.
RETRIES = urllib3.Retry(total=60, backoff_factor=0.1, backoff_max=0.5, status_forcelist=(503,), allowed_methods=None)


def put_and_get(store: StoreProcess, pool: urllib3.PoolManager, name: str) -> None:
    url = f"{store.endpoint}/v1/objects/b/{name}"
    assert pool.request("PUT", url, body=name.encode()).status == 200
    assert pool.request("GET", url).data == name.encode()


@pytest.fixture
def store_with_bucket(new_store: NewStore) -> StoreProcess:
    store = new_store()
    reply = urllib3.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}')
    assert reply.status == 200
    return store


def test_killed_children_come_back(store_with_bucket: StoreProcess) -> None:
    store = store_with_bucket
    with urllib3.PoolManager(retries=RETRIES) as pool:
        put_and_get(store, pool, "before")
        before = store.children()
        assert len(before) >= 3
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        put_and_get(store, pool, "after")
        assert pool.request("GET", f"{store.endpoint}/v1/objects/b/before").data == b"before"
        assert pool.request("GET", f"{store.endpoint}/v1/etl").json() == []
    assert not set(before) & set(store.children())
    assert store.end() == 0


def test_transforms_come_back_with_the_controller(store_with_bucket: StoreProcess) -> None:
    store = store_with_bucket
    message = {"code": encode_base64("print(1)"), "communication_type": "io://", "id": "comes-back"}
    with urllib3.PoolManager(retries=RETRIES) as pool:
        put_and_get(store, pool, "x")
        reply = pool.request("POST", f"{store.endpoint}/v1/etl/init_code", body=json.dumps(message).encode())
        assert reply.data == b"comes-back"
        for _ in range(2):
            (controller,) = [pid for pid, command in store.children().items() if "controller" in command]
            os.kill(controller, signal.SIGKILL)
            reply = pool.request("GET", f"{store.endpoint}/v1/objects/b/x?uuid=comes-back")
            assert (reply.status, reply.data) == (200, b"1\n")


def test_transforms_are_not_mixed_up_by_a_new_controller(new_store: NewStore) -> None:
    store = new_store(arguments=("--workers", "1"))
    names = ("zz-first", "aa-second")  # a new controller takes them up in the other order
    with urllib3.PoolManager(retries=RETRIES) as pool:
        pool.request("POST", f"{store.endpoint}/v1/buckets/b", body=b'{"action":"create-bck"}')
        put_and_get(store, pool, "x")
        for name in names:
            code = encode_base64(f"def transform(data):\n    return b'{name}'\n")
            reply = pool.request("POST", f"{store.endpoint}/v1/etl/init_code", json={"code": code, "id": name})
            assert reply.status == 200, reply.data
        for _ in range(2):
            for name in names:
                reply = pool.request("GET", f"{store.endpoint}/v1/objects/b/x?etl_name={name}")
                assert (reply.status, reply.data) == (200, name.encode())
            kill_controller(store)


def kill_controller(store: StoreProcess) -> None:
    """Kill the controller and wait until the next one answers."""
    (pid,) = (pid for pid, command in store.children().items() if "controller" in command)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        reply = urllib3.request("GET", f"{store.endpoint}/v1/etl", retries=RETRIES)
        if pid not in store.children() and all(etl["stage"] == "Running" for etl in reply.json()):
            return
        time.sleep(0.1)
    raise AssertionError("the controller did not come back")


def test_nothing_outlives_a_killed_supervisor(store_with_bucket: StoreProcess, new_store: NewStore) -> None:
    store = store_with_bucket
    children = [Path(f"/proc/{pid}") for pid in store.children()]
    store.kill()
    again = new_store(store.data)  # takes the lock, which every writer has to have let go
    with urllib3.PoolManager(retries=RETRIES) as pool:
        put_and_get(again, pool, "x")
    assert not [path for path in children if path.exists() and "aistore" in (path / "cmdline").read_text()]


def test_restart_keeps_everything(store_with_bucket: StoreProcess, new_store: NewStore) -> None:
    store = store_with_bucket
    with urllib3.PoolManager() as pool:
        for number in range(50):
            data = os.urandom(number * 100)
            pool.request("PUT", f"{store.endpoint}/v1/objects/b/{number}", body=data, headers={"ais-custom-md": "k=v"})
        urls = [f"/v1/objects/b/{number}" for number in range(50)]
        smap = pool.request("GET", f"{store.endpoint}/v1/daemon?what=smap").json()
        before = [(reply.data, reply.headers["ais-version"], reply.headers["ais-custom-md"]) for reply in
                  (pool.request("GET", store.endpoint + url) for url in urls)]  # fmt: skip
        assert store.end() == 0
        again = new_store(store.data)
        after = [(reply.data, reply.headers["ais-version"], reply.headers["ais-custom-md"]) for reply in
                 (pool.request("GET", again.endpoint + url) for url in urls)]  # fmt: skip
        assert after == before
        assert pool.request("GET", f"{again.endpoint}/v1/daemon?what=smap").json()["uuid"] == smap["uuid"]


def serve(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aistore", "serve", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})}, check=False
    )


def test_a_data_directory_in_use_names_its_owner(store: StoreProcess) -> None:
    result = serve("--data", store.data, "--port", "0")
    assert result.returncode == 1
    assert f"process {store.pid}" in result.stderr
    assert store.endpoint in result.stderr
    assert "Traceback" not in result.stderr


@needs("proc")
def test_a_port_in_use_names_its_holder(tmp_path: Path) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        result = serve("--data", str(tmp_path / "d"), "--port", str(server.server_port))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert result.returncode == 1
    assert f"port {server.server_port}" in result.stderr
    assert f"pid {os.getpid()}" in result.stderr
    assert "--port" in result.stderr


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    result = serve("--data", str(tmp_path), "--port", "0")
    assert result.returncode == 1
    assert "thesis.tex" in result.stderr


def test_files_of_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    for name in ("sqlite3", "signal", "uvloop"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the working directory')\n")
    command = [os.path.join(os.path.dirname(sys.executable), "ais"), "serve", "--data", "data", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert " ready at " in process.stdout.readline()
        process.terminate()


def test_other_machines_need_a_token(tmp_path: Path, new_store: NewStore) -> None:
    result = serve("--data", str(tmp_path / "d"), "--port", "0", "--host", "0.0.0.0", env={"AIS_AUTHN_TOKEN": ""})
    assert result.returncode == 1
    assert "AIS_AUTHN_TOKEN" in result.stderr
    store = new_store(arguments=("--host", "0.0.0.0"), env={"AIS_AUTHN_TOKEN": "open sesame"})
    url = f"{store.endpoint}/v1/buckets"
    assert urllib3.request("GET", url).status == 401
    assert urllib3.request("GET", url, headers={"Authorization": "Bearer wrong"}).status == 401
    assert urllib3.request("GET", url, headers={"Authorization": "Bearer open sesame"}).status == 200
    assert urllib3.request("GET", f"{store.endpoint}/v1/health").status == 200
    assert "open sesame" not in str(store.children())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything(new_store: NewStore, number: signal.Signals) -> None:
    store = new_store()
    children = list(store.children())
    os.kill(store.pid, number)
    assert store.end() == 0
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert store.errors() == ""


def test_a_process_that_keeps_dying_is_started_less_and_less_often(tmp_path: Path) -> None:
    supervisor = Supervisor(ServeSettings(data=str(tmp_path)), print)
    child = supervisor._children[0]
    pauses = []
    for lived in (*[0.1] * 8, 11.0, 0.1):
        child.process = subprocess.Popen(["true"])
        child.process.wait()
        child.started = 1000.0
        supervisor._note_death(child, 1000.0 + lived)
        pauses.append(round(child.start_again_at - 1000.0 - lived, 3))
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 0.0, 0.2]
    supervisor._end_children()  # closes its pipes


def test_the_policy_is_told_to_the_processes(tmp_path: Path) -> None:
    result = serve("--data", str(tmp_path / "d"), env={"AIS_DURABILITY": "paranoid"})
    assert result.returncode == 2
    assert "'default', 'durable'" in result.stderr
    settings = ServeSettings(data="d", durability="durable")
    told = ProcessSettings(settings, "r", "n", 0, 0)
    assert ProcessSettings.decode(told.encode()).serve.durability == "durable"

"""A disk that fills up under a whole store: 507, reads and transforms go on, nothing is torn, and it passes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from aistore.testing import StoreProcess
from aistore.wire.messages import encode_base64

NewStore = Callable[..., StoreProcess]

RETRIES = urllib3.Retry(total=60, backoff_factor=0.1, backoff_max=0.5, status_forcelist=(503,), allowed_methods=None)
REVERSE = "import sys\ndef transform(data):\n    print('x' * 5000, file=sys.stderr)\n    return data[::-1]\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "aistore-test", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


class Requests:
    """Requests to one store, each answered in the end."""

    def __init__(self, store: StoreProcess, pool: urllib3.PoolManager) -> None:
        self.store, self.pool = store, pool

    def __call__(self, method: str, path: str, **arguments: object) -> urllib3.BaseHTTPResponse:
        return self.pool.request(method, f"{self.store.endpoint}/v1{path}", **arguments)

    def check_reads(self, stored: dict[str, bytes]) -> None:
        for name, data in stored.items():
            assert self("GET", f"/objects/b/{name}").data == data
        listed = self("GET", "/buckets/b", body=b'{"action":"list","name":"","value":{}}')
        assert {entry["name"] for entry in listed.json()["entries"]} == set(stored)
        name = min(stored)
        reply = self("GET", f"/objects/b/{name}?etl_name=reverse")
        assert (reply.status, reply.data) == (200, stored[name][::-1])


def fill(path: Path) -> None:
    """Take every byte that is left, as somebody else's files may."""
    with open(path, "wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2


def test_a_full_disk(small_disk: Path, new_store: NewStore) -> None:
    data = str(small_disk / "data")
    store = new_store(data, arguments=("--workers", "2"))
    with urllib3.PoolManager(retries=RETRIES) as pool:
        ask = Requests(store, pool)
        assert ask("POST", "/buckets/b", body=b'{"action":"create-bck"}').status == 200
        message = {"id": "reverse", "code": encode_base64(REVERSE), "communication_type": "hpush://", "workers": 1}
        assert ask("POST", "/etl/init_code", json=message).status == 200
        stored: dict[str, bytes] = {}
        for number in range(300):
            content = os.urandom(150_000)
            reply = ask("PUT", f"/objects/b/o{number}", body=content)
            if reply.status != 200:
                break
            stored[f"o{number}"] = content
        assert reply.status == 507
        assert "free" in reply.json()["message"]
        assert len(stored) > 50
        for body in (b"x" * 2_000_000, iter([b"x" * 600_000] * 4)):
            assert ask("PUT", "/objects/b/o0", body=body, retries=False).status == 507
        ask.check_reads(stored)

        # Not even the reserve is left: the store goes on, also when its processes begin anew.
        fill(small_disk / "foreign")
        assert ask("PUT", "/objects/b/o0", body=b"x" * 150_000).status == 507
        assert ask("PATCH", "/objects/b/o0", json={"action": "", "value": {"k": "v" * 5000}}).status in (200, 507)
        ask.check_reads(stored)
        for pid in store.children():
            os.kill(pid, signal.SIGKILL)
        ask.check_reads(stored)
        assert store.end() == 0
        assert "Traceback" not in store.errors(), store.errors()

        store = ask.store = new_store(data, arguments=("--workers", "2"))
        ask.check_reads(stored)
        (small_disk / "foreign").unlink()
        for name in [name for name in stored if name != "o0"][:60]:
            assert ask("DELETE", f"/objects/b/{name}").status == 200
            del stored[name]
        ask.check_reads(stored)
        assert store.end() == 0

        # What was deleted stays for two minutes; a larger disk helps at once.
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        store = ask.store = new_store(data, arguments=("--workers", "2"))
        stored["o0"] = b"x" * 150_000
        assert ask("PUT", "/objects/b/o0", body=stored["o0"]).status == 200
        ask.check_reads(stored)
        assert store.end() == 0
        assert "Traceback" not in store.errors(), store.errors()


def test_a_log_on_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    """Every line that the store writes to standard error fails here."""
    command = [sys.executable, "-m", "aistore", "serve", "--data", str(tmp_path / "d"), "--port", "0", "--workers", "2"]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full, text=True)
    store = StoreProcess(str(tmp_path / "d"))
    store.process = process
    try:
        assert process.stdout is not None
        store.endpoint = process.stdout.readline().split(" ready at ")[1].split()[0]
        with urllib3.PoolManager(retries=RETRIES) as pool:
            ask = Requests(store, pool)
            assert ask("POST", "/buckets/b", body=b'{"action":"create-bck"}').status == 200
            before = list(store.children())
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            assert ask("PUT", "/objects/b/o", body=b"content").status == 200
            assert ask("GET", "/etl").json() == []
            assert not set(before) & set(store.children())
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.unlink(store.errors_path)

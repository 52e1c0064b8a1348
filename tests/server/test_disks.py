"""Disks that are taken away, come back, or fail, under a running store and at its start."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from aistore.storage.local.fsck import check
from aistore.testing import StoreProcess

NewStore = Callable[..., StoreProcess]
OBJECTS = [f"o{number}" for number in range(80)]


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture(autouse=True)
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory with a file system of its own, that ``plug`` mounts there again."""
    (tmp_path / "hardware").mkdir()
    (tmp_path / "disk").mkdir()
    mount("-t", "tmpfs", "-o", "size=64m", "aistore-test", str(tmp_path / "hardware"))
    plug(tmp_path / "disk")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], capture_output=True)
    subprocess.run(["umount", "-l", str(tmp_path / "hardware")], check=True)


def plug(disk: Path) -> None:
    mount("--bind", str(disk.parent / "hardware"), str(disk))


def unplug(disk: Path) -> None:
    subprocess.run(["umount", "-l", str(disk)], check=True)


class Asker:
    """Speaks to a store, without a second try."""

    def __init__(self, store: StoreProcess) -> None:
        self._pool = urllib3.PoolManager(retries=False, timeout=30.0)
        self._url = store.endpoint

    def ask(self, method: str, path: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        return self._pool.request(method, f"{self._url}/v1/{path}", body=body)

    def put(self, name: str, size: int = 3000) -> urllib3.BaseHTTPResponse:
        return self.ask("PUT", f"objects/b/{name}", name.encode() * (size // len(name)))

    def get(self, name: str) -> urllib3.BaseHTTPResponse:
        return self.ask("GET", f"objects/b/{name}")

    def fill(self) -> None:
        assert self.ask("POST", "buckets/b", b'{"action":"create-bck"}').status == 200
        for name in OBJECTS:
            assert self.put(name).status == 200

    def mountpaths(self) -> list[dict[str, object]]:
        return self.ask("GET", "daemon?what=mountpaths").json()["mountpaths"]

    def wait_until_available(self, path: Path) -> None:
        deadline = time.monotonic() + 60
        while [one["state"] for one in self.mountpaths() if one["path"] == str(path)] != ["available"]:
            assert time.monotonic() < deadline, self.mountpaths()
            time.sleep(0.1)

    def close(self) -> None:
        self._pool.clear()


@pytest.fixture
def asker() -> Iterator[Callable[[StoreProcess], Asker]]:
    made: list[Asker] = []

    def make(store: StoreProcess) -> Asker:
        made.append(Asker(store))
        return made[-1]

    yield make
    for one in made:
        one.close()


def names_on(disk: Path) -> list[str]:
    connection = sqlite3.connect(f"{disk}/ais/index.db")
    try:
        return [name.decode() for (name,) in connection.execute("SELECT name FROM objects ORDER BY name")]
    finally:
        connection.close()


def check_share_is_unavailable(asker: Asker, disk: Path, there: list[str], words: str) -> None:
    """Every object and name of the disk says so, every other is served, and so is a new one."""
    path = f"{disk}/ais"
    # For a second each process may still give what it has in its memory.
    deadline = time.monotonic() + 30
    while any(asker.get(name).status == 200 for name in there for _ in range(8)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for name in there[:5]:
        delete = asker.ask("DELETE", f"objects/b/{name}")
        for reply in (asker.get(name), asker.put(name), asker.put(name, 2 << 20), delete):
            assert reply.status == 503, reply.data
            assert int(reply.headers["Retry-After"]) > 0
            error = reply.json()
            assert error["tcode"] == "ErrMountpathUnavailable"
            assert f"ais://b/{name}" in error["message"]
            assert f"mountpath {path} (mp1) is unavailable" in error["message"]
            assert re.search(words, error["message"])
            assert f"ais storage mountpath detach {path} --force" in error["hint"]
    head = asker.ask("HEAD", f"objects/b/{there[0]}")
    assert (head.status, json.loads(head.headers["Hdr-Error"])["tcode"]) == (503, "ErrMountpathUnavailable")
    for name in set(OBJECTS) - set(there):
        assert asker.get(name).data == name.encode() * (3000 // len(name))
        assert asker.put(name).status == 200
    new = [asker.put(f"new{number}").status for number in range(40)]
    assert set(new) == {200, 503}
    listing = asker.ask("GET", "buckets/b", b'{"action":"list","value":{}}')
    assert listing.status == 503
    assert f"ais://b: mountpath {path}" in listing.json()["message"]
    assert asker.ask("POST", "buckets/c", b'{"action":"create-bck"}').status == 200
    assert asker.ask("DELETE", "buckets/c", b'{"action":"destroy-bck"}').status == 200
    states = {one["id"]: (one["state"], one["reason"]) for one in asker.mountpaths()}
    assert states["mp0"] == ("available", "")
    assert states["mp1"][0] == "unavailable"
    assert re.search(words, states["mp1"][1])


def test_a_disk_is_unplugged_and_comes_back(
    new_store: NewStore, disk: Path, asker: Callable[[StoreProcess], Asker]
) -> None:
    store = new_store(arguments=("--mountpath", f"{disk}/ais"))
    client = asker(store)
    client.fill()
    there = names_on(disk)
    assert 20 < len(there) < 60
    unplug(disk)
    # The first to ask may get an object that is kept in memory; what changes an object never.
    for name in there:
        assert client.put(name).status == 503
    check_share_is_unavailable(client, disk, there, "is its disk mounted")
    assert os.listdir(disk) == []
    plug(disk)
    client.wait_until_available(Path(f"{disk}/ais"))
    for name in OBJECTS:
        assert client.get(name).data == name.encode() * (3000 // len(name))
        assert client.put(name).status == 200
    listed = client.ask("GET", "buckets/b", b'{"action":"list","value":{"prefix":"o"}}').json()["entries"]
    assert sorted(entry["name"] for entry in listed) == sorted(OBJECTS)
    # Away at the start: the store serves what it has.
    assert store.end() == 0
    unplug(disk)
    store.start()
    client = asker(store)
    check_share_is_unavailable(client, disk, there, "is its disk mounted")
    assert os.listdir(disk) == [], "never begun anew"
    plug(disk)
    client.wait_until_available(Path(f"{disk}/ais"))
    assert all(client.get(name).status == 200 for name in OBJECTS)
    assert store.end() == 0
    assert "Traceback" not in store.errors(), store.errors()


def test_an_idle_disk_can_be_unmounted_once_it_is_disabled(
    new_store: NewStore, disk: Path, asker: Callable[[StoreProcess], Asker]
) -> None:
    store = new_store(arguments=("--mountpath", f"{disk}/ais"))
    client = asker(store)
    client.fill()
    there = names_on(disk)
    assert all(client.get(name).status == 200 for name in OBJECTS)
    action = json.dumps({"action": "disable-mp", "value": f"{disk}/ais"}).encode()
    assert client.ask("POST", "daemon/mountpaths", action).status == 200
    reply = client.get(there[0])
    assert (reply.status, "it was disabled by hand" in reply.json()["message"]) == (503, True)
    deadline = time.monotonic() + 30
    while subprocess.run(["umount", str(disk)], capture_output=True).returncode:
        assert time.monotonic() < deadline, "somebody keeps the disk busy"
        time.sleep(0.1)
    reply = client.ask("POST", "daemon/mountpaths", action.replace(b"disable", b"enable"))
    assert (reply.status, "is its disk mounted?" in reply.json()["message"]) == (503, True)
    assert client.ask("POST", "daemon/mountpaths", action).status == 200
    plug(disk)
    assert client.ask("POST", "daemon/mountpaths", action.replace(b"disable", b"enable")).status == 200
    assert all(client.get(name).status == 200 for name in OBJECTS)


def test_a_disk_of_several_is_full(
    new_store: NewStore, tmp_path: Path, disk: Path, asker: Callable[[StoreProcess], Asker]
) -> None:
    """Its share of the writes gets 507; everything else goes on, deletes of its own too, and it passes."""
    store = new_store(str(tmp_path / "data"), arguments=("--workers", "2", "--mountpath", f"{disk}/ais"))
    one = asker(store)
    one.fill()
    there = names_on(disk)
    with open(disk / "somebody-elses", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 20)):
                pass
        except OSError:
            pass
        file.truncate(file.tell() - (1 << 20))  # some of the reserve is left, so deletes go through
    for name in OBJECTS:
        assert one.get(name).data == name.encode() * (3000 // len(name))
        for size in (100, 3000, 2 << 20):  # in the index, in one step, staged
            reply = one.put(name, size)
            assert reply.status == (507 if name in there else 200), reply.data
            assert name not in there or f"{disk}/ais" in reply.json()["message"]
        if name not in there:
            assert one.put(name).status == 200
    assert one.ask("DELETE", f"objects/b/{there[0]}").status == 200
    assert {path["state"] for path in one.mountpaths()} == {"available"}, "a full disk is no broken one"
    (disk / "somebody-elses").unlink()
    for name in OBJECTS:
        assert one.put(name).status == 200
    assert store.end() == 0
    assert "Traceback" not in store.errors()
    assert check(store.data).findings == []


def test_a_disk_fails(new_store: NewStore, tmp_path: Path, asker: Callable[[StoreProcess], Asker]) -> None:
    """A block device that ends before all that is on it: the kernel says EIO to every read and write."""
    if not (shutil.which("mkfs.ext4") and shutil.which("losetup")):
        pytest.skip("mkfs.ext4 and losetup are needed to make a disk that can fail")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    mount("-o", "loop", str(image), str(disk))
    try:
        device = subprocess.run(
            ["losetup", "-j", str(image), "-O", "NAME", "-n"], capture_output=True, text=True, check=True
        ).stdout.strip()
        store = new_store(arguments=("--mountpath", f"{disk}/ais"))
        client = asker(store)
        client.fill()
        there = names_on(disk)
        subprocess.run(["sync", "-f", str(disk)], check=True)
        os.truncate(image, 4096)
        subprocess.run(["losetup", "-c", device], check=True)
        # Writes are acknowledged while the kernel keeps them in memory; within seconds housekeeping finds out.
        deadline = time.monotonic() + 30
        while client.put(there[0]).status == 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        check_share_is_unavailable(
            client, disk, there, "Input/output error|Read-only file system"
        )  # ext4 stops writing
        action = json.dumps({"action": "detach-mp", "value": f"{disk}/ais"}).encode()
        reply = client.ask("DELETE", "daemon/mountpaths", action)
        assert (reply.status, "cannot be looked into" in reply.json()["message"]) == (409, True)
        assert client.ask("DELETE", "daemon/mountpaths?force=true", action).status == 200
        for name in there:
            assert client.get(name).status == 404
            assert client.put(name).status == 200
        assert client.ask("GET", "buckets/b", b'{"action":"list","value":{}}').status == 200
        assert store.end() == 0
        assert "Traceback" not in store.errors(), store.errors()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)

from __future__ import annotations

import json
import multiprocessing.resource_tracker
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

STUB = Path(__file__).with_name("stub_store.py")


class StubStore:
    """A running stub store over the files of ``root``."""

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url, root

    def put(self, bucket: str, name: str, data: bytes) -> None:
        path = self.root / bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, bucket: str, name: str) -> None:
        (self.root / bucket / name).unlink()

    def be_busy(self, replies: int) -> None:
        """Answer the next ``replies`` entries with "busy"."""
        request = urllib.request.Request(f"{self.url}/busy/{replies}", data=b"")
        urllib.request.urlopen(request).close()

    def seen(self) -> dict:
        with urllib.request.urlopen(self.url + "/requests") as reply:
            return json.load(reply)

    def batches(self, bucket: str) -> int:
        return self.seen()["requests"].get(f"/v1/batch/{bucket}", 0)


@pytest.fixture(scope="session")
def stub_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    root = tmp_path_factory.mktemp("stub")
    process = subprocess.Popen([sys.executable, str(STUB), str(root)], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip(), root
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def stub(stub_address: tuple[str, Path]) -> StubStore:
    return StubStore(*stub_address)


@pytest.fixture(scope="session")
def resource_tracker() -> Iterator[None]:
    """End the process that multiprocessing keeps for spawned workers until this one exits."""
    yield
    multiprocessing.resource_tracker._resource_tracker._stop()  # there is no public way

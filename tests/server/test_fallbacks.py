"""A whole store on a host that has none of what it can do without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from aistore import Client
from aistore.errors import EtlInitError, TransformError, TransformTimeoutError
from aistore.fallbacks import FEATURES, WALLS
from aistore.testing import StoreProcess

CODE = """
import os, sys, time
def transform(data, etl_args):
    if etl_args == "hang":
        time.sleep(600)
    if etl_args == "die":
        os.kill(os.getpid(), 9)
    if etl_args == "pids":
        return b"%d %d" % (os.getpid(), os.getppid())
    if etl_args == "write":
        os.write(0, b"x")
    return data[::-1]
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with StoreProcess(env={"AIS_WITHOUT": "all"}) as store, Client(store.endpoint) as client:
        bucket = client.bucket("bucket").create()
        bucket.object("small").put(b"abc")
        bucket.object("large").put(b"0123456789" * 500_000)
        yield client


@pytest.fixture(scope="module")
def ready(client: Client) -> str:
    client.etl("without-all").init_code(CODE, sandbox="off", workers=2, object_timeout="2s")
    return "without-all"


def test_transforms_are_refused_without_walls(client: Client) -> None:
    with pytest.raises(EtlInitError, match="Landlock"):
        client.etl("with-walls").init_code(CODE)
    assert "with-walls" not in [etl.id for etl in client.etls()]


@pytest.mark.parametrize("wall", [wall for wall in WALLS if wall != "namespaces"])
def test_one_wall_that_is_missing_is_enough(new_store: Callable[..., StoreProcess], wall: str) -> None:
    store = new_store(env={"AIS_WITHOUT": wall})
    with Client(store.endpoint) as client, pytest.raises(EtlInitError, match=f"(?i){wall}"):
        client.etl("with-walls").init_code(CODE)


def test_small_and_large_results(client: Client, ready: str) -> None:
    bucket = client.bucket("bucket")
    assert bucket.object("small").get(etl=ready).read() == b"cba"
    assert bucket.object("large").get(etl=ready).read() == b"9876543210" * 500_000


def test_the_input_cannot_be_written_to(client: Client, ready: str) -> None:
    with pytest.raises(TransformError, match="Bad file descriptor"):
        client.bucket("bucket").object("small").get(etl=ready, args="write").read()


def test_a_later_stage_cannot_write_to_what_it_gets(client: Client, ready: str) -> None:
    client.etl("writes-later").init_code(
        "import os\ndef transform(data):\n    os.write(0, b'x')\n", sandbox="off", workers=1
    )
    for name in ("small", "large"):
        with pytest.raises(TransformError, match=r"writes-later failed(?s:.*)Bad file descriptor"):
            client.bucket("bucket").object(name).get(etl=f"{ready} >> writes-later").read()
    client.etl("writes-later").delete()


def test_a_hang_ends_the_worker_that_hangs_and_no_other(client: Client, ready: str) -> None:
    small = client.bucket("bucket").object("small")
    parent = small.get(etl=ready, args="pids").read().split()[1]
    with pytest.raises(TransformTimeoutError):
        small.get(etl=ready, args="hang").read()
    with pytest.raises(TransformError, match="SIGKILL"):
        small.get(etl=ready, args="die").read()
    for _ in range(4):
        assert small.get(etl=ready, args="pids").read().split()[1] == parent


def test_stopping_leaves_no_process(client: Client, ready: str) -> None:
    pids = set(client.bucket("bucket").object("small").get(etl=ready, args="pids").read().decode().split())
    client.etl(ready).stop()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    client.etl(ready).start()
    assert client.bucket("bucket").object("small").get(etl=ready).read() == b"cba"


def test_the_parent_ends_with_its_guard(client: Client, ready: str) -> None:
    """Without the kernel's word, both see that the other has gone."""
    small = client.bucket("bucket").object("small")
    worker, parent = map(int, small.get(etl=ready, args="pids").read().split())
    with open(f"/proc/{parent}/stat", encoding="ascii") as file:
        guard = int(file.read().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{worker}") or os.path.exists(f"/proc/{parent}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert small.get(etl=ready).read() == b"cba"  # the store has started it again


def test_an_unknown_word_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aistore", "serve", "--port", "0"],
        env={**os.environ, "AIS_WITHOUT": "memfd,landlok"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("", 1)
    assert "AIS_WITHOUT names what the store does not know: landlok" in done.stderr
    assert "landlock" in done.stderr


def test_the_document_has_every_feature() -> None:
    with open(os.path.join(os.path.dirname(__file__), "../../docs/platforms.md"), encoding="utf-8") as file:
        rows = [line.split("`")[1] for line in file if line.startswith("| `")]
    assert rows == [feature.word for feature in FEATURES]

"""The object store of a cluster on one machine: it starts, keeps what it was given, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from aistore.errors import NotSupportedError
from aistore.laptop import weed as weed_module
from aistore.laptop.signing import signed_request
from aistore.laptop.weed import Weed, find_weed


def request(store: Weed, method: str, path: str, body: bytes = b"", secret: str = "") -> bytes:
    """Send one signed request; raises HTTPError."""
    signed = signed_request(
        method, store.endpoint + path, access_key=store.access_key, secret_key=secret or store.secret_key,
        region="us-east-1", body=body,
    )  # fmt: skip
    with urllib.request.urlopen(signed, timeout=10) as reply:
        return bytes(reply.read())


def sockets_in_tmp(store: Weed) -> list[str]:
    port = int(store.endpoint.rpartition(":")[2])
    ports = {str(number + above) for number in range(port - 3, port + 1) for above in (0, 10_000)}
    return [name for name in os.listdir("/tmp") if name.startswith("seaweedfs-") and name[:-5].split("-")[-1] in ports]


def is_listening(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_what_was_stored_outlives_a_kill_and_a_stop(tmp_path: Path) -> None:
    store = Weed(str(tmp_path)).start()
    try:
        for number in range(20):
            request(store, "PUT", f"/lake/a/{number}", b"x" * 1000 * number)
        for end in (store.kill, store.stop):
            endpoint = store.endpoint
            end()
            assert not is_listening(endpoint)
            store.start()
            assert store.endpoint == endpoint
            for number in range(20):
                assert request(store, "GET", f"/lake/a/{number}") == b"x" * 1000 * number
    finally:
        store.stop()
    assert not sockets_in_tmp(store)
    # Another run finds ports and credentials in the directory.
    with Weed(str(tmp_path)) as again:
        assert (again.endpoint, again.secret_key) == (store.endpoint, store.secret_key)
        assert request(again, "GET", "/lake/a/3") == b"x" * 3000


def test_two_at_a_time_are_two_stores(weed: Weed, tmp_path: Path) -> None:
    with Weed(str(tmp_path)) as other:
        request(other, "PUT", "/lake/only-here", b"1")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            request(weed, "GET", "/lake/only-here")


def test_who_has_no_credentials_is_refused(weed: Weed) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{weed.endpoint}/lake", timeout=10)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        request(weed, "PUT", "/lake/x", b"1", secret="wrong")


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom aistore.laptop.weed import Weed\nstore = Weed(sys.argv[1]).start()\n"
        "print(store.process.pid, store.endpoint, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, endpoint = parent.stdout.readline().split()
        assert is_listening(endpoint)
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(int(pid))
    assert not is_listening(endpoint)


def test_ports_that_were_taken_since_are_left_to_others(tmp_path: Path) -> None:
    with Weed(str(tmp_path)) as store:
        port = int(store.endpoint.rpartition(":")[2])
        request(store, "PUT", "/lake/x", b"1")
    with socket.create_server(("127.0.0.1", port)), store as again:
        assert again.endpoint != f"http://127.0.0.1:{port}"
        assert request(again, "GET", "/lake/x") == b"1"


def test_a_missing_weed_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(weed_module.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(NotSupportedError, match=r"pyaistore\[cluster\]"):
        find_weed()

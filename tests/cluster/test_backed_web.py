"""Buckets that can only be read, behind a plain web server, and stores with keys that nobody here can name."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import until

from aistore.client import Client
from aistore.errors import BadRequestError, NotSupportedError, ObjectNotFoundError
from aistore.testing import StoreProcess


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Listing(_Quiet):
    """An S3 store with keys of other programs, as far as a listing goes."""

    def do_GET(self) -> None:
        keys = ("good", "folder/", "a//b", "../up", "also/good", "c\x7f")
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
            for key in keys
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers = []

    def start(handler: object) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def serving() -> Iterator[StoreProcess]:
    credentials = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_ALLOW_HTTP": "true"}
    with StoreProcess(env=credentials) as process:
        yield process
        assert "Traceback" not in process.errors(), process.errors()


def run(serving: StoreProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aistore", *arguments],
        capture_output=True, text=True, env={**os.environ, "AIS_ENDPOINT": serving.endpoint}, timeout=60, check=False,
    )  # fmt: skip


def test_a_web_server(serving: StoreProcess, serve: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    data = os.urandom(300_000)
    (tmp_path / "dir/x.bin").write_bytes(data)
    (tmp_path / "a b%c.txt").write_bytes(b"odd")
    url = serve(functools.partial(_Quiet, directory=str(tmp_path)))
    client = Client(serving.endpoint)
    with pytest.raises(BadRequestError, match="needs the URL"):
        client.bucket("ht://web").create()
    bucket = client.bucket("ht://web").create(props={"extra.http.original_url": url})
    assert bucket.object("dir/x.bin").head().size == len(data)
    assert bucket.object("dir/x.bin").get(range=(1000, 10)).read() == data[1000:1010]
    assert bucket.object("dir/x.bin").get().read() == data
    assert bucket.object("a b%c.txt").get().read() == b"odd"
    both = ["a b%c.txt", "dir/x.bin"]  # copies are made when replies are on their way
    until(lambda: [entry.name for entry in bucket.list(cached=True)] == both, "no copies are listed")
    with pytest.raises(ObjectNotFoundError):
        bucket.object("nothing").get().read()
    # Without entity tags it is the time of writing that tells versions apart.
    (tmp_path / "a b%c.txt").write_bytes(b"odder")
    os.utime(tmp_path / "a b%c.txt", (2_000_000_000, 2_000_000_000))
    assert bucket.object("a b%c.txt").get().read() == b"odd"
    assert bucket.object("a b%c.txt").get(latest=True).read() == b"odder"
    for refused in (
        lambda: list(bucket.list()),
        lambda: bucket.object("new").put(b"1"),
        bucket.object("dir/x.bin").delete,
        lambda: bucket.object("dir/x.bin").set_custom({"k": "v"}),
    ):
        with pytest.raises(NotSupportedError, match=r"cannot list|can only be read") as caught:
            refused()
        assert caught.value.status == 501
    assert bucket.object("dir/x.bin").get().read() == data
    job = client.job(bucket.prefetch(["dir/x.bin", "a b%c.txt"])).wait(60)
    assert (job.objects, job.error) == (2, "")
    job = client.job(bucket.prefetch()).wait(60)
    assert "cannot list" in job.error


def test_keys_that_cannot_be_named_are_counted(serving: StoreProcess, serve: Callable[..., str]) -> None:
    url = serve(_Listing)
    client = Client(serving.endpoint)
    bucket = client.bucket("s3://strange").create(props={"extra.aws.endpoint": url})
    counts: list[int] = []
    names = [entry.name for page in bucket.list_pages(on_unnamable=counts.append) for entry in page]
    assert (names, counts) == (["good", "also/good"], [4])
    listed = run(serving, "ls", "s3://strange", "--name-only")
    assert (listed.returncode, listed.stdout.split()) == (0, ["good", "also/good"])
    assert "4 keys of s3://strange left out" in listed.stderr
    with pytest.raises(BadRequestError):
        bucket.object("a//b").get().read()

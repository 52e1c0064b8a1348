"""NVIDIA's web server classes for transforms, unchanged, in an environment of their own, as the store talks to them."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from package_index import SDK_SERVERS, Index
from talking import Talk, talk

from aistore.errors import ClientGoneError, TransformError, TransformTimeoutError

pytestmark = pytest.mark.slow

KINDS = ["fastapi", "flask", "threaded"]
STYLES = ["whole", "streaming"]
PATIENCE = 60.0


@contextmanager
def running(python: Path, kind: str, style: str, **env: str) -> Iterator[tuple[int, int]]:
    """Run a server; yield its port, and the port at which it expects the store."""
    with socket.socket() as listener, socket.socket() as taken:
        listener.bind(("127.0.0.1", 0))
        taken.bind(("127.0.0.1", 0))
        port, gateway = taken.getsockname()[1], listener.getsockname()[1]
        taken.close()
        url = f"http://127.0.0.1:{gateway}/v1/etl/_object/test-etl/s3cret"
        listener.close()
        server = subprocess.Popen(
            [python, Path(__file__).with_name("nvidia_server.py"), kind, style, str(port)],
            env={"PATH": os.environ["PATH"], "AIS_TARGET_URL": url, **env},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_until_healthy(server, port)
            yield port, gateway
        finally:
            server.kill()
            server.wait()


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    raise AssertionError("the server is not ready")


@pytest.fixture(scope="module")
def python(index: Index) -> Path:
    """Return the interpreter of an environment with NVIDIA's SDK."""
    return index.environment("sdk-etl-2.0.0", *SDK_SERVERS)


@pytest.fixture(scope="module", params=[(kind, style) for kind in KINDS for style in STYLES], ids="-".join)
def server(request: pytest.FixtureRequest, python: Path) -> Iterator[tuple[int, int]]:
    """Return a running server of each class and style."""
    with running(python, *request.param) as ports:
        yield ports


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest, python: Path) -> Iterator[tuple[int, int]]:
    """Return a running server of each class that has ``transform``."""
    with running(python, request.param, "whole") as ports:
        yield ports


def talked(ports: tuple[int, int], use: Any, **fields: Any) -> None:
    port, gateway = ports
    talk(port, use, gateway=True, gateway_port=gateway, **fields)


def made(data: bytes, path: str, args: str = "") -> bytes:
    return data.upper() + f"|{path}|{args}".encode()


def as_made(result: bytes, data: bytes, path: str, args: str = "") -> bool:
    """Say whether a result is what it should be: the threaded class tells its transforms the path as it came."""
    return result in (
        made(data, path, args),
        made(data, f"/{quote(path)}", args),
        made(data, f"/{quote(path, safe='')}", args),
    )


SIZES = [0, 5, 100_001, 3 << 20]


@pytest.mark.parametrize("direct_put", [False, True])
def test_hpush(server: tuple[int, int], direct_put: bool) -> None:
    async def use(t: Talk) -> None:
        for size in SIZES:
            data = random.Random(size).randbytes(size)
            assert as_made(await t.object(data, "dir/a b.jpg", "x=1&y"), data, "bck/dir/a b.jpg", "x=1&y")

    talked(server, use, direct_put=direct_put)


@pytest.mark.parametrize("direct_put", [False, True])
@pytest.mark.parametrize("communication", ["hpull://", "hrev://"])
def test_hpull(server: tuple[int, int], communication: str, direct_put: bool) -> None:
    async def use(t: Talk) -> None:
        for size in SIZES:
            data = random.Random(size).randbytes(size)
            assert as_made(await t.object(data, "dir/o.jpg", "128"), data, "ais/@#/bck/dir/o.jpg", "128")

    talked(server, use, communication=communication, direct_put=direct_put)


@pytest.mark.parametrize("communication", ["hpush://", "hpull://"])
def test_direct_file_access(python: Path, communication: str) -> None:
    for kind in KINDS:
        with running(python, kind, "whole", ETL_DIRECT_FQN="true") as ports:

            async def use(t: Talk) -> None:
                for size in SIZES:
                    data = random.Random(size).randbytes(size)
                    result = await t.object(data, "dir/o b.jpg")
                    assert result.startswith(b"O B.JPG: " + data.upper())

            talked(ports, use, communication=communication, direct_file=True)


def test_ws(python: Path) -> None:
    async def use(t: Talk) -> None:
        for size in SIZES:
            data = random.Random(size).randbytes(size)
            assert await t.object(data, "dir/o.jpg", "128") == made(data, "bck/dir/o.jpg", "128")
        with pytest.raises(TransformError, match="no picture"):
            await t.object(b"bad")
        assert await t.object(b"words", "o") == made(b"words", "bck/o")
        objects = [t.object(b"word %d" % number, f"o{number}") for number in range(40)]
        assert await asyncio.gather(*objects) == [made(b"word %d" % n, f"bck/o{n}") for n in range(40)]

    with running(python, "fastapi", "whole") as ports:
        for direct_put in (False, True):
            talked(ports, use, communication="ws://", direct_put=direct_put)


@pytest.mark.parametrize("communication", ["hpush://", "hpull://"])
def test_the_text_of_an_exception(whole: tuple[int, int], communication: str) -> None:
    async def use(t: Talk) -> None:
        with pytest.raises(TransformError, match=r"no picture|Message: Internal error during transformation\. "):
            await t.object(b"bad")
        assert (await t.object(b"words", "o")).startswith(b"WORDS")

    talked(whole, use, communication=communication)


@pytest.mark.parametrize("communication", ["hpush://", "hpull://"])
def test_an_exception_in_a_stream(server: tuple[int, int], communication: str) -> None:
    """Not all of these classes tell what it was; none of it passes for a result."""

    async def use(t: Talk) -> None:
        with pytest.raises(TransformError):
            await t.object(b"bad")
        assert (await t.object(b"words", "o")).startswith(b"WORDS")

    talked(server, use, communication=communication)


def test_many_at_once(server: tuple[int, int]) -> None:
    async def use(t: Talk) -> None:
        for communication in ("hpush://", "hpull://"):
            t.running = type(t.running)(
                **{**{n: getattr(t.running, n) for n in t.running.__struct_fields__}, "communication": communication}
            )
            objects = [t.object(b"word %d" % number, f"o{number}") for number in range(60)]
            results = await asyncio.gather(*objects)
            assert all(result.startswith(b"WORD %d|" % number) for number, result in enumerate(results))

    talked(server, use)


def test_slow_ones_time_out(whole: tuple[int, int]) -> None:
    async def use(t: Talk) -> None:
        with pytest.raises(TransformTimeoutError, match="timeout"):
            await t.object(b"slow")

    talked(whole, use, seconds=0.5)


def test_a_client_that_leaves(whole: tuple[int, int]) -> None:
    async def use(t: Talk) -> None:
        async def gone() -> None:
            return

        with pytest.raises(ClientGoneError):
            await t.object(b"slow", gone=gone)
        assert (await t.object(b"words", "o")).startswith(b"WORDS")

    talked(whole, use)

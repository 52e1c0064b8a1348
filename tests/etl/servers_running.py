"""Transforms that are servers, for tests: small ones in plain Python, and the store's side of them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from server_program import SERVER

from aistore.etl.managed import ManagedEtl
from aistore.etl.manager import Manager
from aistore.etl.places import Places
from aistore.etl.running import Running
from aistore.etl.servers.connect import connect
from aistore.etl.servers.runner import ServerRunner
from aistore.fallbacks import lacks

DEADLINE_SECONDS = 60.0


async def no_report(stage: str, message: str) -> None:
    pass


@asynccontextmanager
async def managing(directory: Path, **options: Any) -> AsyncIterator[Manager]:
    """A controller's manager of transforms, for the length of a test."""
    runtime = directory / "runtime"
    runtime.mkdir(exist_ok=True)
    manager = Manager(Places(str(directory / "data"), str(runtime), 64, **options))
    try:
        yield manager
    finally:
        await manager.close()


async def new(manager: Manager, name: str = "some-server", code: str = SERVER, **fields: Any) -> ManagedEtl:
    """Make a transform from a command, with its code beside it."""
    if lacks("namespaces"):  # else it has a port of its own whichever it is
        fields.setdefault("port", free_port())
    spec = {"name": name, "command": ["python", "server.py"], "code": code, "filename": "server.py", **fields}
    await asyncio.wait_for(manager.verbs()["etl_init"]({"spec": spec}, no_report), DEADLINE_SECONDS)
    return manager.get(name)


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def runner_of(etl: ManagedEtl) -> ServerRunner:
    assert isinstance(etl.runner, ServerRunner)
    return etl.runner


def found(etl: ManagedEtl) -> Running:
    """Return what an HTTP worker learns of a transform."""
    return msgspec.convert(etl.found(), Running)


async def until(etl: ManagedEtl, condition: Callable[[], bool]) -> None:
    """Wait until something of a transform's life is so."""

    async def changed() -> None:
        async with etl.changed:
            await etl.changed.wait_for(condition)

    await asyncio.wait_for(changed(), DEADLINE_SECONDS)


async def ask(running: Running, request: bytes) -> tuple[int, bytes]:
    """Send a request to a transform's server, and return the status and body of its reply."""
    reader, writer = await asyncio.open_connection(sock=await connect(running))
    try:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_SECONDS)
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        return int(head.split()[1]), await asyncio.wait_for(reader.readexactly(length), DEADLINE_SECONDS)
    finally:
        writer.close()
        await writer.wait_closed()


async def run_inside(etl: ManagedEtl, code: str) -> Any:
    """Run Python inside the server, and return its ``answer``."""
    data = code.encode()
    head = f"PUT /run HTTP/1.1\r\nHost: etl\r\nContent-Length: {len(data)}\r\n\r\n"
    status, body = await ask(found(etl), head.encode() + data)
    assert status == 200, body.decode()
    return json.loads(body)

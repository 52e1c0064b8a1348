"""The HTTP worker's side of transforms that are servers, for tests: with servers of a test's own, without a store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from aistore.errors import EtlNotRunningError, TransformError
from aistore.etl import exchange
from aistore.etl.passing import Passing
from aistore.etl.running import Ask, Gone, Running
from aistore.etl.servers.early import SentToServer
from aistore.etl.servers.talk import NoConnectionError, ServerTransforms
from aistore.etl.servers.watch import Watch
from aistore.settings import Limits

PATIENCE = 30.0

#: Whether objects are sent before the event loop hears of them, where they can be.
early = False


@dataclass
class Heard:
    """A request as a server got it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


class Caller:
    """One connection that a server of a test has accepted."""

    def __init__(self, connection: socket.socket, number: int) -> None:
        self.connection = connection
        self.number = number
        connection.settimeout(PATIENCE)
        self._file = connection.makefile("rb")

    def read_head(self) -> Heard | None:
        """Return the next request without its body, None at the end of the connection."""
        line = self._file.readline()
        if not line:
            return None
        method, target, _ = line.decode().split(" ")
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Heard(method, target, headers)

    def read(self, size: int) -> bytes:
        """Return so many bytes of what comes."""
        return self._file.read(size)

    def read_some(self) -> bytes:
        """Return what has come, at least something; nothing at the end of the connection."""
        return self._file.read1(1 << 16)

    def request(self) -> Heard | None:
        """Return the next request, None at the end of the connection."""
        heard = self.read_head()
        if heard is not None:
            heard.body = self.read(int(heard.headers.get("content-length", 0)))
        return heard

    def send(self, *pieces: bytes) -> None:
        """Send bytes."""
        self.connection.sendall(b"".join(pieces))

    def reply(self, body: bytes, status: str = "200 OK", *headers: str, and_then: bytes = b"") -> None:
        """Send a whole reply, and what is to come with it."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        self.send("\r\n".join(lines).encode() + body + and_then)

    def drain(self) -> None:
        """Read until the other side has ended the connection."""
        while self._file.read(1 << 16):
            pass

    def wait_for_end(self) -> None:
        """Return when the other side has ended the connection; fails if it does not."""
        with contextlib.suppress(ConnectionError):
            assert self._file.read(1) == b""


#: What a server of a test does with a connection.
Script = Callable[["RawServer", Caller], None]


class RawServer:
    """A server that does with each connection what a test says, in threads. A context manager."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.heard: list[Heard] = []
        self.connections = 0
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []

    def __enter__(self) -> RawServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(PATIENCE)
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a server of a test hangs"
        assert not self.errors, self.errors

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(Caller(connection, self.connections),))
            self._threads.append(thread)
            thread.start()

    def _serve(self, caller: Caller) -> None:
        try:
            self._script(self, caller)
        except (ConnectionError, TimeoutError):
            pass  # the other side has ended the connection
        except BaseException as error:
            self.errors.append(error)
        finally:
            caller._file.close()
            caller.connection.close()


def answering(answer: Callable[[Heard], bytes]) -> Script:
    """Return a script that answers every request with what ``answer`` makes of it."""

    def script(server: RawServer, caller: Caller) -> None:
        while (heard := caller.request()) is not None:
            server.heard.append(heard)
            caller.reply(answer(heard))

    return script


@dataclass
class Talk:
    """Transforms of one HTTP worker, with a server at ``port`` of this machine. Made by ``talking``."""

    directory: str
    port: int
    running: Running
    finds: int = 0
    found: list[Running] = field(default_factory=list)
    transforms: ServerTransforms = None  # type: ignore[assignment]
    gateway: socket.socket | None = None
    early_thread: ThreadPoolExecutor = None  # type: ignore[assignment]
    early: bool = False

    async def find(self, name: str, *, again: bool = False) -> Running:
        self.finds += 1
        return self.found.pop(0) if self.found else self.running

    async def connect(self, running: Running) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", running.port))
        except OSError as error:
            connection.close()
            raise EtlNotRunningError(f"no connection ({error})") from error
        except BaseException:
            connection.close()
            raise
        return connection

    async def listen(self, running: Running) -> socket.socket:
        assert self.gateway is not None
        return self.gateway.dup()

    def passing(self, data: bytes) -> Passing:
        """Return an object as a store gives it: small ones in memory."""
        if len(data) <= 1 << 20:
            return Passing(data, self.directory)
        return Passing.of_file(exchange.input_from_bytes(data, self.directory), self.directory)

    async def object(
        self, data: bytes, name: str = "dir/name.jpg", args: str = "", *, gone: Gone | None = None,
        bucket: str = "bck", seed: str = "",
    ) -> bytes:  # fmt: skip
        """Run an object through the transform and return all of the result."""
        source, ask = self.passing(data), Ask(bucket, name, args, seed)
        try:
            sent = await self.send_early(data, ask) if self.early and not seed else None
            if sent is not None and sent.result is not None:
                sent.close()
                return sent.result
            result = await self.transforms.transform(self.running, source, ask, gone, sent)
        finally:
            source.close()
        try:
            return result.read_all()
        finally:
            result.close()

    async def send_early(self, data: bytes, ask: Ask) -> SentToServer | None:
        """Send an object from another thread, and wait a moment for what comes of it; None if it cannot be sent so."""
        loop, under_way = asyncio.get_running_loop(), {}
        decided = loop.create_future()

        def hear(number: int) -> None:
            under_way[number].receive()
            if under_way[number].is_decided and not decided.done():
                decided.set_result(None)

        def begin() -> SentToServer | None:
            pool = self.transforms.pool_for_early(self.running)
            sent = None if pool is None else self.transforms.send_early(pool, self.running, ask, data)
            if sent is not None:
                under_way[sent.number] = sent
                sent.send(hear)
            return sent

        with contextlib.suppress(NoConnectionError, EtlNotRunningError):
            pool = (await self.transforms._server(self.running)).connections
            if not pool.idle:  # as if an object had just come back on it
                with Watch(PATIENCE, None) as watch:
                    pool.give(await pool.take(watch), reusable=True)
            try:
                sent = await loop.run_in_executor(self.early_thread, begin)
                if sent is not None:
                    await asyncio.wait((decided,), timeout=0.05)
                return sent
            except asyncio.CancelledError:
                self.early_thread.submit(int).result()  # it may still send
                for cancelled in under_way.values():
                    cancelled.close()
                raise
        return None

    def left(self) -> list[str]:
        """Return the files that calls have left."""
        return [
            os.path.join(path, name)
            for directory in (self.running.files, self.running.calls)
            for path, directories, files in os.walk(directory)
            for name in [*directories, *files]
        ]


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def talk(
    port: int, use: Callable[[Talk], Awaitable[Any]], *, seconds: float = PATIENCE, gateway: bool = False,
    gateway_port: int = 0, options: dict[str, Any] | None = None, limits: Limits | None = None, **fields: Any,
) -> Any:  # fmt: skip
    """Run ``use`` with transforms whose server is at ``port``; checks that nothing is left behind."""
    with tempfile.TemporaryDirectory() as directory, _listener(gateway, gateway_port) as listener:
        for name in ("files", "calls", "spool"):
            os.mkdir(os.path.join(directory, name))
        url = f"http://127.0.0.1:{listener.getsockname()[1] if listener else 1}/v1/etl/_object/test-etl/s3cret"
        running = Running(
            "test-etl", "first", seconds, uid=1, communication=fields.pop("communication", "hpush://"), port=port,
            target_url=url, gateway=gateway, files=os.path.join(directory, "files"),
            calls=os.path.join(directory, "calls"), **fields,
        )  # fmt: skip
        made = Talk(directory, port, running, gateway=listener, early=early)

        async def run() -> Any:
            before = descriptors()
            with ThreadPoolExecutor(4) as threads, ThreadPoolExecutor(1) as made.early_thread:
                made.transforms = ServerTransforms(
                    made.find, threads, limits or Limits(), os.path.join(directory, "spool"), connect=made.connect,
                    listen=made.listen, **(options or {}),
                )  # fmt: skip
                try:
                    return await asyncio.wait_for(use(made), 2 * PATIENCE)
                finally:
                    made.transforms.close()
                    # Tasks of the gateway end, and threads of the test's server.
                    deadline = time.monotonic() + PATIENCE
                    while (descriptors() > before or made.left()) and time.monotonic() < deadline:
                        await asyncio.sleep(0.002)
                    assert made.left() == []
                    assert descriptors() <= before

        return asyncio.run(run())


@contextlib.contextmanager
def _listener(wanted: bool, port: int) -> Iterator[socket.socket | None]:
    if not wanted:
        yield None
        return
    with socket.create_server(("127.0.0.1", port)) as listener:
        yield listener


def readable(connection: socket.socket, seconds: float) -> bool:
    """Say whether something comes within some time."""
    return bool(select.select([connection], [], [], seconds)[0])


def upper(heard: Heard) -> bytes:
    return heard.body.upper()


def failure(server: RawServer, data: bytes = b"data", **options: object) -> TransformError:
    """Return the error of one object."""

    async def use(t: Talk) -> TransformError:
        with pytest.raises(TransformError) as caught:
            await t.object(data)
        return caught.value

    error: TransformError = talk(server.port, use, **options)
    return error

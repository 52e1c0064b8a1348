"""One object through a transform that is a server, from the HTTP worker's side.

Nothing is answered before a result is whole, so that what goes wrong on the way is an error with a status and not a
reply cut short, and can be tried again; a large result lies in a file meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from socket import socket

import msgspec

from ...errors import EtlNotRunningError, TransformCrashError, TransformError
from ...fallbacks import usable_cores
from ...model.etl import OUTPUT_BYTES_MAX
from ...settings import Limits
from ..counted import count_busy
from ..passing import Passing
from ..running import Ask, Find, Gone, Result, Running
from . import http, websocket
from .call import Call
from .call_files import CallFiles
from .connection import BrokenConnectionError, Connection
from .early import SentToServer, send_early
from .gateway import Gateway
from .pool import Pool
from .replies import Spool, TryAgainError
from .watch import WATCH_AFTER_SECONDS, Watch

#: Makes a connection to a transform's server, or returns the listening socket for its calls back.
Connect = Callable[[Running], Awaitable[socket]]

#: Connections of one HTTP worker to one server: what is more waits here, where it does not time out. Guessed: a server
#: that waits for something else has some objects per core to wait with.
_CONNECTIONS_MAX = max(16, 4 * usable_cores())
#: Idle connections are closed before the server does it; those of the field do after 5 s, or 2.
_IDLE_SECONDS = 1.5
#: A server's address is forgotten when nobody has used it for so long, with the socket for its calls back.
_FORGOTTEN_SECONDS = 60.0
#: How often an object is sent whose result the server could not put where it should, and how long it is begun again.
_TRIES, _TRY_SECONDS = 10, 15.0
_TRY_PAUSE_SECONDS = (0.05, 1.0)
#: A server that ended is started again. How often it is looked for, and for how long with pauses that double: the
#: controller may not know yet.
_LOOKS, _LOOK_PAUSE_SECONDS = 6, 0.05


class NoConnectionError(Exception):
    """The transform's server does not take a connection."""


async def _made(making: Awaitable[socket]) -> socket:
    try:
        return await making
    except OSError as error:
        raise NoConnectionError(error.strerror or str(error)) from error


@dataclass(slots=True)
class _Server:
    """What this process has of one ETL's server."""

    socket_path: str
    connections: Pool[Connection]
    websockets: Pool[websocket.WebSocket]
    gateway: Gateway | None
    used: float = 0.0

    def close(self) -> None:
        self.connections.close()
        self.websockets.close()
        if self.gateway is not None:
            self.gateway.close()


class ServerTransforms:
    """The transforms that are servers, as one HTTP worker of the store uses them. Belongs to one event loop."""

    def __init__(
        self, find: Find, threads: Executor, limits: Limits, spool: str, *, connect: Connect, listen: Connect,
        connections_max: int = _CONNECTIONS_MAX, output_bytes_max: int = OUTPUT_BYTES_MAX,
    ) -> None:  # fmt: skip
        self._find = find
        self._connections_max = connections_max
        self._limits = limits
        self._spool = Spool(spool, threads, output_bytes_max)
        self._connect = connect
        self._listen = listen
        self._servers: dict[tuple[str, int], _Server] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def transform(
        self, running: Running, source: Passing, ask: Ask, gone: Gone | None, sent: SentToServer | None = None
    ) -> Result:
        """Run the object ``source`` through the transform; raises TransformError and others.

        The time for an object is for all tries of it, the wait for a connection and the start of a server that ended.
        ``sent``: it is on its way already.
        """
        count_busy(running.name, running.uid, 1)
        try:
            with Watch(running.object_timeout_seconds, gone, WATCH_AFTER_SECONDS if sent is None else 0) as watch:
                return await self._tries(running, source, ask, watch, sent)
        finally:
            count_busy(running.name, running.uid, -1)
            if sent is not None:
                sent.close()

    def pool_for_early(self, running: Running) -> Pool[Connection] | None:
        """Return a pool that may have a connection on which an object can be sent at this moment, else None.

        For one thread that is not the event loop's. Objects go early where all that a transform gets of one is bytes
        in a request, and none of them is for a bucket.
        """
        server = self._servers.get((running.name, running.uid))
        if server is None or server.socket_path != running.socket_path or not server.connections.idle:
            return None
        if running.communication != "hpush://" or running.direct_file:
            return None
        server.used = self._loop.time()
        return server.connections

    def send_early(self, pool: Pool[Connection], running: Running, ask: Ask, data: bytes) -> SentToServer | None:
        """Return an object that is about to be sent, None if there is no connection for it.

        For the same thread. Raises TooLargeError for arguments that no server would read.
        """
        return send_early(pool, running, ask, data, self._loop)

    def close(self) -> None:
        """End all connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._servers:
            self._servers.popitem()[1].close()

    async def _tries(
        self, running: Running, source: Passing, ask: Ask, watch: Watch, sent: SentToServer | None
    ) -> Result:
        """Send the object again while the server asks for it."""
        loop = asyncio.get_running_loop()
        began, (pause, longest) = loop.time(), _TRY_PAUSE_SECONDS
        for number in range(1, _TRIES + 1):
            try:
                return await self._attempts(running, source, ask, watch, sent)
            except TryAgainError as again:
                if number == _TRIES or loop.time() > began + _TRY_SECONDS:
                    raise TransformError(f"{again} (tried {number} times)") from None
            await asyncio.sleep(pause)
            watch.check()
            pause = min(2 * pause, longest)
        raise AssertionError("unreachable")

    async def _attempts(
        self, running: Running, source: Passing, ask: Ask, watch: Watch, sent: SentToServer | None
    ) -> Result:
        """Send the object, and once more where the connection ended before anything was answered.

        It may have ended for another object's sake, with the server, or because the server had waited long enough for
        a request on it; one whose object ends it again ends it by itself.
        """
        for fresh in (False, True):
            try:
                if sent is not None and not sent.is_taken_over:
                    return await self._follow(running, source, ask, watch, sent)
                return await self._attempt(running, source, ask, watch, fresh=fresh)
            except BrokenConnectionError as error:
                watch.check()
                if error.heard or fresh:
                    raise TransformCrashError(f"the transform's server {error}") from None
            running = await self._find_again(running)
            watch.check()
        raise AssertionError("unreachable")

    async def _follow(self, running: Running, source: Passing, ask: Ask, watch: Watch, sent: SentToServer) -> Result:
        async with CallFiles(running, ask, source, self._spool.threads) as files:
            return await http.follow(sent, Call(running, ask, source, watch, self._spool, files))

    async def _attempt(self, running: Running, source: Passing, ask: Ask, watch: Watch, *, fresh: bool) -> Result:
        pause = _LOOK_PAUSE_SECONDS
        for look in range(1, _LOOKS + 1):
            try:
                server = await self._server(running)
                async with CallFiles(running, ask, source, self._spool.threads) as files:
                    call = Call(running, ask, source, watch, self._spool, files)
                    if running.communication == "ws://":
                        return await websocket.transform(server.websockets, call, fresh=fresh)
                    return await http.transform(server.connections, call, fresh=fresh)
            except (NoConnectionError, EtlNotRunningError) as error:
                watch.check()
                if look == _LOOKS:
                    raise EtlNotRunningError(
                        f"etl job {running.name} does not take connections ({error})", hint="try again"
                    ) from error
            running = await self._find_again(running)
            if look > 1:
                await asyncio.sleep(pause)
                pause *= 2
            watch.check()
        raise AssertionError("unreachable")

    async def _find_again(self, running: Running) -> Running:
        """Ask the controller where the ETL is now; waits while it is started again."""
        found = await self._find(running.name, again=True)
        return msgspec.structs.replace(
            found, object_timeout_seconds=running.object_timeout_seconds, direct_put=running.direct_put
        )

    async def _server(self, running: Running) -> _Server:
        """Return what there is of the server of ``running``, made if it is new here."""
        key = (running.name, running.uid)
        server = self._servers.get(key)
        if server is not None and server.socket_path != running.socket_path:
            self._servers.pop(key).close()
            server = None
        if server is None:
            gateway = (
                Gateway(running, await _made(self._listen(running)), self._spool.threads) if running.gateway else None
            )
            other = self._servers.get(key)
            if other is not None and gateway is not None:  # another call has made it meanwhile
                gateway.close()
            server = self._servers[key] = other or self._new(running, gateway)
        server.used = asyncio.get_running_loop().time()
        return server

    def _new(self, running: Running, gateway: Gateway | None) -> _Server:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_FORGOTTEN_SECONDS, self._sweep)
        limits = self._limits

        async def connection() -> Connection:
            return await Connection.on(await _made(self._connect(running)))

        async def socket_of_messages() -> websocket.WebSocket:
            return await websocket.WebSocket.open(await connection(), running)

        most = self._connections_max
        return _Server(
            running.socket_path,
            Pool(connection, limits, connections_max=most, idle_seconds=_IDLE_SECONDS),
            Pool(socket_of_messages, limits, connections_max=most, idle_seconds=_FORGOTTEN_SECONDS),
            gateway,
        )

    def _sweep(self) -> None:
        """Forget servers that nobody uses: of an ETL that was removed nobody would say so."""
        loop = asyncio.get_running_loop()
        for key, server in list(self._servers.items()):
            if server.used + _FORGOTTEN_SECONDS <= loop.time() and not server.connections.busy + server.websockets.busy:
                self._servers.pop(key).close()
        self._sweeper = loop.call_later(_FORGOTTEN_SECONDS, self._sweep) if self._servers else None

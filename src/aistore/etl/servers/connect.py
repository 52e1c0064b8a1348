"""How the store's processes reach a transform that is a server: with sockets of the transform's own network.

Where it has a network namespace, nothing outside can connect to it, and it can connect to nothing outside. But a socket
belongs to the namespace that it was made in, whoever holds it. So the guard, which is in that namespace, gives out
sockets that it made there, over Unix sockets of the store (worker/doors.py), and whoever asked connects them itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

from ...errors import EtlNotRunningError, OverloadedError
from ..running import Running
from ..worker.messages import descriptors_of

_LOOPBACK = "127.0.0.1"
#: Nothing here leaves the machine, so what takes longer is stopped, or has its queue full.
_CONNECT_SECONDS = 10.0


async def connect(running: Running) -> socket.socket:
    """Return a new non-blocking TCP connection to a transform that serves; it is the caller's to close.

    Raises EtlNotRunningError if it has ended or does not accept: look it up again, it may be another launch by now.
    """
    connection = await _unconnected(running)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting = asyncio.get_running_loop().sock_connect(connection, (_LOOPBACK, running.port))
        await asyncio.wait_for(connecting, _CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError) as error:
        connection.close()
        raise _not_running(running, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


async def listen(running: Running) -> socket.socket:
    """Return the listening socket of a transform's calls back to the store, for a transform that has ``gateway``.

    Every process that asks gets it, and each connection goes to one of those that accept. It is non-blocking and the
    caller's to close. Raises EtlNotRunningError.
    """
    return await _given_out(running, calls_path(running.socket_path))


def calls_path(socket_path: str) -> str:
    """Return where the listening socket is given out by the guard that gives out sockets at ``socket_path``."""
    return f"{socket_path.removesuffix('.sock')}.call"  # as long, as the paths of sockets have a limit


async def _unconnected(running: Running) -> socket.socket:
    """Return a non-blocking TCP socket of the transform's network."""
    if running.socket_path:
        return await _given_out(running, running.socket_path)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)  # it shares this machine's loopback, and has no guard
    made.setblocking(False)
    return made


async def _given_out(running: Running, path: str) -> socket.socket:
    """Return the non-blocking socket that is given out at a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.setblocking(False)
        try:
            door.connect(path)
            descriptor = await asyncio.wait_for(_descriptor_from(door), _CONNECT_SECONDS)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise OverloadedError(
                    f"etl job {running.name} has too many connections waiting", hint="try again in a second"
                ) from error
            raise _not_running(running, error) from error
        except asyncio.TimeoutError as error:
            raise _not_running(running, error) from error
    given = socket.socket(fileno=descriptor)
    given.setblocking(False)
    return given


async def _descriptor_from(door: socket.socket) -> int:
    """Return the descriptor that comes with the first byte; raises ConnectionError if none does."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, ancillary, _, _ = door.recvmsg(1, socket.CMSG_SPACE(64), getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        except BlockingIOError:
            readable = loop.create_future()
            loop.add_reader(door.fileno(), _set_done, readable)
            try:
                await readable
            finally:
                loop.remove_reader(door.fileno())
            continue
        descriptors = descriptors_of(ancillary)
        for surplus in descriptors[1:]:
            os.close(surplus)
        if not descriptors:
            raise ConnectionResetError(errno.ECONNRESET, "no socket was given out")
        return descriptors[0]


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _not_running(running: Running, error: Exception) -> EtlNotRunningError:
    why = str(error) or "no answer"
    return EtlNotRunningError(f"etl job {running.name} takes no connection ({why})", hint="try again")

"""What an HTTP worker knows of a transform that runs, what it sends it with an object, and what comes back."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from . import exchange

#: Completes when the client that waits for a result went away.
Gone = Callable[[], Awaitable[None]]


class Controller(Protocol):
    """Whoever knows the ETLs: calls a verb of the controller process."""

    async def call(self, verb: str, **arguments: Any) -> Any:
        """Return the verb's result, or raise its error."""


class Server(msgspec.Struct, frozen=True):
    """A transform that is a server of its own, as ``servers/connect.py`` reaches it and as it is talked to.

    It listens on ``port`` of its own network, whose sockets are had at the Unix socket ``sockets_path``; is that empty,
    it is this machine's loopback. Where it calls back to the store is ``calls_path``: a Unix socket that gives out the
    socket it is listened on with; empty where it cannot call. ``secret`` is what it calls with, the last part of
    ``AIS_TARGET_URL`` = ``target_url``. Files that it can read, at the same path, are made in ``exchange``; empty where
    there is no such place. ``launch`` changes whenever it was started again: connections to an earlier one are dead.
    """

    communication: str
    port: int
    launch: str
    secret: str
    sockets_path: str = ""
    calls_path: str = ""
    target_url: str = ""
    exchange: str = ""
    direct_file: bool = False
    direct_put: bool = False


class Running(msgspec.Struct, frozen=True):
    """Where a running ETL takes objects, and its limits.

    ``digest`` changes with anything that can change a result (``ManagedEtl.digest``). ``uid`` tells the ETL from others
    that had its name, in counters. One made of code has ``socket_path``, where its workers accept; one that ``serves``
    has ``server``.
    """

    name: str
    socket_path: str
    object_timeout_seconds: float
    uid: int = 0
    digest: str = ""
    server: Server | None = None

    @property
    def serves(self) -> bool:
        """Whether it is a server of its own."""
        return self.server is not None


class Ask(msgspec.Struct, frozen=True):
    """What a transform is told with an object: which one it is, and the arguments of the request."""

    bucket: str
    object: str
    args: str = ""


@dataclass(slots=True)
class Result:
    """What a transform made of an object: in memory if it is small, else behind a sealed descriptor."""

    size: int
    data: bytes | None
    descriptor: int = -1

    def read(self, start: int, length: int) -> bytes:
        """Return a part of the result."""
        return exchange.read_exactly(self.descriptor, start, length)

    def read_all(self) -> bytes:
        """Return the whole result."""
        return self.data if self.data is not None else self.read(0, self.size)

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

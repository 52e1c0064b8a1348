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


class Running(msgspec.Struct, frozen=True):
    """Where a running ETL takes objects, and its limits.

    ``digest`` changes with anything that can change a result (``ManagedEtl.digest``). ``uid`` tells the ETL from others
    that had its name, in counters.
    """

    name: str
    socket_path: str
    object_timeout_seconds: float
    uid: int = 0
    digest: str = ""


class Ask(msgspec.Struct, frozen=True):
    """What a transform is told with an object: which one it is, and the arguments of the request.

    ``seed`` is what its random generators are to be seeded with, 64 hex digits (seeds.py); empty for nothing.
    """

    bucket: str
    object: str
    args: str = ""
    seed: str = ""


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

"""What an HTTP worker knows of a transform that runs, what it sends it with an object, and what comes back."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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
    that had its name, in counters. ``mark`` is a file that is there as long as this is true. ``deterministic`` and
    ``cache`` are of its specification. ``socket_path`` is where the workers of code accept; with a transform that is a
    server, where connections to it are had (``servers/connect.py``). Either changes when it is started again.

    The rest is of transforms that are servers. ``communication`` is how one is talked to; ``port`` is the server's.
    ``target_url`` is AIS_TARGET_URL, the address at which it finds this store, with a secret as its last part;
    ``gateway`` says that this leads to a listening socket of the ETL's own and not to the store's. ``files`` is a
    directory that the transform can read under the same path, ``calls`` one that only the store can: files of the
    calls that are under way. ``push_to_root``: objects are put to ``/``, as in 2021.
    """

    name: str
    socket_path: str
    object_timeout_seconds: float
    uid: int = 0
    digest: str = ""
    mark: str = ""
    deterministic: bool = False
    cache: bool = False
    communication: str = ""
    port: int = 0
    target_url: str = ""
    gateway: bool = False
    files: str = ""
    calls: str = ""
    direct_file: bool = False
    direct_put: bool = False
    push_to_root: bool = False

    @property
    def serves(self) -> bool:
        """Whether it is an HTTP server of its own, not code that the store's workers run."""
        return bool(self.communication)

    @property
    def secret(self) -> str:
        """What the transform has to show when it calls back."""
        return self.target_url.rpartition("/")[2]


class Ask(msgspec.Struct, frozen=True):
    """What a transform is told with an object: which one it is, and the arguments of the request.

    ``seed`` is what its random generators are to be seeded with, 64 hex digits (seeds.py); empty for nothing.
    """

    bucket: str
    object: str
    args: str = ""
    seed: str = ""


class Find(Protocol):
    """Says where an ETL takes objects."""

    async def __call__(self, name: str, *, again: bool = False) -> Running:
        """Return it; with ``again`` ask the controller even if the answer is known."""


@dataclass(slots=True)
class Result:
    """What a transform made of an object: in memory if it is small, else behind a sealed descriptor.

    ``cache`` says whether it was kept and is given out again (``hit``), or has just been made and kept (``miss``).
    """

    size: int
    data: bytes | None
    descriptor: int = -1
    cache: Literal["", "hit", "miss"] = ""

    def read(self, start: int, length: int) -> bytes:
        """Return a part of the result."""
        if self.data is not None:
            return self.data[start : start + length]
        return exchange.read_exactly(self.descriptor, start, length)

    def read_all(self) -> bytes:
        """Return the whole result."""
        return self.data if self.data is not None else self.read(0, self.size)

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

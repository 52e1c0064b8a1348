"""Transforms: look at one, stop it, start it, remove it; how to make one is in etl_making.py."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import BadRequestError, EtlNotFoundError
from ..wire.jobs import ObjectError
from ..wire.messages import EtlSummary
from .etl_making import EtlMaking
from .foreign import reading_reply
from .pipeline import Pipeline, Transforms, stages_of
from .transport import Request, Transport, quote_name

#: How long the client waits for the store to start, stop or remove one, in seconds.
CALL_TIMEOUT_SECONDS = 300.0


class EtlNode(msgspec.Struct, frozen=True, rename={"node": "target_id"}):
    """How an ETL is on one node of a cluster; ``cpu``, ``mem`` and ``processes`` as in EtlDetails."""

    node: str
    stage: str
    message: str = ""
    cpu: float = 0.0
    mem: int = 0
    processes: int = 0


class EtlDetails(msgspec.Struct, frozen=True, rename={"errors": "obj_errors"}):
    """What the store knows of one ETL: the message it was made with, objects that failed, and what it runs on.

    ``digest`` changes with anything that can change a result, ``python`` is the interpreter, ``dependencies`` the list
    that was asked for and ``lock`` what it came to. ``sandbox_layers`` hold, ``sandbox_missing`` this machine lacks.
    ``cpu`` is the cores in use since somebody last asked, ``mem`` the bytes of all ``processes``, where what they share
    counts once. ``nodes`` has an entry for each node of a cluster; python and sandbox are then those of the node that
    answered.
    With ``cache`` results are kept: ``cache_objects`` of ``cache_bytes`` now, ``cache_hits`` reads were answered with
    ``cache_hit_bytes`` of them, ``cache_misses`` were computed. The counters begin with the store.
    """

    init_msg: dict[str, Any]
    errors: list[ObjectError] | None = None
    digest: str = ""
    python: str = ""
    dependencies: str = ""
    lock: dict[str, Any] | None = None
    sandbox_layers: list[str] = []
    sandbox_missing: list[str] = []
    cpu: float = 0.0
    mem: int = 0
    processes: int = 0
    nodes: list[EtlNode] = []
    network: str = "none"
    deterministic: bool = False
    cache: bool = False
    cache_hits: int = 0
    cache_hit_bytes: int = 0
    cache_misses: int = 0
    cache_objects: int = 0
    cache_bytes: int = 0

    @property
    def packages(self) -> list[str]:
        """The packages of the lock, as ``name==version``."""
        found = (self.lock or {}).get("packages", ())
        return [f"{package['name']}=={package['version']}" for package in found]


@dataclass(frozen=True, slots=True)
class EtlLog:
    """What the transforms of one node have logged."""

    node: str
    text: str


class _NodeLog(msgspec.Struct, frozen=True):
    target_id: str
    logs: str = ""


class Etl(EtlMaking):
    """A transform of the store, by name; whether there is one is known when you ask for it.

    An empty name is for making one: the store then chooses it, or takes that of the specification.
    """

    def __init__(self, transport: Transport, name: str = "") -> None:
        self._transport = transport
        self.name = name

    def __repr__(self) -> str:
        return f"Etl({self.name!r})"

    def __str__(self) -> str:
        return self.name

    def __rshift__(self, following: Transforms) -> Pipeline:
        """Return the pipeline of this transform and those that follow: ``client.etl("resize") >> "gray"``."""
        return Pipeline(*stages_of(self), *stages_of(following))

    def details(self, job: str = "") -> EtlDetails:
        """Return how the ETL was made, and which objects failed in its last job or the one named.

        Raises EtlNotFoundError, JobNotFoundError.
        """
        body = self._call("GET", "", query={"uuid": job} if job else {})
        with reading_reply(self._transport.endpoint):
            return msgspec.json.decode(body, type=EtlDetails)

    def summary(self) -> EtlSummary | None:
        """Return the ETL's line of the listing: its stage and counters; None if there is no such ETL."""
        return next((line for line in list_etls(self._transport) if line.id == self.name), None)

    def start(self) -> None:
        """Start a stopped ETL again."""
        self._call("POST", "/start")

    def stop(self) -> None:
        """Stop the ETL; it stays listed and can be started again."""
        self._call("POST", "/stop")

    def delete(self, *, missing_ok: bool = False, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> None:
        """Stop and remove the ETL; raises EtlNotFoundError unless ``missing_ok``."""
        try:
            self._call("DELETE", "", timeout_seconds)
        except EtlNotFoundError:
            if not missing_ok:
                raise

    def logs(self, node: str = "") -> list[EtlLog]:
        """Return what the transforms logged, per node."""
        body = self._call("GET", f"/logs/{node}" if node else "/logs")
        with reading_reply(self._transport.endpoint):
            return [
                EtlLog(entry.target_id, base64.b64decode(entry.logs).decode(errors="replace"))
                for entry in msgspec.json.decode(body, type=list[_NodeLog])
            ]

    def _call(
        self, method: str, action: str, timeout_seconds: float = CALL_TIMEOUT_SECONDS,
        query: Mapping[str, str] | None = None,
    ) -> bytes:  # fmt: skip
        if not self.name:
            raise BadRequestError("the transform has no name yet", hint="make it with init_code, or name one")
        path = f"/v1/etl/{quote_name(self.name)}{action}"
        return self._transport.call(Request(method, path, query=query or {}, read_timeout_seconds=timeout_seconds))


def list_etls(transport: Transport) -> list[EtlSummary]:
    """Return all ETLs of the store."""
    return transport.fetch(Request("GET", "/v1/etl"), list[EtlSummary])

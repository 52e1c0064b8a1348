"""Transforms: make one from code, look at it, stop it, remove it."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import BadRequestError, EtlInitError, EtlNotFoundError, InternalError
from ..model.etl import Isolation, Sandbox, parse_duration
from ..wire.jobs import ObjectError
from ..wire.messages import EtlInitCode, EtlSummary, Progress, encode_base64
from .foreign import reading_reply
from .transport import Reply, Request, Transport, quote_name

NDJSON = "application/x-ndjson"
_JSON = {"Content-Type": "application/json"}

#: How much longer than the store the client waits for an ETL to become ready, in seconds.
INIT_MARGIN_SECONDS = 30.0
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


class Etl:
    """A transform of the store, by name; whether there is one is known when you ask for it.

    An empty name is for `init_code` alone: the store then chooses one.
    """

    def __init__(self, transport: Transport, name: str = "") -> None:
        self._transport = transport
        self.name = name

    def __repr__(self) -> str:
        return f"Etl({self.name!r})"

    def __str__(self) -> str:
        return self.name

    def init_code(
        self,
        code: str | os.PathLike[str],
        *,
        dependencies: str | list[str] = "",
        runtime: str = "python3",
        comm_type: str = "hpush://",
        isolation: str | Isolation = Isolation.WARM,
        sandbox: str | Sandbox = Sandbox.ON,
        init_timeout: str = "",
        object_timeout: str = "",
        workers: int = 0,
        filename: str = "",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> str:
        """Make a transform from code, wait until it is ready and return its name.

        ``code`` is the program itself, or (a path object) the file that has it: with ``comm_type`` ``io://`` a script
        from standard input to standard output, with ``hpush://`` a module with ``transform(data: bytes) -> bytes``.
        ``dependencies`` is the text of a requirements file, or a list of requirements. Timeouts are spelled ``45s``
        or ``5m``, empty for the store's default. ``filename`` is what tracebacks call the code, for a path its base
        name. ``on_progress`` is called with each stage: resolving, installing, importing, ready.

        Raises EtlExistsError, and EtlInitError with the reason why it could not be made ready.
        """
        if isinstance(code, os.PathLike):
            filename = filename or os.path.basename(code)
            with open(code, encoding="utf-8") as file:
                code = file.read()
        message = EtlInitCode(
            code=encode_base64(code),
            dependencies=encode_base64(dependencies if isinstance(dependencies, str) else "\n".join(dependencies)),
            name=self.name,
            id=self.name,
            runtime=runtime,
            communication_type=comm_type if "://" in comm_type else f"{comm_type}://",
            wait_timeout=init_timeout,
            obj_timeout=object_timeout,
            isolation=str(getattr(isolation, "value", isolation)),
            sandbox=str(getattr(sandbox, "value", sandbox)),
            workers=workers,
            filename=filename,
        )
        patience = parse_duration(init_timeout) + INIT_MARGIN_SECONDS if init_timeout else 3600.0
        reply = self._transport.send(
            Request(
                "POST", "/v1/etl/init_code", headers={**_JSON, "Accept": NDJSON},
                body=msgspec.json.encode(message), read_timeout_seconds=patience,
            )
        )  # fmt: skip
        if reply.headers.get("content-type", "").startswith(NDJSON):
            self.name = _follow(reply, on_progress)
        else:
            self.name = reply.drain().decode()
        return self.name

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


def _follow(reply: Reply, on_progress: Callable[[Progress], None] | None) -> str:
    """Read progress until the last line and return the name in it."""
    try:
        for line in reply.lines():
            if not line.strip():
                continue
            progress = msgspec.json.decode(line, type=Progress)
            if progress.error is not None:
                raise progress.error.to_error()
            if on_progress is not None:
                on_progress(progress)
            if progress.name:
                return progress.name
    except msgspec.DecodeError as error:
        raise InternalError(f"the store's progress report cannot be read: {error}") from error
    finally:
        reply.close()
    raise EtlInitError("the store ended the report before the transform was ready", hint="see the store's log")

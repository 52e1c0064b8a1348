"""Making a transform: from code, from a runtime message, from a pod; with a line per stage for whoever wants to see."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from ...errors import AisError, BadRequestError
from ...etl.specs.fields import named
from ...etl.specs.pods import decode_pod, spec_from_pod
from ...etl.specs.runtime_message import read_communication, spec_from_runtime
from ...model.etl import EtlSpec, Isolation, Network, Sandbox, check_spec, parse_duration
from ...model.quantities import parse_cpus, parse_memory
from ...wire.messages import EtlInitCode, Progress, decode_json, lower_keys
from ..description import TEXT, Content
from ..error_replies import as_ais_error, error_body
from ..replies import Reply, Stream, text_reply
from ..request import Request
from ..store import Store

NDJSON = "application/x-ndjson"

#: What the operations that make a transform answer with.
INIT_REPLIES: Mapping[int, tuple[str, tuple[Content, ...]]] = {
    200: ("Ready.", (Content(TEXT, "text/plain"), Content(Progress, NDJSON)))
}
INIT_ERRORS = (404, 409, 422, 501, 507)


async def init(store: Store, request: Request, spec: EtlSpec, *, answers_with_job: bool = False) -> Reply:
    """Make the transform and answer when it is ready: with its name, or the id of its job."""
    if NDJSON in request.headers.get("accept", ""):
        return Stream(_init_events(store, spec, request), media_type=NDJSON)
    name = await store.controller.call_patiently("etl_init", spec=msgspec.to_builtins(spec))
    if not answers_with_job:
        return text_reply(name)
    details = await store.controller.call("etl_details", name=name)
    return text_reply(str(details["xaction_id"]))


async def _init_events(store: Store, spec: EtlSpec, request: Request) -> AsyncGenerator[bytes, None]:
    """Yield one JSON line per stage, then one with the name or the error."""
    try:
        async for kind, value in store.controller.stream("etl_init", spec=msgspec.to_builtins(spec)):
            event = Progress(name=value) if kind == "result" else Progress(stage=value[0], message=value[1])
            yield msgspec.json.encode(event) + b"\n"
    except Exception as error:  # the reply has begun, so the error is its last line
        ours: AisError = as_ais_error(error)
        text = error_body(ours, method=request.method, path=request.path, node=store.settings.node_id)
        yield msgspec.json.encode(Progress(error=text)) + b"\n"


async def spec_from_message(body: bytes) -> EtlSpec:
    """Return the specification in the body of ``PUT /v1/etl``; raises BadRequestError."""
    fields = lower_keys(decode_json(body))
    pod = fields.get("spec")
    if pod is None:
        return spec_from_runtime(fields)
    if not isinstance(pod, str):
        raise BadRequestError(f"spec: {type(pod).__name__} is no text", hint="expected the YAML of a pod in base64")
    if fields.get("runtime") is not None:
        raise BadRequestError("the message has both a runtime and a spec", hint="leave one of them out")
    return await asyncio.to_thread(spec_from_pod, decode_pod(pod), fields)


async def spec_from_pod_body(body: bytes, name: str) -> EtlSpec:
    """Return the specification in the YAML of a pod, with another ``name`` unless that is empty."""
    return await asyncio.to_thread(spec_from_pod, body, {"name": name} if name else None, of_2021=True)


def spec_from_code(body: bytes) -> EtlSpec:
    """Return the specification in an ``init_code`` message; raises BadRequestError for what it cannot be."""
    fields = lower_keys(decode_json(body))
    try:
        message = msgspec.convert(fields, EtlInitCode)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the init message cannot be read: {error}") from error
    return check_spec(
        EtlSpec(
            name=message.name or message.id or f"etl-{secrets.token_hex(4)}",
            code=_decode_text(message.code, "code"),
            dependencies=_decode_text(message.dependencies, "dependencies"),
            runtime=message.runtime,
            communication=read_communication(message.communication_type),
            workers=message.workers,
            filename=message.filename,
            deterministic=message.deterministic,
            cache=message.cache,
            env=tuple(message.env.items()),
            **_choices(message),
            **_quantities(message),
        )
    )


def _choices(message: EtlInitCode) -> dict[str, Any]:
    try:
        return {
            "isolation": Isolation(message.isolation),
            "sandbox": Sandbox(message.sandbox),
            "network": Network(message.network),
        }
    except ValueError as error:
        raise BadRequestError(
            str(error), hint="isolation is warm or fork, sandbox is on or off, network is none or full"
        ) from error


def _quantities(message: EtlInitCode) -> dict[str, Any]:
    """Return the times and sizes that the message says something of."""
    found: dict[str, Any] = {}
    for key, field, parse in (
        ("wait_timeout", "init_timeout_seconds", parse_duration),
        ("obj_timeout", "object_timeout_seconds", parse_duration),
        ("memory", "memory_bytes", parse_memory),
        ("cpus", "cpus", parse_cpus),
    ):
        value = getattr(message, key)
        try:
            if value not in ("", 0):
                found[field] = parse(str(value))
        except BadRequestError as error:
            raise named(key, error) from error
    return found


def _decode_text(text: str, what: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise BadRequestError(f"the {what} of the ETL must be UTF-8 text in base64: {error}") from error

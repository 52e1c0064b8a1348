"""Transforms: ``/v1/etl``, in the spellings of today and of 2021."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from ...errors import AisError, BadRequestError, NotFoundError, NotSupportedError
from ...model.etl import EtlSpec, Isolation, Sandbox, check_spec, parse_duration
from ...model.names import check_etl_name
from ...wire.messages import EtlInitCode, EtlSummary, Progress, decode_json, lower_keys
from ..description import OBJECT, TEXT, Content, Parameter, operation
from ..error_replies import as_ais_error, error_body
from ..replies import Empty, Reply, Stream, json_reply, text_reply
from ..request import Request
from ..store import Store
from .jobs import errors_of_etl

NDJSON = "application/x-ndjson"


_PER_NODE = Content({"type": "array", "items": {"type": "object"}})


@operation("/v1/etl", "List the transforms.", returns=Content(list[EtlSummary]))
@operation("/v1/etl/list", "List the transforms, as in 2021.", returns=Content(list[EtlSummary]))
@operation(
    "/v1/etl/{etl}",
    "Return the details of a transform, and the objects that failed in a job.",
    Parameter("uuid", "Which job's errors to tell; the last one's otherwise."),
    returns=Content(OBJECT),
)
@operation("/v1/etl/{etl}/logs", "Return what a transform printed, in base64.", returns=_PER_NODE)
@operation("/v1/etl/{etl}/health", "Return the stage that a transform is in.", returns=_PER_NODE)
@operation("/v1/etl/{etl}/metrics", "Return what a transform has done.", returns=_PER_NODE)
@operation("/v1/etl/logs/{etl}", "The same as in 2021: logs.", returns=_PER_NODE)
@operation("/v1/etl/health/{etl}", "The same as in 2021: health.", returns=_PER_NODE)
async def get(store: Store, request: Request, rest: str) -> Reply:
    """List the ETLs, or return the details, logs, health or metrics of one."""
    parts = rest.strip("/").split("/")
    if parts in ([""], ["list"]):
        return json_reply(await store.controller.call("etl_list"))
    if parts[0] in ("logs", "health") and len(parts) > 1:  # the order of 2021
        parts = [parts[1], parts[0], *parts[2:]]
    name, what = parts[0], parts[1] if len(parts) > 1 else ""
    if what == "":
        details = await store.controller.call("etl_details", name=name)
        details["obj_errors"] = await errors_of_etl(store, name, request.query.get("uuid", ""))
        return json_reply(details)
    if what not in ("logs", "health", "metrics"):
        raise NotFoundError(f"no such ETL query: {what!r}", hint="expected logs, health or metrics")
    found = await store.controller.call(f"etl_{what}", name=name)
    if len(parts) > 2:  # of one node
        nodes = ", ".join(entry["target_id"] for entry in found)
        found = [entry for entry in found if entry["target_id"] == parts[2]]
        if not found:
            raise NotFoundError(f"node {parts[2]} has nothing of etl job {name}", hint=f"these have: {nodes}")
    if what == "logs":
        found = [{**entry, "logs": base64.b64encode(entry["logs"].encode()).decode()} for entry in found]
    return json_reply(found)


@operation(
    "/v1/etl/init_code",
    "Make a transform from code; the answer is its name, or with Accept: application/x-ndjson a line per stage.",
    body=Content(EtlInitCode),
    also={200: ("Ready.", (Content(TEXT, "text/plain"), Content(Progress, NDJSON)))},
    errors=(404, 409, 422, 501, 507),
)
@operation("/v1/etl/init_spec", "A transform from a pod: not here.", body=Content(OBJECT), refused=True)
@operation("/v1/etl/{etl}/start", "Start a transform.", body=Content(OBJECT), errors=(409, 422))
@operation("/v1/etl/{etl}/stop", "Stop a transform.", body=Content(OBJECT), errors=(409,))
async def post(store: Store, request: Request, rest: str) -> Reply:
    """Make an ETL from code (2021), or start or stop one."""
    parts = rest.strip("/").split("/")
    body = await request.body(store.limits.control_body_bytes_max)
    if parts in (["init_code"], ["build"]):
        return await _init_code(store, request, body)
    if parts in (["init_spec"], ["init"]):
        raise NotSupportedError(
            "an ETL from a pod specification is not supported by this store",
            hint="use `ais etl init code` (POST /v1/etl/init_code)",
        )
    if len(parts) == 2 and parts[1] in ("start", "stop"):
        await store.controller.call_patiently(f"etl_{parts[1]}", name=parts[0])
        return Empty()
    raise NotFoundError(f"no such ETL action: {rest!r}", hint="expected init_code, <name>/start or <name>/stop")


@operation("/v1/etl", "A transform from an image or a class: not here.", body=Content(OBJECT), refused=True)
async def put(store: Store, request: Request, rest: str) -> Reply:
    """Refuse an ETL from an image or a class payload."""
    await request.body(store.limits.control_body_bytes_max)
    raise NotSupportedError(
        "an ETL from a container image is not supported by this store",
        hint="use `ais etl init code` (POST /v1/etl/init_code)",
    )


@operation("/v1/etl/{etl}", "Delete a transform.", errors=(409,))
@operation("/v1/etl/stop/{etl}", "Stop a transform, as in 2021.", errors=(409,))
async def delete(store: Store, request: Request, rest: str) -> Reply:
    """Delete an ETL; ``DELETE /v1/etl/stop/<name>`` stops one, as in 2021."""
    parts = rest.strip("/").split("/")
    if parts[0] == "stop" and len(parts) == 2:
        await store.controller.call("etl_stop", name=parts[1])
        return Empty()
    if len(parts) != 1 or not parts[0]:
        raise NotFoundError(f"no such ETL: {rest!r}")
    await store.controller.call("etl_delete", name=parts[0])
    return Empty()


async def _init_code(store: Store, request: Request, body: bytes) -> Reply:
    spec = check_spec(spec_from_message(body))
    if NDJSON in request.headers.get("accept", ""):
        return Stream(_init_events(store, spec, request), media_type=NDJSON)
    return text_reply(await store.controller.call_patiently("etl_init", spec=msgspec.to_builtins(spec)))


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


def spec_from_message(body: bytes) -> EtlSpec:
    """Return the specification in an ``init_code`` message; raises BadRequestError for what it cannot be."""
    fields = lower_keys(decode_json(body))
    try:
        message = msgspec.convert(fields, EtlInitCode)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the init message cannot be read: {error}") from error
    name = message.name or message.id or f"etl-{secrets.token_hex(4)}"
    try:
        isolation, sandbox = Isolation(message.isolation), Sandbox(message.sandbox)
    except ValueError as error:
        raise BadRequestError(str(error), hint="isolation is warm or fork, sandbox is on or off") from error
    times: dict[str, Any] = {}
    if message.wait_timeout:
        times["init_timeout_seconds"] = parse_duration(message.wait_timeout)
    if message.obj_timeout:
        times["object_timeout_seconds"] = parse_duration(message.obj_timeout)
    return EtlSpec(
        name=check_etl_name(name),
        code=_decode_text(message.code, "code"),
        dependencies=_decode_text(message.dependencies, "dependencies"),
        runtime=message.runtime,
        communication=message.communication_type,
        isolation=isolation,
        sandbox=sandbox,
        workers=message.workers,
        filename=message.filename,
        **times,
    )


def _decode_text(text: str, what: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise BadRequestError(f"the {what} of the ETL must be UTF-8 text in base64: {error}") from error

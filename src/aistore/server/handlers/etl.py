"""Transforms: ``/v1/etl``, in the spellings of today and of 2021."""

from __future__ import annotations

import base64

from ...errors import NotFoundError
from ...wire.messages import EtlInitCode, EtlSummary
from ..description import OBJECT, TEXT, Content, Parameter, operation
from ..replies import Empty, Reply, json_reply
from ..request import Request
from ..store import Store
from .etl_init import INIT_ERRORS, INIT_REPLIES, init, spec_from_code, spec_from_message, spec_from_pod_body
from .jobs import errors_of_etl

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
    also=INIT_REPLIES,
    errors=INIT_ERRORS,
)
@operation(
    "/v1/etl/init_spec",
    "Make a transform from the YAML of a pod, as in 2021; answers as init_code.",
    Parameter("name", "The transform's name instead of the pod's."),
    body=Content(TEXT, "application/yaml"),
    also=INIT_REPLIES,
    errors=INIT_ERRORS,
)
@operation("/v1/etl/{etl}/start", "Start a transform.", body=Content(OBJECT), errors=(409, 422, 501))
@operation("/v1/etl/{etl}/stop", "Stop a transform.", body=Content(OBJECT), errors=(409,))
async def post(store: Store, request: Request, rest: str) -> Reply:
    """Make an ETL from code or a pod (2021), or start or stop one."""
    parts = rest.strip("/").split("/")
    body = await request.body(store.limits.control_body_bytes_max)
    if parts in (["init_code"], ["build"]):
        return await init(store, request, spec_from_code(body))
    if parts in (["init_spec"], ["init"]):
        return await init(store, request, await spec_from_pod_body(body, request.query.get("name", "")))
    if len(parts) == 2 and parts[1] in ("start", "stop"):
        await store.controller.call_patiently(f"etl_{parts[1]}", name=parts[0])
        return Empty()
    raise NotFoundError(
        f"no such ETL action: {rest!r}", hint="expected init_code, init_spec, <name>/start or <name>/stop"
    )


@operation(
    "/v1/etl",
    "Make a transform from a runtime message (an image, a class, a command) or a pod in base64; answers with the id of "
    "its job, or as init_code with Accept: application/x-ndjson.",
    body=Content(OBJECT),
    also=INIT_REPLIES,
    errors=INIT_ERRORS,
)
async def put(store: Store, request: Request, rest: str) -> Reply:
    """Make an ETL from a runtime message."""
    body = await request.body(store.limits.control_body_bytes_max)
    if rest.strip("/"):
        raise NotFoundError(f"no such ETL action: PUT {rest!r}", hint="a transform is made by PUT /v1/etl")
    return await init(store, request, await spec_from_message(body), answers_with_job=True)


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

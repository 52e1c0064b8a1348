"""The disks of this store: ``/v1/daemon?what=mountpaths`` and ``/v1/daemon/mountpaths``."""

from __future__ import annotations

from ...errors import BadRequestError, NotFoundError, NotSupportedError
from ...storage.local.members import attach, detach, switch
from ...storage.local.presence import statuses
from ...wire.messages import Action, MountpathList, MountpathState, decode_action
from ..description import FLAG, Content, Parameter, operation
from ..replies import Empty, Reply, json_reply
from ..request import Request
from ..store import Store

#: What each method stands for when the body names no action.
_ACTIONS = {"PUT": "attachmp", "DELETE": "detachmp", "POST": ""}


async def describe(store: Store) -> Reply:
    """List the mountpaths, each with its state and what is on it."""
    found = await store.in_thread(statuses, store.settings.serve.data)
    return json_reply(
        MountpathList(
            available=[one.path for one in found if one.state == "available"],
            disabled=[one.path for one in found if one.state == "disabled"],
            mountpaths=[
                MountpathState(
                    id=one.id,
                    path=one.path,
                    state=one.state,
                    reason=one.reason,
                    objects=one.objects,
                    size=one.size,
                    avail=one.available_bytes,
                    total=one.total_bytes,
                )
                for one in found
            ],
        )
    )


@operation(
    "/v1/daemon/mountpaths",
    "Attach a mountpath (PUT), detach it (DELETE), enable or disable it (POST); its path is the action's value.",
    Parameter("force", "Detach although objects are on it, and give them up.", FLAG),
    body=Content(Action),
    errors=(404, 409, 501, 507),
)
async def change(store: Store, request: Request, rest: str) -> Reply:
    """Attach (PUT), detach (DELETE), enable or disable (POST) the mountpath that is the action's value."""
    if rest.strip("/") != "mountpaths":
        raise NotFoundError(f"no such path: {request.path[:200]}", hint="mountpaths are at /v1/daemon/mountpaths")
    message = decode_action(await request.body(store.limits.control_body_bytes_max), action_optional=True)
    verb = message.verb or _ACTIONS[request.method]
    path = message.value
    if not isinstance(path, str) or not path or "\0" in path:
        raise BadRequestError("no mountpath given", hint='expected {"action": "attach-mp", "value": "/path"}')
    data = store.settings.serve.data
    if verb in ("attachmp", "attach"):
        await store.in_thread(attach, data, path)
    elif verb in ("detachmp", "detach"):
        await store.in_thread(_detach, data, path, request.flag("force"))
    elif verb in ("enablemp", "enable", "disablemp", "disable"):
        await store.in_thread(_switch, data, path, verb.startswith("enable"))
    else:
        raise NotSupportedError(f"mountpath action {message.action!r} is not supported by this store")
    return Empty()


def _detach(data: str, path: str, force: bool) -> None:
    detach(data, path, force=force)


def _switch(data: str, path: str, enabled: bool) -> None:
    switch(data, path, enabled=enabled)

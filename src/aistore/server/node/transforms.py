"""What the nodes of a cluster ask each other about transforms: a verb of the other's controller, over HTTP.

``POST /v1/internal/etl/<verb>`` with the arguments as JSON. The reply is a line of JSON per message: ``[]`` while there
is nothing to say, ``["progress", stage, message]``, and at the end ``["result", value]`` or ``["error", code, message,
hint, status]``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from ...cluster.view import View
from ...errors import PeerUnreachableError, error_from_code
from ...etl.everywhere import Everywhere
from ...wire.messages import ErrorBody
from ..error_replies import as_ais_error
from ..link import ControllerLink, ReportProgress
from ..peers import PeerReply, Peers
from .views import WorkerViews

VERBS = ("list", "details", "health", "logs", "metrics", "bring_up")
NDJSON = "application/x-ndjson"

#: How long a reply may take to begin, and how often it says that it goes on. A peer gives up after some such silence.
_BEGIN_SECONDS = 5.0
_PULSE_SECONDS = 5.0
_LINE_BYTES_MAX = 64 << 20


async def answer(link: ControllerLink, verb: str, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """Yield the lines of the reply to a node that asks for ``verb``, one of VERBS."""
    yield b"[]\n"
    messages = link.stream(f"etl_here_{verb}", **arguments).__aiter__()
    coming: asyncio.Future[tuple[str, Any]] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(messages))
            done, _ = await asyncio.wait([coming], timeout=_PULSE_SECONDS)
            if not done:
                yield b"[]\n"
                continue
            kind, value = coming.result()
            coming = None
            yield _line("progress", *value) if kind == "progress" else _line("result", value)
            if kind == "result":
                return
    except Exception as error:  # the reply has begun, so the error is its last line
        ours = as_ais_error(error)
        yield _line("error", ours.code, ours.message, ours.hint, ours.status)
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def _line(*values: Any) -> bytes:
    return msgspec.json.encode(values) + b"\n"


class PeerTransforms:
    """Asks other nodes about their transforms."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def call(
        self, node: str, verb: str, arguments: dict[str, Any], report: ReportProgress, seconds: float
    ) -> Any:
        """Call a verb at a node and return its result; raises its error, or PeerUnreachableError."""
        try:
            return await asyncio.wait_for(self._call(node, verb, arguments, report), seconds)
        except asyncio.TimeoutError:
            raise PeerUnreachableError(f"node {node} did not answer within {seconds:g} s") from None
        except (TypeError, ValueError, msgspec.DecodeError) as error:
            raise PeerUnreachableError(f"node {node} answers nonsense: {error}") from error

    async def _call(self, node: str, verb: str, arguments: dict[str, Any], report: ReportProgress) -> Any:
        reply = await self._peers.request(
            node, "POST", f"/v1/internal/etl/{verb}", [(b"content-type", b"application/json")],
            msgspec.json.encode(arguments), _BEGIN_SECONDS,
        )  # fmt: skip
        async with reply:
            if reply.status != 200:
                raise msgspec.json.decode(await reply.body(), type=ErrorBody).to_error()
            async with contextlib.aclosing(_lines(reply)) as lines:
                async for line in lines:
                    match msgspec.json.decode(line):
                        case ["progress", stage, message]:
                            await report(str(stage), str(message))
                        case ["result", value]:
                            return value
                        case ["error", code, message, hint, status]:
                            raise error_from_code(str(code), str(message), hint=str(hint), status=int(status))
        raise PeerUnreachableError(f"node {node} ended its answer before it was whole")


async def _lines(reply: PeerReply) -> AsyncGenerator[bytes, None]:
    held = b""
    async for piece in reply.chunks():
        *lines, held = (held + piece).split(b"\n")
        if len(held) > _LINE_BYTES_MAX:
            raise ValueError(f"a line of more than {_LINE_BYTES_MAX} bytes")
        for line in lines:
            yield line


class Followers:
    """What follows a view on this node: its HTTP workers, and its transforms."""

    def __init__(self, views: WorkerViews) -> None:
        self._views = views
        self.everywhere: Everywhere | None = None

    async def adopt(self, view: View) -> None:
        """Return when all of them go by ``view``."""
        assert self.everywhere is not None
        await asyncio.gather(self._views.adopt(view), self.everywhere.adopt(view))

    def publish(self, deadline: float) -> None:
        """Let the HTTP workers act until ``deadline``."""
        self._views.publish(deadline)

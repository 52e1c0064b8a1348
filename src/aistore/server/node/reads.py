"""Plain reads between nodes, as one HTTP worker takes part: it asks homes, and answers as one (peers/reads.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...settings import ServeSettings
from ...wire.headers import HOP, MAP_VERSION
from ..asgi import Schedule
from ..at_once import AtOnce
from ..peers.reads import QuickReads, ReadServer, hello
from ..record import Recorder
from ..replies import Messages
from .worker import SharedObjects

_HOP = HOP.encode()
_MAP_VERSION = MAP_VERSION.encode()


class NodeReads:
    """The reads that this process passes on, and those that it answers.

    ``asking`` belongs to the thread that makes requests, ``answering`` to the event loop.
    """

    def __init__(
        self, serve: ServeSettings, shared: SharedObjects, asking: AtOnce, answering: AtOnce, recorder: Recorder
    ) -> None:
        self._host = serve.host
        self._shared = shared
        self._asking = asking
        self._recorder = recorder
        self._server = ReadServer(answering.reply, serve.cluster_secret)
        first = hello(serve.cluster_secret, shared.me, 0)
        self._quick = QuickReads(shared.peers, first, shared.urls, self._record)

    @property
    def port(self) -> int:
        """Where other nodes ask."""
        return self._server.port

    async def start(self) -> None:
        """Listen."""
        await self._server.start(self._host)

    def close(self) -> None:
        """End."""
        self._quick.close()
        self._server.close()

    def _record(self, scope: Mapping[str, Any], messages: Messages, started_ns: int) -> Messages:
        """Record another node's answer; the version of the map is for clients that could have asked it themselves."""
        messages[0]["headers"].append((_MAP_VERSION, str(self._shared.view.version).encode()))
        return self._recorder.at_once(scope, messages, started_ns)

    def take(self, watcher: Any, schedule: Schedule) -> bool:
        """Take a plain read of an object that lives on another node over; never waits or raises."""
        scope = watcher.scope
        if scope["method"] != "GET":
            return False
        try:
            asked = self._asking.asked(scope)
            if asked is None or any(name == _HOP for name, _ in scope["headers"]):
                return False
            bucket, name = asked
            view = self._shared.view
            record = view.root.buckets.get(f"ais/{bucket}")
            home = "" if record is None or record.deleting else view.home(record, name)
            return bool(home) and home != view.me and self._quick.take(watcher, home, schedule)
        except Exception:  # the event loop finds it again, and makes it a reply
            return False

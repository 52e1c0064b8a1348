"""A node that shares its buckets with nobody: a store of one machine with buckets of other providers.

It is a cluster of one, with the same code: its document is a file in the data directory instead of an object in a
store, its map has one home since ever, and it needs no lease.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from msgspec import structs

from ...cluster.documents import Epoch, NodeRecord, RootDocument, decode_root, encode_root, new_root
from ...cluster.membership import Mutate, Times
from ...cluster.view import View
from ...settings import ProcessSettings
from ...storage.local.syncing import replace_file
from .views import WorkerViews


def backed_cache(data: str) -> str:
    """Return where a store of one machine keeps copies of objects of other providers' buckets."""
    return os.path.join(data, "backed")


class Alone:
    """What ``cluster.membership.Membership`` is to a node of a cluster."""

    times = Times(float("inf"))
    lease_seconds_left = float("inf")

    def __init__(self, settings: ProcessSettings, views: WorkerViews) -> None:
        self._me = settings.target_id
        self._record = NodeRecord(settings.url, "alone", started_ns=settings.started_ns)
        self._path = os.path.join(settings.serve.data, "backed.json")
        self._views = views
        self._lock = asyncio.Lock()
        self._callbacks: list[Callable[[View], None]] = []
        self.view: View | None = None

    async def start(self) -> None:
        """Take up the document, if there is one."""
        if os.path.exists(self._path):
            with open(self._path, "rb") as file:
                root = decode_root(file.read(), self._path)
            self._publish(self._with_me(root))
            assert self.view is not None
            await self._views.adopt(self.view)

    async def leave(self) -> None:
        """Do nothing: there is nobody to leave."""

    def on_view(self, callback: Callable[[View], None]) -> None:
        """Call ``callback`` with every view from now on."""
        self._callbacks.append(callback)

    async def change(self, mutate: Mutate) -> int:
        """Change the document, on disk first; raises what ``mutate`` raises."""
        async with self._lock:
            root = self.view.root if self.view is not None else self._with_me(new_root())
            wanted = mutate(root)
            if wanted is None or wanted == root:
                return root.version
            wanted = structs.replace(wanted, version=root.version + 1)
            await asyncio.to_thread(replace_file, self._path, encode_root(wanted))
            self._publish(wanted)
            assert self.view is not None
            await self._views.adopt(self.view)
            return wanted.version

    async def barrier(self, version: int, seconds: float) -> list[str]:
        """Return at once: all processes follow before a change is done."""
        return []

    async def asked(self, version: int) -> tuple[str, int]:
        """Return what is adopted; nobody asks."""
        return self._record.incarnation, self.view.version if self.view is not None else 0

    def states(self) -> dict[str, str]:
        """Return the state of the one node."""
        return {self._me: "online"}

    def _with_me(self, root: RootDocument) -> RootDocument:
        return structs.replace(
            root, nodes={self._me: self._record}, epoch=1, settled=1, history=(Epoch(1, {self._me: "alone"}),)
        )

    def _publish(self, root: RootDocument) -> None:
        self.view = View(root, self._me, 1)
        for callback in self._callbacks:
            callback(self.view)

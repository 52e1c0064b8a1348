"""Metrics for Prometheus: ``GET /metrics``."""

from __future__ import annotations

from ..exposition import CONTENT_TYPE, exposition
from ..metrics import all_families
from ..replies import Bytes, Reply
from ..request import Request
from ..store import Store


async def get(store: Store, request: Request, rest: str) -> Reply:
    """Return all metrics of the store, whichever of its processes answers."""
    disks = await store.disks.get()
    families = all_families(store.totals.read(), disks, store.settings.started_ns, store.settings.node_id)
    return Bytes(exposition(families), media_type=CONTENT_TYPE)

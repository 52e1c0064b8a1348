"""Metrics for Prometheus: ``GET /metrics``."""

from __future__ import annotations

from ..description import TEXT, Content, operation
from ..exposition import CONTENT_TYPE, exposition
from ..metrics import all_families, result_families
from ..replies import Bytes, Reply
from ..request import Request
from ..store import Store


@operation("/v1/metrics", "Metrics for Prometheus.", returns=Content(TEXT, CONTENT_TYPE))
async def get(store: Store, request: Request, rest: str) -> Reply:
    """Return all metrics of the store, whichever of its processes answers."""
    disks = await store.disks.get()
    families = all_families(store.totals.read(), disks, store.settings.started_ns, store.settings.node_id)
    families += result_families(await store.results.kept(), store.results.capacity())
    return Bytes(exposition(families), media_type=CONTENT_TYPE)

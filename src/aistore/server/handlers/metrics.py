"""Metrics for Prometheus: ``GET /metrics``."""

from __future__ import annotations

import asyncio

from ...errors import AisError
from ..description import TEXT, Content, operation
from ..exposition import CONTENT_TYPE, exposition
from ..metrics import EtlUsage, all_families, result_families
from ..replies import Bytes, Reply
from ..request import Request
from ..store import Store

_USAGE_SECONDS_MAX = 2.0  # a controller that is being started again answers later


async def _etl_usage(store: Store) -> EtlUsage | None:
    try:
        found: EtlUsage = await asyncio.wait_for(store.controller.call("etl_usage"), _USAGE_SECONDS_MAX)
    except (AisError, asyncio.TimeoutError):
        return None
    return found


@operation("/v1/metrics", "Metrics for Prometheus.", returns=Content(TEXT, CONTENT_TYPE))
async def get(store: Store, request: Request, rest: str) -> Reply:
    """Return all metrics of the store, whichever of its processes answers."""
    disks, usage = await asyncio.gather(store.disks.get(), _etl_usage(store))
    families = all_families(store.totals.read(), usage, disks, store.settings.started_ns, store.settings.node_id)
    families += result_families(await store.results.kept(), store.results.capacity())
    return Bytes(exposition(families), media_type=CONTENT_TYPE)

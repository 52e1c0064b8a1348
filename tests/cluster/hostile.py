"""What hostile tests of a cluster need: requests, and its store as another program sees it."""

from __future__ import annotations

from typing import Any

import pytest
import urllib3

from aistore.storage.objectstore.contract import ObjectStore
from aistore.storage.objectstore.urls import open_object_store
from aistore.testing import LocalCluster


def create(http: urllib3.PoolManager, endpoint: str, bucket: str, props: dict[str, Any] | None = None) -> int:
    """Create a bucket (``name``, ``name@provider``); return the status."""
    name, _, provider = bucket.partition("@")
    path = f"/v1/buckets/{name}?provider={provider or 'ais'}"
    return http.request("POST", endpoint + path, json={"action": "create-bck", "value": props or {}}).status


def the_store(cluster: LocalCluster) -> ObjectStore:
    """Return the cluster's place in its store, as another program would open it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.weed.environment.items():
            patch.setenv(name, value)
        return open_object_store(cluster.store_url)

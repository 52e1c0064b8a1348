"""What `ais serve --store` makes sure of before anything runs: that the store can hold a cluster, and its document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from ...cluster.documents import LEASE_SECONDS, LEASES, ROOT_KEY, RootDocument, decode_root, encode_root, new_root
from ...errors import BadRequestError, ConflictError, StaleConditionError, StoredNotFoundError
from ...storage.objectstore.contract import ABSENT, ObjectStore
from ...storage.objectstore.probe import probe
from ...storage.objectstore.urls import open_object_store

_SECONDS = 20.0


class ClusterFound(NamedTuple):
    """What nodes have in common: a secret, how long their leases are (0: no node yet), what their store can do."""

    secret: str
    lease_seconds: float
    capabilities: dict[str, Any]


def open_cluster(url: str) -> ClusterFound:
    """Make the cluster at ``url`` if there is none, and return what its nodes have in common.

    Raises BadRequestError when the store lacks what several nodes need, and what the store raises.
    """
    store = open_object_store(url)
    try:
        if store.url.startswith("memory:"):
            raise BadRequestError(f"{store.url} cannot hold a cluster: each process has a memory of its own")
        store.list("", "", 1)  # a bucket that is not there; some stores make one for whoever writes
        store.capabilities = found = probe(store)
        lacking = [
            words
            for has, words in (
                (found.conditional_create, "writes that require that nothing is there"),
                (found.conditional_replace, "writes that require what is there"),
                (found.listing, "listings"),
                (found.metadata, "metadata of objects"),
            )
            if not has
        ]
        if lacking:
            raise BadRequestError(
                f"{store.url} cannot hold a cluster: it lacks {', '.join(lacking)}",
                hint="docs/object-stores.md says which stores can; `ais serve --data DIR` needs none",
            )
        root = _root(store)
        return ClusterFound(root.secret, float(root.settings.get(LEASE_SECONDS, 0.0)), asdict(found))
    finally:
        store.close()


def _root(store: ObjectStore) -> RootDocument:
    """Return the root document, which is made if there is none.

    Raises ConflictError if a cluster was there: with another document all its buckets would be gone.
    """
    emptied = False
    while True:
        try:
            body = store.get(ROOT_KEY)
        except StoredNotFoundError:
            if emptied:
                raise ConflictError(
                    f"{store.url}/{ROOT_KEY} is gone, but nodes were here: {store.url}/{LEASES}",
                    hint="put it back; or, to begin anew, stop all nodes and remove what is below .ais/",
                ) from None
            if store.list(LEASES, limit=1).entries:
                emptied = True  # unless another node has made both meanwhile
                continue
            try:
                store.put(ROOT_KEY, encode_root(new_root()), {}, ABSENT, _SECONDS)
            except StaleConditionError:
                pass  # another node was quicker
        else:
            assert body is not None
            with body:
                return decode_root(body.read(), f"{store.url}/{ROOT_KEY}")

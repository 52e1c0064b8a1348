"""The half of a node that is in its controller: membership, and changes of what all nodes share."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from msgspec import structs

from ...cluster.documents import BucketRecord, NodeRecord, RootDocument, with_node
from ...cluster.membership import Membership, Self, Times
from ...cluster.view import View, urls
from ...errors import (
    AisError,
    BackendRefusedError,
    BadRequestError,
    BucketExistsError,
    BucketNotFoundError,
    ConflictError,
    NotFoundError,
    OverloadedError,
    PeerUnreachableError,
    RetryLaterError,
)
from ...etl.everywhere import Everywhere
from ...etl.manager import Manager
from ...etl.wanted import Wanted
from ...model.names import SCHEMES
from ...settings import ProcessSettings, Secret
from ...storage.cache.cache import Cache
from ...storage.cache.settings import Pin, parse_capacity
from ..link import ReportProgress, Verb
from ..peers import Peers
from .alone import Alone, backed_cache
from .clock import BootClock
from .fence import FenceWriter
from .stores import BucketStores, PromptStore, open_own_store
from .transforms import Followers, PeerTransforms
from .views import WorkerViews

_log = logging.getLogger("aistore.cluster")

#: How long a change waits for all nodes to follow; a node that has died is waited for until its lease has lapsed.
_BARRIER_SECONDS = 60.0
_ASK_SECONDS = 3.0
#: How long a node that starts insists where the object store does not answer in time, and how often it asks.
_JOIN_SECONDS, _JOIN_AGAIN_SECONDS = 60.0, 0.5
_LIST_LIMIT = 1000


class _Others:
    """The other nodes, asked over HTTP; their HTTP workers ask their controllers."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def adopted(self, node: str, record: NodeRecord, version: int) -> tuple[str, int]:
        """Ask a node to adopt ``version``; return its incarnation and what it has adopted."""
        try:
            answer = await self._peers.json(
                node, "POST", "/v1/internal/adopt", {"version": version}, seconds=_ASK_SECONDS
            )
            return str(answer["incarnation"]), int(answer["adopted"])
        except (KeyError, TypeError, ValueError) as error:
            raise PeerUnreachableError(f"node {node} answers nonsense: {error}") from error


class SharedBuckets:
    """Buckets whose objects are in object stores, and the node's part in sharing them; verbs are for HTTP workers."""

    def __init__(self, settings: ProcessSettings, manager: Manager) -> None:
        serve = settings.serve
        self._settings = settings
        self.clock = BootClock()
        self.store = open_own_store(serve)
        self.stores = BucketStores(self.store)
        fence = FenceWriter(settings.fence) if serve.store else None
        self.views = WorkerViews(serve.worker_count, fence, serve.lease_seconds)
        self.peers = Peers(settings.target_id, Secret(serve.cluster_secret or "alone"), self._urls, self._version)
        self._cache: Cache | None = None
        self.everywhere: Everywhere | None = None
        self.membership: Membership | Alone = Alone(settings, self.views)
        if serve.store:
            followers = Followers(self.views)
            self.membership = joining = self._join(followers)
            transforms = PeerTransforms(self.peers)
            self.everywhere = Everywhere(manager, Wanted(manager), joining, transforms, 2 * serve.lease_seconds)
            followers.everywhere = self.everywhere
        self.membership.on_view(self._follow)
        self._bucket_ids: frozenset[str] | None = None
        self._deleting: set[str] = set()
        #: Copies that are never evicted.
        self.pins: tuple[Pin, ...] = ()

    def _join(self, followers: Followers) -> Membership:
        settings, lease = self._settings, self._settings.serve.lease_seconds
        own, _ = self.stores.bucket(BucketRecord("ais", "any", "", 0))
        times = Times(lease, lease / 3, lease / 6, max(1.0, lease / 4), min(1.0, lease / 10))
        return Membership(
            Self(settings.target_id, secrets.token_hex(4), settings.url, settings.started_ns),
            self.clock, PromptStore(own, 2 * times.call), _Others(self.peers), followers, times, self._prepare,
        )  # fmt: skip

    @property
    def cache(self) -> Cache:
        """The node's copies, opened when there are any."""
        if self._cache is None:
            serve = self._settings.serve
            self._cache = Cache(serve.cache or backed_cache(serve.data), parse_capacity(serve.cache_size))
        return self._cache

    def verbs(self) -> dict[str, Verb]:
        """Return the verbs by name."""
        return {
            **self.views.verbs(),
            **(self.everywhere.verbs() if self.everywhere is not None else {}),
            "cluster.asked": self._asked,
            "cluster.state": self._state,
            "cluster.drain": self._drain,
            "cluster.remove": self._remove,
            "bucket.create": self._create_bucket,
            "bucket.delete": self._delete_bucket,
            "bucket.evict": self._evict_bucket,
            "bucket.props": self._set_props,
        }

    async def _prepare(self, view: View) -> None:
        if self.everywhere is not None:
            await self.everywhere.ready(view)

    async def start(self) -> None:
        """Join; returns when this node answers for objects. A store that does not answer is asked again for a while."""
        until = self.clock.now() + _JOIN_SECONDS
        while True:
            try:
                return await self.membership.start()
            except RetryLaterError as error:
                if self.clock.now() > until:
                    raise
                _log.warning("has not joined yet: %s", error.message)
                await self.clock.sleep(_JOIN_AGAIN_SECONDS)

    async def close(self) -> None:
        """Leave: the other nodes take over at once. The supervisor has ended the HTTP workers before."""
        self.views.end()
        if self.everywhere is not None:
            await self.everywhere.close()
        try:
            await asyncio.wait_for(self.membership.leave(), 8.0)
        except (AisError, asyncio.TimeoutError) as error:
            _log.warning("left without a word, the others will notice: %s", error or "the store does not answer")
        await self.clock.close()
        self.peers.close()
        await asyncio.to_thread(self.stores.close)
        if self._cache is not None:
            self._cache.close()

    def _urls(self) -> Mapping[str, str]:
        view = self.membership.view
        return urls(view.root) if view is not None else {}

    def _version(self) -> int:
        view = self.membership.view
        return view.version if view is not None else 0

    @property
    def view(self) -> View:
        """The view that this node has adopted; raises OverloadedError before there is one."""
        if self.membership.view is None:
            raise OverloadedError("this node has no map of its buckets yet", hint="try again in some seconds")
        return self.membership.view

    # What is asked of it.

    async def _asked(self, arguments: dict[str, Any], report: ReportProgress) -> dict[str, Any]:
        incarnation, adopted = await self.membership.asked(int(arguments["version"]))
        return {"incarnation": incarnation, "adopted": adopted}

    async def _state(self, arguments: dict[str, Any], report: ReportProgress) -> dict[str, Any]:
        view, usage = self.view, self.cache.usage()
        states = self.membership.states()
        return {
            "state": states.get(view.me, "joining"), "states": states, "epoch": view.epoch, "version": view.version,
            "settled": view.settled, "lease_seconds_left": max(0.0, round(self.membership.lease_seconds_left, 1)),
            "cached_objects": usage.objects, "cached_bytes": usage.bytes, "cache_capacity": usage.capacity_bytes,
            "pinned_bytes": usage.pinned_bytes, "store": self._settings.serve.store,
            "lease_seconds": self.membership.times.lease, "renew_seconds": self.membership.times.renew,
            "poll_seconds": self.membership.times.poll,
        }  # fmt: skip

    async def change(self, mutate: Any) -> None:
        """Change the root document and wait until all live nodes have followed; raises OverloadedError."""
        version = await self.membership.change(mutate)
        late = await self.membership.barrier(version, _BARRIER_SECONDS)
        if late:
            raise OverloadedError(
                f"the change is made, but {', '.join(late)} did not follow it within {_BARRIER_SECONDS:.0f} s",
                hint="it will when it can; `ais show cluster` says how it is",
            )

    async def _drain(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        node, draining = str(arguments["node"]), bool(arguments["draining"])

        def drain(root: RootDocument) -> RootDocument:
            record = _node_of(root, node)
            if draining:
                _check_others(root, node)
            return with_node(root, node, structs.replace(record, draining=draining), self.view.settled)

        await self.change(drain)

    async def _remove(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        node = str(arguments["node"])

        def remove(root: RootDocument) -> RootDocument:
            record = _node_of(root, node)
            _check_others(root, node)
            removed = {**root.removed, node: record.incarnation}
            return structs.replace(with_node(root, node, None, self.view.settled), removed=removed)

        await self.change(remove)

    async def _create_bucket(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        provider, name = str(arguments["provider"]), str(arguments["name"])
        record = BucketRecord(provider, name, secrets.token_hex(6), time.time_ns(), dict(arguments["props"]))
        key = f"{provider}/{name}"
        if provider not in ("ais", "ht"):
            await self._check_reachable(record)

        def create(root: RootDocument) -> RootDocument:
            found = root.buckets.get(key)
            if found is not None and found.id != record.id:
                if found.deleting:
                    raise ConflictError(
                        f"{record.uri} is still being removed", hint="try again when its objects are gone"
                    )
                raise BucketExistsError(f'bucket "{record.uri}" already exists')
            return structs.replace(root, buckets={**root.buckets, key: record})

        await self.change(create)

    async def _check_reachable(self, record: BucketRecord) -> None:
        """Raise BadRequestError unless the bucket is there and lets this node in."""
        try:
            store, _ = self.stores.bucket(record)
            await store.list("", "", 1)
        except BackendRefusedError as error:
            raise BadRequestError(error.message, hint=error.hint) from error

    async def _set_props(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        key = f"{arguments['provider']}/{arguments['name']}"
        given: dict[str, Any] = dict(arguments["props"])

        def change(root: RootDocument) -> RootDocument:
            found = root.buckets.get(key)
            if found is None or found.deleting:
                raise BucketNotFoundError.of(arguments["name"], SCHEMES[arguments["provider"]])
            props = {**({} if arguments["reset"] else found.props), **given}
            return structs.replace(root, buckets={**root.buckets, key: structs.replace(found, props=props)})

        await self.change(change)

    async def _evict_bucket(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        """Drop all copies of a bucket, on every node: under another id it has none."""
        provider, name = str(arguments["provider"]), str(arguments["name"])
        key, fresh = f"{provider}/{name}", secrets.token_hex(6)

        def renew(root: RootDocument) -> RootDocument:
            found = root.buckets.get(key)
            if found is None or found.deleting:
                raise BucketNotFoundError.of(name, SCHEMES[provider])
            return structs.replace(root, buckets={**root.buckets, key: structs.replace(found, id=fresh)})

        await self.change(renew)

    async def _delete_bucket(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        """Remove a bucket for everybody at once, then its objects; of a backed one only what is kept here of it."""
        provider, name = str(arguments["provider"]), str(arguments["name"])
        key = f"{provider}/{name}"

        def hide(root: RootDocument) -> RootDocument:
            found = root.buckets.get(key)
            if found is None or found.deleting:
                raise BucketNotFoundError.of(name, SCHEMES[provider])
            buckets = dict(root.buckets)
            if provider == "ais":
                buckets[key] = structs.replace(found, deleting=True)
            else:
                del buckets[key]
            return structs.replace(root, buckets=buckets)

        await self.change(hide)
        if provider == "ais":
            self._remove_soon(key)
            for _ in range(100):  # a small bucket is gone when its removal is answered
                if key not in self._deleting:
                    return
                await asyncio.sleep(0.05)

    # What follows from views.

    def _follow(self, view: View) -> None:
        """Drop copies of buckets that are gone, and go on removing what a node that died began to remove."""
        ids = frozenset(record.id for record in view.root.buckets.values() if not record.deleting)
        if self._bucket_ids != ids:
            self._bucket_ids = ids
            self.clock.spawn(self._drop_copies(ids), "drop copies")
        self.pins = tuple(
            Pin(record.provider, record.name, prefix)
            for record in view.root.buckets.values()
            for prefix in record.pinned
        )
        for key, record in view.root.buckets.items():
            if record.deleting and view.home(record, "") == view.me:
                self._remove_soon(key)

    async def _drop_copies(self, ids: frozenset[str]) -> None:
        for bucket in await asyncio.to_thread(self.cache.buckets):
            if bucket.id not in ids:
                await asyncio.to_thread(self.cache.drop_bucket, bucket)

    def _remove_soon(self, key: str) -> None:
        if key not in self._deleting:
            self._deleting.add(key)
            self.clock.spawn(self._remove_objects(key), f"remove {key}")

    async def _remove_objects(self, key: str) -> None:
        """Remove all objects of a hidden bucket from the store, then the bucket."""
        try:
            record = self.view.root.buckets[key]
            threaded, prefix = self.stores.bucket(record)
            store = threaded.blocking
            while True:
                page = await asyncio.to_thread(store.list, prefix, "", _LIST_LIMIT)
                if not page.entries:
                    break
                await asyncio.to_thread(store.delete_many, [entry.key for entry in page.entries])

            def forget(root: RootDocument) -> RootDocument:
                found = root.buckets.get(key)
                if found is None or found.id != record.id:
                    return root
                return structs.replace(root, buckets={name: one for name, one in root.buckets.items() if name != key})

            await self.membership.change(forget)
        except AisError as error:
            _log.warning("the objects of %s are not all removed yet: %s", key, error.message)
        finally:
            self._deleting.discard(key)


def _check_others(root: RootDocument, node: str) -> None:
    """Raise ConflictError when no other node would be home to the objects of ``node``."""
    if all(one.draining for name, one in root.nodes.items() if name != node):
        raise ConflictError(f"node {node} is the only one that keeps objects", hint="start another one first")


def _node_of(root: RootDocument, node: str) -> NodeRecord:
    record = root.nodes.get(node)
    if record is None:
        raise NotFoundError(f"no such node: {node!r}", hint="`ais show cluster` lists them")
    return record

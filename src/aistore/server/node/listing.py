"""Listings of buckets that are in an object store: what the store has, and of which objects some node has a copy."""

from __future__ import annotations

import asyncio
import heapq
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from ...cluster.documents import BucketRecord
from ...errors import AisError, OverloadedError
from ...model.objects import ListOptions, ListPage, ObjectInfo
from ...storage.objectstore.contract import StoredInfo
from ...storage.objectstore.metadata import UNKNOWN
from .copies import cache_bucket
from .worker import SharedObjects


class SharedPage(NamedTuple):
    """A page, and the names on it of which there is a copy somewhere; None if that was not asked, or all have one.

    ``foreign`` counts keys among them that other programs wrote and that no object can be named by.
    """

    page: ListPage
    cached: frozenset[str] | None
    foreign: int = 0


class Listing:
    """Pages of one bucket, in the order of its store."""

    def __init__(self, shared: SharedObjects, bucket: BucketRecord) -> None:
        self._shared = shared
        self._bucket = bucket

    async def page(self, options: ListOptions, *, marked: bool) -> SharedPage:
        """Return a page of what the store has; with ``marked``, ask all nodes what they have copies of."""
        page, foreign = await self._shared.in_thread(self._list, options)
        if not marked:
            return SharedPage(page, None, foreign)
        cached: set[str] = set()
        if page.entries:
            # In a store that does not list in byte order the names of a page can be anywhere.
            ordered = sorted((entry.name for entry in page.entries), key=str.encode)
            found = await self._ask_all(options.prefix, ordered[0], ordered[-1], 0)
            cached = {name for node in found for name, _ in node}
        return SharedPage(page, frozenset(cached), foreign)

    async def not_cached(self, options: ListOptions) -> SharedPage:
        """Return a page of what no node has a copy of; it may be empty, and others follow it."""
        page, cached, foreign = await self.page(options, marked=True)
        assert cached is not None
        entries = [entry for entry in page.entries if entry.name not in cached]
        return SharedPage(ListPage(entries, page.continuation), frozenset(), foreign)

    async def cached(self, options: ListOptions) -> SharedPage:
        """Return a page of the objects that some node has a copy of, in byte order of names."""
        found = await self._ask_all(options.prefix, options.start_after, "", options.limit + 1)
        entries: list[ObjectInfo] = []
        for name, size in heapq.merge(*found, key=lambda entry: entry[0].encode()):
            if name > options.start_after and (not entries or entries[-1].name != name):
                entries.append(ObjectInfo(self._bucket.name, name, size, 1, UNKNOWN, 0))
            if len(entries) > options.limit:
                break
        more = len(entries) > options.limit
        entries = entries[: options.limit]
        return SharedPage(ListPage(entries, entries[-1].name if more else ""), None)

    def _list(self, options: ListOptions) -> tuple[ListPage, int]:
        """Gather a page from the pages of the store, and count what cannot be named. In a thread."""
        threaded, base = self._shared.stores.bucket(self._bucket)
        store, entries = threaded.blocking, list[ObjectInfo]()
        after, foreign = base + options.start_after if options.start_after else "", 0
        while len(entries) < options.limit:
            page = store.list(base + options.prefix, after, options.limit - len(entries))
            entries += [_info(self._bucket.name, base, entry) for entry in page.entries]
            after, foreign = page.continuation, foreign + page.foreign
            if not after:
                break
        return ListPage(entries, after.removeprefix(base)), foreign

    async def _ask_all(self, prefix: str, first: str, last: str, limit: int) -> list[list[tuple[str, int]]]:
        """Return what each node has copies of, in order: names from ``first`` to ``last`` (empty: the end)."""
        shared, view = self._shared, self._shared.view
        others = [node for node in view.root.nodes if node != view.me]
        asked = {"prefix": prefix, "first": first, "last": last, "limit": limit}
        bucket = f"{self._bucket.provider}/{quote(self._bucket.name)}"

        async def ask(node: str) -> list[tuple[str, int]]:
            try:
                answer = await shared.peers.json(node, "POST", f"/v1/internal/cached/{bucket}", asked)
                return msgspec.convert(answer, list[tuple[str, int]])
            except AisError as error:
                raise OverloadedError(
                    f"node {node} does not say what it has copies of: {error.message}",
                    hint="list without asking for what is cached, or try again",
                ) from error

        mine = shared.in_thread(copies, shared, self._bucket, prefix, first, last, limit)
        return list(await asyncio.gather(mine, *map(ask, others)))


def copies(
    shared: SharedObjects, bucket: BucketRecord, prefix: str, first: str, last: str, limit: int
) -> list[tuple[str, int]]:
    """Return names and sizes of this node's copies, in byte order; ``limit`` 0 is all. In a thread."""
    found: list[tuple[str, int]] = []
    end, after = last.encode(), ""
    key = cache_bucket(bucket)
    while True:
        page = shared.cache.list(key, ListOptions(prefix, after or _before(first), limit or 10_000))
        for info in page.entries:
            if last and info.name.encode() > end:
                return found
            if not first or info.name.encode() >= first.encode():
                found.append((info.name, info.size))
        after = page.continuation
        if not after or (limit and len(found) >= limit):
            return found


def _before(name: str) -> str:
    """Return a name that sorts before ``name`` and after as few others as is simple."""
    return name[:-1]


def _info(bucket: str, base: str, entry: StoredInfo) -> ObjectInfo:
    name = entry.key.removeprefix(base)
    return ObjectInfo(bucket, name, entry.size, 1, UNKNOWN, entry.modified_ns, etag=entry.etag)

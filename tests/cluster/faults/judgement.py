"""What became of everything that clients did: read back through every node and from the store, and judged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import obstore
from obstore.store import S3Store
from sim.history import Read, Violation

from aistore.client import Client
from aistore.testing import LocalCluster

from . import content
from .load import Load
from .sending import READ_SECONDS

_END = "at the end"


@dataclass
class Outcome:
    """The counts of one fault, and everything that should not have been."""

    counts: Mapping[str, int]
    longest: Mapping[str, float]
    failed_reads: list[str]
    failed_writes: list[str]
    unexpected: list[str]
    stale: list[Violation] = field(default_factory=list)
    lost: list[Violation] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return all numbers in one line."""
        counts, longest = self.counts, self.longest
        return (
            f"{counts['reads']:,} reads, {counts['transforms']} of them transformed "
            f"({counts['reads tried again']} tries in vain, longest {longest['read']:.1f} s), "
            f"{counts['writes']:,} writes "
            f"({counts['writes tried again']} tries in vain, longest {longest['write']:.1f} s); "
            f"failed: {len(self.failed_reads)} reads, {len(self.failed_writes)} writes; {len(self.stale)} stale, "
            f"{len(self.lost)} lost, {len(self.apart)} told apart, {len(self.unexpected)} unexpected"
        )

    def counted(self) -> dict[str, int]:
        """Return the numbers that can be added up over several faults."""
        return {
            **{what: self.counts[what] for what in ("reads", "writes", "transforms")},
            "tries of reads in vain": self.counts["reads tried again"],
            "tries of writes in vain": self.counts["writes tried again"],
            "reads that failed after their retries": len(self.failed_reads),
            "writes that failed after their retries": len(self.failed_writes),
            "stale reads": len(self.stale),
            "acknowledged writes lost": len(self.lost),
        }

    def problems(self) -> list[str]:
        """Return what must be empty."""
        judged = [f"{violation}" for violation in (*self.stale, *self.lost)]
        return [*self.failed_reads, *self.failed_writes, *self.unexpected, *judged, *self.apart]


def judge(load: Load, cluster: LocalCluster) -> Outcome:
    """Read all objects back, through every node that runs and from the store; the load has ended."""
    outcome = Outcome(load.counts, load.longest, load.failed_reads, load.failed_writes, load.unexpected)
    stored = dict(_stored(load, cluster))
    listings = {node.endpoint: _listed(node.endpoint, load.bucket) for node in cluster.running}
    for endpoint, names in listings.items():
        if names != stored.keys():
            outcome.apart.append(f"{endpoint} lists other objects than the store: {sorted(names ^ stored.keys())[:5]}")
    with ThreadPoolExecutor(4) as threads:
        asked = [(endpoint, key) for endpoint in listings for key in sorted(load.names)]
        for (endpoint, key), tag in zip(asked, threads.map(lambda one: _read(load, *one), asked), strict=True):
            if tag != stored.get(key):
                outcome.apart.append(f"{endpoint} has {tag} for {key}, the store {stored.get(key)}")
    for violation in load.history.check():
        (outcome.lost if violation.read.by.startswith(_END) else outcome.stale).append(violation)
    return outcome


def _stored(load: Load, cluster: LocalCluster) -> Iterator[tuple[str, str]]:
    """Read everything from the object store itself; the names that are there, with the tags of their objects."""
    parts = urlsplit(cluster.store_url)
    store = S3Store(
        parts.netloc, endpoint=cluster.weed.endpoint, region="us-east-1", client_options={"allow_http": True},
        access_key_id=cluster.weed.access_key, secret_access_key=cluster.weed.secret_key,
    )  # fmt: skip
    prefix = f"{parts.path.strip('/')}/{load.bucket}/"
    present = {}
    for page in obstore.list(store, prefix):
        for entry in page:
            begin = time.monotonic()
            tag = content.tag_of(bytes(obstore.get(store, entry["path"]).bytes()))
            present[entry["path"].removeprefix(prefix)] = tag
            load.history.reads.append(
                Read(entry["path"].removeprefix(prefix), tag, begin, time.monotonic(), f"{_END} from the store")
            )
    now = time.monotonic()
    for key in load.names - present.keys():
        load.history.reads.append(Read(key, None, now, now, f"{_END} from the store"))
    yield from present.items()


def _listed(endpoint: str, bucket: str) -> set[str]:
    with Client(endpoint, follow_map=False) as client:
        return {entry.name for entry in client.bucket(bucket).list()}


def _read(load: Load, endpoint: str, key: str) -> str | None:
    """Read an object through one node; the nodes are settled, so they answer at once."""
    begin = time.monotonic()
    answer = load.sender.once("GET", endpoint, f"/v1/objects/{load.bucket}/{quote(key)}", seconds=READ_SECONDS)
    tag = None
    if answer.status == 200:
        tag = content.tag_of(answer.data)
    elif answer.status != 404:
        load.failed_reads.append(f"{key} at the end: {answer}")
        return None
    load.history.reads.append(Read(key, tag, begin, time.monotonic(), f"{_END} at {endpoint}"))
    return tag

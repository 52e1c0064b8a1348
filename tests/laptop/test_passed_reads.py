"""Reads of small objects that reach the wrong node of two: passed on at once, and never older than the last write."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from aistore.laptop.cluster import LocalCluster


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=2, arguments=("--workers", "1")) as made:
        yield made


def streams_to(port: int) -> int:
    """Return how many connections to a port of this machine there are."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return sum(line.split()[2] == f"0100007F:{port:04X}" and line.split()[3] == "01" for line in lines)


def test_reads_are_passed_on_at_once_and_are_never_stale(cluster: LocalCluster) -> None:
    nodes = [cluster.node(number).endpoint for number in (1, 2)]
    with urllib3.PoolManager(retries=False) as pool:
        assert pool.request("POST", f"{nodes[0]}/v1/buckets/b", body=b'{"action":"create-bck"}').status == 200
        contents: dict[str, bytes] = {}
        for number in range(300):
            name = f"o{random.randrange(20)}"
            contents[name] = b"%d " % number + os.urandom(random.randrange(30_000))
            url = f"{random.choice(nodes)}/v1/objects/b/{name}"
            assert pool.request("PUT", url, body=contents[name]).status == 200
            for node in nodes:
                reply = pool.request("GET", f"{node}/v1/objects/b/{name}")
                assert (reply.status, reply.data) == (200, contents[name])
        secret = Path(cluster.directory, "secret").read_text(encoding="ascii").strip()
        headers = {"ais-cluster-secret": secret, "ais-hop": "other;1"}
        for node in nodes:
            told = pool.request("GET", f"{node}/v1/internal/reads", headers=headers)
            assert told.status == 200
            assert streams_to(told.json()["port"]) == 1
            assert pool.request("GET", f"{node}/v1/internal/reads").status == 401

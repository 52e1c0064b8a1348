"""A cluster to be cruel to, under load."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from faults.judgement import judge
from faults.limits import LEASE_SECONDS, SEED, UnderLoad
from faults.load import TRANSFORM_NAME, Load, make_transform

from aistore.client import Client
from aistore.errors import NotSupportedError
from aistore.testing import LocalCluster

_BUCKETS = itertools.count(1)


@pytest.fixture(scope="session")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Return a cluster of three nodes with an object store of its own and a transform."""
    try:
        with LocalCluster(3, str(tmp_path_factory.mktemp("shaken")), lease_seconds=LEASE_SECONDS) as cluster:
            cluster.wait_settled()
            make_transform(cluster)
            yield cluster
    except NotSupportedError as error:
        pytest.skip(str(error))


@pytest.fixture
def three(shaken: LocalCluster) -> LocalCluster:
    """Return the cluster with its first three nodes running, whatever the last test left."""
    for number, node in list(shaken.nodes.items()):
        if number > 3:
            node.stop()
            del shaken.nodes[number]
        elif not node.running:
            node.stop()
            node.start()
    shaken.wait_settled()
    return shaken


@pytest.fixture
def under_load(count: Callable[[str, int], None], tell: Callable[[str], None]) -> UnderLoad:
    """Return a context manager that puts load on a cluster and judges what came of it."""

    @contextmanager
    def run(cluster: LocalCluster, fault: str, *, etl: str = TRANSFORM_NAME) -> Iterator[Load]:
        bucket = f"load-{SEED}-{next(_BUCKETS)}"  # of no other store that may get the port of a dead node
        with Client(cluster.running[0].endpoint) as client:
            client.bucket(bucket).create()
        load = Load(cluster, bucket=bucket, etl=etl, seed=SEED)
        load.start()
        try:
            load.wait_busy()
            yield load
            load.wait_busy()
        finally:
            load.stop()
        cluster.wait_settled()
        outcome = judge(load, cluster)
        load.sender.close()
        tell(f"{fault}: {outcome.line()}")
        for refusal, number in load.sender.refusals.most_common(12):
            print(f"{number:6} {refusal}")
        for what, number in outcome.counted().items():
            count(f"{what} (faults of a cluster)", number)
        assert not outcome.problems(), f"seed {SEED}\n" + "\n".join(outcome.problems()[:20])
        for node in cluster.nodes.values():
            assert "Traceback" not in node.log(), node.log()

    return run

"""A client of a real cluster: nodes are killed, stopped and started under it, and it sees no error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from aistore.client import Client, RetryPolicy
from aistore.errors import AisError, NotSupportedError
from aistore.testing import LocalCluster

pytestmark = pytest.mark.slow

NAMES = [f"train/{number:04}.bin" for number in range(120)]


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    try:
        with LocalCluster(3, arguments=["--lease", "3"]) as running:
            running.wait_settled()
            yield running
    except NotSupportedError as error:
        pytest.skip(str(error))


class Load:
    """Reads, batches and writes, one after the other; ``wrong`` has what was not as it should be."""

    def __init__(self, client: Client) -> None:
        self.bucket = client.bucket("load").create()
        self.written: dict[str, bytes] = {}
        self.wrong: list[str] = []
        self.reads = self.writes = 0
        for name in NAMES:
            self.write(name, name.encode() * 100)

    def write(self, name: str, data: bytes) -> None:
        try:
            self.bucket.object(name).put(data)
        except AisError as error:
            self.wrong.append(f"write of {name}: {error}")
        self.written[name] = data
        self.writes += 1

    def check(self, name: str, found: bytes | AisError) -> None:
        self.reads += 1
        if found != self.written[name]:
            self.wrong.append(f"{name}: {found!r:.200}")

    def turn(self) -> None:
        start = self.writes % (len(NAMES) - 8)
        self.write(NAMES[start], f"write {self.writes}".encode())
        for name in NAMES[start : start + 8]:
            try:
                self.check(name, self.bucket.object(name).get().read())
            except AisError as error:
                self.check(name, error)
        for name, found in zip(NAMES, self.bucket.batch(NAMES), strict=True):
            self.check(name, found)

    def go_on_until(self, reached: Callable[[], bool]) -> None:
        for _ in range(5000):
            self.turn()
            if reached():
                return
        raise AssertionError("the cluster does not get there")


def test_a_client_sees_no_error_while_nodes_die_stop_and_join(cluster: LocalCluster, count) -> None:
    ids = {number: cluster.node(number).id for number in (1, 2, 3)}
    with Client(cluster.node(1).endpoint, retry=RetryPolicy(budget_seconds=60)) as client:
        load = Load(client)

        def knows(present: tuple[int, ...], absent: tuple[int, ...]) -> Callable[[], bool]:
            def reached() -> bool:
                known = client.transport.routing.map
                nodes = set(known.digests) if known else set()
                return nodes >= {ids[number] for number in present} and not nodes & {ids[number] for number in absent}

            return reached

        load.go_on_until(knows((1, 2, 3), ()))
        cluster.node(2).kill()
        load.go_on_until(knows((1, 3), (2,)))
        cluster.node(2).start()
        cluster.node(3).pause()
        load.go_on_until(knows((1, 2), (3,)))
        cluster.node(3).resume()
        cluster.node(1).kill()  # the endpoint
        load.go_on_until(knows((2, 3), (1,)))
        load.turn()
    count("reads by a client that follows the map", load.reads)
    count("writes by a client that follows the map", load.writes)
    count("errors that it saw", len(load.wrong))
    assert not load.wrong

"""How long a cluster takes over a node that joins, and over one that dies: three nodes over an object store (`weed`).

    python benchmarks/membership.py [join] [death] [--lease 3] [--keys 300] [--rounds 3]

Needs ``weed`` (``pip install 'pyaistore[cluster]'``). ``--lease 30`` is what a cluster has unless told otherwise; with
it this takes some minutes. Times are counted in leases, the goals are 3 of them for a join and 4 for a death.

- join: a fourth node starts. Its time ends when it has answered for every object that moved to it and keeps copies of
  them all. That it needs nobody for them is shown at once: the object store is stopped (SIGSTOP), and it gives them out
  again.
- death: a node is killed. Its time ends when another node has answered a read and a write of every object that lived
  on it. Both are asked again when they are refused. The longest of the reads is told, and how many were refused.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import urllib3
from harness import print_table

from aistore import Client
from aistore.model import rendezvous
from aistore.testing import LocalCluster, LocalNode

_NODES = 3
_THREADS = 8
_PAUSE_SECONDS = 0.05
#: Leases after which a measurement is given up.
_PATIENCE = 10


class Asker:
    """Reads and writes the objects of the bucket ``bench`` at one node, again and again until it does it."""

    def __init__(self, node: LocalNode, until: float) -> None:
        self._pool = urllib3.PoolManager(maxsize=_THREADS, retries=False, timeout=60)
        self._endpoint = node.endpoint
        self._until = until
        self.refused = 0

    def ask(self, method: str, name: str, body: bytes | None = None) -> float:
        """Return how many seconds it took; raises SystemExit when it takes too long, or what is read is not right."""
        began = time.monotonic()
        while True:
            try:
                url = f"{self._endpoint}/v1/objects/bench/{name}"
                reply = self._pool.request(method, url, body=body)
                if reply.status == 200:
                    if method == "GET" and not reply.data.startswith(name.encode()):
                        raise SystemExit(f"{name}: read something else")
                    return time.monotonic() - began
                what = f"{reply.status} {reply.data[:200]!r}"
            except urllib3.exceptions.HTTPError as error:
                what = repr(error)
            self.refused += 1
            if time.monotonic() > self._until:
                raise SystemExit(f"{method} {name} is still not answered: {what}")
            time.sleep(_PAUSE_SECONDS)

    def all(self, method: str, names: list[str], body: bytes = b"") -> list[float]:
        """Do the same with many objects, some at a time; return the seconds of each."""
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(
                threads.map(
                    lambda name: self.ask(method, name, name.encode() + body if method == "PUT" else None), names
                )
            )


def homes(nodes: list[LocalNode], names: list[str]) -> dict[str, str]:
    """Return the id of the node that each name lives on."""
    digests = {node.id: rendezvous.digest(node.id) for node in nodes}
    return {name: rendezvous.home(digests, rendezvous.uname("ais", "bench", name)) for name in names}


def fill(cluster: LocalCluster, keys: int) -> list[str]:
    """Write objects of 20 KB, and read them once."""
    names = [f"{number:06d}" for number in range(keys)]
    Client(cluster.node(1).endpoint).bucket("bench").create()
    cluster.wait_settled()
    asker = Asker(cluster.node(1), time.monotonic() + 300)
    asker.all("PUT", names, os.urandom(20_000))
    asker.all("GET", names)
    return names


def join(lease: float, keys: int) -> dict[str, float]:
    """Add a node."""
    with LocalCluster(nodes=_NODES, lease_seconds=lease) as cluster:
        names = fill(cluster, keys)
        before = homes(cluster.running, names)
        began = time.monotonic()
        node = cluster.add()
        ready = time.monotonic() - began
        after = homes(cluster.running, names)
        moved = [name for name in names if after[name] != before[name]]
        assert all(after[name] == node.id for name in moved)
        asker = Asker(node, began + _PATIENCE * lease + 60)
        written = asker.ask("PUT", moved[0], moved[0].encode()) + time.monotonic() - began
        cluster.wait_settled(_PATIENCE * lease + 60)
        settled = time.monotonic() - began
        asker.all("GET", moved)
        served = time.monotonic() - began
        prove(cluster, asker, moved)
        return {
            "keys moved": len(moved),
            "node ready s": ready,
            "first write s": written,
            "settled s": settled,
            "served s": served,
            "leases": served / lease,
        }


def prove(cluster: LocalCluster, asker: Asker, names: list[str]) -> None:
    """Read objects while the object store is stopped."""
    cluster.weed.process.signal(signal.SIGSTOP)
    try:
        refused = asker.refused
        asker.all("GET", names)
        if asker.refused != refused:
            raise SystemExit("a node asked the store for what it had")
    finally:
        cluster.weed.process.signal(signal.SIGCONT)


def death(lease: float, keys: int) -> dict[str, float]:
    """Kill a node."""
    with LocalCluster(nodes=_NODES, lease_seconds=lease) as cluster:
        names = fill(cluster, keys)
        lost = cluster.node(_NODES)
        where = homes(cluster.running, names)
        mine = [name for name in names if where[name] == lost.id]
        began = time.monotonic()
        lost.kill()
        until = began + _PATIENCE * lease + 60
        with ThreadPoolExecutor(2) as threads:
            askers = [Asker(cluster.node(number), until) for number in (1, 2)]

            def do(asker: Asker, method: str) -> tuple[float, float]:
                longest = max(asker.all(method, mine, b"new"))
                return longest, time.monotonic() - began

            reading = threads.submit(do, askers[0], "GET")
            writing = threads.submit(do, askers[1], "PUT")
            (slowest, read), (_, written) = reading.result(), writing.result()
        return {
            "keys lost": len(mine),
            "slowest read s": slowest,
            "reads refused": askers[0].refused,
            "all read s": read,
            "all written s": written,
            "leases": max(read, written) / lease,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = {"join": (join, 3), "death": (death, 4)}
    parser.add_argument("sections", nargs="*", metavar="section", help="of " + ", ".join(sections))
    parser.add_argument("--lease", type=float, default=3.0, help="seconds")
    parser.add_argument("--keys", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    unknown = set(options.sections) - set(sections)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    for name, (section, goal) in sections.items():
        if not options.sections or name in options.sections:
            rounds = [section(options.lease, options.keys) for _ in range(options.rounds)]
            rows = {
                "median": {key: statistics.median(one[key] for one in rounds) for key in rounds[0]},
                "longest": {key: max(one[key] for one in rounds) for key in rounds[0]},
            }
            title = f"{name}: {_NODES} nodes, leases of {options.lease:g} s, {options.keys} objects of 20 KB"
            print_table(f"{title}, {options.rounds} times", rows, f"goal: <= {goal} leases")


if __name__ == "__main__":
    main()

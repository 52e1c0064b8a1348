"""Nodes over an object store (`weed`), everything on this machine: what being a cluster costs a read.

    python benchmarks/cluster.py [warm] [wrong] [cold] [dispatch] [--seconds 3] [--rounds 5] [--connections 1 16 64]

Needs ``wrk`` and ``weed`` (``pip install 'pyaistore[cluster]'``). The sections, all of them unless some are named:

- warm: GET of 20 KB objects that one node has copies of, against a store over a directory; both with as many HTTP
  workers. Goal: 0.9 of its rate.
- wrong: GET of 20 KB objects at the node that is not their home, against the same at the one that is; two nodes. Goal:
  0.45 of its rate. Both nodes share the machine's cores, so on a machine with something else to do the ratio of CPU,
  the load generator's included, is the honest one.
- cold: the first GET ever of each object through a node, which fetches it from the object store and keeps a copy,
  against a GET of the same objects straight from the object store. One Python process asks on both sides, through one
  library (obstore), over as many threads. Goal: 1.3 times as long. ``--delay 5`` puts the object store as many
  milliseconds away, there and back, from node and process alike (root, Linux): where it is on the same machine, its
  answer takes less time than all that a node does besides.
- dispatch: transforms that sleep, on clusters of 1, 2 and 4 nodes, each node asked for objects that it is the home of.
  That shows that requests find free workers on every node and nothing else: who sleeps needs no core. Goal: 0.95 of
  the rate of one node times the number of nodes.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import obstore
import wrk
from harness import cpu_seconds, interleave, print_table
from obstore.store import HTTPStore, S3Store

from aistore import Client
from aistore.laptop.cluster import Place
from aistore.laptop.weed import BUCKET
from aistore.model import rendezvous
from aistore.testing import LocalCluster, LocalNode, Network, StoreProcess

_SMALL, _LARGE = 20_000, 1_000_000
_TRANSFORM = """
import time

def transform(data):
    time.sleep({seconds})
    return data
"""


def port_of(endpoint: str) -> int:
    """Return the port of an address."""
    return int(endpoint.rpartition(":")[2])


def fill(endpoint: str, count: int, size: int = _SMALL) -> list[str]:
    """Make the bucket ``bench`` with ``count`` objects and return their names."""
    bucket = Client(endpoint).bucket("bench")
    bucket.create(exist_ok=True)
    names = [f"{number:06d}.bin" for number in range(count)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: bucket.object(name).put(os.urandom(size)), names))
    return names


def path(name: str) -> str:
    """Return where an object is on every node."""
    return f"/v1/objects/bench/{name}"


def homes(nodes: list[LocalNode], names: list[str]) -> dict[str, list[str]]:
    """Return the names that live on each node, by the node's id."""
    digests = {node.id: rendezvous.digest(node.id) for node in nodes}
    found: dict[str, list[str]] = {node: [] for node in digests}
    for name in names:
        found[rendezvous.home(digests, rendezvous.uname("ais", "bench", name))].append(name)
    return found


def by_wrk(
    port: int, pids: list[int], paths: list[str], options: argparse.Namespace, root: str, connections: int
) -> dict[str, float]:
    """GET ``paths`` in turn; the CPU is that of ``pids`` and their children."""
    before = cpu_seconds(pids)
    figures = wrk.get(port, paths, options.seconds, connections, root)
    used = cpu_seconds(pids) - before
    return {**figures, "CPU us/req": 1e6 * used / (figures["req/s"] * options.seconds)}


def compare(
    title: str, base: str, sides: dict[str, Callable[[int], dict[str, float]]], options: argparse.Namespace, goal: str
) -> None:
    """Run the sides in turn for each number of connections; print rates, and how they relate to the one of ``base``."""
    for side in sides.values():
        side(16)
        side(64)
    for connections in options.connections:
        rows = interleave(options.rounds, {name: functools.partial(side, connections) for name, side in sides.items()})
        for row in rows.values():
            row["rate ratio"] = row["req/s"] / rows[base]["req/s"]
            spent = [one["CPU us/req"] + one["load CPU us/req"] for one in (rows[base], row)]
            row["CPU ratio"] = spent[0] / spent[1]
        print_table(f"{title}, {connections} connections, median of {options.rounds}", rows, goal)


def warm(options: argparse.Namespace, root: str) -> None:
    """Read what a node has copies of, and the same from a store over a directory."""
    workers = ("--workers", str(options.workers))
    with LocalCluster(nodes=1, arguments=workers) as cluster, StoreProcess(arguments=workers) as alone:
        node = cluster.node(1)
        cluster.wait_settled()
        servers = {"embedded": (alone.endpoint, alone.pid), "node": (node.endpoint, node.process.pid)}
        sides = {}
        for name, (endpoint, pid) in servers.items():
            paths = [path(one) for one in fill(endpoint, options.objects)]
            sides[name] = functools.partial(by_wrk, port_of(endpoint), [pid], paths, options, root)
        title = f"warm: GET of {options.objects} objects of 20 KB, {options.workers} HTTP workers each"
        compare(title, "embedded", sides, options, "goal: node / embedded >= 0.9")


def wrong(options: argparse.Namespace, root: str) -> None:
    """Read objects of one node there, and at the other."""
    with LocalCluster(nodes=2, arguments=("--workers", str(options.workers))) as cluster:
        right, other = cluster.node(1), cluster.node(2)
        cluster.wait_settled()
        names = homes([right, other], fill(right.endpoint, options.objects))[right.id]
        paths, pids = [path(name) for name in names], [right.process.pid, other.process.pid]
        sides = {
            name: functools.partial(by_wrk, port_of(node.endpoint), pids, paths, options, root)
            for name, node in (("right", right), ("wrong", other))
        }
        title = f"wrong: GET of {len(names)} objects of 20 KB, {options.workers} HTTP workers a node"
        compare(title, "right", sides, options, "goal: wrong / right >= 0.45; CPU is that of both nodes")


def cold(options: argparse.Namespace, root: str) -> None:
    """Read objects for the first time, through a node and from the object store."""
    with ExitStack() as stack:
        where: dict[str, Place] = {}
        if options.delay:
            network = stack.enter_context(Network())
            where["store"] = network.place("store")
            network.shape("host", "store", delay_seconds=options.delay / 2000)
        arguments = ("--workers", str(options.workers))
        cluster = stack.enter_context(
            LocalCluster(nodes=1, arguments=arguments, place=lambda name: where.get(name, Place()))
        )
        node = cluster.node(1)
        cluster.wait_settled()
        Client(node.endpoint).bucket("bench").create()
        os.environ.update({name: value for name, value in cluster.environment.items() if name.startswith("AWS_")})
        below = f"{cluster.store_url.partition(BUCKET + '/')[2]}/bench"
        direct = S3Store(BUCKET, prefix=below)
        servers: dict[str, Any] = {
            "direct": direct,
            "node": HTTPStore.from_url(f"{node.endpoint}/v1/objects/bench", client_options={"allow_http": True}),
        }
        watched = {"node": node.process.pid, "weed": cluster.weed.process.pid}
        for size, count in ((_SMALL, options.cold_small), (_LARGE, options.cold_large)):
            for threads in options.threads:
                rows = first_reads(servers, direct, watched, size, count, threads, options.rounds)
                for row in rows.values():
                    row["time ratio"] = row["ms/object"] / rows["direct"]["ms/object"]
                    row["p50 ratio"] = row["p50 ms"] / rows["direct"]["p50 ms"]
                title = f"cold: first GET of {count} objects of {size:,} bytes, {threads} threads of one Python process"
                title += f", the store {options.delay:g} ms away" if options.delay else ""
                print_table(f"{title}, median of {options.rounds}", rows, "goal: node / direct <= 1.3; CPU per object")


def first_reads(
    servers: dict[str, Any], direct: S3Store, watched: dict[str, int], size: int, count: int, threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Write new objects for each round, past the node, and have each side read them all once."""
    turns = dict.fromkeys(servers, 0)

    def names(turn: int) -> list[str]:
        return [f"{size}/{threads}/{turn}/{number:05d}" for number in range(count)]

    with ThreadPoolExecutor(8) as writers:
        for turn in range(rounds + 1):  # one round more, to open connections and volumes
            list(writers.map(lambda name: obstore.put(direct, name, os.urandom(size)), names(turn)))

    def read(side: str) -> dict[str, float]:
        store, wanted = servers[side], names(turns[side])
        turns[side] += 1

        def one(name: str) -> float:
            began = time.perf_counter()
            got = len(obstore.get(store, name).bytes())
            assert got == size, f"{name}: {got} bytes"
            return 1000 * (time.perf_counter() - began)

        before = {name: cpu_seconds([pid]) for name, pid in watched.items()}
        began, used = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(threads) as readers:
            took = sorted(readers.map(one, wanted))
        spent = {"ms/object": 1000 * (time.perf_counter() - began) / count}
        spent |= {"p50 ms": statistics.median(took), "p99 ms": took[int(0.99 * count)]}
        spent["client CPU us"] = 1e6 * (time.process_time() - used) / count
        return spent | {
            f"{name} CPU us": 1e6 * (cpu_seconds([pid]) - before[name]) / count for name, pid in watched.items()
        }

    for side in servers:
        read(side)
    return interleave(rounds, {side: functools.partial(read, side) for side in servers})


def dispatch(options: argparse.Namespace, root: str) -> None:
    """Have 1, 2 and 4 nodes run a transform that sleeps."""
    rows: dict[str, dict[str, float]] = {}
    sleep, workers = options.sleep, options.transforms
    with LocalCluster(nodes=1, arguments=("--workers", "1")) as cluster:
        names = fill(cluster.node(1).endpoint, 400, 1000)
        Client(cluster.node(1).endpoint).etl("sleeping").init_code(_TRANSFORM.format(seconds=sleep), workers=workers)
        for count in (1, 2, 4):
            while len(cluster.nodes) < count:
                cluster.add()
            cluster.wait_settled()
            rows[f"{count} nodes"] = interleave(
                options.rounds, {"all": functools.partial(sleeping, cluster, names, options, root)}
            )["all"]
    for name, row in rows.items():
        row["of linear"] = row["req/s"] / rows["1 nodes"]["req/s"] / int(name.split()[0])
    title = f"dispatch: transforms that sleep {1000 * sleep:g} ms, {workers} workers of it a node"
    print_table(f"{title}, median of {options.rounds}", rows, "goal: of linear >= 0.95; it shows dispatch only")


def sleeping(cluster: LocalCluster, names: list[str], options: argparse.Namespace, root: str) -> dict[str, float]:
    """Ask all nodes at a time for transformed objects of theirs, each over twice as many connections as workers."""
    nodes = cluster.running
    paths = {node: [f"{path(name)}?etl_name=sleeping" for name in found] for node, found in homes(nodes, names).items()}
    pids = [node.process.pid for node in nodes]

    def ask(node: LocalNode) -> dict[str, float]:
        return wrk.get(port_of(node.endpoint), paths[node.id], options.seconds, 2 * options.transforms, root)

    before = cpu_seconds(pids)
    with ThreadPoolExecutor(len(nodes)) as threads:
        found = list(threads.map(ask, nodes))
    rate = sum(figures["req/s"] for figures in found)
    return {
        "req/s": rate,
        "p50 ms": statistics.median(figures["p50 ms"] for figures in found),
        "CPU us/req": 1e6 * (cpu_seconds(pids) - before) / (rate * options.seconds),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = {"warm": warm, "wrong": wrong, "cold": cold, "dispatch": dispatch}
    parser.add_argument("sections", nargs="*", metavar="section", help="of " + ", ".join(sections))
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="HTTP workers a node")
    parser.add_argument("--objects", type=int, default=1000, help="warm and wrong: objects of 20 KB")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8], help="cold: of the process that reads")
    parser.add_argument("--cold-small", type=int, default=400, help="objects of 20 KB a round")
    parser.add_argument("--cold-large", type=int, default=40, help="objects of 1 MB a round")
    parser.add_argument("--delay", type=float, default=0, help="cold: milliseconds to the object store and back")
    parser.add_argument("--sleep", type=float, default=0.05, help="dispatch: seconds that a transform takes")
    parser.add_argument("--transforms", type=int, default=2, help="dispatch: workers of the transform on each node")
    options = parser.parse_args()
    unknown = set(options.sections) - set(sections)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    wrk.need("wrk")
    with tempfile.TemporaryDirectory(prefix="ais-bench-") as root:
        for name, section in sections.items():
            if not options.sections or name in options.sections:
                section(options, root)


if __name__ == "__main__":
    main()

"""GET of 20 KB through a wrong node against asking the right one: two nodes of two HTTP workers each, load by wrk.

    python benchmarks/forward.py [--seconds 3] [--rounds 5] [--objects 500] [--connections 16 64]

"plain" forwards over HTTP, "quick" asks for what needs no waiting on a stream of its own (server/peers/reads.py). CPU
is that of all processes of both nodes. On a machine with something else to do, four processes that share the work get
more of it than two: there the ratio of CPU, the load generator's included, is the honest one, because on two cores that
have nothing else to do it is the ratio of the rates. These nodes know nothing of a map: what that costs a node
is another 10 to 20 us.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import urllib3
import wrk
from harness import cpu_seconds, interleave, print_table

_NODE = Path(__file__).resolve().parent.parent / "tests" / "server" / "peer_node.py"


class Node:
    """One of the nodes that the tests use."""

    def __init__(self, kind: str, where: str, workers: int, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_NODE), kind, where, str(workers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "AIS_CLUSTER_SECRET": "of-a-benchmark", **environment},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        """End it."""
        self.process.communicate(timeout=30)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    options = parser.parse_args()
    wrk.need("wrk")
    root = tempfile.mkdtemp(prefix="ais-bench-")
    home = Node("home", os.path.join(root, "data"), options.workers)
    url = f"http://127.0.0.1:{home.port}"
    nodes = {
        "right": home,
        "plain": Node("forward", url, options.workers),
        "quick": Node("forward", url, options.workers, QUICK="1"),
    }
    try:
        with urllib3.PoolManager() as pool:
            assert pool.request("POST", f"{url}/v1/buckets/bench", body=b'{"action":"create-bck"}').status == 200
            paths = [f"/v1/objects/bench/{number:06d}.bin" for number in range(options.objects)]
            for path in paths:
                assert pool.request("PUT", url + path, body=os.urandom(20_000)).status == 200
        measure(options, nodes, paths, root)
    finally:
        for node in nodes.values():
            node.stop()
        shutil.rmtree(root)


def measure(options: argparse.Namespace, nodes: dict[str, Node], paths: list[str], root: str) -> None:
    """Interleave the sides, for each number of connections."""
    pids = [node.process.pid for node in nodes.values()]

    def side(name: str, connections: int) -> dict[str, float]:
        before = cpu_seconds(pids)
        figures = wrk.get(nodes[name].port, paths, options.seconds, connections, root)
        used = cpu_seconds(pids) - before
        return {**figures, "nodes CPU us/req": 1e6 * used / (figures["req/s"] * options.seconds)}

    for name in nodes:
        side(name, 16)
    time.sleep(0.1)
    for connections in options.connections:
        rows = interleave(options.rounds, {name: functools.partial(side, name, connections) for name in nodes})
        for row in rows.values():
            row["ratio"] = row["req/s"] / rows["right"]["req/s"]
            spent = [one["nodes CPU us/req"] + one["load CPU us/req"] for one in (rows["right"], row)]
            row["CPU ratio"] = spent[0] / spent[1]
        title = (
            f"GET of {options.objects} objects of 20 KB, {options.workers} workers a node, {connections} connections"
        )
        print_table(f"{title}, median of {options.rounds}", rows)


if __name__ == "__main__":
    main()

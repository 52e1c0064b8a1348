"""Wall clocks that jump, on every node and differently in each process: nothing of a cluster depends on them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from faults.limits import LEASE_SECONDS, UnderLoad, thorough, wait_for_map

from aistore.testing import LocalCluster

#: Python runs it at its start. Each look at the wall clock is up to a day off, in either direction.
_JUMPING = """
import random, time

_chance, _time, _time_ns = random.Random(), time.time, time.time_ns
time.time = lambda: _time() + _chance.uniform(-86_400, 86_400)
time.time_ns = lambda: _time_ns() + _chance.randrange(-86_400, 86_400) * 1_000_000_000
"""


@thorough
def test_wall_clocks_jump(new_cluster: Callable[..., LocalCluster], under_load: UnderLoad, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_JUMPING)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    cluster = new_cluster(nodes=3, lease_seconds=LEASE_SECONDS, environment={"PYTHONPATH": paths})
    with under_load(cluster, "wall clocks jump by up to a day; a node is killed and started again", etl=""):
        cluster.node(2).kill()
        wait_for_map(cluster, 1, 3)
        cluster.node(2).start()
        cluster.wait_settled()
    days = {day for node in cluster.running for day in re.findall(r"^(\d{4}-\d\d-\d\d)T", node.log(), re.MULTILINE)}
    assert len(days) > 1, "the clocks did not jump"

"""How much the fault tests do, and what they share."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from aistore.testing import LocalCluster

from .load import Load

#: Short, so that much happens in little time; what takes a lease here takes 30 s with the ordinary one.
LEASE_SECONDS = 3.0
#: How often what is random happens: 100 in the runs whose counts are in docs/cluster.md.
ROUNDS = int(os.environ.get("AIS_FAULT_ROUNDS", "5"))
SEED = int(os.environ.get("AIS_FAULT_SEED", random.SystemRandom().randrange(1 << 32)))

#: Puts load on a cluster while the block runs, then judges what came of it; takes the cluster and what happens to it.
UnderLoad = Callable[..., AbstractContextManager[Load]]

#: Beside the tests that every run has: what takes long, or is a part of what others do as well.
thorough = pytest.mark.skipif(ROUNDS < 100, reason="set AIS_FAULT_ROUNDS=100 for it: it takes some minutes")


def wait_for_map(cluster: LocalCluster, *numbers: int) -> None:
    """Wait until nodes ``numbers`` have a map of exactly them."""
    ids = {cluster.node(number).id for number in numbers}
    cluster.wait_until(lambda: all(cluster.map(number)[1] == ids for number in numbers), f"a map of {numbers}")

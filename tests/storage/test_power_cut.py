"""The power goes: what each policy promises is there, whole, and the store opens.

``AIS_POWER_CUTS=500`` cuts as often with each policy. Needs root and a loop device, see power_cut_run.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from power_cut_run import why_not

CUTS = int(os.environ.get("AIS_POWER_CUTS", "15"))
SEED = int(os.environ.get("AIS_KILLS_SEED", "1"))
RUN = str(Path(__file__).with_name("power_cut_run.py"))

#: What a run with the defaults does at least; docs/storage.md says so too.
AT_LEAST = {"test_default_policy": 15, "test_durable_policy": 15}


def cut(policy: str, directory: Path, count: Callable[[str, int], None]) -> None:
    reason = why_not(str(directory))
    if reason:
        pytest.skip(reason)
    # In a mount namespace of its own: one that somebody makes meanwhile would hold on to a copy of the cut off disk.
    alone = ["unshare", "--mount", "--propagation", "private"]
    command = [*alone, sys.executable, RUN, policy, str(CUTS), str(SEED), str(directory)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout)
    print(counts)
    assert counts["cuts"] == CUTS
    assert counts["operations"] > CUTS
    count(f"power cuts, {policy} policy", CUTS)
    count(f"torn versions taken back, {policy} policy", counts["torn_and_taken_back"])


def test_default_policy(tmp_path: Path, count: Callable[[str, int], None]) -> None:
    """Each object is whole, and as it was when housekeeping last synced, which is every second, or later."""
    cut("default", tmp_path, count)


def test_durable_policy(tmp_path: Path, count: Callable[[str, int], None]) -> None:
    """Everything acknowledged is there."""
    cut("durable", tmp_path, count)

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
from power_cut_run import disk_in, why_not

from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.housekeeping import recover_store
from aistore.storage.local.members import attach

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


def test_buckets_of_several_disks(tmp_path: Path) -> None:
    """What the first disk says of buckets is there when another disk has objects of them, under either policy."""
    reason = why_not(str(tmp_path))
    if reason:
        pytest.skip(reason)
    with disk_in(str(tmp_path)) as disk:
        directory = f"{disk.mounted}/store"
        engine = LocalEngine(directory)
        attach(directory, str(tmp_path / "other"))  # its power is not cut: what was written there is there
        engine.create_bucket("removed", {})
        engine.create_bucket("b", {"p": 1})
        engine.delete_bucket("removed")
        names = [f"{number}" for number in range(40)]
        for name in names:
            engine.put("b", name, b"x" * 100, PutOptions()).result()
        disk.cut_power()
        engine.close()
        disk.unmount()
        disk.mount()
        Path(directory, "mp0", "boot").unlink(missing_ok=True)
        recover_store(directory)
        engine = LocalEngine(directory)
        try:
            assert [bucket.name for bucket in engine.list_buckets()] == ["b"]
            # A new one would have the number of one that is lost, and with it what that has on other disks.
            engine.create_bucket("new", {})
            assert engine.list("new", ListOptions()).entries == []
            assert 0 < len(engine.list("b", ListOptions()).entries) < len(names), "those on the other disk at least"
        finally:
            engine.close()

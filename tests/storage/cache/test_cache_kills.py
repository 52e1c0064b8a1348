"""kill -9 of processes that commit, forget, restamp and evict: whatever is found has the facts of its bytes.

``AIS_CACHE_KILLS`` sets how many; the seed is printed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import cache_kill_run

KILLS = int(os.environ.get("AIS_CACHE_KILLS", "80"))


def test_a_copy_has_the_facts_of_its_bytes_whoever_is_killed(directory: str) -> None:
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, cache_kill_run.__file__, str(KILLS), str(seed), directory], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, f"seed {seed}\n{done.stderr}"
    counts = json.loads(done.stdout)
    assert counts["kills"] >= KILLS
    assert all(counts[what] > 0 for what in ("fills", "forgets", "restamps", "hits", "evicted", "restarts")), counts

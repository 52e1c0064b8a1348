"""What a transform that is a server can do with the network, and to files, on each profile of host."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from profiles import HERE, SOURCE, why_not

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is for Linux")

#: Profile of profiles.py: the mode of server_run.py.
PROFILES = {"root": "with", "root-confined": "without", "user": "with", "confined": "without"}

#: What works everywhere, and where; all else that is tried fails everywhere.
WORKS = {"call back to the store", "processes of its own"}
WORKS_THERE = {
    "root": {"listen elsewhere", "times of its own files"},
    "root-confined": {"times of its own files"},
    "user": {"listen elsewhere", "times of its own files"},
    "confined": set[str](),
}
#: What works where nothing stops it: else that it fails would say nothing. Outward there may be nobody.
ANYWHERE_WITHOUT_A_SANDBOX = {
    "connect to the store", "connect to the store, unseen", "datagram to the store", "abstract socket",
    "listen elsewhere", "read the store's data", "kill the supervisor", "times of its own files",
    "change a file that it may read",
}  # fmt: skip


@functools.cache
def tried(profile: str, mode: str) -> dict[str, Any]:
    """Run all attempts on one profile, once."""
    reason = why_not(profile)
    if reason:
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, os.path.join(HERE, "profiles.py"), profile, sys.executable,
         os.path.join(HERE, "server_run.py"), mode],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=120, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_it_can_do(profile: str) -> None:
    answer = tried(profile, PROFILES[profile])
    assert {name for name, error in answer["found"].items() if not error} == WORKS | WORKS_THERE[profile], answer


def test_all_of_it_works_where_nothing_stops_it() -> None:
    found = tried("user", "off")["found"]
    assert {name for name, error in found.items() if not error} >= WORKS | ANYWHERE_WITHOUT_A_SANDBOX, found

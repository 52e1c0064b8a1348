"""What a transform that is a server can do with the network, and to files, on each profile of host."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from test_attacks import HERE, NOBODY, SOURCE, needs_namespaces, reachable_python

from aistore.fallbacks import lacks

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is for Linux")

#: Profile: as whom it is started, the mode of server_run.py, and whether everybody can reach the interpreter.
PROFILES = {
    "root": (0, "with", False),
    "root-no-namespaces": (0, "without", True),
    "user": (NOBODY, "with", True),
    "user-no-namespaces": (NOBODY, "without", True),
}

#: What works everywhere, and where; all else that is tried fails everywhere.
WORKS = {"call back to the store", "processes of its own"}
WORKS_THERE = {
    "root": {"listen elsewhere", "times of its own files"},
    "root-no-namespaces": {"times of its own files"},
    "user": {"listen elsewhere", "times of its own files"},
    "user-no-namespaces": set[str](),
}
#: What works where nothing stops it: else that it fails would say nothing. Outward there may be nobody.
ANYWHERE_WITHOUT_A_SANDBOX = {
    "connect to the store", "connect to the store, unseen", "datagram to the store", "abstract socket",
    "listen elsewhere", "read the store's data", "kill the supervisor", "times of its own files",
    "change a file that it may read",
}  # fmt: skip


@functools.cache
def tried(uid: int, mode: str, reachable: bool) -> dict[str, Any]:
    """Run all attempts on one profile, once."""
    python, user = sys.executable, {}
    if os.getuid() != 0 and uid == 0:
        pytest.skip("needs root")
    if os.getuid() == 0 and reachable:
        found = reachable_python()
        if found is None:
            pytest.skip("other users cannot reach a Python")
        python, user = found, {} if uid == 0 else {"user": uid, "group": uid, "extra_groups": []}
    done = subprocess.run(
        [python, os.path.join(HERE, "server_run.py"), mode],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=120, cwd="/", **user,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_it_can_do(profile: str) -> None:
    answer = tried(*PROFILES[profile])
    if PROFILES[profile][1] == "with":
        if lacks("namespaces"):
            pytest.skip("this system has no namespaces")
        needs_namespaces(answer["event"])
    assert {name for name, error in answer["found"].items() if not error} == WORKS | WORKS_THERE[profile], answer


def test_all_of_it_works_where_nothing_stops_it() -> None:
    found = tried(os.getuid() or NOBODY, "off", True)["found"]
    assert {name for name, error in found.items() if not error} >= WORKS | ANYWHERE_WITHOUT_A_SANDBOX, found

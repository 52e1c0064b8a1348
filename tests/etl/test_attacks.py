"""What a transform must not be able to do, tried by a real transform on each profile of host."""

from __future__ import annotations

import functools
import json
import os
import re
import stat
import subprocess
import sys
from typing import Any

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "src")
NOBODY = 65534

#: Profile: as whom the ETL is started, the mode of attack_run.py, and whether everybody can reach the interpreter.
PROFILES = {
    "root": (0, "with", False),
    "root-no-namespaces": (0, "without", True),
    "root-no-namespaces-unreachable": (0, "without", False),
    "user": (NOBODY, "with", True),
    "user-no-namespaces": (NOBODY, "without", True),
}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox is for Linux")


def reachable_python() -> str | None:
    """Return a Python of at least 3.10 that every user can execute."""
    for path in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        if not os.path.exists(path) or not _every_user_can_reach(path):
            continue
        probe = subprocess.run([path, "-c", "import sys; sys.exit(sys.version_info < (3, 10))"])
        if probe.returncode == 0:
            return path
    return None


def _every_user_can_reach(path: str) -> bool:
    path = os.path.realpath(path)
    while path != "/":
        if not os.stat(path).st_mode & stat.S_IXOTH:
            return False
        path = os.path.dirname(path)
    return True


@functools.cache
def attacked(uid: int, mode: str, reachable: bool) -> dict[str, Any]:
    """Run all attacks on one profile, once."""
    python, user = sys.executable, {}
    if os.getuid() != 0 and uid == 0:
        pytest.skip("needs root")
    if os.getuid() == 0 and reachable:
        found = reachable_python()
        if found is None or not _every_user_can_reach(os.path.join(SOURCE, "aistore")):
            pytest.skip("other users cannot reach a Python or this source")
        python, user = found, {} if uid == 0 else {"user": uid, "group": uid, "extra_groups": []}
    done = subprocess.run(
        [python, os.path.join(HERE, "attack_run.py"), mode],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=120, cwd="/", **user,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def needs_namespaces(found: dict[str, Any]) -> None:
    if not any("namespaces" in layer for layer in found["layers"]):
        pytest.skip("this system does not let this user make namespaces")


@pytest.mark.parametrize("profile", PROFILES)
def test_no_attack_succeeds(profile: str) -> None:
    found = attacked(*PROFILES[profile])
    happened = {name: result["happened"] for name, result in found["results"].items() if result["happened"]}
    assert happened == {}
    assert found["harm"] == []
    assert len(found["results"]) >= 27


@pytest.mark.parametrize("profile", PROFILES)
def test_layers(profile: str) -> None:
    found = attacked(*PROFILES[profile])
    layers = " ".join(found["layers"])
    for layer in ("landlock", "seccomp", "no new privileges", "no capabilities", "rlimits"):
        assert layer in layers
    uid, mode, reachable = PROFILES[profile]
    if mode == "with":
        needs_namespaces(found)
        assert found["missing"] == []
        assert (re.search(r"user 6[1-5]\d{3}", layers) is not None) == (uid == 0)
    else:
        assert "namespaces" not in layers
        assert any("namespaces" in text for text in found["missing"])
        if uid == 0 and reachable:
            assert re.search(r"user 6[1-5]\d{3}", layers) is not None


def test_the_attacks_work_where_nothing_stops_them() -> None:
    found = attacked(NOBODY, "off", True)
    assert {name for name, result in found["results"].items() if not result["happened"]} == set()
    assert set(found["harm"]) == {f"{name} was reached" for name in ("store", "abstract", "by_path", "datagrams")}


@pytest.mark.parametrize("profile", PROFILES)
def test_output_is_bounded_and_says_so(profile: str) -> None:
    error = attacked(*PROFILES[profile])["results"]["10 GB of output"]["error"]
    assert "File too large" in error or "limit of 4,194,304 bytes" in error

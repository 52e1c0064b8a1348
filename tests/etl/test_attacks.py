"""What a transform must not be able to do, tried by a real transform on each kind of host: every cell of the table."""

from __future__ import annotations

import functools
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import attack_host
import attack_table
import profiles
import pytest
from attack_table import Attack

from aistore.etl.worker.sandbox import landlock

#: What a kernel answers that has not got what is asked for; then it cannot be shown what would happen if it had.
ABSENT = ("ENOSYS", "EOPNOTSUPP", "ENOTTY", "ENODEV")
#: Rows that take a Landlock that keeps signals inside (Linux 6.12).
NEED_SCOPES = {"signals to an object beside"}

_AT_ONCE = 2  # hosts; what they do is mostly to wait
_pool = ThreadPoolExecutor(_AT_ONCE)
_lock = threading.Lock()


@functools.cache
def _begun(profile: str) -> Future[dict[str, Any]]:
    return _pool.submit(_results, profile)


def _results(profile: str) -> dict[str, Any]:
    try:
        return attack_host.results(profile)
    except Exception:
        return {"broke": traceback.format_exc()}


@pytest.fixture(scope="module", autouse=True)
def _all_hosts(request: pytest.FixtureRequest) -> None:
    """Begin with all hosts whose cells were selected, so that they run side by side."""
    calls = [item.callspec.params for item in request.session.items
             if hasattr(item, "callspec") and item.module is request.module]  # fmt: skip
    names = {params["profile"] for params in calls if "profile" in params}
    for profile in [profile for profile in profiles.PROFILES if profile in names and not profiles.why_not(profile)]:
        _begun(profile)


def results(profile: str) -> dict[str, Any]:
    """Return what happened on a host of that kind; skips where this machine cannot be one."""
    reason = profiles.why_not(profile)
    if reason:
        pytest.skip(reason)
    with _lock:
        begun = _begun(profile)
    found = begun.result()
    if "broke" in found:
        pytest.fail(found["broke"], pytrace=False)
    return found


CELLS = [
    pytest.param(profile, isolation, attack, id=f"{profile}-{isolation}-{attack.title}")
    for profile in profiles.PROFILES
    for isolation in (attack_table.ISOLATIONS if profile in profiles.HOST_PROFILES else ("warm",))
    for attack in attack_table.ATTACKS
]


@pytest.mark.parametrize(("profile", "isolation", "attack"), CELLS)
def test_cell(profile: str, isolation: str, attack: Attack) -> None:
    if attack.title in NEED_SCOPES and not landlock.scopes_signals(landlock.abi()):
        pytest.skip("signals between objects side by side: needs Linux 6.12")
    if attack.how.startswith("setup_") and profile not in profiles.HOST_PROFILES:
        pytest.skip("packages are installed on the four kinds of hosts")
    found = results(profile)["outcomes"].get(f"{attack.title}/{isolation}")
    if attack.promised(profile, isolation):
        assert found is not None
        assert not found["happened"], found
    elif found is None:  # not let loose on this machine
        assert plain(attack)["happened"]
    elif not found["happened"] and str(found["error"]).startswith(ABSENT):
        pytest.skip(f"this kernel has nothing of the kind: {found['error']}")
    else:
        assert found["happened"], f"not promised, and yet stopped: {found}"


@functools.cache
def plain(attack: Attack) -> dict[str, Any]:
    """Make an attack where nothing stops it."""
    return attack_host.alone(attack)


def plain_id(attack: Attack) -> str:
    return attack.title


@pytest.mark.parametrize(
    "attack", [attack for attack in attack_table.ATTACKS if attack.alone is not None], ids=plain_id
)
def test_the_attack_works_where_nothing_stops_it(attack: Attack) -> None:
    assert plain(attack)["happened"], plain(attack)


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_no_harm_was_done(profile: str) -> None:
    harm = results(profile)["harm"]
    reached = {f"{name} was reached" for name in ("service", "datagrams", "abstract", "pair")}
    assert set(harm) == (reached if profile == "none" else set())


@pytest.mark.parametrize("profile", [profile for profile in profiles.PROFILES if profile != "none"])
def test_layers(profile: str) -> None:
    details = results(profile)["details"]
    layers, missing = " ".join(details["sandbox_layers"]), " ".join(details["sandbox_missing"])
    for layer in ("landlock", "seccomp", "no new privileges", "no capabilities", "rlimits"):
        assert layer in layers
    assert ("namespaces" in layers) == (profile in ("root", "user"))
    assert ("namespaces" in missing) == (profile not in ("root", "user"))
    # Without namespaces another user could not reach the scratch directory, in the store's private one.
    assert ("user 6" in layers) == (profile == "root")


def test_without_a_sandbox_a_transform_is_refused_unless_told() -> None:
    found = results("none")
    assert "--sandbox off" in found["refusal"]
    assert found["details"]["sandbox"] == "off"
    assert found["details"]["sandbox_layers"] == ["rlimits"]


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("10 GB of memory", "MiB of memory, more than its limit of 256 MiB"),
        ("10 GB of memory in eight processes", "MiB of memory, more than its limit of 256 MiB"),
        ("10 GB of shared memory, out of sight", "MiB of memory, more than its limit of 256 MiB"),
        ("10 GB of output", "limit of"),
        ("an endless loop", "timeout"),
    ],
)
@pytest.mark.parametrize("profile", ["root", "user", "confined"])
def test_the_error_says_what_was_too_much(profile: str, title: str, words: str) -> None:
    for isolation in attack_table.ISOLATIONS:
        assert words in str(results(profile)["outcomes"][f"{title}/{isolation}"]["error"])


def test_there_are_enough_attacks() -> None:
    assert len({attack.title for attack in attack_table.ATTACKS}) == len(attack_table.ATTACKS) >= 90

"""The checker of histories, by hand-written histories and against trying everything."""

from __future__ import annotations

import random

import pytest
from sim.bruteforce import is_explained
from sim.history import FOREVER, History, Read, UndecidedError, Write, check_key


def w(value: str | None, begin: float, end: float = FOREVER) -> Write:
    return Write("k", value, begin, end)


def r(value: str | None, begin: float, end: float) -> Read:
    return Read("k", value, begin, end)


GOOD = {
    "nothing yet": ([], [r(None, 0, 1)]),
    "read your write": ([w("a", 0, 1)], [r("a", 2, 3)]),
    "either, while it is written": ([w("a", 0, 1), w("b", 2, 5)], [r("a", 3, 4), r("b", 3, 4)]),
    "new, then old, before the new one is acknowledged": ([w("a", 0, 1), w("b", 2, 9)], [r("b", 3, 4), r("a", 5, 6)]),
    "two at once, in either order": ([w("a", 0, 5), w("b", 1, 4)], [r("a", 6, 7)]),
    "never acknowledged, never seen": ([w("a", 0, 1), w("b", 2)], [r("a", 50, 51)]),
    "never acknowledged, seen late": ([w("a", 0, 1), w("b", 2)], [r("a", 50, 51), r("b", 60, 61)]),
    "never acknowledged, late over a newer one": ([w("a", 0), w("b", 2, 3)], [r("b", 4, 5), r("a", 6, 7)]),
    "deleted": ([w("a", 0, 1), w(None, 2, 3)], [r(None, 4, 5)]),
    "deleted and made again": ([w("a", 0, 1), w(None, 2, 3), w("b", 4, 5)], [r("b", 6, 7)]),
    "absent by an unacknowledged delete": ([w("a", 0, 1), w(None, 2)], [r("a", 3, 4), r(None, 8, 9)]),
    "absent by the second delete": ([w("a", 0, 1), w(None, 0, 1), w("b", 2, 3), w(None, 4, 6)], [r(None, 5, 6)]),
}
BAD = {
    "stale": ([w("a", 0, 1), w("b", 2, 3)], [r("a", 4, 5)]),
    "stale absence": ([w("a", 0, 1)], [r(None, 2, 3)]),
    "nobody wrote it": ([w("a", 0, 1)], [r("x", 2, 3)]),
    "before it was written": ([w("a", 0, 1), w("b", 4, 5)], [r("b", 2, 3)]),
    "back from the dead": ([w("a", 0, 1), w(None, 2, 3)], [r("a", 4, 5)]),
    "lost, as all later reads say": ([w("a", 0, 1), w("b", 2, 3)], [r("b", 4, 5), r("a", 6, 7)]),
    "two orders at once": ([w("a", 0, 9), w("b", 1, 8)], [r("a", 10, 11), r("b", 12, 13)]),
    "seen before, then gone, then back": ([w("a", 0), w("b", 4, 5)], [r("a", 1, 2), r("a", 6, 7)]),
    "old, though a newer one was seen to be replaced": (
        [w("a", 0, 1), w("b", 2, 30), w("c", 10, 11)],
        [r("b", 3, 4), r("b", 12, 13)],
    ),
    "absent, but the only delete was overwritten": (
        [w("a", 0, 1), w(None, 2, 3), w("b", 4, 5)],
        [r(None, 6, 7)],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_pass(name: str) -> None:
    writes, reads = GOOD[name]
    assert check_key(writes, reads) == []
    assert is_explained(writes, reads)


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_are_found(name: str) -> None:
    writes, reads = BAD[name]
    found = check_key(writes, reads)
    assert [violation.read for violation in found] == [reads[-1]]
    assert not is_explained(writes, reads)


def test_each_stale_read_is_counted_once_and_told() -> None:
    history = History()
    history.writes += [w("a", 0, 1), w("b", 2, 3)]
    history.reads += [r("a", 4, 5), r("b", 6, 7), r("a", 8, 9)]
    found = history.check()
    assert [violation.read.begin for violation in found] == [4, 8]
    assert "stale, 'b' was acknowledged at 3.0" in str(found[0])


def _small_history(chance: random.Random) -> tuple[list[Write], list[Read]]:
    writes = []
    for number in range(chance.randrange(1, 5)):
        begin = chance.randrange(12)
        end = FOREVER if chance.random() < 0.3 else begin + chance.randrange(1, 6)
        value = None if chance.random() < 0.3 else f"v{number}"
        writes.append(w(value, begin + chance.random() / 4, end + 0.5 + chance.random() / 4))
    reads = []
    for _ in range(chance.randrange(1, 5)):
        begin = chance.randrange(16)
        value = chance.choice([write.value for write in writes] + [None])
        reads.append(r(value, begin + chance.random() / 4, begin + chance.randrange(1, 4) + 0.5 + chance.random() / 4))
    return writes, reads


def test_the_checker_agrees_with_trying_every_order() -> None:
    chance = random.Random(20)
    good = 0
    for _ in range(6000):
        writes, reads = _small_history(chance)
        expected = is_explained(writes, reads)
        assert (check_key(writes, reads) == []) == expected, (writes, reads)
        good += expected
    assert 1000 < good < 5000  # both kinds were there


def test_what_cannot_be_decided_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = [w("a", 0, 4), w(None, 2, 100), w(None, 3, 100)]
    reads = [r(None, 5, 6)]  # due to one of the deletes, which then is newer than a
    assert check_key(writes, reads) == []
    monkeypatch.setattr("sim.history.GUESSES_MAX", 0)
    with pytest.raises(UndecidedError):
        check_key(writes, reads)

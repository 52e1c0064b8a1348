"""What a cluster rests on, asked of a real `weed`: one winner among racing creates, no stale replace."""

from __future__ import annotations

import threading
from collections import Counter

from aistore.errors import StaleConditionError
from aistore.storage.objectstore.contract import ABSENT
from aistore.storage.objectstore.store import ObstoreStore

RACES = 100
RACERS = 8
TOGETHER = 50  # races at once: a loser waits for the winner in steps of a second


def all_at_once(work: list[threading.Thread]) -> None:
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()


def test_a_hundred_races_of_eight_creates_have_a_hundred_winners(weed_store: ObstoreStore) -> None:
    store = weed_store
    outcomes: list[tuple[int, int, str]] = []

    def create(race: int, racer: int, start: threading.Barrier) -> None:
        start.wait(60)
        try:
            outcomes.append((race, racer, store.put(f"race/{race}", b"%d" % racer, condition=ABSENT).etag))
        except StaleConditionError:
            outcomes.append((race, racer, ""))

    for first in range(0, RACES, TOGETHER):
        starts = {race: threading.Barrier(RACERS) for race in range(first, first + TOGETHER)}
        all_at_once(
            [threading.Thread(target=create, args=(r, n, start)) for r, start in starts.items() for n in range(RACERS)]
        )
    assert len(outcomes) == RACES * RACERS
    winners = {race: racer for race, racer, etag in outcomes if etag}
    assert Counter(race for race, _, etag in outcomes if etag) == dict.fromkeys(range(RACES), 1)
    for race, racer in winners.items():
        body = store.get(f"race/{race}")
        assert body is not None
        assert body.read() == b"%d" % racer


def test_of_replaces_that_know_the_same_etag_one_is_done(weed_store: ObstoreStore) -> None:
    store = weed_store
    etags = {key: store.put(f"replace/{key}", b"first").etag for key in range(TOGETHER)}
    done: list[int] = []

    def replace(key: int, racer: int) -> None:
        try:
            store.put(f"replace/{key}", b"second %d" % racer, condition=etags[key])
            done.append(key)
        except StaleConditionError:
            pass

    all_at_once([threading.Thread(target=replace, args=(key, n)) for key in etags for n in range(4)])
    assert sorted(done) == sorted(etags)

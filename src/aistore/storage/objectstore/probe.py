"""What a store really does, found out by trying: some accept the headers of a conditional write and ignore them."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace

from ...errors import AisError, BackendRefusedError, BadRequestError, StaleConditionError
from .contract import ABSENT, Capabilities, ObjectStore

#: Below the base of the store; removed again.
PLACE = ".ais/probe/"
RACERS = 8
_SECONDS = 20.0
_METADATA_SIZES = (8 << 10, 4 << 10, 2 << 10, 256)


def probe(store: ObjectStore) -> Capabilities:
    """Return what ``store`` does, starting from what its kind is said to do: a dozen small requests.

    A store that can only be read is believed. Raises BackendUnavailableError and BackendRefusedError as any verb.
    """
    declared = store.capabilities
    if not declared.writable:
        return declared
    room = f"{PLACE}{secrets.token_hex(8)}/"
    try:
        return _probe(store, declared, room)
    finally:
        _clean(store, room)


def _probe(store: ObjectStore, declared: Capabilities, room: str) -> Capabilities:
    created = declared.conditional_create and _one_of_racing_creates_wins(store, room + "race")
    replaced = declared.conditional_replace and _a_stale_replace_is_refused(store, room + "replace")
    most = _metadata_bytes_max(store, room + "metadata", declared.metadata_bytes_max)
    nesting = declared.nesting and _both_stay(store, room + "nest", room + "nest/below")
    long = declared.segment_bytes_max > 255 and _comes_back(store, room + "x" * 300)
    forbidden = declared.forbidden
    if "\\" not in forbidden and not _comes_back(store, room + "back\\slash"):
        forbidden += "\\"
    order = declared.listing and declared.byte_order and _lists_in_byte_order(store, room + "order/", nesting)
    return replace(
        declared,
        conditional_create=created,
        conditional_replace=replaced,
        metadata_bytes_max=most,
        nesting=nesting,
        segment_bytes_max=declared.segment_bytes_max if long else min(255, declared.segment_bytes_max),
        forbidden=forbidden,
        byte_order=order,
    )


def _one_of_racing_creates_wins(store: ObjectStore, key: str) -> bool:
    start = threading.Barrier(RACERS)
    outcomes: list[bool | AisError] = []

    def create(number: int) -> None:
        start.wait(_SECONDS)
        try:
            store.put(key, b"%d" % number, condition=ABSENT, seconds=_SECONDS)
            outcomes.append(True)
        except StaleConditionError:
            outcomes.append(False)
        except AisError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=create, args=(number,), name=f"probe-{number}") for number in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        if isinstance(outcome, AisError):
            raise outcome
    return outcomes.count(True) == 1


def _a_stale_replace_is_refused(store: ObjectStore, key: str) -> bool:
    first = store.put(key, b"first", seconds=_SECONDS)
    second = store.put(key, b"second", condition=first.etag, seconds=_SECONDS)
    try:
        store.put(key, b"third", condition=first.etag, seconds=_SECONDS)
        return False
    except StaleConditionError:
        return bool(second.etag) and store.head(key).etag == second.etag


def _metadata_bytes_max(store: ObjectStore, key: str, declared: int) -> int:
    for size in (size for size in _METADATA_SIZES if size <= declared):
        metadata = {"ais-probe": "x" * (size - len("ais-probe"))}
        if _done(lambda metadata=metadata: store.put(key, b"", metadata, seconds=_SECONDS)):  # type: ignore[misc]
            return size if store.head(key).metadata == metadata else 0
    return 0


def _both_stay(store: ObjectStore, key: str, below: str) -> bool:
    return (
        _done(lambda: store.put(key, b"1", seconds=_SECONDS))
        and _done(lambda: store.put(below, b"22", seconds=_SECONDS))
        and store.head(key).size == 1
        and store.head(below).size == 2
    )


def _comes_back(store: ObjectStore, key: str) -> bool:
    """Say whether a key is found under its name, and listed under it."""
    if not _done(lambda: store.put(key, b"1", seconds=_SECONDS)):
        return False
    return not store.capabilities.listing or [entry.key for entry in store.list(key).entries] == [key]


def _lists_in_byte_order(store: ObjectStore, room: str, nesting: bool) -> bool:
    names = [room + name for name in ("a-b", "a.b", "a/b", "ab", "b", "é", *(("a",) if nesting else ()))]
    for name in names:
        store.put(name, b"", seconds=_SECONDS)
    return [entry.key for entry in store.list(room).entries] == sorted(names, key=str.encode)


def _done(write: Callable[[], object]) -> bool:
    """Say whether a write that some stores cannot do was done."""
    try:
        write()
    except BackendRefusedError:
        raise
    except (AisError, BadRequestError):
        return False
    return True


def _clean(store: ObjectStore, room: str) -> None:
    try:
        while keys := [entry.key for entry in store.list(room).entries]:
            store.delete_many(keys, _SECONDS)
    except AisError:
        return  # a few empty keys stay; the next start tries its own

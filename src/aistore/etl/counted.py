"""Counting what goes through a transform (the row of each is in observe/layout.py)."""

from __future__ import annotations

import time
from types import TracebackType

from ..errors import TransformError
from ..observe.counters import COUNTERS
from ..observe.layout import (
    ETL_BUSY,
    ETL_CACHE_HIT_BYTES,
    ETL_CACHE_HITS,
    ETL_CACHE_MISSES,
    ETL_ERRORS,
    ETL_IN_BYTES,
    ETL_INFLIGHT,
    ETL_NS,
    ETL_OBJECTS,
    ETL_OUT_BYTES,
    ETL_RESTARTS,
    ETL_WORKERS,
)


class CountedObject:
    """One object on its way through a transform, as a context around it; set ``out_bytes`` when there is a result.

    ``uid`` may change on the way: where the transform was made anew since, the object goes to the new one.

    What was not the transform's fault (it was stopped, the client went away) counts neither as object nor as error.
    """

    def __init__(self, name: str, uid: int, in_bytes: int) -> None:
        self._name = name
        self.uid = uid
        self._waiting = COUNTERS.etl(name, uid) + ETL_INFLIGHT
        self._in_bytes = in_bytes
        self._started_ns = time.perf_counter_ns()
        self.out_bytes = -1

    def __enter__(self) -> CountedObject:
        COUNTERS.words[self._waiting] += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        words, row = COUNTERS.words, COUNTERS.etl(self._name, self.uid)
        words[self._waiting] -= 1
        in_bytes, out_bytes, took = self._in_bytes, self.out_bytes, time.perf_counter_ns() - self._started_ns
        if out_bytes >= 0:
            words[row + ETL_OBJECTS] += 1
            words[row + ETL_OUT_BYTES] += out_bytes
        elif isinstance(error, TransformError):
            words[row + ETL_ERRORS] += 1
        else:
            return
        words[row + ETL_IN_BYTES] += in_bytes
        words[row + ETL_NS] += took


def count_busy(name: str, uid: int, change: int) -> None:
    """Count a worker that took an object (1) or is done with it (-1)."""
    word = COUNTERS.etl(name, uid) + ETL_BUSY
    COUNTERS.words[word] += change


def set_workers(name: str, uid: int, workers: int) -> None:
    """Say how many workers a transform has now. Only the controller does."""
    COUNTERS.words[COUNTERS.etl(name, uid) + ETL_WORKERS] = workers


def count_restart(name: str, uid: int) -> None:
    """Count that a transform's processes ended by themselves."""
    word = COUNTERS.etl(name, uid) + ETL_RESTARTS
    COUNTERS.words[word] += 1


def count_hit(name: str, uid: int, size: int) -> None:
    """Count a result of ``size`` bytes that was given out again."""
    row, words = COUNTERS.etl(name, uid), COUNTERS.words
    words[row + ETL_CACHE_HITS] += 1
    words[row + ETL_CACHE_HIT_BYTES] += size


def count_miss(name: str, uid: int) -> None:
    """Count a result that is computed and kept."""
    word = COUNTERS.etl(name, uid) + ETL_CACHE_MISSES
    COUNTERS.words[word] += 1

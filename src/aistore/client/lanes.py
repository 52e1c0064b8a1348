"""Several replies read side by side, their results given out in one order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

Result = TypeVar("Result")

#: Results that one lane may be ahead. A lane that is further waits, and with it the node that sends: guessed, enough
#: that lanes whose entries come in clusters do not wait for each other.
AHEAD_MAX = 64
#: How soon a lane whose results are not wanted any more finds out, in seconds.
NOTICE_SECONDS = 0.1


@dataclass(slots=True)
class _Failure:
    """In place of a result: what ended the lane."""

    error: BaseException


@dataclass(slots=True)
class _Lane:
    """One reply, read by a thread of its own into a queue."""

    results: Iterator[object]
    stop: threading.Event
    ready: queue.Queue[object] = field(default_factory=lambda: queue.Queue(AHEAD_MAX))

    def run(self) -> None:
        """Read until the end, a failure, or nobody wants more."""
        try:
            for result in self.results:
                if not self._give(result):
                    return
            self._give(_Failure(EOFError("a reply has fewer results than were asked for")))
        except BaseException as error:
            self._give(_Failure(error))
        finally:
            if isinstance(self.results, Generator):
                self.results.close()  # and with it the connection, if the reply was not read to its end

    def _give(self, result: object) -> bool:
        while not self.stop.is_set():
            try:
                self.ready.put(result, timeout=NOTICE_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def read_side_by_side(lanes: Sequence[tuple[Sequence[int], Iterator[Result]]]) -> Iterator[Result]:
    """Yield the results of all lanes in the order of their positions.

    A lane is the positions, ascending, of what its iterator yields; together they are 0, 1, 2, …. The iterators run in
    threads, at most `AHEAD_MAX` results ahead. What one raises is raised here, in its turn.
    """
    stop = threading.Event()
    running = [_Lane(results, stop) for _, results in lanes]
    lane_of = {position: lane for (positions, _), lane in zip(lanes, running, strict=True) for position in positions}
    threads = [threading.Thread(target=lane.run, name="ais-batch", daemon=True) for lane in running]
    for thread in threads:
        thread.start()
    try:
        for position in range(len(lane_of)):
            result = lane_of[position].ready.get()
            if isinstance(result, _Failure):
                raise result.error
            yield cast(Result, result)
    finally:
        stop.set()
        for thread in threads:
            # One that waits for the network ends with its next bytes; nothing here depends on it.
            thread.join(NOTICE_SECONDS * 2)

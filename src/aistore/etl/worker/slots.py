"""The memory that the parent of an ETL shares with its workers: one slot for each.

Nobody locks it, and every word has one writer. A worker that writes nonsense there misleads its own ETL's parent about
itself, who then forks a worker too many or too few, within the limit.
"""

import mmap

WORKERS_MAX = 1024
SLOT_BYTES = 64  # one cache line per worker
SLOTS_BYTES = SLOT_BYTES * WORKERS_MAX

#: What a worker is doing: waiting for an object (or on its way to), busy with one, ending because it is to be replaced.
IDLE, BUSY, RETIRED = range(3)

_TURNS, _STATE, _LEAVES = range(3)


class Slot:
    """One worker's words. The worker writes ``turns`` and ``state``, the parent ``leaves``."""

    __slots__ = ("_words",)

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        self._words = memoryview(memory)[number * SLOT_BYTES : (number + 1) * SLOT_BYTES].cast("Q")

    def clear(self) -> None:
        """Make it a new worker's."""
        for word in (_TURNS, _STATE, _LEAVES):
            self._words[word] = 0

    @property
    def turns(self) -> int:
        """How many objects the worker has taken."""
        return self._words[_TURNS]

    @property
    def state(self) -> int:
        """IDLE, BUSY or RETIRED."""
        return self._words[_STATE]

    @property
    def leaves(self) -> bool:
        """Whether the worker is to end when it has no object."""
        return self._words[_LEAVES] != 0

    def take(self) -> None:
        """Count an object."""
        self._words[_TURNS] += 1

    def become(self, state: int) -> None:
        """Say what the worker is doing."""
        self._words[_STATE] = state

    def dismiss(self) -> None:
        """Have the worker end when it has no object."""
        self._words[_LEAVES] = 1

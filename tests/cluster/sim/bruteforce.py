"""The checker's own checker: the definition of `history`, tried with every order of every choice of writes.

For histories of a handful of writes; what `history.check_key` finds by reasoning must be what this finds by trying.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

from .history import FOREVER, Read, Write


def is_explained(writes: Sequence[Write], reads: Sequence[Read]) -> bool:
    """Say whether some order of the acknowledged writes, and of any of the others, explains all reads."""
    first = Write("", None, -FOREVER, -FOREVER)
    return any(
        all(_fits((first, *order), read) for read in reads) for order in _orders(writes) if _keeps_time((first, *order))
    )


def _orders(writes: Sequence[Write]) -> Iterator[tuple[Write, ...]]:
    acknowledged = [write for write in writes if write.end < FOREVER]
    others = [write for write in writes if write.end == FOREVER]
    for count in range(len(others) + 1):
        for chosen in combinations(others, count):
            yield from permutations([*acknowledged, *chosen])


def _keeps_time(order: Sequence[Write]) -> bool:
    """Say whether no write is put behind one that began only after it was acknowledged."""
    return not any(order[later].end < order[earlier].begin for later in range(len(order)) for earlier in range(later))


def _fits(order: Sequence[Write], read: Read) -> bool:
    return any(
        write.value == read.value
        and write.begin < read.end
        and not any(newer.end < read.begin for newer in order[place + 1 :])
        and not any(older.begin > read.end for older in order[:place])
        for place, write in enumerate(order)
    )

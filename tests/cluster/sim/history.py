"""What clients did and saw, and whether a store that keeps its word can have answered so.

*Stale* means, per key: after a write acknowledged at ``t``, a read begun after ``t`` returns an older version. Older
is a matter of the order in which versions replaced each other, which clients do not see; so a history is good if there
is any order of its writes that explains it:

1. a write acknowledged before another one began is older than it;
2. a read returns a version that is not older than any acknowledged before it began;
3. a read returns nothing that was not yet begun when it ended, nor something older writes replaced before they began.

A write that was not acknowledged may have taken effect at any time after it began, also late, or never. A delete writes
the absence of a value; values are otherwise written once, so a read names its write, but an absence may be due to any
delete, or to the beginning: the checker looks for one that fits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

FOREVER = float("inf")
#: Guesses at which delete an absence is due to, per key; histories that need so many are not decided.
GUESSES_MAX = 2_000


class Write(NamedTuple):
    """A write of ``value`` (None: a delete); ``end`` is when it was acknowledged, FOREVER if it never was."""

    key: str
    value: str | None
    begin: float
    end: float = FOREVER
    by: str = ""


class Read(NamedTuple):
    """A read that was answered with ``value``, None for "there is no such object"."""

    key: str
    value: str | None
    begin: float
    end: float
    by: str = ""


@dataclass(frozen=True)
class Violation:
    """A read that no order of the writes explains, with what it contradicts."""

    read: Read
    reason: str

    def __str__(self) -> str:
        read = self.read
        return (
            f"{read.key}: a read by {read.by or 'someone'} from {read.begin:.6f} to {read.end:.6f} returned "
            f"{read.value!r}: {self.reason}"
        )


class UndecidedError(Exception):
    """Too many deletes could be the reason of too many absences."""


class History:
    """Everything that happened to all keys."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.reads: list[Read] = []

    def check(self) -> list[Violation]:
        """Return the reads that cannot be explained, of all keys."""
        writes: defaultdict[str, list[Write]] = defaultdict(list)
        reads: defaultdict[str, list[Read]] = defaultdict(list)
        for write in self.writes:
            writes[write.key].append(write)
        for read in self.reads:
            reads[read.key].append(read)
        return [violation for key in sorted(reads) for violation in check_key(writes[key], reads[key])]


def check_key(writes: Iterable[Write], reads: Iterable[Read]) -> list[Violation]:
    """Return the reads of one key that cannot be explained; each is left out when the later ones are looked at."""
    key_writes = list(writes)
    left = sorted(reads, key=lambda read: read.end)
    found = []
    while True:
        culprit = _Search(key_writes, left).culprit()
        if culprit is None:
            return found
        read = left.pop(culprit)
        found.append(Violation(read, _reason(key_writes, read)))


class _Search:
    """A search for writes to attribute the reads to, so that "older than" has no circle."""

    def __init__(self, writes: Sequence[Write], reads: Sequence[Read]) -> None:
        seen = {read.value for read in reads}
        first = Write("", None, -FOREVER, -FOREVER)
        # What was neither acknowledged nor seen need not have happened.
        self.writes = [first, *(write for write in writes if write.end < FOREVER or write.value in seen)]
        self.reads = reads
        self._guesses = 0
        self._culprit = 0

    def culprit(self) -> int | None:
        """Return the index of a read that cannot be attributed, None if all can."""
        newer = [0] * len(self.writes)  # newer[i]: bits of the writes known to be newer than write i
        for i, one in enumerate(self.writes):
            for j, other in enumerate(self.writes):
                if i != j and one.end < other.begin:
                    newer[i] |= 1 << j
        open_reads = []
        for index, read in enumerate(self.reads):
            sources = self._sources(read)
            if len(sources) == 1:
                extended = self._attribute(read, sources[0], newer)
                if extended is None:
                    return index
                newer = extended
            else:
                open_reads.append((index, sources))
        return None if self._explain(open_reads, newer) else self._culprit

    def _explain(self, open_reads: list[tuple[int, list[int]]], newer: list[int]) -> bool:
        """Attribute the reads that may have several sources: first where there is no choice, then by guessing."""
        progress = True
        while progress:
            progress, left = False, []
            for index, sources in open_reads:
                fitting: dict[tuple[int, ...], int] = {}
                for source in sources:
                    extended = self._attribute(self.reads[index], source, newer)
                    if extended is not None:
                        fitting.setdefault(tuple(extended), source)  # what says the same need not be tried twice
                if not fitting:
                    self._culprit = index
                    return False
                if len(fitting) == 1:
                    (only,) = fitting
                    progress = progress or list(only) != newer
                    newer = list(only)
                elif tuple(newer) not in fitting:  # else it asks for nothing that is not known anyway
                    left.append((index, list(fitting.values())))
            open_reads = left
        if not open_reads:
            return True
        index, sources = min(open_reads, key=lambda one: len(one[1]))
        rest = [one for one in open_reads if one[0] != index]
        for source in sources:
            self._guesses += 1
            if self._guesses > GUESSES_MAX:
                raise UndecidedError(f"more than {GUESSES_MAX} guesses for {self.reads[index].key}")
            extended = self._attribute(self.reads[index], source, newer)
            if extended is not None and self._explain(rest, extended):
                return True
        self._culprit = index
        return False

    def _sources(self, read: Read) -> list[int]:
        """Return the writes that a read may have seen, the latest first."""
        fitting = [i for i, write in enumerate(self.writes) if write.value == read.value and write.begin < read.end]
        return sorted(fitting, key=lambda i: -self.writes[i].begin)

    def _attribute(self, read: Read, source: int, newer: list[int]) -> list[int] | None:
        """Return what is newer than what if ``read`` saw ``source``; None if that goes in a circle."""
        extended = list(newer)
        for i, write in enumerate(self.writes):
            if i != source:
                if write.end < read.begin and not _add(extended, i, source):
                    return None
                if write.begin > read.end and not _add(extended, source, i):
                    return None
        return extended


def _add(newer: list[int], old: int, new: int) -> bool:
    """Note that write ``new`` replaced write ``old`` or one after it; False if it is known to be the other way."""
    if newer[new] >> old & 1:
        return False
    if newer[old] >> new & 1:
        return True
    gained = newer[new] | 1 << new
    for i in range(len(newer)):
        if i == old or newer[i] >> old & 1:
            newer[i] |= gained
    return True


def _reason(writes: Sequence[Write], read: Read) -> str:
    sources = [write for write in writes if write.value == read.value]
    if read.value is not None and not any(write.begin < read.end for write in sources):
        return "nobody had written that"
    acknowledged = [write for write in writes if write.end < read.begin]
    if not acknowledged:
        return "no order of the writes explains it"
    last = max(acknowledged, key=lambda write: write.end)
    return f"stale, {last.value!r} was acknowledged at {last.end:.6f} to {last.by or 'someone'}"

"""Samples: the objects of one base name, and the table of all samples of a dataset.

``train/0000353.jpg`` and ``train/0000353.cls`` are the two parts of the sample ``train/0000353``. The parts of a
sample are ordered by what they are: pictures first, labels last, everything else in between, and by name within each;
so that ``for images, target in loader`` means what it says whatever the listing's order is.
"""

from __future__ import annotations

import os.path
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from ..errors import SamplesError

IMAGE_EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"))
LABEL_EXTENSIONS = frozenset((".cls", ".json", ".txt"))

_EXAMPLES_MAX = 3  # names that an error message shows


class Part(NamedTuple):
    """One object of a sample, and whether it is read through the transform."""

    name: str
    transformed: bool


def extension(name: str) -> str:
    """Return the extension of an object name in lower case, with its dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()


def _slot(name: str) -> str:
    """Return what a name stands for in its sample: a picture of any format, or one particular extension."""
    kind = extension(name)
    return "image" if kind in IMAGE_EXTENSIONS else kind


def _part_order(name: str) -> tuple[int, str]:
    kind = extension(name)
    return (0 if kind in IMAGE_EXTENSIONS else 2 if kind in LABEL_EXTENSIONS else 1, name)


class SampleTable:
    """The names of all samples, in a few flat buffers.

    Worker processes of a DataLoader inherit the table. A million names as Python strings would be copied into each of
    them page by page, as reference counts change; flat buffers are shared by forked workers, and quick to pickle for
    spawned ones.
    """

    def __init__(self, samples: Iterable[Sequence[str]], is_transformed: Callable[[str], bool]) -> None:
        self._parts_per_sample = 0
        names = bytearray()
        self._ends = array("Q", (0,))
        transformed = bytearray()
        for sample in samples:
            self._parts_per_sample = self._parts_per_sample or len(sample)
            assert len(sample) == self._parts_per_sample
            for name in sample:
                names += name.encode()
                self._ends.append(len(names))
                transformed.append(bool(is_transformed(name)))
        self._names = bytes(names)
        self._transformed = bytes(transformed)

    def __len__(self) -> int:
        return len(self._transformed) // self._parts_per_sample if self._parts_per_sample else 0

    def __getitem__(self, index: int) -> tuple[Part, ...]:
        """Return the parts of sample ``index``; negative indices count from the end."""
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"sample {index} of a dataset of {count}")
        first = index % count * self._parts_per_sample
        ends = self._ends[first : first + self._parts_per_sample + 1]
        return tuple(
            Part(self._names[start:end].decode(), bool(self._transformed[first + position]))
            for position, (start, end) in enumerate(pairwise(ends))
        )

    def __iter__(self) -> Iterator[tuple[Part, ...]]:
        return (self[index] for index in range(len(self)))

    @property
    def transformed_count(self) -> int:
        """How many objects are read through the transform."""
        return self._transformed.count(1)


class Grouping(NamedTuple):
    """What ``group`` found: samples as lists of names, all of the same parts, and how many samples were left out."""

    samples: list[list[str]]
    dropped: int


def group(names: Iterable[str], *, parts: Sequence[str] | None = None, drop_incomplete: bool = False) -> Grouping:
    """Group object names into samples that all have the same parts, in the order of the listing.

    ``parts`` are the extensions that make a sample, in the order wanted; objects of other extensions are left out.
    Without it, a sample is everything of one base name. A sample that lacks a part is an error or is dropped; dropping
    more than half of them is an error, too: then it is not the samples that are wrong. Raises SamplesError.
    """
    kinds = None if parts is None else tuple(part.lower() for part in parts)
    slot_of = _slot if kinds is None else extension
    order = _part_order if kinds is None else lambda name: (kinds.index(extension(name)), name)
    by_base: dict[str, list[str]] = {}
    for name in names:
        base, suffix = os.path.splitext(name)
        if kinds is None or suffix.lower() in kinds:
            by_base.setdefault(base, []).append(name)
    layouts: Counter[tuple[str, ...]] = Counter()
    for sample in by_base.values():
        sample.sort(key=order)
        layouts[tuple(map(slot_of, sample))] += 1
    complete = max(layouts, key=len, default=()) if kinds is None else kinds
    if set(layouts) <= {complete}:
        return Grouping(list(by_base.values()), 0)

    kept = [sample for sample in by_base.values() if tuple(map(slot_of, sample)) == complete]
    dropped = len(by_base) - len(kept)
    only_lacking = all(not Counter(layout) - Counter(complete) for layout in layouts)
    if drop_incomplete and only_lacking and dropped <= len(kept):
        return Grouping(kept, dropped)
    raise _inconsistent(by_base, complete, slot_of, drop_incomplete)


def _inconsistent(
    by_base: dict[str, list[str]], complete: tuple[str, ...], slot_of: Callable[[str], str], dropping: bool
) -> SamplesError:
    """Return the error that names a few samples that are not like the fullest ones."""
    odd = [base for base, sample in by_base.items() if tuple(map(slot_of, sample)) != complete]
    examples = "; ".join(f"{base} has {', '.join(map(slot_of, by_base[base]))}" for base in sorted(odd)[:_EXAMPLES_MAX])
    some = "for example " if len(odd) > _EXAMPLES_MAX else ""
    hint = (
        'too many to drop: say what a sample is, e.g. parts=(".jpg", ".cls")'
        if dropping
        else 'pass incomplete="drop" to leave them out, or say what a sample is, e.g. parts=(".jpg", ".cls")'
    )
    return SamplesError(
        f"{len(odd):,} of {len(by_base):,} samples do not have the parts {', '.join(complete)}: {some}{examples}",
        hint=hint,
    )

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


def _slot(suffix: str) -> str:
    """Return what an extension stands for in a sample: a picture of any format, or one particular extension."""
    kind = suffix.lower()
    return "image" if kind in IMAGE_EXTENSIONS else kind


def _part_order(suffix: str) -> tuple[int, str]:
    kind = suffix.lower()
    return (0 if kind in IMAGE_EXTENSIONS else 2 if kind in LABEL_EXTENSIONS else 1, suffix)


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
    """What ``group`` found: samples as names, all of the same parts, and how many samples were left out."""

    samples: Iterator[tuple[str, ...]]
    dropped: int


class _Shape(NamedTuple):
    """Samples of the same extensions: these in the order of the parts, and what they stand for."""

    suffixes: tuple[str, ...]
    layout: tuple[str, ...]


def group(names: Iterable[str], *, parts: Sequence[str] | None = None, drop_incomplete: bool = False) -> Grouping:
    """Group object names into samples that all have the same parts, in the order of the listing.

    ``parts`` are the extensions that make a sample, in the order wanted; objects of other extensions are left out.
    Without it, a sample is everything of one base name. A sample that lacks a part is an error or is dropped; dropping
    more than half of them is an error, too: then it is not the samples that are wrong. Raises SamplesError.
    """
    kinds = None if parts is None else tuple(part.lower() for part in parts)
    suffixes_of: dict[str, list[str]] = {}
    for name in names:
        base, suffix = os.path.splitext(name)
        suffixes_of.setdefault(base, []).append(suffix)
    if kinds is not None:  # what has none of the parts is no sample; what has some keeps all, for the error to tell
        wanted = frozenset(kinds)
        suffixes_of = {
            base: found
            for base, found in suffixes_of.items()
            if not wanted.isdisjoint(suffix.lower() for suffix in found)
        }
    # Millions of samples have a handful of shapes, so what is said of a sample is worked out once per shape.
    counts = Counter(map(tuple, suffixes_of.values()))
    shapes = {suffixes: _shape(suffixes, kinds) for suffixes in counts}
    layouts = {shape.layout for shape in shapes.values()}
    complete = max(layouts, key=len, default=()) if kinds is None else kinds
    dropped = sum(count for suffixes, count in counts.items() if shapes[suffixes].layout != complete)
    only_lacking = all(not Counter(layout) - Counter(complete) for layout in layouts)
    if dropped and not (drop_incomplete and only_lacking and 2 * dropped <= len(suffixes_of)):
        raise _inconsistent(suffixes_of, shapes, complete, kinds, drop_incomplete)
    samples = (
        tuple([base + suffix for suffix in shapes[tuple(found)].suffixes])
        for base, found in suffixes_of.items()
        if shapes[tuple(found)].layout == complete
    )
    return Grouping(samples, dropped)


def _shape(suffixes: tuple[str, ...], kinds: tuple[str, ...] | None) -> _Shape:
    if kinds is None:
        ordered = tuple(sorted(suffixes, key=_part_order))
        return _Shape(ordered, tuple(map(_slot, ordered)))
    chosen = [suffix for suffix in suffixes if suffix.lower() in kinds]
    ordered = tuple(sorted(chosen, key=lambda suffix: (kinds.index(suffix.lower()), suffix)))
    return _Shape(ordered, tuple(suffix.lower() for suffix in ordered))


def _spell_parts(suffixes: list[str], kinds: tuple[str, ...] | None) -> list[str]:
    """Return what there is of a sample: what parts stand for, or where extensions were asked for, all of them."""
    ordered = sorted(suffixes, key=_part_order)
    return [(_slot(suffix) if kinds is None else suffix) or "no extension" for suffix in ordered]


def _inconsistent(
    suffixes_of: dict[str, list[str]],
    shapes: dict[tuple[str, ...], _Shape],
    complete: tuple[str, ...],
    kinds: tuple[str, ...] | None,
    dropping: bool,
) -> SamplesError:
    """Return the error that names a few samples that are not like the fullest ones."""
    layouts = {base: shapes[tuple(suffixes)].layout for base, suffixes in suffixes_of.items()}
    odd = [base for base, layout in layouts.items() if layout != complete]
    examples = "; ".join(
        f"{base} has {', '.join(_spell_parts(suffixes_of[base], kinds))}" for base in odd[:_EXAMPLES_MAX]
    )
    some = "for example " if len(odd) > _EXAMPLES_MAX else ""
    hint = (
        'too many to drop: say what a sample is, e.g. parts=(".jpg", ".cls")'
        if dropping
        else 'pass prefix= for a part of the bucket, incomplete="drop" to leave them out, or say what a sample is, '
        'e.g. parts=(".jpg", ".cls")'
    )
    return SamplesError(
        f"{len(odd):,} of {len(layouts):,} samples do not have the parts "
        f"{', '.join(slot or 'no extension' for slot in complete)}: {some}{examples}",
        hint=hint,
    )

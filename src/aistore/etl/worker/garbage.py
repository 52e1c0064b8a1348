"""What a finished script leaves in memory: let go of, flushed and collected before its object is answered."""

import gc
import io
import re
import sys
import types
import weakref
from typing import Any, List, Tuple

#: Values that a dying ``__main__`` keeps: they hold no resource, and code that outlives the run may still read them.
_HARMLESS = frozenset((
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type, int, float, complex, str, bytes, bool,
    type(None), tuple, frozenset, re.Pattern,
))  # fmt: skip
_HARMLESS_BASES = tuple(_HARMLESS - {bool, type(None)})
_BUFFERING = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)  # text above bytes
_WHOLE_EVERY = 50  # objects
_GROWTH_BYTES = 32 << 20


def release(module: types.ModuleType) -> None:
    """Let go of what a finished ``__main__`` holds, in an order in which files flush before they close.

    Values are dropped one by one: a file object that only the garbage collector finds may have its descriptor closed
    before its buffer is written.
    """
    names = module.__dict__
    for name in [name for name, value in names.items()
                 if type(value) not in _HARMLESS and not isinstance(value, _HARMLESS_BASES)]:  # fmt: skip
        value = names.pop(name, None)
        if isinstance(value, io.IOBase):
            try:
                value.flush() if _is_standard(value) else value.close()
            except Exception:  # a close() of the program's own
                pass


def _is_standard(stream: Any) -> bool:
    return stream in (sys.stdin, sys.stdout, sys.stderr) or stream in [
        getattr(standard, "buffer", None) for standard in (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    ]


class Collector:
    """Collects the garbage of one object after the other, so that files in reference cycles write what they hold.

    Later they would write it into another object. The collector may close a descriptor before the buffer on top of it
    is written, so all buffers are flushed first.

    What a program has made is in the youngest generation, unless the interpreter itself has collected meanwhile. So
    that alone is looked at and collected; now and then, and when memory has grown, the older ones too. Files that
    outlive their object are flushed after each.
    """

    def __init__(self) -> None:
        self._objects = 0
        self._mark = _Mark()
        self._kept: List["weakref.ref[Any]"] = []  # files of earlier objects
        self._whole = True
        self._grown = 0  # bytes, after the last time that all was collected

    def begin(self) -> None:
        """Begin an object."""
        self._mark = _Mark()

    def collect(self, own: Tuple[Any, ...]) -> None:
        """Flush all files that have something to write, but for ``own``, and collect."""
        self._objects += 1
        if not self._whole and self._objects % _WHOLE_EVERY:
            found = _interesting(gc.get_objects(0))
            self._whole = not any(value is self._mark for value in found)  # the interpreter has collected
        else:
            self._whole = True
        if self._whole:
            found = _interesting(gc.get_objects())
        files = [value for value in found if value is not self._mark and value not in own]
        del found
        kept = self._flush(files) if files or self._kept else []
        del files
        if self._whole:
            gc.collect()
        else:
            gc.collect(0)
        self._kept = [file for file in kept if file() is not None]

    def note_growth(self, grown: int) -> None:
        """Take note of by how many bytes the process has grown, after each object."""
        if self._whole:
            self._whole, self._grown = False, grown
        else:
            self._whole = grown - self._grown > _GROWTH_BYTES

    def _flush(self, files: List[Any]) -> List["weakref.ref[Any]"]:
        """Flush these and those of earlier objects; return all of them, weakly."""
        for kept in self._kept:
            file = kept()
            if file is not None and file not in files:
                files.append(file)
        for kind in _BUFFERING:
            for file in files:
                if type(file) is kind:
                    try:
                        if not file.closed:
                            file.flush()
                    except (OSError, ValueError):  # full, read-only, detached
                        pass
        return [weakref.ref(file) for file in files]


class _Mark(list):  # type: ignore[type-arg]
    """Is as old as an object, so it is in the youngest generation as long as what the object makes is."""


_INTERESTING = frozenset((_Mark, *_BUFFERING))


def _interesting(objects: List[Any]) -> List[Any]:
    return [value for value in objects if type(value) in _INTERESTING]

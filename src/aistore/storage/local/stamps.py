"""Numbers in shared memory that tell every process of a mountpath which objects have not changed.

A process that keeps an object in memory has to know that no other process replaced it since. Asking the index costs
more than reading the object. So there is a table of 64-bit words in a file that every process maps: an object's word is
the one its bucket and name hash to (several objects may share a word: more looks into the index, never a wrong answer),
and one word stands for all objects. A word is *clean* when even, *dirty* when odd, and never has the same value twice.

- Whoever changes the index holds the turn (``commit.lock``). Before it commits, it makes the words of what it changes
  dirty; after the commit and before it gives the turn back, it makes them clean, with new values.
- A reader takes the word first and looks into the index then. It may keep what it found only if that word was clean,
  and may use it as long as the word has the same value.

Why that is right. A value in use was clean before the look-up, so every commit whose word had become clean by then was
seen by the look-up. Any later commit made the word dirty before anybody could see it, so from the first moment that
some reader sees the new state, no other reader uses the old one: what is kept is as fresh as the index itself, and
nothing acknowledged can be missed.

Killed writers. Between dirty and clean nobody keeps anything under those words; reads go to the index. The word
``_TURN`` is dirty as long as a commit is under way, so the next one finds out that its predecessor was killed and makes
*all* dirty words clean after its own commit. (Not before: SQLite may find a killed writer's transaction complete, and
does so when the next one begins.) A power cut may bring back old values; nobody who knew newer ones is alive then.

The words are written and read whole: they are aligned, and CPython copies eight bytes by one move. SQLite's own index
of its log is shared memory beside this file, so a machine or file system where this cannot work has no index either.

Roads not taken: asking SQLite (``PRAGMA data_version`` is two locks and changes with every commit of anybody), messages
between processes (a reader may be slow to hear), descriptors kept open like nginx's ``open_file_cache`` (a kept file
still has to be read, which is the larger half, and unlinked files would hold their blocks).
"""

from __future__ import annotations

import errno
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

#: Derived: with 100 writes a second to names all over, a word lasts 10 minutes. 512 KiB of memory for all processes.
_OBJECTS = 1 << 16
#: The word of all objects: for buckets and mountpaths that come and go, and for recovery. The first mountpath's speaks
#: for the objects of all.
EVERYTHING = _OBJECTS
#: Dirty while a commit is under way; the newest value of all.
_TURN = _OBJECTS + 1
#: Odd while the mountpath is unavailable, new and even when it is back: see health.py.
EPOCH = _OBJECTS + 2
#: Why it is unavailable, in UTF-8 that ends at a zero byte.
_REASON = slice(8 * (_OBJECTS + 16), 8 * (_OBJECTS + 80))
_SIZE = 8 * (_OBJECTS + 512)  # whole pages


def create(path: str) -> None:
    """Create the table if there is none; the caller makes sure that only one process does so."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # Written, not truncated to length: touching a hole of a file on a full disk ends a process with SIGBUS.
        if size < _SIZE and os.pwrite(descriptor, bytes(_SIZE - size), size) != _SIZE - size:
            raise OSError(errno.ENOSPC, "the disk is full")
    finally:
        os.close(descriptor)


def slot_of(bucket: str, key: bytes) -> int:
    """Return the word of an object; ``key`` is its name in UTF-8."""
    return zlib.crc32(key, zlib.crc32(bucket.encode())) % _OBJECTS


class Stamps:
    """The table of one mountpath, mapped into this process."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        #: The words. Only ``changing`` may write to them.
        self.words = memoryview(self._map).cast("Q")

    @contextmanager
    def changing(self, slots: Iterable[int]) -> Iterator[None]:
        """Keep the words of ``slots`` dirty for the length of the block. The caller has the turn."""
        words = self.words
        dirty = words[_TURN] + (1 if words[_TURN] % 2 == 0 else 2)
        interrupted = words[_TURN] % 2 == 1
        words[_TURN] = dirty  # first: a value that was given out once is never given out again
        slots = list(slots)
        for slot in slots:
            words[slot] = dirty
        try:
            yield
        finally:
            if interrupted:
                slots += [slot for slot in range(EVERYTHING + 1) if words[slot] % 2]
            for slot in slots:
                words[slot] = dirty + 1
            words[_TURN] = dirty + 1

    @property
    def epoch(self) -> int:
        """The word that is odd while the mountpath is unavailable."""
        return self.words[EPOCH]

    @epoch.setter
    def epoch(self, value: int) -> None:
        self.words[EPOCH] = value

    @property
    def interrupted(self) -> bool:
        """Whether a commit is under way, or its process was killed on the way."""
        return self.words[_TURN] % 2 == 1

    @property
    def reason(self) -> str:
        """Why the mountpath is unavailable, as last written down."""
        return self._map[_REASON].partition(b"\0")[0].decode(errors="replace")

    @reason.setter
    def reason(self, text: str) -> None:
        room = _REASON.stop - _REASON.start
        self._map[_REASON] = text.encode()[: room - 1].ljust(room, b"\0")

    def close(self) -> None:
        """Unmap the table. May be called twice."""
        self.words.release()
        self._map.close()

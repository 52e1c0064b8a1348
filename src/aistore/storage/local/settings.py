"""What can be set on a local engine."""

from __future__ import annotations

from dataclasses import dataclass

from ..arguments import CUSTOM_BYTES_MAX


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Settings of one LocalEngine; every process of a store uses the same.

    ``durable`` syncs file and index before a write is acknowledged. Without it a write survives the kill of any
    process, and a power cut may cost the last second.
    """

    durable: bool = False
    #: Objects up to this many bytes live in the index. Derived: half of the objects of a labelled data set are
    #: labels of a few bytes; a file costs an inode of 256 bytes and a block of 4,096.
    inline_bytes_max: int = 256
    #: Files per generation directory. Guessed: small enough to compare in a blink after a crash, large enough that
    #: a million objects make some hundred directories.
    generation_files_max: int = 2048
    #: Writes accepted and not yet begun, before OverloadedError. Guessed: a second of work.
    queue_max: int = 8192
    #: Operations in one transaction at most. Guessed: bounds the time that other processes wait for the index.
    batch_max: int = 256
    #: Writes are refused when less than this is free, so that deletes and the index's log always have room; at most
    #: a twentieth of the file system. Derived: four times the log's usual size at checkpoint.
    reserve_bytes: int = 64 << 20
    #: Small objects kept in the memory of each process that reads, see hot.py; 0 keeps none. Guessed: 3,000 objects
    #: of 20 KB, and little beside what the interpreter and its libraries take.
    hot_bytes_max: int = 64 << 20
    #: Keys and values of one object's custom metadata together.
    custom_bytes_max: int = CUSTOM_BYTES_MAX
    #: A staged write of up to so many bytes has no file before its commit; at least ``inline_bytes_max``.
    staged_in_memory_max: int = 0

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        assert 0 <= self.inline_bytes_max <= 65_536
        assert self.generation_files_max > 0
        assert self.queue_max > 0
        assert self.batch_max > 0
        assert self.reserve_bytes >= 0
        assert self.hot_bytes_max >= 0
        assert CUSTOM_BYTES_MAX <= self.custom_bytes_max <= 16 << 10  # trailer.py looks for so much

"""How long reads and writes of a cluster wait, and for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds."""

    #: A write's wait for its turn: for a map that settles, which takes a lease when a node has died.
    turn: float = 45.0
    #: A write's wait on a node that has lost its lease. It may be cut off: another one will be the home soon.
    lapsed: float = 3.0
    #: One write to the store, beside the time for its bytes.
    write: float = 20.0
    #: How long the store may still do what it gave no answer to. Nobody writes the object meanwhile: a create that is
    #: done after a later delete, or a replacement after a later write of the old bytes, would be done once too often.
    late: float = 30.0
    bytes_per_second: float = 4e6
    #: A read's wait for the writes of its object; then it reads the store, which is right always.
    read: float = 1.0
    #: Bytes above which an object that is not here is read from the store and not copied.
    copied_bytes_max: int = 64 << 20
    #: Copies that one process makes of what it has given out already; reads beyond that wait for theirs.
    keeping_max: int = 32
    #: Before such a copy is made: the reply goes out first, and copies of a few reads share a transaction.
    keeping: float = 0.003


DEFAULT_PATIENCE = Patience()

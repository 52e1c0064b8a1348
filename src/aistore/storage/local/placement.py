"""Which mountpath has an object: rendezvous hashing over the set of mountpaths, and over the sets there were before.

Each mountpath gives each name a weight, the XXH64 of ``<bucket>/<name>`` with a seed that is the XXH64 of the
mountpath's id; the name's *home* is the mountpath with the greatest. A new mountpath becomes the home of its fair share
of all names and changes nobody else's; one that leaves changes the homes of its own names only.

Nothing moves when a mountpath comes. A name that exists stays where it is, so it is looked for in its home and then in
the homes it had under earlier sets, its *candidates*: one for most names, two at most after one mountpath came.
"""

from __future__ import annotations

from typing import Any

import msgspec
import xxhash

_weight = xxhash.xxh64_intdigest

#: The mountpath in the data directory itself: it has the catalog, and cannot leave.
ROOT = "mp0"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A mountpath of the store: its id, never used again, and whether it is to be used.

    ``path`` is its directory, "" for the one in the data directory.
    """

    id: str
    path: str
    enabled: bool = True


class MountpathSet(msgspec.Struct, frozen=True, kw_only=True):
    """The mountpaths of a store, as the catalog keeps them.

    ``store`` is the id that a mountpath's mark names its store by, "" while there is only the first. ``sets`` are the
    ids of every set there was, without those that left; the last one is today's. ``next`` numbers the next mountpath.
    """

    store: str = ""
    members: tuple[Member, ...] = (Member(id=ROOT, path=""),)
    sets: tuple[tuple[str, ...], ...] = ((ROOT,),)
    next: int = 1

    def member(self, id_: str) -> Member | None:
        """Return the member of that id."""
        return next((member for member in self.members if member.id == id_), None)

    def at(self, path: str) -> Member | None:
        """Return the member in that directory."""
        return next((member for member in self.members if member.path == path), None)

    def joined(self, path: str) -> tuple[MountpathSet, Member]:
        """Return the set with one more mountpath, and that."""
        new = Member(id=f"mp{self.next}", path=path)
        members = (*self.members, new)
        sets = (*self.sets, tuple(member.id for member in members))
        return self._with(members=members, sets=sets, next=self.next + 1), new

    def left(self, id_: str) -> MountpathSet:
        """Return the set without a mountpath: as if it had never been there, but for its id."""
        sets: list[tuple[str, ...]] = []
        for before in self.sets:
            after = tuple(one for one in before if one != id_)
            if after not in sets[-1:]:
                sets.append(after)
        return self._with(members=tuple(member for member in self.members if member.id != id_), sets=tuple(sets))

    def switched(self, id_: str, *, enabled: bool) -> MountpathSet:
        """Return the set with a mountpath switched on or off; no name's home changes."""
        return self._with(
            members=tuple(
                Member(id=member.id, path=member.path, enabled=enabled) if member.id == id_ else member
                for member in self.members
            )
        )

    def moved(self, id_: str, path: str) -> MountpathSet:
        """Return the set with a mountpath in another directory."""
        return self._with(
            members=tuple(
                Member(id=member.id, path=path, enabled=member.enabled) if member.id == id_ else member
                for member in self.members
            )
        )

    def begun(self, store: str) -> MountpathSet:
        """Return the set with the id of its store."""
        return self._with(store=store)

    def _with(self, **changes: Any) -> MountpathSet:
        return msgspec.structs.replace(self, **changes)


class Placement:
    """The candidates of names under one MountpathSet."""

    __slots__ = ("_earlier", "_seeds", "ids", "single")

    def __init__(self, mountpaths: MountpathSet) -> None:
        #: Ids of all members, in the order in which they came.
        self.ids = tuple(member.id for member in mountpaths.members)
        #: Whether there is only the first mountpath, so that there is nothing to choose.
        self.single = len(self.ids) == 1
        self._seeds = [(id_, xxhash.xxh64_intdigest(id_.encode())) for id_ in self.ids]
        self._earlier = [frozenset(ids) for ids in reversed(mountpaths.sets[:-1])]

    def candidates(self, bucket: str, key: bytes) -> tuple[str, ...]:
        """Return where an object can be, its home first; ``key`` is its name in UTF-8."""
        if self.single:
            return self.ids
        name = b"%b/%b" % (bucket.encode(), key)
        weights = [(_weight(name, seed), id_) for id_, seed in self._seeds]
        home = max(weights)[1]
        found: tuple[str, ...] = (home,)
        for ids in self._earlier:
            if home not in ids:  # else it was the home then, too
                earlier = max([weight for weight in weights if weight[1] in ids])[1]
                if earlier not in found:
                    found += (earlier,)
        return found


def encode(mountpaths: MountpathSet) -> bytes:
    """Return a set as the catalog keeps it."""
    return msgspec.json.encode(mountpaths)


def decode(data: bytes) -> MountpathSet:
    """Read what ``encode`` wrote."""
    return msgspec.json.decode(data, type=MountpathSet)

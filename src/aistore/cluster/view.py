"""What a node makes of the root document: which node is the home of an object, and since when."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import BucketNotFoundError
from ..model import rendezvous
from ..model.names import SCHEMES
from .documents import BucketRecord, RootDocument

#: Homes that are remembered, each some 150 bytes: looking one up is a tenth of computing it.
_HOMES_MAX = 100_000


class View:
    """One version of the root document as one node sees it; nothing of it changes.

    ``settled`` is the latest epoch below which no node acts any more, as far as this node knows.
    """

    def __init__(self, root: RootDocument, me: str, settled: int) -> None:
        self.root = root
        self.me = me
        self.version = root.version
        self.epoch = root.epoch
        self.settled = max(settled, root.settled)
        self._maps = [(epoch.number, {node: rendezvous.digest(node) for node in epoch.homes}) for epoch in root.history]
        self._homes: dict[str, tuple[str, int]] = {}

    @property
    def stamp(self) -> tuple[int, int]:
        """What tells this view from another: a later version, or the same one with more settled."""
        return self.version, self.settled

    def bucket(self, provider: str, name: str) -> BucketRecord:
        """Return a bucket; raises BucketNotFoundError."""
        record = self.root.buckets.get(f"{provider}/{name}")
        if record is None or record.deleting:
            raise BucketNotFoundError.of(name, SCHEMES.get(provider, provider))
        return record

    def home(self, bucket: BucketRecord, name: str) -> str:
        """Return the id of the node that keeps an object; empty while there is no node."""
        return self._home(bucket, name)[0]

    def is_mine_since(self, bucket: BucketRecord, name: str, epoch: int) -> bool:
        """Say whether this node was an object's home in every epoch from ``epoch`` to now."""
        home, since = self._home(bucket, name)
        return home == self.me and since <= epoch

    def is_mine(self, bucket: BucketRecord, name: str) -> bool:
        """Say whether this node is an object's home and no other one can still believe to be it."""
        return self.is_mine_since(bucket, name, self.settled)

    def may_serve(self, bucket: BucketRecord, name: str, stamp: int) -> bool:
        """Say whether a copy stamped with epoch ``stamp`` may be given out without asking the store.

        It was equal to the store's when every node acted in ``stamp`` or later, and since then only this node wrote.
        """
        return self.is_mine_since(bucket, name, min(stamp, self.settled))

    def _home(self, bucket: BucketRecord, name: str) -> tuple[str, int]:
        """Return an object's home, and the first epoch of those up to now in all of which it was that."""
        uname = rendezvous.uname(bucket.provider, bucket.name, name)
        found = self._homes.get(uname)
        if found is None:
            if len(self._homes) >= _HOMES_MAX:
                self._homes.clear()
            found = self._homes[uname] = self._compute(uname)
        return found

    def _compute(self, uname: str) -> tuple[str, int]:
        home, since = "", self.epoch
        for number, digests in reversed(self._maps):
            here = rendezvous.home(digests, uname) if digests else ""
            if not home and number == self.epoch:
                home = here
            elif here != home:
                break
            since = number
        return home, since


def urls(root: RootDocument) -> Mapping[str, str]:
    """Return where each node is reached."""
    return {node: record.url for node, record in root.nodes.items()}

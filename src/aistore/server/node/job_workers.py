"""The nodes of a cluster, as the owner of a job sees them: its own HTTP workers, and other nodes over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ...cluster.view import View
from ...errors import PeerUnreachableError
from ...jobs.batch import Batch, BatchResult
from ...jobs.chosen import NamesPage
from ...jobs.document import Job
from ...jobs.targets import target_name
from ...model.names import parse_bucket_uri
from ..job_link import OwnWorkers
from ..peers import Peers

#: A batch that takes longer is given to somebody again. Derived: what two workers need for 64 objects that take as long
#: as a transform may by default, with some to spare.
_BATCH_SECONDS = 2400.0
#: Batches that another node has in hand for jobs of this one. Guessed: two for each of two HTTP workers.
_AT_ONCE = 4


class ClusterWorkers:
    """Hands each batch to the home of what it writes: there it is written under the object's own lock."""

    def __init__(self, own: OwnWorkers, peers: Peers, view: Callable[[], View], me: str) -> None:
        self._own = own
        self._peers = peers
        self._view = view
        self._me = me
        self._rooms: dict[str, asyncio.Semaphore] = {}

    async def names(self, bucket: str, prefix: str, after: str, limit: int, *, cached: bool = False) -> NamesPage:
        """Return a page of the names of a bucket, as this node lists them."""
        return await self._own.names(bucket, prefix, after, limit, cached=cached)

    def home(self, job: Job, name: str) -> str:
        """Return the home of what an object becomes, or of the object itself if nothing is written."""
        view, dry = self._view(), job.options.dry_run
        bucket = view.bucket(*parse_bucket_uri(job.source if dry else job.destination))
        return view.home(bucket, name if dry else target_name(name, job.options)) or self._me

    async def run(self, node: str, batch: Batch) -> BatchResult:
        """Have a node work off a batch; raises RetryLaterError when it is lost."""
        if node == self._me:
            return await self._own.run(node, batch)
        async with self._rooms.setdefault(node, asyncio.Semaphore(_AT_ONCE)):
            answer = await self._peers.json(
                node, "POST", "/v1/internal/jobs", msgspec.to_builtins(batch), seconds=_BATCH_SECONDS
            )
        try:
            return msgspec.convert(answer, BatchResult)
        except msgspec.ValidationError as error:
            raise PeerUnreachableError(f"node {node} answers nonsense: {error}") from error

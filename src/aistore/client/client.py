"""The client: one store, and the way to its buckets and transforms."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType

import msgspec

from ..errors import RetryLaterError
from ..model.names import SCHEMES, BucketRef, bucket_ref, canonical_provider
from ..wire.messages import EtlSummary, ScrubReport
from .bucket import Bucket
from .cluster import ClusterInfo, NodePerformance, cluster_info, node_performance
from .endpoint import Endpoint, find_endpoints
from .etl import Etl, list_etls
from .job import Job, JobInfo, list_jobs
from .legacy import LegacyCalls
from .nodes import Nodes
from .retry import RetryPolicy
from .scrub import scrub_report, start_scrub, stop_scrub
from .storage import Storage
from .transport import Request, Transport, TransportSettings


class _BucketId(msgspec.Struct, frozen=True):
    name: str
    provider: str = "ais"


class Client(LegacyCalls):
    """A store at ``endpoint``; None takes AIS_ENDPOINT, else ``http://127.0.0.1:8080``.

    Several addresses, separated by commas, are nodes of one cluster and tried in turn. Where the store is a cluster,
    requests for objects go straight to the node that has them, unless ``follow_map`` is false.

    Threads may share a client, forked and spawned processes may use one they inherited: each process opens its own
    connections. ``retry`` says how long to insist, the timeouts are in seconds, ``token`` (default: AIS_AUTHN_TOKEN)
    goes with every request.

    >>> client = Client("http://127.0.0.1:8080")
    >>> client.bucket("imagenet").object("train/0278350.jpg").get(etl="resize").read()  # doctest: +SKIP
    """

    def __init__(
        self,
        endpoint: str | Endpoint | Sequence[Endpoint] | None = None,
        *,
        connect_timeout_seconds: float = 5.0,
        read_timeout_seconds: float = 120.0,
        transform_timeout_seconds: float = 600.0,
        connections_max: int = 64,
        retry: RetryPolicy | None = None,
        token: str | None = None,
        follow_map: bool = True,
    ) -> None:
        settings = TransportSettings(
            connect_timeout_seconds=connect_timeout_seconds,
            read_timeout_seconds=read_timeout_seconds,
            transform_timeout_seconds=transform_timeout_seconds,
            connections_max=connections_max,
            retry=retry or RetryPolicy(),
            token=os.environ.get("AIS_AUTHN_TOKEN", "") if token is None else token,
            follow_map=follow_map,
        )
        if isinstance(endpoint, Endpoint):
            found: tuple[Endpoint, ...] = (endpoint,)
        else:
            found = find_endpoints(endpoint) if endpoint is None or isinstance(endpoint, str) else tuple(endpoint)
        self.transport = Transport(found, settings)

    def __repr__(self) -> str:
        return f"Client({self.endpoint!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """The address of the store."""
        return self.transport.endpoint.url

    def close(self) -> None:
        """Close idle connections. The client stays usable."""
        self.transport.close()

    def bucket(self, name: str | BucketRef, provider: str = "") -> Bucket:
        """Return the handle of one bucket; asks the store nothing.

        ``provider`` is ``ais`` (the default), ``s3``, ``gs``, ``az`` or ``ht``; ``bucket("s3://lake")`` is the same as
        ``bucket("lake", "s3")``.
        """
        return Bucket(self.transport, bucket_ref(name, provider))

    def buckets(self, provider: str = "") -> list[Bucket]:
        """Return all buckets of the store, or those of one provider, by provider and name."""
        request = Request(
            "GET", "/v1/buckets", query={"provider": canonical_provider(provider) if provider else ""},
            headers={"Content-Type": "application/json"},
            body=b'{"action":"list","name":"","value":null}',
        )  # fmt: skip
        found = self.transport.fetch(request, list[_BucketId])
        refs = [BucketRef(bucket.provider, bucket.name) for bucket in found if bucket.provider in SCHEMES]
        return [Bucket(self.transport, ref) for ref in sorted(refs)]

    def etl(self, name: str = "") -> Etl:
        """Return the handle of one transform; asks the store nothing. Without a name the store chooses one."""
        return Etl(self.transport, name)

    def etls(self) -> list[EtlSummary]:
        """Return all transforms of the store, with their stages."""
        return list_etls(self.transport)

    def job(self, job_id: str) -> Job:
        """Return the handle of one job; asks the store nothing."""
        return Job(self.transport, job_id)

    def jobs(self, *, kind: str = "") -> list[JobInfo]:
        """Return the jobs that run and those that have ended, as far as the store remembers them, newest first."""
        return list_jobs(self.transport, kind=kind)

    def cluster(self) -> ClusterInfo:
        """Return the cluster map: the nodes and where they answer."""
        return cluster_info(self.transport)

    def nodes(self) -> Nodes:
        """Return the handle of the cluster's nodes; asks the store nothing."""
        return Nodes(self.transport)

    def storage(self) -> Storage:
        """Return the handle of the store's disks; asks the store nothing."""
        return Storage(self.transport)

    def performance(self) -> list[NodePerformance]:
        """Return what every target has counted since the store started, and how full its disks are."""
        return node_performance(self.transport)

    def start_scrub(self, bytes_per_second: int = 0) -> ScrubReport:
        """Begin to verify all objects now, at most so fast (0 leaves it to the store)."""
        return start_scrub(self.transport, bytes_per_second)

    def stop_scrub(self) -> ScrubReport:
        """End the pass that is under way."""
        return stop_scrub(self.transport)

    def scrub_report(self) -> ScrubReport:
        """Return how far the verification of all objects is, and which ones are known to be damaged."""
        return scrub_report(self.transport)

    def is_ready(self) -> bool:
        """Return whether a store answers at the endpoint and is ready for requests."""
        try:
            self.transport.call(Request("GET", "/v1/health"))
        except RetryLaterError:
            return False
        return True

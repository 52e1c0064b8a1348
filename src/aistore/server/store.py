"""What handlers work with: settings, engine, threads, the controller, transforms. One per HTTP worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..cluster.documents import BucketRecord
from ..errors import InternalError
from ..etl.dispatch import Dispatcher
from ..etl.results import Results, results_directory, results_settings
from ..model.names import canonical_provider, check_provider
from ..observe.totals import TotalsReader
from ..settings import ProcessSettings
from ..storage.engine import Engine, KeptReading, Reading
from ..storage.local.facts import MountpathFacts, mountpath_facts
from .admission import Admission
from .link import ControllerLink
from .node.worker import SharedObjects
from .request import Request
from .stalls import Stalls

T = TypeVar("T")


#: How long whoever asks for metrics waits for the disks.
_FACTS_SECONDS_MAX = 2.0


class DiskFacts:
    """Asks the disks how full they are, in a thread, once at a time: one that hangs holds up one thread."""

    def __init__(self, threads: ThreadPoolExecutor, data: str, seconds_max: float = _FACTS_SECONDS_MAX) -> None:
        self._threads = threads
        self._data = data
        self._seconds_max = seconds_max
        self._asking: asyncio.Future[list[MountpathFacts]] | None = None

    async def get(self) -> list[MountpathFacts] | None:
        """Return the facts of every mountpath, None if a disk does not answer in time or at all."""
        if self._asking is None or self._asking.done():
            loop = asyncio.get_running_loop()
            self._asking = loop.run_in_executor(self._threads, mountpath_facts, self._data)
        asking = self._asking
        await asyncio.wait((asking,), timeout=self._seconds_max)
        return asking.result() if asking.done() and asking.exception() is None else None


class Store:
    """What handlers work with: the engine, threads to wait in, the controller and the transforms."""

    def __init__(self, settings: ProcessSettings, engine: Engine | None, shared: SharedObjects | None = None) -> None:
        self.settings = settings
        self.limits = settings.serve.limits
        self._engine = engine
        self.shared = shared
        self.threads = ThreadPoolExecutor(self.limits.io_threads, thread_name_prefix="io")
        self.admission = Admission(self.limits, self.threads.submit)
        self.stalls = Stalls(self.limits.body_stall_seconds)
        self.controller = ControllerLink(settings.controller_socket)
        self.totals = TotalsReader(settings.runtime)
        self.disks = DiskFacts(self.threads, settings.serve.data)
        serve = settings.serve
        kept = results_directory(serve.data)
        self.results = Results(kept, settings.spool, results_settings(serve), self.threads, self.limits)
        self.dispatcher = Dispatcher(self.controller, self.threads, self.limits, settings.spool, self.results)

    @property
    def is_node(self) -> bool:
        """Whether this is a node of a cluster, whose objects are in an object store."""
        return self._engine is None

    @property
    def engine(self) -> Engine:
        """The engine of the objects that are on this machine alone."""
        if self._engine is None:
            raise InternalError("a node of a cluster has no objects of its own")
        return self._engine

    def shared_bucket(self, request: Request, bucket: str) -> BucketRecord | None:
        """Return the bucket if its objects are in an object store, None if they are on this machine alone.

        Raises BucketNotFoundError, BadRequestError and NotSupportedError for the provider.
        """
        provider = request.query.get("provider", "") if request.query else ""
        if self.shared is None:
            check_provider(provider)
            return None
        provider = canonical_provider(provider)
        if provider == "ais" and not self.is_node:
            return None
        return self.shared.bucket(provider, bucket)

    def kept(self, bucket: str, name: str) -> KeptReading | None:
        """Return an object of an ais:// bucket that is in memory and may be given out; never waits."""
        if self._engine is not None:
            return self._engine.kept(bucket, name)
        assert self.shared is not None
        return self.shared.kept(bucket, name)

    def open_quickly(self, bucket: str, name: str) -> Reading | None:
        """Open an object of an ais:// bucket if that needs no other machine; else return None, or raise as ``get``."""
        if self._engine is not None:
            return self._engine.get(bucket, name)
        assert self.shared is not None
        return self.shared.open_quickly(bucket, name)

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a blocking call in the threads that are there for it."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)

    async def done(self, future: Future[T]) -> T:
        """Wait for an engine's future; a client that goes away meanwhile does not undo the write."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()

        def wake() -> None:
            if not waiter.done():  # the request may have been cancelled
                waiter.set_result(None)

        def wake_loop(_: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(wake)

        future.add_done_callback(wake_loop)
        await waiter
        return future.result()

    def close(self) -> None:
        """Finish accepted writes and give everything back."""
        self.dispatcher.close()
        self.threads.shutdown(wait=True, cancel_futures=True)
        self.results.close()
        if self._engine is not None:
            self._engine.close()

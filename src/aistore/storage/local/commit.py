"""One thread per mountpath that makes everything durable: operations in, one transaction per batch, futures out.

Natural group commit: whatever queued up while one transaction ran becomes the next. The index is held for writing only
while rows change; bytes are written before.
"""

from __future__ import annotations

import queue
import threading
import time
from bisect import bisect_left
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ...errors import AisError, OverloadedError
from ...observe.counters import COUNTERS
from ...observe.layout import COMMIT_CHANGES, COMMIT_HISTOGRAM, COMMIT_NS, COMMIT_QUEUE, COMMIT_SIZES, COMMITS
from . import index
from .operations import Operation, Result, Write
from .settings import LocalSettings
from .turn import Elsewhere, Turn

if TYPE_CHECKING:
    from .mountpaths import Mountpaths
    from .opened import OpenMountpath

#: How often an operation may be sent to another mountpath. Guessed: once is usual; again only when the object was
#: deleted or created, or the set of mountpaths changed, between two steps.
_HOPS_MAX = 20
#: How soon a process lets go of a mountpath that is not used any more, so that its disk can be unmounted.
_IDLE_SECONDS = 1.0


class Committer:
    """The thread of one mountpath, and its queue."""

    def __init__(self, disk: OpenMountpath, mountpaths: Mountpaths, settings: LocalSettings) -> None:
        self._disk = disk
        self._health = disk.health
        self._mountpaths = mountpaths
        self._settings = settings
        places = disk.places
        self._writer = index.Writer(places.database, places.commit_lock, disk.stamps, durable=settings.durable)
        self._queue: queue.SimpleQueue[Operation[Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"aistore-commit-{disk.id}", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[Result]) -> Future[Result]:
        """Queue an operation; raises OverloadedError when the queue is full."""
        if self._queue.qsize() >= self._settings.queue_max:
            raise OverloadedError(f"{operation.what}: {self._settings.queue_max} writes are waiting already")
        self.accept(operation)
        return operation.future

    def accept(self, operation: Operation[Any]) -> None:
        """Queue an operation that was accepted already, elsewhere; raises when this mountpath is closed."""
        with self._lock:
            if self._closed:
                raise self._health.closed(operation.what)
            COUNTERS.words[COMMIT_QUEUE] += 1
            self._queue.put(operation)

    def end(self) -> None:
        """Accept nothing more; the thread finishes what it has, then ends. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)

    def join(self) -> None:
        """Wait for the thread's end, after ``end``."""
        self._thread.join()

    def _run(self) -> None:
        running = True
        try:
            while running:
                batch = self._next_batch()
                running = not batch or batch[-1] is not None
                began_ns = time.perf_counter_ns()
                self._commit([operation for operation in batch if operation is not None and self._begin(operation)])
                _count(len(batch) - batch.count(None), time.perf_counter_ns() - began_ns)
                del batch
        finally:
            self._disk.store.close()  # not before: what was accepted is written yet, and synced
            self._writer.close()
            del self._disk  # or each would keep the other, with all its connections, until garbage is collected

    def _next_batch(self) -> list[Operation[Any] | None]:
        """Return what has queued up, None at its end for the end of all; empty when nothing came for a while."""
        try:
            batch = [self._queue.get(timeout=_IDLE_SECONDS if self._disk.further else None)]
        except queue.Empty:
            if not self._health.current:
                self._mountpaths.drop(self._disk)
            return []
        while batch[-1] is not None and len(batch) < self._settings.batch_max:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch

    def _begin(self, operation: Operation[Any]) -> bool:
        if not operation.hops and not operation.future.set_running_or_notify_cancel():
            operation.undo()
            return False
        try:
            self._disk.health.check()
            operation.prepare(self._disk.store)
        except Exception as error:
            operation.error = error
            self._finish(operation)
            return False
        return True

    def _commit(self, batch: list[Operation[Any]]) -> None:
        if not batch:
            return
        try:
            changes = [operation.slot for operation in batch]
            synced = any(operation.of_all for operation in batch) and not self._mountpaths.single
            with self._writer.transaction(changes, lambda: _roll_back(batch), synced=synced) as connection:
                # The turn may have come late: a disk that was unmounted meanwhile takes writes that nobody will see.
                self._disk.health.check()
                turn = Turn(connection, self._disk, self._mountpaths)
                for operation in batch:
                    _apply(operation, turn)
                self._sync(batch)
        except Exception as error:
            if len(batch) > 1:
                # Only the operation at fault shall fail: on a full disk, say, deletes still go through.
                for operation in batch:
                    if operation.error is None and operation.elsewhere is None:
                        self._commit([operation])
                    else:
                        self._finish(operation)
                return
            batch[0].error = batch[0].error or error
        for operation in batch:
            self._finish(operation)

    def _sync(self, batch: list[Operation[Any]]) -> None:
        writes = [op for op in batch if isinstance(op, Write) and op.sync_first and _is_applied(op)]
        self._disk.store.sync([write.file for write in writes if write.file is not None])

    def _finish(self, operation: Operation[Any]) -> None:
        if operation.error is None and operation.elsewhere is not None:
            self._send_on(operation, operation.elsewhere)
            return
        try:
            if operation.error is None:
                operation.committed()
            else:
                operation.undo()
        except OSError as error:
            operation.error = operation.error or error
        if operation.error is None:
            operation.future.set_result(operation.result)
        else:
            operation.future.set_exception(self._disk.health.fault(operation.error, operation.what))
        # Do not keep the bytes and the caller alive until the next batch.
        operation.result = operation.error = None

    def _send_on(self, operation: Operation[Any], mountpath: str) -> None:
        operation.elsewhere = None
        operation.hops += 1
        try:
            if operation.hops > _HOPS_MAX:
                raise OverloadedError(f"{operation.what}: it is being changed by too many at once")
            self._mountpaths.get(mountpath, operation.what).committer.accept(operation)
        except Exception as error:
            operation.error = error
            self._finish(operation)


def _count(changes: int, took_ns: int) -> None:
    words = COUNTERS.words
    words[COMMIT_QUEUE] -= changes
    if changes:
        bucket = COMMIT_HISTOGRAM + bisect_left(COMMIT_SIZES, changes)
        words[bucket] += 1
        words[COMMITS] += 1
        words[COMMIT_CHANGES] += changes
        words[COMMIT_NS] += took_ns


def _is_applied(operation: Operation[Any]) -> bool:
    return operation.error is None and operation.elsewhere is None


def _apply(operation: Operation[Any], turn: Turn) -> None:
    try:
        operation.result = operation.apply(turn)
    except Elsewhere as elsewhere:
        operation.elsewhere = elsewhere.mountpath
    except (AisError, OSError) as error:
        operation.error = error
        operation.rolled_back()


def _roll_back(batch: list[Operation[Any]]) -> None:
    for operation in batch:
        operation.rolled_back()

"""The wire on which the controller hands batches of jobs to this node's HTTP workers.

HTTP workers connect to a Unix socket of the controller and keep the connection: it carries questions one way and
answers the other, several at a time, and its end says at once that one of the two has died. The controller chooses the
worker that has least in hand, so all of them are busy; a listening socket that they shared would leave that to chance.
Messages are framed as link.py frames them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ..errors import OverloadedError, error_from_code
from ..jobs.batch import Batch, BatchResult, Objects, run_batch
from ..jobs.chosen import NamesPage
from ..jobs.document import Job
from ..jobs.recipes import fact_of
from ..model.objects import ListOptions
from .error_replies import as_ais_error
from .link import encode, receive

_log = logging.getLogger("aistore.jobs")

#: Batches that one HTTP worker has in hand: one that it works on, and one more so that it does not wait for the next.
_IN_HAND_MAX = 2
_CONNECT_PAUSE_SECONDS = 0.1
#: How long a worker that does not answer is waited for when its batch is cancelled. Guessed: a commit takes less.
_CANCEL_SECONDS = 5.0


class _Worker:
    """A connection to one HTTP worker, in the controller."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.batches = 0
        self.open: dict[int, asyncio.Future[Any]] = {}

    def send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # its reader notices, and tells all who wait
            self.writer.write(encode(message))

    def answer(self, message: dict[str, Any]) -> None:
        future = self.open.pop(message["id"], None)
        if future is None or future.done():
            return
        if "error" in message:
            code, text, hint, status = message["error"]
            future.set_exception(error_from_code(code, text, hint=hint, status=status))
        else:
            future.set_result(message["result"])

    def lost(self) -> None:
        for future in self.open.values():
            if not future.done():
                future.set_exception(OverloadedError("an HTTP worker ended during its batch"))
            future.exception()  # nobody may wait any more
        self.open.clear()


class OwnWorkers:
    """The HTTP workers of this node, as jobs see them. Belongs to the controller's event loop."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._workers: list[_Worker] = []
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def listen(self, path: str) -> None:
        """Take connections of HTTP workers at ``path``."""
        with contextlib.suppress(FileNotFoundError):  # a controller that was killed left it
            os.unlink(path)
        self._server = await asyncio.start_unix_server(self._serve, path)

    def close(self) -> None:
        """End the connections; whoever waits for an answer gets OverloadedError."""
        if self._server is not None:
            self._server.close()
        for worker in self._workers:
            worker.writer.close()

    async def names(self, bucket: str, prefix: str, after: str, limit: int, *, cached: bool = False) -> NamesPage:
        """Return a page of the names of a bucket, with ``cached`` only of objects with a copy."""
        message = {"bucket": bucket, "prefix": prefix, "after": after, "limit": limit, "cached": cached}
        async with self._changed:
            await self._changed.wait_for(lambda: self._workers)
        worker = min(self._workers, key=lambda worker: len(worker.open))
        return msgspec.convert(await self._ask(worker, {"names": message}), NamesPage, strict=False)

    def home(self, job: Job, name: str) -> str:
        """Return this node: it is the only one."""
        return self._node

    async def run(self, node: str, batch: Batch) -> BatchResult:
        """Have an HTTP worker work off a batch, once one has room for it."""
        async with self._changed:
            await self._changed.wait_for(self._free)
            worker = self._free()
            assert worker is not None
            worker.batches += 1
        try:
            return msgspec.convert(await self._ask(worker, {"batch": msgspec.to_builtins(batch)}), BatchResult)
        finally:
            worker.batches -= 1
            await asyncio.shield(self._wake())

    def _free(self) -> _Worker | None:
        least = min(self._workers, key=lambda worker: worker.batches, default=None)
        return least if least is not None and least.batches < _IN_HAND_MAX else None

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _ask(self, worker: _Worker, question: dict[str, Any]) -> Any:
        number = next(self._numbers)
        future = worker.open[number] = asyncio.get_running_loop().create_future()
        worker.send({"id": number, **question})
        try:
            return await future
        except asyncio.CancelledError:
            answer = worker.open[number] = asyncio.get_running_loop().create_future()
            worker.send({"id": number, "cancel": True})
            await asyncio.wait((answer,), timeout=_CANCEL_SECONDS)  # nothing of it is written any more after that
            raise
        finally:
            worker.open.pop(number, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = _Worker(writer)
        self._workers.append(worker)
        try:
            await self._wake()
            while True:
                worker.answer(await receive(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._workers.remove(worker)
            worker.lost()
            writer.close()


class JobService:
    """The other end, in an HTTP worker: answers the controller's questions until it is closed."""

    def __init__(self, path: str, objects: Objects) -> None:
        self._path = path
        self._objects = objects
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._main = asyncio.ensure_future(self._follow())

    async def close(self) -> None:
        """End what is under way; the controller gives it to another."""
        self._main.cancel()
        await asyncio.gather(self._main, return_exceptions=True)

    async def _follow(self) -> None:
        """Stay connected to the controller, whichever runs."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(_CONNECT_PAUSE_SECONDS)
                continue
            try:
                while True:
                    self._take(await receive(reader), writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # the controller has died: its successor asks again
            finally:
                writer.close()
                tasks = list(self._tasks.values())
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._tasks.clear()

    def _take(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        number = message["id"]
        if "cancel" in message:
            if number in self._tasks:
                self._tasks[number].cancel()
            else:  # it has ended, and its answer may have come when nobody waited
                writer.write(encode({"id": number, "result": None}))
            return
        ask: Callable[[], Awaitable[Any]]
        if "batch" in message:
            batch = msgspec.convert(message["batch"], Batch)
            ask = lambda: run_batch(self._objects, batch)  # noqa: E731
        else:
            ask = lambda: self._names(**message["names"])  # noqa: E731
        task = asyncio.ensure_future(self._answer(number, ask, writer))
        self._tasks[number] = task
        task.add_done_callback(lambda task: self._over(number, task, writer))

    def _over(self, number: int, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        """Say that what was cancelled has ended, also if it had not begun."""
        self._tasks.pop(number, None)
        if task.cancelled() and not writer.is_closing():
            writer.write(encode({"id": number, "result": None}))

    async def _names(self, bucket: str, prefix: str, after: str, limit: int, cached: bool) -> NamesPage:
        options = ListOptions(prefix, after, limit)
        page = await (self._objects.list_cached if cached else self._objects.list)(bucket, options)
        facts = {info.name: fact_of(info) for info in page.entries}
        return NamesPage([(info.name, info.size) for info in page.entries], page.continuation, facts)

    async def _answer(self, number: int, ask: Callable[[], Awaitable[Any]], writer: asyncio.StreamWriter) -> None:
        try:
            answer = {"id": number, "result": msgspec.to_builtins(await ask())}
        except Exception as error:  # becomes the controller's exception
            ours = as_ais_error(error)
            answer = {"id": number, "error": [ours.code, ours.message, ours.hint, ours.status]}
        if not writer.is_closing():
            writer.write(encode(answer))

"""What handlers work with: settings, engine, threads, the controller, transforms. One per HTTP worker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..etl.dispatch import Dispatcher
from ..settings import ProcessSettings
from ..storage.engine import Engine
from .link import ControllerLink

T = TypeVar("T")


class Store:
    """What handlers work with: the engine, threads to wait in, the controller and the transforms."""

    def __init__(self, settings: ProcessSettings, engine: Engine) -> None:
        self.settings = settings
        self.limits = settings.serve.limits
        self.engine = engine
        self.threads = ThreadPoolExecutor(self.limits.io_threads, thread_name_prefix="io")
        self.controller = ControllerLink(settings.controller_socket)
        self.dispatcher = Dispatcher(self.controller, self.threads, self.limits, settings.spool)

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
        self.engine.close()

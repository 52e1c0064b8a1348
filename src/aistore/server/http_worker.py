"""An HTTP worker process; its arguments: ``<listen fd> <lifeline fd> <ready fd> <place>``."""

from __future__ import annotations

import functools
import gc
import socket
import sys

import uvloop

from ..settings import ProcessSettings
from ..storage.local.engine import LocalEngine
from ..storage.local.locks import join_writers
from ..storage.local.settings import LocalSettings
from .admission import keep_freed_memory
from .app import App
from .asgi import serve
from .job_link import JobService
from .job_objects import StoreObjects
from .link import ControllerLink
from .node.worker import SharedObjects
from .process import (
    begin,
    connections_allowed,
    end_with_parent,
    raise_descriptor_limit,
    read_settings,
    say_ready,
    stop_on_signals,
)
from .store import Store

#: After so long a thread that works lets others have the interpreter, Python's own 5 ms being long for a thread that
#: has only to ask for the next page of a listing: 100,000 names through a node at 0.93 of the object store's own rate
#: instead of 0.81. Reads and transforms cost the same.
_SWITCH_SECONDS = 0.0005


async def _run(settings: ProcessSettings, listener: socket.socket, ready: int, place: str) -> None:
    stop = stop_on_signals()
    writers = join_writers(settings.serve.data)
    store = _open_store(settings, place)
    assert store.shared is not None
    store.shared.start()
    jobs = JobService(settings.jobs_socket, StoreObjects(store))
    app = App(store)
    try:
        await app.start()
        # What is there from the start stays: looking through it again and again took 30 ms at a time.
        gc.freeze()
        await serve(
            app,
            listener,
            stop,
            functools.partial(say_ready, ready),
            settings.serve.limits,
            connections_allowed(settings.serve.limits),
        )
    finally:
        app.close()
        await jobs.close()
        await store.shared.close()
        store.close()
        writers.close()


def _open_store(settings: ProcessSettings, place: str) -> Store:
    serve = settings.serve
    shared = SharedObjects(settings, ControllerLink(settings.controller_socket), place)
    if serve.store:
        return Store(settings, None, shared)
    return Store(settings, LocalEngine(serve.data, LocalSettings(durable=serve.durability == "durable")), shared)


def main() -> None:
    """Run until told to stop, or until the supervisor ends."""
    listen, lifeline, ready = (int(argument) for argument in sys.argv[1:4])
    end_with_parent(lifeline)
    raise_descriptor_limit()
    keep_freed_memory()
    sys.setswitchinterval(_SWITCH_SECONDS)
    settings = read_settings()
    begin(sys.argv[4], settings)
    with socket.socket(fileno=listen) as listener:
        uvloop.run(_run(settings, listener, ready, sys.argv[4]))

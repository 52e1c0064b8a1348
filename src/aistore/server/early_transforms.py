"""GETs through a transform that are sent to it before the event loop hears of them.

On Granian's second thread (asgi.py), the object of a plain GET goes to the transform's workers as soon as the request
is there, if its bytes are in memory and nothing else is to be done for it; the event loop hears of it when the worker
answers. What comes back as a result within a moment becomes the reply here. Everything else goes the ordinary way from
where it is (``Dispatcher.transform`` with what was sent): an answer that is an error or none, a result that is large, a
worker that takes its time, for which time limits and a client that leaves have to be watched.

Measured with empty transforms of pictures of 110 KB, 16 connections: 435 us of CPU, HTTP and warm worker together,
and 520 by the ordinary way.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from time import monotonic, perf_counter_ns
from typing import Any

from ..errors import AisError
from ..etl.early import EarlyObject
from ..etl.sent import SentEarly
from ..etl.warm import WATCH_AFTER_SECONDS
from ..fallbacks import lacks
from ..model.etl import TransformCall
from ..observe.layout import ETL
from .asgi import Schedule
from .at_once import AtOnce
from .handlers.transform_calls import ETL_ARGS, ETL_NAME, ETL_NAME_2021, SEED, call_of_query
from .record import Recorder
from .replies import Bytes
from .request import EARLY, parse_query
from .store import Store

#: Requests of one process that are here at once; more go the ordinary way. Guessed: several per core of many.
_UNDER_WAY_MAX = 256
#: How long an object is here that no worker has begun with.
_WAIT_SECONDS = 1.0
_LOOK_SECONDS = WATCH_AFTER_SECONDS
#: Query strings whose calls are known. A program sends the same ones again and again.
_CALLS_MAX = 256
#: The query parameters that such a request may have.
_PARAMETERS = frozenset({ETL_NAME, ETL_NAME_2021, ETL_ARGS, SEED, "provider"})


def can_be_early() -> bool:
    """Say whether this host has what it takes."""
    return hasattr(select, "epoll") and not lacks("memfd")


class EarlyTransforms:
    """Sends objects early. ``take`` belongs to the thread that makes requests, the rest to the event loop."""

    def __init__(self, store: Store, asking: AtOnce, recorder: Recorder) -> None:
        self._store = store
        self._asking = asking
        self._recorder = recorder
        self._calls: dict[bytes, TransformCall | None] = {}
        self._under_way: dict[int, _UnderWay] = {}
        self._looks = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        # One that holds the others: a thread that is not the loop's may add to it.
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._readable)

    def take(self, watcher: Any, schedule: Schedule) -> bool:
        """Take a GET through a transform over (Granian's ``watcher``); never waits or raises.

        False: nothing was done. What is taken is answered, or given to ``schedule`` later.
        """
        scope = watcher.scope
        if scope["method"] != "GET" or not scope["query_string"] or len(self._under_way) >= _UNDER_WAY_MAX:
            return False
        try:
            started_ns = perf_counter_ns()
            call, asked = self._call(scope["query_string"]), self._asking.named(scope)
            if call is None or asked is None:
                return False
            reading = self._store.open_quickly(*asked)
            if reading is None:
                return False
            with reading:
                sent = self._store.dispatcher.send_early(call, reading)
            if sent is None:
                return False
        except Exception:  # the event loop finds it again, and makes it a reply
            return False
        assert sent.connection is not None
        number = sent.connection.fileno()
        self._under_way[number] = _UnderWay(watcher, schedule, sent, started_ns)
        with contextlib.suppress(ValueError):  # closed: the process ends
            self._epoll.register(number, select.EPOLLIN)
        if not self._looks:
            self._looks = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._look_later)
        return True

    def close(self) -> None:
        """End everything that is under way."""
        self._closed = True
        self._loop.remove_reader(self._epoll.fileno())
        for number in list(self._under_way):
            self._leave(self._under_way.pop(number))
        self._epoll.close()

    def _call(self, query: bytes) -> TransformCall | None:
        """Return the one transform that a query string asks for, None if it asks for anything else."""
        if query in self._calls:
            return self._calls[query]
        call = None
        with contextlib.suppress(AisError):
            parameters = parse_query(query)
            if parameters.keys() <= _PARAMETERS and parameters.get("provider", "ais") == "ais":
                call = call_of_query(parameters)
        if len(self._calls) >= _CALLS_MAX:
            self._calls.clear()
        self._calls[query] = call
        return call

    def _readable(self) -> None:
        for number, _ in self._epoll.poll(0):
            under_way = self._under_way.get(number)
            if under_way is not None and under_way.hear():
                del self._under_way[number]
                data = under_way.result()
                if data is None:
                    self._leave(under_way)
                else:
                    self._answer(under_way, data)

    def _answer(self, under_way: _UnderWay, data: bytes) -> None:
        watcher = under_way.watcher
        under_way.end(len(data))  # before anybody can ask how many there are
        try:
            messages = Bytes(data).messages(head=False)
            send = watcher.proto.send
            for message in self._recorder.at_once(watcher.scope, messages, under_way.started_ns, ETL):
                send(message)
        except Exception as error:
            watcher.err(error)
        else:
            watcher.done()
        self._store.dispatcher.end_early(under_way.sent)

    def _leave(self, under_way: _UnderWay) -> None:
        """Have a request served the ordinary way, from where it is."""
        under_way.end()
        assert under_way.sent.connection is not None
        with contextlib.suppress(OSError):
            self._epoll.unregister(under_way.sent.connection.fileno())
        under_way.watcher.scope[EARLY] = under_way.sent
        if self._closed:
            self._store.dispatcher.end_early(under_way.sent)
        else:
            under_way.schedule(under_way.watcher)

    def _look_later(self) -> None:
        self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        if self._closed:
            return
        now = monotonic()
        for number, under_way in list(self._under_way.items()):
            if now >= under_way.leaves_at:
                del self._under_way[number]
                self._leave(under_way)
        # In this order: whoever adds one looks afterwards whether this goes on.
        self._looks = False
        if self._under_way:
            self._looks = True
            self._look_later()


class _UnderWay(EarlyObject):
    """A request whose object was sent."""

    __slots__ = ("schedule", "started_ns", "watcher")

    def __init__(self, watcher: Any, schedule: Schedule, sent: SentEarly, started_ns: int) -> None:
        super().__init__(sent, _WAIT_SECONDS, WATCH_AFTER_SECONDS)
        self.watcher = watcher
        self.schedule = schedule
        self.started_ns = started_ns

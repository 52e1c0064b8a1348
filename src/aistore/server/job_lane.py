"""The short way of a job from bucket to bucket: many small objects through one transform, by one thread.

Where a transform is quick, what an object costs beside it is what a job is slower by. One by one (jobs/batch.py) each
object wakes the event loop and the committing thread of the engine several times, has timers and a transaction of its
own. Here a thread keeps a queue of objects at the transform's workers, looks only now and then what has come, and gives
all results of a look to the engine at once, which makes one transaction of them. How long it looks away follows from
how quickly objects come back: no worker ever runs out of them.

What needs a decision is left to be done one by one, from where it is: a name that is at the destination already, an
object that is not in memory, an answer that is an error, a worker that takes its time, a write that did not happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future

from ..errors import AisError
from ..etl.dispatch import Dispatcher
from ..etl.early import EarlyObject
from ..etl.sent import SentEarly
from ..etl.warm import COPIED_RESULT_BYTES_MAX
from ..fallbacks import lacks
from ..jobs.batch import Batch, Rest, custom_of
from ..jobs.document import Counts
from ..jobs.targets import target_name
from ..model.names import parse_bucket_uri
from ..model.objects import ObjectInfo, PutOptions
from ..storage.engine import Engine, Reading, Staging

_log = logging.getLogger("aistore.jobs")

#: Objects at the workers of transforms at once, for all batches of this process. As many as one by one for one batch.
_WINDOW = 32
#: How long an object is here that no worker has begun with, and one that a worker has. Guessed: whose transform takes
#: longer does not care what else an object costs.
_WAIT_SECONDS, _WORK_SECONDS = 10.0, 0.25
#: The shortest and the longest time without a look, and from how many objects on there is one. With fewer each answer
#: is taken as it comes, so that nobody waits for the last ones.
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX, _PAUSE_OBJECTS = 0.0005, 0.02, 8
_POLL_MS = 50


def is_for_lane(batch: Batch) -> bool:
    """Say whether objects of a batch may be for the lane: written as one transform makes them, as many as there are."""
    wanted, call = batch.options, batch.options.call
    plain = call is not None and not (call.then or call.seconds)
    asked = wanted.dry_run or wanted.workers or wanted.latest or batch.removing
    return plain and not asked and batch.kind.transforms and batch.source != batch.destination and not lacks("memfd")


class BegunObject:
    """An object that was sent to its transform, and goes on elsewhere. Belongs to the event loop."""

    def __init__(self, dispatcher: Dispatcher, reading: Reading, sent: SentEarly) -> None:
        self._dispatcher = dispatcher
        self._sent: SentEarly | None = sent
        self.reading = reading

    def take(self) -> SentEarly | None:
        """Return what was sent, for whoever goes on with it."""
        sent, self._sent = self._sent, None
        return sent

    def end(self) -> None:
        """Give it up, if nobody went on with it."""
        sent = self.take()
        if sent is not None:
            self._dispatcher.end_early(sent)
        self.reading.close()


class _Work:
    """A batch on the lane. ``counts`` and ``open`` are the thread's, ``ended`` the event loop's."""

    def __init__(self, batch: Batch, rest: Rest) -> None:
        call = batch.options.call
        assert call is not None
        self.call = call
        self.job = batch.job
        self.way = batch.way
        self.options = batch.options
        self.source = parse_bucket_uri(batch.source).name
        self.destination = parse_bucket_uri(batch.destination).name
        self.rest = rest
        self._all = batch.names
        self._names: list[str] | None = None
        self.open = 0
        self.has_names = True
        self.stopped = False
        self.counts = Counts()
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Counts] = self._loop.create_future()

    def next_names(self, engine: Engine, count: int) -> list[str]:
        """Return the next names to begin with, at most ``count``; none if there are none."""
        if self._names is None:
            self._names = self._absent(engine)
        if self.stopped or self.rest.over:
            self._names = []
        names, self._names = self._names[:count], self._names[count:]
        self.has_names = bool(self._names)
        return names

    def _absent(self, engine: Engine) -> list[str]:
        """Return the names of which nothing is at the destination, all others left."""
        targets: dict[str, str] = {}
        for name in self._all:
            if targets.setdefault(target_name(name, self.options), name) is not name:
                self.leave(name)  # it leads where another one does
        absent: list[str] = []
        with contextlib.suppress(AisError):  # told where an object is worked off by itself
            absent = engine.absent(self.destination, list(targets))
        names = [targets.pop(target) for target in absent]
        for name in targets.values():
            self.leave(name)
        return names

    def leave(self, name: str, begun: BegunObject | None = None) -> None:
        """Have an object worked off by itself."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self.rest.take, name, begun)

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing of it is here any more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: BaseException | None) -> None:
        if error is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(self.counts)


class _Object(EarlyObject):
    """An object at the workers of its transform."""

    __slots__ = ("name", "reading", "work")

    def __init__(self, work: _Work, name: str, reading: Reading, sent: SentEarly) -> None:
        super().__init__(sent, _WAIT_SECONDS, _WORK_SECONDS)
        self.work = work
        self.name = name
        self.reading = reading


class JobLane:
    """The lane of one process. Its thread is there while there are batches."""

    def __init__(self, engine: Engine, dispatcher: Dispatcher) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self._lock = threading.Lock()
        self._arrived: list[_Work] = []
        self._runs = False

    async def run(self, batch: Batch, rest: Rest) -> Counts:
        """Work off what can be done here, leave the others to ``rest``, and return what came of those done here."""
        work = _Work(batch, rest)
        with contextlib.suppress(AisError):  # told where an object is worked off by itself
            await self._dispatcher.find(work.call.etl)
        if not self._dispatcher.takes_early(work.call):
            for name in batch.names:
                rest.take(name)
            return work.counts
        with self._lock:
            self._arrived.append(work)
            if not self._runs:
                self._runs = True
                threading.Thread(target=_Thread(self, self._engine, self._dispatcher).run, name="job-lane").start()
        try:
            return await asyncio.shield(work.ended)
        except asyncio.CancelledError:
            work.stopped = True
            await asyncio.wait((work.ended,))
            raise

    def arrived(self, *, idle: bool) -> list[_Work] | None:
        """Return the batches that came since; None for a thread that is ``idle`` and has to end, as none came."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
            if idle and not arrived:
                self._runs = False
                return None
            return arrived


class _Thread:
    """The work of the thread, from the first batch until there is none."""

    def __init__(self, lane: JobLane, engine: Engine, dispatcher: Dispatcher) -> None:
        self._lane = lane
        self._engine = engine
        self._dispatcher = dispatcher
        self._works: list[_Work] = []
        self._sent: dict[int, _Object] = {}  # by the descriptors of their connections
        self._written: deque[tuple[_Work, str, Future[ObjectInfo]]] = deque()
        self._poll = select.poll()
        self._buffer = memoryview(bytearray(COPIED_RESULT_BYTES_MAX))
        self._pause = _PAUSE_SECONDS

    def run(self) -> None:
        """Work batches off."""
        try:
            while (arrived := self._lane.arrived(idle=not self._works)) is not None:
                self._works += arrived
                self._send()
                if self._sent or any(work.rest.begun for work in self._works):
                    self._hear()
                self._settle(wait=not self._sent)
                self._leave_slow()
                self._end_works()
        except BaseException as error:
            _log.exception("a batch of objects failed")
            self._fail(error)

    def _send(self) -> None:
        """Have as many objects at the workers as may be there."""
        room = _WINDOW - len(self._sent) - sum(work.rest.begun for work in self._works)
        for work in self._works:
            while room > 0 and (names := work.next_names(self._engine, room)):
                room -= self._begin(work, names)

    def _begin(self, work: _Work, names: list[str]) -> int:
        """Send objects to their transform and return how many; the others are left."""
        readings: Mapping[str, Reading] = {}
        with contextlib.suppress(AisError):  # told where an object is worked off by itself
            readings = self._engine.get_many(work.source, names)
        count = 0
        for name in names:
            reading = readings.get(name)
            sent = None if reading is None else self._dispatcher.send_early(work.call, reading, in_passing=True)
            if reading is None or sent is None:
                if reading is not None:
                    reading.close()
                work.leave(name)
                continue
            assert sent.connection is not None
            number = sent.connection.fileno()
            self._sent[number] = _Object(work, name, reading, sent)
            self._poll.register(number, select.POLLIN)
            work.open += 1
            count += 1
        return count

    def _hear(self) -> None:
        """Take the answers of workers, and give the results of all to the engine."""
        many = len(self._sent)
        if many >= _PAUSE_OBJECTS:
            time.sleep(self._pause)
        # Without any to wait for, those that go on elsewhere are.
        heard = self._poll.poll(0 if many >= _PAUSE_OBJECTS or self._written else _POLL_MS)
        staged: list[tuple[_Object, Staging]] = []
        answers = 0
        for number, _ in heard:
            object_ = self._sent[number]
            if object_.hear():
                answers += 1
                staging = self._take_result(object_)
                if staging is not None:
                    staged.append((object_, staging))
        for object_, staging in staged:
            self._commit(object_, staging)
        if 4 * answers < many:
            self._pause = min(1.5 * self._pause, _PAUSE_SECONDS_MAX)
        elif 2 * answers > many:
            self._pause = max(self._pause / 2, _PAUSE_SECONDS)

    def _take_result(self, object_: _Object) -> Staging | None:
        """Write a result to its file; None if the object goes on elsewhere."""
        data, work = object_.result_in(self._buffer), object_.work
        digests = work.options.digests
        if data is None or work.stopped or (digests and digests != (object_.sent.running.digest,)):
            self._leave(object_)
            return None
        self._forget(object_)
        object_.end(len(data))
        self._dispatcher.end_early(object_.sent)
        source = object_.reading.info
        object_.reading.close()
        options = PutOptions(custom_of(work.job, work.way, source), if_version=0, size=len(data))
        try:
            staging = self._engine.stage(work.destination, target_name(object_.name, work.options), options)
            staging.write(data)
        except AisError:
            self._leave_name(work, object_.name)
            return None
        return staging

    def _commit(self, object_: _Object, staging: Staging) -> None:
        try:
            self._written.append((object_.work, object_.name, staging.commit()))
        except AisError:
            self._leave_name(object_.work, object_.name)

    def _settle(self, *, wait: bool) -> None:
        """Count what has been committed; with ``wait`` all of it."""
        while self._written and (wait or self._written[0][2].done()):
            work, name, future = self._written.popleft()
            if future.exception() is not None:
                self._leave_name(work, name)
            else:
                work.counts += Counts(1, future.result().size)
                work.open -= 1

    def _leave_slow(self) -> None:
        now = time.monotonic()
        for object_ in list(self._sent.values()):
            if object_.work.stopped or now >= object_.leaves_at:
                self._leave(object_)

    def _end_works(self) -> None:
        ended = [work for work in self._works if not work.open and (not work.has_names or work.stopped)]
        for work in ended:
            self._works.remove(work)
            work.end()

    def _leave(self, object_: _Object) -> None:
        """Have an object that was sent go on elsewhere."""
        self._forget(object_)
        object_.end()
        object_.work.open -= 1
        object_.work.leave(object_.name, BegunObject(self._dispatcher, object_.reading, object_.sent))

    def _leave_name(self, work: _Work, name: str) -> None:
        """Have an object that did not get to its destination begin anew elsewhere."""
        work.open -= 1
        work.leave(name)

    def _forget(self, object_: _Object) -> None:
        assert object_.sent.connection is not None
        number = object_.sent.connection.fileno()
        self._poll.unregister(number)
        del self._sent[number]

    def _fail(self, error: BaseException) -> None:
        """End all batches with an error that nobody expected; nothing of them goes on here."""
        for object_ in list(self._sent.values()):
            self._leave(object_)
        for _, _, future in self._written:
            future.exception()
        while works := self._works:
            self._works = []
            for work in works:
                work.end(error)
            self._works = self._lane.arrived(idle=True) or []

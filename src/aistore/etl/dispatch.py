"""One object through one transform, from the HTTP worker's side. The protocol is in worker/PROTOCOL.md.

The workers of an ETL accept from one listening socket, so the kernel is the queue between all HTTP workers and all
transform workers, and its backlog is the queue's bound. A request holds one connection; whatever ends it early (a
timeout, a client that went away) kills the worker that served it, which is then never given another object.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ..errors import (
    AisError,
    ClientGoneError,
    EtlNotRunningError,
    OverloadedError,
    TooLargeError,
    TransformCrashError,
    TransformError,
    TransformTimeoutError,
)
from ..fallbacks import lacks
from ..model.etl import OUTPUT_BYTES_MAX
from ..settings import Limits
from ..storage.engine import Reading
from . import exchange
from .counted import CountedObject, count_busy
from .peers import CREDENTIALS_ROOM, MESSAGES_KIND, Peer, ask_for_credentials, sender_of
from .worker.messages import Messages

_REPLY_BYTES_MAX = 64 << 10
_REQUEST_BYTES_MAX = 64 << 10  # what a worker reads of one request, JSON around it included
_STDERR_SHOWN_BYTES = 8 << 10
# Smaller results are copied out at once, which no later write to the descriptor can change. Larger ones are sealed and
# sent in pieces. Not all are sealed, because the kernel waits for pages that another core has just written to settle:
# measured, sealing was a fifth of an HTTP worker's time and most of the slowest replies.
_COPIED_RESULT_BYTES_MAX = 1 << 20
# Asking the server whether a client is still there costs two rounds between its threads; one that left is found out
# this much later.
_WATCH_AFTER_SECONDS = 0.05
# An ETL that crashes is started again, and an object that no worker had taken by then is sent again: so often in all.
_ATTEMPTS = 4


class Controller(Protocol):
    """Whoever knows the ETLs: calls a verb of the controller process."""

    async def call(self, verb: str, **arguments: Any) -> Any:
        """Return the verb's result, or raise its error."""


class Running(msgspec.Struct, frozen=True):
    """Where a running ETL takes objects, and its limits."""

    name: str
    socket_path: str
    object_timeout_seconds: float
    uid: int = 0


class _Answer(msgspec.Struct, frozen=True):
    ok: bool
    kind: str = ""
    message: str = ""
    traceback: str = ""
    exit_code: int = 0


@dataclass(slots=True)
class Result:
    """What a transform made of an object: in memory if it is small, else behind a sealed descriptor."""

    size: int
    data: bytes | None
    descriptor: int = -1

    def read(self, start: int, length: int) -> bytes:
        """Return a part of the result."""
        return exchange.read_exactly(self.descriptor, start, length)

    def read_all(self) -> bytes:
        """Return the whole result."""
        return self.data if self.data is not None else self.read(0, self.size)

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class _KilledError(Exception):
    """The worker was killed by the one signal that its own code does not get by a mistake."""


class _Call:
    """One request on one connection to a transform worker."""

    def __init__(
        self, connection: socket.socket, running: Running, queue_wait_seconds: float, controller: Controller
    ) -> None:
        self.connection = connection
        self.messages = Messages(connection)
        self._running = running
        self._controller = controller
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[bytes] = self._loop.create_future()
        self.pid = 0
        self._peer: Peer | None = None
        self._started = False
        self._watch: asyncio.Future[None] | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._left = False  # no worker may begin with it any more
        self._over = False  # the worker has answered, or was killed: its pid may be another process's by now
        self._timer = self._loop.call_later(queue_wait_seconds, self._queued_too_long, queue_wait_seconds)
        self._loop.add_reader(connection.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            message, ancillary = self.messages.receive(_REPLY_BYTES_MAX, CREDENTIALS_ROOM)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message, ancillary = b"", []
        if not message and self._left:  # our own doing
            return
        if message[:1] == b"S" and not self._started:
            self._started, self._peer = True, Peer(sender_of(ancillary), message)
            self.pid = self._peer.pid
            count_busy(self._running.name, self._running.uid, 1)
            self._timer.cancel()
            self._timer = self._loop.call_later(self._running.object_timeout_seconds, self._worked_too_long)
            return
        self._over = True
        self._loop.remove_reader(self.connection.fileno())
        self._timer.cancel()
        if not self.answer.done():
            self.answer.set_result(message)

    def _queued_too_long(self, seconds: float) -> None:
        error = OverloadedError(f"etl job {self._running.name}: no worker was free for {seconds:.0f} s")
        self._fail(error)

    def _worked_too_long(self) -> None:
        limit = self._running.object_timeout_seconds
        self._fail(TransformTimeoutError(f"timeout: the transform took longer than {limit:g} s and was ended"))

    def watch_client(self, gone: Callable[[], Awaitable[None]]) -> None:
        """Give up when ``gone`` completes. Begins to watch only after a while: most transforms are done before."""

        def begin() -> None:
            self._watch = asyncio.ensure_future(gone())
            self._watch.add_done_callback(self._client_gone)

        self._watch_timer = self._loop.call_later(_WATCH_AFTER_SECONDS, begin)

    def _client_gone(self, watch: asyncio.Future[None]) -> None:
        if not watch.cancelled():
            self._fail(ClientGoneError())

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self._look_again()  # an answer that has just come: the worker may have another object by now
        if not self.answer.done():
            self.kill()
            self.answer.set_exception(error)

    def _look_again(self) -> None:
        """Take what has come. A worker that has not begun is kept from it: its first message finds nobody.

        Else one that begins now would work for nobody, and nobody would know whom to kill.
        """
        begun = self._started
        if not begun:
            self._left = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RD)
        self._readable()
        if self._started and not begun:  # the answer may have come as well
            self._readable()

    def kill(self) -> None:
        """End the worker, and with its process group what it started."""
        over, self._over = self._over, True
        if self._peer is None or over:
            return
        if self._peer.verified:
            self._peer.kill()
        else:
            asked = asyncio.ensure_future(self._have_killed(self._peer))
            _asking.add(asked)
            asked.add_done_callback(_asking.discard)

    async def _have_killed(self, peer: Peer) -> None:
        """Have the ETL's parent end its worker, whose number is only the worker's word."""
        running = self._running
        try:
            await self._controller.call(
                "etl_kill", name=running.name, pid=peer.pid, turn=peer.turn, socket_path=running.socket_path
            )
        except AisError:
            pass  # it was stopped or removed, and its workers with it

    def close(self) -> None:
        """Leave the connection. A worker that is still busy with it is killed, also when our own task was cancelled."""
        if not self._over:
            self._look_again()
        if not self._over:
            self.kill()
        self.answer.cancel()
        if self._started:
            count_busy(self._running.name, self._running.uid, -1)
        self._timer.cancel()
        self._loop.remove_reader(self.connection.fileno())
        self.connection.close()
        if self._watch_timer is not None:
            self._watch_timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._peer is not None:
            self._peer.close()


#: Requests to the controller to end a worker; the loop itself holds tasks only weakly.
_asking: set[asyncio.Task[None]] = set()


class Dispatcher:
    """Sends objects through transforms. One per HTTP worker."""

    def __init__(self, controller: Controller, threads: Executor, limits: Limits, spool: str) -> None:
        self._controller = controller
        self._threads = threads
        self._limits = limits
        self._spool = spool
        self._running: dict[str, Running] = {}
        self._input_bytes = 0  # copies of objects that wait for a worker or are with one, in memory

    async def find(self, name: str, *, again: bool = False) -> Running:
        """Return where ETL ``name`` takes objects; waits for one that is being made ready.

        Raises EtlNotFoundError, EtlNotRunningError. ``again`` asks the controller even if the answer is known.
        """
        known = self._running.get(name)
        if known is None or again:
            self._running.pop(name, None)
            answer = await self._controller.call("etl_find", name=name, wait=self._limits.etl_ready_wait_seconds)
            known = msgspec.convert(answer, Running)
            self._running[name] = known
        return known

    async def transform(
        self, name: str, reading: Reading, args: str = "", *, gone: Callable[[], Awaitable[None]] | None = None,
        seconds: float = 0.0,
    ) -> Result:  # fmt: skip
        """Run one object through ETL ``name`` and return the result; closes ``reading``.

        ``gone`` completes when the client went away: then the transform is ended and ClientGoneError raised. It is
        ended too after ``seconds``, if that is not 0, instead of the time that the ETL was made with.
        """
        info = reading.info
        header = msgspec.json.encode({"bucket": info.bucket, "object": info.name, "args": args})
        try:
            if len(header) > _REQUEST_BYTES_MAX:
                raise TooLargeError(f"etl_args of {len(args)} characters are too large", hint="expected 8 KiB at most")
            running = await self.find(name)
            if seconds:
                running = msgspec.structs.replace(running, object_timeout_seconds=seconds)
            with CountedObject(name, running.uid, info.size) as counted:
                try:
                    result = await self._run(running, reading, header, gone)
                finally:
                    counted.uid = self._running.get(name, running).uid
                counted.out_bytes = result.size
            return result
        except TransformError as error:
            error.message = f"ETL error: {name} failed on ais://{info.bucket}/{info.name}: {error.message}"
            raise
        finally:
            reading.close()

    async def _run(
        self, running: Running, reading: Reading, header: bytes, gone: Callable[[], Awaitable[None]] | None
    ) -> Result:
        held = self._hold_input(running, reading.info.size)
        try:
            source = await self._input(reading)
            reading.close()
            return await self._transform(running, source, header, gone)
        finally:
            self._input_bytes -= held

    def _hold_input(self, running: Running, size: int) -> int:
        """Account for the copy of an object in memory and return its bytes; raises OverloadedError above the limit."""
        in_memory = size if size <= self._limits.memfd_input_bytes_max else 0
        if in_memory and self._input_bytes and self._input_bytes + in_memory > self._limits.etl_input_bytes_max:
            raise OverloadedError(
                f"etl job {running.name}: objects of {self._input_bytes >> 20} MiB wait already",
                hint="try again in a second",
            )
        self._input_bytes += in_memory
        return in_memory

    async def _input(self, reading: Reading) -> int:
        """Return a descriptor with a copy of the object."""
        size = reading.info.size
        if size <= self._limits.piece_bytes:
            data = reading.read_cached(0, size)
            if data is not None:
                return exchange.input_from_bytes(data, self._spool)
        return await self._in_thread(
            exchange.input_from_reading, reading, self._limits.memfd_input_bytes_max, self._spool
        )

    async def _in_thread(self, copy: Callable[..., int], *arguments: Any) -> int:
        """Run what makes a descriptor in a thread; if nobody waits for it any more, close that."""
        copying = asyncio.get_running_loop().run_in_executor(self._threads, copy, *arguments)
        try:
            return await asyncio.shield(copying)
        except asyncio.CancelledError:
            copying.add_done_callback(_close_result)  # the thread goes on, and what it makes has no other owner
            raise

    async def _transform(
        self, running: Running, source: int, header: bytes, gone: Callable[[], Awaitable[None]] | None
    ) -> Result:
        try:
            try:
                return await self._attempt(running, source, header, gone)
            except _KilledError:
                # By the kernel for want of memory, or by an operator, and perhaps not for this object's sake. One that
                # does it again does it to itself.
                os.lseek(source, 0, os.SEEK_SET)
                running = await self.find(running.name)
                return await self._attempt(running, source, header, gone)
        except _KilledError as error:
            raise TransformCrashError(str(error)) from None
        finally:
            os.close(source)

    async def _attempt(
        self, running: Running, source: int, header: bytes, gone: Callable[[], Awaitable[None]] | None
    ) -> Result:
        output = errors = -1
        try:
            output = exchange.exchange_file("output", self._spool)
            errors = exchange.exchange_file("errors", self._spool)
            for _ in range(_ATTEMPTS):
                answer, pid = await self._exchange(running, header, [source, output, errors], gone)
                if answer or pid:
                    break
                running = await self.find(running.name, again=True)  # it ended before a worker took the object
            try:
                await self._check(running, answer, pid, errors)
            except TransformError as error:
                if os.fstat(output).st_size >= OUTPUT_BYTES_MAX:
                    error.message = f"the result is larger than the limit of {OUTPUT_BYTES_MAX} bytes\n{error.message}"
                raise
            size = os.fstat(output).st_size
            if size <= _COPIED_RESULT_BYTES_MAX:
                return Result(size, exchange.read_exactly(output, 0, size))
            if lacks("memfd"):
                copy = await self._in_thread(exchange.copy_result, os.dup(output), self._spool)
                return Result(os.fstat(copy).st_size, None, copy)
            size = exchange.seal_result(output)
            result = Result(size, None, output)
            output = -1
            return result
        finally:
            for descriptor in (output, errors):
                if descriptor >= 0:
                    os.close(descriptor)

    async def _exchange(
        self, running: Running, header: bytes, descriptors: list[int], gone: Callable[[], Awaitable[None]] | None
    ) -> tuple[bytes, int]:
        """Send one object; return the worker's answer (empty if it died) and its process id (0 if none took it)."""
        call = _Call(await self._connect(running), running, self._limits.etl_queue_wait_seconds, self._controller)
        if gone is not None:
            call.watch_client(gone)
        try:
            try:
                call.messages.send(header, descriptors)
            except ConnectionError:
                return b"", 0
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:  # so many descriptors of this user are under way already
                    raise
                raise OverloadedError(f"etl job {running.name} has too many objects waiting") from error
            return await call.answer, call.pid
        finally:
            call.close()

    async def _connect(self, running: Running) -> socket.socket:
        for attempt in (1, 2):
            connection = socket.socket(socket.AF_UNIX, MESSAGES_KIND)
            try:
                connection.setblocking(False)
                ask_for_credentials(connection)  # before connecting: the worker's first message then has them
                connection.connect(running.socket_path)
                return connection
            except OSError as error:
                connection.close()
                if error.errno == errno.EAGAIN:
                    raise OverloadedError(
                        f"etl job {running.name} has {self._limits.etl_queue} objects waiting",
                        hint="try again in a second",
                    ) from error
                if attempt == 2:
                    raise EtlNotRunningError(f"etl job {running.name} is not running") from error
                running = await self.find(running.name, again=True)  # it was stopped or made anew since
        raise AssertionError("unreachable")

    async def _check(self, running: Running, answer: bytes, pid: int, errors: int) -> None:
        """Raise what a worker's answer says, unless it says that the result is there."""
        if answer:
            try:
                told = msgspec.json.decode(answer, type=_Answer)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise TransformCrashError(
                    "the transform's process answered with something else than an answer"
                ) from None
            if told.ok:
                return
            text = told.traceback or told.message
            if told.kind == "exit":
                text = _with_stderr(told.message or f"exit status {told.exit_code}", errors)
            raise TransformError(text.strip())
        if not pid:
            raise _stopped(running)
        status = await self._controller.call(
            "etl_exit_status", name=running.name, pid=pid, socket_path=running.socket_path
        )
        if status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return  # os._exit(0): what it wrote is the result
        text = _with_stderr(f"the transform's process {_how_it_ended(status)}", errors)
        if status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            raise _KilledError(text)
        raise TransformCrashError(text)


def _close_result(copying: asyncio.Future[int]) -> None:
    """Close the descriptor that nobody waits for any more."""
    if not copying.cancelled() and copying.exception() is None:
        os.close(copying.result())


def _stopped(running: Running) -> EtlNotRunningError:
    return EtlNotRunningError(f"etl job {running.name} ended while the object waited for a worker", hint="try again")


def _how_it_ended(status: int | None) -> str:
    if status is None:
        return "ended without an answer"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"was ended by {name}"
    return f"ended with exit status {os.WEXITSTATUS(status)}"


def _with_stderr(text: str, errors: int) -> str:
    stderr = exchange.read_tail(errors, _STDERR_SHOWN_BYTES).strip()
    return f"{text}\n{stderr}" if stderr else text

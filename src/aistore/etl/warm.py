"""One object through one transform made of code, from the HTTP worker's side; the protocol is in worker/PROTOCOL.md.

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
from concurrent.futures import Executor

import msgspec

from ..errors import (
    AisError,
    ClientGoneError,
    EtlNotRunningError,
    OverloadedError,
    TooLargeError,
    TransformCrashError,
    TransformError,
    TransformExcessError,
    TransformTimeoutError,
)
from ..fallbacks import lacks
from ..model.etl import OUTPUT_BYTES_MAX
from ..settings import Limits
from . import exchange
from .counted import count_busy
from .endings import how_it_ended
from .peers import CREDENTIALS_ROOM, Peer, sender_of
from .running import Ask, Controller, Find, Gone, Result, Running
from .sent import REPLY_BYTES_MAX, Sent, connect
from .worker.messages import Messages

_REQUEST_BYTES_MAX = 64 << 10  # what a worker reads of one request, JSON around it included
_STDERR_SHOWN_BYTES = 8 << 10
_STDERR_LOGGED_BYTES = 2 << 10  # of an object that ended its worker, which could not put it into the log
# Smaller results are copied out at once, which no later write to the descriptor can change. Larger ones are sealed and
# sent in pieces. Not all are sealed, because the kernel waits for pages that another core has just written to settle:
# measured, sealing was a fifth of an HTTP worker's time and most of the slowest replies.
COPIED_RESULT_BYTES_MAX = 1 << 20
# Asking the server whether a client is still there costs two rounds between its threads; one that left is found out
# this much later.
WATCH_AFTER_SECONDS = 0.05
# An ETL that crashes is started again, and an object that no worker had taken by then is sent again: so often in all.
_ATTEMPTS = 4


class _Answer(msgspec.Struct, frozen=True):
    ok: bool
    kind: str = ""
    message: str = ""
    traceback: str = ""
    exit_code: int = 0


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
            message, ancillary = self.messages.receive(REPLY_BYTES_MAX, CREDENTIALS_ROOM)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message, ancillary = b"", []
        if not message and self._left:  # our own doing
            return
        if message[:1] == b"S" and not self._started:
            self.begin(Peer(sender_of(ancillary), message))
        else:
            self.end(message)

    def begin(self, peer: Peer) -> None:
        """Take note of the worker that has the object."""
        self._started, self._peer, self.pid = True, peer, peer.pid
        count_busy(self._running.name, self._running.uid, 1)
        self._timer.cancel()
        self._timer = self._loop.call_later(self._running.object_timeout_seconds, self._worked_too_long)

    def end(self, answer: bytes) -> None:
        """Take the answer; nothing means that the worker ended."""
        self._over = True
        self._loop.remove_reader(self.connection.fileno())
        self._timer.cancel()
        if not self.answer.done():
            self.answer.set_result(answer)

    def _queued_too_long(self, seconds: float) -> None:
        error = OverloadedError(f"etl job {self._running.name}: no worker was free for {seconds:.0f} s")
        self._fail(error)

    def _worked_too_long(self) -> None:
        limit = self._running.object_timeout_seconds
        self._fail(TransformTimeoutError(f"timeout: the transform took longer than {limit:g} s and was ended"))

    def watch_client(self, gone: Gone, after_seconds: float) -> None:
        """Give up when ``gone`` completes. Begins to watch only after a while: most transforms are done before."""

        def begin() -> None:
            self._watch = asyncio.ensure_future(gone())
            self._watch.add_done_callback(self._client_gone)

        self._watch_timer = self._loop.call_later(after_seconds, begin)

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


class WarmWorkers:
    """The workers of all ETLs made of code, as one HTTP worker of the store uses them."""

    def __init__(self, controller: Controller, find: Find, threads: Executor, limits: Limits, spool: str) -> None:
        self._controller = controller
        self._find = find
        self._threads = threads
        self._limits = limits
        self._spool = spool

    async def transform(
        self, running: Running, source: int, ask: Ask, gone: Gone | None, sent: Sent | None = None
    ) -> Result:
        """Run the object behind the descriptor ``source`` through the transform; raises TransformError and others.

        ``sent``: it is on its way already.
        """
        header = header_of(ask)
        if header is None:
            raise TooLargeError(f"etl_args of {len(ask.args)} characters and the object's name are too large")
        try:
            try:
                return await self._attempt(running, source, header, gone, sent or Sent(self._spool))
            except _KilledError:
                # By the kernel for want of memory, or by an operator, and perhaps not for this object's sake. One that
                # does it again does it to itself.
                os.lseek(source, 0, os.SEEK_SET)
                running = await self._find(running.name)
                return await self._attempt(running, source, header, gone, Sent(self._spool))
        except _KilledError as error:
            raise TransformCrashError(str(error)) from None

    async def _attempt(self, running: Running, source: int, header: bytes, gone: Gone | None, sent: Sent) -> Result:
        with sent:
            for _ in range(_ATTEMPTS):
                answer, pid = await self._exchange(running, header, source, gone, sent)
                if answer or pid:
                    break
                running = await self._find(running.name, again=True)  # it ended before a worker took the object
            try:
                await self._check(running, answer, pid, sent.errors)
            except TransformError as error:
                if os.fstat(sent.output).st_size >= OUTPUT_BYTES_MAX:
                    error.message = f"the result is larger than the limit of {OUTPUT_BYTES_MAX} bytes\n{error.message}"
                raise
            size = os.fstat(sent.output).st_size
            if size <= COPIED_RESULT_BYTES_MAX:
                return Result(size, exchange.read_unsealed(sent.output, size))
            if lacks("memfd"):
                output = os.dup(sent.output)
                copy = await exchange.in_thread(self._threads, exchange.copy_result, output, self._spool)
                return Result(os.fstat(copy).st_size, None, copy)
            size = exchange.seal_result(sent.output)
            return Result(size, None, sent.take_output())

    async def _exchange(
        self, running: Running, header: bytes, source: int, gone: Gone | None, sent: Sent
    ) -> tuple[bytes, int]:
        """Send one object; return the worker's answer (empty if it died) and its process id (0 if none took it)."""
        is_sent = sent.connection is not None
        call = self._follow(running, sent) if is_sent else self._call(running, await self._connect(running))
        try:
            if gone is not None:
                call.watch_client(gone, 0 if is_sent else WATCH_AFTER_SECONDS)
            try:
                if not is_sent:
                    call.messages.send(header, [source, sent.output, sent.errors])
            except ConnectionError:
                return b"", 0
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:  # so many descriptors of this user are under way already
                    raise
                raise OverloadedError(f"etl job {running.name} has too many objects waiting") from error
            return await call.answer, call.pid
        finally:
            call.close()

    def abandon(self, running: Running, sent: Sent) -> None:
        """Give up an object that was sent: nobody waits for it any more."""
        if sent.connection is not None:
            self._follow(running, sent).close()

    def _follow(self, running: Running, sent: Sent) -> _Call:
        """Return the call of an object that was sent, which takes its connection over."""
        connection, peer, answer = sent.take_connection()
        call = self._call(running, connection)
        if peer is not None:
            call.begin(peer)
        if answer is not None:
            call.end(answer)
        return call

    def _call(self, running: Running, connection: socket.socket) -> _Call:
        return _Call(connection, running, self._limits.etl_queue_wait_seconds, self._controller)

    async def _connect(self, running: Running) -> socket.socket:
        for attempt in (1, 2):
            try:
                return connect(running)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    raise OverloadedError(
                        f"etl job {running.name} has {self._limits.etl_queue} objects waiting",
                        hint="try again in a second",
                    ) from error
                if attempt == 2:
                    raise EtlNotRunningError(f"etl job {running.name} is not running") from error
                running = await self._find(running.name, again=True)  # it was stopped or made anew since
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
        status, excess = await self._controller.call(
            "etl_exit_status", name=running.name, pid=pid, socket_path=running.socket_path,
            said=exchange.read_tail(errors, _STDERR_LOGGED_BYTES).strip(),
        )  # fmt: skip
        if excess:
            raise TransformExcessError(_with_stderr(f"{excess}; it was ended", errors))
        if status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return  # os._exit(0): what it wrote is the result
        text = _with_stderr(f"the transform's process {how_it_ended(status)}", errors)
        if status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            raise _KilledError(text)
        raise TransformCrashError(text)


def header_of(ask: Ask) -> bytes | None:
    """Return the request that goes with an object, None if no worker could read so long a one."""
    header = msgspec.json.encode(ask)
    return header if len(header) <= _REQUEST_BYTES_MAX else None


def _stopped(running: Running) -> EtlNotRunningError:
    return EtlNotRunningError(f"etl job {running.name} ended while the object waited for a worker", hint="try again")


def _with_stderr(text: str, errors: int) -> str:
    stderr = exchange.read_tail(errors, _STDERR_SHOWN_BYTES).strip()
    return f"{text}\n{stderr}" if stderr else text

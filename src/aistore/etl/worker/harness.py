"""A warm worker: accepts one object at a time and runs the program on it (PROTOCOL.md, "One object")."""

import builtins
import errno
import faulthandler
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import types
from typing import Any, Dict, List, NoReturn, Optional

from . import failure, state, streams
from .descriptors import HighNumbers, close_all
from .garbage import Collector, release
from .lacking import lacks
from .leftovers import DescriptorWatch, MemoryWatch, OwnDirectory, children_left
from .messages import Messages, descriptors_of
from .program import Program
from .randomness import RANDOMNESS
from .slots import BUSY, IDLE, RETIRED, Slot
from .threads import ThreadWatch

_LOG_BYTES_MAX = 4096  # of one object; what a pipe takes in one piece (PIPE_BUF)
_FREEZE_OBJECTS = 3  # after so many objects what lazy imports made is taken out of garbage collection
_REQUEST_BYTES_MAX = 64 << 10
_DISMISSED_SECONDS = 5.0  # until an idle worker sees at the latest that it is dismissed
_DONE = b'{"ok": true}'
_DESCRIPTORS_ROOM = socket.CMSG_SPACE(3 * 4)
_decode = json.JSONDecoder().raw_decode
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class Settings:
    """The part of the configuration that a worker needs."""

    def __init__(self, config: Dict[str, Any]) -> None:
        self.objects_max = int(config.get("objects_per_worker", 10_000))
        self.output_bytes_max = int(config.get("output_bytes_max", 512 << 20))
        self.memory_growth_bytes_max = int(config.get("memory_growth_bytes_max", 1 << 30))
        self.thread_seconds_max = float(config.get("thread_seconds_max", 30.0))
        self.readable: Optional[List[str]] = config.get("readable")
        self.idle_seconds = float(config.get("idle_seconds", 60.0))
        #: After so long without an object a worker looks at whether it is dismissed.
        self.accept_seconds = max(0.01, min(_DISMISSED_SECONDS, self.idle_seconds / 4))


class _ParentGoneError(Exception):
    """The pipe to the parent has ended, so nobody wants this worker any more."""


class Worker:
    """One worker process; in ``slot`` it counts its objects, says what it is doing, and reads that it is to leave.

    ``life`` is a pipe that ends with the parent, where the kernel does not tell of its end; else -1.
    """

    def __init__(self, program: Program, settings: Settings, listener: int, slot: Slot, life: int = -1) -> None:
        self._program = program
        self._settings = settings
        self._slot = slot
        high = HighNumbers()
        self._listener = _socket(high.keep(listener))
        self._life = high.keep(life) if life >= 0 else -1
        self._null = high.keep(os.open(os.devnull, os.O_RDWR))
        self._log = high.keep(os.dup(2))
        self._memory = MemoryWatch(high.keep)
        self._parent_streams = (sys.stdout, sys.stderr)
        self._directory = OwnDirectory(settings.readable, high.keep)
        # What an object has open beside 0, 1 and 2 is at the same numbers each time: connection, result, errors.
        self._number = high.row(3, self._null)
        self._output, self._errors = self._number + 1, self._number + 2
        self._messages = self._any_connection()
        self._pid = os.getpid()
        RANDOMNESS.reseed()
        for number in (0, 1):
            streams.point(self._null, number)
        self._state = state.InterpreterState(program.uses_logging)
        self._hooks = state.ExitHooks()
        self._threads = ThreadWatch()
        self._collector = Collector()
        self._streams: Optional[streams.Streams] = None  # that the next object can have
        self._tainted = ""
        self._descriptors = DescriptorWatch(self._null)

    def _any_connection(self) -> Messages:
        """Return what talks to any connection that has ``self._number``: to make it for each takes 10 us."""
        os.dup2(self._listener.fileno(), self._number, False)
        messages = Messages(_socket(self._number))
        os.close(self._number)
        return messages

    def serve(self) -> NoReturn:
        """Take objects until the worker has to be replaced; never returns."""
        while not (self._tainted or self._slot.leaves):
            self._slot.become(IDLE)
            try:
                accepted = self._accept()
            except _ParentGoneError:
                break
            except OSError as error:
                # EAGAIN: nothing came for a while. Who leaves then holds no connection, and the next one wakes another.
                if error.errno in (errno.ECONNABORTED, errno.EINTR, errno.EAGAIN):
                    continue
                raise
            self._slot.become(BUSY)
            os.dup2(accepted, self._number, False)
            os.close(accepted)
            self._connected()
        self._slot.become(RETIRED)  # not crashed
        self._directory.remove()
        os._exit(0)

    def _accept(self) -> int:
        if self._life < 0:
            return _accept(self._listener)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._life, select.POLLIN)
        while True:
            ready = dict(poll.poll(self._settings.accept_seconds * 1000))
            if self._life in ready:
                raise _ParentGoneError
            if not ready:
                raise BlockingIOError(errno.EAGAIN, "nothing to accept")
            try:
                accepted = _accept(self._listener)
            except BlockingIOError:  # another worker was sooner
                continue
            os.set_blocking(accepted, True)
            return accepted

    def _connected(self) -> None:
        messages = self._messages
        messages.begin()
        try:
            request, descriptors = _receive(messages)
            begun = b"S"
            if lacks("credentials"):  # nobody else says who we are
                begun += b"%d %d" % (self._pid, self._slot.turns + 1)
            if request is None or len(descriptors) != 3 or not _send(messages, begun):
                for fd in descriptors:
                    os.close(fd)
                return
            self._slot.take()
            if self._settings.objects_max == 1:  # then this object has no business with those that wait there
                self._listener.close()
            self._object(messages, request, descriptors)
        finally:
            os.closerange(self._number, self._number + 3)
        if self._slot.turns >= self._settings.objects_max:
            self._tainted = "enough objects"

    def _object(self, messages: Messages, request: Dict[str, Any], descriptors: List[int]) -> None:
        """Run the program on one object, reply, and put everything back."""
        source, output, errors = descriptors
        os.dup2(output, self._output, False)
        os.dup2(errors, self._errors, False)
        streams.point(source, 0)
        # What a function prints is no part of its result.
        streams.point(output if self._program.transform is None else errors, 1)
        streams.point(errors, 2)
        close_all(descriptors)
        current = self._streams or streams.Streams()
        self._hooks.begin()
        self._threads.begin()
        self._collector.begin()
        run = _Run(self._program, self._settings, request, current)
        reply = run.execute(self._output)
        run.finish(self._hooks, self._threads, self._collector, reply)
        if os.getpid() != self._pid:  # a child that the program forked and that fell off its end
            os._exit(reply.get("exit_code", 0))
        self._flush_parent_streams()
        _send(messages, _DONE if reply["ok"] else failure.encode(self._check_output(reply)))
        self._after(request, current)

    def _check_output(self, reply: Dict[str, Any]) -> Dict[str, Any]:
        limit = self._settings.output_bytes_max
        if os.fstat(self._output).st_size >= limit:
            reply.update(
                kind="output",
                message="the result is larger than the limit of {:,} bytes".format(limit),
            )
        return reply

    def _after(self, request: Dict[str, Any], current: streams.Streams) -> None:
        """Put everything back, and decide whether this worker may take another object."""
        self._hooks.end()
        self._streams = current if current.can_be_renewed() else None
        if self._streams is None:
            current.close()
        self._write_log(request)
        for number in (0, 1):
            streams.point(self._null, number)
        streams.point(self._log, 2)
        if self._streams is not None and not self._streams.renew():
            self._streams.close()
            self._streams = None
        self._directory.enter()
        self._state.restore()
        if self._slot.turns == _FREEZE_OBJECTS:
            gc.freeze()
        if self._threads.left():
            self._tainted = "a thread is left"
        if children_left():
            self._tainted = "a child process is left"
        if self._descriptors.left():
            self._tainted = "descriptors are left open"
        growth = self._memory.growth()
        if growth > self._settings.memory_growth_bytes_max:
            self._tainted = "memory has grown"
        self._collector.note_growth(growth)
        self._directory.clear()

    def _flush_parent_streams(self) -> None:
        """Flush what a library wrote to a stream that it has kept since its import; it belongs to this object."""
        for stream in self._parent_streams:
            try:
                stream.flush()
            except (OSError, ValueError):
                pass

    def _write_log(self, request: Dict[str, Any]) -> None:
        """Copy the object's standard error to the ETL's log, if it fits; the log never holds up an object."""
        size = os.fstat(self._errors).st_size
        if size == 0:
            return
        head = "[{}/{}] ".format(request.get("bucket", ""), request.get("object", "")).encode("utf-8", "replace")[:512]
        room = _LOG_BYTES_MAX - len(head) - 40
        text = os.pread(self._errors, min(size, room), 0)
        if size > room:
            text += b"\n[%d more bytes]" % (size - room)
        poll = select.poll()
        poll.register(self._log, select.POLLOUT)
        if any(event & select.POLLOUT for _, event in poll.poll(0)):
            try:
                os.write(self._log, head + text.rstrip(b"\n") + b"\n")
            except OSError:
                pass


class _Run:
    """One run of the program."""

    def __init__(self, program: Program, settings: Settings, request: Dict[str, Any], current: streams.Streams) -> None:
        self._program = program
        self._settings = settings
        self._request = request
        self._streams = current
        self._module: Optional[types.ModuleType] = None

    def execute(self, output: int) -> Dict[str, Any]:
        """Run the program's own code and return the reply so far."""
        try:
            RANDOMNESS.begin(self._request.get("seed") or "")
            if self._program.transform is None:
                self._script()
            else:
                self._function(output)
        except failure.ResultError as error:
            _print_error(error.text)
            return {"ok": False, "kind": "exception", "message": str(error), "traceback": error.text, "exit_code": 1}
        except SystemExit as error:
            return self._exited(error)
        except BaseException as error:
            return self._raised(error)
        return {"ok": True}

    def _script(self) -> None:
        module = types.ModuleType("__main__")
        module.__dict__.update(__file__=self._program.path, __builtins__=builtins, __cached__=None)
        self._module = module
        sys.modules["__main__"] = module
        arguments = self._request.get("args") or ""
        sys.argv = [self._program.path] + ([arguments] if arguments else [])
        exec(self._program.code, module.__dict__)

    def _function(self, output: int) -> None:
        keywords = {name: self._keyword(name) for name in self._program.keywords}
        assert self._program.transform is not None
        result = self._program.transform(_read_all(0), **keywords)
        if not isinstance(result, (bytes, bytearray, memoryview)):
            message = "transform() returned {}; expected bytes, bytearray or memoryview".format(type(result).__name__)
            raise failure.ResultError(message, failure.place_of(self._program.transform))
        view = memoryview(result)
        _write_all(output, view.cast("B") if view.c_contiguous and view.nbytes else memoryview(bytes(view)))

    def _keyword(self, name: str) -> str:
        if name == "path":
            return "{}/{}".format(self._request.get("bucket", ""), self._request.get("object", ""))
        return self._request.get("args") or ""

    def _exited(self, error: SystemExit) -> Dict[str, Any]:
        code = error.code
        if code is None or (code == 0 and isinstance(code, int)):
            return {"ok": True}
        if isinstance(code, int):
            return {"ok": False, "kind": "exit", "message": "exit code {}".format(code & 0xFF), "traceback": "",
                    "exit_code": code & 0xFF}  # fmt: skip
        text = str(code)
        _print_error(text)
        return {"ok": False, "kind": "exit", "message": text, "traceback": "", "exit_code": 1}

    def _raised(self, error: BaseException) -> Dict[str, Any]:
        text = failure.user_traceback(error, self._program.filename)
        if sys.excepthook is not sys.__excepthook__:
            try:
                sys.excepthook(type(error), error, error.__traceback__)
            except BaseException:
                _print_error(text)
        else:
            _print_error(text)
        return {
            "ok": False, "kind": "output" if _is_too_large(error) else "exception", "message": failure.summary(error),
            "traceback": text, "exit_code": 1,
        }  # fmt: skip

    def finish(self, hooks: state.ExitHooks, threads: ThreadWatch, collector: Collector, reply: Dict[str, Any]) -> None:
        """Do what the end of a process does: wait for threads, run exit hooks, flush; note in ``reply`` what fails."""
        try:
            running = threads.wait(self._settings.thread_seconds_max)
            if running and reply["ok"]:
                message = "thread {!r} still runs {:g} s after the program's end".format(
                    running, self._settings.thread_seconds_max
                )
                reply.update(ok=False, kind="exception", message=message, traceback="")
            hooks.run()
            self._flush(reply)
            if self._module is not None:
                release(self._module)
                self._module = None
                sys.modules["__main__"] = _IDLE
                collector.collect(self._streams.own())
                self._flush(reply)
        except BaseException as error:  # a handler or destructor of the program's own
            if reply["ok"]:
                reply.update(self._raised(error), ok=False)

    def _flush(self, reply: Dict[str, Any]) -> None:
        try:
            self._streams.flush()
        except OSError as error:
            if reply["ok"]:
                reply.update(
                    ok=False, kind="output" if _is_too_large(error) else "exception",
                    message="standard output could not be written: {}".format(error), traceback="", exit_code=120,
                )  # fmt: skip


_IDLE = types.ModuleType("__main__")  # stands in for the program's module between two objects


def _socket(fd: int) -> socket.socket:
    """Return the socket of a descriptor. It waits, even if the program has said ``socket.setdefaulttimeout``."""
    seconds = socket.getdefaulttimeout()
    socket.setdefaulttimeout(None)
    try:
        return socket.socket(fileno=fd)
    finally:
        socket.setdefaulttimeout(seconds)


def _accept(listener: socket.socket) -> int:
    """Return the descriptor of a new connection: ``accept`` would make an object of it first."""
    fd: int = listener._accept()[0]  # type: ignore[attr-defined]
    return fd


def _receive(messages: Messages) -> Any:
    """Return the request and its descriptors, none of them below 3."""
    data, ancillary = messages.receive(_REQUEST_BYTES_MAX, _DESCRIPTORS_ROOM)
    descriptors = descriptors_of(ancillary)
    for place, fd in enumerate(descriptors):
        if fd < 3:
            descriptors[place] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(fd)
    return (_decode(data.decode("utf-8"))[0] if data else None), descriptors


def _send(messages: Messages, data: bytes) -> bool:
    """Send one message; False if the HTTP worker has gone (nobody waits for this any more)."""
    try:
        messages.send(data, flags=_NO_SIGNAL)
    except OSError:
        return False
    return True


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    data = os.pread(fd, size, 0) if size else b""
    if len(data) == size:
        return data
    parts = [data]  # one read returns at most 2 GiB
    while sum(map(len, parts)) < size:
        part = os.pread(fd, size, sum(map(len, parts)))
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _write_all(fd: int, data: memoryview) -> None:
    written = 0
    while written < len(data):
        written += os.write(fd, data[written:])


def _is_too_large(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EFBIG


def _print_error(text: str) -> None:
    try:
        stream = sys.stderr
        stream.write(text if text.endswith("\n") else text + "\n")
        stream.flush()
    except Exception:  # the program replaced or closed it
        pass


def prepare_process() -> None:
    """Give a freshly forked worker the signal handlers of a new process, and a session of its own to be killed by."""
    try:
        os.setsid()
    except PermissionError:  # it was started as the leader of a group
        pass
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable(file=2, all_threads=False)

"""What a program can change in its interpreter, and how it is put back between two objects.

Not put back: imported modules and what they keep. A program that changes a library for good changes it for the next
object of the same ETL (``isolation: fork`` is for those).
"""

import _signal  # type: ignore[import-not-found]  # signal wraps these in enums, which costs 10 µs for all of them
import builtins
import ctypes
import gc
import io
import os
import re
import signal
import sys
import threading
import types
import warnings
import weakref
from typing import Any, Dict, List, Tuple

_SIGNALS = tuple(
    number for number in range(1, 32) if number not in (getattr(signal, "SIGKILL", 9), getattr(signal, "SIGSTOP", 19))
)
#: Values that a dying ``__main__`` keeps: they hold no resource, and code that outlives the run may still read them.
_HARMLESS = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type, int, float, complex, str, bytes, type(None),
    tuple, frozenset, re.Pattern,
)  # fmt: skip


_BUFFERING = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


class InterpreterState:
    """A snapshot of the interpreter as an object finds it; ``restore`` puts everything back that has changed."""

    def __init__(self, uses_logging: bool) -> None:
        self._uses_logging = uses_logging
        self._environ = dict(os.environ)
        self._environ_raw = dict(_raw_environ())
        self._environ_of_c = _EnvironmentOfC()
        self._directory = os.getcwd()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._handlers = [(number, _signal.getsignal(number)) for number in _SIGNALS]
        self._filters = list(warnings.filters)
        self._showwarning = warnings.showwarning
        self._hooks = [(module, name, getattr(module, name)) for module, name in _hooks()]
        self._path = list(sys.path)
        self._recursion_limit = sys.getrecursionlimit()
        self._builtins = dict(builtins.__dict__)
        self._logging = _logging_state(self._uses_logging)

    def restore(self) -> None:
        """Put back environment, directory, umask, signal handlers, warnings, hooks, builtins, path and logging."""
        if _raw_environ() != self._environ_raw or self._environ_of_c.changed():
            os.environ.clear()
            self._environ_of_c.clear()
            os.environ.update(self._environ)
            self._environ_of_c.note()
        os.chdir(self._directory)
        os.umask(self._umask)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers:
            if handler is not None and _signal.getsignal(number) is not handler:
                _signal.signal(number, handler)
        _signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._restore_interpreter()
        if "logging" in sys.modules:
            _restore_logging(self._logging, self._uses_logging)

    def _restore_interpreter(self) -> None:
        if warnings.filters != self._filters:
            warnings.filters[:] = self._filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
        warnings.showwarning = self._showwarning
        for module, name, value in self._hooks:
            if getattr(module, name, None) is not value:
                setattr(module, name, value)
        if sys.path != self._path:
            sys.path[:] = self._path
        if sys.getrecursionlimit() != self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
        if sys.gettrace() is not None:
            sys.settrace(None)
        if sys.getprofile() is not None:
            sys.setprofile(None)
        if not gc.isenabled():
            gc.enable()
        names = builtins.__dict__
        if names != self._builtins:
            for name in set(names) - set(self._builtins):
                del names[name]
            names.update(self._builtins)


class _EnvironmentOfC:
    """The environment that programs inherit, which a library can change past ``os.environ`` (``setenv(3)``).

    Every change but one in place changes the table of pointers, which is quickly compared: 2 us.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        try:
            self._table: Any = ctypes.c_void_p.in_dll(self._libc, "environ")
        except ValueError:  # not everywhere is it a symbol of the program
            self._table = None
        self._noted = b""
        self.note()

    def note(self) -> None:
        """Take it as it is for what it has to be."""
        self._bytes = (len(os.environ) + 1) * ctypes.sizeof(ctypes.c_void_p)
        self._noted = self._now()

    def _now(self) -> bytes:
        if self._table is None or not self._table.value:
            return b""
        return ctypes.string_at(self._table.value, self._bytes)

    def changed(self) -> bool:
        """Return whether it is not as it was noted."""
        return self._now() != self._noted

    def clear(self) -> None:
        """Remove everything from it."""
        if self._table is not None:
            self._libc.clearenv()


def _raw_environ() -> Any:
    """Return the environment as the mapping of bytes that ``os.environ`` wraps: comparing it costs no decoding."""
    return getattr(os.environ, "_data", os.environ)


def _hooks() -> List[Tuple[Any, str]]:
    names = [(sys, "excepthook"), (sys, "displayhook"), (sys, "unraisablehook"), (sys, "argv")]
    if hasattr(threading, "excepthook"):
        names.append((threading, "excepthook"))
    return names


def _logging_state(full: bool) -> Dict[Any, Any]:
    """Return the state of the loggers: of the root alone, or of all that exist."""
    logging = sys.modules.get("logging")
    if logging is None:
        return {}
    root = logging.getLogger()
    loggers = [root]
    if full:
        loggers += [logger for logger in root.manager.loggerDict.values() if hasattr(logger, "handlers")]
    return {
        logger: (list(logger.handlers), logger.level, logger.propagate, logger.disabled, list(logger.filters))
        for logger in loggers
    }


def _restore_logging(state: Dict[Any, Any], full: bool) -> None:
    logging = sys.modules["logging"]
    default: Tuple[List[Any], int, bool, bool, List[Any]] = ([], 0, True, False, [])
    for logger, now in _logging_state(full).items():
        if logger not in state and logger is logging.getLogger():
            before: Any = ([], logging.WARNING, True, False, [])  # logging was first imported by this program
        else:
            before = state.get(logger, default)
        if now == before:
            continue
        for handler in [handler for handler in logger.handlers if handler not in before[0]]:
            logger.removeHandler(handler)
            try:
                handler.close()
            except Exception:  # a handler of the program's own; its stream is closed anyway
                pass
        logger.handlers[:] = before[0]
        logger.setLevel(before[1])  # also drops the loggers' caches of what is enabled
        logger.propagate, logger.disabled = before[2], before[3]
        logger.filters[:] = before[4]
    if logging.root.manager.disable:
        logging.disable(logging.NOTSET)


class ExitHooks:
    """Collects what a program registers to run at its end, and runs it, last registered first."""

    def __init__(self) -> None:
        import atexit

        self._atexit = atexit
        self._register, self._unregister = atexit.register, atexit.unregister
        self._hooks: List[Tuple[Any, Tuple[Any, ...], Dict[str, Any]]] = []
        self._finalizers = set(weakref.finalize._registry)  # type: ignore[attr-defined]

    def begin(self) -> None:
        """Start to collect."""
        self._hooks = []
        self._atexit.register = self._collect  # type: ignore[assignment]
        self._atexit.unregister = self._forget
        registry = weakref.finalize._registry  # type: ignore[attr-defined]
        if len(registry) != len(self._finalizers):
            self._finalizers = set(registry)

    def end(self) -> None:
        """Stop to collect."""
        self._atexit.register, self._atexit.unregister = self._register, self._unregister

    def _collect(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        is_finalizers = getattr(function, "__self__", None) is weakref.finalize  # run() does its work
        if is_finalizers or _is_importing():
            return self._register(function, *args, **kwargs)  # a library's own clean-up, for the worker's end
        self._hooks.append((function, args, kwargs))
        return function

    def _forget(self, function: Any) -> None:
        self._hooks = [hook for hook in self._hooks if hook[0] != function]
        self._unregister(function)

    def run(self) -> None:
        """Run the hooks; an exception of one is printed and the others still run, as at the end of a process."""
        while self._hooks:
            function, args, kwargs = self._hooks.pop()
            try:
                function(*args, **kwargs)
            except SystemExit:
                pass
            except BaseException:
                sys.excepthook(*sys.exc_info())
        registry = weakref.finalize._registry  # type: ignore[attr-defined]
        if len(registry) == len(self._finalizers):
            return
        new = [(info.index, finalizer) for finalizer, info in list(registry.items())
               if info.atexit and finalizer not in self._finalizers]  # fmt: skip
        for _, finalizer in sorted(new, key=lambda item: item[0], reverse=True):
            try:
                finalizer()
            except BaseException:
                sys.excepthook(*sys.exc_info())


def _is_importing() -> bool:
    frame = sys._getframe(2)  # type: Any
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def release(module: types.ModuleType) -> None:
    """Let go of what a finished ``__main__`` holds, in an order in which files flush before they close.

    Values are dropped one by one: a file object that only the garbage collector finds may have its descriptor closed
    before its buffer is written.
    """
    names = module.__dict__
    for name in [name for name, value in names.items() if not isinstance(value, _HARMLESS)]:
        value = names.pop(name, None)
        if isinstance(value, io.IOBase):
            try:
                value.flush() if _is_standard(value) else value.close()
            except Exception:  # a close() of the program's own
                pass


def collect() -> None:
    """Collect garbage: files in reference cycles write what they hold now, not into the next object.

    The collector may close a descriptor before the buffer on top of it is written, so all buffers are flushed first.
    """
    files = [value for value in gc.get_objects() if type(value) in _BUFFERING]
    for kind in _BUFFERING:  # text above bytes
        for file in files:
            if type(file) is kind:
                try:
                    if not file.closed:
                        file.flush()
                except (OSError, ValueError):  # full, read-only, detached
                    pass
    del files
    gc.collect()


def _is_standard(stream: Any) -> bool:
    return stream in (sys.stdin, sys.stdout, sys.stderr) or stream in [
        getattr(standard, "buffer", None) for standard in (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    ]

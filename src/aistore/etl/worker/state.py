"""What a program can change in its interpreter, and how it is put back between two objects.

Not put back: imported modules and what they keep. A program that changes a library for good changes it for the next
object of the same ETL (``isolation: fork`` is for those).
"""

import _signal  # type: ignore[import-not-found]  # signal wraps these in enums, which costs 10 µs for all of them
import builtins
import ctypes
import gc
import os
import signal
import sys
import threading
import warnings
import weakref
from typing import Any, Dict, List, Tuple

from .loggers import Loggers

_SIGNALS = tuple(
    number for number in range(1, 32) if number not in (getattr(signal, "SIGKILL", 9), getattr(signal, "SIGSTOP", 19))
)


class InterpreterState:
    """A snapshot of the interpreter as an object finds it; ``restore`` puts everything back that has changed."""

    def __init__(self, uses_logging: bool) -> None:
        self._environ = dict(os.environ)
        self._environ_raw = dict(_raw_environ())
        self._environ_of_c = _EnvironmentOfC()
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._handlers = list(map(_signal.getsignal, _SIGNALS))
        self._filters = list(warnings.filters)
        self._showwarning = warnings.showwarning
        self._hooks = [(module, name, getattr(module, name)) for module, name in _hooks()]
        self._path = list(sys.path)
        self._recursion_limit = sys.getrecursionlimit()
        self._builtins = dict(builtins.__dict__)
        self._loggers = Loggers(uses_logging)

    def restore(self) -> None:
        """Put back environment, umask, signal handlers, warnings, hooks, builtins, path and logging."""
        if _raw_environ() != self._environ_raw or self._environ_of_c.changed():
            os.environ.clear()
            self._environ_of_c.clear()
            os.environ.update(self._environ)
            self._environ_of_c.note()
        os.umask(self._umask)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if list(map(_signal.getsignal, _SIGNALS)) != self._handlers:
            for number, handler in zip(_SIGNALS, self._handlers):  # noqa: B905 - Python 3.8 has no ``strict``
                if handler is not None and _signal.getsignal(number) is not handler:
                    _signal.signal(number, handler)
        _signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._restore_interpreter()
        self._loggers.restore()

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

    Every change but one in place changes the table of pointers, which is quickly compared.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        try:
            self._table: Any = ctypes.c_void_p.in_dll(self._libc, "environ")
        except ValueError:  # not everywhere is it a symbol of the program
            self._table = None
        self.note()

    def note(self) -> None:
        """Take it as it is for what it has to be."""
        self._address = self._table.value if self._table is not None else None
        pointers = len(os.environ) + 1 if self._address else 0
        kind = ctypes.c_char * (pointers * ctypes.sizeof(ctypes.c_void_p))
        self._pointers = kind.from_address(self._address) if self._address else kind()
        self._noted = self._pointers.raw

    def changed(self) -> bool:
        """Return whether it is not as it was noted."""
        if self._table is None:
            return False
        return self._table.value != self._address or self._pointers.raw != self._noted

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

"""Serves a class that was pickled: ``<python> serve_class.py --class FILE --port N --workers N`` (see PROTOCOL.md).

Runs inside the sandbox, in the environment of the ETL, which has NVIDIA's SDK. Unpickling runs code of whoever made
the pickle, so it happens here and nowhere else. The class decides which web server runs it: a FastAPIServer is served
by uvicorn, a FlaskServer by gunicorn, anything else by its own ``start()``. The class is imported once and the
processes are forked from there; each makes an instance of its own, as each would with servers that import it.

Whatever keeps it from serving is said on standard error, and the exit status is not 0.
"""

import sys

if sys.path and not sys.flags.isolated:
    del sys.path[0]  # this directory: a transform must not find our modules under their short names

import argparse
import gc
import importlib
import logging
import os
import signal
import socket
import time
import traceback
from typing import Any, Callable, List, NoReturn

_BACKLOG = 2048
_WS_BYTES_MAX = 4 << 30  # an object is one message
_RESTARTS_MAX, _RESTART_SECONDS = 5, 60.0  # more deaths than that within a minute are no accident
_UNMADE = 3  # exit status of a process that could not make its instance


def fail(message: str, error: Any = None, status: int = 1) -> NoReturn:
    """Say why nothing is served, and exit."""
    if error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)
        message = "{}: {}: {}".format(message, type(error).__name__, error)
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    os._exit(status)  # threads that the class has started do not keep a failure from being seen


def load_class(path: str) -> Any:
    """Return the class in the pickle ``path``."""
    try:
        cloudpickle = importlib.import_module("cloudpickle")
        server_class = importlib.import_module("aistore.sdk.etl.webserver.base_etl_server").ETLServer
    except Exception as error:
        fail("the environment of the class does not work", error)
    with open(path, "rb") as file:
        pickled = file.read()
    try:
        found = cloudpickle.loads(pickled)
    except BaseException as error:
        fail("the class cannot be unpickled with Python {}.{}".format(*sys.version_info[:2]), error)
    if not isinstance(found, type) or not issubclass(found, server_class):
        fail("the pickle holds {!r}, which is no subclass of ETLServer".format(found))
    return found


def make(kind: Any) -> Any:
    """Return an instance of the class."""
    try:
        return kind()
    except BaseException as error:
        fail("{} cannot be made".format(kind.__name__), error, _UNMADE)


def flavour(kind: Any) -> str:
    """Return which of the SDK's classes ``kind`` is made from: ``FastAPIServer``, ``FlaskServer``, or nothing."""
    for base in kind.__mro__:
        if base.__module__.startswith("aistore.sdk.etl.webserver.") and base.__name__ in (
            "FastAPIServer",
            "FlaskServer",
        ):
            return str(base.__name__)
    return ""


def serve_asgi(kind: Any, listener: socket.socket) -> None:
    """Serve with uvicorn until told to stop."""
    uvicorn = importlib.import_module("uvicorn")
    app = make(kind).app
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, ws_max_size=_WS_BYTES_MAX, ws_ping_interval=None,
        timeout_keep_alive=75, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        fail("uvicorn did not start")


def serve_wsgi(kind: Any, listener: socket.socket, workers: int) -> None:
    """Serve with gunicorn, which forks its processes itself, until told to stop."""
    base: Any = importlib.import_module("gunicorn.app.base").BaseApplication
    # Its heartbeat sets the times of a file, which not every sandbox allows, and without a timeout nobody looks at it.
    importlib.import_module("gunicorn.workers.workertmp").WorkerTmp.notify = lambda self: None

    class Application(base):  # type: ignore[misc]
        def load_config(self) -> None:
            options = {
                "bind": "fd://{}".format(listener.fileno()), "workers": workers, "timeout": 0, "graceful_timeout": 5,
                "loglevel": "warning",
            }  # fmt: skip
            if "control_socket_disable" in self.cfg.settings:  # a Unix socket, which nobody would come to
                options["control_socket_disable"] = True
            for key, value in options.items():
                self.cfg.set(key, value)

        def load(self) -> Any:
            return kind().app  # what this raises gunicorn prints, and ends

    Application().run()


def serve_itself(kind: Any, port: int) -> None:
    """Have an instance serve itself at our port."""
    instance = make(kind)
    instance.host, instance.port = "127.0.0.1", port
    instance.start()


class Forked:
    """Processes that do the same; one that dies is forked again, unless they die one after the other."""

    def __init__(self, count: int, serve: Callable[[], None]) -> None:
        self._count = count
        self._serve = serve
        self._pids: List[int] = []
        self._deaths: List[float] = []

    def run(self) -> NoReturn:
        """Watch the processes until told to stop, or one cannot be made."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        gc.freeze()
        while True:
            while len(self._pids) < self._count:
                self._fork()
            pid, status = os.wait()
            if pid not in self._pids:  # something that the transform left behind
                continue
            self._pids.remove(pid)
            now = time.monotonic()
            self._deaths = [*(death for death in self._deaths if death > now - _RESTART_SECONDS), now]
            if (os.WIFEXITED(status) and os.WEXITSTATUS(status) == _UNMADE) or len(self._deaths) > _RESTARTS_MAX:
                self._kill(signal.SIGKILL)
                fail("process {} of the class ended with {}".format(pid, _outcome(status)))
            print("process {} of the class ended with {}".format(pid, _outcome(status)), file=sys.stderr, flush=True)

    def _fork(self) -> None:
        pid = os.fork()
        if pid:
            self._pids.append(pid)
            return
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            self._serve()
        except BaseException as error:
            fail("the server ended", error)
        finally:
            os._exit(0)

    def _stop(self, number: int, frame: Any) -> None:
        self._kill(signal.SIGTERM)
        os._exit(128 + number)

    def _kill(self, number: int) -> None:
        for pid in self._pids:
            try:
                os.kill(pid, number)
            except OSError:
                pass


def _outcome(status: int) -> str:
    return "signal {}".format(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else "status {}".format(
        os.WEXITSTATUS(status))  # fmt: skip


def main() -> None:
    """Serve the class of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--class", dest="path", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each object
    kind = load_class(arguments.path)
    served_by = flavour(kind)
    if not served_by:
        serve_itself(kind, arguments.port)
        return
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", arguments.port))
    except OSError as error:
        fail("port {} cannot be listened at".format(arguments.port), error)
    listener.listen(_BACKLOG)
    if served_by == "FlaskServer":
        serve_wsgi(kind, listener, arguments.workers)
    elif arguments.workers > 1:
        Forked(arguments.workers, lambda: serve_asgi(kind, listener)).run()
    else:
        serve_asgi(kind, listener)


if __name__ == "__main__":
    main()

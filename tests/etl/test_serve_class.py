"""The program that serves a pickled class: what it runs, and how it fails. NVIDIA's own classes: tests/acceptance."""

from __future__ import annotations

import http.client
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aistore.etl.specs.server_program import RUNNER

pytest.importorskip("cloudpickle")

#: What stands for NVIDIA's package here, and classes of a module of its own.
BASE = "class ETLServer:\n    host, port = '0.0.0.0', 0\n"
CLASSES = """
import http.server, os, sys
from aistore.sdk.etl.webserver.base_etl_server import ETLServer

class Serving(ETLServer):
    def start(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(repr([path for path in sys.path if path.endswith("worker")]).encode())
        print("it begins", flush=True)
        http.server.HTTPServer((self.host, self.port), Handler).serve_forever()

class Failing(ETLServer):
    def __init__(self):
        raise ValueError("there is no model here")

class Leaving(ETLServer):
    def __init__(self):
        sys.exit("I do not want to")

class Ending(ETLServer):
    def start(self):
        raise OSError("no more")

class Other:
    pass

def loads():
    raise KeyError("at loading")

class AtLoading:
    def __reduce__(self):
        return loads, ()
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packages")
    webserver = directory / "aistore" / "sdk" / "etl" / "webserver"
    webserver.mkdir(parents=True)
    for package in (webserver, *list(webserver.parents)[:3]):
        (package / "__init__.py").touch()
    (webserver / "base_etl_server.py").write_text(BASE)
    (directory / "classes.py").write_text(CLASSES)
    return directory


@contextmanager
def serving(packages: Path, pickled: Path, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-s", "-B", RUNNER, "--class", pickled, "--port", str(port)], text=True,
        env={"PYTHONPATH": str(packages), "PATH": os.defpath}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def pickled(packages: Path, expression: str) -> Path:
    """Pickle an object of the module where that module is."""
    path = packages / "class.pickle"
    program = "import pickle, sys, classes; pickle.dump(eval(sys.argv[1]), open(sys.argv[2], 'wb'))"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, expression, path], env={"PYTHONPATH": str(packages)},
        check=True, timeout=60,
    )  # fmt: skip
    return path


def failure(packages: Path, path: Path) -> tuple[int, str]:
    with serving(packages, path) as process:
        said, _ = process.communicate(timeout=60)
        return process.returncode, said


def test_a_class_serves_itself_at_the_port(packages: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with serving(packages, pickled(packages, "classes.Serving"), port) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "it begins\n"
        deadline = time.monotonic() + 60
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"[]", "our own modules are in the way of the class's"
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
            finally:
                connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0


@pytest.mark.parametrize(
    ("expression", "status", "said"),
    [
        ("classes.Failing", 3, "Failing cannot be made: ValueError: there is no model here"),
        ("classes.Leaving", 3, "Leaving cannot be made: SystemExit: I do not want to"),
        ("classes.Ending", 1, "OSError: no more"),
        ("classes.Other", 1, "the pickle holds <class 'classes.Other'>, which is no subclass of ETLServer"),
        ("classes.Serving()", 1, "which is no subclass of ETLServer"),
        ("classes.AtLoading()", 1, "the class cannot be unpickled with Python 3."),
    ],
)
def test_what_cannot_be_served_says_why(packages: Path, expression: str, status: int, said: str) -> None:
    found, text = failure(packages, pickled(packages, expression))
    assert (found, said in text) == (status, True), text


def test_what_is_no_pickle(packages: Path) -> None:
    path = packages / "garbage"
    path.write_bytes(b"garbage")
    found, text = failure(packages, path)
    assert found == 1
    assert "the class cannot be unpickled" in text


def test_an_environment_without_the_sdk(packages: Path, tmp_path: Path) -> None:
    path = tmp_path / "int"
    path.write_bytes(pickle.dumps(int))
    found, text = failure(tmp_path, path)
    assert found == 1
    assert "the environment of the class does not work: ModuleNotFoundError" in text

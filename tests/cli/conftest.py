"""Running `ais` as a person does, and comparing all that it says."""

from __future__ import annotations

import difflib
import http.server
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aistore.cli import main
from aistore.cli.commands import about, bucket, etl, get, job, object, put, show  # noqa: F401 - loaded once, not per fork
from aistore.testing import StoreProcess

#: What differs from run to run.
FILTERS = [
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"), "<time>"),
    (re.compile(r"\d\d [A-Z][a-z]{2} \d\d \d\d:\d\d UTC"), "<time>"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "<endpoint>"),
]

#: A line that needs no shell: `ais` and plain or quoted words.
_PLAIN = re.compile(r"ais [^|;&<>$()*`]*")


class Said(NamedTuple):
    """What a command wrote, and its exit code."""

    stdout: str
    stderr: str
    returncode: int


Shell = Callable[[str], Said]


@pytest.fixture(scope="session")
def cli_store() -> Iterator[StoreProcess]:
    """Return a store whose buckets and transforms are those of these tests alone: listings are compared whole."""
    with StoreProcess(env={"PIP_RETRIES": "0"}) as process:  # an index that does not answer is not asked five times
        yield process


@pytest.fixture
def shell(cli_store: StoreProcess, tmp_path: Path) -> Shell:
    """Return a function that runs a line of shell in an empty directory, with `ais` and AIS_ENDPOINT at hand."""
    environment = {
        "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "AIS_ENDPOINT": cli_store.endpoint,
        "LC_ALL": "C.UTF-8",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
    }
    work = tmp_path / "work"
    work.mkdir()

    def run(line: str) -> Said:
        words = shlex.split(line) if _PLAIN.fullmatch(line) else []
        return _run_forked(words[1:], work, environment) if words else _run_in_shell(line, work, environment)

    return run


def _run_in_shell(line: str, work: Path, environment: dict[str, str]) -> Said:
    done = subprocess.run(
        ["bash", "-c", line], cwd=work, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return Said(done.stdout, done.stderr, done.returncode)


def _run_forked(arguments: list[str], work: Path, environment: dict[str, str]) -> Said:
    """Run `ais` in a process of its own that does not have to start an interpreter first: 20 times sooner."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            code = 99
            try:
                for number, file in enumerate((open(os.devnull, "rb"), output, errors)):  # noqa: SIM115
                    os.dup2(file.fileno(), number)
                sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
                os.chdir(work)
                os.environ.clear()
                os.environ.update(environment)
                code = main.run(arguments)
            except SystemExit as done:
                code = done.code if isinstance(done.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        errors.seek(0)
        return Said(output.read().decode(), errors.read().decode(), status)


@pytest.fixture
def other_server() -> Iterator[Callable[[int, bytes], str]]:
    """Return a function that starts a server of something else, which answers everything alike."""
    servers = []

    def start(status: int, body: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append((server, threading.Thread(target=server.serve_forever)))
        servers[-1][1].start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def forked() -> Callable[[list[str], Path, dict[str, str]], Said]:
    """Return the function that runs `ais` with arguments, in a directory, with variables and no others."""
    return _run_forked


@pytest.fixture
def transcript(shell: Shell) -> Callable[[str], None]:
    """Return a function that runs the lines of a transcript that begin with ``$`` and compares everything after them.

    Lines of standard error are marked with ``!`` and follow standard output; an exit code that is not 0 comes last,
    in brackets.
    """

    def check(text: str) -> None:
        expected = textwrap.dedent(text).strip("\n").splitlines()
        actual: list[str] = []
        for line in expected:
            if line.startswith("$ "):
                actual.append(line)
                actual += _said(shell(line[2:]))
        difference = "\n".join(difflib.unified_diff(expected, actual, "expected", "actual", lineterm=""))
        assert not difference, difference

    return check


def _said(done: Said) -> list[str]:
    said = _filtered(done.stdout).splitlines() + [f"! {line}".rstrip() for line in _filtered(done.stderr).splitlines()]
    return said + ([f"[{done.returncode}]"] if done.returncode else [])


def _filtered(text: str) -> str:
    for pattern, name in FILTERS:
        text = pattern.sub(name, text)
    return text

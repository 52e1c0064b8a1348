import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from aistore.etl.confinement import confine_command
from aistore.etl.environments.commands import (
    LINE_BYTES_MAX,
    CommandCancelled,
    CommandSpec,
    CommandTimeout,
    run_command,
    run_guarded,
)

FOREVER = 120.0


def shell(script, directory):
    return CommandSpec(("/bin/sh", "-c", script), {"PATH": "/usr/bin:/bin"}, (), str(directory))


def guard(directory):
    return lambda life: confine_command({"mode": "off", "scratch": str(directory), "life_fd": life})


def run(script, directory, seconds=FOREVER, cancel=None):
    lines = []
    status = run_command(shell(script, directory), lines.append, time.monotonic() + seconds, cancel)
    return status, lines


@pytest.fixture
def pipe(tmp_path):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    return path


def test_lines_and_status(tmp_path):
    assert run("echo one; echo two >&2; printf 'three\\rfour\\n\\nfive'; exit 7", tmp_path) == (
        7,
        ["one", "two", "three", "four", "five"],
    )


def test_a_line_without_an_end_comes_in_pieces(tmp_path):
    status, lines = run("head -c 1000000 /dev/zero | tr '\\0' x", tmp_path)
    assert (status, "".join(lines)) == (0, "x" * 1_000_000)
    assert max(map(len, lines)) <= 2 * LINE_BYTES_MAX


def test_the_group_ends_at_the_deadline(tmp_path, pipe):
    with pytest.raises(CommandTimeout):
        run(f"sleep 600 <> {pipe} & wait", tmp_path, seconds=0.2)
    deadline = time.monotonic() + 20  # it is killed, but nobody waits for what a command leaves
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as left:
        while left.read() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert left.read() == b""  # end of file: nobody has it open


def test_a_command_that_cannot_start_leaves_nothing(tmp_path):
    before = os.listdir("/dev/fd")
    spec = CommandSpec(("/nowhere/command",), {}, (), str(tmp_path))
    for start in (run_command, lambda *arguments: run_guarded(lambda life: (), *arguments)):
        with pytest.raises(FileNotFoundError):
            start(spec, print, time.monotonic() + FOREVER)
    assert os.listdir("/dev/fd") == before


def test_a_guard_ends_what_left_the_group(tmp_path, pipe):
    cancel = threading.Event()
    raised = []

    def start():
        try:
            script = shell(f"setsid sh -c 'echo here > {pipe}; exec sleep 600 > {pipe}' & sleep 600", tmp_path)
            run_guarded(guard(tmp_path), script, print, time.monotonic() + FOREVER, cancel)
        except CommandCancelled as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    with open(pipe) as heard:
        assert heard.readline() == "here\n"
        cancel.set()
        assert heard.read() == ""
    thread.join()
    assert len(raised) == 1


def test_a_guard_passes_the_status_on(tmp_path):
    for status in (0, 3):
        script = shell(f"exit {status}", tmp_path)
        assert run_guarded(guard(tmp_path), script, print, time.monotonic() + FOREVER) == status


KILLED = """
import sys, time
from aistore.etl.environments.commands import CommandSpec, run_guarded
from aistore.etl.confinement import confine_command
script, directory = sys.argv[1:]
run_guarded(
    lambda life: confine_command({"mode": "off", "scratch": directory, "life_fd": life}),
    CommandSpec(("/bin/sh", "-c", script), {"PATH": "/usr/bin:/bin"}, (), directory), print, time.monotonic() + 120,
)
"""


def test_a_guard_ends_its_command_when_we_are_killed(tmp_path, pipe):
    script = f"exec > {pipe}; echo here; setsid sleep 600 & sleep 600"
    ours = subprocess.Popen([sys.executable, "-c", KILLED, script, str(tmp_path)], stdout=subprocess.DEVNULL)
    with open(pipe) as heard:
        assert heard.readline() == "here\n"
        ours.send_signal(signal.SIGKILL)
        ours.wait()
        assert heard.read() == ""

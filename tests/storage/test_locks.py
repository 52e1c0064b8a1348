"""Who may open a directory: one owner, its writers, and only directories that are ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import needs

from aistore.errors import ConflictError
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.layout import open_directory
from aistore.storage.local.locks import acquire_ownership, join_writers, read_owner


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``code`` in another interpreter until the block ends; it has printed a line when this yields."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


OWN = """
import sys
from aistore.storage.local.locks import acquire_ownership
ownership = acquire_ownership(sys.argv[1])
ownership.announce("http://127.0.0.1:8080")
print("ready", flush=True)
sys.stdin.read()
"""

JOIN = OWN.replace("acquire_ownership", "join_writers").replace('ownership.announce("http://127.0.0.1:8080")', "")


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert read_owner(directory) is None
    with process(OWN, directory) as child:
        with pytest.raises(ConflictError) as caught:
            acquire_ownership(directory, wait_seconds=0)
        assert f"process {child.pid} at http://127.0.0.1:8080" in str(caught.value)
        assert f"kill {child.pid}" in caught.value.hint
        owner = read_owner(directory)
        assert (owner.pid, owner.endpoint) == (child.pid, "http://127.0.0.1:8080")
    # Killed with -9: the lock is free, whatever the file says.
    assert read_owner(directory) is None
    acquire_ownership(directory).close()


@needs("proc")
def test_a_new_owner_waits_for_the_last_ones_writers(tmp_path: Path) -> None:
    directory = str(tmp_path)
    acquire_ownership(directory).close()
    with process(JOIN, directory) as child:
        with pytest.raises(ConflictError, match=str(child.pid)):
            acquire_ownership(directory, wait_seconds=0)
        assert read_owner(directory) is None
        child.kill()
        acquire_ownership(directory).close()


def test_writers_join_their_owner(tmp_path: Path) -> None:
    ownership = acquire_ownership(str(tmp_path))
    locks = [join_writers(str(tmp_path), wait_seconds=0) for _ in range(2)]
    for lock in locks:
        lock.close()
        lock.close()
    ownership.close()
    ownership.close()


def test_children_do_not_inherit_the_locks(tmp_path: Path) -> None:
    directory = str(tmp_path)
    ownership = acquire_ownership(directory)
    with process("print('ready', flush=True); import sys; sys.stdin.read()"):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.close(reading)
        ownership.close()
        # Both children live; neither holds what their parent let go.
        acquire_ownership(directory, wait_seconds=0).close()
        os.close(writing)
        os.waitpid(pid, 0)


def test_a_strange_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for begin in (open_directory, acquire_ownership, LocalEngine):
        with pytest.raises(ConflictError, match=r"not empty.*thesis\.tex"):
            begin(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_the_root_of_a_new_disk_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    open_directory(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "pyaistore data directory", "format": 2}, "has format 2, this version of the store reads up to 1"),
        ({"kind": "something else", "format": 1}, "not a data directory"),
        ({"format": 1}, "cannot be read"),
        ("text", "cannot be read"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "format.json").write_text(json.dumps(content))
    with pytest.raises(ConflictError, match=message):
        LocalEngine(str(tmp_path))


def test_a_beginning_cut_off_is_finished(tmp_path: Path) -> None:
    open_directory(str(tmp_path))
    (tmp_path / "format.json").unlink()
    open_directory(str(tmp_path))
    assert (tmp_path / "format.json").exists()

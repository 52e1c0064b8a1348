"""`ais fsck`, `ais storage validate`: what a person sees when the disk did not keep the bytes, and the exit codes."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aistore.client import Client
from aistore.testing import StoreProcess

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(shell: Callable[[str], Any], data: Path) -> Run:
    """Return a function that runs `ais` and returns its exit code and all that it said, with paths as DATA."""

    def run_ais(*arguments: str, endpoint: str = "") -> tuple[int, str]:
        done = shell(shlex.join(["ais", *arguments, *(["--endpoint", endpoint] if endpoint else [])]))
        said = done.stdout + "".join(f"! {line}\n" for line in done.stderr.splitlines())
        said = said.replace(str(data), "DATA")
        said = re.sub(r"data/[0-9a-f]{16}/", "data/GENERATION/", said)
        said = re.sub(r"\b[0-9a-f]{16}\b", "<sum>", said)
        said = re.sub(r"before-\d+", "before-<time>", said)
        said = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "<time>", said)
        said = re.sub(r"(process|kill) \d+", r"\1 <pid>", said)
        said = re.sub(r"http://127\.0\.0\.1:\d+", "<endpoint>", said)
        return done.returncode, re.sub(r" {2,}", "  ", said)

    return run_ais


def fill(store: StoreProcess) -> None:
    with Client(store.endpoint) as client:
        bucket = client.bucket("imagenet").create()
        for number in range(3):
            bucket.object(f"train/{number}.jpg").put(bytes([number]) * 20_000)
            bucket.object(f"train/{number}.cls").put(str(number).encode())


def file_of(data: Path, name: str) -> Path:
    with closing(sqlite3.connect(data / "mp0" / "index.db")) as connection:
        row = connection.execute("SELECT place FROM objects WHERE name = ?", (name.encode(),)).fetchone()
    return data / "mp0" / "data" / str(row[0])


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.fixture
def stopped(new_store: Callable[..., StoreProcess], data: Path) -> Path:
    """Return the directory of a store that has stopped."""
    store = new_store(str(data), arguments=("--workers", "1"))
    fill(store)
    store.end()
    return data


def test_a_sound_directory(run: Run, stopped: Path) -> None:
    assert run("fsck", str(stopped)) == (
        0,
        "Checked 6 objects (58.60KiB) in 3 files.\n"
        "No damage found.\n",
    )  # fmt: skip
    code, said = run("fsck", str(stopped), "--fast", "--json")
    assert code == 0
    assert json.loads(said) == {
        "objects": 6, "bytes": 60_003, "files": 3, "unfinished": 0, "trash": 0, "findings": [], "clean": True,
    }  # fmt: skip


def test_damage_is_shown_by_name(run: Run, stopped: Path) -> None:
    flip(file_of(stopped, "train/0.jpg"), 7)
    file_of(stopped, "train/1.jpg").unlink()
    flip(file_of(stopped, "train/2.jpg"), -10)
    code, said = run("fsck", str(stopped))
    places = re.findall(r"data/GENERATION/(\w)", said)
    assert len(places) == 3
    zero, one, two = places
    assert (code, said) == (
        1,
        "KIND  OBJECT  FILE  PROBLEM\n"
        f"checksum  ais://imagenet/train/0.jpg  DATA/mp0/data/GENERATION/{zero}  has xxhash2 <sum>, <sum> was stored\n"
        f"missing  ais://imagenet/train/1.jpg  DATA/mp0/data/GENERATION/{one}  is gone\n"
        f"trailer  ais://imagenet/train/2.jpg  DATA/mp0/data/GENERATION/{two}  has no trailer that can be read; its "
        "bytes are not affected\n"
        "Checked 6 objects (58.60KiB) in 2 files.\n"
        "Damage found: 1 checksum, 1 missing, 1 trailer. Put the objects again from their source, or delete them.\n",
    )
    code, said = run("fsck", str(stopped), "--json")
    assert code == 1
    assert [finding["kind"] for finding in json.loads(said)["findings"]] == ["checksum", "missing", "trailer"]


def test_a_lost_index_is_made_again(run: Run, stopped: Path, new_store: Callable[..., StoreProcess]) -> None:
    for path in (stopped / "mp0").glob("index.db*"):
        path.unlink()
    (stopped / "mp0" / "catalog.json").unlink(missing_ok=True)  # written within seconds: here, or not yet
    assert run("serve", "--data", str(stopped), "--port", "0") == (
        1,
        "! Error: DATA/mp0/index.db is gone, but there are files of objects\n"
        "! Hint: put it back from a copy, or make it again from the files: ais fsck --rebuild DATA\n",
    )
    assert run("fsck", str(stopped)) == (
        1,
        "KIND  OBJECT  FILE  PROBLEM\n"
        "index  -  DATA/mp0/index.db  is gone: `ais fsck --rebuild` makes it again from the files\n"
        "Checked 0 objects (0B) in 0 files.\n"
        "Damage found: 1 index. `ais fsck --rebuild` makes the index again.\n",
    )
    assert run("fsck", str(stopped), "--rebuild") == (
        1,
        "DATA/mp0/index.db was made again; there was no old one.\n"
        "  Buckets:  1, 1 of them without their properties\n"
        "  Objects:  3\n"
        "  from files:  3\n"
        "  from the index:  0\n"
        "  Into the trash:  0 files replaced by later ones or deleted\n"
        "Objects of 256 bytes and less lay in the old index alone, and are lost.\n",
    )
    store = new_store(str(stopped))
    with Client(store.endpoint) as client:
        assert client.bucket("imagenet").object("train/2.jpg").get().read() == b"\2" * 20_000
    store.end()
    assert run("fsck", str(stopped))[0] == 0


def test_a_sound_index_made_again(run: Run, stopped: Path) -> None:
    assert run("fsck", "--rebuild", str(stopped)) == (
        0,
        "DATA/mp0/index.db was made again; the old one is DATA/mp0/index.db.before-<time>.\n"
        "  Buckets:  1\n"
        "  Objects:  6\n"
        "  from files:  3\n"
        "  from the index:  3\n"
        "  Into the trash:  0 files replaced by later ones or deleted\n",
    )


def test_a_directory_in_use_and_no_directory(run: Run, data: Path, new_store: Callable[..., StoreProcess]) -> None:
    assert run("fsck", str(data)) == (
        2,
        "! Error: DATA is not a data directory of this store\n"
        "! Hint: name the one that `ais serve --data` was given\n",
    )  # fmt: skip
    assert not data.exists()
    new_store(str(data))
    for option in ("--fast", "--rebuild"):
        assert run("fsck", str(data), option) == (
            2,
            "! Error: DATA is in use by process <pid> at <endpoint>\n"
            "! Hint: stop it (kill <pid>), or serve another directory\n",
        )
    assert run("fsck", "--fast", "--rebuild", str(data))[0] == 2


def test_validating_a_running_store(run: Run, data: Path, new_store: Callable[..., StoreProcess]) -> None:
    command = ("storage", "validate")
    store = new_store(str(data))
    fill(store)
    assert run(*command, endpoint=store.endpoint) == (
        0, "Validated 6 objects (58.60KiB), all sound; ended <time>.\n",
    )  # fmt: skip
    flip(file_of(data, "train/0.jpg"), 7)
    code, said = run(*command, endpoint=store.endpoint)
    file = re.search(r"DATA/mp0/data/GENERATION/\w", said)
    assert file is not None
    table = (
        "OBJECT  FOUND  PROBLEM\n"
        f"ais://imagenet/train/0.jpg  <time>  {file[0]} has xxhash2 <sum>, <sum> was stored\n"
        "Validated 6 objects (58.60KiB); ended <time>.\n"
        "! Error: 1 object damaged: reads of it fail\n"
        "! Hint: put it again from its source, or delete it\n"
    )
    assert (code, said) == (1, table)
    assert run("scrub", "--show", endpoint=store.endpoint) == (1, table)
    code, said = run("show", "storage", endpoint=store.endpoint)
    assert code == 0
    assert said.endswith("\n1 object damaged: `ais storage validate --show` tells more\n")
    code, said = run(*command, "--show", "--json", endpoint=store.endpoint)
    assert code == 1
    found = json.loads("".join(line for line in said.splitlines() if not line.startswith("!")))
    assert [damaged["name"] for damaged in found["damaged"]] == ["train/0.jpg"]
    code, said = run("get", "ais://imagenet/train/0.jpg", "-", endpoint=store.endpoint)
    assert code == 1
    assert said == (
        f"! Error: ais://imagenet/train/0.jpg is damaged: its file {file[0]} has xxhash2 <sum>, <sum> was stored\n"
        "! Hint: put it again from its source, or delete it\n"
    )

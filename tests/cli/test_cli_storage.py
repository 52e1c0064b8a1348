"""`ais storage` and `ais show storage`: everything they say, word for word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aistore.testing import StoreProcess


@pytest.fixture
def cli_store(tmp_path: Path) -> Iterator[StoreProcess]:
    """Return a store whose disks are those of one test; the shell's working directory lies beside its data."""
    with StoreProcess(str(tmp_path / "data")) as process:
        yield process


def test_disks_come_and_go(transcript, shell, tmp_path):
    # What differs from machine to machine: paths, and the two last columns.
    space = r"s/ AVAILABLE DISK$|( [0-9.]+[KMGT]iB){2}$| - -$//"
    (tmp_path / "where").write_text(f"sed 's#{tmp_path}#/srv#g' | tr -s ' ' | sed -E '{space}'")
    transcript("""
        $ ais create ais://b
        "ais://b" created
        $ ais storage mountpath attach ../disk2
        "../disk2" attached
        $ mkdir files; for i in {1..8}; do head -c 4000 /dev/zero > files/$i.jpg; done
        $ ais put -r files ais://b -y | tail -1
        PUT 8 files (31.25KiB) => ais://b
        $ ais show storage | bash ../where
        MOUNTPATH ID STATE OBJECTS SIZE SHARE
        /srv/data mp0 available 5 19.53KiB 62%
        /srv/disk2 mp1 available 3 11.72KiB 38%
        $ ais storage mountpath disable ../disk2
        "../disk2" disabled
        $ ais show storage | bash ../where
        MOUNTPATH ID STATE OBJECTS SIZE SHARE
        /srv/data mp0 available 5 19.53KiB 100%
        /srv/disk2 mp1 disabled - - -

        /srv/disk2 is disabled: it was disabled by hand
        $ ais ls ais://b 2>&1 | bash ../where
        Error: ais://b: mountpath /srv/disk2 (mp1) is unavailable: it was disabled by hand
        Hint: use it again: ais storage mountpath enable /srv/disk2
        $ ais storage validate > validated 2>&1 || echo $?; sed 's/;.*//' validated | bash ../where
        1
        Validated 5 objects (19.53KiB)
        Error: /srv/disk2 is disabled: it was disabled by hand
        $ ais doctor | grep mountpath: | bash ../where
        warn mountpath: /srv/disk2 is disabled: it was disabled by hand
        $ ais storage mountpath enable ../disk2
        "../disk2" enabled
        $ ais ls ais://b -H | wc -l
        8
        $ ais storage mountpath detach ../disk2 2>&1 | bash ../where
        Error: mountpath /srv/disk2 has objects on it, which would be lost to the store
        Hint: copy them elsewhere first, or give them up: ais storage mountpath detach /srv/disk2 --force
        $ ais storage mountpath detach ../disk2 --force
        ! Usage: ais storage mountpath detach [OPTIONS] PATH
        ! Try 'ais storage mountpath detach --help' for help.
        !
        ! Error: this removes mountpath ../disk2 with all objects on it: pass -y to confirm
        [2]
        $ ais storage mountpath detach ../disk2 --force -y
        "../disk2" detached
        $ ais ls ais://b -H | wc -l
        5
        $ ais storage mountpath attach ../disk2 2>&1 | bash ../where
        Error: /srv/disk2 was detached from this store, which has changed since
        Hint: empty it, or choose another directory
        $ ais storage mountpath attach /proc/nothing
        ! Error: /proc/nothing cannot be a mountpath: No such file or directory
        [1]
        $ ais storage mountpath detach mp0 2>&1 | bash ../where
        Error: mp0 is in the data directory and has the store's catalog: it cannot leave
        Hint: to move the store to another disk, stop it and copy the data directory
        $ ais storage mountpath detach /nowhere
        ! Error: /nowhere is not a mountpath of this store
        ! Hint: mountpaths: none but the data directory's own
        [1]
    """)
    (record,) = json.loads(shell("ais storage summary --json").stdout)
    assert record["total"] > record["avail"] > 0
    del record["total"], record["avail"]
    assert record == {
        "id": "mp0", "path": str(tmp_path / "data"), "state": "available", "reason": "", "objects": 5, "size": 20000,
    }  # fmt: skip

"""New generations are placed far apart where the file system can do that, and nothing breaks where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aistore.storage.local.block_groups import spread_subdirectories
from aistore.storage.local.engine import LocalEngine


def _file_system(path: Path) -> str:
    found = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the flag is Linux's")
def test_a_data_directory_has_its_generations_spread(tmp_path: Path) -> None:
    if _file_system(tmp_path) != "ext2/ext3":
        pytest.skip("only ext2, 3 and 4 have the flag")
    LocalEngine(str(tmp_path / "store")).close()
    listed = subprocess.run(["lsattr", "-d", tmp_path / "store/mp0/data"], capture_output=True, text=True, check=True)
    assert "T" in listed.stdout.split()[0]
    assert spread_subdirectories(str(tmp_path / "store/mp0/data"))


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no file system without the flag at hand")
def test_a_file_system_without_block_groups_is_left_alone() -> None:
    assert not spread_subdirectories("/dev/shm")

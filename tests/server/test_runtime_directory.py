"""The private directory of a running store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from aistore.settings import make_runtime_directory


def test_the_directory_that_a_killed_store_left_is_removed(tmp_path: Path) -> None:
    left = make_runtime_directory(str(tmp_path))
    again = make_runtime_directory(str(tmp_path))
    assert not os.path.exists(left)
    shutil.rmtree(again)


def test_a_copy_of_a_running_stores_data_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    running = make_runtime_directory(str(tmp_path / "data"))
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    other = make_runtime_directory(str(tmp_path / "copy"))
    assert os.path.exists(running)
    for directory in (running, other):
        shutil.rmtree(directory)

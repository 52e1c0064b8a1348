"""Files of a confined program are counted wherever they lie, also where its user could not go to from the root."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from aistore.etl.confinement import confined_run
from aistore.etl.environments.commands import CommandSpec

#: Long enough for the guard to look more than once.
WRITE = """
import os, time
os.makedirs("some/directory", mode=0o700)
for number in range(20):
    with open(f"some/directory/{number}", "wb") as file:
        file.write(bytes(10_000))
    time.sleep(0.25)
print("done")
"""


def test_below_a_directory_that_is_closed_to_others(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    write = closed / "write"
    write.mkdir(mode=0o755)
    python = os.path.realpath(sys.executable)
    spec = CommandSpec((python, "-c", WRITE), {"TMPDIR": str(write)}, (sys.base_prefix,), str(write), network=False)
    said: list[str] = []
    status = confined_run()(spec, said.append, time.monotonic() + 60, None)
    assert (status, said) == (0, ["done"])

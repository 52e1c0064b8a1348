"""The log of a transform."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aistore.etl.log import TransformLog


def test_a_full_disk_costs_only_the_lines(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "log"
        path.symlink_to("/dev/full")  # every write to it fails
        log = TransformLog(str(path))
        log.write("lost")
        assert log.tail(0) == ""  # took the line from the pipe
        log.close()

    asyncio.run(work())

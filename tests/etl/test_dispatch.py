"""What the dispatcher decides without a transform: how many copies of objects it holds in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from aistore.errors import OverloadedError
from aistore.etl.dispatch import Dispatcher, Running
from aistore.settings import Limits


def test_copies_in_memory_are_bounded() -> None:
    limits = Limits(etl_input_bytes_max=100, memfd_input_bytes_max=1000)
    running = Running("some-etl", "/nowhere", 1.0)
    with ThreadPoolExecutor(1) as threads:
        dispatcher = Dispatcher(None, threads, limits, "/nowhere")  # type: ignore[arg-type]
        assert dispatcher._hold_input(running, 500) == 500  # one object may be larger than all may be together
        with pytest.raises(OverloadedError, match="some-etl"):
            dispatcher._hold_input(running, 1)
        assert dispatcher._hold_input(running, 1001) == 0  # goes through a file

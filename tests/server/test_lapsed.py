"""What a node without a lease waits for: not long, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aistore.errors import AmbiguousWriteError, NotHomeError
from aistore.server.node import lapsed


class Body:
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lapsed, "LAPSED_SECONDS", 0.05)
    monkeypatch.setattr(lapsed, "_LOOK_SECONDS", 0.01)


def test_a_read_is_waited_for_as_long_as_the_lease_holds() -> None:
    async def read() -> str:
        await asyncio.sleep(0.2)
        return "bytes"

    assert asyncio.run(lapsed.read_while_leased(read(), lambda: True)) == "bytes"
    with pytest.raises(NotHomeError, match="lost its lease"):
        asyncio.run(lapsed.read_while_leased(read(), lambda: False))


def test_what_is_there_at_once_needs_no_lease() -> None:
    async def read() -> str:
        return "bytes"

    assert asyncio.run(lapsed.read_while_leased(read(), lambda: False)) == "bytes"


def test_a_read_given_up_leaves_nothing_open() -> None:
    body = Body()

    async def stubborn() -> Body:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:  # its bytes come in this very moment
            pass
        return body

    async def run() -> None:
        with pytest.raises(NotHomeError):
            await lapsed.read_while_leased(stubborn(), lambda: False)
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert body.closed


@pytest.mark.parametrize("fails", [False, True])
def test_a_write_goes_on_when_nobody_waits_for_it(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    ended = []

    async def write() -> str:
        await asyncio.sleep(0.15)
        ended.append(1)
        if fails:
            raise AmbiguousWriteError("the store said nothing")
        return "written"

    async def run() -> None:
        with pytest.raises(NotHomeError):
            await lapsed.write_while_leased(write(), lambda: False)
        assert not ended
        await asyncio.sleep(0.2)

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert ended
    assert ("the store said nothing" in caplog.text) == fails

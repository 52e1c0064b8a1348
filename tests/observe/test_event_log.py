"""The log: one event per line, with its request, and nothing in it that should not be."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from aistore.observe.log import Flood, RequestIds, configure_log, fields, request_id, sane_request_id

TOKEN = "a-very-secret-token"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


Written = Callable[[], str]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """Return what was logged, and leave the log of the tests as it was."""
    root, access = logging.getLogger(), logging.getLogger("aistore.access")
    handlers, level, access_level = root.handlers[:], root.level, access.level
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(level)
    access.setLevel(access_level)


def log_something() -> None:
    log = logging.getLogger("aistore.test")
    log.debug("not shown")
    log.warning("lines\nof\x1b[31m %s", "text", extra=fields(path="/a b", size=5, header=f"Bearer {TOKEN}"))
    context = request_id.set("abc-1")
    try:
        raise ValueError(f"with {TOKEN}\nin it")
    except ValueError:
        log.exception("it failed")
    finally:
        request_id.reset(context)


def test_text_is_one_line_per_event(written: Written) -> None:
    configure_log("http-0", level="info", form="text", access=False, token=TOKEN)
    log_something()
    text = written()
    first, second, *traceback = text.splitlines()
    shown = r'lines\\nof\\x1b\[31m text path="/a b" size=5 header="Bearer \*\*\*"'
    assert re.fullmatch(TIME + r" WARNING http-0\[\d+\] - aistore\.test: " + shown, first)
    assert re.fullmatch(TIME + r" ERROR http-0\[\d+\] abc-1 aistore\.test: it failed", second)
    assert traceback[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in traceback)
    assert TOKEN not in text


def test_json_is_one_object_per_event(written: Written) -> None:
    configure_log("controller", level="info", form="json", access=False, token=TOKEN)
    log_something()
    text = written()
    first, second = map(json.loads, text.splitlines())
    assert list(first) == ["time", "level", "process", "pid", "logger", "message", "path", "size", "header"]
    assert re.fullmatch(TIME, first["time"])
    assert (first["level"], first["process"], first["size"]) == ("warning", "controller", 5)
    assert first["message"] == "lines\nof\x1b[31m text"
    assert second["request"] == "abc-1"
    assert second["traceback"].startswith("Traceback (most recent call last):\n")
    assert "ValueError: with ***\nin it" in second["traceback"]
    assert TOKEN not in text


@pytest.mark.parametrize("access", [True, False])
def test_the_access_log_does_not_go_by_the_level(written: Written, access: bool) -> None:
    configure_log("http-0", level="error", form="text", access=access, token="")
    logging.getLogger("aistore.access").info("request")
    logging.getLogger("aistore.server").warning("not shown")
    text = written()
    assert bool(text) is access
    assert "not shown" not in text


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("abc-123", True), ("Root=1-67891233-abcdef012345678912345678", True), ("a" * 128, True), ("", False),
        ("a" * 129, False), ("a b", False), ("a\nb", False), ('a"b', False), ("é", False), ("{}", False),
    ],
)  # fmt: skip
def test_ids_of_clients_are_taken_if_they_are_sane(given: str, taken: bool) -> None:
    assert sane_request_id(given) == (given if taken else "")


def test_ids_differ_between_requests_and_processes() -> None:
    one, other = RequestIds(), RequestIds()
    found = {ids.new() for ids in (one, other) for _ in range(100)}
    assert len(found) == 200
    assert all(sane_request_id(name) for name in found)


def test_a_flood_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    flood, now = Flood(), 100.0
    monkeypatch.setattr("aistore.observe.log.time.monotonic", lambda: now)
    notes = [flood.note for _ in range(1000) if flood.lets()]
    assert len(notes) == 20
    assert "no more" in notes[-1]
    assert not any(notes[:-1])
    now = 101.0
    assert flood.lets()
    assert not flood.note

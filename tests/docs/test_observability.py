"""The table of metrics is what the store answers."""

from __future__ import annotations

import re
from pathlib import Path

import urllib3

from aistore.testing import StoreProcess

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "observability.md"


def test_the_table_of_metrics_is_what_there_is(store: StoreProcess) -> None:
    text = urllib3.request("GET", f"{store.endpoint}/metrics").data.decode()
    there_are = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    documented = {}
    for names, kind, labels in re.findall(r"^\| (`ais_.+?) \| (\w+) \| (.*?) ?\| ", DOCUMENT.read_text(), re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            documented[name] = kind
            shown = set(re.findall(r"`(\w+)`", labels))
            for found in re.findall(rf"^{name}(?:_sum)?\{{(.+?)\}} ", text, re.MULTILINE):
                assert set(re.findall(r'(\w+)="', found)) == shown, name
            assert shown or not re.search(rf"^{name}\{{(?!le=)", text, re.MULTILINE), name
    assert documented == there_are


def test_the_options_of_the_log_are_those_of_serve() -> None:
    from aistore.cli.commands.serve import serve

    options = {param.opts[0]: param.envvar for param in serve.params if "log" in (param.name or "")}
    shown = re.findall(r"^\| `(--[\w-]+)` \| `(\w+)", DOCUMENT.read_text(), re.MULTILINE)
    assert dict(shown) == options

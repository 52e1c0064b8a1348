"""The table of what object stores can do says what they were found to do."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from aistore.errors import NotSupportedError
from aistore.laptop.weed import Weed, find_weed

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_object_stores(tmp_path: Path) -> None:
    try:
        find_weed()
    except NotSupportedError as error:
        pytest.skip(str(error))
    source = ROOT / "tests" / "storage" / "objectstore" / "table.py"
    specification = importlib.util.spec_from_file_location("object_store_table", source)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    with Weed(str(tmp_path / "weed")) as running:
        printed = module.table(module.probed(running.environment))
    document = (ROOT / "docs" / "object-stores.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- table -->\n(.*?)<!-- /table -->", document, re.DOTALL)
    assert shown is not None
    assert shown[1] == printed, "run: python tests/storage/objectstore/table.py, and put its output there"

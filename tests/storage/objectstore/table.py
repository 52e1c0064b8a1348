"""The table in docs/object-stores.md. `python tests/storage/objectstore/table.py` prints it.

What can be had here is probed; what the providers document is marked as that, and is probed when a node starts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from aistore.laptop.weed import BUCKET, Weed
from aistore.storage.objectstore.contract import Capabilities
from aistore.storage.objectstore.probe import probe
from aistore.storage.objectstore.urls import DECLARED, open_object_store

HEAD = (
    "store", "known by", "cluster", "create if absent", "replace if ETag", "order of listings", "metadata",
    "`a` and `a/b`", "longest segment", "besides, names without",
)  # fmt: skip
PROBED, DECLARES = "trying", "its documentation"


def probed(weed_environment: Mapping[str, str]) -> dict[str, Capabilities]:
    """Return what the stores that can be had here were found to do."""
    before = dict(os.environ)
    os.environ.update(weed_environment)
    try:
        with tempfile.TemporaryDirectory() as directory:
            stores = {
                "`s3://` of SeaweedFS 4.48": open_object_store(f"s3://{BUCKET}/table"),
                "`file://`": open_object_store(f"file://{directory}"),
                "`memory://`": open_object_store("memory://"),
            }
            return {name: probe(store) for name, store in stores.items()}
    finally:
        os.environ.clear()
        os.environ.update(before)


def table(found: Mapping[str, Capabilities]) -> str:
    """Return the table in Markdown."""
    rows = [(name, PROBED, able) for name, able in found.items()]
    rows += [(f"`{kind}://`{name}", DECLARES, DECLARED[kind]) for kind, name in _NAMES.items()]
    lines = [HEAD, ["---"] * len(HEAD), *(_row(*row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


_NAMES = {"s3": " of AWS", "gs": "", "az": "", "http": ", `https://`"}


def _row(name: str, known: str, able: Capabilities) -> list[str]:
    if not able.writable:
        return [name, known, "no", "cannot be written", "", "cannot be listed", "", "", "", ""]
    return [
        name,
        known,
        _yes(able.shared),
        _yes(able.conditional_create),
        _yes(able.conditional_replace),
        "bytes" if able.byte_order else "its own",
        f"{able.metadata_bytes_max:,} bytes" if able.metadata else "none",
        "both" if able.nesting else "one of them",
        f"{able.segment_bytes_max:,} bytes",
        " ".join(
            f"`{character}`" + (" and digits at the end" if character == "#" else "") for character in able.forbidden
        ),
    ]


def _yes(there: bool) -> str:
    return "yes" if there else "no"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, Weed(place) as running:
        print(table(probed(running.environment)), end="")

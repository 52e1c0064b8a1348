"""Entry of an ETL's parent process: ``<python> main.py <control fd> <listen fd>`` (see PROTOCOL.md).

With ``worker`` and seven numbers (``spawned.py``) it is the entry of a worker that cannot be forked.
"""

import sys

if sys.path and not sys.flags.isolated:
    del sys.path[0]  # this directory: a transform must not find our modules under their short names

import importlib.util
import os


def _load_package() -> None:
    """Make this directory importable as ``_aistore_worker``."""
    directory = os.path.dirname(os.path.abspath(__file__))
    spec = importlib.util.spec_from_file_location(
        "_aistore_worker", os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["_aistore_worker"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    _load_package()
    if sys.argv[1] == "worker":
        importlib.import_module("_aistore_worker.spawned").run(list(map(int, sys.argv[2:])))
    parent = importlib.import_module("_aistore_worker.parent")
    parent.run(int(sys.argv[1]), int(sys.argv[2]))

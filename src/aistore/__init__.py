"""An object store for training data that runs its users' transforms next to the data.

>>> import aistore
>>> client = aistore.Client("http://127.0.0.1:8080")
>>> client.bucket("imagenet").object("train/0278350.jpg").get().read()  # doctest: +SKIP

Nothing is imported before it is used, so that ``import aistore`` and ``ais --help`` are instant and a plain install
needs neither the server nor torch.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 10):  # noqa: UP036 - reached without pip, which would have said so
    raise ImportError("pyaistore needs Python 3.10 or newer, this is Python {}.{}".format(*sys.version_info[:2]))

if TYPE_CHECKING:
    from . import client, pytorch
    from .client import Bck, Client

__version__ = "0.1.0"

__all__ = ["Bck", "Client", "__version__", "client", "errors", "pytorch"]

_FROM = {"Client": ".client", "Bck": ".client"}
_SUBMODULES = ("client", "errors", "pytorch")


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name], __name__), name)
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

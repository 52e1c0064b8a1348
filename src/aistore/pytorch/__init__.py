"""Train on what the store holds: datasets for ``torch.utils.data.DataLoader``.

>>> import aistore
>>> from aistore.client import Bck
>>> dataset = aistore.pytorch.Dataset(
...     "http://127.0.0.1:8080", Bck("imagenet"), prefix="train/",
...     transform_id="my-first-etl", transform_filter=lambda name: name.endswith(".jpg"),
... )  # doctest: +SKIP
>>> loader = torch.utils.data.DataLoader(dataset, batch_size=256, shuffle=True, num_workers=4)  # doctest: +SKIP
>>> for images, target in loader: ...  # doctest: +SKIP

torch, numpy and pillow are imported when a name of this package is first used, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset import Dataset
    from .decoders import DEFAULT_DECODERS, Decoder, decode_image, decode_npy, raw_uint8

__all__ = ["DEFAULT_DECODERS", "Dataset", "Decoder", "decode_image", "decode_npy", "raw_uint8"]

_FROM = {"Dataset": ".dataset"} | dict.fromkeys(
    ("DEFAULT_DECODERS", "Decoder", "decode_image", "decode_npy", "raw_uint8"), ".decoders"
)


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_FROM[name], __name__), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("torch", "numpy", "PIL"):
            raise
        raise ModuleNotFoundError(
            f"aistore.pytorch.{name} needs {package}, which is not installed: pip install 'pyaistore[pytorch]'",
            name=package,
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)

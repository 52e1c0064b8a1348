"""Sends a picture through transforms of torchvision.

The variable ``TRANSFORM`` is JSON: names of classes of ``torchvision.transforms`` with their parameters, in the order
in which they are applied, for example ``{"Resize": {"size": [256, 256]}, "CenterCrop": {"size": 224}}``. ``FORMAT`` is
the format of the result as Pillow names it (``JPEG``, ``PNG``); without it, it is that of the picture.
"""

import io
import json
import os
from typing import Any

import torchvision.transforms
from PIL import Image


def _steps() -> list[Any]:
    text = os.environ.get("TRANSFORM", "") or "{}"
    try:
        wanted = json.loads(text)
        items = list(wanted.items())
    except (ValueError, AttributeError) as error:
        raise ValueError(f"TRANSFORM={text!r} is no mapping in JSON: {error}") from None
    steps = []
    for name, parameters in items:
        kind = getattr(torchvision.transforms, name, None)
        if not isinstance(kind, type):
            raise ValueError(f"TRANSFORM: torchvision.transforms has no {name!r}")
        if not isinstance(parameters, dict):
            raise ValueError(f"TRANSFORM: expected a mapping of parameters for {name}, got {parameters!r}")
        steps.append(kind(**parameters))
    return steps


def _format() -> str:
    name = os.environ.get("FORMAT", "").upper()
    name = {"JPG": "JPEG"}.get(name, name)
    Image.init()
    if name and name not in Image.SAVE:
        raise ValueError(f"FORMAT={name!r}: expected one of {', '.join(sorted(Image.SAVE))}")
    return name


_pipeline = torchvision.transforms.Compose(_steps())
_wanted_format = _format()
_to_picture = torchvision.transforms.ToPILImage()


def transform(data: bytes) -> bytes:
    """Return the picture in ``data`` after all steps."""
    with Image.open(io.BytesIO(data)) as picture:
        result_format = _wanted_format or picture.format or "PNG"
        result = _pipeline(picture.convert("RGB") if picture.mode not in ("RGB", "L") else picture)
    if not isinstance(result, Image.Image):
        result = _to_picture(result)
    written = io.BytesIO()
    result.save(written, result_format)
    return written.getvalue()

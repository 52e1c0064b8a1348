"""Decoders: from the bytes of an object to what a training step takes, chosen by the extension of its name.

A decoder is any function ``decode(data: bytes) -> value``. It runs in the DataLoader's workers, so with the ``spawn``
start method it must be importable (a function of a module, not a lambda).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from .samples import IMAGE_EXTENSIONS

#: What turns the bytes of an object into a value.
Decoder = Callable[[bytes], Any]

NPY_MAGIC = b"\x93NUMPY"


def decode_image(data: bytes) -> torch.Tensor:
    """Return a picture as float32 RGB in [0, 1], channels first: the numbers of torchvision's ``ToTensor``."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(torch.float32).div_(255)


class _NpyHeader(NamedTuple):
    data_offset: int
    dtype: np.dtype[Any]
    fortran_order: bool
    shape: tuple[int, ...]


@lru_cache(maxsize=64)  # the results of one transform mostly have one header, and parsing it is most of the work
def _parse_npy_header(header: bytes) -> _NpyHeader:
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"NPY version {version[0]}.{version[1]}: expected 1.0 or 2.0")
    if dtype.hasobject:
        raise ValueError("the array holds Python objects, which are not loaded: they could run code")
    return _NpyHeader(stream.tell(), dtype, fortran_order, shape)


def decode_npy(data: bytes) -> torch.Tensor:
    """Return an array in NumPy's ``.npy`` format as a tensor of the same type and shape.

    The elements are copied once, so that the tensor may be written to. Raises ValueError or TypeError for anything
    that is not one whole array of numbers.
    """
    if not data.startswith(NPY_MAGIC) or len(data) < 12:
        raise ValueError(f"not in NPY format: starts with {data[:8]!r}")
    length_bytes = 2 if data[6] == 1 else 4
    header_end = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    header = _parse_npy_header(data[:header_end])
    expected = header.dtype.itemsize * prod(header.shape)
    if len(data) - header.data_offset != expected:
        raise ValueError(
            f"{len(data) - header.data_offset} bytes of elements, expected {expected} for shape {header.shape}"
        )
    elements = np.frombuffer(bytearray(memoryview(data)[header.data_offset :]), dtype=header.dtype)
    if not header.dtype.isnative:
        elements = elements.astype(header.dtype.newbyteorder("="))
    return torch.from_numpy(elements.reshape(header.shape, order="F" if header.fortran_order else "C"))


def decode_label(data: bytes) -> int:
    """Return a class number written in decimal digits."""
    return int(data)


def decode_text(data: bytes) -> str:
    """Return UTF-8 text."""
    return data.decode()


def decode_json(data: bytes) -> Any:
    """Return a JSON value."""
    return json.loads(data)


def decode_pt(data: bytes) -> Any:
    """Return what ``torch.save`` wrote, if it is made of tensors and plain containers: no code is run."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class raw_uint8:  # used like a function; a class so that it can be pickled
    """A decoder of bare bytes without a header, as a tensor of ``shape``; one dimension may be -1.

    >>> decoders = {".jpg": raw_uint8((3, 224, 224))}
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = tuple(shape)

    def __call__(self, data: bytes) -> torch.Tensor:
        """Return the bytes as a uint8 tensor; raises ValueError if their number is not that of the shape."""
        known = prod(size for size in self.shape if size != -1)
        if len(data) % known if -1 in self.shape else len(data) != known:
            raise ValueError(f"{len(data)} bytes, expected {known} for shape {self.shape}")
        return torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.uint8).reshape(self.shape))

    def __repr__(self) -> str:
        return f"raw_uint8({self.shape})"


#: The decoder of each extension that has one; everything else stays bytes.
DEFAULT_DECODERS: Mapping[str, Decoder] = dict.fromkeys(sorted(IMAGE_EXTENSIONS), decode_image) | {
    ".cls": decode_label,
    ".json": decode_json,
    ".npy": decode_npy,
    ".pt": decode_pt,
    ".pth": decode_pt,
    ".txt": decode_text,
}


def default_decode(kind: str, data: bytes) -> Any:
    """Decode ``data`` of an object whose extension is ``kind``.

    What starts like an NPY array is one whatever the name says: a transform may return raw pixels for a ``.jpg``.
    """
    if data.startswith(NPY_MAGIC):
        return decode_npy(data)
    decoder = DEFAULT_DECODERS.get(kind)
    return decoder(data) if decoder else data

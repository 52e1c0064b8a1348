"""Pictures to train on: a random crop, flipped half of the time, as raw pixels (uint8, 3 x 64 x 64)."""

import io
import random

import numpy
from PIL import Image

SIDE = 64


def transform(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    share = random.uniform(0.7, 1.0)
    width, height = int(image.width * share), int(image.height * share)
    left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
    pixels = numpy.asarray(image.resize((SIDE, SIDE), box=(left, top, left + width, top + height)))
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    out = io.BytesIO()
    numpy.save(out, numpy.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return out.getvalue()

"""Pictures for training: a random crop, flipped half of the time, as raw pixels.

The result is a uint8 array of 3 x 224 x 224 in NumPy's format. Nothing is encoded again and lost, the trainer spends
no time on decoding, and it normalises whole batches, on the GPU if it has one.
"""

import io

import numpy
from PIL import Image
from torchvision import transforms

augment = transforms.Compose(
    [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
)


def transform(data: bytes) -> bytes:
    pixels = augment(Image.open(io.BytesIO(data)).convert("RGB"))
    out = io.BytesIO()
    numpy.save(out, pixels.contiguous().numpy())
    return out.getvalue()

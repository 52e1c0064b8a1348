"""Pictures for validation: the middle of the picture, as raw pixels (see train_etl.py)."""

import io

import numpy
from PIL import Image
from torchvision import transforms

crop = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])


def transform(data: bytes) -> bytes:
    pixels = crop(Image.open(io.BytesIO(data)).convert("RGB"))
    out = io.BytesIO()
    numpy.save(out, pixels.contiguous().numpy())
    return out.getvalue()

"""The walk-through's first transform: one picture from standard input to standard output.

Crop, flip and normalise as for training, then write a picture again. Normalised values are negative or above one for
most pixels, and a picture has no such values: they wrap around, which gives the garish colours. Good for seeing that
the transform ran; to train on, use train_etl.py, which leaves the normalising to the trainer.
"""

import io
import sys

from PIL import Image
from torchvision import transforms

preprocess = transforms.Compose(
    [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        transforms.ToPILImage(),
    ]
)

image = Image.open(io.BytesIO(sys.stdin.buffer.read())).convert("RGB")
preprocess(image).save(sys.stdout.buffer, format="JPEG")

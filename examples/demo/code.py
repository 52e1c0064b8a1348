"""One picture from standard input to standard output: a random crop, flipped half of the time, as a JPEG."""

import io
import random
import sys

from PIL import Image, ImageOps

image = Image.open(io.BytesIO(sys.stdin.buffer.read())).convert("RGB")
share = random.uniform(0.6, 1.0)
width, height = int(image.width * share), int(image.height * share)
left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
image = image.crop((left, top, left + width, top + height)).resize((224, 224))
if random.random() < 0.5:
    image = ImageOps.mirror(image)
image.save(sys.stdout.buffer, format="JPEG", quality=90)

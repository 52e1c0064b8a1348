"""Make a small labelled picture set out of free photographs: something to train on in a minute.

    pip install scikit-image pillow
    python make_samples.py /tmp/pictures

writes ``train/0000001.jpg`` with its class in ``train/0000001.cls``, ``val/…``, and ``classes.txt``. The photographs
come inside scikit-image, all in the public domain or under CC0; every picture is a crop of one, turned, tinted and
scaled to the sizes that ImageNet's pictures have. The same arguments make the same pictures.
"""

import argparse
import random
from pathlib import Path

from PIL import Image, ImageEnhance
from skimage import data

PHOTOGRAPHS = {
    "astronaut": data.astronaut,  # NASA
    "cat": data.chelsea,  # Stéfan van der Walt
    "coffee": data.coffee,  # Rachel Michetti
    "rocket": data.rocket,  # SpaceX
    "galaxies": data.hubble_deep_field,  # NASA
    "retina": data.retina,  # Mikael Häggström
    "brick": data.brick,  # CC0Textures
    "grass": data.grass,  # linolafett
}


def load_photographs() -> list[Image.Image]:
    photographs = [Image.fromarray(load()).convert("RGB") for load in PHOTOGRAPHS.values()]
    for photograph in photographs:
        photograph.thumbnail((720, 720))
    return photographs


def make_picture(photograph: Image.Image, rng: random.Random) -> Image.Image:
    """Return a crop of the photograph: half of it or more, up to 15 degrees turned, 500 pixels at the longer side."""
    picture = photograph.rotate(rng.uniform(-15, 15), resample=Image.Resampling.BILINEAR)
    share = rng.uniform(0.5, 0.9)
    width, height = int(picture.width * share), int(picture.height * share)
    left, top = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    picture = picture.crop((left, top, left + width, top + height))
    scale = 500 / max(picture.size)
    picture = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast):
        picture = enhance(picture).enhance(rng.uniform(0.6, 1.4))
    return picture


def make_samples(folder: Path, train: int, val: int, seed: int) -> None:
    """Write ``train`` and ``val`` pictures with their labels, the classes in turn."""
    photographs = load_photographs()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in PHOTOGRAPHS))
    for part, count in (("train", train), ("val", val)):
        rng = random.Random(f"{seed} {part}")
        (folder / part).mkdir(exist_ok=True)
        for number in range(count):
            label = number % len(photographs)
            name = folder / part / f"{number + 1:07}"
            make_picture(photographs[label], rng).save(name.with_suffix(".jpg"), quality=90)
            name.with_suffix(".cls").write_text(str(label))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a small labelled picture set.")
    parser.add_argument("folder", type=Path, help="where train/ and val/ are written")
    parser.add_argument("--train", type=int, default=512, help="pictures for training (default: %(default)s)")
    parser.add_argument("--val", type=int, default=128, help="pictures for validation (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another number gives other pictures")
    args = parser.parse_args()
    make_samples(args.folder, args.train, args.val, args.seed)
    print(f"{args.train} + {args.val} pictures of {len(PHOTOGRAPHS)} classes in {args.folder}")


if __name__ == "__main__":
    main()

"""Put pictures of a bucket beside what a transform makes of them, into one PNG.

python before_after.py ais://imagenet/train/ my-first-etl before_after.png
"""

import argparse
import io

from PIL import Image

from aistore.client import Client
from aistore.errors import AisError
from aistore.model.names import parse_uri

TILE = 224  # pixels of a side
GAP = 8
PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def to_picture(data: bytes) -> Image.Image:
    """Read a picture, or raw pixels in NumPy's format, channels first or last."""
    if not data.startswith(b"\x93NUMPY"):
        return Image.open(io.BytesIO(data)).convert("RGB")
    import numpy

    pixels = numpy.load(io.BytesIO(data), allow_pickle=False)
    return Image.fromarray(pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels)


def fit(picture: Image.Image) -> Image.Image:
    """Return the picture in the middle of a square tile."""
    picture.thumbnail((TILE, TILE))
    tile = Image.new("RGB", (TILE, TILE), "white")
    tile.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return tile


def make_grid(rows: list[list[Image.Image]]) -> Image.Image:
    width, height = len(rows[0]), len(rows)
    grid = Image.new("RGB", (width * (TILE + GAP) + GAP, height * (TILE + GAP) + GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            grid.paste(fit(picture), (GAP + x * (TILE + GAP), GAP + y * (TILE + GAP)))
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description="Stored pictures above, transformed ones below.")
    parser.add_argument("source", help="bucket and prefix, e.g. ais://imagenet/train/")
    parser.add_argument("etl", help="the transform")
    parser.add_argument("output", help="the PNG to write")
    parser.add_argument("--count", type=int, default=6, help="pictures in a row (default: %(default)s)")
    parser.add_argument("--endpoint", help="address of the store (default: AIS_ENDPOINT, else http://127.0.0.1:8080)")
    args = parser.parse_args()

    name, prefix = parse_uri(args.source)
    bucket = Client(args.endpoint).bucket(name)
    names = []
    for entry in bucket.list(prefix, props="name"):
        if entry.name.lower().endswith(PICTURES):
            names.append(entry.name)
        if len(names) == args.count:
            break
    if not names:
        raise SystemExit(f"{args.source} has no pictures")
    rows = []
    for etl in ("", args.etl):
        results = list(bucket.batch([(name, etl) for name in names]))
        for result in results:
            if isinstance(result, AisError):
                raise result
        rows.append([to_picture(data) for data in results])
    make_grid(rows).save(args.output)
    print(f"{len(names)} pictures of {args.source} before and after {args.etl}: {args.output}")


if __name__ == "__main__":
    main()

"""The Dataset of the client of 2021 in a DataLoader of today's torch; prints JSON.

    python dataset_2021.py ENDPOINT PACKAGES

PACKAGES is a directory with torch, torchvision and pillow; what is installed with this interpreter comes first.
"""

from __future__ import annotations

import json
import site
import sys


def main() -> None:
    endpoint, packages = sys.argv[1:]
    site.addsitedir(packages)
    from torch.utils.data import DataLoader

    import aistore.client
    import aistore.pytorch
    from aistore.client import Bck

    dataset = aistore.pytorch.Dataset(
        endpoint,
        Bck("pictures"),
        prefix="train/",
        transform_id="small-etl",
        transform_filter=lambda object_name: object_name.endswith(".jpg"),
    )
    shapes, labels = [], []
    for target, images in DataLoader(dataset, batch_size=4, num_workers=2):
        shapes.append(list(images.shape))
        labels += target.tolist()
    print(json.dumps({"client": aistore.client.__file__, "shapes": shapes, "labels": labels}))


if __name__ == "__main__":
    main()

"""A training epoch with the transform in the store against a local folder with the same transform in the loader.

    python benchmarks/epoch.py [--data FOLDER] [--rounds 5] [--workers 2]

Crop, flip and normalise, as for ImageNet; every side ends with normalised float batches in the training process, and
no model, so the input pipeline is all there is to see. Store, transforms, loader and trainer share the machine's cores.
FOLDER has train/NAME.jpg beside train/NAME.cls; without it, pictures are made by examples/make_samples.py (which needs
scikit-image). Needs torchvision on both sides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from harness import cpu_seconds, interleave, print_table
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import aistore
from aistore.testing import StoreProcess

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_RESULT_JPEG = """
import io
from PIL import Image
from torchvision import transforms

augment = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()])


def transform(data):
    out = io.BytesIO()
    augment(Image.open(io.BytesIO(data)).convert("RGB")).save(out, "JPEG", quality=90)
    return out.getvalue()
"""


class LocalPictures(Dataset):
    """What torchvision's ImageFolder does, on ``NAME.jpg`` beside ``NAME.cls``."""

    def __init__(self, folder: Path) -> None:
        self.labels = sorted(str(path) for path in folder.glob("*.cls"))
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with open(self.labels[index]) as file:
            label = int(file.read())
        with open(f"{self.labels[index][:-4]}.jpg", "rb") as file:
            picture = Image.open(file).convert("RGB")
        return self.transform(picture), label


@contextmanager
def pictures(folder: Path | None) -> Iterator[Path]:
    """Yield ``folder``, or a temporary one with pictures."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ais-bench-") as made:
        subprocess.run([sys.executable, EXAMPLES / "make_samples.py", made, "--val", "0"], check=True)
        yield Path(made)


def fill_store(store: StoreProcess, folder: Path) -> dict[str, aistore.pytorch.Dataset]:
    """Put the pictures into a bucket, make the transforms, and return a dataset for each kind of result."""
    client = aistore.Client(store.endpoint)
    bucket = client.bucket("pictures").create()
    for path in sorted((folder / "train").iterdir()):
        bucket.object(f"train/{path.name}").put(path)
    dependencies = (EXAMPLES / "imagenet/deps.txt").read_text()
    datasets = {}
    for name, code in (("raw", (EXAMPLES / "imagenet/train_etl.py").read_text()), ("jpeg", _RESULT_JPEG)):
        client.etl(f"bench-{name}").init_code(code, dependencies=dependencies)
        datasets[name] = aistore.pytorch.Dataset(
            store.endpoint,
            "pictures",
            prefix="train/",
            transform_id=f"bench-{name}",
            transform_filter=lambda object_name: object_name.endswith(".jpg"),
        )
    return datasets


class Normalizer:
    """Makes raw bytes, or values from 0 to 1, what the model wants, in one buffer that is used again for every batch.

    A batch of new memory each time would cost three times as much, for pages that the kernel clears.
    """

    def __init__(self, batch_size: int) -> None:
        self.buffer = torch.empty(batch_size, 3, 224, 224)
        mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
        self.scale, self.offset = 1 / std, mean / std

    def __call__(self, images: Tensor) -> Tensor:
        scale = self.scale / 255 if images.dtype == torch.uint8 else self.scale
        return self.buffer[: len(images)].copy_(images).mul_(scale).sub_(self.offset)


def epoch(dataset: Dataset, options: argparse.Namespace, store: StoreProcess, normalized: bool) -> Callable:
    """Return a function that reads the dataset once and returns its figures; the loader's workers stay between."""
    normalize = Normalizer(options.batch_size)
    loader = DataLoader(
        dataset,
        batch_size=options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )

    def run() -> dict[str, float]:
        in_store, in_all = cpu_seconds([store.pid]), cpu_seconds([os.getpid()])
        started, count = time.perf_counter(), 0
        for images, target in loader:
            if not normalized:
                images = normalize(images)
            assert images.dtype == torch.float32
            assert images.shape[1:] == (3, 224, 224)
            count += len(target)
        elapsed = time.perf_counter() - started
        in_store, in_all = cpu_seconds([store.pid]) - in_store, cpu_seconds([os.getpid()]) - in_all
        assert count == len(dataset)
        return {
            "pictures/s": count / elapsed,
            "trainer CPU ms": 1000 * (in_all - in_store) / count,
            "store CPU ms": 1000 * in_store / count,
        }

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="loader processes")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the cores are busy, and a second thread of the trainer would mostly wait for the first
    with pictures(options.data) as folder, StoreProcess() as store:
        sides = {"local folder": epoch(LocalPictures(folder / "train"), options, store, normalized=True)}
        for kind, dataset in fill_store(store, folder).items():
            sides[f"store, {kind} results"] = epoch(dataset, options, store, normalized=False)
        for run in sides.values():  # the loaders' workers start, the page cache fills
            run()
        rows = interleave(options.rounds, sides)
        for figures in rows.values():
            figures["ratio"] = figures["pictures/s"] / rows["local folder"]["pictures/s"]
            figures["trainer CPU ratio"] = figures["trainer CPU ms"] / rows["local folder"]["trainer CPU ms"]
        title = (
            f"An epoch of {len(list((folder / 'train').glob('*.cls')))} pictures, batches of {options.batch_size}, "
            f"{options.workers} loader workers, {len(os.sched_getaffinity(0))} cores, median of {options.rounds}; "
            "CPU per picture"
        )
        print_table(title, rows)


if __name__ == "__main__":
    main()

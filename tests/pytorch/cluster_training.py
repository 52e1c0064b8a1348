"""Trains nothing on a bucket, a batch for every line of standard input: ``python cluster_training.py URL WORKERS``.

Prints the names of each batch, and an empty line after each epoch; ends with its input, or with the error that a
training loop would see.
"""

from __future__ import annotations

import sys

import torch

from aistore.pytorch import Dataset


def as_name(name: str, data: bytes) -> str:
    assert data == name.encode() * 20
    return name


def main() -> None:
    dataset = Dataset(sys.argv[1], "b", "train/", loader=as_name)
    workers = int(sys.argv[2])
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=12, shuffle=True, num_workers=workers, persistent_workers=workers > 0, collate_fn=list
    )
    batches = iter(loader)
    while sys.stdin.readline():
        batch = next(batches, None)
        print(*(name for (name,) in batch or ()), flush=True)
        if batch is None:
            batches = iter(loader)


if __name__ == "__main__":
    main()

"""Train a classifier on ImageNet, or on any bucket or folder laid out like it.

From a store, where transforms run beside the pictures:

    python train.py --endpoint http://127.0.0.1:8080 --bucket imagenet --etl train-etl --val-etl val-etl

From a local folder, with the same transforms in this process (needs torchvision):

    python train.py --data ~/imagenet

Pictures are under ``train/`` and ``val/``: ``0000001.jpg`` beside ``0000001.cls``, which holds the class number, or
in a folder, one directory per class. ``--arch`` is any classifier of torchvision, or ``small``, a network for trying
things out that needs neither torchvision nor a GPU.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_argument_group("where the pictures are")
    source.add_argument("--data", type=Path, help="a local folder with train/ and val/")
    source.add_argument("--endpoint", default=None, help="address of a store (default: AIS_ENDPOINT)")
    source.add_argument("--bucket", help="a bucket of the store with train/ and val/")
    source.add_argument("--etl", help="transform for training pictures; none: they must have one size")
    source.add_argument("--val-etl", help="transform for validation pictures")
    source.add_argument("--classes", type=int, default=1000, help="number of classes (default: %(default)s)")
    source.add_argument("-j", "--workers", type=int, default=4, help="loader processes (default: %(default)s)")

    training = parser.add_argument_group("training")
    training.add_argument("-a", "--arch", default="resnet18", help="model (default: %(default)s)")
    training.add_argument("--epochs", type=int, default=90)
    training.add_argument("-b", "--batch-size", type=int, default=256)
    training.add_argument("--lr", type=float, default=0.1, help="learning rate at the start")
    training.add_argument("--lr-step", type=int, default=30, help="epochs after which the rate falls to a tenth")
    training.add_argument("--momentum", type=float, default=0.9)
    training.add_argument("--weight-decay", type=float, default=1e-4)
    training.add_argument("--seed", type=int, help="makes initial weights and the order of samples repeatable")

    running = parser.add_argument_group("running")
    running.add_argument("--evaluate", action="store_true", help="validate once and stop")
    running.add_argument("--resume", type=Path, help="go on from a checkpoint")
    running.add_argument(
        "--output", type=Path, default=Path("checkpoints"), help="folder for them (default: %(default)s)"
    )
    running.add_argument("--log", type=Path, help="append a line of JSON per epoch to this file")
    running.add_argument("--print-every", type=int, default=10, help="batches between lines of progress")
    args = parser.parse_args(argv)
    if (args.data is None) == (args.bucket is None):
        parser.error("pass either --data FOLDER or --bucket NAME")
    return args


# --- data -------------------------------------------------------------------------------------------------------------


def open_datasets(args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Return the datasets for training and validation; their items are (picture, class)."""
    if args.bucket is None:
        return open_folder(args.data / "train", training=True), open_folder(args.data / "val", training=False)
    import aistore
    from aistore.client import Bck

    def is_picture(name: str) -> bool:
        return not name.endswith(".cls")

    train, val = (
        aistore.pytorch.Dataset(args.endpoint, Bck(args.bucket), prefix, transform_id=etl, transform_filter=is_picture)
        for prefix, etl in (("train/", args.etl), ("val/", args.val_etl))
    )
    return train, val


def open_folder(folder: Path, training: bool) -> Dataset:
    """Return the pictures of a local folder in either layout, transformed in this process."""
    from torchvision import datasets, transforms

    if training:
        augment = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    else:
        augment = [transforms.Resize(256), transforms.CenterCrop(224)]
    transform = transforms.Compose([*augment, transforms.PILToTensor()])
    if any(folder.glob("*.cls")):
        return LabelledPictures(folder, transform)
    return datasets.ImageFolder(folder, transform)


class LabelledPictures(Dataset):
    """``NAME.jpg`` beside ``NAME.cls`` in one folder."""

    def __init__(self, folder: Path, transform) -> None:
        self.labels = sorted(folder.glob("*.cls"))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        label = self.labels[index]
        with Image.open(label.with_suffix(".jpg")) as picture:
            return self.transform(picture.convert("RGB")), int(label.read_text())

    def __repr__(self) -> str:
        return f"{len(self)} pictures in {self.labels[0].parent}"


def open_loader(dataset: Dataset, args: argparse.Namespace, shuffle: bool, device: torch.device) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=args.batch_size,
        sampler=RandomSampler(dataset, generator=torch.Generator()) if shuffle else None,
        num_workers=args.workers,
        pin_memory=device.type == "cuda",
        persistent_workers=args.workers > 0,
    )


class Normalize(nn.Module):
    """Pixels as the model wants them, (x - mean) / std by channel: of raw bytes, or of values from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("offset", mean / std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # in place after the first step: on a CPU, most of the time goes into pages of new tensors
        if images.dtype == torch.uint8:
            return images.float().mul_(self.scale / 255).sub_(self.offset)
        return images.mul(self.scale).sub_(self.offset)


# --- model ------------------------------------------------------------------------------------------------------------


def make_model(arch: str, classes: int) -> nn.Module:
    """Return a network without trained weights, behind the normalisation of its input."""
    if arch == "small":
        network = small_network(classes)
    else:
        from torchvision import models

        network = models.get_model(arch, weights=None, num_classes=classes)
    return nn.Sequential(Normalize(), network)


def small_network(classes: int) -> nn.Module:
    """Return a network of 0.1 million weights that takes pictures of any size."""

    def stage(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *stage(3, 24, 7, 4),
        *stage(24, 48, 3, 2),
        *stage(48, 96, 3, 2),
        *stage(96, 96, 3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, classes),
    )


# --- training ---------------------------------------------------------------------------------------------------------


class Meter:
    """The mean of what was added, each value weighted by its number of samples."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float, count: int = 1) -> None:
        self.total += value * count
        self.count += count

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else float("nan")


class Progress:
    """What one pass over the data has shown so far."""

    def __init__(self, title: str, batches: int, print_every: int) -> None:
        self.title, self.batches, self.print_every = title, batches, print_every
        self.loss, self.top1, self.top5, self.wait = Meter(), Meter(), Meter(), Meter()
        self.started = time.perf_counter()

    def timed(self, loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the loader's batches and measure how long each is waited for."""
        asked = time.perf_counter()
        for batch in loader:
            self.wait.add(time.perf_counter() - asked)
            yield batch
            asked = time.perf_counter()

    def add(self, loss: Tensor, output: Tensor, target: Tensor) -> None:
        top1, top5 = accuracy(output, target)
        for meter, value in ((self.loss, loss.item()), (self.top1, top1), (self.top5, top5)):
            meter.add(value, len(target))
        if self.wait.count % self.print_every == 0:
            self.print(f"{self.wait.count:5}/{self.batches}")

    def print(self, what: str) -> None:
        rate = self.loss.count / (time.perf_counter() - self.started)
        print(
            f"{self.title} {what}  loss {self.loss.mean:.4f}  top-1 {self.top1.mean:6.2f} %"
            f"  top-5 {self.top5.mean:6.2f} %  {rate:7.1f} pictures/s"
            f"  waiting {self.wait.mean * 1000:6.1f} ms a batch",
            flush=True,
        )


def accuracy(output: Tensor, target: Tensor) -> tuple[float, float]:
    """Return the percentage of samples whose class is the likeliest, and is among the five likeliest."""
    likeliest = output.topk(min(5, output.shape[1]), dim=1).indices
    hits = likeliest == target.unsqueeze(1)
    return 100 * hits[:, 0].float().mean().item(), 100 * hits.any(dim=1).float().mean().item()


def train(loader, model, criterion, optimizer, device, epoch: int, args) -> Progress:
    progress = Progress(f"epoch {epoch:3} train", len(loader), args.print_every)
    model.train()
    loader.sampler.generator.manual_seed(args.seed + epoch)  # a resumed run goes on in the order of one not stopped
    for images, target in progress.timed(loader):
        images, target = images.to(device, non_blocking=True), target.to(device, non_blocking=True)
        output = model(images)
        loss = criterion(output, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress.add(loss.detach(), output.detach(), target)
    progress.print("   whole")
    return progress


@torch.inference_mode()
def validate(loader, model, criterion, device, epoch: int, args) -> Progress:
    progress = Progress(f"epoch {epoch:3} val  ", len(loader), args.print_every)
    model.eval()
    for images, target in progress.timed(loader):
        images, target = images.to(device, non_blocking=True), target.to(device, non_blocking=True)
        output = model(images)
        progress.add(criterion(output, target), output, target)
    progress.print("   whole")
    return progress


def save_checkpoint(state: dict, folder: Path, is_best: bool) -> None:
    """Write checkpoint.pt, and best.pt if it is; a reader finds the old one or the new one, never half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["checkpoint.pt", "best.pt"][: 1 + is_best]:
        torch.save(state, folder / f"{name}.part")
        os.replace(folder / f"{name}.part", folder / name)


def choose_device() -> torch.device:
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.seed is None:
        args.seed = random.randrange(2**32)
    torch.manual_seed(args.seed)
    device = choose_device()
    model = make_model(args.arch, args.classes).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=args.lr_step, gamma=0.1)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}

    first_epoch, best_top1 = 0, 0.0
    if args.resume:
        checkpoint = torch.load(args.resume, map_location=device, weights_only=True)
        if (checkpoint["arch"], checkpoint["classes"]) != (args.arch, args.classes):
            raise SystemExit(f"{args.resume} is a {checkpoint['arch']} of {checkpoint['classes']} classes")
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        first_epoch, best_top1 = checkpoint["epoch"] + 1, checkpoint["best_top1"]

    train_set, val_set = open_datasets(args)
    print(f"{args.arch} on {device}, seed {args.seed}\ntrain: {train_set!r}\nval:   {val_set!r}")
    val_loader = open_loader(val_set, args, shuffle=False, device=device)
    if args.evaluate:
        validate(val_loader, model, criterion, device, first_epoch, args)
        return
    train_loader = open_loader(train_set, args, shuffle=True, device=device)

    for epoch in range(first_epoch, args.epochs):
        trained = train(train_loader, model, criterion, optimizer, device, epoch, args)
        validated = validate(val_loader, model, criterion, device, epoch, args)
        scheduler.step()
        is_best = validated.top1.mean > best_top1
        best_top1 = max(best_top1, validated.top1.mean)
        state = {"epoch": epoch, "arch": args.arch, "classes": args.classes, "best_top1": best_top1}
        save_checkpoint(state | {name: part.state_dict() for name, part in parts.items()}, args.output, is_best)
        if args.log:
            line = {"epoch": epoch, "train_loss": trained.loss.mean, "val_loss": validated.loss.mean,
                    "val_top1": validated.top1.mean, "val_top5": validated.top5.mean}  # fmt: skip
            with args.log.open("a") as log:
                log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted; --resume goes on from the last checkpoint") from None
    except Exception as error:
        if type(error).__module__ != "aistore.errors":  # what a store or its data is to blame for, in a line
            raise
        raise SystemExit(f"train.py: {error}") from None

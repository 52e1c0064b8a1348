"""The walk-through of ImageNet, line by line, as a person would type it."""

from __future__ import annotations

import json
import random
import re
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from person import CHECKOUT, Shell

pytest.importorskip("torch", reason="the walk-through trains with torch")
pytest.importorskip("torchvision", reason="the walk-through's transforms use torchvision")
Image = pytest.importorskip("PIL.Image", reason="the walk-through's pictures are read with pillow")

pytestmark = [pytest.mark.torch, pytest.mark.slow]

EXAMPLE = CHECKOUT / "examples" / "imagenet"
SIZE = re.compile(r"\d+B|\d+\.\d\dKiB|\d+\.\d\dMiB")

INIT = "ais etl init code --name {} --from-file {} --deps-file deps.txt --runtime python3 --comm-type {}"


@pytest.fixture(scope="module")
def console(module_shell: Shell, imagenet_sample: Path) -> Shell:
    """Return a shell in a directory with the walk-through's files, whose store has the pictures in ais://imagenet."""
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, module_shell.directory)
    (module_shell.directory / "sample").symlink_to(imagenet_sample)
    assert module_shell("ais create ais://imagenet") == '"ais://imagenet" created\n'
    said = module_shell("ais put sample/ ais://imagenet -r -y")
    assert re.search(r"PUT \d+ files \(\d+\.\d\dMiB\) => ais://imagenet\n$", said), said
    return module_shell


@pytest.fixture(scope="module")
def picture(console: Shell, imagenet_sample: Path) -> str:
    """Return the base name of one picture, such as 0000353."""
    return random.Random(0).choice(sorted((imagenet_sample / "train").glob("*.jpg"))).stem


@pytest.fixture(scope="module")
def first_etl(console: Shell) -> str:
    assert console(INIT.format("my-first-etl", "code.py", "io://")) == "my-first-etl\n"
    return "my-first-etl"


@pytest.fixture(scope="module")
def second_etl(console: Shell) -> str:
    assert console(INIT.format("my-train-etl", "train_etl.py", "hpush://")) == "my-train-etl\n"
    assert console(INIT.format("my-second-etl", "val_etl.py", "hpush://")) == "my-second-etl\n"
    return "my-second-etl"


def assert_picture(data: bytes) -> None:
    with Image.open(BytesIO(data)) as picture:
        picture.load()
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (224, 224), "RGB")


def test_the_listing_shows_names_and_sizes(console, imagenet_sample):
    header, *rows = console("ais ls ais://imagenet | head").splitlines()
    assert header.split() == ["NAME", "SIZE"]
    assert len(rows) == 9
    for row in rows:
        name, size = re.split(r"\s{2,}", row)
        assert SIZE.fullmatch(size), row
        on_disk = (imagenet_sample / name).stat().st_size
        assert size == (f"{on_disk}B" if on_disk < 1024 else f"{on_disk / 1024:.2f}KiB")
        assert row.index(size) == header.index("SIZE")
    assert [row.split()[0] for row in rows] == sorted(row.split()[0] for row in rows)


def test_what_was_put_is_what_comes_back(console, imagenet_sample, picture):
    console(f"ais object cat ais://imagenet/train/{picture}.cls > label")
    console(f"ais object cat ais://imagenet/train/{picture}.jpg > before.jpg")
    for copy, original in (("label", f"{picture}.cls"), ("before.jpg", f"{picture}.jpg")):
        assert (console.directory / copy).read_bytes() == (imagenet_sample / "train" / original).read_bytes()


def test_the_transform_is_listed(console, first_etl):
    header, *rows = console("ais etl list").splitlines()
    assert header.split()[:2] == ["NAME", "STAGE"]
    assert [first_etl, "Running"] in [row.split()[:2] for row in rows]


def test_a_picture_through_the_transform(console, first_etl, picture):
    console(f"ais etl object {first_etl} ais://imagenet/train/{picture}.jpg out.jpg")
    assert_picture((console.directory / "out.jpg").read_bytes())


def test_curl_reads_through_the_transform_without_following_a_redirect(console, first_etl, picture):
    url = f"$AIS_ENDPOINT/v1/objects/imagenet/train/{picture}.jpg?uuid={first_etl}"
    status = "%{http_code} %{num_redirects}\n"
    for file in ("one.jpg", "two.jpg"):
        assert console(f"""curl --silent --show-error -w '{status}' "{url}" -o {file}""") == "200 0\n"
    one, two = ((console.directory / file).read_bytes() for file in ("one.jpg", "two.jpg"))
    assert_picture(one)
    assert_picture(two)
    assert one != two, "two reads through a random transform gave the same bytes"


def test_a_label_is_not_a_picture_and_the_error_says_so(console, first_etl, picture):
    said = console.try_(f"ais etl object {first_etl} ais://imagenet/train/{picture}.cls out.cls")
    assert said.returncode == 1
    assert "UnidentifiedImageError" in said.stderr
    assert not (console.directory / "out.cls").exists()


#: The walk-through's loop over its dataset; a `main` because workers may be started rather than forked.
LOADER = """
import json, os, sys
import torch
import aistore
from aistore.client import Bck

def main():
    train_loader = torch.utils.data.DataLoader(
        aistore.pytorch.Dataset(
            os.environ["AIS_ENDPOINT"],
            Bck("imagenet"),
            prefix="train/",
            transform_id="my-first-etl",
            transform_filter=lambda object_name: object_name.endswith('.jpg'),
        ),
        batch_size=16, shuffle=True, num_workers=2)

    shapes, labels = [], []
    for images, target in train_loader:
        shapes.append([list(images.shape), str(images.dtype)])
        labels += target.tolist()
    print(json.dumps({"shapes": shapes, "labels": labels}))

if __name__ == "__main__":
    main()
"""


def test_a_data_loader_reads_every_picture_with_its_label(console, first_etl, imagenet_sample):
    (console.directory / "loader.py").write_text(LOADER)
    read = json.loads(console("python -W error loader.py"))
    labels = [int(file.read_text()) for file in (imagenet_sample / "train").glob("*.cls")]
    assert sorted(read["labels"]) == sorted(labels)
    sizes = [shape[0] for shape, _ in read["shapes"]]
    assert set(sizes[:-1]) == {16}
    assert sum(sizes) == len(labels)
    assert {(tuple(shape[1:]), dtype) for shape, dtype in read["shapes"]} == {((3, 224, 224), "torch.float32")}


def test_an_epoch_of_training_through_the_transforms(console, second_etl):
    console(
        "python train.py --endpoint $AIS_ENDPOINT --bucket imagenet --etl my-train-etl --val-etl my-second-etl "
        "--arch small --epochs 1 --batch-size 16 --lr 0.02 --workers 2 --seed 1 --output trained --log log.jsonl"
    )
    (line,) = (json.loads(line) for line in (console.directory / "log.jsonl").read_text().splitlines())
    assert 0 < line["train_loss"] < 10
    assert 0 < line["val_loss"] < 10
    assert {file.name for file in (console.directory / "trained").iterdir()} >= {"checkpoint.pt"}


def test_a_transform_is_stopped_started_and_removed(console, picture):
    console("ais etl init code --name my-last-etl --from-file code.py --deps-file deps.txt --comm-type io://")
    read = f"ais etl object my-last-etl ais://imagenet/train/{picture}.jpg -"
    assert console("ais etl stop my-last-etl") == "ETL[my-last-etl] stopped\n"
    assert ["my-last-etl", "Aborted"] in [row.split()[:2] for row in console("ais etl list").splitlines()]
    said = console.try_(f"{read} > /dev/null")
    assert said.returncode == 1
    assert "ais etl start my-last-etl" in said.stderr
    assert console("ais etl start my-last-etl") == "ETL[my-last-etl] started successfully\n"
    console(f"{read} > again.jpg")
    assert_picture((console.directory / "again.jpg").read_bytes())
    assert console("ais etl rm my-last-etl") == "ETL[my-last-etl] successfully deleted\n"
    assert "my-last-etl" not in console("ais etl list")
    assert "does not exist" in console.try_(f"{read} > /dev/null").stderr


def test_what_the_store_has_is_not_installed(console):
    stages = console.init_stages(INIT.format("my-third-etl", "code.py", "io://"))
    assert stages == ["resolving", "importing", "ready"]
    console("ais etl rm my-third-etl")

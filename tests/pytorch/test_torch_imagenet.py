"""The ImageNet example: its transforms do what they say, and train.py trains, stops, resumes and validates."""

from __future__ import annotations

import importlib.util
import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the example needs torch")
numpy = pytest.importorskip("numpy", reason="the example needs numpy")
Image = pytest.importorskip("PIL.Image", reason="the example needs pillow")

pytestmark = [
    pytest.mark.torch,
    # from Python 3.12 on a fork beside torch's threads warns; to fork is DataLoader's choice
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: object, data: bytes | None = None) -> bytes:
    done = subprocess.run([sys.executable, *map(str, arguments)], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def train():
    """Return train.py's ``main`` as a function of any values."""
    main = load(EXAMPLES / "imagenet/train.py").main
    return lambda *arguments: main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def photo() -> bytes:
    ramp = numpy.linspace(0, 255, 300 * 200 * 3).reshape(200, 300, 3).astype(numpy.uint8)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "JPEG")
    return out.getvalue()


def test_the_walk_through_transform_writes_a_picture(photo):
    pytest.importorskip("torchvision", reason="this transform needs torchvision")
    result = Image.open(io.BytesIO(run(EXAMPLES / "imagenet/code.py", data=photo)))
    assert (result.format, result.size, result.mode) == ("JPEG", (224, 224), "RGB")


@pytest.mark.parametrize("name", ["train_etl", "val_etl"])
def test_the_training_transforms_give_raw_pixels(photo, name):
    pytest.importorskip("torchvision", reason="this transform needs torchvision")
    pixels = numpy.load(io.BytesIO(load(EXAMPLES / f"imagenet/{name}.py").transform(photo)))
    assert (pixels.dtype, pixels.shape) == (numpy.uint8, (3, 224, 224))
    assert pixels.std() > 1


@pytest.fixture(scope="module")
def colours(stub_address) -> str:
    """A bucket of 32 pictures of 4 colours under train/, 8 under val/."""
    _, root = stub_address
    for part, count in (("train", 32), ("val", 8)):
        folder = root / "colours" / part
        folder.mkdir(parents=True)
        for number in range(count):
            label = number % 4
            picture = Image.new(
                "RGB", (32, 32), [(200, 0, number), (0, 200, number), (9, 9, 220), (150, 150, 0)][label]
            )
            picture.save(folder / f"{number:03}.jpg")
            (folder / f"{number:03}.cls").write_text(str(label))
    return "colours"


def test_training_from_a_store(train, stub, colours, tmp_path, capsys):
    def run_to(folder: Path, *more: object) -> list[dict[str, float]]:
        train(
            "--endpoint", stub.url, "--bucket", colours, "--etl", "pixels-etl", "--val-etl", "pixels-etl",
            "--arch", "small", "--classes", 4, "--batch-size", 8, "--lr", 0.02, "--seed", 3,
            "--output", folder, "--log", folder.with_suffix(".json"), *more,
        )  # fmt: skip
        return [json.loads(line) for line in folder.with_suffix(".json").read_text().splitlines()]

    whole = run_to(tmp_path / "whole", "--epochs", 4, "--workers", 0)
    assert [line["epoch"] for line in whole] == [0, 1, 2, 3]
    assert whole[3]["train_loss"] < whole[0]["train_loss"] / 2
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["best.pt", "checkpoint.pt"]

    stopped = tmp_path / "stopped"
    run_to(stopped, "--epochs", 3, "--workers", 2)
    resumed = run_to(stopped, "--epochs", 4, "--workers", 2, "--resume", stopped / "checkpoint.pt")
    assert [line["train_loss"] for line in resumed] == pytest.approx([line["train_loss"] for line in whole], rel=1e-3)

    capsys.readouterr()
    run_to(tmp_path / "whole", "--evaluate", "--workers", 0, "--resume", tmp_path / "whole" / "checkpoint.pt")
    assert f"loss {whole[3]['val_loss']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["labels in files", "a directory per class"])
def test_training_from_a_folder(train, colours, stub_address, tmp_path, capsys, layout):
    pytest.importorskip("torchvision", reason="a local folder is transformed by torchvision")
    folder = stub_address[1] / colours
    if layout == "a directory per class":
        for label in folder.rglob("*.cls"):
            target = tmp_path / "tree" / label.parent.name / label.read_text()
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{label.stem}.jpg").symlink_to(label.with_suffix(".jpg"))
        folder = tmp_path / "tree"
    train(
        "--data", folder, "--arch", "small", "--classes", 4, "--epochs", 1, "--batch-size", 16, "--workers", 0,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "epoch   0 val" in capsys.readouterr().out


def test_before_and_after(stub, colours, tmp_path):
    grid = tmp_path / "grid.png"
    run(EXAMPLES / "before_after.py", f"ais://{colours}/train/", "pixels-etl", grid, "--endpoint", stub.url)
    with Image.open(grid) as picture:
        assert picture.size == (6 * 232 + 8, 2 * 232 + 8)


def test_sample_pictures_are_the_same_for_the_same_seed(tmp_path):
    pytest.importorskip("skimage", reason="the photographs come with scikit-image")
    run(EXAMPLES / "make_samples.py", tmp_path / "a", "--train", 9, "--val", 2)
    run(EXAMPLES / "make_samples.py", tmp_path / "b", "--train", 9, "--val", 2)
    names = sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.*"))
    assert len(names) == 2 * (9 + 2) + 1
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert (tmp_path / "a/train/0000009.cls").read_text() == "0"


def test_what_a_store_is_to_blame_for_is_told_without_a_stack():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "imagenet/train.py"), "--endpoint", address, "--bucket", "imagenet"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"train.py: no store answers at {address}")
    assert "Traceback" not in done.stderr


def test_checkpoints_go_where_git_does_not_look():
    args = load(EXAMPLES / "imagenet/train.py").parse_args(["--bucket", "imagenet"])
    assert f"{args.output}/" in (EXAMPLES.parent / ".gitignore").read_text().splitlines()

"""Datasets against a whole store, with transforms that run in it."""

from __future__ import annotations

import io

import pytest

torch = pytest.importorskip("torch", reason="aistore.pytorch needs torch")
numpy = pytest.importorskip("numpy", reason="the transform of this test needs numpy")
Image = pytest.importorskip("PIL.Image", reason="the transform of this test needs pillow")

import aistore  # noqa: E402
from aistore import errors  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # from Python 3.12 on a fork beside torch's threads warns; to fork is DataLoader's choice
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

BUCKET, ETL = "torch-pictures", "torch-pixels"

SMALLER = """
import io
import numpy
from PIL import Image

def transform(data):
    picture = Image.open(io.BytesIO(data)).convert("RGB").resize((4, 2))
    out = io.BytesIO()
    numpy.save(out, numpy.asarray(picture).transpose(2, 0, 1))
    return out.getvalue()
"""


def is_picture(name: str) -> bool:
    return name.endswith(".png")


@pytest.fixture(scope="module")
def client(store):
    """A store with 50 pictures, each of one colour that tells its number, their labels, and a transform."""
    client = aistore.Client(store.endpoint)
    bucket = client.bucket(BUCKET).create()
    for number in range(50):
        out = io.BytesIO()
        Image.new("RGB", (16, 8), (number, 0, 255 - number)).save(out, "PNG")
        bucket.object(f"train/{number:03}.png").put(out.getvalue())
        bucket.object(f"train/{number:03}.cls").put(str(number).encode())
    client.etl(ETL).init_code(SMALLER)
    yield client
    client.etl(ETL).delete()
    bucket.delete()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_comes_once_and_whole(client, workers):
    dataset = aistore.pytorch.Dataset(client.endpoint, aistore.Bck(BUCKET), "train/", None, ETL, is_picture)
    seen = []
    for images, target in torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True, num_workers=workers):
        assert images.shape[1:] == (3, 2, 4)
        assert images.dtype == torch.uint8
        assert torch.equal(images[:, 0, 1, 1].long(), target)
        assert torch.equal(images[:, 2, 1, 1].long(), 255 - target)
        seen += target.tolist()
    assert sorted(seen) == list(range(50))


def test_an_object_that_the_transform_cannot_take_is_named(client):
    bucket = client.bucket(BUCKET)
    bucket.object("torn/1.png").put(b"no picture")
    dataset = aistore.pytorch.Dataset(client.endpoint, BUCKET, "torn/", transform_id=ETL)
    with pytest.raises(errors.TransformError) as caught:
        dataset[0]
    assert "torn/1.png" in str(caught.value)
    assert "UnidentifiedImageError" in str(caught.value)
    assert dataset.names(0) == ("torn/1.png",)


def test_a_line_of_transforms_with_arguments(client):
    client.etl("torch-args").init_code("def transform(data, etl_args):\n    return data + etl_args.encode()\n")
    client.etl("torch-back").init_code("def transform(data):\n    return data[::-1]\n")
    bucket = client.bucket(BUCKET)
    bucket.object("line/1.bin").put(b"one")
    for transforms in ("torch-args >> torch-back", client.etl("torch-args") >> "torch-back"):
        dataset = aistore.pytorch.Dataset(
            client.endpoint, BUCKET, "line/", transform_id=transforms, etl_args={"k": 1}, loader=lambda name, data: data
        )
        assert dataset[0] == (b'}1:"k"{eno',)
        assert "through torch-args >> torch-back" in repr(dataset)
    for transforms, error in (
        ("torch-args >> torch-nothing", errors.EtlNotFoundError),
        ("a,a", errors.BadRequestError),
    ):
        with pytest.raises(error):
            aistore.pytorch.Dataset(client.endpoint, BUCKET, "line/", transform_id=transforms)


def test_a_missing_bucket_and_transform(client):
    with pytest.raises(errors.BucketNotFoundError, match="torch-nowhere"):
        aistore.pytorch.Dataset(client.endpoint, "torch-nowhere")
    with pytest.raises(errors.EtlNotFoundError, match="torch-nothing"):
        aistore.pytorch.Dataset(client.endpoint, BUCKET, transform_id="torch-nothing")


def test_a_transform_that_was_stopped_or_removed_meanwhile(client):
    client.etl("torch-passing").init_code("def transform(data):\n    return data\n")
    dataset = aistore.pytorch.Dataset(client.endpoint, BUCKET, "train/00", transform_id="torch-passing")
    assert dataset[3][1] == 3
    client.etl("torch-passing").stop()
    with pytest.raises(errors.AisError, match="torch-passing") as caught:
        dataset[3]
    assert isinstance(caught.value, errors.EtlNotRunningError)
    with pytest.raises(errors.EtlNotRunningError, match="torch-passing is stopped"):
        aistore.pytorch.Dataset(client.endpoint, BUCKET, "train/00", transform_id="torch-passing")
    client.etl("torch-passing").delete()
    with pytest.raises(errors.EtlNotFoundError, match="torch-passing"):
        dataset[3]

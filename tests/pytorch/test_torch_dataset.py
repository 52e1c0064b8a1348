from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="aistore.pytorch needs torch")
numpy = pytest.importorskip("numpy", reason="aistore.pytorch needs numpy")
Image = pytest.importorskip("PIL.Image", reason="aistore.pytorch needs pillow")

import aistore  # noqa: E402
from aistore import errors  # noqa: E402
from aistore.client import Bck  # noqa: E402
from aistore.pytorch import Dataset, raw_uint8  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # from Python 3.12 on a fork beside torch's threads warns; to fork is DataLoader's choice
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def picture(number: int) -> bytes:
    """A picture of one colour that tells its number; PNG, so that pixels survive."""
    out = io.BytesIO()
    Image.new("RGB", (6, 4), (number, 2 * number, 3)).save(out, "PNG")
    return out.getvalue()


def error_of(loader) -> Exception:
    """Read a loader until it fails and return the error, without the frames that would keep its workers alive."""
    iterator = iter(loader)
    try:
        for _ in iterator:
            pass
    except errors.AisError as error:
        return error.with_traceback(None)
    raise AssertionError("the loader did not fail")


@pytest.fixture(scope="module")
def pictures(stub_address):
    """A bucket of 20 pictures with labels under train/, and 2 under val/."""
    _, root = stub_address
    for part, count in (("train", 20), ("val", 2)):
        folder = root / "pictures" / part
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number:03}.jpg").write_bytes(picture(number))
            (folder / f"{number:03}.cls").write_text(f"{number}\n")
    return "pictures"


def test_a_sample_is_a_picture_and_its_label(stub, pictures):
    dataset = Dataset(stub.url, pictures, prefix="train/")
    assert len(dataset) == 20
    image, label = dataset[7]
    assert label == 7
    assert image.shape == (3, 4, 6)
    assert torch.equal((image[:, 0, 0] * 255).round(), torch.tensor([7.0, 14.0, 3.0]))
    assert dataset.names(7) == ("train/007.jpg", "train/007.cls")
    assert dataset[-1][1] == 19
    assert [label for _, label in dataset] == list(range(20))
    for wrong in (20, -21):
        with pytest.raises(IndexError):
            dataset[wrong]


def test_a_bucket_is_named_in_any_way(stub, pictures, monkeypatch):
    monkeypatch.setenv("AIS_ENDPOINT", stub.url)
    for url, bck in ((stub.url + "/", f"ais://{pictures}"), (None, Bck(pictures))):
        dataset = Dataset(url, bck, "val/")
        assert (dataset.url, dataset.bucket) == (stub.url, pictures)
    for bck in (Bck(pictures, ns="other"), Bck(pictures, provider="oci"), f"oc://{pictures}"):
        with pytest.raises(errors.NotSupportedError):
            Dataset(stub.url, bck)
    assert "s3://" + pictures in repr(Dataset(stub.url, Bck(pictures, provider="s3"), "val/"))


def test_a_batch_is_one_request(stub, pictures):
    dataset = Dataset(stub.url, pictures, "train/")
    before = stub.batches(pictures)
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)
    labels = [label for images, target in loader for label in target.tolist()]
    assert sorted(labels) == list(range(20))
    assert stub.batches(pictures) - before == 3


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning")
def test_the_lines_of_the_walk_through(stub, pictures):
    dataset = aistore.pytorch.Dataset(
        stub.url,
        Bck(pictures),
        prefix="train/",
        transform_id="pixels-etl",
        transform_filter=lambda object_name: object_name.endswith(".jpg"),
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=5, shuffle=True, num_workers=2, pin_memory=True)
    seen = []
    for images, target in loader:
        assert images.shape == (5, 3, 4, 6)
        assert images.dtype == torch.uint8
        assert images[:, 0, 0, 0].tolist() == target.tolist()
        seen += target.tolist()
    assert sorted(seen) == list(range(20))


@pytest.mark.usefixtures("resource_tracker")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_on_connections_of_their_own(stub, pictures, start):
    dataset = Dataset(
        stub.url, pictures, "train/", transform_id="pixels-etl", transform_filter=lambda name: name.endswith("jpg")
    )
    here = dataset[3][0]  # a connection of this process is open when the workers start
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=2, persistent_workers=True,
        multiprocessing_context=multiprocessing.get_context(start),
    )  # fmt: skip
    ports = set(stub.seen()["ports"])
    for _ in range(2):
        batches = list(loader)
        assert torch.cat([target for _, target in batches]).tolist() == list(range(20))
        assert torch.equal(batches[0][0][3], here)
        assert torch.equal(dataset[3][0], here)  # and this process's connection still works
    del loader
    opened = set(stub.seen()["ports"]) - ports
    assert len(opened) == 2 + 1  # one of each worker, and the one of this question


def test_only_what_the_filter_accepts_is_transformed(stub, pictures):
    dataset = Dataset(
        stub.url, pictures, "train/", transform_id="reverse-etl", transform_filter=lambda name: name.endswith(".cls")
    )
    assert [part.transformed for part in dataset.samples[0]] == [False, True]
    assert dataset[12][1] == 21
    assert "20 objects through reverse-etl" in repr(dataset)


def test_without_a_filter_everything_is_transformed(stub):
    stub.put("words", "a.txt", b"abc")
    assert Dataset(stub.url, "words", transform_id="reverse-etl")[0] == ("cba",)


def test_a_filter_that_accepts_nothing_is_a_mistake(stub, pictures):
    with pytest.raises(errors.BadRequestError, match="accepts none of the objects of ais://pictures/train/"):
        Dataset(stub.url, pictures, "train/", transform_id="pixels-etl", transform_filter=lambda name: False)


def test_a_loader_replaces_all_decoders(stub, pictures):
    dataset = Dataset(stub.url, pictures, "val/", loader=lambda name, data: (name, len(data)))
    assert dataset[1] == (("val/001.jpg", len(picture(1))), ("val/001.cls", 2))


def test_decoders_are_replaced_by_extension(stub):
    stub.put("raw", "1.jpg", bytes(range(12)))
    stub.put("raw", "1.cls", b"5")
    dataset = Dataset(stub.url, "raw", decoders={".JPG": raw_uint8((3, 2, 2))})
    assert dataset[0][0].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]
    assert dataset[0][1] == 5
    with pytest.raises(errors.BadRequestError, match="decoders has the key 'jpg'"):
        Dataset(stub.url, "raw", decoders={"jpg": bytes})
    with pytest.raises(errors.BadRequestError, match="both loader and decoders"):
        Dataset(stub.url, "raw", loader=print, decoders={})


def test_samples_that_lack_a_part(stub):
    for name in ("1.jpg", "1.cls", "2.jpg", "2.cls", "3.jpg"):
        stub.put("torn", name, b"1")
    with pytest.raises(errors.SamplesError, match=r"ais://torn/: 1 of 3 samples do not have the parts image, \.cls"):
        Dataset(stub.url, "torn")
    assert len(Dataset(stub.url, "torn", parts=[".jpg"])) == 3
    dataset = Dataset(stub.url, "torn", incomplete="drop")
    assert (len(dataset), dataset.dropped) == (2, 1)
    assert "1 incomplete dropped" in repr(dataset)
    with pytest.raises(errors.BadRequestError, match="incomplete='ignore'"):
        Dataset(stub.url, "torn", incomplete="ignore")


def test_what_is_missing_is_said_when_the_dataset_is_made(stub, pictures):
    with pytest.raises(errors.BucketNotFoundError, match='bucket "ais://nowhere" does not exist'):
        Dataset(stub.url, "nowhere")
    with pytest.raises(errors.NotFoundError, match="ais://pictures has no objects with the prefix 'test/'"):
        Dataset(stub.url, pictures, "test/")
    with pytest.raises(errors.NotFoundError, match=r"prefix 'val/' and the extensions \.png"):
        Dataset(stub.url, pictures, "val/", parts=[".png"])
    with pytest.raises(errors.EtlNotFoundError, match="etl job other-etl does not exist"):
        Dataset(stub.url, pictures, transform_id="other-etl")
    with pytest.raises(errors.EtlNotRunningError, match="etl job stopped-etl is stopped"):
        Dataset(stub.url, pictures, transform_id="stopped-etl")


def test_a_store_that_is_not_there(pictures):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(errors.StoreUnreachableError, match=url):
            Dataset(url, pictures)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_deleted_object_is_named(stub, workers):
    for number in range(4):
        stub.put("fading", f"{number}.txt", b"here")
    dataset = Dataset(stub.url, "fading")
    stub.delete("fading", "2.txt")
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=workers)
    error = error_of(loader)
    assert type(error) is errors.ObjectNotFoundError
    assert "ais://fading/2.txt does not exist" in str(error)
    assert dataset[3] == ("here",)  # the rest of the broken-off reply is not taken for this one's


def test_an_object_that_met_a_full_queue_is_asked_for_again(stub, pictures):
    dataset = Dataset(stub.url, pictures, "val/")
    stub.be_busy(2)  # both parts of the first sample
    assert [label for _, label in dataset.__getitems__([0, 1])] == [0, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_transform_names_the_object_and_shows_its_traceback(stub, workers):
    for name in ("bad", "good"):
        stub.put("moody", f"{name}.txt", b"x")
    loader = torch.utils.data.DataLoader(Dataset(stub.url, "moody", transform_id="broken-etl"), num_workers=workers)
    error = error_of(loader)
    assert type(error) is errors.TransformError
    assert "ais://moody/bad.txt, transformed by broken-etl" in str(error)
    assert "ValueError: no such colour" in str(error)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_decoded_is_named(stub, workers):
    stub.put("junk", "1.cls", b"five")
    stub.put("junk", "1.jpg", b"no picture")
    loader = torch.utils.data.DataLoader(Dataset(stub.url, "junk", transform_id="reverse-etl"), num_workers=workers)
    error = error_of(loader)
    assert type(error) is errors.DecodeError
    assert "cannot decode ais://junk/1.jpg, transformed by reverse-etl (10 bytes)" in str(error)
    assert "UnidentifiedImageError" in str(error)


def test_a_pickled_dataset_carries_no_connection(stub, pictures):
    dataset = Dataset(stub.url, pictures, "val/", transform_id="pixels-etl", transform_filter=lambda n: "jpg" in n)
    assert dataset[0][1] == 0
    copy = pickle.loads(pickle.dumps(dataset))
    assert repr(copy) == repr(dataset)
    assert copy[1][1] == 1
    copy.close()
    assert copy[1][1] == 1


def test_no_descriptor_is_left_open(stub, pictures):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    dataset = Dataset(stub.url, pictures, "val/")
    dataset[0]
    dataset.close()
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_package_says_what_to_install():
    """Without torch the package imports, and using it names the extra."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import aistore, json\n"
        "names = dir(aistore.pytorch)\n"
        "try: aistore.pytorch.Dataset\n"
        "except ImportError as error: print(json.dumps([names, str(error)]))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names, message = json.loads(out)
    assert "Dataset" in names
    assert "pip install 'pyaistore[pytorch]'" in message

"""A dataset with a seed: the same samples whoever reads them, whatever the order; others in another epoch."""

from __future__ import annotations

import io
import pickle

import pytest

torch = pytest.importorskip("torch", reason="aistore.pytorch needs torch")
numpy = pytest.importorskip("numpy", reason="the transform of this test needs numpy")

import aistore  # noqa: E402
from aistore import errors  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # from Python 3.12 on a fork beside torch's threads warns; to fork is DataLoader's choice
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

BUCKET, ETL = "torch-seeded", "torch-noise"

NOISE = """
import io
import numpy

def transform(data):
    out = io.BytesIO()
    numpy.save(out, numpy.random.default_rng().integers(0, 1 << 40, 3) + numpy.random.randint(1 << 20))
    return out.getvalue()
"""


@pytest.fixture(scope="module")
def client(store):
    client = aistore.Client(store.endpoint)
    bucket = client.bucket(BUCKET).create()
    for number in range(24):
        out = io.BytesIO()
        numpy.save(out, numpy.array([number]))
        bucket.object(f"{number:03}.npy").put(out.getvalue())
        bucket.object(f"{number:03}.cls").put(str(number).encode())
    client.etl(ETL).init_code(NOISE, workers=3)
    yield client
    client.etl(ETL).delete()
    bucket.delete()


def dataset(client, seed=None):
    return aistore.pytorch.Dataset(
        client.endpoint, BUCKET, transform_id=ETL, transform_filter=lambda name: name.endswith(".npy"), seed=seed
    )


def epoch(loader):
    """Return what each sample was in one epoch, by its label."""
    found = {}
    for noise, labels in loader:
        found.update(zip(labels.tolist(), map(tuple, noise.tolist()), strict=True))
    assert len(found) == 24
    return found


def test_readers_of_a_seed_see_the_same(client):
    seeded = dataset(client, seed=42)
    loaders = [
        torch.utils.data.DataLoader(seeded, batch_size=8),
        torch.utils.data.DataLoader(seeded, batch_size=5, shuffle=True, num_workers=2),
        torch.utils.data.DataLoader(pickle.loads(pickle.dumps(seeded)), batch_size=3, shuffle=True),
        torch.utils.data.DataLoader(dataset(client, seed="42"), batch_size=24),
    ]
    first, *others = (epoch(loader) for loader in loaders)
    assert len(set(first.values())) == 24
    assert all(other == first for other in others)
    assert epoch(torch.utils.data.DataLoader(dataset(client, seed=43), batch_size=24)) != first


def test_each_epoch_has_numbers_of_its_own_for_workers_that_stay(client):
    seeded = dataset(client, seed="run-7")
    loader = torch.utils.data.DataLoader(seeded, batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    seen = []
    for number in (0, 1, 2, 1):
        seeded.set_epoch(number)
        seen.append(epoch(loader))
    assert seeded.seed == "run-7:1"
    assert seen[1] == seen[3]
    assert all(len({found[label] for found in seen[:3]}) == 3 for label in range(24))


def test_without_a_seed_nothing_repeats(client):
    plain = dataset(client)
    loader = torch.utils.data.DataLoader(plain, batch_size=8)
    first, second = epoch(loader), epoch(loader)
    assert all(first[label] != second[label] for label in range(24))
    with pytest.raises(errors.BadRequestError, match="seed"):
        plain.set_epoch(1)


def test_seeds_that_mean_nothing(client):
    with pytest.raises(errors.BadRequestError, match="transform"):
        aistore.pytorch.Dataset(client.endpoint, BUCKET, seed=1)
    with pytest.raises(errors.BadRequestError, match="0 characters"):
        dataset(client, seed="")
    with pytest.raises(errors.BadRequestError, match="epoch -1"):
        dataset(client, seed=1).set_epoch(-1)

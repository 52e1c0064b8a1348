"""Objects copied and transformed between a bucket of another object store and one of the store's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from watched_store import foreign

from aistore.client import Bucket, Client
from aistore.errors import ObjectNotFoundError
from aistore.laptop.weed import Weed
from aistore.testing import StoreProcess

LARGE = bytes(range(256)) * 12_000


@pytest.fixture(scope="module")
def buckets(weed: Weed) -> Iterator[tuple[Client, Bucket, Bucket]]:
    """Return a client of one machine, a bucket of S3 that is known to it, and one of its own."""
    with StoreProcess(env=weed.environment) as store, Client(store.endpoint) as client:
        weed.make_bucket("copied")
        for name, data in (("words", b"words"), ("large", LARGE)):
            foreign(weed, "PUT", "copied", name, data)
        lake = client.bucket("s3://copied").create(props={"extra.aws.endpoint": weed.endpoint})
        client.etl("backed-back").init_code("def transform(data):\n    return data[::-1]\n", workers=1)
        client.etl("backed-upper").init_code("def transform(data):\n    return data.upper()\n", workers=1)
        yield client, lake, client.bucket("own").create()


def test_single_objects_either_way(buckets: tuple[Client, Bucket, Bucket]) -> None:
    _, lake, own = buckets
    lake.object("words").copy_to(own.object("words"), etl="backed-back >> backed-upper")
    assert own.object("words").get().read() == b"SDROW"
    lake.object("large").copy_to(own.object("large"))
    assert own.object("large").get().read() == LARGE
    own.object("large").copy_to(lake.object("back"), etl="backed-back")
    assert lake.object("back").get().read() == LARGE[::-1]
    lake.object("words").copy_to(lake.object("beside"))
    assert lake.object("beside").get().read() == b"words"
    with pytest.raises(ObjectNotFoundError):
        lake.object("none").copy_to(own.object("none"))


def test_latest_looks_at_the_object_store_first(buckets: tuple[Client, Bucket, Bucket], weed: Weed) -> None:
    _, lake, own = buckets
    foreign(weed, "PUT", "copied", "changing", b"before")
    assert lake.object("changing").get().read() == b"before"
    foreign(weed, "PUT", "copied", "changing", b"after")
    lake.object("changing").copy_to(own.object("changing"), etl="backed-upper", latest=True)
    assert own.object("changing").get().read() == b"AFTER"


def test_jobs_on_chosen_objects(buckets: tuple[Client, Bucket, Bucket]) -> None:
    client, lake, _ = buckets
    for number in range(6):
        lake.object(f"chosen/{number}").put(f"words {number}".encode())
    info = lake.transform("made", "backed-upper >> backed-back", template="chosen/{1..4}", prepend="t/").wait(60)
    assert (info.objects, info.error) == (4, "")
    made = client.bucket("made")
    assert {entry.name: made.object(entry.name).get().read() for entry in made.list()} == {
        f"t/chosen/{number}": f"{number} SDROW".encode() for number in range(1, 5)
    }
    info = made.copy(lake, names=["t/chosen/1"]).wait(60)
    assert (info.objects, info.error) == (1, "")
    assert lake.object("t/chosen/1").get().read() == b"1 SDROW"

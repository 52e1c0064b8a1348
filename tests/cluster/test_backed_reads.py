"""Buckets in an object store, read through the cache of one machine: how often the store is asked, and for what."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3
from watched_store import WatchedStore, foreign, process_of

from aistore.client import Bucket, Client, RetryPolicy
from aistore.errors import (
    BackendRefusedError,
    BackendUnavailableError,
    BadRequestError,
    ConflictError,
    ObjectNotFoundError,
)
from aistore.laptop.node import poll
from aistore.laptop.processes import descendants
from aistore.laptop.weed import Weed
from aistore.testing import StoreProcess

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def serving(weed: Weed) -> Iterator[StoreProcess]:
    with StoreProcess(arguments=("--workers", "2"), env=weed.environment) as process:
        yield process
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture
def watched(weed: Weed) -> Iterator[WatchedStore]:
    store = WatchedStore(weed)
    yield store
    store.close()


@pytest.fixture
def bucket(serving: StoreProcess, weed: Weed, watched: WatchedStore) -> Bucket:
    """A bucket of the test's own in the object store, reached through ``watched``."""
    name = f"reads-{next(_NUMBERS)}"
    weed.make_bucket(name)
    return Client(serving.endpoint).bucket(f"s3://{name}").create(props={"extra.aws.endpoint": watched.url})


def _hasty(serving: StoreProcess) -> Client:
    """A client that does not insist."""
    return Client(serving.endpoint, retry=RetryPolicy(busy_seconds_max=0))


def cached(bucket: Bucket) -> list[str]:
    return sorted(entry.name for entry in bucket.list(cached=True))


def test_a_hundred_readers_are_one_fetch(bucket: Bucket, weed: Weed, watched: WatchedStore) -> None:
    data = os.urandom(3 << 20)
    foreign(weed, "PUT", bucket.name, "cold", data)
    url = f"{bucket.object('cold')._transport.endpoint.url}/v1/objects/{bucket.name}/cold?provider=s3"
    watched.hold("cold")
    with ThreadPoolExecutor(100) as threads, urllib3.PoolManager(maxsize=100) as pool:
        readers = [threads.submit(lambda: pool.request("GET", url).data) for _ in range(100)]
        assert watched.holding.wait(30)
        threading.Timer(2.5, watched.release).start()  # longer than a read waits for a write of its object
        assert all(reader.result() == data for reader in readers)
    assert len(watched.of("cold", "GET")) == 1
    assert cached(bucket) == ["cold"]


def test_a_fetcher_that_dies_is_followed(
    bucket: Bucket, serving: StoreProcess, weed: Weed, watched: WatchedStore
) -> None:
    data = os.urandom(2 << 20)
    foreign(weed, "PUT", bucket.name, "cold", data)
    watched.hold("cold")
    with ThreadPoolExecutor(30) as threads:
        read = lambda: Client(serving.endpoint).bucket(f"s3://{bucket.name}").object("cold").get().read()  # noqa: E731
        readers = [threads.submit(read) for _ in range(30)]
        assert watched.holding.wait(30)
        os.kill(process_of(watched.holder, list(descendants(serving.pid))), signal.SIGKILL)
        assert all(reader.result(60) == data for reader in readers)
    assert len(watched.of("cold", "GET")) == 2  # that of the dead one, and one more


def test_a_range_of_a_large_object_is_all_that_is_fetched(bucket: Bucket, weed: Weed, watched: WatchedStore) -> None:
    data = os.urandom(1 << 20) * 72
    foreign(weed, "PUT", bucket.name, "large", data)
    with bucket.object("large").get(range=(40_000_000, 3_000_000)) as reader:
        assert reader.read() == data[40_000_000:43_000_000]
    assert [(one.method, one.range) for one in watched.of("large")] == [
        ("HEAD", ""), ("GET", "bytes=40000000-42999999"),
    ]  # fmt: skip
    with bucket.object("large").get(range=(-1000, None)) as reader:
        assert reader.read() == data[-1000:]
    assert watched.of("large", "GET")[-1].range == f"bytes={len(data) - 1000}-{len(data) - 1}"
    assert watched.sent_bytes < 4_000_000
    assert cached(bucket) == []
    assert bucket.object("large").get().read() == data  # whole, and still no copy
    assert cached(bucket) == []
    # Asked for, there is one, and the store is not asked any more.
    job = bucket._transport and Client(bucket._transport.endpoint.url).job(bucket.prefetch(["large"]))
    assert (job.wait(60).objects, job.info().error) == (1, "")
    before = len(watched.of("large"))
    assert bucket.object("large").get().read() == data
    assert bucket.object("large").get(range=(5, 5)).read() == data[5:10]
    assert len(watched.of("large")) == before


def test_what_other_programs_change(bucket: Bucket, weed: Weed, watched: WatchedStore) -> None:
    item = bucket.object("dir/x")
    foreign(weed, "PUT", bucket.name, "dir/x", b"one")
    assert item.get().read() == b"one"
    foreign(weed, "PUT", bucket.name, "dir/x", b"two!")
    assert item.get().read() == b"one"  # the copy: nobody told us
    assert item.get(latest=True).read() == b"two!"
    assert item.get().read() == b"two!"  # and the copy has followed
    bucket.set_props({"versioning.validate_warm_get": True})
    foreign(weed, "PUT", bucket.name, "dir/x", b"three")
    assert item.get().read() == b"three"
    asked = len(watched.of("dir/x"))
    assert item.get().read() == b"three"
    # Asked, not fetched. A set: the object store's client may ask again where a connection broke.
    assert {one.method for one in watched.of("dir/x")[asked:]} == {"HEAD"}
    foreign(weed, "DELETE", bucket.name, "dir/x")
    with pytest.raises(ObjectNotFoundError):
        item.get().read()
    assert cached(bucket) == []


def test_writes_go_through(bucket: Bucket, weed: Weed, watched: WatchedStore) -> None:
    item = bucket.object("a/b")
    item.put(b"mine", custom={"who": "me  and you"})
    assert foreign(weed, "GET", bucket.name, "a/b") == b"mine"
    asked = len(watched.asked)
    assert item.get().read() == b"mine"
    assert len(watched.asked) == asked  # what was written is here
    foreign(weed, "PUT", bucket.name, "a/b", b"theirs")
    item.put(b"mine again")  # over what another program wrote
    assert foreign(weed, "GET", bucket.name, "a/b") == b"mine again"
    info = item.head()
    assert (info.custom, info.checksum.type) == ({}, "xxhash2")
    item.set_custom({"k": "v"})
    item.evict()
    assert item.head().custom == {"k": "v"}
    assert item.get().read() == b"mine again"
    item.delete()
    with pytest.raises(ObjectNotFoundError):
        item.head()


def test_an_immutable_bucket_asks_once(bucket: Bucket, weed: Weed, watched: WatchedStore) -> None:
    foreign(weed, "PUT", bucket.name, "x", b"one")
    bucket.set_props({"immutable": True})
    bucket.object("new").put(b"new")
    assert bucket.object("x").get().read() == b"one"
    asked = len(watched.asked)
    for _ in range(20):
        assert bucket.object("x").get().read() == b"one"
        assert bucket.object("x").head().size == 3
    assert len(watched.asked) == asked
    for refused in (lambda: bucket.object("x").put(b"two"), bucket.object("x").delete, bucket.object("new").delete):
        with pytest.raises(ConflictError, match="is immutable"):
            refused()
    assert foreign(weed, "GET", bucket.name, "x") == b"one"


def test_objects_of_other_programs(bucket: Bucket, weed: Weed, serving: StoreProcess) -> None:
    odd = ["plain", "a b/c d", "ünï/cødé", "100%/50%25", "plus+and&equals=?#.txt", "'quotes\" and;semi", "~tilde!(x)*"]
    for name in odd:
        foreign(weed, "PUT", bucket.name, name, name.encode())
    assert sorted(entry.name for entry in bucket.list()) == sorted(odd)
    for name in odd:
        item = bucket.object(name)
        info = item.head()
        assert (info.size, info.version, info.custom, info.checksum.type) == (len(name.encode()), 1, {}, "none")
        assert item.get().read() == name.encode()
        poll(10, "a copy", lambda item=item: item.head().checksum.type == "xxhash2")  # made meanwhile
    # The entity tag is the store's, whether there is a copy or not.
    url = f"{serving.endpoint}/v1/objects/{bucket.name}/plain?provider=aws"
    with urllib3.PoolManager() as pool:
        tag = pool.request("HEAD", url).headers["etag"]
        bucket.object("plain").evict()
        assert pool.request("HEAD", url).headers["etag"] == tag
        assert pool.request("GET", url, headers={"If-None-Match": tag}).status == 304
        assert pool.request("GET", url, headers={"If-Match": '"other"'}).status == 412
        assert pool.request("GET", url, headers={"Range": "bytes=1-2", "If-Range": tag}).data == b"la"


def test_a_refusal_is_told_at_once(bucket: Bucket, watched: WatchedStore) -> None:
    watched.instead = 403, b"<Error><Code>InvalidAccessKeyId</Code></Error>"
    with pytest.raises(BackendRefusedError, match="InvalidAccessKeyId") as caught:
        bucket.object("x").get().read()
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    assert len(watched.of("x")) == 1
    with pytest.raises(BackendRefusedError):
        list(bucket.list())
    with pytest.raises(BackendRefusedError):
        bucket.object("x").put(b"1")
    job = Client(bucket._transport.endpoint.url).job(bucket.prefetch(prefix=""))
    assert "InvalidAccessKeyId" in job.wait(30).error


def test_buckets_that_cannot_be_had(serving: StoreProcess, watched: WatchedStore, weed: Weed) -> None:
    client = Client(serving.endpoint)
    with pytest.raises(BadRequestError, match="NoSuchBucket"):
        client.bucket("s3://no-such-bucket").create()
    watched.instead = 403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
    with pytest.raises(BadRequestError, match="SignatureDoesNotMatch") as caught:
        client.bucket("s3://any").create(props={"extra.aws.endpoint": watched.url})
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
    for instead in ((200, b"<html>Welcome!</html>"), (200, b"hello"), (404, b"<html>Not found</html>")):
        watched.instead = instead
        with pytest.raises(BadRequestError, match="is no S3 object store"):
            client.bucket("s3://any").create(props={"extra.aws.endpoint": watched.url})
    with pytest.raises(BackendUnavailableError, match="no connection") as caught:
        _hasty(serving).bucket("s3://any").create(props={"extra.aws.endpoint": "http://127.0.0.1:1"})
    assert "check the endpoint" in caught.value.hint
    assert not [one for one in client.buckets() if one.name == "any"]

"""Buckets in an object store of their own, on several nodes: copies made, dropped, pinned and evicted."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from waiting import PATIENCE, until
from watched_store import foreign

from aistore.client import Bucket, Client
from aistore.laptop.weed import Weed
from aistore.testing import LocalCluster, StoreProcess

_NUMBERS = itertools.count(1)


def new_bucket(client: Client, weed: Weed, objects: dict[str, bytes]) -> Bucket:
    name = f"shared-{next(_NUMBERS)}"
    weed.make_bucket(name)
    for key, data in objects.items():
        foreign(weed, "PUT", name, key, data)
    return client.bucket(f"s3://{name}").create()


def cached(bucket: Bucket) -> list[str]:
    return sorted(entry.name for entry in bucket.list(cached=True))


def copies(cluster: LocalCluster) -> int:
    return sum(cluster.status(node.number)["cached_objects"] for node in cluster.running)


def test_prefetch_and_evict_of_many(cluster: LocalCluster, weed: Weed) -> None:
    clients = [Client(node.endpoint) for node in cluster.running]
    objects = {f"train/{number:03}": os.urandom(500 + number) for number in range(90)} | {"other/x": b"x"}
    bucket = new_bucket(clients[0], weed, objects)
    before = copies(cluster)
    info = clients[1].job(bucket.prefetch(prefix="train/")).wait(PATIENCE)
    expected = sum(len(data) for name, data in objects.items() if name.startswith("train/"))
    assert (info.objects, info.bytes, info.error, info.kind) == (90, expected, "", "prefetch-listrange")
    assert (info.source, info.destination) == (str(bucket), "")
    assert copies(cluster) - before == 90  # each where it lives, and nowhere else
    marks = {entry.name: entry.cached for entry in bucket.list(props="name,cached")}
    assert marks == {name: name.startswith("train/") for name in objects}
    assert [entry.name for entry in bucket.list(cached=False)] == ["other/x"]
    assert len({cluster.status(node.number)["cached_objects"] > 0 for node in cluster.running}) == 1

    info = clients[2].job(bucket.evict(prefix="train/{000..009}")).wait(PATIENCE)
    assert (info.objects, info.error) == (10, "")
    assert cached(bucket) == sorted(name for name in objects if name >= "train/010")
    info = clients[0].job(bucket.evict(["train/011", "train/012", "nothing"])).wait(PATIENCE)
    assert (info.objects, info.gone, info.error) == (2, 1, "")
    info = clients[0].job(bucket.prefetch(["train/011", "nothing", "train/012"])).wait(PATIENCE)
    assert (info.objects, info.failed) == (2, 1)
    assert [one.name for one in clients[0].job(info.id).errors()] == [f"{bucket}/nothing"]
    assert clients[0].job(bucket.evict(prefix="train/08")).wait(PATIENCE).objects == 10

    bucket.set_props({"immutable": True})
    bucket.forget(keep_props=True)
    assert cached(bucket) == []
    until(lambda: copies(cluster) == before, "the copies are not dropped on every node")
    assert bucket.head().props["immutable"] is True
    for client in clients:
        found = client.bucket(str(bucket)).batch(sorted(objects))
        assert list(found) == [objects[name] for name in sorted(objects)]
    bucket.forget()
    assert [one for one in clients[2].buckets() if one.name == bucket.name] == []


def test_what_is_pinned_stays(new_cluster: Callable[..., LocalCluster], weed: Weed) -> None:
    cluster = new_cluster(2, arguments=("--cache-size", "6MB"))
    client = Client(cluster.node(1).endpoint)
    pinned = {f"keep/{number}": os.urandom(400_000) for number in range(6)}
    others = {f"pass/{number:02}": os.urandom(400_000) for number in range(40)}
    bucket = new_bucket(client, weed, pinned | others)
    bucket.set_props({"lru.pinned": "keep/"})
    assert client.job(bucket.prefetch(prefix="keep/")).wait(PATIENCE).error == ""

    def noticed() -> bool:
        statuses = [cluster.status(node.number) for node in cluster.running]
        return sum(status["pinned_bytes"] for status in statuses) == 6 * 400_000

    until(noticed, "the pinned copies are not counted")
    for _ in range(3):  # more than there is room for, each time from the start
        for name, data in others.items():
            assert bucket.object(name).get().read() == data
    kept = cached(bucket)
    assert set(pinned) <= set(kept)
    assert 6 < len(kept) < 46
    statuses = [cluster.status(node.number) for node in cluster.running]
    assert all(0 < status["cached_bytes"] <= status["cache_capacity"] for status in statuses)
    assert sum(status["cached_bytes"] for status in statuses) >= len(pinned) * 400_000


def test_a_store_whose_order_is_its_own_is_listed(cluster: LocalCluster, weed: Weed) -> None:
    # weed lists directories as it walks them: a, a/b, a-b.
    names = [f"{begin}{end}" for begin in "abc" for end in ("", "-x", "/x", "/y/z", ".x", "0")]
    bucket = new_bucket(Client(cluster.node(1).endpoint), weed, {})
    for name in names:
        if name not in ("a", "b", "c"):  # a key and a directory at once is more than it can
            foreign(weed, "PUT", bucket.name, name, b"1")
    there = sorted(set(names) - {"a", "b", "c"})
    for size in (1, 2, 3, 1000):
        listed = [entry.name for entry in bucket.list(page_size=size)]
        assert sorted(listed) == there
    bucket.object("a-x").get().read()
    # The copy is made when the reply is on its way.
    until(lambda: [entry.name for entry in bucket.list(page_size=2, cached=True)] == ["a-x"], "no copy is listed")
    assert sorted(entry.name for entry in bucket.list(page_size=2, cached=False)) == [n for n in there if n != "a-x"]


def test_a_cache_is_no_data_directory(new_cluster: Callable[..., LocalCluster], weed: Weed, tmp_path: Path) -> None:
    cluster = new_cluster(1)
    with StoreProcess(str(tmp_path / "data")) as store:
        Client(store.endpoint).bucket("b").create().object("x").put(b"1")
    cluster.node(1).stop()
    (cache,) = Path(cluster.directory).glob("*/cache")

    def refusal(*arguments: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "aistore", "serve", "--port", "0", *arguments],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **cluster.environment},
        )  # fmt: skip
        assert run.returncode == 1, run
        assert "Traceback" not in run.stderr
        return run.stderr

    assert "is the data directory of a store and cannot be a cache" in refusal(
        "--store", cluster.store_url, "--cache", str(tmp_path / "data")
    )
    assert "is a cache" in refusal("--data", str(cache))
    assert "is a cache" in refusal("--data", str(cache / "objects"))
    with StoreProcess(str(tmp_path / "data")) as store:  # nothing was done to it
        assert Client(store.endpoint).bucket("b").object("x").get().read() == b"1"

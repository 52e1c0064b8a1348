"""The client against a running store."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import pytest

from aistore.client import Bck, Bucket, Client
from aistore.errors import (
    AisError,
    BucketExistsError,
    BucketNotFoundError,
    ChecksumMismatchError,
    EtlExistsError,
    EtlNotFoundError,
    ObjectNotFoundError,
    RangeNotSatisfiableError,
    TransformError,
)
from aistore.testing import StoreProcess

UPPER = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read().upper())"


@pytest.fixture
def client(store: StoreProcess):
    with Client(store.endpoint) as client:
        yield client


@pytest.fixture
def here(client: Client, request: pytest.FixtureRequest):
    bucket = client.bucket("client-" + request.node.name.split("[")[0][5:].replace("_", "-")[:50]).create()
    yield bucket
    bucket.delete()


def test_bucket_lives_and_ends(client):
    bucket = client.bucket("client-life")
    with pytest.raises(BucketNotFoundError):
        bucket.head()
    bucket.create()
    with pytest.raises(BucketExistsError):
        bucket.create()
    bucket.create(exist_ok=True)
    assert bucket.head().created_ns > 0
    assert "client-life" in [found.name for found in client.buckets()]
    bucket.delete()
    bucket.delete(missing_ok=True)
    with pytest.raises(BucketNotFoundError):
        list(bucket.list())


@pytest.mark.parametrize("name", ["plain", "dir/x y.jpg", "%41#?&=+", "é/ü/日本", "a//b", "/lead", "n" * 1024, "a\nb"])
def test_names_survive(here: Bucket, name: str):
    handle = here.object(name)
    handle.put(name.encode())
    assert handle.get().read() == name.encode()
    assert [entry.name for entry in here.list()] == [name]
    assert handle.head().size == len(name.encode())
    assert list(here.batch([name])) == [name.encode()]
    handle.delete()
    with pytest.raises(ObjectNotFoundError):
        handle.delete()


@pytest.mark.parametrize("size", [0, 1, 20_000, (1 << 20) + 1, 9 << 20])
def test_bytes_survive_however_they_come(here: Bucket, tmp_path, size: int):
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)

    class OneWay(io.RawIOBase):
        inner = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer):
            return self.inner.readinto(buffer)

    sources = {"bytes": data, "path": path, "file": io.BytesIO(data), "stream": io.BufferedReader(OneWay())}
    for kind, source in sources.items():
        here.object(kind).put(source)
        reader = here.object(kind).get()
        assert reader.read() == data
        assert reader.info == here.object(kind).head()
        assert b"".join(here.object(kind).get()) == data


def test_versions_custom_metadata_and_ranges(here: Bucket):
    handle = here.object("o")
    handle.put(b"first")
    handle.put(b"0123456789", custom={"label": "cat"})
    assert handle.head().version == 2
    handle.set_custom({"by": "me"})
    assert handle.head().custom == {"label": "cat", "by": "me"}
    handle.set_custom({"only": "this"}, replace=True)
    assert handle.get().info.custom == {"only": "this"}
    reader = handle.get(range=(2, 3))
    assert (reader.read(), reader.info.size) == (b"234", 10)
    assert handle.get(range=(-2, None)).read() == b"89"
    assert handle.get(range=(8, 100)).read() == b"89"
    with pytest.raises(RangeNotSatisfiableError):
        handle.get(range=(10, 1))


def test_store_refuses_what_was_damaged_on_the_way(here: Bucket):
    class Changing(io.BytesIO):
        """Gives other bytes when it is read for the second time, as a file does that is being written."""

        def seek(self, position: int, whence: int = 0) -> int:
            self.getbuffer()[:1] = b"X"
            return super().seek(position, whence)

    with pytest.raises(ChecksumMismatchError):
        here.object("o").put(Changing(b"data"))
    with pytest.raises(ObjectNotFoundError):
        here.object("o").head()


def test_missing_bucket_ends_a_large_put_early(client):
    with pytest.raises(BucketNotFoundError):
        client.bucket("client-nowhere").object("o").put(bytes(20 << 20))


def test_listing_is_complete_in_any_page_size(here: Bucket):
    names = sorted(f"d{number % 3}/{number:03d}" for number in range(50))
    for name in names:
        here.object(name).put(b"x")
    for page_size in (1, 7, 50, 0):
        assert [entry.name for entry in here.list(page_size=page_size)] == names
    assert [entry.name for entry in here.list("d1/", limit=3)] == [name for name in names if name.startswith("d1/")][:3]
    assert [entry.name for entry in here.list(start_after=names[47])] == names[48:]
    entry = next(here.list(props="name,size,checksum,version,atime,custom"))
    assert (entry.size, entry.version, len(entry.checksum)) == (1, "1", 16)
    assert entry.atime


def test_batches_mix_objects_errors_and_transforms(client: Client, here: Bucket):
    for number in range(20):
        here.object(f"{number}").put(f"value-{number}".encode())
    name = client.etl("client-batch").init_code(UPPER, comm_type="io://")
    try:
        wanted = [(f"{number}", name if number % 2 else "") for number in range(20)] + [("missing", "")]
        results = list(here.batch(wanted))
        expected = [f"{'VALUE' if number % 2 else 'value'}-{number}".encode() for number in range(20)]
        assert results[:20] == expected
        assert isinstance(results[20], ObjectNotFoundError)
        assert list(here.batch(["1", "2"], etl=name)) == [b"VALUE-1", b"VALUE-2"]
    finally:
        client.etl(name).delete()


def test_transform_from_code_to_removal(client: Client, here: Bucket):
    here.object("o").put(b"abc")
    seen = []
    etl = client.etl("client-etl")
    etl.init_code("def transform(data):\n    return data[::-1]\n",
                  on_progress=lambda progress: seen.append(progress.stage))  # fmt: skip
    try:
        assert "ready" in seen
        assert here.object("o").get(etl=etl).read() == b"cba"
        assert client.get_object(Bck(here.name), "o", transform_id="client-etl") == b"cba"
        with pytest.raises(EtlExistsError):
            client.etl("client-etl").init_code(UPPER)
        with pytest.raises(ObjectNotFoundError):
            here.object("missing").get(etl=etl)
        summary = etl.summary()
        assert summary is not None
        assert summary.stage == "Running"
        assert etl.details().init_msg["name"] == "client-etl"
    finally:
        etl.delete()
    with pytest.raises(EtlNotFoundError):
        here.object("o").get(etl="client-etl")


def test_failing_transform_tells_why(client: Client, here: Bucket):
    here.object("o").put(b"abc")
    name = client.etl().init_code("def transform(data):\n    raise ValueError('no such picture')\n")
    try:
        with pytest.raises(TransformError, match="no such picture"):
            here.object("o").get(etl=name)
        (result,) = here.batch([("o", name)])
        assert isinstance(result, TransformError)
    finally:
        client.etl(name).delete()


def test_threads_share_a_client(here: Bucket):
    failures = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                data = f"{number}-{turn}".encode() * 100
                here.object(f"{number}").put(data)
                assert here.object(f"{number}").get().read() == data
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def _read(bucket: Bucket, count: int) -> None:
    assert [bucket.object("o").get().read() for _ in range(count)] == [b"shared"] * count


def test_forked_processes_use_an_inherited_client(here: Bucket):
    here.object("o").put(b"shared")
    _read(here, 1)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_read, args=(here, 20)) for _ in range(2)]
    for process in processes:
        process.start()
    _read(here, 20)
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_other_processes_use_a_pickled_client(here: Bucket):
    here.object("o").put(b"shared")
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).object('o').get().read())"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(here), capture_output=True, check=True)
    assert done.stdout == b"b'shared'\n"


def test_store_that_restarts_is_found_again(new_store, tmp_path):
    first = new_store(str(tmp_path / "data"))
    port = first.endpoint.rpartition(":")[2]
    with Client(first.endpoint) as client:
        client.bucket("b").create().object("o").put(b"kept")
        first.end()
        new_store(str(tmp_path / "data"), arguments=("--port", port))
        assert client.bucket("b").object("o").get().read() == b"kept"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_no_descriptor_is_left_behind(store: StoreProcess):
    def sockets() -> set[str]:
        gc.collect()
        return {link for entry in os.listdir("/proc/self/fd") if (link := _target(entry)).startswith("socket:")}

    before = sockets()  # of other tests, which may still go
    with Client(store.endpoint) as client:
        bucket = client.bucket("client-leaks").create()
        bucket.object("large").put(bytes(8 << 20))
        for _ in range(10):
            bucket.object("large").get()  # neither read nor closed
            bucket.object("large").get().read(10)
            next(iter(bucket.object("large").get()))
            next(bucket.batch(["large", "large"]))
            next(bucket.list())
            for missing in (bucket.object("missing").get, bucket.object("missing").head, client.bucket("none").head):
                with pytest.raises(AisError):
                    missing()
        assert len(sockets() - before) <= 2
        bucket.delete()
    assert sockets() <= before


def _target(entry: str) -> str:
    """What a descriptor leads to, by the kernel's name; nothing where it was closed in the meantime."""
    try:
        return os.readlink(f"/proc/self/fd/{entry}")
    except FileNotFoundError:
        return ""


def test_cluster(client: Client, store: StoreProcess):
    info = client.cluster()
    assert {node.type for node in info.nodes} == {"proxy", "target"}
    assert {node.url for node in info.nodes} == {store.endpoint}
    assert client.is_ready()

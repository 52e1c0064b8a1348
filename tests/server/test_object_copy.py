"""One object copied to another name or bucket, as it is or through transforms."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import urllib3

from aistore import Client
from aistore.client import Bucket
from aistore.errors import BadRequestError, BucketNotFoundError, EtlNotFoundError, ObjectNotFoundError, TransformError
from aistore.testing import StoreProcess

CODES = {
    "copy-upper": "def transform(data, etl_args):\n    return data.upper() + etl_args.encode()\n",
    "copy-back": "def transform(data):\n    assert data != b'REFUSE'\n    return data[::-1]\n",
}
LARGE = bytes(range(256)) * 12_000  # three pieces


@pytest.fixture(scope="module")
def client(store: StoreProcess) -> Iterator[Client]:
    with Client(store.endpoint) as client, ExitStack() as removed:
        for name, code in CODES.items():
            client.etl(name).init_code(code, workers=2)
            removed.callback(client.etl(name).delete)
        yield client


@pytest.fixture
def buckets(client: Client) -> tuple[Bucket, Bucket]:
    source, destination = (client.bucket(f"b-{uuid.uuid4().hex[:12]}").create() for _ in range(2))
    source.object("dir/words").put(b"words", custom={"colour": "blue"})
    source.object("large").put(LARGE)
    source.object("refuse").put(b"refuse")
    return source, destination


def test_as_it_is(buckets: tuple[Bucket, Bucket]) -> None:
    source, destination = buckets
    words = source.object("dir/words")
    for target in (destination.object("dir/words"), source.object("ünï cödé/☃ %20"), destination.object("dir/words")):
        words.copy_to(target)
        info = target.head()
        assert (target.get().read(), info.custom["colour"]) == (b"words", "blue")
        assert info.custom["ais-recipe"].startswith(f"from={source}&name=dir/words&version=1&sum=")
        assert info.checksum == words.head().checksum
    assert destination.object("dir/words").head().version == 2
    source.object("large").copy_to(destination.object("large"))
    assert destination.object("large").get().read() == LARGE


def test_through_transforms(client: Client, buckets: tuple[Bucket, Bucket]) -> None:
    source, destination = buckets
    target = destination.object("out")
    source.object("dir/words").copy_to(target, etl="copy-upper", etl_args="!")
    custom = target.head().custom
    assert (target.get().read(), custom["colour"]) == (b"WORDS!", "blue")
    assert "&etl=copy-upper:" in custom["ais-recipe"]
    assert destination.verify().wait().objects == 1
    source.object("dir/words").copy_to(target, etl=client.etl("copy-upper") >> "copy-back")
    assert target.get().read() == b"SDROW"
    assert "&etl=copy-upper:" in target.head().custom["ais-recipe"]
    assert "&etl=copy-back:" in target.head().custom["ais-recipe"]
    assert "colour" in target.head().custom
    source.object("large").copy_to(target, etl="copy-back")
    assert target.get().read() == LARGE[::-1]


def test_a_copy_of_a_copy_tells_of_the_last_one(buckets: tuple[Bucket, Bucket]) -> None:
    source, destination = buckets
    source.object("dir/words").copy_to(source.object("second"), etl="copy-upper")
    source.object("second").copy_to(destination.object("third"), etl="copy-back")
    recipe = destination.object("third").head().custom["ais-recipe"]
    assert "&name=second&" in recipe
    assert "copy-upper" not in recipe


def test_what_fails_leaves_the_destination_as_it_was(client: Client, buckets: tuple[Bucket, Bucket]) -> None:
    source, destination = buckets
    words, target = source.object("dir/words"), destination.object("out")
    target.put(b"before")
    with pytest.raises(TransformError, match=r"copy-back failed on .*refuse"):
        source.object("refuse").copy_to(target, etl="copy-upper >> copy-back")
    with pytest.raises(EtlNotFoundError, match="no-such-etl"):
        words.copy_to(target, etl="copy-upper,no-such-etl")
    with pytest.raises(ObjectNotFoundError):
        source.object("none").copy_to(target)
    with pytest.raises(BucketNotFoundError, match=r'bucket "ais://no-such-bucket" does not exist'):
        words.copy_to(client.bucket("no-such-bucket").object("x"))
    with pytest.raises(BucketNotFoundError):
        client.bucket("no-such-bucket").object("x").copy_to(target)
    with pytest.raises(BadRequestError, match="both the source and the destination"):
        words.copy_to(words, etl="copy-upper")
    with pytest.raises(BadRequestError, match="copy-upper is in it twice"):
        words.copy_to(target, etl="copy-upper >> copy-upper")
    assert (target.get().read(), target.head().version) == (b"before", 1)


@pytest.fixture
def put(store: StoreProcess, buckets: tuple[Bucket, Bucket]) -> Callable[..., urllib3.BaseHTTPResponse]:
    def send(to: str, query: str = "", body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        url = f"{store.endpoint}/v1/objects/{buckets[0].name}/dir/words?provider=ais&object_to={to}{query}"
        return urllib3.request("PUT", url, body=body, headers=headers, retries=False)

    return send


def test_as_nvidia_s_sdk_spells_it(
    put: Callable[..., urllib3.BaseHTTPResponse], buckets: tuple[Bucket, Bucket]
) -> None:
    destination = buckets[1]
    to = f"ais%2F%40%23%2F{destination.name}%2F"
    rest = "&latest-ver=false&synchronize=false"
    assert put(to + "copied", rest).status == 200
    assert destination.object("copied").get().read() == b"words"
    assert put(to, rest).status == 200  # without a name: the same
    assert destination.object("dir/words").get().read() == b"words"
    assert put(to + "through", rest + "&etl_name=copy-upper&etl_pipeline=copy-back").status == 200
    assert destination.object("through").get().read() == b"SDROW"


def test_what_is_refused(put: Callable[..., urllib3.BaseHTTPResponse], buckets: tuple[Bucket, Bucket]) -> None:
    to = f"ais%2F%40%23%2F{buckets[1].name}%2F"
    assert put("nonsense").status == 400
    assert put(to + "a%2F..%2Fb").status == 400
    assert put(f"ais%2F%40%23ns%2F{buckets[1].name}%2Fx").status == 501
    assert put(to + "x", "&synchronize=true").status == 501
    assert put(to + "x", body=b"body").status == 400
    assert put(to + "x", **{"if-none-match": "*"}).status == 501
    assert put(to + "x", "&etl_pipeline=copy-back").status == 400
    assert list(buckets[1].list()) == []

"""Reads with a condition: the same answers from the disk, from memory, for parts and for HEAD."""

from __future__ import annotations

import pytest
import urllib3
from raw_http import make_bucket

from aistore.testing import StoreProcess

PAST, FUTURE = "Thu, 01 Jan 2015 00:00:00 GMT", "Thu, 01 Jan 2099 00:00:00 GMT"

#: Headers, where TAG is the object's own, and the statuses of GET, of a GET of a part, and of HEAD.
CASES = {
    "the version that the client has": ({"if-none-match": "TAG"}, (304, 304, 304)),
    "one of those that it has": ({"if-none-match": '"a", W/TAG'}, (304, 304, 304)),
    "any that it has": ({"if-none-match": "*"}, (304, 304, 304)),
    "another one": ({"if-none-match": '"a"'}, (200, 206, 200)),
    "the version that is meant": ({"if-match": "TAG"}, (200, 206, 200)),
    "one of those that are meant": ({"if-match": '"a",TAG'}, (200, 206, 200)),
    "whichever": ({"if-match": "*"}, (200, 206, 200)),
    "one that is gone": ({"if-match": '"a"'}, (412, 412, 412)),
    "a weak tag, which promises nothing": ({"if-match": "W/TAG"}, (412, 412, 412)),
    "newer than long ago": ({"if-modified-since": PAST}, (200, 206, 200)),
    "newer than the future": ({"if-modified-since": FUTURE}, (304, 304, 304)),
    "older than long ago": ({"if-unmodified-since": PAST}, (412, 412, 412)),
    "older than the future": ({"if-unmodified-since": FUTURE}, (200, 206, 200)),
    "no date": ({"if-modified-since": "yesterday", "if-unmodified-since": "\xff"}, (200, 206, 200)),
    "a date beyond all": ({"if-unmodified-since": "Thu, 01 Jan 99999 00:00:00 +9999"}, (200, 206, 200)),
    "a tag before a date": ({"if-none-match": '"a"', "if-modified-since": FUTURE}, (200, 206, 200)),
    "a tag that matches before a date": ({"if-match": "TAG", "if-unmodified-since": PAST}, (200, 206, 200)),
    "meant, and had": ({"if-match": "TAG", "if-none-match": "TAG"}, (304, 304, 304)),
}


@pytest.mark.parametrize("size", [10, 20_000, 3_000_000])
def test_reads_with_conditions(store: StoreProcess, size: int) -> None:
    url = f"{store.endpoint}/v1/objects/{make_bucket(store)}/x"
    with urllib3.PoolManager(retries=False) as pool:
        pool.request("PUT", url, body=b"x" * size)
        tag = pool.request("GET", url).headers["etag"]
        for case, (given, expected) in CASES.items():
            headers = {name: value.replace("TAG", tag) for name, value in given.items()}
            part = {**headers, "range": "bytes=1-2"}
            for _ in range(4):  # before it is in the memory of each process, and after that
                replies = (
                    pool.request("GET", url, headers=headers),
                    pool.request("GET", url, headers=part),
                    pool.request("HEAD", url, headers=headers),
                )
                assert tuple(reply.status for reply in replies) == expected, case
                for reply, length in zip(replies, (size, 2, 0), strict=True):
                    assert reply.status >= 400 or len(reply.data) == (0 if reply.status == 304 else length), case
                    assert reply.status >= 400 or reply.headers["etag"] == tag, case
        assert pool.request("GET", f"{url}?etl_name=e", headers={"if-match": tag}).status == 501

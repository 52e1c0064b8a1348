"""Buckets of every provider: how people write them, and how the wire does; properties with dots."""

from __future__ import annotations

import pytest

from aistore.errors import BadRequestError, NotSupportedError
from aistore.model.names import BucketRef, Uri, bucket_ref, parse_bucket_uname, parse_bucket_uri, parse_uri
from aistore.model.properties import flatten, nest, parse_properties


@pytest.mark.parametrize(
    ("text", "provider", "bucket", "name"),
    [
        ("imagenet", "ais", "imagenet", ""),
        ("ais://imagenet/train/1.jpg", "ais", "imagenet", "train/1.jpg"),
        ("s3://lake/a/b", "aws", "lake", "a/b"),
        ("AWS://lake", "aws", "lake", ""),
        ("gs://lake/x", "gcp", "lake", "x"),
        ("az://lake/x/", "azure", "lake", "x/"),
        ("ht://mirror/index.html", "ht", "mirror", "index.html"),
    ],
)
def test_uris(text, provider, bucket, name):
    place = parse_uri(text)
    assert place == Uri(BucketRef(provider, bucket), name)
    assert parse_uri(str(place)) == place


def test_a_bucket_is_written_as_people_do_and_sent_as_the_wire_does():
    ref = bucket_ref("lake", "s3")
    assert (str(ref), ref.provider, ref.uname, ref.is_backed) == ("s3://lake", "aws", "aws/@#/lake/", True)
    assert bucket_ref("s3://lake") == bucket_ref(ref) == parse_bucket_uri("s3://lake/") == ref
    assert not bucket_ref("imagenet").is_backed
    assert str(Uri(ref, "a b")) == "s3://lake/a b"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("s4://lake", BadRequestError),
        ("s3:lake", BadRequestError),
        ("oc://lake", NotSupportedError),
        ("s3://@remote/lake", NotSupportedError),
        ("s3://la ke", BadRequestError),
    ],
)
def test_what_names_no_bucket(text, error):
    with pytest.raises(error):
        parse_uri(text)


def test_an_object_is_no_bucket():
    with pytest.raises(BadRequestError, match="names an object"):
        bucket_ref("s3://lake/object")
    with pytest.raises(BadRequestError):
        bucket_ref("s3://lake", "gs")


def test_unames_of_buckets():
    for text in ("ais/@#/dst/", "ais//dst/", "ais/@#/dst"):
        assert parse_bucket_uname(text) == BucketRef("ais", "dst")
    assert parse_bucket_uname(bucket_ref("gs://x").uname) == BucketRef("gcp", "x")
    for text in ("dst", "ais/@#/dst/object/", ""):
        with pytest.raises(BadRequestError):
            parse_bucket_uname(text)
    with pytest.raises(NotSupportedError):
        parse_bucket_uname("ais/@uuid#ns/dst/")


def test_properties_are_nested_by_their_dots():
    given = parse_properties(["immutable=true mirror.copies=2", "extra.aws.endpoint=http://h:1 extra.aws.profile=7"])
    assert given == {
        "immutable": True,
        "mirror": {"copies": 2},
        "extra": {"aws": {"endpoint": "http://h:1", "profile": "7"}},
    }
    assert nest(dict(flatten(given))) == given
    assert parse_properties(['{"lru": {"enabled": false}}']) == parse_properties(["lru.enabled=False"])
    assert parse_properties([]) == {}


@pytest.mark.parametrize("text", ["immutable", "=x", "a..b=1", "a=1 a=2", "a=1 a.b=2", "{"])
def test_what_are_no_properties(text):
    with pytest.raises(BadRequestError):
        parse_properties([text])

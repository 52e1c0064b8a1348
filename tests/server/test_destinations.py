"""Which addresses a client may have a node call."""

from __future__ import annotations

import pytest

from aistore.errors import AisError, BadRequestError, ForbiddenError
from aistore.server.handlers.properties import checked_properties

SECRETIVE = (
    "169.254.169.254", "169.254.170.2", "2852039166", "0xA9FEA9FE", "0xa9.0376.43518", "0251.254.169.254",
    "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200", "metadata.google.internal",
    "Metadata.Google.Internal.", "metadata",
)  # fmt: skip
NO_WEB_SERVERS = (
    "file:///etc", "s3://lake/ais/.ais", "memory://z", "gs://b", "/etc", "http://", "http://u:p@h/", "http://h/?q",
    "http://h/#f", "http://h:0/", "http://h:99999/", "http://[::1/", "http://h\r\nx: y/", "http://a b/", "http://h\\@i/",
)  # fmt: skip


def web_bucket(url: str) -> dict[str, object]:
    return checked_properties("ht", {"extra": {"http": {"original_url": url}}})


def s3_bucket(url: str) -> dict[str, object]:
    return checked_properties("aws", {"extra": {"aws": {"endpoint": url}}})


@pytest.mark.parametrize("host", SECRETIVE)
def test_nobody_reads_a_machines_credentials(host: str) -> None:
    for make in (web_bucket, s3_bucket):
        with pytest.raises(ForbiddenError, match="its own credentials"):
            make(f"http://{host}:80/latest")


@pytest.mark.parametrize("url", NO_WEB_SERVERS)
def test_other_things_than_web_servers_are_no_place(url: str) -> None:
    for make in (web_bucket, s3_bucket):
        with pytest.raises(BadRequestError, match="is not the URL of a web server"):
            make(url)


@pytest.mark.parametrize("host", ["data.example", "127.0.0.1:8333", "[::1]:80", "10.0.0.7", "169.253.0.1", "0x"])
def test_other_servers_can_be_named(host: str) -> None:
    assert web_bucket(f"https://{host}/x/") == {"extra.http.original_url": f"https://{host}/x/"}
    assert s3_bucket(f"http://{host}") == {"extra.aws.endpoint": f"http://{host}"}


def test_endpoints_are_of_s3_alone() -> None:
    """Requests to S3 are signed for one host and carry no secret; those to others carry a token that does."""
    for provider in ("gcp", "azure", "ht", "ais"):
        with pytest.raises(AisError, match="unknown property"):
            checked_properties(provider, {"extra": {"aws": {"endpoint": "http://h"}}})

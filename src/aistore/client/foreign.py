"""What is no reply of a store: something else answers at the endpoint, and says 200."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import msgspec

from ..errors import ForeignReplyError
from ..model.objects import ObjectInfo
from ..wire import headers
from .endpoint import Endpoint


@contextlib.contextmanager
def reading_reply(endpoint: Endpoint) -> Iterator[None]:
    """Around the reading of a reply that came whole: raises ForeignReplyError when it is not what a store writes."""
    try:
        yield
    except (
        msgspec.DecodeError, RecursionError, ValueError, TypeError, AttributeError, LookupError,
    ) as error:  # fmt: skip
        raise _foreign(endpoint, f"its reply cannot be read ({str(error) or type(error).__name__})") from error


def stored_info(endpoint: Endpoint, bucket: str, name: str, reply: Mapping[str, str]) -> ObjectInfo:
    """Return what the headers of a reply about a stored object tell; raises ForeignReplyError if no store wrote them.

    A web server that answers everything with a page has no object and keeps none. Stores of the field have spelt their
    headers in several ways, so a reply that is no page is believed without.
    """
    page = reply.get("content-type", "").startswith("text/html")
    if page and not any(header.startswith("ais-") for header in reply):
        raise _foreign(endpoint, "it replies with a web page")
    with reading_reply(endpoint):
        return headers.info_from_headers(bucket, name, reply)


def _foreign(endpoint: Endpoint, why: str) -> ForeignReplyError:
    where = f"{endpoint.url} ({endpoint.origin})"
    return ForeignReplyError(f"what answers at {where} is not a store: {why}", hint=endpoint.correction)

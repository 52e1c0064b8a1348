"""Which addresses a client may have this node call: where the objects of a bucket that it creates are."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from ..errors import BadRequestError, ForbiddenError

#: Where clouds tell a machine its own credentials, by name; by address they are link-local.
_METADATA_NAMES = frozenset(("metadata", "metadata.google.internal", "metadata.goog", "instance-data"))
#: Those of AWS by IPv6, and of Alibaba, which are not link-local.
_METADATA_ADDRESSES = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200")))


def check_destination(url: str, what: str) -> None:
    """Raise unless ``url`` (the property ``what``) is a web address; ForbiddenError for one that tells secrets.

    That is the metadata service of a cloud, which gives credentials to whoever asks from the machine. Names are not
    resolved: they may mean something else a moment later. Where clients are not trusted with what the node's network
    reaches, the network has to keep them apart (docs/security.md).
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    whole = parts.scheme in ("http", "https") and host and port != 0 and url.isprintable() and " " not in url
    if not whole or parts.query or parts.fragment or "@" in parts.netloc or "\\" in url:
        raise BadRequestError(
            f"{what} is not the URL of a web server",
            hint="expected http(s)://host/path, without credentials, query or fragment",
        )
    if host in _METADATA_NAMES or _is_metadata(host):
        raise ForbiddenError(f"{what} names {host}, where a machine gets its own credentials")


def _is_metadata(host: str) -> bool:
    try:
        address = ipaddress.ip_address(_dotted(host).partition("%")[0])
    except ValueError:
        return False
    inner = getattr(address, "ipv4_mapped", None) or address
    return inner.is_link_local or inner in _METADATA_ADDRESSES


def _dotted(host: str) -> str:
    """Return an IPv4 address as it is usually written: URLs may have it as 1 to 4 numbers, octal or hexadecimal too."""
    numbers = []
    for word in host.split("."):
        base = 16 if word[:2].lower() == "0x" else 8 if word[:1] == "0" and len(word) > 1 else 10
        try:
            numbers.append(int(word, base))
        except ValueError:
            return host
    if len(numbers) > 4 or any(number > 255 for number in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(numbers)):
        return host
    value = numbers[-1] + sum(number << (24 - 8 * at) for at, number in enumerate(numbers[:-1]))
    return str(ipaddress.IPv4Address(value))

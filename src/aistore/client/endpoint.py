"""Where the store is: the endpoint's address, and who said so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import BadRequestError

DEFAULT_URL = "http://127.0.0.1:8080"
VARIABLE = "AIS_ENDPOINT"
BY_PROGRAM = "given by the program"
FROM_MAP = "from the cluster map"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address such as ``http://127.0.0.1:8080``, and in words where it came from (for error messages)."""

    url: str
    origin: str = BY_PROGRAM

    @property
    def correction(self) -> str:
        """Return what a person does to have another store asked, as a clause."""
        if self.origin == FROM_MAP:
            return "see what `ais show cluster` says of its nodes"
        source = self.origin.removeprefix("from ")
        if self.origin == BY_PROGRAM:
            return "pass the address of one that runs"
        if source in (self.origin, VARIABLE):  # nothing said where, or the variable did
            return f"set {VARIABLE} to the address of one that runs"
        return f"put the address of one that runs into {source}"

    @property
    def host(self) -> str:
        """The host without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The TCP port."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return urlsplit(self.url).scheme

    @property
    def path(self) -> str:
        """What goes before ``/v1`` when the store is behind another server; mostly empty."""
        return urlsplit(self.url).path


def parse_endpoint(text: str, origin: str = BY_PROGRAM) -> Endpoint:
    """Read an address as people write it: with or without a scheme, a trailing slash or ``/v1``.

    Raises BadRequestError for what is no address.
    """
    url = text.strip()
    if "://" not in url:
        url = f"http://{url}"
    url = url.rstrip("/").removesuffix("/v1")
    hint = f"expected for example {DEFAULT_URL} or 127.0.0.1:8080"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or any(letter.isspace() for letter in url):
        raise BadRequestError(f"endpoint {text!r} ({origin}) is not an address", hint=hint)
    return Endpoint(url, origin)


def parse_endpoints(text: str, origin: str = BY_PROGRAM) -> tuple[Endpoint, ...]:
    """Read one address or several, separated by commas: nodes of one cluster, to be tried in turn."""
    parts = [part for part in text.split(",") if part.strip()]
    return tuple(parse_endpoint(part, origin) for part in parts or [text])


def find_endpoints(explicit: str | None = None, environ: Mapping[str, str] | None = None) -> tuple[Endpoint, ...]:
    """Return the endpoints to use: ``explicit``, else the variable AIS_ENDPOINT, else the default on this machine."""
    if explicit:
        return parse_endpoints(explicit)
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    if text.strip():
        return parse_endpoints(text, f"from {VARIABLE}")
    return (Endpoint(DEFAULT_URL, f"the default, as {VARIABLE} is not set"),)

"""The store's scrubber: what reads all objects once in a while and finds those that the disk changed."""

from __future__ import annotations

from typing import Any

import msgspec

from ..wire.messages import ScrubReport
from .transport import Request, Transport


def scrub_report(transport: Transport) -> ScrubReport:
    """Return how far the pass is, and all damage that is known."""
    return transport.fetch(Request("GET", "/v1/cluster", query={"what": "scrub"}), ScrubReport)


def start_scrub(transport: Transport, bytes_per_second: int = 0) -> ScrubReport:
    """Begin a pass now, at most so fast (0 leaves it to the store), and return its beginning."""
    value: dict[str, Any] = {"kind": "scrub"}
    if bytes_per_second:
        value["bytes_per_second"] = bytes_per_second
    return _act(transport, "start", value)


def stop_scrub(transport: Transport) -> ScrubReport:
    """End the pass that is under way; the next one begins in its turn."""
    return _act(transport, "stop", {"kind": "scrub"})


def _act(transport: Transport, action: str, value: dict[str, Any]) -> ScrubReport:
    body = msgspec.json.encode({"action": action, "value": value})
    headers = {"Content-Type": "application/json"}
    return transport.fetch(Request("PUT", "/v1/cluster", headers=headers, body=body), ScrubReport)

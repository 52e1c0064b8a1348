"""Checks of the network: the port, a proxy that could be in the way, the store that runs, the clock."""

from __future__ import annotations

import email.utils
import os
import socket
import time
from collections.abc import Mapping
from urllib.request import proxy_bypass

from ..client import Client, Endpoint, RetryPolicy
from ..client.transport import Request
from ..errors import AisError, ForeignReplyError, StoreUnreachableError
from ..settings import DEFAULT_PORT
from .finding import Finding, Level

_YEAR_MIN = 2024
_CLOCK_SECONDS_MAX = 5.0


def check_port(port: int = DEFAULT_PORT) -> Finding:
    """Check whether the default port is free, and who has it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            from ..server.holder import describe_port_holder

            holder = describe_port_holder(port)
            return Finding("port", Level.WARN, f"{port} is in use by {holder}", "start a second store with --port")
    return Finding("port", Level.OK, f"{port} is free")


def check_proxy(environ: Mapping[str, str], endpoint: Endpoint) -> Finding:
    """Check whether a proxy of the environment would get the requests to the store."""
    name = next((name for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") if environ.get(name)), "")
    if not name:
        return Finding("proxy", Level.OK, "none is set")
    if proxy_bypass(endpoint.host):
        return Finding("proxy", Level.OK, f"{name} is set, and no_proxy keeps {endpoint.host} out of it")
    return Finding(
        "proxy", Level.WARN, f"{name} is set: ais and aistore.Client go straight to {endpoint.host}, others do not",
        f"for curl, requests and other SDKs: export no_proxy={endpoint.host}",
    )  # fmt: skip


def check_store(endpoint: Endpoint) -> list[Finding]:
    """Ask the store at the endpoint: does it answer, which version is it, does it want a token, which time is it."""
    once = RetryPolicy(attempts_max=1)
    with Client(endpoint, retry=once, connect_timeout_seconds=3, read_timeout_seconds=5) as client:
        try:
            reply = client.transport.send(Request("GET", "/v1/health"))
            date = reply.headers.get("date", "")
            reply.drain()
            version = _version(client)
            disks = _disks(client)
        except ForeignReplyError as error:
            return [Finding("store", Level.FAIL, error.message, error.hint)]
        except StoreUnreachableError as error:
            level = Level.SKIP if "not set" in endpoint.origin else Level.FAIL
            return [Finding("store", level, error.message, error.hint)]
        except AisError as error:
            return [Finding("store", Level.FAIL, f"{endpoint.url} answers: {error.message}", error.hint)]
    given = "with the token of AIS_AUTHN_TOKEN" if os.environ.get("AIS_AUTHN_TOKEN") else "without a token"
    return [Finding("store", Level.OK, f"{endpoint.url} answers {given}{version}"), *disks, *_check_date(date)]


def _version(client: Client) -> str:
    status = client.transport.fetch(Request("GET", "/v1/daemon", query={"what": "node_status"}), dict[str, object])
    version = status.get("ais_version", "")
    return f", version {version}" if version else ""


def _disks(client: Client) -> list[Finding]:
    """Return a finding for each disk of the store that it does without."""
    return [
        Finding(
            "mountpath",
            Level.WARN if one.state == "disabled" else Level.FAIL,
            f"{one.path} is {one.state}: {one.reason}",
            "what is on it is answered by 503; `ais show storage` tells more",
        )
        for one in client.storage().mountpaths()
        if one.state != "available"
    ]


def _check_date(date: str) -> list[Finding]:
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return []
    difference = theirs - time.time()
    if abs(difference) <= _CLOCK_SECONDS_MAX:
        return []
    found = f"the store's clock is {difference:+.0f} s from this machine's"
    return [Finding("store's clock", Level.WARN, found, "set both by NTP (`timedatectl`)")]


class ClockWatch:
    """Sees whether the wall clock is set while the other checks run."""

    def __init__(self) -> None:
        self._began = time.time() - time.monotonic()

    def check(self) -> Finding:
        """Check the year and the step."""
        year = time.gmtime().tm_year
        if year < _YEAR_MIN:
            return Finding("clock", Level.FAIL, f"it is {year} here", "set the clock: certificates need it")
        step = time.time() - time.monotonic() - self._began
        if abs(step) > 1:
            found = f"it was moved by {step:+.1f} s while this ran"
            return Finding("clock", Level.WARN, found, "keep it by NTP (`timedatectl`)")
        return Finding("clock", Level.OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))

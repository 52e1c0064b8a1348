"""HTTP as bytes on a socket: what no client library would send."""

from __future__ import annotations

import re
import resource
import socket
import uuid
from urllib.parse import urlsplit

import urllib3

from aistore.testing import StoreProcess

#: No answer takes so long: whoever waits longer has found a hang.
DEADLINE_SECONDS = 30.0


def raise_descriptor_limit() -> int:
    """Use as many descriptors as the system allows this process; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def make_bucket(store: StoreProcess) -> str:
    name = f"raw-{uuid.uuid4().hex[:12]}"
    assert urllib3.request("POST", f"{store.endpoint}/v1/buckets/{name}", body=b'{"action":"create-bck"}').status == 200
    return name


def address(store: StoreProcess) -> tuple[str, int]:
    parts = urlsplit(store.endpoint)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def connect(store: StoreProcess, *, source: str = "", receive_bytes: int = 0) -> socket.socket:
    """Return a connection, from ``source`` if that is given, with a receive buffer of about so many bytes."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source:
            connection.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            connection.bind((source, 0))
        connection.settimeout(DEADLINE_SECONDS)
        connection.connect(address(store))
    except BaseException:
        connection.close()
        raise
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that comes until the store ends the connection; raises TimeoutError when it does not."""
    answer = b""
    try:
        while data := connection.recv(65536):
            answer += data
    except ConnectionResetError:  # the store ended a connection on which more was being sent
        pass
    return answer


def exchange(store: StoreProcess, request: bytes, *, end: bool = False) -> bytes:
    """Send bytes as they are, then the ``end`` of the stream or not, and return all that comes back."""
    with connect(store) as connection:
        try:
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before it was sent
        return read_to_end(connection)


def read_head(connection: socket.socket) -> bytes:
    """Return what comes up to the end of a reply's headers and maybe more."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(65536)
        assert data, f"the connection ended: {answer!r}"
        answer += data
    return answer


def statuses(answer: bytes) -> list[int]:
    """Return the status of every reply in ``answer``, in order."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]

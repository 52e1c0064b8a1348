"""What a transform's server is asked for an object: the targets and heads of requests, by communication type."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from ...errors import TooLargeError
from ..running import Ask, Running

#: Of a request's target. Servers of the field read up to 16 KiB at the least; most arguments have tens of bytes.
_TARGET_BYTES_MAX = 16 << 10

#: Where the result may be put instead of being returned, and the id of the call it belongs to.
NODE_URL = "ais-node-url"
#: What the transform may seed its random numbers with: 64 hexadecimal digits.
SEED = "ais-etl-seed"


def uname(ask: Ask) -> str:
    """Return the object's unique name, as the wire spells it."""
    return f"ais/@#/{ask.bucket}/{ask.object}"


def object_path(ask: Ask) -> str:
    """Return what a transform that gets objects sent is told of one: ``<bucket>/<object>``."""
    return f"{ask.bucket}/{ask.object}"


def is_pulled(running: Running) -> bool:
    """Whether the transform comes for its objects itself, unless it can read them as files."""
    return running.communication in ("hpull://", "hrev://")


def put_url(running: Running, ask: Ask, call_id: str) -> str:
    """Return the address at which the transform may put the result of a call."""
    parts = urlsplit(running.target_url)
    return f"{parts.scheme}://{parts.netloc}/{quote(uname(ask), safe='')}?uuid={call_id}"


def request_head(running: Running, ask: Ask, *, length: int | None, file: str, node_url: str) -> bytes:
    """Return the head of the request for one object.

    ``length`` is that of a body with the object's bytes, None without a body; ``file`` is the path of a file that has
    them instead. Raises TooLargeError for arguments that no server would read.
    """
    pulled = is_pulled(running)
    path = quote(uname(ask), safe="") if pulled else "" if running.push_to_root else quote(object_path(ask))
    query = "&".join(
        f"{key}={quote(value, safe='')}" for key, value in (("etl_args", ask.args), ("etl_fqn", file)) if value
    )
    target = f"/{path}?{query}" if query else f"/{path}"
    if len(target) > _TARGET_BYTES_MAX:
        raise TooLargeError(f"etl_args of {len(ask.args)} characters are too large", hint="expected 8 KiB at most")
    lines = [f"{'GET' if pulled else 'PUT'} {target} HTTP/1.1", f"host: 127.0.0.1:{running.port}"]
    if node_url:
        lines.append(f"{NODE_URL}: {node_url}")
    if ask.seed:
        lines.append(f"{SEED}: {ask.seed}")
    if not pulled:
        lines += [f"content-length: {length or 0}", "content-type: application/octet-stream"]
    return "\r\n".join([*lines, "", ""]).encode("ascii")

"""Messages of the wire as typed values, with AIStore's spellings.

Structs only grow, with defaults, so that an old client and a new store understand each other.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from ..errors import AisError, BadRequestError, error_from_code

#: An entry's flag that says "the bytes are in the cluster".
ENTRY_CACHED = 64


class Action(msgspec.Struct, frozen=True):
    """The envelope of control requests."""

    action: str
    name: str = ""
    value: Any = None

    @property
    def verb(self) -> str:
        """The action with the spellings of 2020, 2021 and today folded into one: no dashes, no underscores."""
        return self.action.replace("-", "").replace("_", "").lower()


def lower_keys(value: object) -> dict[str, Any]:
    """Return a JSON object with its keys in lower case: the field's servers read keys in any case."""
    if not isinstance(value, dict):
        raise BadRequestError(f"expected a JSON object, got {type(value).__name__}")
    return {str(key).lower(): item for key, item in value.items()}


def decode_json(body: bytes) -> Any:
    """Return the JSON value in ``body``; raises BadRequestError that says where it stops being JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the request body is not JSON: {error}") from error


def decode_action(body: bytes, *, action_optional: bool = False) -> Action:
    """Read the envelope of a control request; the custom metadata call leaves the action empty."""
    fields = lower_keys(decode_json(body))
    action, name = fields.get("action") or "", fields.get("name") or ""
    if not isinstance(action, str) or not isinstance(name, str) or not (action or action_optional):
        raise BadRequestError('the request body has no "action"', hint='expected {"action": "…", "value": …}')
    return Action(action, name, fields.get("value"))


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=False):
    """The JSON body of every error reply."""

    tcode: str
    message: str
    method: str = ""
    url_path: str = ""
    remote_addr: str = ""
    caller: str = ""
    node: str = ""
    status: int = 500
    hint: str = ""
    request_id: str = ""

    def to_error(self) -> AisError:
        """Return the exception that this body tells of."""
        return error_from_code(self.tcode, self.message, hint=self.hint, status=self.status)


_TAGS = re.compile(r"(?s)<(style|script|title|head)\b.*?</\1>|<[^>]*>|<!--.*?-->")


def without_markup(text: str) -> str:
    """Return what a person reads of an HTML page, on one line."""
    return " ".join(_TAGS.sub(" ", text).split())


def decode_error(body: bytes, status: int) -> AisError:
    """Return the exception for an error reply, also when a proxy in between answered with something else."""
    try:
        return msgspec.json.decode(body, type=ErrorBody).to_error()
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = without_markup(body[:4000].decode(errors="replace"))[:300]
        return error_from_code("", f"HTTP {status}: {text or 'no error text'}", status=status)


def is_foreign(error: AisError) -> bool:
    """Return whether ``decode_error`` made the error of a reply that no store writes."""
    return error.message.startswith("HTTP ")


class ListEntryJson(msgspec.Struct, frozen=True, omit_defaults=True):
    """One name in a JSON listing; sizes are strings there."""

    name: str
    size: str = ""
    checksum: str = ""
    atime: str = ""
    version: str = ""
    flags: int = 0
    custom_md: str = msgspec.field(name="custom-md", default="")
    location: str = ""


class ListJson(msgspec.Struct, frozen=True):
    """A page of a JSON listing."""

    entries: list[ListEntryJson]
    uuid: str = ""
    continuation_token: str = ""
    flags: int = 0


class ListEntryMsgpack(msgspec.Struct, frozen=True, omit_defaults=True):
    """One name in a msgpack listing, by its short keys."""

    n: str
    s: int = 0
    cs: str = ""
    a: str = ""
    v: str = ""
    t: str = ""
    m: str = ""
    c: int = 0
    f: int = 0


class ListMsgpack(msgspec.Struct, frozen=True):
    """A page of a msgpack listing."""

    Entries: list[ListEntryMsgpack]
    UUID: str = ""
    ContinuationToken: str = ""
    Flags: int = 0


class DamagedObject(msgspec.Struct, frozen=True, omit_defaults=False):
    """An object whose stored bytes are not those that were stored; ``harmless`` if that is so of its trailer alone.

    ``file`` is empty for an object that lies in the index; ``problem`` goes on after "its file …".
    """

    bucket: str
    name: str
    version: int = 0
    file: str = ""
    problem: str = ""
    found_ns: int = 0
    harmless: bool = False


class ScrubReport(msgspec.Struct, frozen=True, omit_defaults=False):
    """How far the scrubber's pass is, or how the last one ended, and all damage that is known (``what=scrub``).

    Times are Unix seconds, 0 for never.
    """

    running: bool = False
    began: float = 0.0
    ended: float = 0.0
    objects: int = 0
    bytes: int = 0
    objects_total: int = 0
    bytes_total: int = 0
    index_errors: list[str] = []
    damaged: list[DamagedObject] = []


class EtlInitCode(msgspec.Struct, frozen=True, omit_defaults=True):
    """``POST /v1/etl/init_code`` of 2021; ``code`` and ``dependencies`` are base64.

    The fields after ``wait_timeout`` are ours: how objects are isolated from one another (``warm``, ``fork``),
    whether the sandbox is used (``on``, ``off``), limits, what tracebacks call the code (a base name), what of the
    network it reaches (``none``, ``full``), whether equal input gives equal bytes, variables by name, limits as
    Kubernetes spells them (``1Gi``, ``500m``), and whether results that come out equal again are kept.
    """

    code: str = ""
    dependencies: str = ""
    id: str = ""
    name: str = ""
    runtime: str = "python3"
    communication_type: str = "hpush://"
    wait_timeout: str = ""
    obj_timeout: str = ""
    isolation: str = "warm"
    sandbox: str = "on"
    workers: int = 0
    filename: str = ""
    network: str = "none"
    deterministic: bool = False
    env: dict[str, str] = {}
    memory: str = ""
    cpus: str | float = ""
    cache: bool = False


def encode_base64(text: str) -> str:
    """Spell text as the init message carries it."""
    return base64.b64encode(text.encode()).decode()


class EtlSummary(msgspec.Struct, frozen=True):
    """One line of ``GET /v1/etl`` (and ``/v1/etl/list``); what follows ``out_bytes`` is ours."""

    id: str
    stage: str
    xaction_id: str = ""
    obj_count: int = 0
    in_bytes: int = 0
    out_bytes: int = 0
    communication: str = ""
    runtime: str = ""
    sandbox: str = "on"
    isolation: str = "warm"
    message: str = ""
    errors: int = 0
    source: str = "code"


class MountpathState(msgspec.Struct, frozen=True):
    """One mountpath: ``state`` is "available", "unavailable" or "disabled"; sizes in bytes, None if unknown.

    ``size`` is of its ``objects``; ``avail`` and ``total`` are of its disk.
    """

    id: str
    path: str
    state: str
    reason: str = ""
    objects: int | None = None
    size: int | None = None
    avail: int | None = None
    total: int | None = None


class MountpathList(msgspec.Struct, frozen=True):
    """``GET /v1/daemon?what=mountpaths``; the last field is ours."""

    available: list[str] = []
    waiting_dd: list[str] = []
    disabled: list[str] = []
    mountpaths: list[MountpathState] = []


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the streamed reply to an ETL init: a stage under way, the name when ready, or the error.

    Streamed as JSON lines when the request says ``Accept: application/x-ndjson``. Stages: ``resolving``,
    ``installing``, ``importing``, ``ready``.
    """

    stage: str = ""
    message: str = ""
    name: str = ""
    error: ErrorBody | None = None

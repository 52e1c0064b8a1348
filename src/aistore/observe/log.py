"""The log: one event per line on standard error, as text or JSON, with the request it belongs to.

Text is ``TIME LEVEL PROCESS[PID] REQUEST LOGGER MESSAGE KEY=VALUE …``; a traceback follows on lines that are indented.
JSON is an object per line with the same fields. Whatever comes from a client is escaped, the token never shows.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from itertools import count

#: The request that is being served here, empty outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="")

#: The header that brings a request's id and takes it back.
REQUEST_ID = "x-request-id"
_REQUEST_ID_MAX = 128
_REQUEST_ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+=@")
_TEXT_MAX = 8192
#: Events of one kind per second that are written, where clients can cause as many as they like.
_FLOOD_PER_SECOND = 20


class RequestIds:
    """Ids for requests that bring none: unlike any other process's, and cheap."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)

    def new(self) -> str:
        """Return an id that was not there before."""
        return f"{self._prefix}-{next(self._numbers):x}"


def sane_request_id(given: str) -> str:
    """Return a client's own id if it may go into logs and headers as it is, else nothing."""
    return given if 0 < len(given) <= _REQUEST_ID_MAX and _REQUEST_ID_LETTERS.issuperset(given) else ""


def fields(**values: object) -> dict[str, object]:
    """Return what a logging call takes as ``extra=`` to have its event carry these fields."""
    return {"fields": values}


class Flood:
    """Lets so many events per second through and counts the others."""

    def __init__(self) -> None:
        self._second = 0
        self._seen = 0

    def lets(self) -> bool:
        """Say whether one more event may be written now. The last one that may says so, see ``note``."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._seen = second, 0
        self._seen += 1
        return self._seen <= _FLOOD_PER_SECOND

    @property
    def note(self) -> str:
        """What the last event that is let through has to add."""
        return " (no more of these in this second)" if self._seen == _FLOOD_PER_SECOND else ""


class _Formatter(logging.Formatter):
    def __init__(self, process: str, secrets: Iterable[str]) -> None:
        super().__init__()
        self._process = process
        self._secrets = [secret for secret in secrets if secret]

    def _parts(self, record: logging.LogRecord) -> dict[str, object]:
        whole, fraction = divmod(int(record.created * 1000), 1000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        parts: dict[str, object] = {
            "time": f"{moment}.{fraction:03d}Z", "level": record.levelname.lower(), "process": self._process,
            "pid": record.process, "request": self._clean(request_id.get()), "logger": record.name,
            "message": self._clean(record.getMessage()),
        }  # fmt: skip
        more: Mapping[str, object] = getattr(record, "fields", {})
        parts.update((key, self._clean(value) if isinstance(value, str) else value) for key, value in more.items())
        if record.exc_info:
            parts["traceback"] = self._clean(self.formatException(record.exc_info), max(_TEXT_MAX, 32768))
        return parts

    def _clean(self, text: str, length_max: int = _TEXT_MAX) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text if len(text) <= length_max else f"{text[:length_max]}… ({len(text)} characters)"


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({key: value for key, value in self._parts(record).items() if value != ""}, default=str)


class _Text(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        parts = self._parts(record)
        moment, level, process, pid, request, logger, message = (parts.pop(key) for key in list(parts)[:7])
        traceback = str(parts.pop("traceback", ""))
        line = f"{moment} {str(level).upper()} {process}[{pid}] {request or '-'} {logger}: {_printable(str(message))}"
        line += "".join(f" {key}={_spell(value)}" for key, value in parts.items())
        return line + "".join(f"\n    {_printable(part)}" for part in traceback.splitlines())


def _printable(text: str) -> str:
    """Return ``text`` with everything spelt out that could end a line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


def _spell(value: object) -> str:
    text = _printable(str(value))
    return text if text and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def configure_log(
    process: str, *, level: str, form: str, access: bool, token: str, cluster_secret: str = ""
) -> None:  # fmt: skip
    """Write this process's log to standard error: from ``level`` on, ``form`` text or json.

    The token and the cluster's secret never show.

    ``access`` says whether requests are logged, whatever the level.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((_Json if form == "json" else _Text)(process, (token, cluster_secret)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aistore.access").setLevel(logging.INFO if access else logging.CRITICAL)
    logging.raiseExceptions = False  # a log that cannot be written says nothing more, and ends no request

"""Failures of user code as text: tracebacks that start at the user's own code, messages of bounded size."""

import json
import linecache
import os
import traceback
from typing import Any, Callable, Dict

REPLY_BYTES_MAX = 32 << 10  # PROTOCOL.md; a message of this size fits any socket buffer
_OURS = os.path.dirname(__file__)
_TEXT_LENGTH_MAX = 12_000  # characters of one text before encoding; guessed: a traceback of some 150 lines


def shorten(text: str, length_max: int = _TEXT_LENGTH_MAX) -> str:
    """Return ``text`` with its middle cut out if it is longer than ``length_max`` characters."""
    if len(text) <= length_max:
        return text
    half = max(1, length_max // 2 - 20)
    return "{}\n... {} characters cut ...\n{}".format(text[:half], len(text) - 2 * half, text[-half:])


def summary(error: BaseException) -> str:
    """Return the last line of a traceback: the kind of error and what it says."""
    lines = traceback.format_exception_only(type(error), error)
    return lines[-1].strip() if lines else type(error).__name__


def user_traceback(error: BaseException, filename: str) -> str:
    """Return the traceback of ``error`` from the first frame of ``filename`` on; if it has none, without our own."""
    start = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename != filename:
        start = start.tb_next
    if start is None:
        start = error.__traceback__
        while start is not None and os.path.dirname(start.tb_frame.f_code.co_filename) == _OURS:
            start = start.tb_next
    return "".join(traceback.format_exception(type(error), error, start))


class ResultError(Exception):
    """``transform()`` returned what is no bytes; ``text`` is the message and where the function is."""

    def __init__(self, message: str, place: str) -> None:
        super().__init__(message)
        self.text = "{}\n{}".format(message, place) if place else message


def place_of(function: Callable[..., Any]) -> str:
    """Return file, line and source of a function as a traceback has them; empty for what is not written in Python."""
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    if code is None:
        return ""
    line = linecache.getline(code.co_filename, code.co_firstlineno).strip()
    return "".join(traceback.format_list([(code.co_filename, code.co_firstlineno, code.co_name, line)]))


def encode(message: Dict[str, Any]) -> bytes:
    """Return ``message`` as JSON of at most 32 KiB; its texts are cut in the middle as much as that takes."""
    length_max = _TEXT_LENGTH_MAX
    while True:
        short = {key: shorten(value, length_max) if isinstance(value, str) else value for key, value in message.items()}
        data = json.dumps(short).encode("ascii")
        if len(data) <= REPLY_BYTES_MAX or length_max < 64:
            return data
        length_max //= 2

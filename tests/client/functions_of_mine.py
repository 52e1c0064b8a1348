"""Functions and classes as people write them, to be made into transforms (test_client_functions.py)."""

from __future__ import annotations

import base64 as b64
import functools
import os.path
import re
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256 as digest

import another_of_mine

GREETING = b"hello "
TABLE = {"a": [1, 2], "b": ("x", None, 1.5)}
WORD = re.compile(rb"\w+")
CALLS = 0


def plain(data: bytes) -> bytes:
    return data[::-1]


def with_constants(data: bytes, etl_args: str) -> bytes:
    return GREETING + data + repr(TABLE).encode() + etl_args.encode()


def with_imports(data: bytes, path: str) -> bytes:
    counts = Counter(data)
    name = os.path.basename(path)
    text = xml.etree.ElementTree.Element(name).tag
    return b64.b64encode(f"{text} {counts.most_common(1)} {digest(data).hexdigest()[:4]}".encode())


def shout(data: bytes) -> bytes:
    return with_mark(data.upper())


def with_mark(data: bytes, mark: bytes = GREETING) -> bytes:
    return data + mark if len(data) < 100 else shout(data[:50])


def with_functions(data: bytes) -> bytes:
    def inner(part: bytes) -> bytes:
        GREETING = b"shadowed"
        return part + GREETING[:0]

    return inner(shout(data))


def with_a_comprehension_of_the_same_name(data: bytes) -> bytes:
    return bytes([GREETING ^ 1 for GREETING in data]) + GREETING


def that_counts(data: bytes) -> bytes:
    global CALLS
    CALLS += 1
    return str(CALLS).encode()


@dataclass
class Options:
    times: int = 2

    def apply(self, data: bytes) -> bytes:
        return data * self.times


class Model:
    def __init__(self) -> None:
        self.options = Options()
        self.made = GREETING

    def transform(self, data: bytes) -> bytes:
        return self.made + self.options.apply(data)


class Larger(Model):
    def transform(self, data: bytes) -> bytes:
        return super().transform(data) + b"!"


def with_a_pattern(data: bytes) -> bytes:
    return b",".join(WORD.findall(data))


def with_my_module(data: bytes) -> bytes:
    return another_of_mine.twice(data)


def maker(times: int) -> Callable[[bytes], bytes]:
    def made(data: bytes) -> bytes:
        return data * times

    return made


def maker_with_state() -> Callable[[bytes], bytes]:
    seen = Counter({"x": 1})

    def stateful(data: bytes) -> bytes:
        return data + str(seen["x"]).encode()

    return stateful


def wrapping(function: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    @functools.wraps(function)
    def wrapper(data: bytes) -> bytes:
        return b"<" + function(data) + b">"

    return wrapper


@wrapping
def wrapped(data: bytes) -> bytes:
    return data


nameless = lambda data: data + b"?"  # noqa: E731

"""Images: what the name of a container image stands for on a store that runs transforms as processes.

``aistorage/runtime_python:3.X`` is a Python of that version with NVIDIA's SDK. The public transformers whose work
is a function (``transformers/``) have an equivalent here, which the store's own workers run. Any other image needs a
container engine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import BadRequestError

#: A reference as container engines read it: host, path, tag, digest.
_REFERENCE = re.compile(
    r"(?P<host>(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+|localhost)/)?"
    r"(?P<path>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?P<digest>@[a-z0-9]+:[0-9a-fA-F]{32,128})?"
)
_LENGTH_MAX = 512
_HUB = ("", "docker.io/", "index.docker.io/", "registry-1.docker.io/")
_OWNERS = ("aistorage", "aistore")
_PYTHON_TAG = re.compile(r"3\.[0-9]{1,2}")

#: What the public transformers start themselves with: a command that does so changes nothing of what they make.
_OWN_SERVERS = re.compile(r"(uvicorn|gunicorn|fastapi|flask|python3?|server\.py)")

#: The equivalents by the name behind ``transformer_``: what they depend on, as a requirements file.
BUILT_IN = {
    "echo": "",
    "md5": "",
    "hello_world": "",
    "hash_with_args": "xxhash",
    "compress": "",
    "torchvision": "torch\ntorchvision\npillow",
}


@dataclass(frozen=True, slots=True)
class Image:
    """``python`` is set for the image of classes (``python3.12``), ``transformer`` for one with an equivalent."""

    reference: str
    python: str = ""
    transformer: str = ""

    @property
    def dependencies(self) -> str:
        """What the equivalent needs, as a requirements file."""
        return BUILT_IN[self.transformer]

    def code(self) -> str:
        """Return the program of the equivalent."""
        directory = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "transformers")
        with open(os.path.join(directory, f"{self.transformer}.py"), encoding="utf-8") as file:
            return file.read()


def parse_image(reference: str, command: Sequence[str] = ()) -> Image:
    """Return what ``reference`` with a ``command`` instead of its own stands for; raises BadRequestError.

    A digest or a foreign command asks for exactly that image, so neither has an equivalent.
    """
    match = _REFERENCE.fullmatch(reference) if len(reference) <= _LENGTH_MAX else None
    if match is None:
        raise BadRequestError(
            f"{reference[:200]!r} is not the name of an image", hint="expected for example ghcr.io/me/resize:1.0"
        )
    owner, _, name = match["path"].partition("/")
    if match["host"] not in (None, *_HUB) or owner not in _OWNERS or match["digest"]:
        return Image(reference)
    if name == "runtime_python":
        return Image(reference, python=_python_of(reference, match["tag"] or "latest"))
    transformer = name.removeprefix("transformer_")
    if name.startswith("transformer_") and transformer in BUILT_IN and _starts_itself(command):
        return Image(reference, transformer=transformer)
    return Image(reference)


def _starts_itself(command: Sequence[str]) -> bool:
    return not command or _OWN_SERVERS.fullmatch(os.path.basename(command[0])) is not None


def _python_of(reference: str, tag: str) -> str:
    if tag == "latest":
        return "python3"
    if not _PYTHON_TAG.fullmatch(tag):
        raise BadRequestError(
            f"image {reference[:200]!r}: {tag!r} is no version of Python",
            hint="expected for example aistorage/runtime_python:3.12, the version that pickled the class",
        )
    return f"python{tag}"

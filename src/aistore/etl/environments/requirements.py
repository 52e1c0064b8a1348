"""Requirements: the dependency list of a transform, as the text of a pip requirements file.

The text comes from another machine and is installed on this one. So what it may say is decided here, line by line,
and what reaches pip is written anew from what was understood:

=====================================================  =====================================================
requirements with versions, extras, markers, hashes    honoured
``https://…``, ``git+https://…``, ``name @ URL``        honoured (``http`` too)
``--index-url``, ``--extra-index-url``, ``--no-index``  honoured
``--find-links URL``, ``--trusted-host``                honoured
``--pre``, ``--prefer-binary``, ``--only-binary``,      honoured
``--no-binary``, ``--require-hashes``
``-r``, ``-c``, ``-e``, paths, ``file://``              refused: they name files of the machine that installs
``${NAME}``                                             refused: pip would fill in variables of this machine
everything else                                         refused: it would be silently ignored, or runs as the store
=====================================================  =====================================================
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement

from ...errors import BadRequestError

TEXT_LENGTH_MAX = 1 << 20  # guessed: a pinned list of a thousand packages with their hashes is 200 KB

_OPTIONS_WITH_URL = {"-i": "--index-url", "--index-url": "--index-url", "--extra-index-url": "--extra-index-url",
                     "-f": "--find-links", "--find-links": "--find-links"}  # fmt: skip
_OPTIONS_WITH_VALUE = {"--trusted-host", "--only-binary", "--no-binary"}
_OPTIONS_ALONE = {"--pre", "--no-index", "--prefer-binary", "--require-hashes"}
_OPTIONS_LOCAL = {"-r", "--requirement", "-c", "--constraint", "-e", "--editable"}

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
_COMMENT = re.compile(r"(^|\s+)#.*$")
_HASH = re.compile(r"\s--hash(?:=|\s+)(\S+)")
_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"]+@")
_CREDENTIALS_PARTS = re.compile(r"://([^/\s'\"]+)@([^/\s?#'\"]+)")
_OPTION = re.compile(r"\s(-[^\s=]+)")
_SCHEMES = ("https://", "http://", "git+https://", "git+http://")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to install. ``requirement`` is None for a bare URL, whose name only its contents tell."""

    line: int
    text: str
    requirement: Requirement | None
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Requirements:
    """A dependency list that was understood. ``options`` are pip's, in their long spelling, one a line."""

    entries: tuple[Entry, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the requirements file that says the same, for pip."""
        entries = (" ".join([entry.text, *(f"--hash={value}" for value in entry.hashes)]) for entry in self.entries)
        return "".join(f"{line}\n" for line in (*self.options, *entries))

    def line_of(self, line: int) -> int | None:
        """Return the line in the user's list of line ``line`` of ``text``, if a requirement stands there."""
        index = line - 1 - len(self.options)
        return self.entries[index].line if 0 <= index < len(self.entries) else None

    def credentials(self) -> dict[str, str]:
        """Return the ``user:password`` of each host that a requirement's URL has one for; locks leave them out."""
        found = (_CREDENTIALS_PARTS.search(entry.text) for entry in self.entries)
        return {match[2]: match[1] for match in found if match}


def parse_requirements(text: str) -> Requirements:
    """Return what the requirements file ``text`` asks for; BadRequestError names the line that cannot be honoured."""
    if len(text) > TEXT_LENGTH_MAX:
        raise BadRequestError(f"dependency list of {len(text)} characters is too long", hint="expected at most 1 MiB")
    entries: list[Entry] = []
    options: list[str] = []
    for number, line in _logical_lines(text):
        if _VARIABLE.search(line):
            raise _refused(number, line, "variables are not filled in on the machine of the store", "write the value")
        if line.startswith("-"):
            options.extend(_parse_options(number, line))
        else:
            entries.append(_parse_entry(number, line))
    return Requirements(tuple(entries), tuple(options))


def mask_credentials(text: str) -> str:
    """Return ``text`` with the user and password of every URL in it replaced by ``****``."""
    return _CREDENTIALS.sub(r"\1****@", text)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of its first line, line) without comments and blank lines, continued lines joined."""
    held, first = "", 0
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        first = first if held else number
        line = _COMMENT.sub("", raw)
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        joined, held = (held + line).strip(), ""
        if joined:
            yield first, joined
    if held.strip():
        yield first, held.strip()


def _parse_options(number: int, line: str) -> Iterator[str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise _refused(number, line, f"cannot be read: {error}", "check its quotes") from error
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name[:2] in _OPTIONS_LOCAL and not name.startswith("--") and name not in _OPTIONS_LOCAL:
            name = name[:2]  # -rfile, -e.
        if name in _OPTIONS_LOCAL:
            raise _refused(
                number, line, f"{name} names a file, and the file is not on the machine of the store",
                "write the requirements themselves into the list",
            )  # fmt: skip
        if name in _OPTIONS_ALONE and not equals:
            yield name
            continue
        if name not in _OPTIONS_WITH_URL and name not in _OPTIONS_WITH_VALUE:
            known = sorted({*_OPTIONS_WITH_URL.values(), *_OPTIONS_WITH_VALUE, *_OPTIONS_ALONE})
            raise _refused(number, line, f"option {name} is not supported here", "supported are " + ", ".join(known))
        if not equals:
            value = words.pop(0) if words else ""
        if not value or value.startswith("-"):
            raise _refused(number, line, f"option {name} lacks its value", f"write {name} VALUE")
        if name in _OPTIONS_WITH_URL and not value.lower().startswith(("https://", "http://")):
            raise _refused(number, line, f"{name} must name an https:// or http:// URL", "paths are of another machine")
        yield f"{_OPTIONS_WITH_URL.get(name, name)} {shlex.quote(value)}"


def _parse_entry(number: int, line: str) -> Entry:
    hashes = tuple(_HASH.findall(line))
    text = _HASH.sub("", line).strip()
    option = _OPTION.search(text)
    if option:
        raise _refused(number, line, f"option {option[1]} is not supported after a requirement", "only --hash is")
    if _URL.match(text):
        _check_url(number, line, text)
        return Entry(number, text, None, hashes)
    if text.startswith((".", "/", "~", "file:")) or "\\" in text:
        raise _refused(number, line, "names a local path, which is not on the machine of the store", _PUBLISH)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise _refused(number, line, reason, "expected for example pillow>=10 or torch==2.13.0") from error
    if requirement.url is not None:
        _check_url(number, line, requirement.url)
    return Entry(number, text, requirement, hashes)


_PUBLISH = "use a package of the index or an https:// URL of a wheel"


def _check_url(number: int, line: str, url: str) -> None:
    if url.lower().startswith("file:"):
        raise _refused(number, line, "names a local file, which is not on the machine of the store", _PUBLISH)
    if not url.lower().startswith(_SCHEMES):
        raise _refused(number, line, "has a kind of URL that is not supported", "supported are " + ", ".join(_SCHEMES))


def _refused(number: int, line: str, reason: str, hint: str) -> BadRequestError:
    shown = mask_credentials(line if len(line) <= 200 else line[:200] + "…")
    return BadRequestError(f"dependencies, line {number}, {shown!r}: {reason}", hint=hint)

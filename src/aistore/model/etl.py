"""Transforms: the specification of one, its digest, and the stages of its life."""

from __future__ import annotations

import base64
import enum
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ..errors import BadRequestError, TooLargeError
from .names import check_etl_name

#: The communication types of the field.
COMMUNICATION_TYPES = ("hpush://", "hpull://", "ws://", "io://", "hrev://")

OUTPUT_BYTES_MAX = 512 << 20  # guessed: a transformed sample of half a GiB is a mistake, not a sample

#: Arguments of a request as JSON text. A worker reads 64 KiB of a request, the object's name among them.
ARGS_BYTES_MAX = 61_000


class Stage(str, enum.Enum):
    """Where an ETL is in its life; the values are the wire's strings."""

    UNKNOWN = "Unknown"
    INITIALIZING = "Initializing"
    RUNNING = "Running"
    ABORTED = "Aborted"


class Isolation(str, enum.Enum):
    """What separates two objects of one ETL: nothing but the harness (``warm``), or a process each (``fork``)."""

    WARM = "warm"
    FORK = "fork"


class Sandbox(str, enum.Enum):
    """Whether the transform runs inside the sandbox. ``off`` must be asked for, and every listing says so."""

    ON = "on"
    OFF = "off"


#: Fields of a specification that change nothing of what a transform makes.
_NO_PART_OF_RESULTS = (
    "name", "filename", "init_timeout_seconds", "object_timeout_seconds", "workers", "deterministic", "memory_bytes",
    "cpus", "init_message", "cache",
)  # fmt: skip

#: Guessed: room for a name of a run and the number of an epoch.
SEED_CHARACTERS_MAX = 256

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_LENGTH_MAX = 64

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}")
ENV_VALUE_BYTES_MAX = 100_000  # Linux: 128 KiB for a variable, its name included
ENV_BYTES_MAX = 1 << 20
COMMAND_BYTES_MAX = 100_000
MEMORY_BYTES_MIN = 16 << 20  # below it no interpreter starts
CPUS_MAX = 1024.0

#: Variables that the store gives a transform, which nobody else may.
_ENV_OURS = ("AIS_TARGET_URL",)
_PAYLOAD = "ETL_CLASS_PAYLOAD"  # reaches its process as a file


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``45s``, ``5m`` or ``1h30m`` (the wire's spelling of durations)."""
    parts = _DURATION.findall(text) if len(text) <= _DURATION_LENGTH_MAX else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadRequestError(f"{text[:80]!r} is not a duration", hint="expected for example 45s, 5m or 1h30m")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


class Network(str, enum.Enum):
    """What of the network a transform reaches: nothing (``none``), or what the node reaches (``full``)."""

    NONE = "none"
    FULL = "full"


class Source(str, enum.Enum):
    """What a transform is made from."""

    CODE = "code"
    CLASS = "class"
    COMMAND = "command"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class EtlSpec:
    """Everything that defines a transform.

    Made from code, ``code`` is a Python program: for ``io://`` a script from standard input to standard output, else a
    module with ``transform(data: bytes) -> bytes``. Made from a class, ``class_payload`` is the base64 of a cloudpickle
    of a subclass of the SDK's ``ETLServer``. Made from a command, ``command`` is the argument list of a program that
    serves HTTP at ``port``; if there is ``code`` too, it lies as the file ``filename`` in the working directory. Made
    from an image, ``image`` is what a container engine runs, with ``command`` instead of its own if that is given.

    ``dependencies`` is the text of a requirements file. Times are in seconds; ``workers`` 0 means as many as cores.
    ``filename`` is what tracebacks call the code, a base name. ``env`` is given to the transform's processes. With
    ``direct_file`` it gets the path of a file instead of bytes; with ``direct_put`` it may send its result on itself.
    ``deterministic`` is its author's word that equal input and arguments give equal bytes. With ``cache`` results that
    must come out equal again (seeded, or of a deterministic transform) are kept and given out again. ``memory_bytes`` 0
    and ``cpus`` 0 mean no limit of its own. With ``push_to_root`` objects are put to ``/``, as servers of 2021 expect.
    ``init_message`` is the JSON that it was made with, as it was sent.
    """

    name: str
    code: str = ""
    dependencies: str = ""
    runtime: str = "python3"
    communication: str = "hpush://"
    isolation: Isolation = Isolation.WARM
    sandbox: Sandbox = Sandbox.ON
    init_timeout_seconds: float = 900.0
    object_timeout_seconds: float = 60.0
    workers: int = 0
    filename: str = ""
    class_payload: str = ""
    command: tuple[str, ...] = ()
    image: str = ""
    port: int = 8000
    env: tuple[tuple[str, str], ...] = ()
    os_packages: tuple[str, ...] = ()
    network: Network = Network.NONE
    direct_file: bool = False
    direct_put: bool = False
    deterministic: bool = False
    memory_bytes: int = 0
    cpus: float = 0.0
    push_to_root: bool = False
    init_message: str = ""
    cache: bool = False

    @property
    def source(self) -> Source:
        """What it is made from."""
        if self.class_payload:
            return Source.CLASS
        if self.image:
            return Source.IMAGE
        return Source.COMMAND if self.command else Source.CODE

    @property
    def serves(self) -> bool:
        """Whether it is an HTTP server of its own; else the store's workers run its code."""
        return self.source is not Source.CODE

    def digest(self) -> str:
        """Return 16 hex digits that change with anything that can change a result, but not with the name."""
        content = asdict(self)
        for key in _NO_PART_OF_RESULTS:
            del content[key]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class TransformCall:
    """How an object goes through transforms: ``etl``, then each of ``then``, all with the same ``args``.

    ``seconds`` replaces the time that each transform was made with for one object, unless it is 0. ``seed`` fixes what
    they draw at random; None leaves every call different. ``fresh`` has all of it computed, whatever results are kept.
    ``offline``: the result is for a bucket, so that a transform which can put its results itself may be asked to.
    """

    etl: str
    args: str = ""
    then: tuple[str, ...] = ()
    seconds: float = 0.0
    seed: str | None = None
    fresh: bool = False
    offline: bool = False

    @property
    def stages(self) -> tuple[str, ...]:
        """The transforms in their order."""
        return (self.etl, *self.then)


def check_env(env: tuple[tuple[str, str], ...], where: str = "env") -> tuple[tuple[str, str], ...]:
    """Return ``env`` if a process can have these variables; raises BadRequestError."""
    for name, value in env:
        if not _ENV_NAME.fullmatch(name):
            raise BadRequestError(
                f"{where}: {name[:80]!r} is not the name of a variable",
                hint="expected letters, digits, '_', '-' or '.', not starting with a digit",
            )
        if name in _ENV_OURS:
            raise BadRequestError(f"{where}: {name} is given by the store", hint="leave it out")
        if "\0" in value:
            raise BadRequestError(f"{where}: the value of {name} has a zero byte in it")
        if len(value.encode(errors="surrogatepass")) > ENV_VALUE_BYTES_MAX and name != _PAYLOAD:
            raise BadRequestError(
                f"{where}: the value of {name} is too long", hint=f"expected at most {ENV_VALUE_BYTES_MAX} bytes"
            )
    return env


def check_seed(seed: str) -> str:
    """Return a seed as it was given, which is any text; raises BadRequestError for none and for too much."""
    if not 0 < len(seed) <= SEED_CHARACTERS_MAX:
        raise BadRequestError(
            f"a seed of {len(seed)} characters",
            hint=f"expected 1 to {SEED_CHARACTERS_MAX}, for example seed=42; leave it out for random results",
        )
    return seed


def check_stages(names: Iterable[str]) -> tuple[str, ...]:
    """Return the transforms that an object is to go through, one after the other; raises BadRequestError.

    No name is empty, and none is there twice: whoever names a transform again after others has made a loop.
    """
    stages = tuple(names)
    for number, name in enumerate(stages, 1):
        if not name.strip():
            raise BadRequestError(
                f"invalid pipeline {','.join(stages)!r}: its stage {number} is empty",
                hint="expected names with commas between: resize,gray",
            )
        if name in stages[: number - 1]:
            raise BadRequestError(
                f"invalid pipeline {','.join(stages)!r}: {name} is in it twice, which is a loop",
                hint="make the transform again under another name if an object shall go through it twice",
            )
    return stages


def parse_stages(text: str) -> tuple[str, ...]:
    """Return the transforms that a text names: ``resize``, ``resize >> gray`` or ``resize,gray``; none if it is empty.

    Raises BadRequestError as ``check_stages``.
    """
    if not text.strip():
        return ()
    return check_stages(name.strip() for name in text.replace(">>", ",").split(","))


def check_args(args: str) -> str:
    """Return arguments of a request that a transform can be told; raises TooLargeError."""
    if len(args) > ARGS_BYTES_MAX // 12 and len(json.dumps(args)) > ARGS_BYTES_MAX:
        raise TooLargeError(
            f"etl_args of {len(args):,} characters are too large", hint=f"expected {ARGS_BYTES_MAX:,} bytes at most"
        )
    return args


def check_spec(spec: EtlSpec) -> EtlSpec:
    """Return ``spec`` if every field can be honoured, else raise BadRequestError.

    Checks what needs no interpreter: names, types, ranges, what goes together. Syntax is checked with the ETL's own
    interpreter.
    """
    check_etl_name(spec.name)
    if spec.communication not in COMMUNICATION_TYPES:
        raise BadRequestError(
            f"unknown communication type {spec.communication[:80]!r}",
            hint="expected one of: " + ", ".join(COMMUNICATION_TYPES),
        )
    _check_source(spec)
    _check_text("filename", spec.filename)
    if len(spec.filename) > 255 or "/" in spec.filename or not (spec.filename or "x").isprintable():
        raise BadRequestError(f"{spec.filename[:300]!r} is no name of a file", hint="expected for example code.py")
    _check_limits(spec)
    check_env(spec.env)
    if sum(len(name) + len(value) for name, value in spec.env) > ENV_BYTES_MAX:
        raise BadRequestError("env: the variables are too long", hint=f"expected at most {ENV_BYTES_MAX} bytes in all")
    return spec


def _check_source(spec: EtlSpec) -> None:
    """Raise BadRequestError unless what the transform is made from is whole, and can speak its communication type."""
    if spec.source is Source.CODE:
        if not spec.code.strip():
            raise BadRequestError("the code of the transform is empty", hint="pass a Python file with --from-file")
        return
    if spec.communication == "io://":
        raise BadRequestError(
            f"io:// is for code, not for a {spec.source.value}", hint="use hpush://, hpull://, hrev:// or ws://"
        )
    if spec.isolation is not Isolation.WARM:
        raise BadRequestError(
            f"isolation {spec.isolation.value} is for code, not for a {spec.source.value}",
            hint="a server decides itself what its objects share",
        )
    if spec.source is Source.CLASS:
        _check_payload(spec)
    if spec.code and not (spec.source is Source.COMMAND and spec.filename not in ("", ".", "..")):
        raise BadRequestError(
            "code beside a command needs a filename, which the command names", hint="for example code.py"
        )
    for index, word in enumerate(spec.command):
        _check_text(f"command[{index}]", word)
        if index == 0 and not word:
            raise BadRequestError("command[0] is empty", hint="expected the name of a program")
    if sum(map(len, spec.command)) > COMMAND_BYTES_MAX:
        raise BadRequestError("command is too long", hint=f"expected at most {COMMAND_BYTES_MAX} bytes")


def _check_payload(spec: EtlSpec) -> None:
    if spec.command or spec.code:
        raise BadRequestError("a class is served by the store's own runner", hint="leave command and code out")
    try:
        base64.b64decode(spec.class_payload, validate=True)
    except ValueError as error:
        raise BadRequestError(
            f"the class payload is not base64: {error}", hint="expected the base64 of a class that cloudpickle pickled"
        ) from error


def _check_limits(spec: EtlSpec) -> None:
    if not 0 <= spec.workers <= 1024:
        raise BadRequestError(f"workers={spec.workers} is out of range", hint="expected 0 (as many as cores) to 1024")
    if not 1 <= spec.port <= 65_535:
        raise BadRequestError(f"port={spec.port} is out of range", hint="expected 1 to 65535")
    if spec.memory_bytes and not MEMORY_BYTES_MIN <= spec.memory_bytes < 1 << 50:
        raise BadRequestError(
            f"a memory limit of {spec.memory_bytes} bytes is out of range",
            hint="expected 16Mi or more, for example 1Gi",
        )
    if not 0 <= spec.cpus <= CPUS_MAX:
        raise BadRequestError(f"cpus={spec.cpus:g} is out of range", hint=f"expected 0 (no limit) to {CPUS_MAX:g}")
    for label, seconds in (("init", spec.init_timeout_seconds), ("object", spec.object_timeout_seconds)):
        if not 0 < seconds <= 86_400:
            raise BadRequestError(
                f"{label} timeout of {seconds:g} s is out of range", hint="expected more than 0, up to 24h"
            )


def _check_text(what: str, text: str) -> None:
    if "\0" in text:
        raise BadRequestError(f"{what} has a zero byte in it")

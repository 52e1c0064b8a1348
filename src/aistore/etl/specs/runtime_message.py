"""The runtime message: what ``PUT /v1/etl`` carries as JSON, and ``ais etl init -f`` reads from YAML.

Its keys are AIStore's (``name``, ``communication``, ``init_timeout``, ``obj_timeout``, ``support_direct_put``,
``argument``, ``runtime`` with ``image``, ``command`` and ``env``, ``resources``). These are ours, for what AIStore has
no word for: ``network``, ``sandbox``, ``isolation``, ``deterministic``, ``cache``, ``workers``, ``port``, and in
``runtime``: ``python``, ``dependencies``, ``code``, ``filename``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, TypeVar

from ...errors import BadRequestError
from ...model.etl import EtlSpec, Isolation, Network, Sandbox, check_env, check_spec, parse_duration
from ...model.quantities import parse_cpus, parse_memory
from .fields import Fields, named, shown
from .images import Image, parse_image
from .packages import CLASS_DEPENDENCIES, check_os_packages, class_dependencies, split_os_packages

PAYLOAD, PACKAGES, OS_PACKAGES = "ETL_CLASS_PAYLOAD", "PACKAGES", "OS_PACKAGES"

_E = TypeVar("_E", bound=Enum)
_TRUE, _FALSE = ("1", "t", "true", "y", "yes", "on"), ("", "0", "f", "false", "n", "no", "off")


def spec_from_runtime(message: object) -> EtlSpec:
    """Return the checked specification in a runtime message; raises BadRequestError that names what is wrong in it."""
    fields = Fields(message, "")
    spec = read_options(fields, EtlSpec(name=fields.text("name")))
    runtime = fields.fields("runtime") or Fields({}, "runtime")
    made = _read_runtime(runtime, spec, fields)
    fields.ignore("spec")
    fields.finish()
    return check_spec(replace(made, init_message=kept_message(message, made)))


def read_options(fields: Fields, spec: EtlSpec) -> EtlSpec:
    """Return ``spec`` with what a message says beside ``runtime``."""
    argument = fields.text("argument")
    if argument not in ("", "fqn"):
        raise BadRequestError(
            f"{fields.where('argument')}: {shown(argument)} is unknown", hint="expected fqn, or nothing"
        )
    spec = replace(
        spec,
        communication=read_communication(fields.text("communication") or fields.text("communication_type")),
        init_timeout_seconds=_seconds(fields, "init_timeout", spec.init_timeout_seconds),
        object_timeout_seconds=_seconds(fields, "obj_timeout", spec.object_timeout_seconds),
        direct_put=fields.flag("support_direct_put"),
        direct_file=argument == "fqn",
        env=(("ARG_TYPE", argument),) if argument else (),
        network=_choice(fields, "network", Network, Network.NONE),
        sandbox=_choice(fields, "sandbox", Sandbox, Sandbox.ON),
        isolation=_choice(fields, "isolation", Isolation, Isolation.WARM),
        deterministic=fields.flag("deterministic"),
        cache=fields.flag("cache"),
        workers=fields.whole("workers", 0, 0, 1024),
        port=fields.whole("port", spec.port, 1, 65_535),
    )
    return read_resources(fields, spec)


def read_communication(text: str) -> str:
    """Return a communication type as the wire spells it; ``hpush`` is ``hpush://``, nothing is too."""
    if not text:
        return "hpush://"
    return text if "://" in text else f"{text}://"


def read_resources(fields: Fields, spec: EtlSpec) -> EtlSpec:
    """Return ``spec`` with the limits of Kubernetes' ``resources``; what it ``requests`` reserves nothing here."""
    resources = fields.fields("resources")
    if resources is None:
        return spec
    memory, cpus = _amounts(resources, "limits")
    _amounts(resources, "requests")
    resources.ignore("claims")
    resources.finish()
    return replace(spec, memory_bytes=memory, cpus=cpus)


def _amounts(resources: Fields, key: str) -> tuple[int, float]:
    amounts = resources.fields(key)
    if amounts is None:
        return 0, 0.0
    texts = {}
    for name in ("memory", "cpu", "ephemeral-storage"):
        value = amounts.take(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)  # as YAML reads `cpu: 2`
        texts[name] = str(value) if number else amounts.text(name)
    amounts.finish()
    try:
        memory = parse_memory(texts["memory"]) if texts["memory"] else 0
    except BadRequestError as error:
        raise named(amounts.where("memory"), error) from error
    try:
        return memory, parse_cpus(texts["cpu"]) if texts["cpu"] else 0.0
    except BadRequestError as error:
        raise named(amounts.where("cpu"), error) from error


def _read_runtime(runtime: Fields, spec: EtlSpec, message: Fields) -> EtlSpec:
    os_packages = check_os_packages(message.texts("os_packages"), "os_packages")
    spec = replace(
        spec,
        command=runtime.texts("command"),
        env=(*spec.env, *read_env(runtime)),
        runtime=runtime.text("python") or spec.runtime,
        dependencies="".join(f"{entry}\n" for entry in runtime.texts("dependencies")),
        code=runtime.text("code"),
        filename=runtime.text("filename"),
        os_packages=os_packages,
    )
    if runtime.take("file") is not None:
        raise BadRequestError(
            f"{runtime.where('file')} names a file of another machine",
            hint="`ais etl init -f` and Etl.init_spec send its contents, as code and filename",
        )
    image = runtime.text("image")
    runtime.finish()
    made = with_image(spec, image) if image else spec
    if not (made.code or made.class_payload or made.command or made.image):
        raise BadRequestError(
            f"{runtime.path} says nothing to run",
            hint="expected image, command, or code in it; see `ais etl init --help`",
        )
    return read_variables(made)


def read_env(container: Fields) -> tuple[tuple[str, str], ...]:
    """Return the variables of a list of ``name`` and ``value``."""
    found: dict[str, str] = {}
    for variable in container.each("env"):
        name = variable.text("name")
        variable.refuse("give its value", "valueFrom")
        if name in found:
            raise BadRequestError(f"{variable.where('name')}: {shown(name)} is there twice")
        found[name] = variable.text("value")
        variable.finish()
    return check_env(tuple(found.items()), container.where("env"))


def with_image(spec: EtlSpec, reference: str) -> EtlSpec:
    """Return ``spec`` as the image wants it: a class, a program with the SDK, an equivalent, or the image itself."""
    image = parse_image(reference, spec.command)
    if spec.code:
        raise BadRequestError("runtime has both an image and code", hint="an image brings its own programs")
    if image.transformer:
        return replace(spec, code=image.code(), command=(), filename=f"{image.transformer}.py",
                       dependencies=image.dependencies + spec.dependencies)  # fmt: skip
    if image.python:
        return _with_python(spec, image)
    if spec.dependencies:
        raise BadRequestError("runtime has both an image and dependencies", hint="an image brings its own packages")
    return replace(spec, image=reference)


def _with_python(spec: EtlSpec, image: Image) -> EtlSpec:
    env = dict(spec.env)
    payload, packages = env.pop(PAYLOAD, ""), env.pop(PACKAGES, "")
    if bool(payload) == bool(spec.command):
        raise BadRequestError(
            f"image {image.reference!r} runs a class or a command, "
            + ("not both" if payload else "and there is neither"),
            hint=f"give the class in the variable {PAYLOAD}, as init_class of NVIDIA's SDK does, or give a command",
        )
    if payload and image.python == "python3":
        raise BadRequestError(
            f"image {image.reference!r} does not say which Python pickled the class",
            hint="expected for example aistorage/runtime_python:3.12",
        )
    dependencies = class_dependencies(packages) if packages else CLASS_DEPENDENCIES
    return replace(
        spec, class_payload=payload, runtime=image.python, dependencies=dependencies + spec.dependencies,
        env=tuple(env.items()),
    )  # fmt: skip


def read_variables(spec: EtlSpec) -> EtlSpec:
    """Return ``spec`` with what some of its variables say to the store; those are then no variables any more."""
    env = dict(spec.env)
    direct_file = spec.direct_file or _flag_of(env, "ETL_DIRECT_FQN")
    os_packages = (*spec.os_packages, *split_os_packages(env.pop(OS_PACKAGES, "")))
    workers = spec.workers
    if spec.class_payload and "NUM_WORKERS" in env:
        text = env.pop("NUM_WORKERS")
        if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:6]) <= 1024:
            raise BadRequestError(f"NUM_WORKERS={shown(text)} is no number of processes", hint="expected 1 to 1024")
        workers = int(text)
    return replace(
        spec, env=tuple(env.items()), direct_file=direct_file, workers=workers,
        os_packages=tuple(dict.fromkeys(os_packages)),
    )  # fmt: skip


def _flag_of(env: dict[str, str], name: str) -> bool:
    text = env.pop(name, "")
    if text.lower() not in (*_TRUE, *_FALSE):
        raise BadRequestError(f"{name}={text[:80]!r} is neither true nor false")
    return text.lower() in _TRUE


def _seconds(fields: Fields, key: str, default: float) -> float:
    text = fields.text(key)
    if not text:
        return default
    try:
        return parse_duration(text)
    except BadRequestError as error:
        raise named(fields.where(key), error) from error


def _choice(fields: Fields, key: str, kind: type[_E], default: _E) -> _E:
    value = fields.take(key)
    if value is None:
        return default
    if isinstance(value, bool):  # YAML's reading of `on` and `off`
        value = "on" if value else "off"
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in kind)
        raise BadRequestError(
            f"{fields.where(key)}: {shown(value)} is unknown", hint=f"expected one of: {choices}"
        ) from None


def kept_message(message: object, spec: EtlSpec) -> str:
    """Return a message as it is kept with ``spec``: without the payload, if that is in the specification."""
    kept = _with_payload(message, "") if spec.class_payload else message
    return json.dumps(kept, separators=(",", ":"))


def shown_message(spec: EtlSpec) -> dict[str, Any]:
    """Return the message that a specification was made with, as it was sent, or the one that says the same."""
    if spec.init_message:
        sent = json.loads(spec.init_message)
        if spec.class_payload:
            sent = _with_payload(sent, spec.class_payload)
        return {**sent, "name": spec.name, "communication": spec.communication}
    return {
        "name": spec.name,
        "communication": spec.communication,
        "init_timeout": f"{spec.init_timeout_seconds:g}s",
        "obj_timeout": f"{spec.object_timeout_seconds:g}s",
        "support_direct_put": spec.direct_put,
        "runtime": {
            "image": spec.image,
            "command": list(spec.command),
            "env": [{"name": name, "value": value} for name, value in spec.env],
        },
    }


def _with_payload(message: object, payload: str) -> Any:
    """Return the message with ``payload`` as the value of its variable of that name."""
    if isinstance(message, list):
        return [_with_payload(item, payload) for item in message]
    if not isinstance(message, Mapping):
        return message
    if any(key.lower() == "name" and value == PAYLOAD for key, value in message.items()):
        return {key: payload if key.lower() == "value" else value for key, value in message.items()}
    return {key: _with_payload(value, payload) for key, value in message.items()}

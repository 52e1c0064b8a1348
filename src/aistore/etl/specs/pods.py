"""Pod specifications of 2021: the YAML of a Kubernetes pod with one container, which is the transformer.

What a pod says of scheduling means nothing on a store's own node and is passed over; what would change what the
container sees (volumes, other containers, secrets) is refused by name.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace

from ...errors import BadRequestError, NotSupportedError
from ...model.etl import EtlSpec, check_spec, parse_duration
from ...model.yaml_documents import read_yaml
from .fields import Fields, named, shown
from .runtime_message import (
    kept_message,
    read_communication,
    read_env,
    read_options,
    read_resources,
    read_variables,
    with_image,
)

#: What a target of AIStore finds its transformer by.
_PORT_NAME, _HEALTH = "default", "/health"

_SCHEDULING = (
    "affinity", "nodeName", "nodeSelector", "tolerations", "priorityClassName", "priority", "schedulerName",
    "restartPolicy", "terminationGracePeriodSeconds", "topologySpreadConstraints", "imagePullSecrets", "hostname",
    "subdomain", "enableServiceLinks", "preemptionPolicy", "runtimeClassName", "automountServiceAccountToken",
    "dnsPolicy",
)  # fmt: skip
_OTHER_WORLDS = (
    "volumes", "initContainers", "ephemeralContainers", "serviceAccount", "serviceAccountName", "hostNetwork",
    "hostPID", "hostIPC", "hostAliases", "dnsConfig", "securityContext",
)  # fmt: skip
_POD_HINT = "the transform runs in the store's sandbox, with files of its own; make it from code or a class instead"


def is_pod(document: object) -> bool:
    """Return whether a YAML document is a pod and no runtime message."""
    return isinstance(document, dict) and ("kind" in document or "apiVersion" in document)


def spec_from_pod(text: str | bytes, message: object = None, *, of_2021: bool = False) -> EtlSpec:
    """Return the checked specification in the YAML of a pod. Blocks for a long text.

    ``message`` is what came around it (``name``, ``communication``, timeouts), whose values come first. Servers
    ``of_2021`` take objects at their root. Raises BadRequestError, and NotSupportedError for what a pod has and a
    process of the store has not.
    """
    documents = read_yaml(text, "the pod specification")
    if len(documents) != 1:
        raise BadRequestError(f"expected one pod in the specification, got {len(documents)} documents")
    around = Fields(message if message is not None else {}, "")
    around.ignore("spec")
    pod = Fields(documents[0], "")
    kind = pod.text("kind")
    if kind != "Pod":
        raise BadRequestError(f"kind: {shown(kind)} is no pod", hint="expected kind: Pod")
    pod.ignore("apiVersion", "status")
    metadata = pod.fields("metadata") or Fields({}, "metadata")
    metadata.ignore("name", "labels", "namespace", "creationTimestamp", "generateName")
    spec = read_options(around, EtlSpec(name=around.text("name") or metadata.text("name")))
    around.ignore("name")
    spec = _with_annotations(metadata.strings("annotations"), around, spec)
    made = _with_container(_container(pod), spec)
    metadata.finish()
    pod.finish()
    around.finish()
    encoded = base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()
    sent = {"name": made.name, "spec": encoded, **(message if isinstance(message, dict) else {})}
    return check_spec(replace(made, push_to_root=of_2021, init_message=kept_message(sent, made)))


def decode_pod(text: str) -> bytes:
    """Return the YAML in the base64 of a message's ``spec``; raises BadRequestError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"spec: expected the YAML of a pod in base64: {error}") from error


def _with_annotations(annotations: dict[str, str], around: Fields, spec: EtlSpec) -> EtlSpec:
    """Return ``spec`` with what the pod's annotations say, where the message around it says nothing."""
    communication, timeout = annotations.get("communication_type", ""), annotations.get("wait_timeout", "")
    if communication and not around.text("communication"):
        spec = replace(spec, communication=read_communication(communication))
    if timeout and not around.text("init_timeout"):
        try:
            spec = replace(spec, init_timeout_seconds=parse_duration(timeout))
        except BadRequestError as error:
            raise named("metadata.annotations.wait_timeout", error) from error
    direct_put = annotations.get("support_direct_put", "")
    if direct_put.lower() not in ("", "true", "false"):
        raise BadRequestError(
            f"metadata.annotations.support_direct_put: {shown(direct_put)} is unknown",
            hint='expected "true" or "false"',
        )
    if direct_put and around.take("support_direct_put") is None:
        spec = replace(spec, direct_put=direct_put.lower() == "true")
    return spec


def _container(pod: Fields) -> Fields:
    inner = pod.fields("spec")
    if inner is None:
        raise BadRequestError("spec is missing", hint="expected the specification of a pod with one container")
    inner.ignore(*_SCHEDULING)
    inner.refuse(_POD_HINT, *_OTHER_WORLDS)
    containers = inner.each("containers")
    if len(containers) != 1:
        raise BadRequestError(
            f"{inner.where('containers')} has {len(containers)} containers",
            hint="expected exactly one, the transformer",
        )
    inner.finish()
    return containers[0]


def _with_container(container: Fields, spec: EtlSpec) -> EtlSpec:
    container.ignore("name", "imagePullPolicy", "livenessProbe", "startupProbe", "terminationMessagePath",
                     "terminationMessagePolicy", "stdin", "tty")  # fmt: skip
    container.refuse(
        _POD_HINT, "volumeMounts", "volumeDevices", "envFrom", "lifecycle", "securityContext", "workingDir"
    )
    command, arguments = container.texts("command"), container.texts("args")
    if arguments and not command:
        raise NotSupportedError(
            f"{container.where('args')} without a command is not supported by this store",
            hint="write the whole command, with these arguments",
        )
    spec = read_resources(
        container,
        replace(
            spec,
            command=(*command, *arguments),
            env=(*spec.env, *read_env(container)),
            port=_port(container),
        ),
    )
    _check_probe(container, spec.port)
    image = container.text("image")
    if not image:
        raise BadRequestError(f"{container.where('image')} is missing", hint="expected the name of an image")
    container.finish()
    return read_variables(with_image(spec, image))


def _port(container: Fields) -> int:
    """Return the number of the container's port called ``default``."""
    found: dict[str, int] = {}
    for port in container.each("ports"):
        port.ignore("protocol", "hostIP")
        port.refuse(_POD_HINT, "hostPort")
        found[port.text("name")] = port.whole("containerPort", 0, 1, 65_535)
        port.finish()
    if not found.get(_PORT_NAME):
        raise BadRequestError(
            f"{container.where('ports')} has no port with the name {_PORT_NAME!r} and a containerPort",
            hint="that is where the store sends objects to",
        )
    return found[_PORT_NAME]


def _check_probe(container: Fields, port: int) -> None:
    """Raise BadRequestError unless the container says that it is ready at ``/health`` of its port."""
    probe = container.fields("readinessProbe")
    get = probe.fields("httpGet") if probe is not None else None
    if probe is None or get is None:
        raise BadRequestError(
            f"{container.where('readinessProbe')}.httpGet is missing",
            hint=f"expected path {_HEALTH} and port {_PORT_NAME}",
        )
    probe.ignore("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold")
    probe.finish()
    path, at = get.text("path"), get.take("port")
    get.ignore("scheme", "host", "httpHeaders")
    get.finish()
    if path != _HEALTH or at not in (_PORT_NAME, port):
        raise BadRequestError(
            f"{get.path} asks {shown(path)} at port {shown(at)}", hint=f"expected path {_HEALTH} and port {_PORT_NAME}"
        )

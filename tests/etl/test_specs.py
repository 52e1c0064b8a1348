"""Specifications as users send them: what each says, and that everything wrong in one is named."""

from __future__ import annotations

import base64
import contextlib
import json
import string
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aistore.errors import BadRequestError, NotSupportedError
from aistore.etl.specs.images import BUILT_IN, parse_image
from aistore.etl.specs.packages import CLASS_DEPENDENCIES, class_dependencies, split_packages
from aistore.etl.specs.pods import spec_from_pod
from aistore.etl.specs.runtime_message import shown_message, spec_from_runtime
from aistore.model.etl import EtlSpec, Isolation, Network, Sandbox, Source, check_spec, parse_duration
from aistore.model.quantities import parse_cpus, parse_memory
from aistore.model.yaml_documents import DEPTH_MAX, NODES_MAX, read_yaml

PAYLOAD = base64.b64encode(b"a pickle").decode()

#: As NVIDIA's SDK 2.0.0 sends it.
OF_SDK = {
    "name": "etl-of-sdk",
    "communication": "hpush://",
    "init_timeout": "5m",
    "obj_timeout": "45s",
    "support_direct_put": True,
    "runtime": {
        "image": "aistorage/runtime_python:3.12",
        "env": [
            {"name": "ETL_CLASS_PAYLOAD", "value": PAYLOAD},
            {"name": "PACKAGES", "value": "pillow>=10,<12,fastapi[all,standard]"},
            {"name": "OS_PACKAGES", "value": "ffmpeg, openssl"},
            {"name": "NUM_WORKERS", "value": "3"},
            {"name": "COLOUR", "value": "blue"},
            {"name": "ETL_DIRECT_FQN", "value": "true"},
        ],
    },
}

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: pod-of-2021
  annotations:
    communication_type: "hpull://"
    wait_timeout: 3m
spec:
  restartPolicy: Always
  containers:
    - name: server
      image: example.org/me/resize:1.0
      imagePullPolicy: Always
      ports: [{name: default, containerPort: 80}]
      command: ["/code/server.py", "--listen", "0.0.0.0"]
      env: [{name: SIDE, value: "128"}]
      readinessProbe: {httpGet: {path: /health, port: default}}
"""


def message(**changes: Any) -> dict[str, Any]:
    return {"name": "some-name", "runtime": {"command": ["python", "server.py"]}, **changes}


def runtime(**changes: Any) -> dict[str, Any]:
    return message(runtime={"command": ["python", "server.py"], **changes})


def test_a_class_as_the_sdk_sends_it() -> None:
    spec = spec_from_runtime(OF_SDK)
    assert (spec.source, spec.serves, spec.runtime) == (Source.CLASS, True, "python3.12")
    assert spec.class_payload == PAYLOAD
    assert spec.dependencies == CLASS_DEPENDENCIES + "pillow>=10,<12\nfastapi[all,standard]\n"
    assert spec.os_packages == ("ffmpeg", "openssl")
    assert (spec.env, spec.workers, spec.direct_file, spec.direct_put) == ((("COLOUR", "blue"),), 3, True, True)
    assert (spec.init_timeout_seconds, spec.object_timeout_seconds) == (300, 45)
    assert PAYLOAD not in spec.init_message, "the payload is kept twice"
    assert shown_message(spec) == OF_SDK


def test_keys_are_read_in_any_case_and_null_is_nothing() -> None:
    spec = spec_from_runtime({"NAME": "some-name", "Runtime": {"Image": "me/resize", "command": None, "env": None}})
    assert (spec.source, spec.image, spec.command, spec.env) == (Source.IMAGE, "me/resize", (), ())


def test_a_command() -> None:
    spec = spec_from_runtime(
        {
            "name": "some-name",
            "communication": "ws",
            "network": "full",
            "sandbox": False,
            "deterministic": True,
            "port": 9000,
            "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": 2}},
            "runtime": {"command": ["python", "server.py"], "code": "print()", "filename": "server.py",
                        "dependencies": ["flask", "pillow>=10"], "python": "python3.11"},
        }
    )  # fmt: skip
    assert (spec.source, spec.command, spec.communication) == (Source.COMMAND, ("python", "server.py"), "ws://")
    assert (spec.code, spec.filename) == ("print()", "server.py")
    assert (spec.dependencies, spec.runtime) == ("flask\npillow>=10\n", "python3.11")
    assert (spec.network, spec.sandbox, spec.deterministic, spec.port) == (Network.FULL, Sandbox.OFF, True, 9000)
    assert (spec.cpus, spec.memory_bytes) == (0.5, 1 << 30)


def test_code_in_a_message() -> None:
    spec = spec_from_runtime(message(communication="io://", isolation="fork", runtime={"code": "print()"}))
    assert (spec.source, spec.serves, spec.isolation) == (Source.CODE, False, Isolation.FORK)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
@pytest.mark.parametrize("reference", ["aistorage/transformer_{}:latest", "docker.io/aistorage/transformer_{}"])
def test_public_transformers_have_an_equivalent(name: str, reference: str) -> None:
    image = reference.format(name)
    spec = spec_from_runtime(message(communication="hpull://", runtime={"image": image}))
    assert spec.source is Source.CODE
    assert "def transform(data: bytes" in spec.code
    assert spec.dependencies == BUILT_IN[name]
    assert shown_message(spec)["runtime"] == {"image": image}


@pytest.mark.parametrize("command", [["uvicorn", "fastapi_server:fastapi_app"], ["/code/server.py"], ["python", "x"]])
def test_the_own_servers_of_a_public_transformer_change_nothing(command: list[str]) -> None:
    assert spec_from_runtime(message(runtime={"image": "aistorage/transformer_md5", "command": command})).code


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("aistorage/transformer_md5", ["sh", "-c", "true"]),
        ("aistorage/transformer_ffmpeg", []),
        ("example.org/aistorage/transformer_md5", []),
        ("aistorage/transformer_md5@sha256:" + "0" * 64, []),
        ("localhost:5000/a/b:c", []),
    ],
)
def test_any_other_image_needs_an_engine(image: str, command: list[str]) -> None:
    spec = spec_from_runtime(message(runtime={"image": image, "command": command}))
    assert (spec.source, spec.image, spec.command) == (Source.IMAGE, image, tuple(command))


def test_the_image_of_classes_runs_a_command_too() -> None:
    spec = spec_from_runtime(runtime(image="aistorage/runtime_python:latest", env=[{"name": "PACKAGES", "value": "a"}]))
    assert (spec.source, spec.image, spec.runtime) == (Source.COMMAND, "", "python3")
    assert spec.dependencies == CLASS_DEPENDENCIES + "a\n"


PAYLOAD_ENV = {"name": "ETL_CLASS_PAYLOAD", "value": PAYLOAD}

WRONG: list[tuple[Any, str]] = [
    (message(runtime={"comand": ["x"]}), "unknown key 'runtime.comand'\ndid you mean 'command'?"),
    ([], "the message: []"),
    ({}, "runtime says nothing to run"),
    (message(name="x"), "etl name 'x'"),
    (message(name=7), "name: 7 is not text"),
    (message(name=None), "etl name ''"),
    (message(nam="x"), "unknown key 'nam'\ndid you mean 'name'?"),
    (message(runtime=[]), "runtime: [] is not a mapping"),
    (message(communication="smtp"), "unknown communication type 'smtp://'"),
    (message(communication="io://"), "io:// is for code, not for a command"),
    (message(isolation="fork"), "isolation fork is for code"),
    (message(isolation="none"), "isolation: 'none' is unknown\nexpected one of: warm, fork"),
    (message(network="some"), "network: 'some'"),
    (message(network=["none"]), "network: ['none']"),
    (message(sandbox="maybe"), "sandbox: 'maybe'"),
    (message(deterministic="yes"), "deterministic: 'yes' is not true or false"),
    (message(support_direct_put=1), "support_direct_put: 1"),
    (message(init_timeout="5"), "init_timeout: '5' is not a duration"),
    (message(init_timeout=300), "init_timeout: 300 is not text\nput it in quotes"),
    (message(init_timeout="25h"), "init timeout of 90000 s"),
    (message(obj_timeout="0s"), "object timeout of 0 s"),
    (message(obj_timeout="-1s"), "obj_timeout: '-1s'"),
    (message(obj_timeout="1e999s"), "obj_timeout"),
    (message(argument="path"), "argument: 'path'"),
    (message(port=0), "port: 0 is not a whole number from 1 to 65535"),
    (message(port="8000"), "port: '8000'"),
    (message(port=True), "port: True"),
    (message(workers=-1), "workers: -1"),
    (message(os_packages="ffmpeg"), "os_packages: 'ffmpeg' is not a list"),
    (message(os_packages=["a b"]), "os_packages: 'a b'"),
    (message(resources=1), "resources: 1"),
    (message(resources={"limits": {"memory": "1Gx"}}), "resources.limits.memory: '1Gx' is not an amount of memory"),
    (message(resources={"limits": {"memory": "1Ki"}}), "memory limit of 1024 bytes"),
    (message(resources={"limits": {"memory": "-1Gi"}}), "resources.limits.memory: '-1Gi'"),
    (message(resources={"limits": {"cpu": "two"}}), "resources.limits.cpu: 'two'"),
    (message(resources={"limits": {"cpu": "4000"}}), "cpus=4000 is out of range"),
    (message(resources={"limits": {"gpu": "1"}}), "unknown key 'resources.limits.gpu'"),
    (message(resources={"requests": {"cpu": "x"}}), "resources.requests.cpu"),
    (runtime(comand=["x"]), "unknown key 'runtime.comand'\ndid you mean 'command'?"),
    (runtime(command="python server.py"), "runtime.command: 'python server.py' is not a list"),
    (runtime(command=["python", 8000]), "runtime.command[1]: 8000 is not text"),
    (runtime(command=[""]), "command[0] is empty"),
    (runtime(command=["a\0b"]), "runtime.command[0] has a zero byte"),
    (runtime(command=["x" * 200_000]), "command is too long"),
    (runtime(env={"A": "b"}), "runtime.env: {'A': 'b'} is not a list"),
    (runtime(env=["A=b"]), "runtime.env[0]: 'A=b' is not a mapping"),
    (runtime(env=[{"name": "A", "value": 1}]), "runtime.env[0].value: 1 is not text\nput it in quotes"),
    (runtime(env=[{"name": "A=B"}]), "runtime.env: 'A=B' is not the name of a variable"),
    (runtime(env=[{"name": "A", "val": "1"}]), "unknown key 'runtime.env[0].val'"),
    (runtime(env=[{"name": "A"}, {"name": "A"}]), "runtime.env[1].name: 'A' is there twice"),
    (runtime(env=[{"name": "A", "value": "x" * 200_000}]), "the value of A is too long"),
    (runtime(env=[{"name": "AIS_TARGET_URL", "value": "x"}]), "AIS_TARGET_URL is given by the store"),
    (runtime(env=[{"name": "OS_PACKAGES", "value": "x;y"}]), "OS_PACKAGES: 'x;y'"),
    (runtime(env=[{"name": "ETL_DIRECT_FQN", "value": "si"}]), "ETL_DIRECT_FQN='si'"),
    (runtime(image="Not An Image"), "'Not An Image' is not the name of an image"),
    (runtime(image="x" * 600), "is not the name of an image"),
    (runtime(image="a/b", code="x"), "runtime has both an image and code"),
    (runtime(image="a/b", dependencies=["x"]), "runtime has both an image and dependencies"),
    (runtime(image="aistorage/runtime_python:three"), "'three' is no version of Python"),
    (message(runtime={"image": "aistorage/runtime_python:3.12"}), "and there is neither"),
    (runtime(image="aistorage/runtime_python:3.12", env=[PAYLOAD_ENV]), "not both"),
    (message(runtime={"image": "aistorage/runtime_python", "env": [PAYLOAD_ENV]}), "does not say which Python"),
    (
        message(runtime={"image": "aistorage/runtime_python:3.12",
                         "env": [{"name": "ETL_CLASS_PAYLOAD", "value": "no base64!"}]}),
        "the class payload is not base64",
    ),
    (
        message(runtime={"image": "aistorage/runtime_python:3.12",
                         "env": [PAYLOAD_ENV, {"name": "PACKAGES", "value": "pillow,not a package"}]}),
        "PACKAGES: 'not a package'",
    ),
    (
        message(runtime={"image": "aistorage/runtime_python:3.12",
                         "env": [PAYLOAD_ENV, {"name": "PACKAGES", "value": "./mine"}]}),
        "PACKAGES: './mine'",
    ),
    (
        message(runtime={"image": "aistorage/runtime_python:3.12",
                         "env": [PAYLOAD_ENV, {"name": "NUM_WORKERS", "value": "many"}]}),
        "NUM_WORKERS='many'",
    ),
    (runtime(code="x"), "code beside a command needs a filename"),
    (runtime(code="x", filename="a/b"), "'a/b' is no name of a file"),
    (runtime(code="x", filename=".."), "code beside a command needs a filename"),
    (runtime(command=["x"] * 5000), "runtime.command has 5000 entries"),
    ({str(number): 1 for number in range(5000)}, "the message has 5000 entries"),
    (
        message(runtime={"image": "aistorage/runtime_python:3.12",
                         "env": [PAYLOAD_ENV, {"name": "PACKAGES", "value": "a[," * 9000}]}),
        "PACKAGES of 27000 characters is too long",
    ),
    (runtime(file="x.py"), "runtime.file names a file of another machine"),
    ({"name": "some-name", "NAME": "other-name"}, "NAME is there twice"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "named"), WRONG, ids=[named[:40] for _, named in WRONG])
def test_what_is_wrong_in_a_message_is_named(sent: Any, named: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        spec_from_runtime(sent)
    assert named in str(caught.value)
    assert caught.value.status == 400


def test_a_secret_of_kubernetes_is_refused() -> None:
    with pytest.raises(NotSupportedError, match=r"runtime\.env\[0\]\.valueFrom is not supported"):
        spec_from_runtime(runtime(env=[{"name": "A", "valueFrom": {"secretKeyRef": {}}}]))


def test_a_pod_of_2021() -> None:
    spec = spec_from_pod(POD, of_2021=True)
    assert (spec.name, spec.source, spec.image) == ("pod-of-2021", Source.IMAGE, "example.org/me/resize:1.0")
    assert spec.command == ("/code/server.py", "--listen", "0.0.0.0")
    assert (spec.communication, spec.port, spec.push_to_root) == ("hpull://", 80, True)
    assert (spec.init_timeout_seconds, spec.env) == (180, (("SIDE", "128"),))
    sent = shown_message(spec)
    assert base64.b64decode(sent["spec"]).decode() == POD


def test_what_is_around_a_pod_comes_first() -> None:
    around = {"name": "another-name", "communication": "hrev://", "init_timeout": "9s", "spec": "…"}
    spec = spec_from_pod(POD, around)
    assert (spec.name, spec.communication, spec.init_timeout_seconds) == ("another-name", "hrev://", 9)
    assert shown_message(spec) == around
    assert not spec.push_to_root


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("kind: Pod", "kind: Job", "kind: 'Job' is no pod"),
        ("name: pod-of-2021", "name: p", "etl name 'p'"),
        ("wait_timeout: 3m", "wait_timeout: soon", "metadata.annotations.wait_timeout: 'soon'"),
        ("wait_timeout: 3m", "wait_timeout: 3", "metadata.annotations.wait_timeout: 3 is not text"),
        ('"hpull://"', "carrier-pigeon", "unknown communication type"),
        ("name: default", "name: http", "has no port with the name 'default'"),
        ("containerPort: 80", "containerPort: 80000", "spec.containers[0].ports[0].containerPort: 80000"),
        ("path: /health", "path: /ready", "spec.containers[0].readinessProbe.httpGet asks '/ready'"),
        ("readinessProbe: {httpGet: {path: /health, port: default}}", "tty: true", "readinessProbe.httpGet is missing"),
        ('value: "128"', "value: 128", "spec.containers[0].env[0].value: 128 is not text"),
        ("image: example.org/me/resize:1.0", "", "spec.containers[0].image is missing"),
        ("restartPolicy: Always", "restartPolice: Always", "did you mean 'restartPolicy'?"),
        ("  containers:", "  containers: []\n  nodes:", "has 0 containers"),
        ("kind: Pod", "kind: Pod\nkind: Pod", "key 'kind' is twice"),
        ("kind: Pod", "kind: [", "cannot be read as YAML"),
        (POD, "", "expected one pod in the specification, got 0"),
        (POD, POD + "---" + POD, "got 2 documents"),
        (POD, "- a", "the message: ['a'] is not a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_pod_is_named(old: str, new: str, named: str) -> None:
    assert old in POD
    with pytest.raises(BadRequestError) as caught:
        spec_from_pod(POD.replace(old, new))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  restartPolicy: Always", "  volumes: [{name: data}]", "spec.volumes"),
        ("  restartPolicy: Always", "  hostNetwork: true", "spec.hostNetwork"),
        ("      tty: true", "      volumeMounts: [{name: data}]", "spec.containers[0].volumeMounts"),
        ('      command: ["/code/server.py", "--listen", "0.0.0.0"]', "      args: [x]", "spec.containers[0].args"),
    ],
)
def test_what_a_process_cannot_have_is_refused(old: str, new: str, named: str) -> None:
    pod = POD.replace("      imagePullPolicy: Always", "      tty: true")
    assert old in pod
    with pytest.raises(NotSupportedError) as caught:
        spec_from_pod(pod.replace(old, new))
    assert named in caught.value.message


def test_a_spec_of_code_needs_code() -> None:
    with pytest.raises(BadRequestError, match="code of the transform is empty"):
        check_spec(EtlSpec("some-name", code=" \n"))


@pytest.mark.parametrize(
    ("text", "number"),
    [("1Gi", 1 << 30), ("512Mi", 512 << 20), ("1.5Gi", 3 << 29), ("2G", 2 * 10**9), ("1048576", 1 << 20),
     ("1e9", 10**9), ("1k", 1000), ("0", 0), (".5Ki", 512), ("100000m", 100)],
)  # fmt: skip
def test_memory(text: str, number: int) -> None:
    assert parse_memory(text) == number


@pytest.mark.parametrize(
    "text", ["", "Gi", "1gi", "1 Gi", "+1", "-1", "1Gi1", "nan", "inf", "1e400", "0x10", "1" * 40, "١"]
)
def test_no_memory(text: str) -> None:
    with pytest.raises(BadRequestError, match="is not an amount of memory"):
        parse_memory(text)


@pytest.mark.parametrize(("text", "number"), [("2", 2), ("0.5", 0.5), ("500m", 0.5), ("1500m", 1.5)])
def test_cpus(text: str, number: float) -> None:
    assert parse_cpus(text) == number


@pytest.mark.parametrize("text", ["", "m", "1k", "1Gi", "-1", "two"])
def test_no_cpus(text: str) -> None:
    with pytest.raises(BadRequestError, match="is not a number of cores"):
        parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("1h30m", 5400), ("300ms", 0.3), ("1.5h", 5400), ("1us", 1e-6), ("1µs", 1e-6), ("2ns", 2e-9),
     ("1m.5s", 60.5)],
)  # fmt: skip
def test_durations_of_go(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


def test_packages_are_parted_where_requirements_end() -> None:
    assert split_packages(" a , b[x,y]>=1,<2 ,c==1, ,d ; python_version>'3.9'") == [
        "a", "b[x,y]>=1,<2", "c==1", "d ; python_version>'3.9'"
    ]  # fmt: skip
    assert class_dependencies("") == CLASS_DEPENDENCIES


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


def merge_bomb(levels: int) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [bomb(9), merge_bomb(9), "a: &a [*a]", "[" * (DEPTH_MAX + 1), "[" * 100_000, "- " * 10_000 + "x", "? " * 5_000,
     "x: [" + "1," * NODES_MAX + "]", "x" * (5 << 20), "!!python/object/apply:os.system [ls]", "\0", "a: *b",
     "- 2020-99-99", "%YAML 9.9\n---\na", "a: 1\na: 2", "\t- a: b", "{a: b, a: c}"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_yaml_that_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="the specification"):
        read_yaml(text)


def test_aliases_within_bounds_are_read() -> None:
    text = "base: &base {a: 1, b: [2]}\nmore: {<<: *base, a: 3}\nsame: *base\n---\n---\nnext: &base x\n"
    assert read_yaml(text) == [
        {"base": {"a": 1, "b": [2]}, "more": {"a": 3, "b": [2]}, "same": {"a": 1, "b": [2]}}, {"next": "x"}
    ]  # fmt: skip


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(string.printable),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(string.ascii_letters, min_size=1), plain, max_size=5))
def test_yaml_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    (read,) = read_yaml(yaml.safe_dump(value))
    assert read == value


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    with contextlib.suppress(BadRequestError):
        read_yaml(text)


KEYS = ("name", "runtime", "communication", "init_timeout", "obj_timeout", "support_direct_put", "resources",
        "argument", "network", "sandbox", "isolation", "deterministic", "workers", "port", "os_packages")  # fmt: skip
RUNTIME_KEYS = ("image", "command", "env", "python", "dependencies", "code", "filename", "file")


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), plain, max_size=6),
    st.dictionaries(st.sampled_from(RUNTIME_KEYS), plain | st.just(["x"]) | st.just("a/b"), max_size=5),
)
def test_any_message_is_a_specification_or_refused(sent: dict[str, Any], inner: dict[str, Any]) -> None:
    for candidate in (sent, {**message(), **sent}, {**message(), "runtime": inner}):
        with contextlib.suppress(BadRequestError, NotSupportedError):
            spec = spec_from_runtime(candidate)
            assert json.loads(json.dumps(shown_message(spec)))["name"] == spec.name
            assert check_spec(spec) is spec


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abc/:@.-_0123456789AZ ", max_size=60))
def test_any_image_is_a_reference_or_refused(text: str) -> None:
    with contextlib.suppress(BadRequestError):
        assert parse_image(text).reference == text


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="0123456789.eEKMGTPkmi+-", max_size=12))
def test_any_quantity_is_a_number_or_refused(text: str) -> None:
    for parse in (parse_memory, parse_cpus):
        with contextlib.suppress(BadRequestError):
            assert 0 <= parse(text) < float("inf")

"""`ais doctor`: what it says of this machine, and of machines with something wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aistore.client.endpoint import parse_endpoint
from aistore.doctor import disk, installation, network, transforms
from aistore.doctor.finding import Finding, Level
from aistore.testing import StoreProcess

CHECKS = """
python pyaistore server pytorch conflict shadows features sandbox runtimes installer index data disk
port temporary_files shared_memory open_files proxy store clock
""".replace("\n", " ").split()


def doctor(tmp_path: Path, *arguments: str, **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = subprocess.run(
        [sys.executable, "-m", "aistore", "doctor", "--json", *arguments], capture_output=True, text=True, cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **env},
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_a_machine_with_a_store(cli_store: StoreProcess, tmp_path: Path) -> None:
    code, found = doctor(tmp_path, "--data", cli_store.data, AIS_ENDPOINT=cli_store.endpoint)
    assert code == 0, [finding for finding in found.values() if finding["level"] == "fail"]
    names = [name.replace("_", " ") for name in CHECKS]
    assert [name for name in found if name not in ("file system", "shared memory")] == [
        name for name in names if name != "shared memory"
    ]
    assert found["store"]["found"].startswith(f"{cli_store.endpoint} answers without a token, version ")
    assert f"served at {cli_store.endpoint} by process {cli_store.pid}" in found["data"]["found"]
    assert "python3 (" in found["runtimes"]["found"]
    assert found["sandbox"]["found"].split()[0] in ("full", "landlock", "none:")


def test_for_people(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AIS_ENDPOINT": "http://127.0.0.1:9", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([sys.executable, "-m", "aistore", "doctor"], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    index = lines.index("fail  store: no store answers at http://127.0.0.1:9 (from AIS_ENDPOINT): connection refused")
    assert (
        lines[index + 1] == "      start a store with `ais serve`, or set AIS_ENDPOINT to the address of one that runs"
    )
    assert f"ok    data: {tmp_path}/.local/share/pyaistore (not there yet: `ais serve` makes it)" in lines


def test_what_is_taken_away(tmp_path: Path) -> None:
    code, found = doctor(tmp_path, AIS_WITHOUT="all")
    assert code == 0
    assert found["features"]["level"] == "warn"
    assert "landlock" in found["features"]["found"]
    assert found["sandbox"]["found"].startswith("none: ")
    assert "--sandbox off" in found["sandbox"]["advice"]
    code, found = doctor(tmp_path, AIS_WITHOUT="nonsense")
    assert code == 1
    assert found["features"]["found"] == "AIS_WITHOUT names what the store does not know: nonsense"
    assert found["data"]["found"] == f"could not be checked: {found['features']['found']}"
    assert found["data"]["advice"] == found["features"]["advice"]


def test_an_endpoint_that_is_none(tmp_path: Path) -> None:
    code, found = doctor(tmp_path, AIS_ENDPOINT="ftp://there")
    assert (code, found["store"]["level"]) == (1, "fail")


def test_an_index_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://someone:secret@127.0.0.1:{closed.getsockname()[1]}/simple"
        code, found = doctor(tmp_path, PIP_INDEX_URL=url, PIP_CONFIG_FILE=os.devnull)
    assert code == 0  # only a warning: a store without dependencies needs none
    assert found["index"]["level"] == "warn"
    assert "does not answer" in found["index"]["found"]
    assert "secret" not in json.dumps(found)
    _, found = doctor(tmp_path, PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    assert found["index"]["found"] == "pip is set up to use no index"


def test_a_store_that_wants_a_token(new_store: Callable[..., StoreProcess]) -> None:
    endpoint = parse_endpoint(new_store(env={"AIS_AUTHN_TOKEN": "secret"}).endpoint)
    (finding,) = network.check_store(endpoint)
    assert finding.level is Level.FAIL
    assert finding.found.endswith("answers: token required")
    assert "AIS_AUTHN_TOKEN" in finding.advice


@pytest.mark.parametrize(("status", "said"), [(200, "is not a store"), (404, "is not a store: HTTP 404: It works!")])
def test_another_server(other_server: Callable[[int, bytes], str], status: int, said: str) -> None:
    (finding,) = network.check_store(parse_endpoint(other_server(status, b"<h1>It works!</h1>")))
    assert finding.level is Level.FAIL
    assert said in finding.found


def test_a_clock_that_differs() -> None:
    (finding,) = network._check_date("Mon, 01 Jan 2024 00:00:00 GMT")
    assert finding.level is Level.WARN
    assert "the store's clock is -" in finding.found
    assert network._check_date("no date") == []


def test_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = parse_endpoint("http://127.0.0.1:8080")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert network.check_proxy(os.environ, endpoint).found == "none is set"
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    finding = network.check_proxy(os.environ, endpoint)
    assert (finding.level, finding.advice) == (
        Level.WARN,
        "for curl, requests and other SDKs: export no_proxy=127.0.0.1",
    )
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert network.check_proxy(os.environ, endpoint).level is Level.OK


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        finding = network.check_port(port)
    assert finding.level is Level.WARN
    assert finding.found.startswith(f"{port} is in use by ")
    assert network.check_port(port).level is Level.OK


def test_data_directories(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    (tmp_path / "file").touch()

    def first(path: str) -> Finding:
        return disk.check_data(path)[0]

    assert first(str(tmp_path / "photos")).found == f"{tmp_path}/photos has other files in it (1.jpg)"
    assert first(str(tmp_path / "file")).found == f"{tmp_path}/file is not a directory"
    assert first(str(tmp_path / "file" / "below")).found == f"{tmp_path}/file is not a directory"
    assert first("/proc/data").level is Level.FAIL or os.geteuid() == 0
    assert first(str(tmp_path / "new")).level is Level.OK
    assert disk.file_system_of("/proc") in ("proc", "")


def test_a_long_name_for_temporary_files(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    code, found = doctor(tmp_path, TMPDIR=str(long))
    assert (code, found["temporary files"]["level"]) == (1, "fail")


def test_modules_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aistore.py").touch()
    finding = installation.check_shadows([str(tmp_path)])
    assert (finding.level, finding.found) == (Level.WARN, f"also called aistore: {tmp_path}/aistore.py")
    monkeypatch.chdir(os.path.dirname(installation.PACKAGE))
    assert installation.check_shadows([]).level is Level.OK


def test_pythons() -> None:
    assert installation.check_python((3, 9, 1)).level is Level.FAIL
    assert installation.check_python().level is Level.OK


def test_the_sandbox_is_the_one_that_transforms_get(cli_store: StoreProcess) -> None:
    """What it says is what `ais etl show` says of a transform."""
    from aistore import Client
    from aistore.etl.probe import probe_sandbox

    with Client(cli_store.endpoint) as client:
        etl = client.etl("for-the-doctor")
        etl.init_code("def transform(data):\n    return data\n")
        details = etl.details()
        etl.delete()
    found = probe_sandbox()
    kinds = [layer.split()[0] for layer in details.sandbox_layers]
    assert [layer.split()[0] for layer in found.layers] == kinds
    assert list(found.missing) == details.sandbox_missing
    assert transforms.check_sandbox().level is (Level.WARN if found.missing or found.error else Level.OK)

import json
import os
import sys

import pytest

from aistore.errors import BadRequestError, EtlInitError
from aistore.etl.environments import runtimes
from aistore.etl.environments.runtimes import find_runtimes, resolve_runtime

SERVING = f"python3.{sys.version_info[1]}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose PATH, home and version managers are below ``tmp_path``."""
    for name, directory in (
        ("HOME", "home"),
        ("PYENV_ROOT", "pyenv"),
        ("UV_PYTHON_INSTALL_DIR", "uv"),
        ("PATH", "bin"),
    ):
        (tmp_path / directory).mkdir()
        monkeypatch.setenv(name, str(tmp_path / directory))
    return tmp_path


def interpreter(path, version, **changes):
    """A program that answers the probe as the interpreter of ``version`` at ``path`` would."""
    answer = {
        "executable": str(path), "version": version, "implementation": "CPython", "platform": "linux-x86_64",
        "prefix": str(path.parent.parent), "base_prefix": str(path.parent.parent), "venv": True, **changes,
    }  # fmt: skip
    return program(path, f"cat <<'END'\n{json.dumps(answer)}\nEND\n")


def program(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}")
    path.chmod(0o755)
    return path


def test_python3_is_the_serving_interpreter():
    runtime = find_runtimes()["python3"]
    assert (runtime.python, runtime.name, runtime.serving) == (sys.executable, SERVING, True)
    assert runtime.version == ".".join(map(str, sys.version_info[:3]))
    assert resolve_runtime("python3") == resolve_runtime("") == resolve_runtime(SERVING) == runtime


def test_every_runtime_is_what_it_says():
    for name, runtime in find_runtimes().items():
        assert name in ("python3", runtime.name)
        assert runtime.version_info >= runtimes.VERSION_MIN
        assert os.access(runtime.python, os.X_OK)


def test_version_managers_are_looked_into(machine):
    pyenv = interpreter(machine / "pyenv/versions/3.71.2/bin/python3.71", [3, 71, 2])
    uv = interpreter(machine / "uv/cpython-3.72.0-linux/bin/python3.72", [3, 72, 0])
    found = find_runtimes()
    assert found["python3.71"].python == str(pyenv)
    assert found["python3.72"].python == str(uv)
    assert next(iter(found)) == "python3"
    assert list(found)[-2:] == ["python3.71", "python3.72"]


def test_a_shim_is_known_by_what_it_starts(machine):
    real = interpreter(machine / "elsewhere/bin/python", [3, 73, 1])
    program(machine / "bin/python3.73", f"exec {real}\n")
    assert find_runtimes()["python3.73"].python == str(real)


@pytest.mark.parametrize(
    "script",
    ["echo 'pyenv: python3.74: command not found' >&2; exit 127\n", "echo nonsense\n", "echo '{}'\n", "echo []\n"],
)
def test_a_program_that_is_no_interpreter_is_passed_over(machine, script):
    program(machine / "bin/python3.74", script)
    assert "python3.74" not in find_runtimes()


def test_an_interpreter_that_hangs_is_passed_over(machine, monkeypatch):
    monkeypatch.setattr(runtimes, "PROBE_TIMEOUT_SECONDS", 0.2)
    program(machine / "bin/python3.74", "exec sleep 600\n")
    assert runtimes._probe(str(machine / "bin/python3.74")) is None


def test_an_interpreter_is_run_again_only_when_it_changed(machine):
    path = interpreter(machine / "bin/python3.75", [3, 75, 0])
    assert find_runtimes()["python3.75"].version == "3.75.0"
    stamp = path.stat().st_mtime_ns
    interpreter(path, [3, 75, 1])
    os.utime(path, ns=(stamp, stamp))
    assert find_runtimes()["python3.75"].version == "3.75.0"
    os.utime(path, ns=(stamp, stamp + 1))
    assert find_runtimes()["python3.75"].version == "3.75.1"


def test_of_one_version_the_latest_patch_level_is_taken(machine):
    for patch in (4, 11, 2):
        interpreter(machine / f"pyenv/versions/3.76.{patch}/bin/python3.76", [3, 76, patch])
    assert find_runtimes()["python3.76"].version == "3.76.11"


def test_of_one_version_one_that_others_can_execute_is_taken(machine):
    machine.chmod(0o755)
    shared = interpreter(machine / "uv/shared/bin/python3.76", [3, 76, 1])
    interpreter(machine / "pyenv/versions/3.76.9/bin/python3.76", [3, 76, 9])
    (machine / "pyenv").chmod(0o700)
    others = [os.stat(parent).st_mode & 0o001 for parent in machine.parents]
    found = find_runtimes()["python3.76"]
    if all(others):
        assert (found.python, found.reachable) == (str(shared), True)
    else:  # the temporary directory itself is private: nothing below it is reachable, and the patch level decides
        assert (found.version, found.reachable) == ("3.76.9", False)


def test_virtual_environments_and_old_versions_are_no_runtimes(machine):
    interpreter(machine / "venv/bin/python3.77", [3, 77, 0])
    (machine / "venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    os.environ["PATH"] += f"{os.pathsep}{machine / 'venv/bin'}"  # put back by monkeypatch
    interpreter(machine / "bin/python3.7", [3, 7, 16])
    found = find_runtimes()
    assert "python3.77" not in found
    assert "python3.7" not in found


def test_a_missing_runtime_says_how_to_install_it():
    with pytest.raises(EtlInitError) as caught:
        resolve_runtime("python3.99")
    for word in ("python3.99", "apt install python3.99-venv", "pyenv install 3.99", "uv python install 3.99", SERVING):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["python2", "python2.7", "python3.6", "python3.7"])
def test_an_old_runtime_is_refused(name):
    with pytest.raises(EtlInitError, match=r"too old: transforms need Python 3\.8"):
        resolve_runtime(name)


@pytest.mark.parametrize(
    "name", ["ruby", "python", "python3.11.7", "python3.", "../python3", "python3.11\n", "Python3"]
)
def test_nonsense_is_a_bad_request(name):
    with pytest.raises(BadRequestError, match="unknown runtime"):
        resolve_runtime(name)

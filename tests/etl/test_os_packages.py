"""Packages of the system: what a class finds of this machine, and what it is told that it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from aistore.errors import EtlInitError, NotSupportedError
from aistore.etl.confinement import SYSTEM_PATH
from aistore.etl.specs.os_packages import check_installed, programs_for
from aistore.etl.specs.server_program import server_program
from aistore.model.etl import EtlSpec

#: A program of a package of its own name that a machine may have, and no machine needs.
EXTRA = next((name for name in ("openssl", "git", "perl") if shutil.which(name, path=SYSTEM_PATH)), "")


def test_basic_tools_are_found_and_nothing_else() -> None:
    found = programs_for(())
    assert {"sh", "cat", "grep", "tar"} <= set(found)
    assert not {"openssl", "git", "perl", "curl", "python3", "gcc"} & set(found)
    assert all(os.access(path, os.X_OK) for path in found.values())


@pytest.mark.skipif(not EXTRA, reason="this machine has no program more than it needs")
def test_the_programs_of_a_listed_package_are_found() -> None:
    assert EXTRA in programs_for([EXTRA])
    assert EXTRA not in programs_for(())


@pytest.mark.skipif(shutil.which("dpkg", path=SYSTEM_PATH) is None, reason="this machine has no dpkg")
def test_a_package_is_asked_for_by_its_own_name() -> None:
    found = programs_for(["coreutils"])
    listed = subprocess.run(["dpkg", "-L", "coreutils"], capture_output=True, text=True).stdout.splitlines()
    assert found["nproc"] in listed or f"/usr{found['nproc']}" in listed
    check_installed(["libc6"])  # a library has no programs


def test_a_package_that_is_not_there_is_named() -> None:
    for ask in (programs_for, check_installed):
        with pytest.raises(EtlInitError, match="'no-such-package-at-all' is not installed on this machine") as caught:
            ask(["no-such-package-at-all"])
        assert "install it on every node" in caught.value.hint


def test_what_a_class_is_started_with(tmp_path: Path) -> None:
    spec = EtlSpec("some-class", class_payload="YWJj", workers=3, direct_file=True, env=(("COLOUR", "blue"),))
    program = server_program(spec, "/env/bin/python", str(tmp_path), "8000")
    assert program.argv[0] == "/env/bin/python"
    assert program.argv[-4:] == ("--port", "8000", "--workers", "3")
    assert program.env["PATH"] == f"/env/bin:{tmp_path}/programs"
    assert (program.env["COLOUR"], program.env["ETL_DIRECT_FQN"]) == ("blue", "true")
    assert program.files == {"class.pickle": b"abc"}
    program.write(str(tmp_path))
    program.write(str(tmp_path))  # when it is started again
    assert (tmp_path / "class.pickle").read_bytes() == b"abc"
    assert (tmp_path / "programs" / "cat").exists()
    assert not (tmp_path / "programs" / "openssl").exists()


def test_what_a_command_is_started_with(tmp_path: Path) -> None:
    spec = EtlSpec("some-command", command=("python", "server.py"), code="print()", filename="server.py")
    program = server_program(spec, "/env/bin/python", str(tmp_path), "8000")
    assert program.argv == ("python", "server.py")
    assert program.env["PATH"] == f"/env/bin:{SYSTEM_PATH}"
    assert program.env["PORT"] == "8000"
    assert program.files == {"server.py": b"print()"}


def test_an_image_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(NotSupportedError, match="'a/b', which needs a container engine"):
        server_program(EtlSpec("some-image", image="a/b"), "python", str(tmp_path), "8000")

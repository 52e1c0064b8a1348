"""What the installer, which runs foreign code, is given of the operator's credentials."""

from __future__ import annotations

import sys
from pathlib import Path

from aistore.etl.environments.installer import netrc_of_hosts, pip_install, read_settings
from aistore.etl.environments.runtimes import resolve_runtime

NETRC = """
machine packages.example login reader password index-secret
machine github.example login me password other-secret
default login anonymous password guest
"""


def test_only_the_index_hosts_of_netrc(tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text(NETRC)
    file.chmod(0o600)
    urls = ["https://packages.example/simple", "/local/wheels", "https://elsewhere.example:8443/simple"]
    assert netrc_of_hosts(str(file), urls) == "machine packages.example login reader password index-secret\n"
    assert netrc_of_hosts(str(file), []) == ""
    assert netrc_of_hosts(str(tmp_path / "missing"), urls) == ""
    file.write_text("machine without an end")
    assert netrc_of_hosts(str(file), urls) == ""


def test_the_installer_gets_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text(NETRC)
    file.chmod(0o600)
    environ = {"NETRC": str(file), "PIP_INDEX_URL": "https://packages.example/simple", "PATH": "/usr/bin:/bin"}
    runtime = resolve_runtime("python3")
    settings = read_settings(environ, runtime)
    spec = pip_install(str(tmp_path / "env"), runtime, sys.executable, settings, [])
    given = Path(spec.env["NETRC"])
    assert given.is_relative_to(tmp_path / "env")
    assert given.read_text() == "machine packages.example login reader password index-secret\n"
    assert given.stat().st_mode & 0o077 == 0
    assert str(file) not in spec.read

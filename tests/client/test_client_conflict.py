"""Detection of another distribution that overwrites our files."""

from __future__ import annotations

import subprocess
import sys

from aistore._conflict import find_conflict


def install(place, name, version="1.0"):
    directory = place / f"{name}-{version}.dist-info"
    directory.mkdir(parents=True)
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_both_distributions_are_a_conflict(tmp_path):
    install(tmp_path / "a", "pyaistore")
    install(tmp_path / "b", "aistore")
    problem = find_conflict([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "missing")])
    assert "pip uninstall -y aistore pyaistore" in problem


def test_ours_or_theirs_alone_is_none(tmp_path):
    install(tmp_path / "a", "pyaistore")
    install(tmp_path / "b", "aistore")
    install(tmp_path / "a", "aistore_tools")
    assert find_conflict([str(tmp_path / "a")]) == ""
    assert find_conflict([str(tmp_path / "b")]) == ""


def test_import_warns_once_and_names_both(tmp_path):
    install(tmp_path, "aistore")
    install(tmp_path, "pyaistore")
    script = f"import sys; sys.path.append({str(tmp_path)!r}); import aistore.client"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.count("RuntimeWarning") == 1
    assert "'aistore' (NVIDIA's SDK) and 'pyaistore'" in done.stderr

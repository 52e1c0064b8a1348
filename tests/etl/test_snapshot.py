"""Lists of everything that was installed at a client lose what cannot be had; lists that people write do not."""

import os
import time

import pytest
from packages import make_wheel

from aistore.errors import EtlInitError
from aistore.etl.environments.environment import prepare
from aistore.etl.environments.lock import LockedPackage, make_lock
from aistore.etl.environments.runtimes import resolve_runtime
from aistore.etl.environments.snapshot import is_snapshot, left_out, parse_snapshot

#: What the client of 2021 writes around a pickled function, hpush:// and io://.
PICKLED = """
import pickle
import base64

_base64code = base64.b64decode('gASVHAAAAAAAAACMBHpsaWKUjAhjb21wcmVzc5STlC4=')
transform = pickle.loads(_base64code)
"""
PICKLED_IO = f"import webdataset as wds\n{PICKLED}\nwith wds.TarWriter('-') as sink:\n    pass\n"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The package index is a directory of this test alone."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return str(tmp_path)


def make(dependencies, index, **more):
    def progress(stage, message):
        pass

    return prepare(
        dependencies, resolve_runtime("python3"), os.path.join(index, "envs"),
        progress=progress, deadline=time.monotonic() + 120, **more,
    )  # fmt: skip


def test_snapshots_are_known_by_the_clients_code_and_its_pins():
    assert is_snapshot(PICKLED, "aa==1.0\nbb==2.0.dev3+local")
    assert is_snapshot(PICKLED_IO, "aa==1.0")
    assert not is_snapshot(PICKLED, "")
    assert not is_snapshot(PICKLED, "aa==1.0\nbb>=2")
    assert not is_snapshot("def transform(data): return data", "aa==1.0")


def test_versions_that_are_none_are_left_out():
    requirements = parse_snapshot("aa==1.0\ndistro-info==1.1build1\nbb==2.0")
    assert [entry.text for entry in requirements.entries] == ["aa==1.0", "bb==2.0"]
    lock = make_lock(resolve_runtime("python3"), [LockedPackage("aa", "1.0"), LockedPackage("b-b", "2.0")])
    assert left_out("aa==1.0\ndistro-info==1.1build1\nB_b==2.0", lock) == ["distro-info==1.1build1"]


def test_what_no_index_has_is_left_out_of_snapshots_alone(index):
    for name in ("aa", "bb"):
        make_wheel(index, name, "1.0")
    dependencies = "mine==0.1\naa==1.0\nother-mine==0.2\nbb==1.0\n"
    lock = make(dependencies, index, snapshot=True).lock
    assert [package.name for package in lock.packages] == ["aa", "bb"]
    assert left_out(dependencies, lock) == ["mine==0.1", "other-mine==0.2"]
    with pytest.raises(EtlInitError, match=r"No matching distribution found for mine==0\.1"):
        make(dependencies, index)


def test_packages_that_contradict_one_another_are_taken_as_they_were(index):
    make_wheel(index, "aa", "1.0", ["bb==1.0"])
    make_wheel(index, "bb", "2.0")
    make_wheel(index, "bb", "1.0")
    lock = make("aa==1.0\nbb==2.0\n", index, snapshot=True).lock
    assert {package.name: package.version for package in lock.packages} == {"aa": "1.0", "bb": "2.0"}
    with pytest.raises(EtlInitError, match="ResolutionImpossible"):
        make("aa==1.0\nbb==2.0\n", index)


def test_what_a_listed_package_needs_is_never_left_out(index):
    make_wheel(index, "aa", "1.0", ["not-anywhere"])
    with pytest.raises(EtlInitError, match="not-anywhere"):
        make("aa==1.0\n", index, snapshot=True)

"""A plain install in a fresh environment: what is there, what is not, and what is said about it."""

from __future__ import annotations

import os
import re
import selectors
import shlex
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from person import CHECKOUT, PATIENCE, Index, Said, Shell

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, CHECKOUT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("pyaistore-*.whl")
    return built


def environment(folder: Path, *packages: Path | str) -> Shell:
    """Return a shell with the programs of a new environment into which ``packages`` were installed, plainly."""
    venv.create(folder / "venv", with_pip=True)
    shell = Shell(folder, "", programs=str(folder / "venv" / "bin"))
    for package in packages:
        shell(f"pip install --quiet {shlex.quote(str(package))}")
    return shell


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Return a shell where the wheel is installed and nothing more; tests leave it so."""
    return environment(tmp_path_factory.mktemp("plain"), wheel)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Return an address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def python(shell: Shell, code: str) -> Said:
    return shell.try_(f"python -W error -c {shlex.quote(code)}")


def test_a_plain_install_brings_no_server_and_no_torch(plain):
    names = {line.partition("==")[0].lower() for line in plain("pip list --format freeze").splitlines()}
    assert "pyaistore" in names
    assert not names & {"granian", "uvloop", "torch", "numpy", "pillow", "aistore"}


def test_help_and_version(plain):
    assert "Usage: ais" in plain("ais --help")
    version = plain("pip show pyaistore").splitlines()[1].partition(": ")[2]
    assert plain("ais version") == f"ais {version}\n"
    assert plain("python -m aistore version") == f"ais {version}\n"


@pytest.mark.parametrize(
    "code",
    [
        "import aistore; aistore.Client('http://127.0.0.1:1')",
        "from aistore.client import Bck, Client; Client('http://127.0.0.1:1').bucket('a').object('b')",
        "import aistore; aistore.pytorch",
        "import aistore; assert all(hasattr(aistore, name) for name in aistore.__all__)",
    ],
)
def test_the_client_is_whole(plain, code):
    assert python(plain, code) == Said("", "", 0)


def test_without_torch_the_dataset_says_what_to_install(plain):
    said = python(plain, "import aistore; aistore.pytorch.Dataset")
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: aistore.pytorch.Dataset needs torch, which is not installed: "
        "pip install 'pyaistore[pytorch]'"
    )


def test_with_no_store_the_address_and_the_way_to_start_one_are_named(plain, nowhere):
    said = plain.try_(f"AIS_ENDPOINT={nowhere} ais ls")
    assert (said.stdout, said.returncode) == ("", 1)
    assert nowhere in said.stderr
    assert "ais serve" in said.stderr
    assert "Traceback" not in said.stderr


def test_an_environment_that_is_not_active_is_named_by_its_path(plain):
    programs = plain.environment["PATH"].partition(os.pathsep)[0]
    said = plain.try_(f"PATH=/usr/bin:/bin {programs}/ais serve")
    (install,) = (line for line in said.stderr.splitlines() if line.startswith("Install it with: "))
    assert install.removeprefix("Install it with: ").startswith(f"{programs}/python")
    assert install.endswith(" -m pip install 'pyaistore[server]'")


def test_the_line_that_serve_prints_makes_it_serve(wheel, tmp_path):
    shell = environment(tmp_path, wheel)
    said = shell.try_("ais serve --data store --port 0")
    assert (said.stdout, said.returncode) == ("", 1)
    install = said.stderr.splitlines()[-1].removeprefix("Install it with: ")
    assert install == "python -m pip install 'pyaistore[server]'"

    shell(f"{install} --quiet")
    process = subprocess.Popen(
        ["ais", "serve", "--data", "store", "--port", "0"], cwd=shell.directory, env=shell.environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE), "the store said nothing"
        ready = re.search(r"ready at (http://\S+)", process.stdout.readline())
        assert ready
        shell.environment["AIS_ENDPOINT"] = ready[1]
        shell("ais create ais://first && printf 'some words' | ais put - ais://first/words")
        (shell.directory / "upper.py").write_text("def transform(data):\n    return data.upper()\n")
        shell("ais etl init code --name upper-etl --from-file upper.py")
        assert shell("ais etl object upper-etl ais://first/words -") == "SOME WORDS"
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
        process.stdout.close()


def test_the_two_distributions_in_one_environment_are_told_apart(wheel, tmp_path):
    both = environment(tmp_path, wheel, "aistore==2.0.0")
    message = "the distributions 'aistore' (NVIDIA's SDK) and 'pyaistore' are both installed here"

    assert message in both.try_("ais version").stderr

    both(f"pip install --quiet --force-reinstall --no-deps {wheel}")
    assert message in both.try_("ais version").stderr
    for code in ("import aistore; aistore.Client", "import aistore.client", "from aistore.client import Bck"):
        assert message in python(both, code).stderr, code

    cure = "pip uninstall --quiet -y aistore pyaistore"
    assert cure.replace(" --quiet", "") in both.try_("ais version").stderr
    both(f"{cure} && pip install --quiet {wheel}")
    assert both("ais version").startswith("ais ")

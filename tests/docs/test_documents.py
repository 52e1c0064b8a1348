"""What the documents show is run: the README's walk-through command by command, its Python, the table of attacks."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aistore.testing import StoreProcess

ROOT = Path(__file__).resolve().parents[2]
ENDPOINT = "http://127.0.0.1:8080"  # as documents write it


#: The section of the README that is of a cluster: test_cluster_document.py runs it.
CLUSTER = "From one machine to many"


def blocks(document: str, language: str, section: str = "") -> list[str]:
    """Return the code blocks of a document, or of one section, in a language; those of the cluster only when asked."""
    text = (ROOT / document).read_text(encoding="utf-8")
    of_section = re.search(rf"^## {section or CLUSTER}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    if of_section is not None:
        text = of_section[1] if section else text.replace(of_section[1], "")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def steps(document: str, section: str = "") -> list[tuple[str, list[str]]]:
    """Return the commands of a document's console blocks, each with the lines of output shown."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(blocks(document, "console", section)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def matches(shown: list[str], printed: list[str]) -> bool:
    """Compare output with what a document shows, where ``…`` is anything, alone in a line any number of lines."""
    pattern = ""
    for line in shown:
        if line == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(map(re.escape, line.rstrip().split("…"))) + r"[ ]*\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


def missing(*modules: str) -> list[str]:
    return [module for module in modules if importlib.util.find_spec(module) is None]


@pytest.fixture(scope="module")
def shell_environment(tmp_path_factory: pytest.TempPathFactory, new_store_of_module: StoreProcess) -> dict[str, str]:
    """Return an environment in which ``ais`` and ``python`` are this environment's, and the store is ours."""
    binaries = os.path.dirname(sys.executable)
    return {**os.environ, "AIS_ENDPOINT": new_store_of_module.endpoint, "PATH": f"{binaries}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def new_store_of_module() -> object:
    with StoreProcess() as store:
        yield store


@pytest.mark.skipif(bool(missing("skimage", "PIL", "numpy")), reason="the pictures are made by scikit-image and Pillow")
def test_the_commands_of_the_documents(
    shell_environment: dict[str, str], new_store_of_module: StoreProcess, tmp_path: Path
) -> None:
    directory = ROOT
    pictures = str(tmp_path / "pictures")
    output = tmp_path / "files"
    output.mkdir()
    walk = [*steps("README.md"), ("ais etl rm my-first-etl", []), *steps("docs/transforms.md")]
    for command, shown in walk:
        command = command.replace(ENDPOINT, new_store_of_module.endpoint).replace("/tmp/pictures", pictures)
        if command.startswith("cd "):
            directory = ROOT / command[3:]
            continue
        for name in ("before.jpg", "after.jpg", "again.jpg", "out.jpg"):
            command = command.replace(name, str(output / name))
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=directory,
            env=shell_environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        printed = (done.stderr + done.stdout).replace(pictures, "/tmp/pictures").splitlines()
        assert done.returncode == 0, (command, printed)
        assert not shown or matches(shown, printed), (
            f"$ {command}\nthe document shows\n{shown}\nbut it printed\n{printed}"
        )
    run_python_of_the_readme(shell_environment, new_store_of_module)


def run_python_of_the_readme(environment: dict[str, str], store: StoreProcess) -> None:
    if missing("torch"):
        return
    (program,) = [block for block in blocks("README.md", "python") if "aistore.pytorch.Dataset" in block]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program.replace(ENDPOINT, store.endpoint)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("torch.Size([32, 3, 64, 64]) torch.uint8"), done.stdout


def test_the_table_of_attacks_is_what_is_tried() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "etl" / "attack_table.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_table_of_durability_is_what_is_tested() -> None:
    """Each row names a test that there is, and a count that the test itself insists on."""
    text = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]+\|[^|]+\| `(tests/[\w/.]+)::(\w+)` \| ?([\d,]*) ?\|$", text, re.MULTILINE)
    assert len(rows) >= 11
    documented: dict[str, dict[str, int]] = {}
    for path, test, times in rows:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {test}(" in source, f"{path} has no {test}"
        if times:
            documented.setdefault(path, {})[test] = int(times.replace(",", ""))
    for path, counts in documented.items():
        source = (ROOT / path).read_text(encoding="utf-8")
        (literal,) = re.findall(r"^AT_LEAST = (\{.*?\})$", source, re.MULTILINE | re.DOTALL)
        assert ast.literal_eval(literal) == counts, f"docs/storage.md says otherwise than {path}"


def test_every_environment_variable_is_documented() -> None:
    source = ROOT / "src" / "aistore"
    text = "".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    read = set(re.findall(r"""["']((?:AIS|XDG)_[A-Z_]+)["']""", text)) - {"AIS_TARGET_URL"}  # which transforms read
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(read) >= 5
    given = {"AIS_TARGET_URL"}  # to transforms: nothing of ours reads it
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", readme, re.MULTILINE)) == read - given


def test_every_route_is_documented() -> None:
    from aistore.server.routes import ROUTES

    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    for name in ROUTES:
        assert f"/{name}" in text, f"docs/http-api.md does not name /{name}"

"""Imports run one way, modules stay small, and documents name what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "aistore"

#: What each part may import of ours, besides itself. ARCHITECTURE.md has this table for people, see below.
ALLOWED = {
    "errors": set(),
    "fallbacks": {"errors"},
    "settings": {"errors", "fallbacks"},
    "observe": {"errors"},
    "model": {"errors"},
    "wire": {"errors", "model"},
    "storage": {"errors", "fallbacks", "model", "settings", "observe"},
    "etl": {"cluster", "errors", "fallbacks", "model", "settings", "storage", "observe", "wire"},
    "cluster": {"errors", "model", "storage"},
    "jobs": {"errors", "model", "storage"},
    "server": {"cluster", "jobs", "errors", "fallbacks", "model", "settings", "wire", "storage", "etl", "observe", ""},
    "client": {"errors", "model", "wire", "settings", "_conflict", ""},
    "pytorch": {"errors", "model", "wire", "client"},
    "cli": {"errors", "model", "wire", "settings", "client", "_conflict", ""},
    "doctor": {"errors", "fallbacks", "settings", "_conflict", "storage", "etl", "server", "client", ""},
    "laptop": {"errors", "fallbacks"},
    "testing": {"errors", "laptop"},
    "_conflict": {"errors"},
}
#: The modules that may reach across: one starts the server, one checks a store that does not run, one the machine.
EXCEPTIONS = {
    ("cli/commands/serve.py", "server"),
    ("cli/commands/fsck.py", "storage"),
    ("cli/commands/doctor.py", "doctor"),
    ("cli/commands/start_local.py", "laptop"),
}

#: Third-party libraries that are kept inside one place.
KEPT_INSIDE = {
    "granian": {"server/asgi.py"},
    "uvloop": {"server/http_worker.py"},
    "urllib3": {"client/transport.py", "storage/objectstore/s3_pages.py"},
    "torch": {"pytorch"},
    "obstore": {"storage/objectstore"},
    "yaml": {"model/yaml_documents.py"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    first = relative(path).split("/")[0]
    return first.removesuffix(".py")


def is_ours(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


def imports_of(path: Path) -> list[tuple[str, str]]:
    """Return (our part, "") and ("", third-party top-level name) for every import of a module."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ["aistore", *relative(path).split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [("", alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                found.append(("", (node.module or "").split(".")[0]))
                continue
            base = package[: len(package) - node.level + 1]
            full = [*base, *(node.module.split(".") if node.module else [])]
            if len(full) > 1:
                found.append((full[1], ""))
            else:  # from .. import thing: a module of ours, or a name of the package root
                found += [(alias.name if is_ours(alias.name) else "", "root") for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    if part in ("__init__", "__main__"):
        return
    for ours, other in imports_of(path):
        if other and other != "root":
            places = KEPT_INSIDE.get(other)
            inside = places is None or any(
                relative(path) == place or relative(path).startswith(place + "/") for place in places
            )
            assert inside, f"{relative(path)} imports {other}, which only {places} may"
        elif ours != part and (relative(path), ours) not in EXCEPTIONS:
            assert ours in ALLOWED[part], f"{relative(path)} imports {ours or 'the package root'}"


def test_what_runs_in_the_transforms_interpreter_needs_nothing_else() -> None:
    standard = set(__import__("sys").stdlib_module_names)
    for path in (PACKAGE / "etl" / "worker").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
        depth = len(path.relative_to(PACKAGE / "etl" / "worker").parts)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level <= depth, f"{relative(path)} imports from outside of worker/"
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                ours = {child.stem for child in (PACKAGE / "etl" / "worker").iterdir()}
                optional = {"torch", "numpy"}  # only if the transform imported them
                for name in names:
                    assert name.split(".")[0] in standard | ours | optional, f"{relative(path)} imports {name}"


#: What only Linux has, some of it lately. Who uses it asks first whether it is there, and has another way.
LINUX_ONLY = {
    "memfd_create", "pidfd_open", "pidfd_send_signal", "sched_getaffinity", "RWF_NOWAIT", "O_TMPFILE", "SO_PASSCRED",
    "SCM_CREDENTIALS", "SOCK_SEQPACKET", "SOCK_NONBLOCK", "SOCK_CLOEXEC", "splice", "copy_file_range", "eventfd",
    "posix_fadvise", "posix_fallocate", "O_DIRECT", "O_PATH", "fdatasync", "signalfd", "F_SETPIPE_SZ",
}  # fmt: skip
#: The sandbox is Linux's own; the tests' store is for tests.
LINUX_MODULES = ("etl/worker/sandbox/", "etl/worker/usage.py", "testing/")  # usage.py is asked by watch.py


def _uses_of_linux(tree: ast.AST) -> set[str]:
    """Return the names that only Linux has, and the paths below /proc, that code uses; not what docstrings say."""
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    }
    return (attributes & LINUX_ONLY) | {text for text in texts if text.startswith("/proc/")}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_what_only_linux_has_is_asked_for_first(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not relative(path).startswith(LINUX_MODULES) and "lacks" not in text and relative(path) != "fallbacks.py":
        used = _uses_of_linux(ast.parse(text))
        assert not used, f"{relative(path)} uses {used} without asking fallbacks.lacks() or lacking.lacks()"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_modules_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_links_of_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", text)):
        assert list(PACKAGE.rglob(name)) or (ROOT / name).exists(), f"ARCHITECTURE.md names {name}"


def table_rows(heading: str) -> list[list[str]]:
    """Return the cells of the table in ARCHITECTURE.md whose first heading is given."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    lines = text[text.index(f"| {heading} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_imports_is_what_is_held() -> None:
    everybody = {"errors", "_conflict", ""}
    told = {
        row[0].strip("`").removesuffix("/").removesuffix(".py"): set(row[2].partition(";")[0].strip("– ").split(", "))
        for row in table_rows("directory")
    }
    held = {part: allowed - everybody for part, allowed in ALLOWED.items() if part not in everybody}
    assert {part: names - {""} for part, names in told.items()} == held


@pytest.mark.parametrize("directory", ["storage/local/", "server/"])
def test_the_modules_of_a_large_directory_are_listed_once(directory: str) -> None:
    rows = table_rows(f"in `{directory}`")
    listed = sorted(name for row in rows for name in re.findall(r"`(\w+)`", row[1]))
    assert listed == sorted(path.stem for path in (PACKAGE / directory).glob("*.py") if path.stem != "__init__")

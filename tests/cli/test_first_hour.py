"""The mistakes of a first hour, each with what it is answered: the thing, what was expected, what to do.

Every line is compared. Ctrl-C in a long command is in test_cli_process.py.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hosts import needs

from aistore.testing import StoreProcess

AIS = [sys.executable, "-m", "aistore"]
SOURCES = Path(__file__).resolve().parents[2] / "src"


class Run:
    """Runs `ais` in an empty directory, with an environment of its own."""

    def __init__(self, directory: Path, endpoint: str, forked: Callable[..., Any]) -> None:
        self.directory = directory
        self._forked = forked
        home = directory / "home"
        home.mkdir()
        self.env = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", "AIS_ENDPOINT": endpoint}

    def __call__(self, *arguments: str, code: int = 1, **env: str) -> str:
        """Return what `ais` says on standard error, exit code checked."""
        if "serve" in arguments or "PYTHONPATH" in env:  # these need an interpreter of their own
            said = self.process([*AIS, *arguments], code, **env).stderr
        else:
            done = self._forked(list(arguments), self.directory, {**self.env, **env})
            assert done.returncode == code, done
            said = done.stderr
        assert "Traceback" not in said or "transform" in said or "ETL error" in said, said
        return said

    def out(self, *arguments: str) -> str:
        """Return what `ais` says on standard output; it succeeds."""
        done = self._forked(list(arguments), self.directory, self.env)
        assert done.returncode == 0, done
        return str(done.stdout)

    def process(self, command: list[str], code: int, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.directory, env={**self.env, **env}, capture_output=True, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, done
        return done

    def write(self, name: str, text: str) -> str:
        (self.directory / name).write_text(text)
        return name


@pytest.fixture
def ais(cli_store: StoreProcess, tmp_path: Path, forked: Callable[..., Any]) -> Run:
    return Run(tmp_path, cli_store.endpoint, forked)


@pytest.fixture(scope="module")
def things(cli_store: StoreProcess, tmp_path_factory: pytest.TempPathFactory, forked: Callable[..., Any]) -> None:
    """Make a bucket, an object and transforms that others are mistaken for."""
    ais = Run(tmp_path_factory.mktemp("things"), cli_store.endpoint, forked)
    ais("create", "ais://imagenet", code=0)
    ais("put", ais.write("photo.jpg", "x"), "ais://imagenet/train/photo.jpg", code=0)
    for name, code in {
        "upper-case": "def transform(data):\n    return data.upper()\n",
        "prints-text": "def transform(data):\n    print('looking at', len(data))\n    return data\n",
        "stopped-etl": "def transform(data):\n    return data\n",
        "divides-one": "def transform(data):\n    return 1 / 0\n",
    }.items():
        ais("etl", "init", "code", "--name", name, "--from-file", ais.write("code.py", code), code=0)
    script = "import sys\nsys.stdout.write(sys.argv[1])\n"
    made = ["--name", "needs-argument", "--from-file", ais.write("argument.py", script), "--comm-type", "io://"]
    ais("etl", "init", "code", *made, code=0)
    ais("etl", "stop", "stopped-etl", code=0)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ----------------------------------------------------------------------------------------------- where the store is


def test_no_store_runs(ais: Run) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    assert ais("ls", AIS_ENDPOINT=url) == (
        f"Error: no store answers at {url} (from AIS_ENDPOINT): connection refused\n"
        "Hint: start a store with `ais serve`, or set AIS_ENDPOINT to the address of one that runs\n"
    )


@pytest.mark.parametrize("spelling", ["{}/", "{}/v1/", "  {}  ", "bare"])
def test_an_address_is_taken_as_people_write_it(ais: Run, cli_store: StoreProcess, spelling: str) -> None:
    bare = cli_store.endpoint.removeprefix("http://") + "/"
    ais("ls", code=0, AIS_ENDPOINT=bare if spelling == "bare" else spelling.format(cli_store.endpoint))


@pytest.mark.parametrize("text", ["ftp://127.0.0.1", "http://127.0.0.1:80808", "http://", "not an address"])
def test_no_address_at_all(ais: Run, text: str) -> None:
    assert ais("ls", AIS_ENDPOINT=text) == (
        f"Error: endpoint {text!r} (from AIS_ENDPOINT) is not an address\n"
        "Hint: expected for example http://127.0.0.1:8080 or 127.0.0.1:8080\n"
    )


def test_https_where_the_store_speaks_http(ais: Run, cli_store: StoreProcess) -> None:
    url = cli_store.endpoint.replace("http:", "https:")
    assert ais("ls", AIS_ENDPOINT=url) == (
        f"Error: what answers at {url} (from AIS_ENDPOINT) does not speak https\nHint: use {cli_store.endpoint}\n"
    )


def test_a_host_that_is_not_known(ais: Run) -> None:
    assert ais("ls", AIS_ENDPOINT="http://no-such-host.invalid:8080") == (
        "Error: the host of http://no-such-host.invalid:8080 (from AIS_ENDPOINT) is not known\n"
        "Hint: set AIS_ENDPOINT to the address of a store that runs\n"
    )


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"<html><head><title>no</title></head><h1>Not <b>Found</b></h1></html>", ": HTTP 404: Not Found"),
        (403, b"", ": HTTP 403: no error text"),
        (200, b"<html>It works!</html>", ": its reply cannot be read (JSON is malformed: invalid character (byte 0))"),
        (200, b"{}", ": its reply cannot be read (Expected `array`, got `object`)"),
    ],
)
def test_another_server_at_the_port(
    ais: Run, other_server: Callable[[int, bytes], str], status: int, body: bytes, said: str
) -> None:
    url = other_server(status, body)
    assert ais("ls", AIS_ENDPOINT=url) == (
        f"Error: what answers at {url} (from AIS_ENDPOINT) is not a store{said}\n"
        "Hint: set AIS_ENDPOINT to the address of one that runs\n"
    )


def test_a_token_that_is_missing_or_wrong(ais: Run, new_store: Callable[..., StoreProcess]) -> None:
    url = new_store(env={"AIS_AUTHN_TOKEN": "secret"}).endpoint
    hint = "Hint: set AIS_AUTHN_TOKEN to the store's token\n"
    assert ais("ls", AIS_ENDPOINT=url) == f"Error: token required\n{hint}"
    wrong = f"Error: the token that was sent is not the store's\n{hint}"
    assert ais("ls", AIS_ENDPOINT=url, AIS_AUTHN_TOKEN="wrong") == wrong
    ais("ls", code=0, AIS_ENDPOINT=url, AIS_AUTHN_TOKEN="secret")


def test_a_proxy_of_the_environment_is_not_asked(ais: Run) -> None:
    """Nor said to be: what goes to a store goes straight there."""
    nobody = f"http://127.0.0.1:{closed_port()}"
    ais("ls", code=0, http_proxy=nobody, HTTP_PROXY=nobody, all_proxy=nobody)


# -------------------------------------------------------------------------------------------------- names and typos


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ls ais://imagnet", 'bucket "ais://imagnet" does not exist\nHint: did you mean ais://imagenet?'),
        ("get ais://Imagenet/train/photo.jpg -",
         'bucket "ais://Imagenet" does not exist\nHint: did you mean ais://imagenet?'),
        ("ls ais://zzz",
         'bucket "ais://zzz" does not exist\nHint: `ais create ais://zzz` makes it, `ais ls` lists those there are'),
        ("get ais://imagenet/train/foto.jpg -",
         "ais://imagenet/train/foto.jpg does not exist\nHint: did you mean ais://imagenet/train/photo.jpg?"),
        ("object show ais://imagenet/train/photo.JPG",
         "ais://imagenet/train/photo.JPG does not exist\nHint: did you mean ais://imagenet/train/photo.jpg?"),
        ("etl object uper-case ais://imagenet/train/photo.jpg -",
         "etl job uper-case does not exist\nHint: did you mean upper-case?"),
        ("etl show something-else",
         "etl job something-else does not exist\nHint: `ais etl list` shows the transforms there are"),
        ("etl object stopped-etl ais://imagenet/train/photo.jpg -",
         "etl job stopped-etl is Aborted (stopped)\nHint: start it with `ais etl start stopped-etl`"),
        ("create 'ais://my bucket'",
         "bucket name 'my bucket' is not valid\nHint: expected 1 to 64 letters, digits, '.', '-' or '_', not starting "
         "with '.' and without '..'"),
        ("create ais:/imagenet", "'ais:/imagenet' is no bucket\nHint: did you mean ais://imagenet?"),
        ("ls s3://imagenet",
         'bucket "s3://imagenet" does not exist\n'
         "Hint: `ais create s3://imagenet` makes it, `ais ls` lists those there are"),
        ("create ais://imagenet", 'bucket "ais://imagenet" already exists'),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("things")
def test_names(ais: Run, line: str, said: str) -> None:
    assert ais(*shlex.split(line)) == f"Error: {said}\n"


@pytest.mark.usefixtures("things")
def test_the_scheme_may_be_left_out(ais: Run) -> None:
    assert ais.out("ls", "imagenet/train/", "--name-only") == "train/photo.jpg\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lss", "No such command 'lss'. Did you mean 'ls'?"),
        ("init code", "No such command 'init'. Did you mean 'etl init'?"),
        ("upload x", "No such command 'upload'. `ais --help` lists all there are."),
        ("ls --limt 3", "No such option '--limt'. Did you mean '--limit'?"),
        ("put photo.jpg", "the bucket is missing: ais put photo.jpg ais://BUCKET"),
        ("etl init code --name some-name --from-file missing.py",
         "Invalid value for '--from-file': 'missing.py': No such file or directory"),
        ("etl init code --name some-name --from-file code.py --deps-file missing.txt",
         "Invalid value for '--deps-file': 'missing.txt': No such file or directory"),
    ],
)  # fmt: skip
def test_commands_and_options(ais: Run, line: str, said: str) -> None:
    ais.write("code.py", "")
    last = ais(*line.split(), code=2).splitlines()[-1]
    assert last.replace("(Possible options: --limit)", "Did you mean '--limit'?") == f"Error: {said}"


# ------------------------------------------------------------------------------------------------------------ files


@pytest.mark.usefixtures("things")
def test_files_to_put(ais: Run) -> None:
    (ais.directory / "empty").mkdir()
    (ais.directory / "outer" / "inner").mkdir(parents=True)
    (ais.directory / "outer" / "inner" / "file").write_text("x")
    for arguments, said in {
        ("missing.jpg",): "missing.jpg: no such file or directory",
        ("empty",): "no files in empty",
        ("-r", "empty"): "no files in empty",
        ("outer",): "no files in outer\nHint: -r goes into the directories in it",
    }.items():
        assert ais("put", *arguments, "ais://imagenet") == f"Error: {said}\n"


@pytest.mark.usefixtures("things")
def test_a_file_that_may_not_be_read(ais: Run) -> None:
    secret = ais.directory / ais.write("secret", "x")
    secret.chmod(0)
    if os.access(secret, os.R_OK):  # root may
        said = ais("put", "/proc/self/mem", "ais://imagenet")
        assert said == "Error: Input/output error\n" or "/proc/self/mem" in said
    else:
        assert ais("put", "secret", "ais://imagenet") == "Error: secret: Permission denied\n"


@pytest.mark.usefixtures("things")
def test_places_to_get_to(ais: Run) -> None:
    (ais.directory / "there").mkdir()
    got = ais.out("get", "ais://imagenet/train/photo.jpg", "there")
    assert got == "GET train/photo.jpg from ais://imagenet as there/photo.jpg (1B)\n"
    got = ais.out("get", "ais://imagenet/train/photo.jpg", "new/a.jpg")
    assert got == "GET train/photo.jpg from ais://imagenet as new/a.jpg (1B)\n"
    assert ais("get", "ais://imagenet/train/photo.jpg", "/proc/photo.jpg") == (
        "Error: /proc/photo.jpg cannot be written: No such file or directory\nHint: name another place\n"
    )
    ais.write("file", "")
    assert ais("get", "ais://imagenet/train/", "file") == "Error: file is not a directory\n"


# ------------------------------------------------------------------------------------------------------- transforms


INIT = ("etl", "init", "code", "--name", "first-etl", "--from-file", "code.py")
IO = (*INIT, "--comm-type", "io://")


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        ("import sys\ndef f(:\n    pass\n", IO,
         "Error: the transform's code does not compile:   File \"code.py\", line 2\n    def f(:\n          ^\n"
         "SyntaxError: invalid syntax\n"),
        ("import cv2\n", IO,
         "Error: an import of the transform failed: Traceback (most recent call last):\n"
         '  File "code.py", line 1, in <module>\n    import cv2\nModuleNotFoundError: No module named \'cv2\'\n'
         "Hint: put 'opencv-python-headless' into the file of --deps-file\n"),
        ("x = 1\n", (*INIT, "--comm-type", "ftp://"),
         "Error: unknown communication type 'ftp://'\nHint: expected one of: hpush://, hpull://, ws://, io://, "
         "hrev://\n"),
        ("x = 1\n", (*INIT, "--comm-type", "hpull://"),
         "Error: the transform's code does not do what its communication type needs: code.py: the function transform "
         "is missing; expected def transform(data: bytes) -> bytes\n"),
        ("x = 1\n", (*IO, "--runtime", "py3"),
         "Error: unknown runtime 'py3'\nHint: expected python3 or python3.X; this machine has: <runtimes>\n"),
        ("x = 1\n", (*IO, "--runtime", "python3.99"),
         "Error: runtime 'python3.99' is not installed on this machine\nHint: install it (for example `apt install "
         "python3.99-venv`, `pyenv install 3.99` or `uv python install 3.99`) or choose another; this machine has: "
         "<runtimes>\n"),
        ("x = 1\n", ("etl", "init", "code", "--name", "up", "--from-file", "code.py"),
         "Error: etl name 'up' is not valid\nHint: expected 6 to 32 letters, digits, '-' or '_', starting and ending "
         "with a letter or digit\n"),
        ("x = 1\n", ("etl", "init", "code", "--name", "upper-case", "--from-file", "code.py"),
         "Error: etl job upper-case already exists\nHint: remove it with `ais etl rm upper-case` or choose another "
         "name\n"),
        ("", IO, "Error: the code of the transform is empty\nHint: pass a Python file with --from-file\n"),
    ],
    ids=["syntax", "module", "communication", "function", "runtime", "no runtime", "name", "taken", "empty"],
)  # fmt: skip
@pytest.mark.usefixtures("things")
def test_transforms_that_cannot_be_made(ais: Run, code: str, arguments: tuple[str, ...], said: str) -> None:
    ais.write("code.py", code)
    errors = re.sub(r"this machine has: .*", "this machine has: <runtimes>", ais(*arguments))
    errors = re.sub(r"^ +[~^]+\n", lambda match: match[0] if "def f" in errors else "", errors, flags=re.MULTILINE)
    assert errors[errors.index("Error:") :] == said


@pytest.mark.usefixtures("things")
def test_a_dependency_that_does_not_exist(ais: Run, other_server: Callable[[int, bytes], str]) -> None:
    ais.write("code.py", "x = 1\n")
    index = other_server(200, b"<html></html>")
    ais.write("deps.txt", f"--index-url {index}\nno-such-package-of-ours==1.0\n")
    errors = ais(*IO, "--deps-file", "deps.txt")
    assert errors[errors.index("Error:") :].splitlines()[:3] == [
        "Error: resolving the dependencies failed:",
        "ERROR: Could not find a version that satisfies the requirement no-such-package-of-ours==1.0 (from versions: "
        "none)",
        "ERROR: No matching distribution found for no-such-package-of-ours==1.0",
    ]
    assert "Hint: check the name and version, and that there is a wheel for Python" in errors


@pytest.mark.usefixtures("things")
def test_no_way_to_the_index(ais: Run) -> None:
    ais.write("code.py", "x = 1\n")
    ais.write("deps.txt", f"--index-url http://127.0.0.1:{closed_port()}/simple\nsome-package==1.0\n")
    errors = ais(*IO, "--deps-file", "deps.txt")
    hint = errors[errors.index("Hint:") :]
    assert "packages were looked for in: http://127.0.0.1:" in hint


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("divides-one",
         "Error: ETL error: divides-one failed on ais://imagenet/train/photo.jpg: Traceback (most recent call last):\n"
         '  File "code.py", line 2, in transform\n    return 1 / 0\nZeroDivisionError: division by zero\n'),
        ("needs-argument",
         "Error: ETL error: needs-argument failed on ais://imagenet/train/photo.jpg: "
         "Traceback (most recent call last):\n"
         '  File "argument.py", line 2, in <module>\n    sys.stdout.write(sys.argv[1])\n'
         "IndexError: list index out of range\nHint: sys.argv[1] is what --args gives (etl_args in Python)\n"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("things")
def test_transforms_that_fail(ais: Run, name: str, said: str) -> None:
    errors = ais("etl", "object", name, "ais://imagenet/train/photo.jpg", "-")
    assert re.sub(r"^ +[~^]+\n", "", errors, flags=re.MULTILINE) == said


@pytest.mark.usefixtures("things")
def test_a_transform_that_prints(ais: Run) -> None:
    """What a function prints is not its result; it is in the log."""
    assert ais.out("etl", "object", "prints-text", "ais://imagenet/train/photo.jpg", "-") == "x"
    logs = ais.out("etl", "logs", "prints-text")
    assert logs == "[imagenet/train/photo.jpg] looking at 1\n"


# ------------------------------------------------------------------------------------------------------------ serve


def test_serve_says_where_and_how(new_store: Callable[..., StoreProcess], tmp_path: Path) -> None:
    store = new_store(str(tmp_path / "data"), env={"AIS_WITHOUT": "landlock"})
    assert store.process is not None
    assert store.process.stdout is not None
    assert store.process.stdout.readline() == (
        "sandbox for transforms: none (they are refused unless made with --sandbox off; `ais doctor` says why); "
        "AIS_WITHOUT=landlock; Ctrl-C stops the store\n"
    )


def test_serve_prints_the_default_data_directory(ais: Run) -> None:
    with subprocess.Popen([*AIS, "serve", "--port", "0"], env=ais.env, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        first = serving.stdout.readline()
        serving.send_signal(signal.SIGINT)
    assert f"(data in {ais.env['HOME']}/.local/share/pyaistore, " in first
    assert serving.returncode == 0


def test_places_that_cannot_be_served(ais: Run, cli_store: StoreProcess) -> None:
    (ais.directory / "photos").mkdir()
    ais.write("photos/1.jpg", "")
    ais.write("file", "")
    photos = ais.directory / "photos"
    for data, said in {
        cli_store.data: f"{cli_store.data} is in use by process {cli_store.pid} at {cli_store.endpoint}\n"
        f"Hint: stop it (kill {cli_store.pid}), or serve another directory",
        "photos": f"{photos} is not empty and not a data directory of this store: it has 1.jpg\n"
        "Hint: choose an empty directory or a new one",
        "/proc/data": "the data directory /proc/data cannot be used: No such file or directory\n"
        "Hint: choose another with --data or AIS_DATA",
    }.items():
        assert ais("serve", "--port", "0", "--data", data) == f"Error: {said}\n"
    assert "Directory 'file' is a file" in ais("serve", "--port", "0", "--data", "file", code=2)


@needs("proc")
def test_a_port_in_use(ais: Run, cli_store: StoreProcess) -> None:
    port = cli_store.endpoint.rpartition(":")[2]
    said = ais("serve", "--port", port, "--data", "data")
    assert re.fullmatch(
        rf"Error: port {port} of 127\.0\.0\.1 is in use by `.*` \(pid \d+\)\n"
        r"Hint: stop it, or choose another port with --port \(0 takes a free one\)\n", said,
    ), said  # fmt: skip


def test_other_machines_without_a_token(ais: Run) -> None:
    assert ais("serve", "--port", "0", "--data", "data", "--host", "0.0.0.0") == (
        "Error: refusing to listen on 0.0.0.0 without a token: anyone who reaches it could run code here\n"
        "Hint: set AIS_AUTHN_TOKEN to a secret for the store and its clients, or pass --insecure on a private network\n"
    )


def test_a_directory_for_temporary_files_with_a_long_name(ais: Run) -> None:
    long = ais.directory / ("x" * 90)
    long.mkdir()
    assert ais("serve", "--port", "0", "--data", "data", TMPDIR=str(long)) == (
        f"Error: the directory for temporary files, {long}, is too long a path for sockets\n"
        "Hint: set TMPDIR to a shorter one, such as /tmp\n"
    )


def test_a_full_disk(ais: Run) -> None:
    disk = ais.directory / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "aistore-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        assert ais("serve", "--port", "0", "--data", str(disk / "data")) == (
            f"Error: the data directory {disk}/data cannot be used: its disk is full\nHint: make room\n"
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_port_that_needs_privileges(ais: Run) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80:
        pytest.skip("every user may have port 80 here")
    code = (
        "import os, sys\nif os.geteuid() == 0:\n    os.setgroups([]); os.setresgid(65534, 65534, 65534)\n"
        "    os.setresuid(65534, 65534, 65534)\nfrom aistore.server.supervisor import listen\n"
        "try:\n    listen('127.0.0.1', 80)\nexcept Exception as error:\n    print(error)\n"
    )
    assert ais.process([sys.executable, "-c", f"import aistore.server.supervisor\n{code}"], 0).stdout == (
        "port 80 needs privileges\nchoose a port above 1023 with --port\n"
    )


# ----------------------------------------------------------------------------------------------------- installation


def without(ais: Run, *modules: str) -> dict[str, str]:
    """Return variables that make an environment look as if modules were not installed."""
    text = f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n"
    ais.write("sitecustomize.py", text)
    return {"PYTHONPATH": f"{ais.directory}{os.pathsep}{SOURCES}"}


def test_a_client_only_install(ais: Run) -> None:
    env = without(ais, "granian", "uvloop", "packaging", "torch")
    said = ais("serve", **env)
    assert said.startswith("Error: `ais serve` needs the server extra (granian, uvloop, packaging not installed)\n")
    assert said.endswith(" -m pip install 'pyaistore[server]'\n")
    found = {each["check"]: each for each in json.loads(ais.process([*AIS, "doctor", "--json"], 0, **env).stdout)}
    assert found["sandbox"]["found"] == "skipped: needs pyaistore[server]"
    assert found["store"]["level"] == "ok"
    done = ais.process([sys.executable, "-c", "import aistore.pytorch as p\np.Dataset"], 1, **env)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: aistore.pytorch.Dataset needs torch, which is not installed: "
        "pip install 'pyaistore[pytorch]'"
    )


def test_the_other_package_beside_ours(ais: Run) -> None:
    for name, version in (("aistore", "1.20.0"), ("pyaistore", "0.1.0")):
        (ais.directory / f"{name}-{version}.dist-info").mkdir()
        ais.write(f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    env = {"PYTHONPATH": f"{ais.directory}{os.pathsep}{SOURCES}"}
    assert ais("version", code=0, **env).startswith("Warning: the distributions 'aistore' (NVIDIA's SDK) and")
    warned = ais.process([sys.executable, "-W", "always", "-c", "import aistore; aistore.Client"], 0, **env).stderr
    assert "pip uninstall -y aistore pyaistore" in warned
    found = {each["check"]: each for each in json.loads(ais.process([*AIS, "doctor", "--json"], 1, **env).stdout)}
    assert found["conflict"]["level"] == "fail"
    assert "pip uninstall -y aistore pyaistore" in found["conflict"]["advice"]


def old_python() -> str:
    for place in (os.path.expanduser("~/.pyenv/versions/*/bin"), "/usr/bin", "/usr/local/bin"):
        for version in ("3.8", "3.9"):
            found = [str(path) for path in Path("/").glob(f"{place.lstrip('/')}/python{version}")]
            if found:
                return found[0]
    return ""


def test_an_old_python(ais: Run) -> None:
    python = old_python()
    if not python:
        pytest.skip("no Python older than 3.10 is here")
    done = ais.process([python, "-c", "import aistore"], 1, PYTHONPATH=str(SOURCES))
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"ImportError: pyaistore needs Python 3\.10 or newer, this is Python 3\.[89]", last)


# --------------------------------------------------------------------------------------------------------- terminal


@pytest.mark.usefixtures("things")
def test_a_terminal_without_utf_8(ais: Run) -> None:
    env = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ais.write("x", "1")
    ais("put", "x", "ais://imagenet/utf/ä.txt", code=0)
    shown = ais.process([*AIS, "ls", "ais://imagenet/utf/", "--name-only"], 0, **env).stdout
    assert shown == "utf/\\xe4.txt\n"


@pytest.mark.skipif(shutil.which("head") is None, reason="there is no head")
@pytest.mark.usefixtures("things")
def test_a_reader_that_has_seen_enough(ais: Run) -> None:
    line = f"{sys.executable} -m aistore ls ais://imagenet | head -n 0; echo ${{PIPESTATUS[0]}}"
    done = ais.process(["bash", "-c", line], 0)
    assert done.stdout in ("0\n", "141\n")
    assert done.stderr == ""


# -------------------------------------------------------------------------------------------------------- data sets


DATA_SETS = {
    "'imagnet'": 'bucket "ais://imagnet" does not exist',
    "'imagenet', prefix='trian/'": "bucket ais://imagenet has no objects with the prefix 'trian/'\n"
    "`ais ls ais://imagenet` shows what is there",
    "'imagenet', prefix='train/', transform_id='uper-case'": "etl job uper-case does not exist\n"
    "`ais etl list` shows the transforms there are",
    "'imagenet', prefix='train/', transform_id='stopped-etl'": "etl job stopped-etl is stopped\n"
    "`ais etl start stopped-etl` starts it",
}


@pytest.mark.torch
@pytest.mark.usefixtures("things")
def test_data_sets(ais: Run) -> None:
    pytest.importorskip("torch")
    tries = "".join(
        f"try:\n    Dataset(os.environ['AIS_ENDPOINT'], {arguments})\nexcept AisError as error:\n    print(error)\n"
        for arguments in DATA_SETS
    )
    code = f"import os\nfrom aistore.errors import AisError\nfrom aistore.pytorch import Dataset\n{tries}"
    assert ais.process([sys.executable, "-c", code], 0).stdout == "\n".join(DATA_SETS.values()) + "\n"

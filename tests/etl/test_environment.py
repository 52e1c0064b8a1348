import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest
from packages import install_by_hand, make_source, make_wheel

from aistore.errors import BadRequestError, EtlInitError
from aistore.etl.environments import cache
from aistore.etl.environments.cache import remove_unused
from aistore.etl.environments.commands import run_command
from aistore.etl.environments.environment import prepare
from aistore.etl.environments.installer import PipOutput
from aistore.etl.environments.lock import Lock
from aistore.etl.environments.runtimes import find_runtimes, resolve_runtime

FOREVER = 120.0  # seconds; a deadline that no test means to reach


@pytest.fixture(autouse=True)
def index(tmp_path, monkeypatch):
    """The package index is a directory of this test alone."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(directory)


@pytest.fixture
def envs(tmp_path):
    return str(tmp_path / "envs")


class Progress:
    def __init__(self):
        self.heard = []

    def __call__(self, stage, message):
        self.heard.append((stage, message))


class Counting:
    """Runs commands for real and remembers which."""

    def __init__(self):
        self.commands = []

    def __call__(self, spec, on_line, deadline, cancel):
        self.commands.append(spec)
        return run_command(spec, on_line, deadline, cancel)


def make(dependencies, envs, runtime=None, progress=None, seconds=FOREVER, **more):
    return prepare(
        dependencies,
        runtime or resolve_runtime("python3"),
        envs,
        progress=progress or Progress(),
        deadline=time.monotonic() + seconds,
        **more,
    )


def say(environment, name):
    """Return what the console script of package ``name`` prints in ``environment``."""
    script = os.path.join(os.path.dirname(environment.python), f"{name}-say")
    return subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip()


def environments(envs):
    """Return the names of everything below ``envs`` but its own book-keeping."""
    return sorted(name for name in os.listdir(envs) if name not in (".locks", ".resolutions"))


def versions(environment):
    return {package.name: package.version for package in environment.lock.packages}


# -- reuse


@pytest.mark.parametrize("text", ["", "# nothing\n", "--pre\n"])
def test_without_dependencies_the_runtime_itself_is_used(text, envs):
    for runtime in find_runtimes().values():
        environment = make(text, envs, runtime)
        assert (environment.python, environment.directory, environment.reused) == (runtime.python, None, True)
        assert (environment.lock.python, environment.lock.packages) == (runtime.version, ())
    assert not os.path.exists(envs)


def test_what_the_store_has_is_reused(envs):
    environment = make("click\nmsgspec>=0.19", envs)
    assert (environment.python, environment.reused) == (sys.executable, True)
    assert {"click", "msgspec"} <= set(versions(environment))
    assert make("click\nmsgspec>=0.19", envs, lock=environment.lock) == environment
    assert not os.path.exists(envs)


def test_a_list_of_everything_that_is_installed_is_reused(envs, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    install_by_hand(str(tmp_path), "cloudpickle", "2.0.0")
    install_by_hand(str(tmp_path), "other", "1.5", ["cloudpickle"])
    environment = make("cloudpickle==2.0.0\nother==1.5\nclick\n", envs)
    assert environment.reused
    assert {"cloudpickle": "2.0.0", "other": "1.5"}.items() <= versions(environment).items()


# -- installing


def test_what_is_missing_is_installed_once(index, envs):
    make_wheel(index, "aa", "1.0", ["bb>1 ; python_version >= '3'"])
    make_wheel(index, "bb", "2.0")
    progress, run = Progress(), Counting()
    before = os.umask(0o077)
    try:
        environment = make("aa", envs, progress=progress, run=run)
    finally:
        os.umask(before)
    assert versions(environment) == {"aa": "1.0", "bb": "2.0"}
    assert all(package.hashes for package in environment.lock.packages)
    assert (say(environment, "aa"), environment.reused) == ("1.0", False)
    assert environment.python.startswith(environment.directory + os.sep)
    stages = [stage for stage, _ in progress.heard]
    assert stages == sorted(stages, reverse=True)
    assert any(message.startswith("Installing collected packages: ") for _, message in progress.heard)
    assert any(stage == "resolving" and "aa-1.0" in message for stage, message in progress.heard)
    assert len(run.commands) == 2
    store = subprocess.run([environment.python, "-c", "import click"], capture_output=True, text=True)
    assert "ModuleNotFoundError" in store.stderr

    again = make("aa  # the same\n", envs, run=run)
    assert again == environment
    assert make("bb<3\naa", envs) == environment  # another list that comes to the same lock
    assert len(run.commands) == 2
    assert environments(envs) == [os.path.basename(environment.directory)]
    check_everyone_can_read_it_and_nobody_else_write(environment)
    check_waiting_for_another_builder_ends_at_the_deadline(environment, envs)


def check_everyone_can_read_it_and_nobody_else_write(environment):
    compiled = 0
    for directory, _, files in os.walk(environment.directory):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            found = os.lstat(path)
            compiled += path.endswith(".pyc") and "aa." in path
            if stat.S_ISLNK(found.st_mode):
                continue
            needed = 0o555 if stat.S_ISDIR(found.st_mode) else 0o444
            assert stat.S_IMODE(found.st_mode) & needed == needed, path
            assert not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID), path
            assert found.st_uid == os.geteuid()
    assert compiled == 1
    assert os.stat(os.path.dirname(environment.directory)).st_mode & 0o555 == 0o555
    assert sorted(os.listdir(environment.directory)) == ["env", "lock.json"]
    assert ".work" not in os.listdir(os.path.join(environment.directory, "env"))


def check_waiting_for_another_builder_ends_at_the_deadline(environment, envs):
    progress = Progress()
    with (
        cache.held(envs, environment.lock.digest(), time.monotonic() + FOREVER),
        pytest.raises(EtlInitError, match="init timeout passed"),
    ):
        make("aa", envs, lock=environment.lock, progress=progress, seconds=0.2)
    assert "waiting for another" in progress.heard[-1][1]


def test_a_lock_outlives_newer_releases(index, envs):
    make_wheel(index, "aa", "1.0")
    first = make("aa", envs)
    make_wheel(index, "aa", "1.1")
    assert make("aa", envs) == first  # resolved today
    for name in os.listdir(os.path.join(envs, ".resolutions")):
        os.utime(os.path.join(envs, ".resolutions", name), (0, time.time() - 2 * 86400))
    second = make("aa", envs)
    assert versions(second) == {"aa": "1.1"}
    assert second.lock.digest() != first.lock.digest()
    assert make("aa", envs, lock=first.lock) == first

    assert remove_unused(envs, [second.directory]) == []  # the first was handed out a moment ago
    assert remove_unused(envs, [second.directory], idle_seconds=0) == [first.directory]
    assert environments(envs) == [os.path.basename(second.directory)]
    kept = Lock.from_json(first.lock.to_json())
    restored = make("aa", envs, lock=kept)
    assert (restored.lock, say(restored, "aa")) == (first.lock, "1.0")


def test_a_changed_file_does_not_pass_for_the_locked_one(index, envs):
    path = make_wheel(index, "aa", "1.0")
    first = make("aa", envs)
    remove_unused(envs, [], idle_seconds=0)
    os.unlink(path)
    make_wheel(index, "aa", "1.0", ["bb"])
    with pytest.raises(EtlInitError, match=r"HASH|hash"):
        make("aa", envs, lock=first.lock)
    assert environments(envs) == []


def test_a_source_distribution_is_built(index, envs):
    make_source(index, "aa", "1.0", "pass")
    environment = make("aa", envs)
    assert say(environment, "aa") == "1.0"


@pytest.mark.parametrize("choice", [0, -1])
def test_other_versions_of_python(choice, index, envs):
    others = [runtime for runtime in find_runtimes().values() if not runtime.serving and runtime.has_venv]
    if not others:
        pytest.skip("this machine has one version of Python")
    make_wheel(index, "aa", "1.0", [f"bb ; python_version == '{others[choice].version.rpartition('.')[0]}'"])
    make_wheel(index, "bb", "2.0")
    environment = make("aa", envs, others[choice])
    assert versions(environment) == {"aa": "1.0", "bb": "2.0"}
    assert (say(environment, "bb"), environment.lock.python) == ("2.0", others[choice].version)


def test_of_the_operators_variables_and_files_those_of_pip_are_honoured(index, envs, tmp_path, monkeypatch):
    make_wheel(index, "aa", "1.0")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_NO_INDEX")
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nno-index = true\nfind-links =\n    {tmp_path}\n    {index}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    for name in ("AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "PIP_TARGET"):
        monkeypatch.setenv(name, "/secret")
    run = Counting()
    assert say(make("aa", envs, run=run), "aa") == "1.0"
    for spec in run.commands:
        assert index in spec.read
        assert spec.write.startswith(envs)
        assert spec.env["HOME"].startswith(spec.write)
        assert "/secret" not in spec.env.values()


# -- one builder


def test_one_builds_and_the_others_wait(index, envs):
    make_wheel(index, "aa", "1.0")
    run, found = Counting(), []
    threads = [threading.Thread(target=lambda: found.append(make("aa", envs, run=run))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(run.commands) == 2


BUILDER = """
import os, sys, time
from aistore.etl.environments.environment import prepare
from aistore.etl.environments.runtimes import resolve_runtime
prepare("aa", resolve_runtime("python3"), sys.argv[1], progress=print, deadline=time.monotonic() + 120)
"""


@pytest.fixture
def blocking(index, tmp_path):
    """A source distribution whose build says its process group into a pipe and then does not end."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    make_source(
        index,
        "aa",
        "1.0",
        f"import os, signal\nif os.path.exists({pipe!r}):\n    out = open({pipe!r}, 'w')\n"
        "    out.write('%d\\n' % os.getpgrp())\n    out.flush()\n    signal.pause()",
    )
    return pipe


def test_a_killed_build_is_not_taken_for_an_environment(blocking, envs):
    builder = subprocess.Popen([sys.executable, "-c", BUILDER, envs], stdout=subprocess.DEVNULL)
    with open(blocking) as pipe:
        group = int(pipe.readline())
        builder.send_signal(signal.SIGKILL)
        builder.wait()
        os.killpg(group, signal.SIGKILL)
        assert pipe.read() == ""  # end of file: all of the installer is gone
    left = environments(envs)
    assert len(left) == 1
    os.unlink(blocking)
    environment = make("aa", envs)
    assert say(environment, "aa") == "1.0"
    assert environments(envs) == [os.path.basename(environment.directory)]


def test_a_build_in_progress_is_left_alone(blocking, index, envs):
    make_wheel(index, "bb", "2.0")
    cancel, failed = threading.Event(), []

    def build():
        try:
            make("aa", envs, cancel=cancel)
        except EtlInitError as error:
            failed.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    with open(blocking) as pipe:
        pipe.readline()
        (building,) = environments(envs)
        other = make("bb", envs)
        assert environments(envs) == sorted([building, os.path.basename(other.directory)])
        assert remove_unused(envs, [], idle_seconds=0) == [other.directory]
        assert environments(envs) == [building]
        cancel.set()
        assert pipe.read() == ""
    thread.join()
    assert "cancelled while resolving" in str(failed[0])
    assert environments(envs) == []


def test_an_environment_whose_interpreter_is_gone_is_built_again(index, envs):
    make_wheel(index, "aa", "1.0")
    first = make("aa", envs)
    with open(os.path.join(first.directory, "lock.json")) as marker:
        assert Lock.from_json(marker.read()) == first.lock
    os.unlink(first.python)
    os.symlink("/nowhere/python", first.python)
    second = make("aa", envs)
    assert second.directory != first.directory
    assert say(second, "aa") == "1.0"
    os.unlink(os.path.join(first.directory, "lock.json"))
    remove_unused(envs, [second.directory])  # without its marker the first is half an environment
    assert environments(envs) == [os.path.basename(second.directory)]


# -- failures


def test_what_cannot_be_installed_says_why_and_where(index, envs):
    make_wheel(index, "aa", "1.0")
    with pytest.raises(EtlInitError) as caught:
        make("aa>=2", envs)
    assert "No matching distribution found for aa>=2" in str(caught.value)
    assert "from versions: 1.0" in str(caught.value)
    assert index in caught.value.hint
    assert environments(envs) == []


def test_a_contradiction_says_between_what(index, envs):
    make_wheel(index, "aa", "1.0", ["bb<2"])
    make_wheel(index, "bb", "1.0")
    make_wheel(index, "bb", "2.0")
    with pytest.raises(EtlInitError) as caught:
        make("--pre\n# two that cannot be\naa\nbb==2.0", envs)
    assert "line 3 of the dependencies" in str(caught.value)
    assert "aa 1.0 depends on bb<2" in str(caught.value)
    assert "loosen the versions" in caught.value.hint


def test_a_build_that_fails_shows_its_own_words(index, envs):
    make_source(index, "aa", "1.0", "raise SystemExit('a compiler is missing here')")
    with pytest.raises(EtlInitError, match="a compiler is missing here"):
        make("aa", envs)
    assert environments(envs) == []


def test_what_a_build_leaves_running_ends(index, envs, tmp_path):
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    make_source(
        index, "aa", "1.0",
        f"import subprocess\nsubprocess.Popen(['/bin/sh', '-c', 'exec sleep 600 > {pipe}'], stdout=-3, stderr=-3)",
    )  # fmt: skip
    heard = []

    def listen():
        with open(pipe) as file:
            heard.append(file.read())

    reader = threading.Thread(target=listen)
    reader.start()
    make("aa", envs)
    reader.join()
    assert heard == [""]


def test_a_hard_link_is_not_published(index, envs, tmp_path):
    other = tmp_path / "elsewhere"
    other.write_text("not yours")
    other.chmod(0o600)
    link = f"import os, sys\nlink = sys.prefix + '/link'\nos.path.exists(link) or os.link({str(other)!r}, link)"
    make_source(index, "aa", "1.0", link)
    with pytest.raises(EtlInitError, match="hard link: link"):
        make("aa", envs)
    assert other.stat().st_mode & 0o777 == 0o600
    assert environments(envs) == []


def test_a_bad_list_is_refused_before_anything_runs(envs):
    with pytest.raises(BadRequestError, match="line 2"):
        make("click\n-r more.txt\n", envs)
    assert not os.path.exists(envs)


def test_out_of_time_says_where_and_how_to_get_more(blocking, envs):
    with pytest.raises(EtlInitError) as caught:
        make("aa", envs, seconds=1.0)
    assert "passed while resolving" in str(caught.value)
    assert "--init-timeout" in caught.value.hint
    assert environments(envs) == []


def test_a_cancelled_build_does_not_start(index, envs):
    make_wheel(index, "aa", "1.0")
    cancel, run = threading.Event(), Counting()
    cancel.set()
    with pytest.raises(EtlInitError, match="cancelled"):
        make("aa", envs, cancel=cancel, run=run)
    assert run.commands == []


def test_the_files_of_a_local_index_are_readable(tmp_path, envs, monkeypatch):
    files, pages = tmp_path / "mirror" / "packages", tmp_path / "mirror" / "simple"
    (pages / "aa").mkdir(parents=True)
    files.mkdir()
    wheel = os.path.basename(make_wheel(str(files), "aa", "1.0"))
    (pages / "aa" / "index.html").write_text(f'<!DOCTYPE html><html><body><a href="../../packages/{wheel}">aa</a>')
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", pages.as_uri())
    run = Counting()
    assert say(make("aa", envs, run=run), "aa") == "1.0"
    for spec in run.commands:
        assert {str(pages), str(files)} <= set(spec.read)


def test_passwords_of_the_index_stay_here(envs, monkeypatch):
    with socket.socket() as closed:  # bound, not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://operator:hunter2@{address}/simple")
        progress = Progress()
        with pytest.raises(EtlInitError) as caught:
            make(f"--extra-index-url http://author:swordfish@{address}/more\naa", envs, progress=progress)
    text = f"{caught.value} {progress.heard}"
    assert f"http://****@{address}/simple" in caught.value.hint
    assert f"http://****@{address}/more" in caught.value.hint
    for secret in ("operator", "hunter2", "author", "swordfish"):
        assert secret not in text


def test_long_lines_of_pip_are_cut():
    seen: list[str] = []
    output = PipOutput(seen.append)
    names = [f"package-{number}" for number in range(150)]
    output.line(f"Installing collected packages: {', '.join(names)}")
    versions = ", ".join(f"0.{number}" for number in range(1000))
    output.line(f"ERROR: Could not find a version that satisfies the requirement x==2 (from versions: {versions})")
    assert len(seen[0]) < 210
    assert seen[0].endswith(" …")
    assert output.reason().endswith(
        "x==2 (from 1000 versions, the last: 0.990, 0.991, 0.992, 0.993, 0.994, 0.995, 0.996, 0.997, 0.998, 0.999)"
    )

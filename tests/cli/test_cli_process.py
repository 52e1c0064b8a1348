"""`ais` as a process: where it finds the store, pipes that close, interrupts, help."""

from __future__ import annotations

import difflib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from aistore.cli.lazy import LazyGroup
from aistore.cli.main import cli
from aistore.client import Client

AIS = [sys.executable, "-m", "aistore"]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", **more}


def run(arguments: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*AIS, *arguments], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("origin", ["AIS_ENDPOINT", "--endpoint", "--endpoint after it", "config"])
def test_unreachable_store_is_named_with_its_origin(tmp_path, closed_port, origin):
    url = f"http://127.0.0.1:{closed_port}"
    env, arguments, said = environment(tmp_path), ["ls"], origin
    correction = "put the address of one that runs into --endpoint"
    if origin == "AIS_ENDPOINT":
        env["AIS_ENDPOINT"] = url
        correction = "set AIS_ENDPOINT to the address of one that runs"
    elif origin == "--endpoint after it":
        arguments, said = ["--endpoint", "elsewhere", "ls", "--endpoint", url], "--endpoint"
    elif origin == "--endpoint":
        arguments = ["--endpoint", url, "ls"]
    else:
        config = tmp_path / ".config" / "ais" / "cli" / "cli.json"
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"cluster": {"url": url}}))
        said = str(config)
        correction = f"put the address of one that runs into {config}"
    done = run(arguments, env)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.splitlines() == [
        f"Error: no store answers at {url} (from {said}): connection refused",
        f"Hint: start a store with `ais serve`, or {correction}",
    ]


def test_broken_configuration_is_said_to_be_so(tmp_path):
    config = tmp_path / "ais" / "cli" / "cli.json"
    config.parent.mkdir(parents=True)
    config.write_text("{")
    done = run(["ls"], environment(tmp_path, XDG_CONFIG_HOME=str(tmp_path)))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {config} cannot be read:")


def test_reader_that_goes_away_ends_a_listing_quietly(cli_store, tmp_path):
    with Client(cli_store.endpoint) as client:
        bucket = client.bucket("pipe").create()
        for number in range(40):
            bucket.object(f"{number:02d}-{'n' * 900}").put(b"")
    env = environment(tmp_path, AIS_ENDPOINT=cli_store.endpoint)
    listing = subprocess.Popen(
        [*AIS, "ls", "ais://pipe", "--page-size", "1"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.read(10)
    listing.stdout.close()
    assert listing.stderr.read() == b""
    assert listing.wait() == 141
    listing.stderr.close()


def hear_interrupts() -> None:
    """Undo what a shell does to commands in the background, whose interrupts it has ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupt_ends_with_130_and_leaves_no_file(cli_store, tmp_path):
    with Client(cli_store.endpoint) as client:
        client.bucket("interrupt").create().object("big").put(bytes(64 << 20))
    env = environment(tmp_path, AIS_ENDPOINT=cli_store.endpoint)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The pipe is read no further than its first bytes, so the download cannot end by itself.
    getting = subprocess.Popen(
        [*AIS, "get", "ais://interrupt/big", str(fifo)], env=env, stderr=subprocess.PIPE, text=True,
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    with open(fifo, "rb") as reading:
        assert reading.read(1)
        getting.send_signal(signal.SIGINT)
        _, errors = getting.communicate()
    assert getting.returncode == 130
    assert errors == "\nInterrupted.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


def test_interrupted_transfer_says_how_many_were_done(cli_store, tmp_path):
    with Client(cli_store.endpoint) as client:
        client.bucket("interrupt-many").create()
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"abc")
    os.mkfifo(source / "b")
    putting = subprocess.Popen(
        [*AIS, "put", str(source), "ais://interrupt-many", "--num-workers", "1"],
        env=environment(tmp_path, AIS_ENDPOINT=cli_store.endpoint),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts,
    )  # fmt: skip
    with open(source / "b", "wb"):  # opens when the second file is read, so the first is done
        putting.send_signal(signal.SIGINT)
        _, errors = putting.communicate()
    assert (errors, putting.returncode) == ("\nInterrupted; 1 put (3B)\n", 130)


def test_interrupted_init_leaves_no_transform(cli_store, tmp_path):
    code = tmp_path / "slow.py"
    code.write_text("import time\ntime.sleep(600)\ndef transform(data): return data\n")
    env = environment(tmp_path, AIS_ENDPOINT=cli_store.endpoint, TERM="xterm")
    arguments = ["etl", "init", "code", "--name", "interrupted-etl", "--from-file", str(code)]
    said = _on_terminal(arguments, b"", env, code=130, interrupt_at=b"ETL interrupted-etl: importing")
    assert re.search(r"importing \(interrupted\) \d+\.\ds", said)
    assert said.rstrip().endswith("Interrupted; etl job interrupted-etl was removed")
    with Client(cli_store.endpoint) as client:
        assert "interrupted-etl" not in [summary.id for summary in client.etls()]


def test_interrupted_init_that_cannot_be_undone_says_what_goes_on(tmp_path):
    """A store that begins, and then answers nobody any more."""
    code = tmp_path / "code.py"
    code.write_text("def transform(data): return data\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        env = environment(tmp_path, AIS_ENDPOINT=f"http://127.0.0.1:{listener.getsockname()[1]}")
        arguments = ["etl", "init", "code", "--name", "lost-etl", "--from-file", str(code)]
        making = subprocess.Popen([*AIS, *arguments], env=env, stderr=subprocess.PIPE, text=True)
        assert making.stderr is not None
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            line = b'{"stage": "importing"}\n'
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 999\r\n\r\n"
            connection.sendall(head + line)
            assert making.stderr.readline() == "importing\n"
            listener.close()
            making.send_signal(signal.SIGINT)
            _, errors = making.communicate()
    assert making.returncode == 130
    goes_on = "Interrupted; etl job lost-etl goes on at the store; `ais etl rm lost-etl` removes it"
    assert errors.splitlines()[-1] == goes_on


def test_questions_are_asked_on_a_terminal(cli_store, tmp_path):
    with Client(cli_store.endpoint) as client:
        client.bucket("question").create()
        env = environment(tmp_path, AIS_ENDPOINT=cli_store.endpoint, TERM="dumb")
        assert "[y/N]" in _on_terminal(["rmb", "ais://question"], b"n\n", env, code=1)
        assert "ais://question" in map(str, client.buckets())
        assert "destroyed" in _on_terminal(["rmb", "ais://question"], b"y\n", env, code=0)
        assert "ais://question" not in map(str, client.buckets())


def test_progress_of_a_transform_is_live_on_a_terminal(cli_store, tmp_path):
    script = tmp_path / "echo.py"
    script.write_text("import sys; sys.stdout.write(sys.stdin.read())")
    env = environment(tmp_path, AIS_ENDPOINT=cli_store.endpoint, TERM="xterm")
    arguments = ["etl", "init", "code", "--name", "live-etl", "--from-file", str(script), "--comm-type", "io://"]
    said = _on_terminal(arguments, b"", env, code=0)
    assert "ETL live-etl: importing" in said
    assert re.search(r"ready \d+\.\ds", said)
    assert said.rstrip().endswith("live-etl")
    with Client(cli_store.endpoint) as client:
        client.etl("live-etl").delete()


SLOW = """
import time

def transform(data):
    time.sleep(0.1)
    return data
"""


def test_a_job_has_a_bar_of_its_objects(tmp_path, cli_store):
    env = environment(tmp_path, AIS_ENDPOINT=cli_store.endpoint, TERM="xterm", COLUMNS="120")
    with Client(cli_store.endpoint) as client:
        client.etl("slow-etl").init_code(SLOW)
        bucket = client.bucket("with-bar").create()
        for number in range(30):
            bucket.object(f"{number:02}").put(b"x")
        arguments = ["etl", "bucket", "slow-etl", "ais://with-bar", "ais://barred", "--template", "{00..29}", "--wait"]
        said = _on_terminal([*arguments, "--num-workers", "1"], b"", env, code=0)
        assert re.search(r"job \w{11} .*\D[12]?\d/30\D.* [12]?\dB ", said), said
        assert "Done. 30 objects (30B)" in said
        for name in ("with-bar", "barred"):
            client.bucket(name).delete()
        client.etl("slow-etl").delete()


def _on_terminal(
    arguments: list[str], typed: bytes, env: dict[str, str], *, code: int, interrupt_at: bytes = b""
) -> str:
    """Run `ais` on a terminal of its own and return what is seen there; interrupt it when ``interrupt_at`` is."""
    main, terminal = pty.openpty()
    try:
        process = subprocess.Popen([*AIS, *arguments], env=env, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        os.write(main, typed)
        seen = b""
        while select.select([main], [], [], 60)[0]:
            try:
                seen += os.read(main, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            if interrupt_at and interrupt_at in seen:
                process.send_signal(signal.SIGINT)
                interrupt_at = b""
        assert process.wait() == code, seen
        return seen.decode()
    finally:
        os.close(main)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_says_how_to_install_it(tmp_path, shell):
    done = run(["completion", shell], environment(tmp_path))
    assert "_AIS_COMPLETE" in done.stdout
    assert done.stderr.startswith(f"# To install it: ais completion {shell} > ")
    assert done.returncode == 0


def test_completion_completes(tmp_path):
    env = environment(tmp_path, _AIS_COMPLETE="bash_complete", COMP_WORDS="ais etl in", COMP_CWORD="2")
    done = run([], env)
    assert done.stdout.splitlines() == ["plain,init", "plain,inspect"]


def test_completion_knows_what_the_store_has(cli_store, tmp_path):
    with Client(cli_store.endpoint) as client:
        bucket = client.bucket("complete").create()
        for name in ("train/1", "train/2", "top"):
            bucket.object(name).put(b"")

    def complete(words: str) -> list[str]:
        env = environment(tmp_path, AIS_ENDPOINT=cli_store.endpoint, _AIS_COMPLETE="bash_complete")
        return run([], {**env, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}).stdout.split()

    assert complete("ais ls ais://comp") == ["plain,ais://complete"]
    assert complete("ais get ais://complete/t") == ["plain,ais://complete/top", "plain,ais://complete/train/"]
    assert complete("ais rmo ais://complete/train/2") == ["plain,ais://complete/train/2"]
    assert complete("ais ls ais://missing/x") == []
    assert complete("ais etl rm nothing") == []


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        ("creat", "Did you mean 'create'?"),
        ("cat", "Did you mean 'object cat'?"),
        ("etl lst", "Did you mean 'list' or 'ls'?"),
        ("frobnicate", "`ais --help` lists all there are."),
        ("etl frobnicate", "`ais etl --help` lists all there are."),
    ],
)
def test_unknown_commands_get_a_suggestion(tmp_path, words, suggestion):
    done = run(words.split(), environment(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"Error: No such command {words.split()[-1]!r}. {suggestion}"


def test_help_imports_neither_the_client_nor_rich(tmp_path):
    script = (
        "import sys; from aistore.cli.main import run; run(['--help']); "
        "print(sorted({'urllib3', 'rich', 'xxhash', 'granian', 'aistore.client'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment(tmp_path))
    assert done.stderr == "[]\n"


def commands(group: click.Group, path: tuple[str, ...]) -> list[tuple[str, click.Command, str]]:
    """Return every command of the tree with its path and the line that its group shows of it."""
    found = []
    context = click.Context(group, info_name=path[-1])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        entry = group.lazy.get(name) if isinstance(group, LazyGroup) else None
        summary = entry.summary if entry else command.get_short_help_str(200)
        found.append((" ".join((*path, name)), command, summary))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


TREE = commands(cli, ("ais",))


def test_every_command_that_talks_to_a_store_takes_its_address():
    without = {
        path
        for path, command, _ in TREE
        if not isinstance(command, click.Group) and "endpoint" not in [param.name for param in command.params]
    }
    assert without == {"ais serve", "ais cluster start-local", "ais fsck", "ais version", "ais completion"}


@pytest.mark.parametrize(("path", "command", "summary"), TREE, ids=[path for path, _, _ in TREE])
def test_every_command_explains_itself(path, command, summary):
    assert command.get_short_help_str(200) == summary
    text = _help_of(command, path)
    assert isinstance(command, click.Group) or command.hidden or "Example" in text


def _help_of(command: click.Command, path: str) -> str:
    names = cli.context_settings["help_option_names"]
    return command.get_help(click.Context(command, info_name=path, terminal_width=100, help_option_names=names))


def test_help_texts_are_as_recorded():
    """Rewrite the record with ``AIS_RECORD=1 pytest tests/cli`` and read the difference."""
    recorded = Path(__file__).with_name("help.txt")
    texts = [
        f"$ {path} --help\n{_help_of(command, path)}\n"
        for path, command, _ in TREE
        if not command.hidden and path != "ais serve"
    ]
    if os.environ.get("AIS_RECORD"):
        recorded.write_text("\n".join(texts))
    difference = difflib.unified_diff(recorded.read_text().splitlines(), "\n".join(texts).splitlines(), lineterm="")
    said = "\n".join(difference)
    assert not said, said

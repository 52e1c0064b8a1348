"""Scripts in a warm worker do what they do in a process of their own: each is run both ways and compared."""

# ruff: noqa: E501 - each script is one line, whatever its length
from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import pytest
from running import RunningEtl

DATA = b"line one\nline two\n"

# Name: a script. Each reads DATA or nothing and does one thing that a careless harness gets wrong.
SCRIPTS = {
    "plain": "import sys\nsys.stdout.write(sys.stdin.read().upper())",
    "binary": "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])",
    "input": "print(input())\nprint(input())",
    "iterate": "import sys\nfor line in sys.stdin:\n    print(len(line))",
    "os_read": "import os\nos.write(1, os.read(0, 1000))",
    "open_zero": "print(open(0).read())",
    "open_zero_closed": "with open(0) as f:\n    text = f.read()\nprint(text)",
    "open_both_closed": "data = open(0, 'rb').read()\nopen(1, 'wb').write(data * 2)",
    "dev_stdin": "print(open('/dev/stdin').read())",
    "dev_stdout": "with open('/dev/stdout', 'wb') as f:\n    f.write(b'by path')",
    "subprocess": "import subprocess\nsubprocess.run(['tr', 'a-z', 'A-Z'], check=True)",
    "subprocess_order": "import subprocess\nprint('first', flush=True)\nsubprocess.run(['cat'])\nprint('last')",
    "dunder_stdin": "import sys\nsys.__stdout__.write(sys.__stdin__.read())",
    "print_then_buffer": "import sys\nprint('one')\nsys.stdout.buffer.write(b'two')",
    "exit_zero": "import sys\nprint('x')\nsys.exit(0)",
    "exit_none": "raise SystemExit",
    "exit_three": "import sys\nprint('x')\nsys.exit(3)",
    "exit_text": "import sys\nsys.exit('no such picture')",
    "exit_large": "import sys\nsys.exit(256 + 7)",
    "exception": "print('before')\nraise ValueError('bad picture')",
    "keyboard_interrupt": "raise KeyboardInterrupt",
    "os_exit": "import os\nos.write(1, b'kept')\nos._exit(5)",
    "atexit": "import atexit\nfrom atexit import register\natexit.register(print, 'first in')\nregister(print, 'last in')",
    "atexit_unregister": "import atexit\nf = lambda: print('never')\natexit.register(f)\natexit.unregister(f)",
    "atexit_raises": "import atexit\natexit.register(print, 'still')\natexit.register(lambda: 1 / 0)",
    "thread": "import threading, time\nthreading.Timer(0.05, print, ['late']).start()\nprint('early')",
    "executor": (
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\n"
        "for i in range(4):\n    pool.submit(print, 'x')"
    ),
    "fork": "import os\nif os.fork() == 0:\n    print('child')\nelse:\n    os.wait()\n    print('parent')",
    "fork_exit": "import os\npid = os.fork()\nif not pid:\n    raise SystemExit(9)\nprint(os.waitpid(pid, 0)[1] >> 8)",
    "fork_raises": "import os\npid = os.fork()\nif not pid:\n    raise ValueError\nprint(os.waitpid(pid, 0)[1] >> 8)",
    "multiprocessing": (
        "import multiprocessing\ndef double(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n        print(pool.map(double, [1, 2]))"
    ),
    "getsource": "import inspect\ndef f():\n    return 'a body'\nprint(inspect.getsource(f))",
    "pickle": "import pickle\nclass C:\n    x = 1\nprint(pickle.loads(pickle.dumps(C())).x)",
    "dataclass": (
        "from __future__ import annotations\nimport dataclasses, typing\n"
        "@dataclasses.dataclass\nclass C:\n    x: typing.ClassVar[int] = 1\n    y: int = 2\nprint(C())"
    ),
    "main_guard": "def main():\n    print('ran')\nif __name__ == '__main__':\n    main()",
    "import_main": "import __main__\nx = 4\nprint(__main__.x)",
    "closes_stdout": "import sys\nprint('before')\nsys.stdout.close()",
    "detaches_stdout": "import sys\nout = sys.stdout.detach()\nout.write(b'raw')\nsys.stdout = None",
    "replaces_stdout": "import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-16-le')\nprint('wide')",
    "reads_a_line": "import sys\nprint(sys.stdin.readline())",
    "reads_a_line_of_bytes": "import sys\nprint(sys.stdin.buffer.readline(), sys.stdin.buffer.peek(1)[:1])",
    "stays_open_for_reading": "import sys\nkept = sys.stdin.buffer\nprint(next(iter(sys.stdin)))",
    "line_ends": "import sys\nprint('one', flush=True)\nsys.stdout.reconfigure(newline='\\r\\n')\nprint('two')",
    "another_encoding": "import sys\nprint('one', flush=True)\nsys.stdout.reconfigure(encoding='utf-16-le')\nprint('two')",
    "reads_with_line_ends": "import sys\nprint(repr(sys.stdin.newlines))\nsys.stdin.reconfigure(newline='')\nprint(sys.stdin.read())",
    "attribute_of_stdout": "import sys\nprint(vars(sys.stdout)['mode'], hasattr(sys.stdout, 'mine'))\nsys.stdout.mine = 1",
    "attribute_of_buffer": "import sys\nprint(vars(sys.stdout.buffer))\nsys.stdout.buffer.mine = 1",
    "replaced_write": "import sys\nprint('one')\nsys.stdout.flush()\nsys.stdout.write = lambda text: 0\nprint('two')",
    "renamed_stdin": "import sys\nprint(sys.stdin.name)\nsys.stdin.buffer.raw.name = 'x'",
    "stdout_twice": "import sys\nprint(sys.stdout is sys.__stdout__)\nsys.__stdout__ = sys.stderr",
    "redirects_stdout": "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n    print('no')\nprint('yes')",
    "file_not_closed": "f = open(1, 'wb', closefd=False)\nf.write(b'never flushed by hand')",
    "file_in_object": (
        "class W:\n    def __init__(self):\n        self.f = open(1, 'w', closefd=False)\n        self.me = self\n"
        "w = W()\nw.f.write('held')"
    ),
    "file_in_cycle_among_others": (
        "class W: pass\nw = W()\nw.f, w.me = open(1, 'w', closefd=False), w\nw.f.write('held')\n"
        "many = [[] for _ in range(20_000)]"
    ),
    "gzip_not_closed": "import gzip, sys\nf = gzip.GzipFile(fileobj=sys.stdout.buffer, mode='wb', mtime=0)\nf.write(b'z')\nf.close()",
    "destructor": "class D:\n    def __del__(self):\n        print('gone')\nd = D()",
    "finalizer": "import weakref\nclass D: pass\nd = D()\nweakref.finalize(d, print, 'finalized')",
    "temporary_directory": (
        "import tempfile, os\nt = tempfile.TemporaryDirectory()\nopen(t.name + '/f', 'w').close()\nprint(os.listdir(t.name))"
    ),
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('hook')\nraise ValueError",
    "argv": "import sys\nprint(len(sys.argv))",
    "unicode": "print('\\u00e4\\u4f60\\U0001f600')",
    "stdin_not_tty": "import sys\nprint(sys.stdin.isatty(), sys.stdin.fileno(), sys.stdout.fileno(), sys.stdin.name)",
    "encodings": "import sys\nprint(sys.stdin.encoding, sys.stdout.encoding, sys.stderr.errors)",
    "large": "import sys\nsys.stdout.write('x' * 3_000_000)",
    "empty": "",
    "asyncio": "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    print('done')\nasyncio.run(main())",
    "logging": "import logging, sys\nlogging.basicConfig(stream=sys.stdout)\nlogging.warning('logged')",
    "warnings": "import warnings, sys\nwarnings.simplefilter('error')\ntry:\n    warnings.warn('w')\nexcept UserWarning:\n    print('raised')",
    "signal_alarm": "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\nsignal.alarm(100)\nprint('set')",
    "recursion": "def f():\n    f()\ntry:\n    f()\nexcept RecursionError:\n    print('deep')",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_same_as_a_process_of_its_own(name: str) -> None:
    script = SCRIPTS[name]
    cold = _cold(script)
    with RunningEtl(script) as etl:
        for _ in range(2):  # the second run would show what the first left behind
            outcome = etl.run(DATA)
            assert outcome.output == cold.stdout
            if outcome.reply is None:
                etl.wait_for("exited")
                continue
            assert outcome.reply["ok"] == (cold.returncode == 0), outcome
            if cold.returncode > 0 and cold.returncode != 130:
                assert outcome.reply["exit_code"] == cold.returncode


def _cold(script: str) -> subprocess.CompletedProcess[bytes]:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        return subprocess.run([sys.executable, file.name], input=DATA, capture_output=True, timeout=60, env=environment)


def test_exit_codes_and_texts_are_told() -> None:
    with RunningEtl("import sys\nsys.exit(int(sys.argv[1]) if sys.argv[1].isdigit() else sys.argv[1])") as etl:
        assert etl.run(args="0").ok
        reply = etl.run(args="7").failed()
        assert (reply["kind"], reply["exit_code"]) == ("exit", 7)
        outcome = etl.run(args="not a picture")
        assert outcome.failed()["message"] == "not a picture"
        assert outcome.errors == "not a picture\n"


def test_traceback_starts_at_the_users_code() -> None:
    with RunningEtl("import json\n\ndef parse():\n    json.loads('{')\n\nparse()\n") as etl:
        outcome = etl.run()
    reply = outcome.failed()
    assert reply["kind"] == "exception"
    lines = reply["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith('test-etl.py", line 6, in <module>')
    assert lines[2].strip() == "parse()"
    assert "JSONDecodeError" in lines[-1]
    assert reply["message"].startswith("json.decoder.JSONDecodeError: ")
    assert "harness" not in reply["traceback"]
    assert outcome.errors == reply["traceback"]


def test_long_texts_are_cut_to_a_bounded_reply() -> None:
    with RunningEtl("raise ValueError('\\U0001f600' * 100_000 + 'the end')") as etl:
        reply = etl.run().failed()
    assert "characters cut" in reply["message"]
    assert reply["message"].endswith("the end")


def test_output_over_the_limit_says_so() -> None:
    script = "import sys\nsys.stdout.buffer.write(bytes(2 << 20))"
    with RunningEtl(script, output_bytes_max=1 << 20) as etl:
        outcome = etl.run()
        assert outcome.failed()["kind"] == "output"
        assert "1,048,576" in outcome.failed()["message"]
        assert len(outcome.output) <= 1 << 20
    with RunningEtl("import subprocess\nsubprocess.run(['head', '-c', '2M', '/dev/zero'], check=True)",
                    output_bytes_max=1 << 20) as etl:  # fmt: skip
        assert etl.run().failed()["kind"] == "output"


def test_function() -> None:
    code = "calls = 0\ndef transform(data):\n    print('chatter')\n    return bytearray(reversed(data))\n"
    with RunningEtl(code, kind="function") as etl:
        outcome = etl.run(b"abc")
        assert (outcome.ok, outcome.output, outcome.errors) == (True, b"cba", "chatter\n")


@pytest.mark.parametrize(
    ("expression", "output"),
    [
        ("b'x'", b"x"),
        ("bytearray(b'x')", b"x"),
        ("memoryview(b'abcdef')[::2]", b"ace"),
        ("memoryview(b'')", b""),
        ("__import__('array').array('H', [258]) and memoryview(__import__('array').array('H', [258]))", b"\x02\x01"),
        ("b'y' * 5_000_000", b"y" * 5_000_000),
    ],
)
def test_function_results(expression: str, output: bytes) -> None:
    with RunningEtl(f"def transform(data):\n    return {expression}\n", kind="function") as etl:
        assert etl.run(b"abc").output == output


def test_function_that_returns_something_else() -> None:
    with RunningEtl("def transform(data):\n    return 'text'\n", kind="function") as etl:
        reply = etl.run().failed()
    said = "transform() returned str; expected bytes, bytearray or memoryview"
    assert reply["message"] == said
    lines = reply["traceback"].splitlines()
    assert (lines[0], lines[2]) == (said, "    def transform(data):")
    assert lines[1].endswith('test-etl.py", line 1, in transform')
    assert len(lines) == 3


@pytest.mark.parametrize("code", ["def transform():\n    return b''\n", "from zlib import decompress as transform\n"])
def test_failures_outside_the_users_code_show_nothing_of_ours(code: str) -> None:
    with RunningEtl(code, kind="function") as etl:
        text = etl.run(b"no zlib").failed()["traceback"]
    assert text.splitlines()[0].startswith(("TypeError: transform() takes 0 positional", "zlib.error: Error -3"))


def test_function_with_path_and_arguments() -> None:
    code = "def transform(data, path, etl_args=''):\n    return f'{path} {etl_args}'.encode()\n"
    with RunningEtl(code, kind="function") as etl:
        assert etl.run(args="a b", name="dir/n").output == b"bucket/dir/n a b"


def test_arguments_of_a_script() -> None:
    with RunningEtl("import sys\nprint(sys.argv[1:])") as etl:
        assert etl.run().output == b"[]\n"
        assert etl.run(args="width=3 height=4").output == b"['width=3 height=4']\n"

"""The life of warm workers: what is put back between objects, crashes, leftovers, replacement, start and end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest
from hosts import needs
from running import Pending, RunningEtl, wait_for_exit

from aistore.errors import EtlInitError
from aistore.etl import peers

HERE = os.path.dirname(os.path.abspath(__file__))


def script(text: str) -> str:
    return textwrap.dedent(text)


# ---------------------------------------------------------------------------------------------- between two objects


def test_state_is_put_back() -> None:
    code = script("""
        import builtins, gc, json, logging, os, signal, sys, warnings
        logger = logging.getLogger("a")
        print(json.dumps([
            dict(os.environ), os.getcwd(), os.listdir("."), os.umask(0o022), sys.argv, sys.path,
            sys.getrecursionlimit(), str(signal.getsignal(signal.SIGUSR1)), signal.getitimer(signal.ITIMER_REAL),
            len(warnings.filters),
            [len(l.handlers) for l in (logging.root, logger)], logging.root.level, logger.level, logger.propagate,
            logger.isEnabledFor(logging.DEBUG), hasattr(builtins, "added"), gc.isenabled(), sys.gettrace() is None,
            sys.excepthook is sys.__excepthook__, logging.root.manager.disable, str(warnings.showwarning),
        ]))
        os.environ["NEW"] = "x"; os.environ.pop("HOME"); open("left", "w").close(); os.mkdir("d"); os.chdir("/")
        os.umask(0); sys.argv.append("x"); sys.path.insert(0, "/x"); sys.setrecursionlimit(500)
        signal.signal(signal.SIGUSR1, lambda *a: None); signal.setitimer(signal.ITIMER_REAL, 1000)
        warnings.simplefilter("error"); warnings.showwarning = print
        logging.basicConfig(level=logging.DEBUG); logger.setLevel(10); logger.propagate = False
        logger.addHandler(logging.StreamHandler()); logging.disable(50); builtins.added = 1; gc.disable()
        sys.settrace(lambda *a: None); sys.excepthook = lambda *a: None
    """)
    with RunningEtl(code) as etl:
        first, second = etl.run(), etl.run()
    assert first.ok, first
    assert first.output == second.output
    assert first.pid == second.pid


def test_text_of_one_object_does_not_reach_the_next() -> None:
    code = script("""
        import sys, types
        keeper = sys.modules.setdefault("keeper", types.ModuleType("keeper"))
        if sys.argv[1] == "keep":
            keeper.text, keeper.binary = sys.stdout, sys.stdout.buffer
        else:
            for stream, data in ((keeper.text, "stale"), (keeper.binary, b"stale")):
                try:
                    stream.write(data)
                    print("accepted")
                except ValueError as error:
                    print(error)
    """)
    with RunningEtl(code) as etl:
        assert etl.run(args="keep").output == b""
        assert etl.run(args="write").output.decode().split("\n")[:2] == [
            "I/O operation on closed file.", "write to closed file"
        ]  # fmt: skip


def test_what_a_library_keeps_open_is_written_with_each_object() -> None:
    """Whatever of it is new or old, in a cycle or not, and however often the interpreter itself has collected."""
    code = script("""
        import sys, types
        keeper = sys.modules.setdefault("keeper", types.ModuleType("keeper"))
        if "early" in sys.argv[1] or not hasattr(keeper, "file"):
            keeper.file = open(1, "w", closefd=False)
        print(sys.argv[1], file=keeper.file)
        class Cycle: pass
        cycle = Cycle()
        cycle.me, cycle.file = cycle, open(1, "w", closefd=False)
        print(sys.argv[1], file=cycle.file)
        if "many" in sys.argv[1]:
            many = [[] for _ in range(20_000)]
    """)
    with RunningEtl(code) as etl:
        for number in range(120):
            word = f"{number}" + " many" * (number % 7 == 0) + " early" * (number in (0, 30))
            assert etl.run(args=word).output.decode() == f"{word}\n" * 2


def test_directory_that_was_not_changed_for_long_is_emptied_when_it_is() -> None:
    code = script("""
        import os, sys
        print(os.listdir("."))
        if len(sys.argv) > 1:
            open(sys.argv[1], "w").close()
    """)
    with RunningEtl(code) as etl:
        etl.run()
        time.sleep(2.5)  # not listed after that, unless it changes (leftovers.py)
        for name in ("", "", "left", "", "left", "left", ""):
            assert etl.run(args=name).output == b"[]\n"


def test_library_that_kept_standard_output_at_its_import() -> None:
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "keeper.py"), "w") as file:
            file.write("import sys\nout = sys.stdout\n")
        code = "import sys, keeper\nkeeper.out.write(sys.stdin.read())"
        with RunningEtl(code, env={"PYTHONPATH": directory}) as etl:
            assert [etl.run(data).output for data in (b"one", b"two")] == [b"one", b"two"]


def test_imports_stay() -> None:
    with RunningEtl("import sys, colorsys\ncolorsys.n = getattr(colorsys, 'n', 0) + 1\nprint(colorsys.n)") as etl:
        assert [etl.run().output for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]


def test_isolation_fork_keeps_nothing() -> None:
    code = "import colorsys\ncolorsys.n = getattr(colorsys, 'n', 0) + 1\nprint(colorsys.n)"
    with RunningEtl(code, objects_per_worker=1, workers=2) as etl:
        outcomes = [etl.run() for _ in range(6)]
        assert {outcome.output for outcome in outcomes} == {b"1\n"}
        assert len({outcome.pid for outcome in outcomes}) == 6
        assert etl.wait_for("exited")["reason"] == "retired"


def test_random_numbers_differ_between_objects_and_workers() -> None:
    code = "import random, sys\nsys.stdin.read()\nprint(random.random())"
    with RunningEtl(code, workers=3) as etl:
        pipes = [os.pipe() for _ in range(3)]
        pending = [etl.begin(source=reading) for reading, _ in pipes]
        assert len({each.started() for each in pending}) == 3
        for _, writing in pipes:
            os.close(writing)
        numbers = [each.finish().output for each in pending] + [etl.run().output for _ in range(20)]
    assert len(set(numbers)) == 23
    with RunningEtl("import random\nprint(random.random())", objects_per_worker=1) as etl:
        assert len({etl.run().output for _ in range(10)}) == 10


@pytest.mark.torch
def test_torch_and_numpy_numbers_differ_between_workers() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("numpy")
    code = "import numpy, torch\nprint(numpy.random.rand(), torch.rand(1).item(), torch.get_num_threads())"
    with RunningEtl(code, objects_per_worker=1, workers=2) as etl:
        lines = [etl.run().output.split() for _ in range(4)]
    assert len({line[0] for line in lines}) == len({line[1] for line in lines}) == 4
    assert {line[2] for line in lines} == {b"1"}


def test_thousands_of_objects_do_not_grow_the_worker() -> None:
    code = script("""
        import sys, tempfile, json
        class Thing:
            def __init__(self):
                self.me, self.data = self, bytearray(100_000)
        thing = Thing()
        def f():
            return thing
        with tempfile.NamedTemporaryFile() as file:
            file.write(sys.stdin.buffer.read())
        json.dump([1] * 1000, sys.stdout)
    """)
    with RunningEtl(code) as etl:
        sizes, descriptors, pids = [], [], set()
        for count in range(2000):
            outcome = etl.run(b"x" * 1000)
            assert outcome.ok
            pids.add(outcome.pid)
            if count in (300, 1999):
                with open(f"/proc/{outcome.pid}/statm") as file:
                    sizes.append(int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE"))
                descriptors.append(len(os.listdir(f"/proc/{outcome.pid}/fd")))
    assert len(pids) == 1
    assert descriptors[1] < descriptors[0] + 10  # some are open or not, as the worker is still tidying up
    assert sizes[1] - sizes[0] < 2 << 20


# ---------------------------------------------------------------------------------------------- crashes and leftovers


@pytest.mark.parametrize(
    ("death", "status"),
    [
        ("os._exit(5)", 5 << 8),
        ("os._exit(0)", 0),
        ("os.kill(os.getpid(), 9)", 9),
        ("__import__('ctypes').string_at(0)", signal.SIGSEGV),
        ("os.abort()", signal.SIGABRT),
    ],
)
def test_crash(death: str, status: int) -> None:
    with RunningEtl(
        f"import os, sys\nif len(sys.argv) > 1:\n    os.write(1, b'kept')\n    {death}\nprint('fine')"
    ) as etl:
        crashed = etl.run(args="die")
        assert (crashed.reply, crashed.output) == (None, b"kept")
        event = etl.wait_for("exited")
        assert (event["pid"], event["status"] & ~0x80, event["reason"]) == (crashed.pid, status, "crashed")
        if status == signal.SIGSEGV:
            assert "Segmentation fault" in crashed.errors
        assert etl.run().output == b"fine\n"


def test_hang_is_killed_with_what_it_started() -> None:
    code = script("""
        import os, subprocess, sys
        if len(sys.argv) > 1:
            child = subprocess.Popen(["sleep", "1000"])
            os.write(2, b"%d\\n" % child.pid)
            sys.stdin.read()
        print("fine")
    """)
    with RunningEtl(code) as etl:
        reading, writing = os.pipe()
        pending = etl.begin(args="hang", source=reading)
        pending.started()
        child = _first_line(pending.errors)
        pending.kill()
        assert pending.finish().reply is None
        wait_for_exit(child)
        os.close(writing)
        assert etl.run().output == b"fine\n"


def _first_line(descriptor: int) -> int:
    """Wait for a number on the standard error of an object that does not end."""
    while True:
        text = os.pread(descriptor, 100, 0)
        if text.endswith(b"\n"):
            return int(text)
        os.sched_yield()


@needs("parent-death-signal")  # nor the adoption of orphans
@pytest.mark.parametrize("sandbox", [False, True])
def test_daemon_left_behind_ends_with_its_worker(sandbox: bool) -> None:
    code = script("""
        import os, sys, time
        if len(sys.argv) > 1:
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.write(writing, b"x")
                    time.sleep(1000)
                os._exit(0)
            os.wait()
            os.read(reading, 1)
        print("fine")
    """)
    with RunningEtl(code, sandbox=sandbox) as etl:
        reading, writing = os.pipe()
        left = etl.run(args="daemon", source=reading)
        assert left.ok
        assert etl.wait_for("exited")["reason"] == "retired"
        poll = select.poll()  # the daemon holds the input: its end is the end of the pipe's last reader
        poll.register(writing, 0)
        assert poll.poll(60_000) == [(writing, select.POLLERR)]
        os.close(writing)
        after = etl.run()
        assert after.ok
        assert after.pid != left.pid


@pytest.mark.parametrize(
    "leftover",
    [
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "import _thread, threading; e = threading.Event();"
        " _thread.start_new_thread(lambda: e.set() or threading.Event().wait(), ()); e.wait()",
        "import subprocess; subprocess.Popen(['sleep', '1000'])",
        "import os, sys; sys.modules['kept'] = [os.open('/dev/null', 0) for _ in range(50)]",
        "import sys; sys.modules['kept'] = bytearray(b'x' * (64 << 20))",
    ],
)
def test_worker_with_leftovers_is_retired_after_its_reply(leftover: str) -> None:
    code = f"import sys\nif len(sys.argv) > 1:\n    {leftover}\nprint('fine')"
    with RunningEtl(code, memory_growth_bytes_max=32 << 20) as etl:
        left = etl.run(args="leave")
        assert left.output == b"fine\n"
        assert etl.wait_for("exited")["reason"] == "retired"
        after = etl.run()
        assert after.output == b"fine\n"
        assert after.pid != left.pid


def test_thread_that_does_not_end_fails_its_object() -> None:
    code = (
        "import sys, threading\nif len(sys.argv) > 1:\n"
        "    threading.Thread(target=threading.Event().wait, name='stuck').start()"
    )
    with RunningEtl(code, thread_seconds_max=0.1) as etl:
        assert "'stuck' still runs" in etl.run(args="x").failed()["message"]
        assert etl.run().ok


def test_client_that_goes_away_before_it_is_served() -> None:
    with RunningEtl("import sys\nsys.stdin.read()\nprint('fine')") as etl:
        reading, writing = os.pipe()
        busy = etl.begin(source=reading)
        busy.started()
        gone = etl.begin()
        gone.connection.close()
        os.close(writing)
        assert busy.finish().output == b"fine\n"
        assert etl.run().output == b"fine\n"
        os.close(gone.output)
        os.close(gone.errors)


def test_full_queue_refuses() -> None:
    with RunningEtl("import sys\nsys.stdin.read()") as etl:
        etl.listener.listen(1)
        reading, writing = os.pipe()
        waiting = [etl.begin(source=reading)]
        waiting[0].started()
        with pytest.raises(BlockingIOError):
            _fill(etl, waiting)
        os.close(writing)
        assert all(each.finish().ok for each in waiting)


def _fill(etl: RunningEtl, waiting: list[Pending]) -> None:
    while True:
        with socket.socket(socket.AF_UNIX, peers.MESSAGES_KIND) as probe:
            probe.setblocking(False)
            probe.connect(etl.address)
        waiting.append(etl.begin())


# ------------------------------------------------------------------------------------------------------ start and end


def test_syntax_error_shows_line_and_caret() -> None:
    with RunningEtl("import sys\ndef f(:\n    pass\n") as etl:
        event = etl.events[-1]
        assert (event["event"], event["reason"]) == ("failed", "syntax")
        assert "test-etl.py, line 2" in event["message"]
        assert "def f(:" in event["traceback"]
        assert "^" in event["traceback"]
        etl.wait_for_end()


def test_import_error_shows_the_users_line() -> None:
    with RunningEtl("import sys\n\nimport no_such_module_here\n") as etl:
        event = etl.events[-1]
        assert event["reason"] == "import"
        assert event["message"] == "ModuleNotFoundError: No module named 'no_such_module_here'"
        assert 'test-etl.py", line 3, in <module>' in event["traceback"]
        assert "program.py" not in event["traceback"]


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    import no_such_module_here\nexcept ImportError:\n    pass",
        "if 0:\n    import no_such_module_here",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import no_such_module_here",
        "import contextlib\nwith contextlib.suppress(ImportError):\n    import no_such_module_here",
        "def later():\n    import no_such_module_here",
        "from __future__ import annotations\nimport os",
        "import os, sys\nos.environ['A'] = 'b'\nsys.path.append('/x')",
    ],
)
def test_imports_that_may_fail(code: str) -> None:
    with RunningEtl(code) as etl:
        assert etl.run().ok


def test_environment_set_before_an_import_is_seen_by_it() -> None:
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "reader.py"), "w") as file:
            file.write("import os\nvalue = os.environ.get('SETTING')\n")
        code = "import os\nos.environ['SETTING'] = 'early'\nimport reader\nprint(reader.value)"
        with RunningEtl(code, env={"PYTHONPATH": directory}) as etl:
            assert etl.run().output == b"early\n"


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        ("x = 1", "contract", "transform is missing"),
        ("transform = 3", "contract", "transform is a int"),
        ("raise ValueError('at import')\ndef transform(d): pass", "import", "ValueError: at import"),
        ("def transform(d)\n  pass", "syntax", "line 1"),
    ],
)
def test_function_that_cannot_be_made_ready(code: str, reason: str, text: str) -> None:
    with RunningEtl(code, kind="function") as etl:
        assert etl.events[-1]["reason"] == reason
        assert text in etl.events[-1]["message"]


def test_a_function_that_is_sent_as_a_script_is_refused() -> None:
    with RunningEtl("def transform(data):\n    return data\n", filename="code.py") as etl:
        event = etl.events[-1]
        assert (event["event"], event["reason"]) == ("failed", "contract")
        assert event["message"].startswith("code.py: this is a function, transform()")
        assert event["message"].endswith("use --comm-type hpush://")


@pytest.mark.parametrize(
    "code",
    [
        "import os\ndef transform(data):\n    return data[::-1]\nos.write(1, transform(os.read(0, 9)))",
        "def transform(data):\n    return data[::-1]\nprint(transform(open(0).read()), end='')",
        "import subprocess\ndef transform():\n    subprocess.run(['rev'])\ntransform()",
    ],
)
def test_a_script_may_have_a_function_of_that_name(code: str) -> None:
    with RunningEtl(code) as etl:
        assert etl.run(b"abc").output == b"cba"


@pytest.mark.parametrize("kind", ["script", "function"])
def test_tracebacks_call_the_code_as_its_author_does(kind: str) -> None:
    code = "import sys\ndef transform(data):\n    raise ValueError(__file__)\n"
    code += "if __name__ == '__main__':\n    transform(sys.stdin)\n"
    with RunningEtl(code, kind=kind, filename="code.py") as etl:
        lines = etl.run().failed()["traceback"].splitlines()
        assert '  File "code.py", line 3, in transform' in lines
        assert "    raise ValueError(__file__)" in lines
        assert lines[-1] == f"ValueError: {etl.scratch}/test-etl.py"


def test_a_syntax_error_is_in_the_authors_file() -> None:
    with RunningEtl("def f(:", filename="code.py") as etl:
        assert etl.events[-1]["message"].startswith("code.py, line 1")


def test_code_longer_than_a_message() -> None:
    with RunningEtl(f"{'# padding' * 50_000}\nprint('long')") as etl:
        assert etl.run().output == b"long\n"


def test_only_given_variables_are_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_SECRET", "x")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    code = "import json, os, sys\nprint(json.dumps(dict(os.environ)))"
    with RunningEtl(code, env={"GIVEN": "y"}) as etl:
        variables = json.loads(etl.run().output)
    assert variables["GIVEN"] == "y"
    assert variables["OMP_NUM_THREADS"] == "1"
    assert not {"STORE_SECRET", "PYTHONUNBUFFERED"} & set(variables)


def test_log_has_what_objects_say_within_bounds() -> None:
    with RunningEtl("import sys\nprint('hello from', sys.argv[1], 'x' * 100_000, file=sys.stderr)") as etl:
        etl.run(args="me", name="a/b.jpg")
        etl.run()  # the first is written when the worker is free again
        assert "[bucket/a/b.jpg] hello from me" in etl.log
        assert "more bytes]" in etl.log
        assert len(etl.log) < 10_000


def test_closing_leaves_no_process_and_no_scratch_file() -> None:
    code = "import os, subprocess\nopen(os.environ['HOME'] + '/f', 'w').close()\nsubprocess.Popen(['sleep', '1000'])"
    with RunningEtl(code, workers=2) as etl:
        pid = etl.run().pid
        guard = etl.launched.guard_pid
        etl.launched.close()
        for each in (pid, guard):
            assert not os.path.exists(f"/proc/{each}")
        assert os.listdir(etl.scratch) == []


@pytest.mark.parametrize("sandbox", ["off", pytest.param("on", marks=needs("credentials"))])  # our pid
def test_nothing_outlives_a_killed_controller(sandbox: str) -> None:
    code = script(f"""
        import os, signal, sys
        sys.path[:0] = [{HERE!r}, {os.path.join(HERE, "..", "..", "src")!r}]
        from running import RunningEtl
        etl = RunningEtl("import sys\\nsys.stdin.read()", workers=2, sandbox={sandbox == "on"})
        etl.wait_for("ready")
        reading, writing = os.pipe()
        pid = etl.begin(source=reading).started()
        print(etl.directory, etl.launched.guard_pid, pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    directory, *pids = done.stdout.split()
    for pid in map(int, pids):
        wait_for_exit(pid)
    shutil.rmtree(directory)


def test_parent_that_is_killed_takes_its_workers_with_it() -> None:
    with RunningEtl("import os, sys\nprint(os.getppid())", workers=2) as etl:
        outcome = etl.run()
        os.kill(int(outcome.output), signal.SIGKILL)
        etl.wait_for_end()
        wait_for_exit(outcome.pid)
        wait_for_exit(etl.launched.guard_pid)


@needs("fork")  # there is no fork to hook
def test_workers_that_die_at_once_do_not_stop_the_parent() -> None:
    code = "import os\nos.register_at_fork(after_in_child=lambda: os._exit(3))\ndef transform(data):\n    return data"
    with RunningEtl(code, kind="function") as etl:
        for _ in range(3):
            event = etl.wait_for("exited")
            assert (event["status"], event["reason"]) == (3 << 8, "crashed")


def test_interpreter_that_does_not_run() -> None:
    with pytest.raises(EtlInitError, match="/bin/false"):
        RunningEtl("", python="/bin/false")
    with pytest.raises(EtlInitError, match="cannot be run"):
        RunningEtl("", python="/no/such/python")

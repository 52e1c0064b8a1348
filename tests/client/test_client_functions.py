"""From a Python function to a transform: what is sent says everything, and runs where nothing of its module is."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import functions_of_mine as mine
import pytest

from aistore import Client
from aistore.client.functions import code_of
from aistore.errors import BadRequestError, EtlInitError, NotSupportedError
from aistore.testing import StoreProcess

RUN = """
import json, sys, types
module = sys.modules["aistore_transform"] = types.ModuleType("aistore_transform")
space = module.__dict__
exec(compile(sys.stdin.read(), "transform.py", "exec"), space)
print(json.dumps([space["transform"](b"some bytes", **json.loads(sys.argv[1])).decode() for _ in range(2)]))
"""


def run(code: str, directory: Path, **arguments: str) -> list[str]:
    """Run a transform twice in an interpreter that knows nothing of these tests."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", RUN, json.dumps(arguments)], input=code, cwd=directory,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    results: list[str] = json.loads(done.stdout)
    return results


BY_SOURCE: list[tuple[Callable[..., bytes], dict[str, str]]] = [
    (mine.plain, {}),
    (mine.with_constants, {"etl_args": "128"}),
    (mine.with_imports, {"path": "bucket/name"}),
    (mine.with_functions, {}),
    (mine.with_a_comprehension_of_the_same_name, {}),
    (mine.maker(3), {}),
]


@pytest.mark.parametrize(("function", "arguments"), BY_SOURCE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_function_is_sent_by_its_source(function: Any, arguments: dict[str, str], tmp_path: Path) -> None:
    made = code_of(function)
    assert (made.pickled, made.runtime, made.dependencies) == (False, "python3", ())
    assert f"def {function.__name__}" in made.code
    assert run(made.code, tmp_path, **arguments) == [function(b"some bytes", **arguments).decode()] * 2


@pytest.mark.parametrize("kind", [mine.Model, mine.Larger])
def test_a_class_is_sent_by_its_source(kind: Any, tmp_path: Path) -> None:
    made = code_of(kind)
    assert not made.pickled
    assert run(made.code, tmp_path) == [kind().transform(b"some bytes").decode()] * 2


def test_variables_of_the_module_are_the_transforms_own(tmp_path: Path) -> None:
    made = code_of(mine.that_counts)
    assert not made.pickled
    assert run(made.code, tmp_path) == ["1", "2"]
    assert mine.CALLS == 0


PICKLED: list[Callable[..., bytes]] = [
    mine.with_a_pattern, mine.with_my_module, mine.maker_with_state(), mine.wrapped, mine.nameless,
]  # fmt: skip


@pytest.mark.parametrize("function", PICKLED, ids=lambda function: function.__name__)
def test_what_has_no_source_is_pickled(function: Any, tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    made = code_of(function)
    assert (made.pickled, made.runtime) == (True, f"python3.{sys.version_info[1]}")
    assert made.dependencies == ("cloudpickle",)
    assert run(made.code, tmp_path) == [function(b"some bytes").decode()] * 2


def test_a_pickle_says_which_python_made_it(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    ours, other = (3, sys.version_info[1]), (3, 5)
    code = code_of(mine.nameless).code.replace(f"!= {ours}", f"!= {other}")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert f"was pickled by Python 3.{ours[1]} and is run by 3.{ours[1]}" in done.stderr


def generator(data: bytes) -> Any:
    yield data


async def coroutine(data: bytes) -> bytes:
    return data


def two_objects(data: bytes, more: bytes) -> bytes:
    return data + more


class WithoutMethod:
    pass


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (generator, "generator does not return bytes but a coroutine or a generator"),
        (coroutine, "coroutine does not return bytes"),
        (two_objects, "two_objects cannot be called with an object: missing a required argument: 'more'"),
        (WithoutMethod, "class WithoutMethod has no method transform"),
        (mine.Model.transform, "transform cannot be called with an object: missing a required argument: 'data'"),
        (b"code", "b'code' is neither a function nor a class"),
        (len, "is neither a function nor a class"),
    ],
)
def test_what_is_no_transform(made: Any, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        code_of(made)
    assert words in caught.value.message


def test_what_can_neither_be_written_nor_pickled() -> None:
    pytest.importorskip("cloudpickle")
    file = io.FileIO(Path(__file__))

    def with_a_file(data: bytes) -> bytes:
        return data + file.read(1)

    with file, pytest.raises(NotSupportedError) as caught:
        code_of(with_a_file)
    assert "the value of 'file' (FileIO) cannot be written down" in caught.value.message
    assert "make such values inside the function" in caught.value.hint


def test_a_function_in_a_store(store: StoreProcess) -> None:
    client = Client(store.endpoint)
    thing = client.bucket("functions").create(exist_ok=True).object("thing")
    thing.put(b"some bytes")

    assert client.etl("by-source").init_function(mine.with_constants, deterministic=True) == "by-source"
    assert thing.get(etl="by-source", etl_args="x").read() == mine.with_constants(b"some bytes", "x")
    assert client.etl("by-source").details().deterministic

    @client.etl("decorated").transform(env={"COLOUR": "blue"}, workers=1)
    def decorated(data: bytes) -> bytes:
        import os

        return data + os.environ["COLOUR"].encode()

    assert thing.get(etl="decorated").read() == b"some bytesblue"
    with pytest.raises(KeyError, match="COLOUR"):
        decorated(b"")

    @client.etl("of-a-class").transform()
    class Counting:
        def __init__(self) -> None:
            self.made = b" made"

        def transform(self, data: bytes) -> bytes:
            return data + self.made

    assert thing.get(etl="of-a-class").read() == b"some bytes made"
    assert Counting().transform(b"") == b" made"
    for name in ("by-source", "decorated", "of-a-class"):
        client.etl(name).delete()


def test_a_pickled_function_in_a_store(store: StoreProcess) -> None:
    pytest.importorskip("cloudpickle")
    client = Client(store.endpoint)
    thing = client.bucket("functions").create(exist_ok=True).object("thing")
    thing.put(b"some bytes")
    etl = client.etl("by-pickle")
    with pytest.raises(BadRequestError, match="is pickled by"):
        etl.init_function(mine.nameless, runtime="python3.99")
    etl.init_function(mine.with_my_module)
    assert thing.get(etl=etl.name).read() == b"some bytes" * 2
    etl.delete()


def test_a_function_that_fails_at_the_store_says_so(store: StoreProcess) -> None:
    def unimportable(data: bytes) -> bytes:
        return data

    class Unmakeable:
        def __init__(self) -> None:
            raise ValueError("no model here")

        def transform(self, data: bytes) -> bytes:
            return data

    with pytest.raises(EtlInitError, match="no model here"):
        Client(store.endpoint).etl("unmakeable").init_function(Unmakeable)

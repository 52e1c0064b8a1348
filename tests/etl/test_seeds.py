"""Random numbers of transforms: fixed by a seed, on any worker, after anything, in any order; else never the same."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from running import RunningEtl

from aistore.etl.seeds import Recipe

KEYS = [f"{number:064x}" for number in range(1, 5)]

#: Draws from everything that a seed fixes, and prints it.
DRAW = """
import json, random, sys
import numpy as np
import torch
from numpy.random import default_rng
from random import Random, shuffle

def draw():
    order = list(range(20))
    shuffle(order)
    np.random.seed() if {reseeds} else None
    return json.dumps([
        random.random(), Random().random(), order,
        np.random.rand(), np.random.RandomState().rand(), np.random.Generator(np.random.PCG64()).random(),
        default_rng().random(), default_rng().integers(1 << 40).item(), np.random.default_rng().normal(),
        torch.rand(2).tolist(), torch.randperm(9).tolist(), list({{"a", "b", "c", "d", "e", "f"}}),
    ]).encode()
"""
SCRIPT = DRAW + "\nsys.stdin.read()\nsys.stdout.write(draw().decode())\n"
FUNCTION = DRAW + "\ndef transform(data):\n    return draw()\n"

#: NumPy comes with the first object, and torch too if there is one.
LATE = """
import json

def transform(data):
    import numpy
    found = [numpy.random.rand(), numpy.random.default_rng().random()]
    if data == b"torch":
        import torch
        found.append(torch.rand(1).item())
    return json.dumps(found).encode()
"""

#: Keeps generators from object to object, wherever a program can.
KEEPS = """
import json, random
import numpy as np
import torch

MODULE, SEEDED = np.random.default_rng(), np.random.default_rng(7)
LEGACY, LEGACY_SEEDED = np.random.RandomState(), np.random.RandomState(7)
PYTHON, PYTHON_SEEDED = random.Random(), random.Random(7)
TORCH = torch.Generator()
SALT = [random.random(), np.random.rand(), np.random.default_rng().random(), torch.rand(1).item()]

class Augment:
    shared = np.random.default_rng()
    def __init__(self):
        self.steps = [{"rng": np.random.default_rng()}]

augment = Augment()

def closed(rng):
    return lambda: rng.random()

drawn = closed(np.random.default_rng())

def transform(data, more=np.random.default_rng()):
    return json.dumps({
        "unseeded": [MODULE.random(), LEGACY.normal(), PYTHON.random(), augment.shared.random(),
                     augment.steps[0]["rng"].random(), drawn(), more.random()],
        "seeded": [SEEDED.random(), LEGACY_SEEDED.normal(), PYTHON_SEEDED.random(),
                   torch.rand(1, generator=TORCH).item()],
        "salt": SALT,
    }).encode()
"""

CHILDREN = """
import json, multiprocessing, os, random
import numpy as np

def draw(_):
    return [random.random(), np.random.rand(), np.random.default_rng().random()]

def child():
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(draw(0)).encode())
        os._exit(0)
    os.wait()
    os.close(write)
    with os.fdopen(read) as file:
        return json.loads(file.read())

def transform(data):
    return json.dumps([child(), draw(0), child()]).encode()
"""

TRULY_RANDOM = """
import json, os, secrets, uuid

def transform(data):
    return json.dumps([os.urandom(8).hex(), secrets.token_hex(8), str(uuid.uuid4())]).encode()
"""


def drawn(etl: RunningEtl, key: str = "", data: bytes = b"") -> Any:
    outcome = etl.run(data, seed=key)
    assert outcome.ok, outcome
    return json.loads(outcome.output)


def test_a_seed_fixes_all_numbers_of_an_object_whatever_came_before() -> None:
    seen: dict[str, set[str]] = {}
    plain: list[str] = []
    workers = set()
    order = random.Random(20240501)
    for kind, code, objects_per_worker in (("script", SCRIPT, 10_000), ("function", FUNCTION, 10_000),
                                           ("function", FUNCTION, 1)):  # fmt: skip
        source = code.format(reseeds=False)
        with RunningEtl(source, kind=kind, workers=3, objects_per_worker=objects_per_worker) as etl:
            keys = [*KEYS * 4, *[""] * 8]
            order.shuffle(keys)
            # Several at once, so that all workers have some of them.
            for batch in itertools.zip_longest(*[iter(keys)] * 6, fillvalue=""):
                pending = [(key, etl.begin(seed=key)) for key in batch]
                for key, one in pending:
                    outcome = one.finish()
                    assert outcome.ok, outcome
                    workers.add(outcome.pid)
                    if key:
                        seen.setdefault(f"{key} {kind}", set()).add(outcome.output.decode())
                    else:
                        plain.append(outcome.output.decode())
    assert len(workers) > 6
    assert all(len(outputs) == 1 for outputs in seen.values()), seen
    assert len(set().union(*seen.values())) >= len(KEYS)
    numbers = [json.loads(output) for output in (*plain, *itertools.chain(*seen.values()))]
    orders = {json.dumps(drawn.pop()) for drawn in numbers}
    assert len(orders) == 1, "sets were iterated in different orders"
    for position in range(11):
        values = [json.dumps(drawn[position]) for drawn in numbers[: len(plain)]]
        assert len(set(values)) == len(values), f"two calls without a seed drew the same: {position}"


def test_what_asks_for_entropy_again_and_what_follows_a_seed() -> None:
    with RunningEtl(FUNCTION.format(reseeds=True), kind="function") as etl:
        first, again, other = (drawn(etl, key)[:10] for key in (KEYS[0], KEYS[0], KEYS[1]))
        assert first == again != other
        after = [first]
        for _ in range(4):  # what follows a seed must not be known from it
            after.append(drawn(etl)[:10])
            assert drawn(etl, KEYS[0])[:10] == first
    for position in range(10):
        values = [json.dumps(numbers[position]) for numbers in after]
        assert len(set(values)) == len(values), position


@pytest.mark.parametrize("objects_per_worker", [10_000, 1], ids=["warm", "fork"])
def test_a_library_that_is_imported_during_the_object(objects_per_worker: int) -> None:
    wanted = b"torch" if objects_per_worker > 1 else b""  # each process would import it: seconds
    with RunningEtl(LATE, kind="function", objects_per_worker=objects_per_worker) as etl:
        first, plain, again = (drawn(etl, key, wanted) for key in (KEYS[0], "", KEYS[0]))
        other = drawn(etl, KEYS[1], wanted)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert all(a != b for a, b in zip(first, plain, strict=True))


@pytest.mark.parametrize("objects_per_worker", [10_000, 1], ids=["warm", "fork"])
def test_generators_that_the_program_keeps(objects_per_worker: int) -> None:
    found = []
    for _ in range(2 if objects_per_worker > 1 else 1):  # a second start is another node, as far as the ETL knows
        with RunningEtl(KEEPS, kind="function", workers=2, objects_per_worker=objects_per_worker) as etl:
            drawn(etl)
            found.append((drawn(etl, KEYS[0]), drawn(etl), drawn(etl, KEYS[1]), drawn(etl), drawn(etl, KEYS[0])))
    for seeded, _, other, _, again in found:
        assert seeded == again == found[0][0]
        for kind in ("unseeded", "seeded"):
            assert all(a != b for a, b in zip(seeded[kind], other[kind], strict=True))
    plain = [numbers for run in found for numbers in (run[1], run[3])]
    for position in range(7):
        values = [numbers["unseeded"][position] for numbers in plain]
        assert len(set(values)) == len(values), f"two calls without a seed drew the same: {position}"
    if objects_per_worker == 1:  # each begins where the program's own seed leaves them
        assert found[0][1]["seeded"] == found[0][3]["seeded"]
    assert len({json.dumps(numbers["salt"]) for run in found for numbers in run}) == 1


def test_generators_that_the_program_seeded_go_on_after_an_object_with_a_seed() -> None:
    def run(*keys: str) -> list[Any]:
        with RunningEtl(KEEPS, kind="function") as etl:
            return [drawn(etl, key)["seeded"] for key in keys]

    first, second, third = run("", "", "")
    mixed = run("", KEYS[0], KEYS[1], "", KEYS[0], "")
    assert [mixed[0], mixed[3], mixed[5]] == [first, second, third]
    assert len({json.dumps(numbers) for numbers in (first, second, third, *mixed)}) == 5


def test_children_that_the_program_forks_draw_numbers_of_their_own() -> None:
    with RunningEtl(CHILDREN, kind="function", workers=2) as etl:
        seeded = [drawn(etl, KEYS[0]) for _ in range(4)]
        first, parent, second = seeded[0]
        assert all(found == seeded[0] for found in seeded)
        assert not set(first) & set(parent)
        assert not set(first) & set(second)
        assert drawn(etl, KEYS[1])[0] != first
        assert drawn(etl)[0] != drawn(etl)[0]


def test_what_asks_the_kernel_stays_random() -> None:
    with RunningEtl(TRULY_RANDOM, kind="function") as etl:
        first, again = drawn(etl, KEYS[0]), drawn(etl, KEYS[0])
    assert all(a != b for a, b in zip(first, again, strict=True))


def test_a_numpy_that_cannot_be_seeded_is_an_error_of_seeded_objects_alone() -> None:
    code = """
import numpy.random
import _aistore_worker.randomness as ours
ours.RANDOMNESS._cannot = "NumPy 99 gets its entropy in a way that is not known here"

def transform(data):
    return b"done"
"""
    with RunningEtl(code, kind="function") as etl:
        assert etl.run().output == b"done"
        assert "NumPy 99" in etl.run(seed=KEYS[0]).failed()["message"]


def test_anything_else_in_a_recipe_is_another_seed_and_another_result() -> None:
    said: dict[str, Any] = {"name": "a.jpg", "size": 10, "checksum": "0123", "args": "x", "seed": "42"}
    other = {"name": "b.jpg", "size": 11, "checksum": "0124", "args": "y", "seed": "43"}
    variants = [said, *({**said, key: value} for key, value in other.items()), {**said, "seed": None}]
    variants += [{**said, "name": "a", "args": ".jpgx"}, {**said, "args": "", "seed": "x42"}]
    lines = [("d1",), ("d2",), ("d1", "d2"), ("d2", "d1"), ("d1d2",)]
    seeds, results = set(), set()
    for variant, line in itertools.product(variants, lines):
        recipe = Recipe.of(**variant)
        for digest in line:
            recipe = recipe.then(digest)
        seeds.add(recipe.seed())
        results |= {recipe.result(bucket, environment) for bucket in "ab" for environment in "xy"}
    assert len(seeds) == len(variants) * len(lines)
    assert len(results) == 4 * len(seeds)
    assert not seeds & results
    # The numbers of published results hang on this one: another makes all of them others.
    assert Recipe.of(**said).then("d1").seed() == "2263cbdf37b1ef6b40ef5feaf8ab5b316192286237f6371e5243225423c40206"

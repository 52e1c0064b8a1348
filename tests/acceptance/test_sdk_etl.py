"""NVIDIA's SDK, unchanged and in an environment of its own, drives transforms: reads, pipelines, copies, jobs, life."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from person import Index
from test_sdk import refusal, run

from aistore import Client

pytestmark = pytest.mark.slow

CODES = {
    "sdk-upper": """
import sys
print("upper is ready", file=sys.stderr)
def transform(data, etl_args):
    return data.upper() + etl_args.encode()
""",
    "sdk-reverse": "def transform(data):\n    return data[::-1]\n",
    "sdk-picky": "def transform(data):\n    assert not data.endswith(b'7'), data\n    return data\n",
}
WORDS = {f"{number:02}.txt": f"words {number}" for number in range(30)}
BAD = [f"ais://sdk-etl-source/{number:02}.txt" for number in (7, 17, 27)]


@pytest.fixture(scope="module", params=["one machine", "three nodes"])
def sdk(request: pytest.FixtureRequest, index: Index) -> Iterator[dict[str, Any]]:
    """Return what NVIDIA's SDK 2.0.0 says of a store with three transforms, on one machine or on three nodes."""
    if request.param == "one machine":
        endpoint, nodes = request.getfixturevalue("module_store").endpoint, 1
    else:
        cluster = request.getfixturevalue("cluster")
        endpoint, nodes = cluster.node(1).endpoint, len(cluster.running)
    with Client(endpoint) as client:
        for name, code in CODES.items():
            client.etl(name).init_code(code)
        said = run(index.environment("sdk-2.0.0", "aistore==2.0.0"), "sdk_etl.py", endpoint)
        yield {**said, "nodes": nodes}
        for name in CODES:
            client.etl(name).delete(missing_ok=True)


def test_reads_through_one_transform_and_through_several(sdk):
    inline = sdk["inline"]
    assert inline["name"] == inline["etl"] == inline["file"] == inline["written"] == "WORDS 1"
    assert (inline["text"], inline["dict"]) == ("WORDS 1!?", 'WORDS 1{"w":1,"h":[2]}')
    assert inline["pipeline"] == inline["latest"] == inline["direct"] == "1 SDROW"
    assert (inline["three"], inline["none"]) == ("!1 SDROW", "words 1")
    assert inline["urls"] == ["WORDS 1"] * 3
    assert inline["chunks"] == ["1 S", "DRO", "W"]
    assert inline["stages"] == [[], ["sdk-reverse", "sdk-picky"]]


def test_reads_that_fail(sdk):
    inline = sdk["inline"]
    assert refusal(inline["refused by the third"]) == ("AISError", 422)
    assert "ETL error: sdk-picky failed on ais://sdk-etl-source/07.txt" in inline["refused by the third"]["message"]
    assert refusal(inline["missing stage"]) == ("ErrETLNotFound", 404)
    assert refusal(inline["loop"])[1] == 400
    assert "sdk-upper is in it twice, which is a loop" in inline["loop"]["message"]
    assert refusal(inline["range"])[1] == 400
    assert refusal(inline["long arguments"])[1] in (413, 414, 431)


def test_copies_of_single_objects(sdk):
    copies = sdk["copies"]
    assert copies["statuses"] == [200] * 4
    assert copies["made"] == {"plain": "words 1", "upper": "WORDS 1!", "line": "1 SDROW"}
    assert copies["beside"] == {"copied/upper": "WORDS 1"}
    assert copies["custom"]["colour"] == "blue"
    refused = copies["refused"]
    assert refusal(refused["missing bucket"]) == ("ErrBckNotFound", 404)
    assert "bucket" in refused["missing bucket"]["message"]
    assert refusal(refused["missing object"]) == ("ErrObjNotFound", 404)
    assert refusal(refused["missing stage"]) == ("ErrETLNotFound", 404)
    assert refusal(refused["failing"]) == ("AISError", 422)
    assert refusal(refused["onto itself"])[1] == 400
    assert refusal(refused["synchronized"])[1] == 501
    assert copies["not made"]["status"] == 404


def test_jobs_through_pipelines(sdk):
    jobs = sdk["jobs"]
    assert jobs["transform"] == [True, ""]
    expected = {name: text.upper()[::-1] for name, text in WORDS.items()}
    assert jobs["made"] == {f"p/{name[:2]}.TXT": text for name, text in expected.items() if name < "1"}
    assert jobs["workers"] == 1
    assert jobs["group"] == [[True, ""], "etl-listrange", True]
    assert jobs["some"] == {f"{number:02}.TXT": f"{number} SDROW" for number in (1, 2, 3)}
    assert jobs["group copy"] == [[True, ""], {"c/04.txt": "words 4", "c/05.txt": "words 5"}]
    assert jobs["idle ones"] == ["copy-listrange", "etl-listrange"]


def test_inspecting(sdk):
    jobs = sdk["jobs"]
    success, error = jobs["inspect"]
    assert not success
    assert error.startswith("3 objects failed")
    assert jobs["inspected"] == {"sdk-picky": BAD, "sdk-upper": BAD}
    assert all("AssertionError" in message for message in jobs["messages"])
    assert jobs["inspect group"] == BAD[:1]
    assert jobs["source"] == len(WORDS)


def test_jobs_that_fail(sdk):
    jobs = sdk["jobs"]
    assert jobs["strict"][0] is False
    assert jobs["left out"] == [{"l/06.txt": "words 6"}, ["ais://sdk-etl-source/none"]]
    statuses = {case: refusal(said)[1] for case, said in jobs["refused"].items()}
    missing = {"missing etl": 404, "missing stage": 404, "missing stage of a group": 404}
    assert statuses == {**missing, "loop": 400, "bad template": 400, "bad time": 400}


def test_life_and_logs(sdk):
    life = sdk["life"]
    assert life["listed"] == ["sdk-picky", "sdk-reverse", "sdk-upper"]
    assert len(life["logs"]) == sdk["nodes"]
    for text, is_of_its_node in life["logs"]:
        assert "upper is ready" in text
        assert is_of_its_node
    assert life["view"] == ["sdk-upper", "hpush://"]
    assert refusal(life["stopped"])[1] == refusal(life["job of a stopped one"])[1] == 409
    assert life["inside"] == "WORDS 1"
    assert refusal(life["after"][0]) == ("ErrETLNotFound", 404)
    assert life["after"][1] == ["sdk-picky", "sdk-reverse"]

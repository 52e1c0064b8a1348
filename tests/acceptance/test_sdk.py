"""The field's Python clients, unchanged and in environments of their own, against a store."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import sysconfig
import zlib
from pathlib import Path
from typing import Any

import pytest
from person import PATIENCE, Index, Shell

from aistore.testing import StoreProcess

pytestmark = pytest.mark.slow

#: It needs braceexpand and does not say so; its transforms of shards a webdataset that still reads "-", and pillow.
CLIENT_2021 = ("aistore==0.0.6", "braceexpand==0.1.7", "webdataset==0.2.86", "pillow")

CLIENTS = Path(__file__).parent / "clients"

#: Answers in capitals, set to the side that the arguments name; says a line when it is made ready.
UPPER = """
import json, sys
print("upper is ready", file=sys.stderr)

def transform(data, etl_args):
    if etl_args == "fail":
        raise ValueError("told to fail")
    options = json.loads(etl_args) if etl_args.startswith("{") else {"side": etl_args, "width": 12}
    adjust = {"left": bytes.ljust, "right": bytes.rjust}.get(options["side"], lambda data, width: data)
    return adjust(data.upper(), options["width"])
"""


#: Fails on every seventh object, and takes its time for some.
PICKY = """
import time

def transform(data):
    number = int(data.split()[1])
    if number % 7 == 0:
        raise ValueError(f"not {number}")
    if number // 10 == 2:
        time.sleep(1)
    return data
"""


def run(python: Path, script: str, *arguments: str, more: Path | None = None) -> dict[str, Any]:
    """Run a client's script; return what it printed. ``more`` is a folder with further packages."""
    command = [python, CLIENTS / script, *arguments]
    env = {**os.environ, "PYTHONPATH": str(more or "")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.fixture(scope="module")
def sdk(index: Index, module_shell: Shell) -> dict[str, Any]:
    """Return what NVIDIA's SDK 2.0.0 says of a store with a transform made by `ais`."""
    (module_shell.directory / "upper.py").write_text(UPPER)
    module_shell("ais etl init code --name upper-etl --from-file upper.py")
    (module_shell.directory / "picky.py").write_text(PICKY)
    module_shell("ais etl init code --name sdk-picky --from-file picky.py")
    python = index.environment("sdk-2.0.0", "aistore==2.0.0")
    return run(python, "sdk.py", module_shell.endpoint, "upper-etl")


def refusal(said: dict[str, Any]) -> tuple[str, int]:
    """Return the type and status of an error, which must have come at once."""
    assert said["requests"] == 1, f"the client tried {said['requests']} times: {said}"
    return said["error"], said["status"]


def test_sdk_sees_a_cluster(sdk, module_shell):
    cluster = sdk["cluster"]
    assert cluster["ready"]
    assert cluster["uuid"] == cluster["uuid in map"] != ""
    assert (cluster["targets"], cluster["proxies"]) == (1, 1)
    assert [cluster["primary"], *cluster["target urls"]] == [module_shell.endpoint] * 2
    assert cluster["running jobs"] == cluster["jobs"] == []
    (performance,) = cluster["performance"].values()
    assert {"capacity", "sys_info", "status"} <= set(performance)


def test_sdk_makes_lists_and_removes_buckets(sdk):
    buckets = sdk["buckets"]
    assert "sdk-buckets" in buckets["listed"]
    assert buckets["props"]["provider"] == "ais"
    assert buckets["empty"] == []
    assert (buckets["exist ok"]["error"], buckets["delete missing ok"]["error"]) == (None, None)


def test_sdk_maps_bucket_errors(sdk):
    buckets = sdk["buckets"]
    assert refusal(buckets["missing head"]) == ("AISError", 404)  # an answer to HEAD has no text to tell more from
    for case in ("missing delete", "list of missing", "put into missing"):
        assert refusal(buckets[case]) == ("ErrBckNotFound", 404), case
    assert refusal(buckets["created twice"]) == ("ErrBckAlreadyExists", 409)
    assert refusal(buckets["bad name"]) == ("AISError", 400)


def test_sdk_keeps_names_of_every_kind(sdk):
    objects = sdk["objects"]
    assert objects["names"] == {name: name for name in objects["names"]}
    assert "ünï/cødé ☃" in objects["names"]
    assert objects["listed"] == sorted(objects["names"], key=str.encode)
    assert objects["urls"] == {name: name for name in objects["urls"]}


def test_sdk_reads_whole_parts_and_straight_from_the_target(sdk):
    objects = sdk["objects"]
    assert objects["ranges"] == {"bytes=2-5": "2345", "bytes=5-": "56789", "bytes=-3": "789", "bytes=8-100": "89"}
    assert objects["chunks"] == [4, 4, 2]
    assert objects["direct"] == objects["parallel"] == "0123456789"
    assert objects["empty"] == ["", 0]
    assert objects["folder"] == ["folder/digits"]


def test_sdk_sets_and_reads_custom_properties(sdk):
    head = sdk["objects"]["head"]
    assert (head["size"], head["version"], head["name"], head["bucket"]) == (10, "1", "digits", "sdk-objects")
    assert head["checksum"] == ["xxhash2", "3f5fc178a81867e7"]
    assert head["custom"] == {"colour": "blue", "size": "10"}
    assert head["present"]
    assert sdk["objects"]["custom replaced"] == {"colour": "red"}
    assert sdk["objects"]["attributes"] == 10


def test_sdk_maps_object_errors(sdk):
    objects = sdk["objects"]
    assert refusal(objects["deleted head"]) == ("AISError", 404)
    for case in ("deleted get", "deleted delete"):
        assert refusal(objects[case]) == ("ErrObjNotFound", 404), case
    # it asks for the cluster map again and tries once more, as it should when an object has moved
    assert (objects["direct of deleted"]["error"], objects["direct of deleted"]["requests"]) == ("ErrObjNotFound", 3)
    assert refusal(objects["get from missing bucket"]) == ("ErrBckNotFound", 404)
    assert refusal(objects["range outside"]) == ("AISError", 416)
    assert refusal(objects["bad name"]) == ("AISError", 400)


def test_sdk_lists_in_pages(sdk):
    listing = sdk["listing"]
    names = sorted(f"{'odd' if number % 2 else 'even'}/{number:03}" for number in range(25))
    assert listing["pages"] == [names[:10], names[10:20]]
    assert listing["all"] == listing["iterated"] == names
    assert listing["prefix"] == [name for name in names if name.startswith("odd/")]
    assert listing["start after"] == ["odd/021", "odd/023"]
    assert listing["sizes"] == [0, 2, 4, 6, 8]
    assert listing["props"] == [[True, "1", True, True, True]]
    assert listing["objects"] == ["", "xx", "xxxx", "xxxxxx", "xxxxxxxx"]
    assert listing["group"] == ["odd/001", "odd/003", "odd/005"]
    assert listing["urls"] == ["objects/sdk-listing/even/000?provider=ais"]


def test_sdk_reads_through_a_transform(sdk):
    transforms = sdk["transforms"]
    assert transforms["inline"] == transforms["etl object"] == transforms["started"] == "SOME WORDS"
    assert transforms["args"]["value"] == repr("  SOME WORDS")
    assert transforms["dict args"]["value"] == repr("SOME WORDS  ")
    assert refusal(transforms["failing"]) == ("AISError", 422)
    assert "ValueError: told to fail" in transforms["failing"]["message"]


def test_sdk_copies_and_transforms_buckets(sdk):
    jobs = sdk["jobs"]
    assert jobs["copy"] == jobs["transform"] == jobs["dry run"] == [True, "", True]
    assert (jobs["copied"], jobs["source"]) == (40, 40)
    assert jobs["idle"] == [True, True]
    size = sum(len(f"words {number}") for number in range(40))
    assert jobs["snap"] == [["copy-bck", "sdk-jobs", "sdk-jobs-copy", 40, size, True]]
    assert (jobs["timeframe"], jobs["total time"], jobs["listed"]) == ([True], True, True)
    assert jobs["made"] == {f"{number:02}.TXT": f"WORDS {number}" for number in range(10)}


def test_sdk_is_told_how_jobs_fail(sdk):
    jobs = sdk["jobs"]
    success, error, ended = jobs["errors"]
    assert (success, ended, jobs["errors idle"]) == (False, True, True)
    assert error.startswith("6 objects failed")
    assert jobs["details"] == [f"ais://sdk-jobs/{number:02}.txt" for number in range(0, 40, 7)]
    assert jobs["first error"][0] is False
    assert "ValueError: not" in jobs["first error"][1]
    assert jobs["aborted"] == [False, "stopped by request", True]
    assert refusal(jobs["unknown"])[1] == refusal(jobs["unknown kind"])[1] == 404
    assert refusal(jobs["into itself"])[1] == 400
    assert refusal(jobs["from missing"]) == ("ErrBckNotFound", 404)
    assert refusal(jobs["missing etl"]) == ("ErrETLNotFound", 404)


def test_sdk_views_stops_and_starts_a_transform(sdk):
    transforms = sdk["transforms"]
    assert transforms["listed"] == [["sdk-picky", "Running"], ["upper-etl", "Running"]]
    assert transforms["listed stopped"] == [["upper-etl", "Aborted"]]
    assert transforms["view"] == {"name": "upper-etl", "communication": "hpush://", "errors": []}
    ((node, logs),) = transforms["logs"]
    assert node
    assert "upper is ready" in logs
    assert transforms["stopped twice"]["error"] is None
    assert refusal(transforms["start running"])[1] == 409
    assert refusal(transforms["read stopped"])[1] == 409
    for case, said in {**transforms["missing"], "deleted": transforms["deleted"]}.items():
        assert refusal(said) == ("ErrETLNotFound", 404), case


def test_sdk_is_told_at_once_what_this_store_does_not_do(sdk):
    assert len(sdk["refused"]) > 9
    for case, said in sdk["refused"].items():
        assert refusal(said) == ("AISError", 501), case
        assert "not supported by this store" in said["message"] or case == "info", case


def test_sdk_goes_on_reading_after_the_connection_broke(sdk):
    assert sdk["resumed"] == {"same": True, "cuts left": 0}


@pytest.fixture(scope="module")
def old(index: Index, module_shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the client of 2021 gets from a store.

    Beside it is installed what is beside many a client: a project that no index has.
    """
    more = tmp_path_factory.mktemp("more")
    (more / "project_of_mine-0.1.dist-info").mkdir()
    (more / "project_of_mine-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: project-of-mine\nVersion: 0.1\n"
    )
    (more / "project_of_mine.py").write_text("def shout(data):\n    return data.upper()\n")
    python = index.environment("client-2021", *CLIENT_2021)
    module_shell(
        "ais create ais://old && printf 'some words' | ais put - ais://old/train/words && "
        "printf 'more words' | ais put - 'ais://old/train/more words'"
    )
    module_shell(
        "mkdir shard && cd shard && printf 7 > a.cls && printf text > a.txt && printf 8 > b.cls && tar cf s.tar *"
    )
    module_shell("ais put shard/s.tar ais://old/train/shard.tar")
    return run(python, "client_2021.py", module_shell.endpoint, more=more)


def test_old_client_lists_and_reads(old, module_shell):
    assert old["listing"]["all"] == old["listing"]["prefix"] == ["train/more words", "train/shard.tar", "train/words"]
    assert old["listing"]["none"] == []
    assert old["listing"]["missing"]["status"] == 404
    assert (old["object"], old["space"]) == ("some words", "more words")
    assert "ais://old/no/such does not exist" in old["missing"]
    assert old["targets"] == [module_shell.endpoint]
    assert old["urls"][0] == f"{module_shell.endpoint}/v1/objects/old/train/0.tar?provider=ais&uuid=some-etl"


@pytest.mark.parametrize(
    ("communication", "results"),
    [("io://", ["Some Words", "More Words"]), ("hpush://", ["sdrow emos", "sdrow erom"])],
)
def test_old_client_makes_a_transform_from_code(old, communication, results):
    made = old["transforms"][communication]
    assert (made["result"], made["objects"]) == (results[0], results)
    assert made["name"] == "old-io-etl" or communication == "hpush://"
    assert "does not exist" in made["failing"]
    assert made["stop"] == 200
    assert "Aborted (stopped)" in made["stopped"]


def test_old_client_is_told_what_is_wrong(old):
    assert "etl job old-io-etl already exists" in old["transforms"]["twice"]
    assert "SyntaxError" in old["transforms"]["broken"]
    assert old["transforms"]["stop missing"] == 404
    assert "old-io-etl is Aborted (stopped)" in old["bucket"]
    assert "spec is missing" in old["specification"]


def test_old_client_sends_a_function_and_every_package_that_it_has(old, module_shell):
    pickled = old["pickled"]
    assert {"aistore==0.0.6", "cloudpickle==2.0.0", "project-of-mine==0.1"} <= set(pickled["dependencies"])
    assert pickled["name"] == "old-pickled"
    assert zlib.decompress(base64.b64decode(pickled["result"])) == b"some words"
    log = module_shell("ais etl logs old-pickled")
    assert "Warning: left out" in log
    assert log.splitlines()[0].endswith(": project-of-mine==0.1")


def test_old_client_transforms_the_samples_of_a_shard(old):
    shard = old["pickled"]["shard"]
    assert (shard["name"], shard["members"]) == ("old-shard", {"a.cls": "7", "a.txt": "text", "b.cls": "8"})


def test_old_client_is_told_that_a_function_needs_what_was_left_out(old):
    said = json.loads(old["pickled"]["of mine"])
    assert "No module named 'project_of_mine'" in said["message"]
    assert said["hint"].endswith(": project-of-mine==0.1")


#: The transform of the old Dataset's pictures: any picture to a small one.
SMALL = """
import io, sys
from PIL import Image
Image.open(io.BytesIO(sys.stdin.buffer.read())).resize((32, 32)).save(sys.stdout.buffer, "JPEG")
"""


@pytest.mark.torch
def test_old_dataset_in_a_data_loader(old, index: Index, module_store: StoreProcess, module_shell: Shell):
    for package in ("torch", "torchvision"):
        pytest.importorskip(package, reason=f"the Dataset of 2021 needs {package}")
    image = pytest.importorskip("PIL.Image", reason="the Dataset of 2021 needs pillow")
    pictures = module_shell.directory / "pictures"
    pictures.mkdir()
    for number in range(8):
        image.new("RGB", (50 + number, 40), (number * 30, 0, 0)).save(pictures / f"{number}.jpg")
        (pictures / f"{number}.cls").write_text(str(number))
    (module_shell.directory / "small.py").write_text(SMALL)
    module_shell("ais create ais://pictures && ais put pictures/ ais://pictures/train/ -r -y")
    module_shell("ais etl init code --name small-etl --from-file small.py --comm-type io://")
    python = index.environment("client-2021", *CLIENT_2021)
    read = run(python, "dataset_2021.py", module_store.endpoint, sysconfig.get_path("purelib"))
    assert read["client"].startswith(str(python.parents[1])), "the Dataset was not the old client's"
    assert read["labels"] == list(range(8))
    assert read["shapes"] == [[4, 3, 32, 32]] * 2


def test_the_clients_run_where_this_project_is_not(index: Index):
    python = index.environment("sdk-2.0.0", "aistore==2.0.0")
    done = subprocess.run([python, "-m", "pip", "show", "pyaistore"], capture_output=True, timeout=PATIENCE)
    assert done.returncode != 0
    assert python != Path(sys.executable)

"""All that NVIDIA's SDK does with transforms of a store, as JSON. Runs where that SDK is, and this project is not.

python sdk_etl.py ENDPOINT

There are transforms "sdk-upper" (capitals, and its arguments at the end), "sdk-reverse" (backwards) and "sdk-picky"
(refuses what ends with 7).
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from aistore.sdk import Client
from aistore.sdk.etl import ETLConfig
from sdk import outcome

WORDS = {f"{number:02}.txt": f"words {number}" for number in range(30)}
JOB_SECONDS = 120


def texts(bucket: Any, prefix: str = "") -> dict[str, str]:
    return {found.name: found.get_reader().read_all().decode() for found in bucket.list_all_objects_iter(prefix=prefix)}


def waited(job: Any) -> list[Any]:
    """Return how a job ended: whether it did all of its work, and its error."""
    result = job.wait(timeout=JOB_SECONDS)
    return [result.success, result.error or ""]


def inline(client: Client, source: Any) -> dict[str, Any]:
    words = source.object("01.txt")
    upper, reverse, picky = (client.etl(f"sdk-{name}") for name in ("upper", "reverse", "picky"))

    def read(etl: Any, **options: Any) -> str:
        return words.get_reader(etl=etl, **options).read_all().decode()

    found: dict[str, Any] = {
        "name": read(ETLConfig("sdk-upper")),
        "etl": read(ETLConfig(upper)),
        "text": read(ETLConfig(upper, args="!?")),
        "dict": read(ETLConfig("sdk-upper", args={"w": 1, "h": [2]})),
        "pipeline": read(ETLConfig(upper >> reverse)),
        "three": read(ETLConfig(upper >> reverse >> picky, args="!")),
        "latest": read(ETLConfig(upper >> reverse), latest=True),
        "direct": read(ETLConfig(upper >> reverse), direct=True),
        "none": read(ETLConfig(None)),
        "stages": [upper.pipeline, (upper >> reverse >> picky).pipeline],
    }
    reader = words.get_reader(etl=ETLConfig(upper >> reverse), chunk_size=3)
    found["chunks"] = [bytes(chunk).decode() for chunk in reader]
    with words.get_reader(etl=ETLConfig(upper)).as_file() as file:
        found["file"] = file.read().decode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "written"
        with path.open("wb") as file:
            words.get_reader(etl=ETLConfig(upper), writer=file)
        found["written"] = path.read_text()
    urls = [
        words.get_url(etl=ETLConfig("sdk-upper")),
        next(iter(source.list_urls(prefix="01", etl=ETLConfig("sdk-upper")))),
        next(iter(source.objects(obj_names=["01.txt"]).list_urls(etl=ETLConfig("sdk-upper")))),
    ]
    found["urls"] = [urllib.request.urlopen(url).read().decode() for url in urls]
    found["refused by the third"] = outcome(
        lambda: source.object("07.txt").get_reader(etl=ETLConfig(upper >> picky)).read_all()
    )
    found["missing stage"] = outcome(lambda: read(ETLConfig(upper >> client.etl("etl-that-is-not"))))
    found["loop"] = outcome(lambda: read(ETLConfig(upper >> reverse >> upper)))
    found["range"] = outcome(lambda: read(ETLConfig(upper), byte_range="bytes=0-2"))
    found["long arguments"] = outcome(lambda: read(ETLConfig(upper, args="a" * 70_000)))
    return found


def copies(client: Client, source: Any) -> dict[str, Any]:
    target, words = client.bucket("sdk-etl-copies").create(), source.object("01.txt")
    words.get_writer().set_custom_props({"colour": "blue"})
    upper, reverse = client.etl("sdk-upper"), client.etl("sdk-reverse")
    statuses = [
        words.copy(target.object("plain")).status_code,
        words.copy(target.object("upper"), etl=ETLConfig(upper, args="!")).status_code,
        words.copy(target.object("line"), etl=ETLConfig(upper >> reverse), latest=True).status_code,
        words.copy(source.object("copied/upper"), etl=ETLConfig("sdk-upper")).status_code,
    ]
    found = {"statuses": statuses, "made": texts(target), "beside": texts(source, "copied/")}
    found["custom"] = target.object("line").head("custom").custom_metadata
    found["refused"] = {
        "missing bucket": outcome(lambda: words.copy(client.bucket("sdk-none").object("x"), etl=ETLConfig(upper))),
        "missing object": outcome(lambda: source.object("none").copy(target.object("x"))),
        "missing stage": outcome(
            lambda: words.copy(target.object("x"), etl=ETLConfig(upper >> client.etl("etl-that-is-not")))
        ),
        "failing": outcome(lambda: source.object("07.txt").copy(target.object("x"), etl=ETLConfig("sdk-picky"))),
        "onto itself": outcome(lambda: words.copy(words, etl=ETLConfig(upper))),
        "synchronized": outcome(lambda: words.copy(target.object("x"), sync=True)),
    }
    found["not made"] = outcome(target.object("x").head)
    source.object("copied/upper").delete()
    return found


def jobs(client: Client, source: Any) -> dict[str, Any]:
    made, some = client.bucket("sdk-etl-made"), client.bucket("sdk-etl-some")
    transform = source.transform(
        "sdk-upper", made, etl_pipeline=["sdk-reverse"], prefix_filter="0", prepend="p/", ext={"txt": "TXT"},
        num_workers=-1,
    )  # fmt: skip
    job = client.job(transform, job_kind="etl-bck")
    found: dict[str, Any] = {"transform": waited(job), "made": texts(made)}
    found["workers"] = job.get_details().get_num_workers()

    group = source.objects(obj_template="{01..03}.txt")
    begun = client.job(group.transform(some, "sdk-upper", etl_pipeline=["sdk-reverse"], ext={"txt": "TXT"}))
    found["group"] = [waited(begun), begun.job_kind, begun.wait_for_idle(timeout=JOB_SECONDS).success]
    found["some"] = texts(some)
    names = source.objects(obj_names=["04.txt", "05.txt"])
    (copied,) = names.copy(some, prepend="c/", num_workers=2)
    found["group copy"] = [waited(client.job(copied)), texts(some, "c/")]
    running = client.cluster().list_running_jobs()
    found["idle ones"] = sorted({one.partition("[")[0] for one in running})

    inspected = client.job(source.inspect("sdk-picky", etl_pipeline=["sdk-upper"]))
    found["inspect"] = waited(inspected)
    found["inspected"] = {
        name: sorted(error.obj_name for error in client.etl(name).view(inspected.job_id).obj_errors or ())
        for name in ("sdk-picky", "sdk-upper")
    }
    found["messages"] = [error.msg for error in client.etl("sdk-picky").view(inspected.job_id).obj_errors or ()]
    lone = client.job(source.objects(obj_names=["07.txt", "08.txt"]).inspect("sdk-picky"))
    lone.wait(timeout=JOB_SECONDS)
    found["inspect group"] = [error.obj_name for error in client.etl("sdk-picky").view(lone.job_id).obj_errors or ()]
    found["source"] = len(texts(source))

    strict = client.job(source.objects(obj_names=["07.txt", "08.txt"]).transform(some, "sdk-picky"))
    found["strict"] = waited(strict)
    left = client.job(
        source.objects(obj_names=["06.txt", "none"]).transform(some, "sdk-picky", prepend="l/", continue_on_error=True)
    )
    left.wait(timeout=JOB_SECONDS)
    found["left out"] = [
        texts(some, "l/"),
        [error.obj_name for error in client.etl("sdk-picky").view(left.job_id).obj_errors],
    ]
    found["refused"] = {
        "missing etl": outcome(lambda: group.transform(some, "etl-that-is-not")),
        "missing stage": outcome(lambda: source.transform("sdk-upper", some, etl_pipeline=["etl-that-is-not"])),
        "missing stage of a group": outcome(lambda: group.transform(some, "sdk-upper", etl_pipeline=["etl-is-not"])),
        "loop": outcome(lambda: source.transform("sdk-upper", some, etl_pipeline=["sdk-reverse", "sdk-upper"])),
        "bad template": outcome(lambda: source.objects(obj_template="{z..a}").transform(some, "sdk-upper")),
        "bad time": outcome(lambda: group.transform(some, "sdk-upper", timeout="soon")),
    }
    return found


def life(client: Client, source: Any) -> dict[str, Any]:
    words = source.object("01.txt")
    found: dict[str, Any] = {"listed": sorted(info.id for info in client.cluster().list_etls())}
    upper = client.etl("sdk-upper")
    found["logs"] = [
        [log.logs, [again.target_id for again in upper.logs(log.target_id)] == [log.target_id]] for log in upper.logs()
    ]
    details = upper.view()
    found["view"] = [details.init_msg.name, details.init_msg.communication]
    upper.stop()
    found["stopped"] = outcome(lambda: words.get_reader(etl=ETLConfig(client.etl("sdk-reverse") >> upper)).read_all())
    found["job of a stopped one"] = outcome(
        lambda: source.transform("sdk-reverse", client.bucket("sdk-none"), etl_pipeline=["sdk-upper"])
    )
    upper.start()
    with client.etl("sdk-upper") as entered:
        found["inside"] = words.get_reader(etl=ETLConfig(entered)).read_all().decode()
    found["after"] = [outcome(upper.view), sorted(info.id for info in client.cluster().list_etls())]
    return found


def main() -> None:
    client = Client(sys.argv[1])
    source = client.bucket("sdk-etl-source").create()
    for name, text in WORDS.items():
        source.object(name).get_writer().put_content(text.encode())
    found = {part.__name__: part(client, source) for part in (inline, copies, jobs, life)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

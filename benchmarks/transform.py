"""What a warm transform costs: against a process per object, against the bare function, and empty.

    python benchmarks/transform.py [--pictures DIR] [--rounds 3] [--seconds 4]

Needs torch and torchvision for the ImageNet script (examples/imagenet/code.py), ``wrk`` for the load.

- *process per object*: ``python code.py < picture``, one at a time: what ``io://`` meant in 2021. Counted per core.
- *plain loop*: the same work as a function in a loop, in one process per core, without any store.
- *calling the function*: the same in one process, which is what a GET over one connection is compared with.
- *store*: GET ``?uuid=`` over HTTP with as many connections as it takes to keep every worker busy. The load generator
  and the HTTP workers share the cores with the transform, so this is everything, end to end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import wrk
from harness import cpu_seconds, interleave, print_table

from aistore import Client
from aistore.testing import StoreProcess

#: Measures GETs through a transform, by its name, over so many connections.
Through = Callable[[str, int], dict[str, float]]

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CORES = len(os.sched_getaffinity(0))

#: The script's body as a function, so that both sides do the same work on the same bytes.
_LOOP = """
import io, sys, time
from PIL import Image
import torch
from torchvision import transforms
torch.set_num_threads(1)
preprocess = transforms.Compose([
    transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
    transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]), transforms.ToPILImage(),
])
def work(data):
    out = io.BytesIO()
    preprocess(Image.open(io.BytesIO(data)).convert("RGB")).save(out, format="JPEG")
    return out.getvalue()
"""


#: The same as a transform of its own.
_FUNCTION = _LOOP + "\ndef transform(data):\n    return work(data)\n"


def loop_process(files: list[str], seconds: float, barrier: object, results: object) -> None:
    """Run the function over the files for some seconds; report objects per second, CPU seconds of each, each's time."""
    scope: dict[str, object] = {}
    exec(_LOOP, scope)
    data = [Path(file).read_bytes() for file in files]
    work = scope["work"]
    work(data[0])  # type: ignore[operator]
    barrier.wait()  # type: ignore[attr-defined]
    times: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    while (begun := time.perf_counter()) - start < seconds:
        work(data[len(times) % len(data)])  # type: ignore[operator]
        times.append(time.perf_counter() - begun)
    count, elapsed = len(times), time.perf_counter() - start
    used = (time.process_time() - cpu) / count
    results.put((count / elapsed, used, times))  # type: ignore[attr-defined]


def plain_loop(files: list[str], seconds: float, count: int = CORES) -> dict[str, float]:
    """Return objects per second of some processes (one per core) together, and the time and CPU of each object."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    processes = [context.Process(target=loop_process, args=(files, seconds, barrier, results)) for _ in range(count)]
    for process in processes:
        process.start()
    figures = [results.get() for _ in processes]
    for process in processes:
        process.join()
    times = sorted(one for _, _, times in figures for one in times)
    return {
        "objects/s": sum(rate for rate, _, _ in figures),
        "CPU ms/object": 1000 * sum(cpu for _, cpu, _ in figures) / count,
        "p50 ms": 1000 * times[len(times) // 2],
        "p99 ms": 1000 * times[len(times) * 99 // 100],
    }


def process_per_object(files: list[str], code: str) -> dict[str, float]:
    """Return the rate of a new interpreter for each object, on all cores (two objects per core measured)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    start, used = time.perf_counter(), time_of_children()
    for batch in range(2):
        processes = []
        for core in range(CORES):
            with open(files[(batch * CORES + core) % len(files)], "rb") as picture:
                command = [sys.executable, code]
                processes.append(subprocess.Popen(command, stdin=picture, stdout=subprocess.DEVNULL, env=environment))
        for process in processes:
            if process.wait() != 0:
                raise RuntimeError("the script failed as a process of its own")
    elapsed = time.perf_counter() - start
    return {"objects/s": 2 * CORES / elapsed, "CPU ms/object": 1000 * (time_of_children() - used) / (2 * CORES)}


def time_of_children() -> float:
    """Return CPU seconds of children that ended."""
    times = os.times()
    return times.children_user + times.children_system


def make_pictures(folder: str) -> list[str]:
    """Make pictures of ImageNet's size where no folder of real ones was given."""
    subprocess.run(
        [sys.executable, str(EXAMPLES / "make_samples.py"), folder, "--train", "128", "--val", "1"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return sorted(str(path) for path in Path(folder, "train").glob("*.jpg"))


def store_side(
    store: StoreProcess, etl: str, names: list[str], seconds: int, connections: int, root: str
) -> dict[str, float]:
    """Return the rate of GETs through an ETL and the CPU of the store with its workers."""
    before = cpu_seconds([store.pid])
    port = int(store.endpoint.rpartition(":")[2])
    figures = wrk.get(port, [f"/v1/objects/bench/{name}?uuid={etl}" for name in names], seconds, connections, root)
    used = cpu_seconds([store.pid]) - before
    return {
        "objects/s": figures["req/s"],
        "CPU ms/object": 1000 * used / (figures["req/s"] * seconds),
        "p50 ms": figures["p50 ms"],
        "p99 ms": figures["p99 ms"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", help="folder with *.jpg (default: made from free photographs)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ais-bench-") as root, StoreProcess() as store:
        files = (
            sorted(str(path) for path in Path(options.pictures).rglob("*.jpg"))
            if options.pictures
            else make_pictures(root)
        )
        random.Random(0).shuffle(files)
        files = files[:128]
        measure(options, store, files, root)


def measure(options: argparse.Namespace, store: StoreProcess, files: list[str], root: str) -> None:
    """Deploy the transforms, then interleave the sides."""
    client = Client(store.endpoint)
    client.bucket("bench").create()
    names = [f"{number:04d}.jpg" for number in range(len(files))]
    for name, file in zip(names, files, strict=True):
        client.bucket("bench").object(name).put(Path(file).read_bytes())
    code = EXAMPLES / "imagenet" / "code.py"
    deps = "torch\ntorchvision\npillow\n"
    for name, sandbox in (("imagenet-on", "on"), ("imagenet-off", "off")):
        client.etl(name).init_code(code.read_text(), dependencies=deps, comm_type="io://", sandbox=sandbox)
    client.etl("imagenet-function").init_code(_FUNCTION, dependencies=deps, comm_type="hpush://")
    client.etl("empty-script").init_code("pass\n", comm_type="io://")
    client.etl("empty-function").init_code("def transform(data):\n    return b''\n", comm_type="hpush://")
    busy = 2 * CORES

    def through(etl: str, connections: int) -> dict[str, float]:
        return store_side(store, etl, names, options.seconds, connections, root)

    through("imagenet-on", busy), through("imagenet-off", busy)
    rows = interleave(
        options.rounds,
        {
            "process per object": lambda: {
                **process_per_object(files, str(code)),
                "p50 ms": float("nan"),
                "p99 ms": float("nan"),
            },
            "plain loop, a process per core": lambda: plain_loop(files, options.seconds),
            "store, io://, sandbox on": lambda: through("imagenet-on", busy),
            "store, io://, sandbox off": lambda: through("imagenet-off", busy),
        },
    )
    on, loop = rows["store, io://, sandbox on"], rows["plain loop, a process per core"]
    cold, off = rows["process per object"], rows["store, io://, sandbox off"]
    print_table(
        f"The ImageNet script on {len(files)} pictures, {CORES} cores, median of {options.rounds}", rows,
        f"store / process per object = {on['objects/s'] / cold['objects/s']:.0f}; "
        f"store / plain loop = {on['objects/s'] / loop['objects/s']:.2f} by rate, "
        f"{loop['CPU ms/object'] / on['CPU ms/object']:.2f} by CPU; "
        f"sandbox on / off = {on['objects/s'] / off['objects/s']:.2f} by rate, "
        f"{off['CPU ms/object'] / on['CPU ms/object']:.2f} by CPU",
    )  # fmt: skip
    inline(options, through, files)
    empty(options, through, 4 * busy)


def inline(options: argparse.Namespace, through: Through, files: list[str]) -> None:
    """Compare a GET through a function with calling it."""
    through("imagenet-function", 1)
    rows = interleave(
        options.rounds,
        {
            "calling the function": lambda: plain_loop(files, options.seconds, 1),
            "GET through it, sandbox on": lambda: through("imagenet-function", 1),
        },
    )
    added = rows["GET through it, sandbox on"]["p50 ms"] - rows["calling the function"]["p50 ms"]
    print_table(f"One picture after the other, median of {options.rounds}", rows, f"adds {added:.2f} ms at the median")


def empty(options: argparse.Namespace, through: Through, connections: int) -> None:
    """Measure what is left when a transform does nothing."""
    rows = interleave(
        options.rounds,
        {
            "empty script, 1 connection": lambda: through("empty-script", 1),
            f"empty script, {connections} connections": lambda: through("empty-script", connections),
            "empty function, 1 connection": lambda: through("empty-function", 1),
            f"empty function, {connections} connections": lambda: through("empty-function", connections),
        },
    )
    rates = ", ".join(f"{1000 / figures['CPU ms/object']:,.0f}" for figures in rows.values())
    note = f"requests per CPU second of store and worker: {rates}"
    print_table(f"Empty transforms on pictures, median of {options.rounds}", rows, note)


if __name__ == "__main__":
    main()

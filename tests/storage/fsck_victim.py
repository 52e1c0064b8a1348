"""A process that works on a store until it is killed, and says on its standard output what was acknowledged.

Each line is JSON: ["begin", name, kind, seed] before an operation, ["done", name, version] after its acknowledgement.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading

from aistore.errors import ObjectNotFoundError
from aistore.model.objects import PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.reclaim import Reclaimer
from aistore.storage.local.settings import LocalSettings

SIZES = (0, 3, 256, 257, 4096, 20_000, 300_000)


def content(seed: int) -> bytes:
    """The bytes of a write are a function of its seed, so that the parent can tell which write it finds."""
    random_source = random.Random(seed)
    return random_source.randbytes(random_source.choice(SIZES))


def say(*words: object) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


def work(engine: LocalEngine, thread: int, source: random.Random) -> None:
    """Loop over names of this thread's own, so that the order of its operations is known."""
    while True:
        name = f"{thread}/{source.randrange(12)}"
        kind = source.choice(("put", "put", "stage", "delete", "custom", "abort"))
        seed = source.getrandbits(48)
        say("begin", name, kind, seed)
        options = PutOptions(custom={"seed": str(seed)})
        try:
            if kind == "put":
                engine.put("b", name, content(seed), options).result()
            elif kind in ("stage", "abort"):
                staging = engine.stage("b", name, options)
                data = content(seed)
                for start in range(0, len(data), 7_000):
                    staging.write(data[start : start + 7_000])
                if kind == "stage":
                    staging.commit().result()
                else:
                    staging.abort()
            elif kind == "delete":
                engine.delete("b", name).result()
            else:
                engine.set_custom("b", name, {"note": str(seed)}, replace=False).result()
        except ObjectNotFoundError:
            pass
        say("done", name)


def main() -> None:
    directory, seed = sys.argv[1], int(sys.argv[2])
    engine = LocalEngine(directory, LocalSettings(generation_files_max=20))
    # Two engines in one process are as good as two processes here, and die at the same instant.
    other = LocalEngine(directory, LocalSettings(generation_files_max=20))
    for thread in range(4):
        source = random.Random(seed * 100 + thread)
        one = engine if thread % 2 else other
        threading.Thread(target=work, args=(one, thread, source), daemon=True).start()
    reclaimer, now = Reclaimer(directory, grace_seconds=0.0), 0.0
    while True:  # every step is a round of its own: seals, unlinks and checkpoints all the time
        now += 0.25
        reclaimer.step(now)


if __name__ == "__main__":
    main()

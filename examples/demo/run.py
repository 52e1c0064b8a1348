"""The whole main job on one machine, each step as a person would type it.

    python examples/demo/run.py [--output demo-output]

Makes pictures, starts a store, loads them, deploys transforms, reads transformed pictures, trains a small model on
them for some epochs, and leaves ``before_after.png``. Exits non-zero if a step fails or the loss does not fall.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from aistore.testing import StoreProcess

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent


class Demo:
    """Prints and runs commands against one store."""

    def __init__(self, output: Path, endpoint: str = "") -> None:
        self.output = output
        self.env = {**os.environ, "AIS_ENDPOINT": endpoint}
        self.started = time.monotonic()

    def say(self, text: str) -> None:
        print(f"\n# {text}  ({time.monotonic() - self.started:.0f} s)", flush=True)

    def run(self, *command: str | Path) -> None:
        """Print a command as it would be typed, then run it."""
        words = [str(word) for word in command]
        shown = " ".join(word.replace(str(Path.cwd()) + "/", "") for word in words)
        print(f"$ {shown.replace(sys.executable, 'python')}", flush=True)
        if words[0] == "ais":
            words[:1] = [sys.executable, "-m", "aistore"]
        subprocess.run(words, check=True, env=self.env)

    def everything(self, epochs: int) -> None:
        """Run the steps, one after the other."""
        pictures = self.output / "pictures"
        ais, endpoint = "ais", self.env["AIS_ENDPOINT"]
        self.say("Load the pictures into a bucket")
        self.run(ais, "create", "ais://imagenet")
        self.run(ais, "put", pictures, "ais://imagenet", "-r", "-y")
        self.run(ais, "ls", "ais://imagenet/train/000000")
        self.say("Deploy a transform: a script, the packages it needs, and what runs it")
        deploy = ("--deps-file", HERE / "deps.txt", "--runtime", "python3")
        init = (ais, "etl", "init", "code", "--name")
        self.run(*init, "my-first-etl", "--from-file", HERE / "code.py", *deploy, "--comm-type", "io://")
        self.run(ais, "etl", "list")
        self.say("Read transformed pictures")
        self.run(ais, "etl", "object", "my-first-etl", "ais://imagenet/train/0000001.jpg", self.output / "out.jpg")
        self.read_twice(f"{endpoint}/v1/objects/imagenet/train/0000001.jpg?uuid=my-first-etl")
        grid = self.output / "before_after.png"
        self.run(sys.executable, EXAMPLES / "before_after.py", "ais://imagenet/train/", "my-first-etl", grid)
        self.say("Deploy what the training reads through: raw pixels, random for training, fixed for validation")
        for name, file in (("my-train-etl", "train_etl.py"), ("my-second-etl", "val_etl.py")):
            self.run(*init, name, "--from-file", HERE / file, *deploy, "--comm-type", "hpush://")
        self.say("Train on pictures that the store transforms")
        log = self.output / "epochs.jsonl"
        log.unlink(missing_ok=True)
        self.run(
            sys.executable, EXAMPLES / "imagenet" / "train.py", "--endpoint", endpoint, "--bucket", "imagenet",
            "--etl", "my-train-etl", "--val-etl", "my-second-etl", "--classes", "8", "--arch", "small",
            "--epochs", str(epochs), "--batch-size", "32", "--lr", "0.05", "--workers", "2", "--seed", "1",
            "--output", self.output, "--log", log,
        )  # fmt: skip
        self.check_loss(log)
        self.run(ais, "etl", "list")

    def read_twice(self, url: str) -> None:
        """Read one picture twice over plain HTTP: a random transform gives two different ones."""
        print(f"$ curl '{url}' -o out.jpg   # twice", flush=True)
        first, second = (urllib.request.urlopen(url).read() for _ in range(2))
        print(f"{len(first)} and {len(second)} bytes, {'different' if first != second else 'THE SAME'}")
        if first == second:
            sys.exit("two reads through a random transform gave the same bytes")

    def check_loss(self, log: Path) -> None:
        """Print the loss of each epoch; exit if it did not fall."""
        losses = [json.loads(line)["train_loss"] for line in log.read_text().splitlines()]
        print("loss by epoch: " + ", ".join(f"{loss:.3f}" for loss in losses))
        if not losses[-1] < losses[0]:
            sys.exit("the loss did not fall")


def main() -> None:
    """Run the demo in a store of its own, on a free port."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--pictures", type=int, default=256, help="training pictures to make")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    demo = Demo(output)
    demo.say("Make labelled pictures out of free photographs")
    shutil.rmtree(output / "pictures", ignore_errors=True)
    counts = ("--train", str(options.pictures), "--val", "64")
    demo.run(sys.executable, EXAMPLES / "make_samples.py", output / "pictures", *counts)
    demo.say("Start a store")
    print("$ ais serve &", flush=True)
    with StoreProcess() as store:
        print(f"ready at {store.endpoint}", flush=True)
        demo.env["AIS_ENDPOINT"] = store.endpoint
        demo.everything(options.epochs)
    demo.say(f"Done: see {output / 'before_after.png'}. The demo's store is stopped and its data removed")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The demo's store is stopped and its data removed.")
    except subprocess.CalledProcessError as error:
        sys.exit(f"\nA step failed with exit status {error.returncode}; its words are above.")

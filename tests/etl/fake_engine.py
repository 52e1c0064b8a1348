#!/usr/bin/env python3
"""A container engine as the store uses one, by its command line: it starts real processes, in a network of their own.

Its state is a directory, ``$FAKE_ENGINE``: ``images/<name>`` holds the command of an image, as JSON; ``<name>`` is a
container. What it does not know it refuses as the real ones do.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

STATE = os.environ.get("FAKE_ENGINE", "")
FLAGS = {"--read-only"}
OPTIONS = {
    "--name", "--label", "--log-driver", "--volume", "--ulimit", "--cap-drop", "--security-opt", "--pids-limit",
    "--tmpfs", "--network", "--publish", "--memory", "--memory-swap", "--cpus", "--entrypoint", "--env",
}  # fmt: skip


def fail(message: str, status: int = 1) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)


def read(name: str) -> dict[str, Any]:
    try:
        with open(os.path.join(STATE, name), encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
            return found
    except (FileNotFoundError, ValueError):
        fail(f"Error: no such container {name}")
        raise


def write(name: str, container: dict[str, Any]) -> None:
    path = os.path.join(STATE, name)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(container, file)
    os.replace(path + ".new", path)


def run(arguments: list[str]) -> None:
    given: dict[str, list[str]] = {}
    while arguments and arguments[0].startswith("-"):
        option, _, value = arguments.pop(0).partition("=")
        if option in FLAGS:
            given[option] = ["true"]
        elif option in OPTIONS:
            given.setdefault(option, []).append(value or arguments.pop(0))
        else:
            fail(f"unknown flag: {option}", 125)
    image, command = arguments[0], arguments[1:]
    name = given["--name"][0]
    if os.path.exists(os.path.join(STATE, name)):
        fail(f"Error: the container name {name} is already in use", 125)
    try:
        with open(os.path.join(STATE, "images", image.replace("/", "_")), encoding="utf-8") as file:
            made_from = json.load(file)
    except FileNotFoundError:
        fail(f"Error: initializing source docker://{image}: requested access to the resource is denied", 125)
    command = [*given["--entrypoint"], *command] if "--entrypoint" in given else command or made_from["command"]
    env = {"PATH": os.environ["PATH"]}
    for each in given.get("--env", []):
        key, assigned, value = each.partition("=")
        env[key] = value if assigned else os.environ[key]
    container = {"labels": dict(each.split("=") for each in given["--label"]), "given": given, "pid": 0, "env": env}
    write(name, container)
    process = subprocess.Popen(
        command, env=env, cwd="/", start_new_session=True, stdin=subprocess.DEVNULL,
        preexec_fn=own_network if given.get("--network") == ["none"] else None,
    )  # fmt: skip
    write(name, {**container, "pid": process.pid})
    status = process.wait()
    with contextlib.suppress(SystemExit):
        write(name, {**read(name), "pid": 0})
    sys.exit(status if status >= 0 else 128 - status)


def own_network() -> None:
    """Enter a new network with a loopback interface that is up: unshare(2), netdevice(7)."""
    if ctypes.CDLL(None).unshare(0x40000000):
        raise OSError("no network of its own")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control.fileno(), 0x8914, struct.pack("16sH22x", b"lo", 0x1))


def end(name: str) -> None:
    pid = read(name)["pid"]
    if not pid:
        fail(f"Error: container {name} is not running")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    while alive(pid):
        time.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def containers(arguments: list[str]) -> None:
    labels, names = [], []
    for argument in arguments:
        kind, _, value = argument.partition("=")
        if kind == "label":
            labels.append(value)
        elif kind == "name":
            names.append(value.strip("^$"))
    for name in sorted(os.listdir(STATE)):
        path = os.path.join(STATE, name)
        if os.path.isdir(path) or name.endswith(".new"):
            continue
        container = read(name)
        its = [f"{key}={value}" for key, value in container["labels"].items()]
        if set(labels) <= set(its) and (not names or name in names):
            run_label = next((value for key, value in container["labels"].items() if key.endswith(".run")), "")
            print(name if "-q" in arguments else f"{name} {run_label}")


def main() -> None:
    verb, arguments = sys.argv[1], sys.argv[2:]
    if not STATE:
        fail("Cannot connect to the engine")
    if verb == "run":
        run(arguments)
    elif verb == "inspect":
        pid = read(arguments[-1])["pid"]
        print("true" if pid and alive(pid) else "false", pid)
    elif verb == "port":
        print(f"127.0.0.1:{read(arguments[0])['env']['PORT']}")
    elif verb == "kill":
        end(arguments[0])
    elif verb == "rm":
        if read(arguments[-1])["pid"]:
            with contextlib.suppress(SystemExit):
                end(arguments[-1])
        os.unlink(os.path.join(STATE, arguments[-1]))
    elif verb == "ps":
        containers(arguments)
    else:
        fail(f"unknown command {verb}")


if __name__ == "__main__":
    main()

"""Cuts the power of a disk that a store works on, looks at what is there afterwards, and prints what it did, as JSON.

``power_cut_run.py POLICY CUTS SEED DIRECTORY``. The disk is an ext4 on a loop device, so this needs root. The cut is
ext4's own shutdown: from that call on nothing reaches the device any more, and what the page cache has is dropped. What
a device loses of its own cache is not simulated; the kernel's flushes are taken to work.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ledger as ledgers
from kill_run import Run, fork_away
from ledger import CREATE, DESTROY, MIXED, work

from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.layout import open_directory
from aistore.storage.local.reclaim import Reclaimer
from aistore.storage.local.recovery import recover
from aistore.storage.local.settings import LocalSettings

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
_DISK_BYTES = 192 << 20
LANES = 4


class Disk:
    """A file system on a loop device."""

    def __init__(self, directory: str) -> None:
        self._image, self.mounted = f"{directory}/image", f"{directory}/disk"
        os.mkdir(self.mounted)
        with open(self._image, "wb") as file:
            file.truncate(_DISK_BYTES)
        call("mkfs.ext4", "-q", self._image)
        self._device = call("losetup", "--find", "--show", self._image)

    def mount(self) -> None:
        """Mount it; again if a mount namespace of somebody else still has it as it was when its power was cut."""
        deadline = time.monotonic() + 30
        while True:
            call("mount", "-t", "ext4", self._device, self.mounted)
            try:
                Path(self.mounted, "probe").touch()
                return
            except OSError:
                self.unmount()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def cut_power(self) -> None:
        descriptor = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        call("umount", self.mounted)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.mounted], capture_output=True, check=False)
        call("losetup", "--detach", self._device)
        os.unlink(self._image)


def call(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise OSError(0, f"{command[0]}: {result.stderr.strip()}")
    return result.stdout.strip()


@contextmanager
def disk_in(directory: str) -> Iterator[Disk]:
    disk = Disk(directory)
    try:
        disk.mount()
        yield disk
    finally:
        disk.close()


def why_not(directory: str) -> str:
    """Return why no power can be cut here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for a loop device"
    try:
        with disk_in(directory) as disk:
            disk.cut_power()
            disk.unmount()
            disk.mount()
    except OSError as error:
        return f"no disk that can be cut off: {error}"
    os.rmdir(disk.mounted)
    return ""


def busy(run: Run, seed: int, settings: LocalSettings) -> None:
    threading.excepthook = lambda _: None  # threads end when the power goes
    engines = [LocalEngine(run.directory, settings) for _ in range(2)]
    for lane in range(LANES):
        source = random.Random(seed + lane)
        kinds = (CREATE, *source.choices((*MIXED * 12, DESTROY, CREATE, CREATE), k=4000))
        threading.Thread(target=work, args=(engines[lane % 2], run.ledger, lane, source, kinds), daemon=True).start()
    threading.Thread(target=write_back, args=(run, random.Random(seed)), daemon=True).start()
    # A second takes 50 ms here: a round of the reclaimer syncs, and what is replaced stays for four rounds.
    reclaimer, now = Reclaimer(run.directory, grace_seconds=4.0), 0.0
    while True:
        acknowledged, now = run.ledger.acknowledged(), now + 1.0
        while reclaimer.step(now):
            pass
        run.ledger.set_floor(acknowledged)
        time.sleep(0.05)


def write_back(run: Run, source: random.Random) -> None:
    """Bring files to the disk in any order, as the kernel may: the index before what it names, this file, not that."""
    mountpath = open_directory(run.directory)
    while True:
        paths = [f"{mountpath.database}-wal"]
        for generation in os.listdir(mountpath.data):
            directory = f"{mountpath.data}/{generation}"
            paths += [f"{directory}/{file}" for file in os.listdir(directory)[:3]]
        try:
            descriptor = os.open(source.choice([paths[0], *paths]), os.O_RDONLY)
        except OSError:
            continue
        os.fdatasync(descriptor)
        os.close(descriptor)
        time.sleep(source.uniform(0.0, 0.02))


def cut(disk: Disk, run: Run, source: random.Random, settings: LocalSettings) -> int:
    """Let a victim work, cut the power, boot, recover, compare; return the number of objects that were torn."""
    pid = fork_away(lambda: busy(run, source.getrandbits(48), settings))
    time.sleep(source.uniform(0.05, 0.8))
    # Taken before the cut: a sync that the cut comes upon may return without having done anything.
    floor = run.ledger.acknowledged() if settings.durable else run.ledger.floors()
    disk.cut_power()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    run.ledger.set_floor(floor)
    disk.unmount()
    disk.mount()
    Path(run.directory, "mp0", "boot").unlink(missing_ok=True)  # as another boot's would be
    torn = recover(run.directory).objects_torn
    engine = LocalEngine(run.directory)
    try:
        found = [ledgers.observe(engine, f"lane{lane}") for lane in range(LANES)]
    finally:
        engine.close()
    ledgers.check_after_power_cut(run.ledger, run.known, found)
    ledgers.check_files(run.directory)
    run.known = found
    return torn


def main() -> None:
    policy, cuts, seed, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    settings = LocalSettings(generation_files_max=20, reserve_bytes=0, durable=policy == "durable")
    source, torn, operations = random.Random(seed), 0, 0
    with disk_in(directory) as disk:
        run = Run(f"{disk.mounted}/store", LANES)
        for _ in range(cuts):
            torn += cut(disk, run, source, settings)
            operations += sum(run.ledger.acknowledged())
            run.ledger.clear()
        # A change of metadata that was under way may have left its trailer torn behind the one that counts.
        ledgers.check_nothing_left(run.directory, accepted=("trailer",))
    print(json.dumps({"cuts": cuts, "operations": operations, "torn_and_taken_back": torn}))


if __name__ == "__main__":
    main()

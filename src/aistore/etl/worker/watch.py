"""The watch of the guard: what an ETL's processes use together. Too much ends the worst of them.

Control groups would bound this too, but few users may make any. So the guard looks, often enough that nothing can grow
far between two looks, and should the machine run out of memory sooner, the kernel ends a transform before all else
(``oom_score_adj``).

Memory is what the machine has back when the processes end: their private pages (shared ones by their share), swap, page
tables and stacks, and what only descriptors and mappings keep.
"""

import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from . import usage
from .lacking import lacks

_SECONDS_BUSY, _SECONDS_IDLE, _SECONDS_MIN = 0.5, 2.0, 0.05
_CLOSELY_SECONDS = 2.0  # how old what is known of mappings, descriptors and files may be
_COST_MAX = 0.05  # of a core, for looking, unless that were less often than every two seconds
_GROWTH_BYTES_PER_SECOND = 4 << 30  # of one core; measured: 2 to 3 GiB/s are written to new pages
_FILES_MAX = 200_000  # guessed: as where the scratch directory is a file system of its own


class Excess(NamedTuple):
    """Too much of something: what has to be ended, a worker or the parent of all, and what to say."""

    pid: int
    message: str


class Watch:
    """Looks at all that runs below this process, the guard, whose child is the parent of the workers.

    ``uid`` is the user of those processes, if it is not ours: as that user we may look at them without privileges.
    ``bounded``: the scratch directory is a file system of limited size.
    """

    def __init__(self, config: Dict[str, Any], child: int, uid: Optional[int], bounded: bool) -> None:
        self._child = child
        self._user = None if uid is None else (uid, int(config["gid"]))
        self._memory_max = config.get("memory_bytes_max") or 0
        self._processes_max = config.get("processes_max") or 0
        self._disk_max = config.get("disk_bytes_max") or (0 if bounded else config.get("scratch_bytes_max") or 0)
        self._files_max = 0 if config.get("disk_bytes_max") else _FILES_MAX  # an environment may have very many
        self._held = usage.hold(config.get("write", ()))
        self._scratch: str = config.get("scratch", "")
        self._kept = usage.Kept()
        self._looked_closely = 0.0
        self._ticks = -1
        self.wanted = bool(self._memory_max or self._processes_max or self._disk_max) and not lacks("proc")

    def look(self) -> Tuple[Optional[Excess], float]:
        """Return what there is too much of, and after how many seconds to look again."""
        if not self.wanted:
            return None, _SECONDS_IDLE
        begun = time.monotonic()
        if self._user is None:
            excess, pause = self._measure(begun)
        else:
            os.setegid(self._user[1])
            os.seteuid(self._user[0])
            try:
                excess, pause = self._measure(begun)
            finally:
                os.seteuid(0)
                os.setegid(0)
        cost = time.monotonic() - begun
        # However much there is to look at: what makes that much is what must not wait.
        return excess, max(_SECONDS_MIN, min(cost / _COST_MAX, _SECONDS_IDLE), pause)

    def _measure(self, now: float) -> Tuple[Optional[Excess], float]:
        processes = usage.processes_below(self._child)
        closely = now - self._looked_closely >= _CLOSELY_SECONDS
        used = sum(each.private + each.tables for each in processes) + self._kept.total()
        near = bool(self._memory_max) and used > self._memory_max // 2
        excess = self._too_many(processes)
        if excess is None and (closely or near):
            self._looked_closely = now
            excess = self._disk(processes) if closely else None
            excess = excess or self._memory(processes)
        room = max(0, self._memory_max - used) / (_GROWTH_BYTES_PER_SECOND * (os.cpu_count() or 1))
        pause = self._pause(processes)
        return excess, min(room, pause) if self._memory_max else pause

    def _pause(self, processes: List[usage.Process]) -> float:
        """Return how long to wait where nothing is near its limit: longer while nothing runs."""
        before, self._ticks = self._ticks, sum(usage.cpu_ticks(each.pid) for each in processes)
        return _SECONDS_IDLE if self._ticks == before else _SECONDS_BUSY

    def _too_many(self, processes: List[usage.Process]) -> Optional[Excess]:
        threads = sum(each.threads for each in processes)
        if not self._processes_max or threads <= self._processes_max:
            return None
        text = "the transform has {:,} processes and threads, more than its limit of {:,}"
        worst = _worst([(each.branch, each.threads) for each in processes])
        return Excess(worst, text.format(threads, self._processes_max))

    def _memory(self, processes: List[usage.Process]) -> Optional[Excess]:
        if not self._memory_max:
            return None
        hidden = self._kept.look(processes)
        if hidden is not None:
            return Excess(hidden.branch, "a process of the transform hides what memory it uses")
        amounts = [(each.branch, each.private + each.tables) for each in processes]
        if sum(size for _, size in amounts) + self._kept.total() > self._memory_max:
            # Pages that workers share with their parent count once; asking costs more, so only now.
            amounts = [(each.branch, usage.share_of(each) + each.tables) for each in processes]
        used = sum(size for _, size in amounts) + self._kept.total()
        if used <= self._memory_max:
            return None
        amounts += [(branch, size) for key, size in self._kept.sizes.items() for branch in self._kept.branches[key]]
        text = "the transform uses {:,} MiB of memory, more than its limit of {:,} MiB"
        return Excess(_worst(amounts), text.format(used >> 20, self._memory_max >> 20))

    def _disk(self, processes: List[usage.Process]) -> Optional[Excess]:
        """Return what is too much on disk, files included that were removed and are still open."""
        if not self._disk_max:
            return None
        amounts: List[Tuple[int, int]] = []
        try:
            for path, size in usage.files_below(self._held):
                amounts.append((self._branch_of(path, processes), size))
                if self._files_max and len(amounts) > self._files_max:
                    text = "the transform has more than {:,} temporary files"
                    return Excess(_worst([(branch, 1) for branch, _ in amounts]), text.format(self._files_max))
        except OSError as error:  # deeper than a path can name
            text = "the transform has temporary files that cannot be counted: {}"
            return Excess(self._branch_of(str(error.filename), processes), text.format(error.strerror))
        removed = {}
        for each in processes:
            for inode, size in usage.removed_files(each, self._scratch).items():
                removed[inode] = (each.branch, size)
        amounts += removed.values()
        used = sum(size for _, size in amounts)
        if used <= self._disk_max:
            return None
        text = "the transform has {:,} MiB of temporary files, more than its limit of {:,} MiB"
        return Excess(_worst(amounts), text.format(used >> 20, self._disk_max >> 20))

    def _branch_of(self, path: str, processes: List[usage.Process]) -> int:
        """Return the worker whose directory a file is in, else the parent."""
        name = path[len(self._scratch) :].lstrip("/").partition("/")[0]
        number = name.rpartition("-")[2]
        known = number.isdigit() and any(each.branch == int(number) for each in processes)
        return int(number) if known else self._child


def _worst(amounts: List[Tuple[int, int]]) -> int:
    """Return the branch with the most of something."""
    totals: Dict[int, int] = {}
    for branch, amount in amounts:
        totals[branch] = totals.get(branch, 0) + amount
    return max(totals, key=lambda branch: totals[branch])

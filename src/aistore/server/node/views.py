"""How views get from the controller to the HTTP workers: each follows a stream of them, and says what it runs on.

A new view counts as adopted when the process at every place of the supervisor's table said so. One that died holds
none; its successor gets the newest before it serves anything. One that is there and takes nothing is ended, so that it
cannot hold the cluster up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import dataclass
from typing import Any

import msgspec

from ...cluster.documents import decode_root, encode_root
from ...cluster.view import View
from ...errors import AisError
from ..link import ControllerLink, ReportProgress, Verb
from .fence import FenceWriter

_log = logging.getLogger("aistore.cluster")

#: A worker that does not even say that it received a view for a lease, or for so long, is stopped or hangs.
_DEAF_SECONDS_MAX = 20.0
_RETRY_SECONDS = 0.2

Stamp = tuple[int, int]


@dataclass(slots=True)
class _Follower:
    pid: int
    token: object
    received: Stamp = (0, 0)
    adopted: Stamp = (0, 0)


class WorkerViews:
    """The controller's side: hands views out and waits until they are adopted."""

    def __init__(self, places: int, fence: FenceWriter | None, lease_seconds: float) -> None:
        self._deaf_seconds = min(lease_seconds, _DEAF_SECONDS_MAX)
        self._places = frozenset(f"http-{number}" for number in range(places))
        self._fence = fence
        self._followers: dict[str, _Follower] = {}
        self._view: tuple[Stamp, str, str] | None = None
        self._changed = asyncio.Event()
        self._ended = False

    def verbs(self) -> dict[str, Verb]:
        """Return the verbs that workers call."""
        return {"cluster.follow": self._follow, "cluster.adopted": self._note}

    def publish(self, deadline: float) -> None:
        """Let the workers act until ``deadline``."""
        if self._fence is not None:
            self._fence.set(deadline)

    def end(self) -> None:
        """Wait for nobody any more: the workers have ended."""
        self._places, self._ended = frozenset(), True
        self._turn()

    async def adopt(self, view: View) -> None:
        """Hand ``view`` out; return when every place runs on it, or on a later one."""
        stamp = view.stamp
        if self._view is None or stamp > self._view[0]:
            self._view = (stamp, view.me, encode_root(view.root).decode())
            self._turn()
        since = asyncio.get_running_loop().time()
        while any(not self._has(place, stamp) for place in self._places):
            changed = self._changed
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), 1.0)
            if asyncio.get_running_loop().time() - since > self._deaf_seconds:
                self._end_deaf(stamp)

    def _has(self, place: str, stamp: Stamp) -> bool:
        follower = self._followers.get(place)
        return follower is not None and follower.adopted >= stamp

    def _end_deaf(self, stamp: Stamp) -> None:
        for place, follower in self._followers.items():
            if follower.received < stamp and follower.pid:
                _log.error("%s (pid %d) does not take the cluster's map: ending it", place, follower.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(follower.pid, signal.SIGKILL)
                follower.pid = 0

    def _turn(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        place, token = str(arguments["place"]), object()
        self._followers[place] = _Follower(int(arguments["pid"]), token)
        sent: Stamp = (0, 0)
        while self._followers[place].token is token and not self._ended:
            changed = self._changed
            if self._view is not None and self._view[0] > sent:
                sent, me, root = self._view
                await report(me, f"{sent[1]} {root}")
            else:
                await changed.wait()

    async def _note(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        follower = self._followers.get(str(arguments["place"]))
        if follower is not None and follower.pid == arguments["pid"]:
            stamp = (int(arguments["version"]), int(arguments["settled"]))
            follower.received = max(follower.received, stamp)
            if arguments["adopted"]:
                follower.adopted = max(follower.adopted, stamp)
            self._turn()


class Following:
    """A worker's side: takes every view that comes, for as long as it runs."""

    def __init__(self, link: ControllerLink, place: str, adopt: Any) -> None:
        self._link = link
        self._place = place
        self._adopt = adopt
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin."""
        self._run_beside(self._follow())

    async def close(self) -> None:
        """End."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run_beside(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        while True:
            try:
                async for kind, value in self._link.stream("cluster.follow", place=self._place, pid=os.getpid()):
                    if kind == "progress":
                        me, text = value
                        settled, _, root = text.partition(" ")
                        view = View(decode_root(root.encode(), "the controller's map"), me, int(settled))
                        await self._say(view, adopted=False)
                        self._run_beside(self._take(view))
            except (AisError, OSError, msgspec.MsgspecError) as error:
                _log.info("the controller's map is not there: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _take(self, view: View) -> None:
        await self._adopt(view)
        await self._say(view, adopted=True)

    async def _say(self, view: View, *, adopted: bool) -> None:
        version, settled = view.stamp
        with contextlib.suppress(AisError, OSError):
            await self._link.call(
                "cluster.adopted", place=self._place, pid=os.getpid(), version=version, settled=settled, adopted=adopted
            )

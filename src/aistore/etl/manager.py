"""All ETLs of this node, in the controller: their table, what is kept of them on disk, and the verbs on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from ..errors import BadRequestError, ConflictError, EtlExistsError, EtlNotFoundError, EtlNotRunningError
from ..model.etl import EtlSpec, Stage, check_spec
from ..model.names import check_etl_name
from .environments.cache import remove_unused
from .environments.lock import Lock
from .managed import ManagedEtl
from .places import Places
from .results_keeper import ResultsKeeper
from .runners import ReportProgress
from .warm_runner import WarmRunner

_log = logging.getLogger("aistore.etl")

FORMAT = 1


class KeptEtl(msgspec.Struct, frozen=True):
    """An ETL as it is kept on disk: ``format`` first, so that a later version can read this one.

    ``uid`` tells it from others that had its name, in counters.
    """

    format: int
    spec: EtlSpec
    wanted: bool
    lock: Lock | None = None
    uid: int = 0


class Manager:
    """The controller's verbs on the ETLs of this node, whose id is ``node``.

    What is told per node has the wire's form: a list with a ``target_id`` in each entry. Without ``keeps`` nothing is
    kept on disk, because somebody else (everywhere.py) knows which ETLs there are.
    """

    def __init__(
        self, places: Places, node: str = "", *, keeps: bool = True, results: ResultsKeeper | None = None
    ) -> None:
        self.node = node
        self._places = places
        self._keeps = keeps
        self._etls: dict[str, ManagedEtl] = {}
        self._results = results
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def verbs(self) -> dict[str, Callable[[dict[str, Any], ReportProgress], Awaitable[Any]]]:
        """Return the verbs by name, as the link serves them."""
        return {
            "etl_init": self._init,
            "etl_list": self._list,
            "etl_details": self._details,
            "etl_find": self._find,
            "etl_start": self._start,
            "etl_stop": self._stop,
            "etl_delete": self._delete,
            "etl_health": self._health,
            "etl_logs": self._logs,
            "etl_metrics": self._metrics,
            "etl_usage": self._usage,
            "etl_exit_status": self._exit_status,
            "etl_kill": self._kill,
        }

    def load(self) -> None:
        """Take up the ETLs kept on disk; those that ran are brought up again, in the background."""
        for entry in sorted(os.listdir(self._places.etls)):
            if not entry.endswith(".json"):
                continue
            path = os.path.join(self._places.etls, entry)
            try:
                with open(path, "rb") as file:
                    kept = msgspec.json.decode(file.read(), type=KeptEtl)
            except (OSError, msgspec.DecodeError) as error:
                _log.error("cannot read the ETL in %s, leaving it out: %s", path, error)
                continue
            etl = self.add(kept.spec, kept.lock, kept.uid)
            if kept.wanted:
                self.begin(etl)
            else:
                etl.life, _ = etl.life.stop()

    def begin(self, etl: ManagedEtl) -> None:
        """Bring up an ETL that ran before, in the background; whoever asks for it waits from now on."""
        etl.life, _ = etl.life.begin()
        self.in_background(etl.bring_up_again(_log_progress))

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside all else; ``close`` waits for it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def add(self, spec: EtlSpec, lock: Lock | None = None, uid: int = 0, *, locked: bool = False) -> ManagedEtl:
        """Put an ETL into the table; ``locked`` as in ManagedEtl."""
        self._number += 1
        etl = ManagedEtl(spec, self._places, self._number, lock, uid, locked=locked)
        self._etls[spec.name] = etl
        return etl

    def etls(self) -> dict[str, ManagedEtl]:
        """Return the ETLs there are, by name."""
        return dict(self._etls)

    def get(self, name: Any) -> ManagedEtl:
        """Return an ETL; raises EtlNotFoundError."""
        etl = self._etls.get(check_etl_name(str(name)))
        if etl is None:
            raise EtlNotFoundError.of(str(name))
        return etl

    async def _init(self, arguments: dict[str, Any], report: ReportProgress) -> str:
        spec = check_spec(msgspec.convert(arguments["spec"], EtlSpec))
        if spec.cache and self._results is not None and not self._results.are_kept:
            raise BadRequestError(
                f"etl job {spec.name} wants its results kept, and this store keeps none",
                hint="leave cache out, or start the store with --transform-cache SIZE",
            )
        if spec.name in self._etls:
            raise EtlExistsError.of(spec.name)
        etl = self.add(spec, uid=secrets.randbits(62))
        try:
            await etl.bring_up(report)
        except BaseException:
            await self.remove(etl)  # what never ran is not kept: its name is free for the next attempt
            raise
        self._keep(etl)
        return spec.name

    async def _list(self, arguments: dict[str, Any], report: ReportProgress) -> list[dict[str, Any]]:
        return [etl.summary() for _, etl in sorted(self._etls.items())]

    async def _details(self, arguments: dict[str, Any], report: ReportProgress) -> dict[str, Any]:
        etl = self.get(arguments["name"])
        objects, size = await self._results.usage(etl.spec.name, etl.uid) if self._results is not None else (0, 0)
        return {**etl.details(), **await etl.usage(), "cache_objects": objects, "cache_bytes": size}

    async def _find(self, arguments: dict[str, Any], report: ReportProgress) -> dict[str, Any]:
        etl = self.get(arguments["name"])
        await etl.wait_running(float(arguments["wait"]))
        return etl.found()

    async def _start(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        etl = self.get(arguments["name"])
        if etl.life.stage is not Stage.ABORTED:
            raise ConflictError(f"etl job {etl.spec.name}: can't start during {etl.life.stage.value} stage")
        await etl.bring_up(report)
        self._keep(etl)

    async def _stop(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        etl = self.get(arguments["name"])
        await etl.stop()
        if self._etls.get(etl.spec.name) is etl:  # it may have been removed meanwhile
            self._keep(etl)

    async def _delete(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        etl = self.get(arguments["name"])
        await etl.stop()
        await self.remove(etl)
        await self.tidy()

    async def tidy(self) -> None:
        """Remove the environments that no ETL has."""
        in_use = [other.runner.environment_directory for other in self._etls.values()]
        await asyncio.to_thread(remove_unused, self._places.environments, [path for path in in_use if path])
        await self.tidy_results()

    async def tidy_results(self) -> None:
        """Remove the kept results of transforms that there are not any more."""
        if self._results is not None:
            await self._results.keep_only({(etl.spec.name, etl.uid) for etl in self._etls.values()})

    async def remove(self, etl: ManagedEtl) -> None:
        """End an ETL and forget it. Its name stays taken until nothing is left that a successor would share."""
        await etl.close()
        if self._etls.get(etl.spec.name) is not etl:
            return  # someone else has removed it
        del self._etls[etl.spec.name]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(etl))
        etl.log.remove()

    async def _health(self, arguments: dict[str, Any], report: ReportProgress) -> list[dict[str, Any]]:
        life = self.get(arguments["name"]).life
        return [{"target_id": self.node, "health_status": life.stage.value, "message": life.message}]

    async def _logs(self, arguments: dict[str, Any], report: ReportProgress) -> list[dict[str, Any]]:
        return [{"target_id": self.node, "logs": self.get(arguments["name"]).log.tail(1 << 20)}]

    async def _metrics(self, arguments: dict[str, Any], report: ReportProgress) -> list[dict[str, Any]]:
        etl = self.get(arguments["name"])
        objects, errors, in_bytes, out_bytes = etl.counts()
        counts = {"obj_count": objects, "errors": errors, "in_bytes": in_bytes, "out_bytes": out_bytes}
        return [{"target_id": self.node, **counts, **await etl.usage()}]

    async def _usage(self, arguments: dict[str, Any], report: ReportProgress) -> dict[str, dict[str, Any]]:
        return {name: await etl.usage() for name, etl in sorted(self._etls.items())}

    async def _exit_status(self, arguments: dict[str, Any], report: ReportProgress) -> tuple[int | None, str]:
        status, excess = await self._warm(arguments).exit_status(int(arguments["pid"]), str(arguments["socket_path"]))
        if status != 0:
            self.get(arguments["name"]).note_crash(status, excess or str(arguments.get("said", "")))
        return status, excess

    async def _kill(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        pid, turn = int(arguments["pid"]), int(arguments["turn"])
        self._warm(arguments).end_worker(pid, turn, str(arguments["socket_path"]))

    def _warm(self, arguments: dict[str, Any]) -> WarmRunner:
        """Return what runs an ETL made of code; raises EtlNotRunningError if another kind has the name by now."""
        etl = self.get(arguments["name"])
        if not isinstance(etl.runner, WarmRunner):
            raise EtlNotRunningError(f"etl job {etl.spec.name} ended during the object", hint="try again")
        return etl.runner

    def _path(self, etl: ManagedEtl) -> str:
        return os.path.join(self._places.etls, f"{etl.spec.name}.json")

    def _keep(self, etl: ManagedEtl) -> None:
        """Write an ETL aside and put it in place, so that a crash leaves the old file or the new one."""
        if not self._keeps:
            return
        path = self._path(etl)
        kept = KeptEtl(FORMAT, etl.spec, etl.life.wanted, etl.lock, etl.uid)
        with open(path + ".new", "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)

    async def close(self) -> None:
        """End every transform; what is wanted of each stays as it is kept."""
        await asyncio.gather(*(etl.close() for etl in self._etls.values()))
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _log_progress(stage: str, message: str) -> None:
    _log.info("%s %s", stage, message)

"""The verbs on the transforms of a cluster: whoever is asked sees to it that all nodes do it.

The cluster's root document says which transforms there are (``EtlRecord``), and each node brings its own to that
(wanted.py). So a verb is a change of the document, which all live nodes have adopted when it is answered; and a node
that was away, or joins, does what it finds there.

Making one, step by step:

1. A record takes the name, with the incarnation of this node as ``making``.
2. This node makes it ready. What cannot work at all fails here, and the packages are resolved once: the lock.
3. All other nodes make it ready with that lock, side by side.
4. The record gets the lock and loses ``making``, if there is no node in the map by then that was not asked; else 3.

What fails on the way takes the record out again, and with it everything that nodes have made. If this node is killed on
the way, the others see that nobody makes it any more, and take the record out. A stopped one is started in the same
steps; what fails then stops it again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec
from msgspec import structs

from ..cluster.documents import EtlRecord, RootDocument
from ..cluster.view import View
from ..errors import (
    AisError,
    ConflictError,
    EtlExistsError,
    EtlNotFoundError,
    PeerUnreachableError,
    RetryLaterError,
    error_from_code,
)
from ..model.etl import EtlSpec, Stage, check_spec
from ..model.names import check_etl_name
from .manager import Manager
from .merged import merge_details, merge_summaries
from .runners import ReportProgress
from .wanted import Wanted

_log = logging.getLogger("aistore.etl")

#: How long a verb waits for the slowest node to adopt a change. Longer than a lease, after which a node counts as gone.
BARRIER_SECONDS = 60.0
#: How long one node may take to say what it has; a listing does not wait longer for a node that is stopped.
ASK_SECONDS = 5.0
#: How much longer than a node the caller waits for it to make a transform ready.
_MARGIN_SECONDS = 30.0
_AGAIN_SECONDS = 1.0

Mutate = Callable[[RootDocument], "RootDocument | None"]


class Cluster(Protocol):
    """What is needed of the cluster (cluster/membership.py)."""

    @property
    def view(self) -> View | None:
        """The view that this node goes by."""

    async def change(self, mutate: Mutate) -> int:
        """Change the root document and return the version that has the change; raises what ``mutate`` raises."""

    async def barrier(self, version: int, seconds: float) -> list[str]:
        """Wait until every live node has adopted ``version``; return those that have not after ``seconds``."""

    async def asked(self, version: int) -> tuple[str, int]:
        """Adopt ``version`` at least, if it can be done now; return this incarnation and what is adopted."""


class Nodes(Protocol):
    """Calls of the other nodes' controllers."""

    async def call(
        self, node: str, verb: str, arguments: dict[str, Any], report: ReportProgress, seconds: float
    ) -> Any:
        """Call a verb of ``Everywhere.verbs_for_nodes`` at a node and return its result.

        Raises the error that it raised, or PeerUnreachableError.
        """


class Everywhere:
    """The verbs on all nodes' transforms, in the controller of each node.

    A node that does not answer is asked again for ``patience_seconds``: longer than one that died stays in the map.
    """

    def __init__(
        self, manager: Manager, wanted: Wanted, cluster: Cluster, nodes: Nodes, patience_seconds: float = 60.0
    ) -> None:
        self._patience_seconds = patience_seconds
        self._manager = manager
        self._wanted = wanted
        self._cluster = cluster
        self._nodes = nodes
        self._making: set[int] = set()
        self._giving_up: dict[int, asyncio.Task[None]] = {}

    def verbs(self) -> dict[str, Callable[[dict[str, Any], ReportProgress], Any]]:
        """Return the verbs by name, as the link serves them: those of the manager, on all nodes."""
        return {
            **self._manager.verbs(),
            **{f"etl_here_{name}": verb for name, verb in self.verbs_for_nodes().items()},
            "etl_init": self._init,
            "etl_start": self._start,
            "etl_stop": self._stop,
            "etl_delete": self._delete,
            "etl_find": self._wanted.find,
            "etl_list": self._list,
            "etl_details": self._details,
            "etl_health": self._per_node("health"),
            "etl_logs": self._per_node("logs"),
            "etl_metrics": self._per_node("metrics"),
        }

    def verbs_for_nodes(self) -> dict[str, Callable[[dict[str, Any], ReportProgress], Any]]:
        """Return what other nodes may ask of this one: of its own transforms alone."""
        own = self._manager.verbs()
        return {
            **{name: own[f"etl_{name}"] for name in ("list", "details", "health", "logs", "metrics")},
            "bring_up": self._bring_up_here,
        }

    async def adopt(self, view: View) -> None:
        """Take a new view over; when this returns, nothing runs here that it does not want."""
        await self._wanted.adopt(view)
        self._take_out_abandoned(view)

    async def ready(self, view: View) -> None:
        """Take the view of a cluster over that this node is about to join; its transforms take objects afterwards."""
        await self._wanted.ready(view)

    def _take_out_abandoned(self, view: View) -> None:
        living = {record.incarnation for record in view.root.nodes.values()}
        mine = self._incarnation(view)
        for name, record in view.root.etls.items():
            by_me = record.making == mine
            if record.making and (record.uid not in self._making if by_me else record.making not in living):
                self._give_up_soon(name, record.uid)

    def _give_up_soon(self, name: str, uid: int) -> None:
        if uid not in self._giving_up:
            task = self._giving_up[uid] = asyncio.ensure_future(self._give_up(name, uid))
            task.add_done_callback(lambda _: self._giving_up.pop(uid))

    async def close(self) -> None:
        """End what is under way here of its own accord."""
        for task in list(self._giving_up.values()):
            task.cancel()
        await asyncio.gather(*self._giving_up.values(), return_exceptions=True)
        await self._wanted.close()

    # Verbs.

    async def _init(self, arguments: dict[str, Any], report: ReportProgress) -> str:
        spec = check_spec(msgspec.convert(arguments["spec"], EtlSpec))
        uid = secrets.randbits(62)
        await self._make(EtlRecord(spec, True, None, uid, self._myself()), _with_new, report)
        return spec.name

    async def _start(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        name = check_etl_name(str(arguments["name"]))
        stage = next((one["stage"] for one in await self._list({}, report) if one["id"] == name), None)
        record = self._wanted.record(name)
        if stage != Stage.ABORTED.value:
            raise ConflictError(f"etl job {name}: can't start during {stage} stage")
        if record.wanted:  # some nodes cannot run it; what runs elsewhere goes on, whatever comes of this
            await self._bring_up_at(self._view().root.nodes, self._call_of(record, 0), record.spec, report)
        else:
            await self._make(structs.replace(record, wanted=True, making=self._myself()), _with_begun, report)

    async def _make(
        self, record: EtlRecord, mutate: Callable[[RootDocument, EtlRecord], RootDocument], report: ReportProgress
    ) -> None:
        """Put ``record`` into the root document by ``mutate`` and make it ready on all nodes, or nowhere."""
        self._making.add(record.uid)
        try:
            version = await self._change(lambda root: mutate(root, record))
            try:
                await self._make_everywhere(record, version, _one_at_a_time(report))
            except BaseException:
                await asyncio.shield(self._give_up(record.spec.name, record.uid))
                raise
        finally:
            self._making.discard(record.uid)

    async def _make_everywhere(self, record: EtlRecord, version: int, report: ReportProgress) -> None:
        me, asked = self._manager.node, {self._manager.node}
        call = self._call_of(record, version)
        try:
            call["lock"] = await self._bring_up_here(call, self._saying(me, report))
        except AisError as error:
            raise self._naming(me, error) from error
        while True:
            others = [node for node in self._view().root.nodes if node not in asked]
            await self._bring_up_at(others, call, record.spec, report)
            asked.update(others)
            try:
                version = await self._change(lambda root: _with_made(root, record, call["lock"], asked))
            except _MoreNodesError:
                await self._cluster.asked(version + 1)
                await asyncio.sleep(0.05)  # the view with the new nodes comes
            else:
                await self._reach_all(version, record.spec.name)
                return

    async def _bring_up_at(
        self, others: Iterable[str], call: dict[str, Any], spec: EtlSpec, report: ReportProgress
    ) -> None:
        """Make a transform ready on other nodes, side by side; the first failure ends it, and names its node."""
        seconds = spec.init_timeout_seconds + _MARGIN_SECONDS

        async def bring_up(node: str) -> None:
            say = self._saying(node, report)
            until = 0.0
            while node in self._view().root.nodes:  # one that died is taken out of the map, and does not matter then
                try:
                    await self._call(node, "bring_up", call, say, seconds)
                    return
                except PeerUnreachableError as error:
                    now = time.monotonic()
                    until = until or now + self._patience_seconds
                    if now >= until:
                        raise
                    await say("waiting", error.message)
                    await asyncio.sleep(_AGAIN_SECONDS)
                except AisError as error:
                    raise self._naming(node, error) from error

        tasks = [asyncio.ensure_future(bring_up(node)) for node in others]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _bring_up_here(self, arguments: dict[str, Any], report: ReportProgress) -> Any:
        await self._cluster.asked(int(arguments["version"]))
        return await self._wanted.bring_up(
            str(arguments["name"]), int(arguments["uid"]), arguments["lock"], report
        )  # fmt: skip

    @staticmethod
    def _call_of(record: EtlRecord, version: int) -> dict[str, Any]:
        return {"name": record.spec.name, "uid": record.uid, "lock": record.lock, "version": version}

    async def _stop(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        name = check_etl_name(str(arguments["name"]))
        await self._reach_all(await self._change(lambda root: _with_stopped(root, name)), name)

    async def _delete(self, arguments: dict[str, Any], report: ReportProgress) -> None:
        name = check_etl_name(str(arguments["name"]))

        def delete(root: RootDocument) -> RootDocument:
            if name not in root.etls:
                raise EtlNotFoundError.of(name)
            return _without(root, name)

        await self._reach_all(await self._change(delete), name)

    async def _change(self, mutate: Mutate) -> int:
        """Change the root document; raises RetryLaterError when the cluster's store does not take it."""
        try:
            return await asyncio.wait_for(self._cluster.change(mutate), BARRIER_SECONDS)
        except asyncio.TimeoutError:
            raise RetryLaterError(
                f"the cluster's store did not take the change within {BARRIER_SECONDS:.0f} s",
                hint="whether it was made `ais etl show` tells when the store is there again",
            ) from None

    async def _reach_all(self, version: int, name: str) -> None:
        """Wait until all live nodes go by a change; raises RetryLaterError that names those that do not."""
        late = await self._cluster.barrier(version, BARRIER_SECONDS)
        if late:
            raise RetryLaterError(
                f"etl job {name}: the change is made, but {', '.join(late)} did not confirm it within"
                f" {BARRIER_SECONDS:.0f} s",
                hint="look at `ais show cluster`; a node that lives follows as soon as it can",
            )

    async def _give_up(self, name: str, uid: int) -> None:
        """Remove a record that was not finished, or stop it if it was stopped before; return when all nodes have."""

        def give_up(root: RootDocument) -> RootDocument | None:
            record = root.etls.get(name)
            if record is None or record.uid != uid or not record.making:
                return None
            return _without(root, name) if record.lock is None else _with_stopped(root, name)

        try:
            await self._cluster.barrier(await self._change(give_up), BARRIER_SECONDS)
        except AisError as error:  # the next view shows it again
            _log.warning("etl job %s, which nobody makes any more, could not be removed yet: %s", name, error)

    # What all nodes have.

    async def _list(self, arguments: dict[str, Any], report: ReportProgress) -> list[dict[str, Any]]:
        found = await self._ask_all("list", {})
        return merge_summaries(self._view().root.etls, found)

    async def _details(self, arguments: dict[str, Any], report: ReportProgress) -> dict[str, Any]:
        name = check_etl_name(str(arguments["name"]))
        record = self._wanted.record(name)
        return merge_details(record, await self._ask_all("details", {"name": name}), self._manager.node)

    def _per_node(self, what: str) -> Callable[[dict[str, Any], ReportProgress], Any]:
        async def ask(arguments: dict[str, Any], report: ReportProgress) -> list[dict[str, Any]]:
            name = check_etl_name(str(arguments["name"]))
            self._wanted.record(name)
            entries: list[dict[str, Any]] = []
            for node, found in (await self._ask_all(what, {"name": name})).items():
                if isinstance(found, list):
                    entries += found
                elif what == "health":
                    entries.append({"target_id": node, "health_status": Stage.UNKNOWN.value, "message": str(found)})
            return entries

        return ask

    async def _ask_all(self, what: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what each node of the map answers, or the error that came instead, in the order of their ids."""

        async def ask(node: str) -> Any:
            try:
                return await self._call(node, what, arguments, _no_report, ASK_SECONDS)
            except AisError as error:
                return error

        nodes = sorted({*self._view().root.nodes, self._manager.node})
        return dict(zip(nodes, await asyncio.gather(*map(ask, nodes)), strict=True))

    async def _call(
        self, node: str, verb: str, arguments: dict[str, Any], report: ReportProgress, seconds: float
    ) -> Any:
        if node == self._manager.node:
            return await self.verbs_for_nodes()[verb](arguments, report)
        return await self._nodes.call(node, verb, arguments, report, seconds)

    # Names of nodes.

    def _view(self) -> View:
        view = self._cluster.view
        if view is None:
            raise RetryLaterError("this node has not joined its cluster yet", hint="try again in some seconds")
        return view

    def _incarnation(self, view: View) -> str:
        record = view.root.nodes.get(self._manager.node)
        return record.incarnation if record is not None else ""

    def _myself(self) -> str:
        """Return this start of this node; raises RetryLaterError while it is not in the map."""
        incarnation = self._incarnation(self._view())
        if not incarnation:
            raise RetryLaterError("this node is not in the cluster's map now", hint="try again, or ask another node")
        return incarnation

    def _is_alone(self) -> bool:
        return len(self._view().root.nodes) < 2

    def _saying(self, node: str, report: ReportProgress) -> ReportProgress:
        """Return a way to report that says which node it is about."""
        if self._is_alone():
            return report

        async def say(stage: str, message: str) -> None:
            await report(stage, f"{node}: {message}" if message else node)

        return say

    def _naming(self, node: str, error: AisError) -> AisError:
        """Return the same error, which says which node it is of."""
        if self._is_alone():
            return error
        return error_from_code(error.code, f"node {node}: {error.message}", hint=error.hint, status=error.status)


class _MoreNodesError(Exception):
    """The map has nodes that were not asked."""


def _with_new(root: RootDocument, record: EtlRecord) -> RootDocument:
    found = root.etls.get(record.spec.name)
    if found is not None and found.uid != record.uid:
        raise EtlExistsError.of(record.spec.name)
    return structs.replace(root, etls={**root.etls, record.spec.name: record})


def _with_begun(root: RootDocument, record: EtlRecord) -> RootDocument:
    name = record.spec.name
    found = root.etls.get(name)
    if found is None or found.uid != record.uid:
        raise EtlNotFoundError.of(name)
    if found.wanted and found.making != record.making:
        raise ConflictError(f"etl job {name}: can't start, it is being started")
    return structs.replace(root, etls={**root.etls, name: record})


def _with_made(root: RootDocument, record: EtlRecord, lock: Any, asked: set[str]) -> RootDocument:
    name = record.spec.name
    found = root.etls.get(name)
    if found is None or found.uid != record.uid or not found.wanted:
        raise ConflictError(f"etl job {name} was stopped or removed while it was being made ready")
    if not asked.issuperset(root.nodes):
        raise _MoreNodesError
    return structs.replace(root, etls={**root.etls, name: structs.replace(record, lock=lock, making="")})


def _with_stopped(root: RootDocument, name: str) -> RootDocument:
    """Stop one. Whoever is making it notices; a record that was never finished is still of whoever made it."""
    record = root.etls.get(name)
    if record is None:
        raise EtlNotFoundError.of(name)
    making = record.making if record.lock is None else ""
    return structs.replace(root, etls={**root.etls, name: structs.replace(record, wanted=False, making=making)})


def _without(root: RootDocument, name: str) -> RootDocument:
    return structs.replace(root, etls={key: record for key, record in root.etls.items() if key != name})


def _one_at_a_time(report: ReportProgress) -> ReportProgress:
    """Return a way to report for several nodes that make progress side by side."""
    turn = asyncio.Lock()

    async def say(stage: str, message: str) -> None:
        async with turn:
            await report(stage, message)

    return say


async def _no_report(stage: str, message: str) -> None:
    """Nobody waits for this."""

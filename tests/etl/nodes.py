"""Nodes of a cluster in one process: real transforms, and a root document in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import structs

from aistore.cluster.documents import NodeRecord, RootDocument, decode_root, encode_root, new_root, with_node
from aistore.cluster.view import View
from aistore.errors import PeerUnreachableError
from aistore.etl.everywhere import Everywhere, Mutate
from aistore.etl.managed import ManagedEtl
from aistore.etl.manager import Manager
from aistore.etl.places import Places
from aistore.etl.runners import ReportProgress
from aistore.etl.wanted import Wanted


class Root:
    """The root document, as the nodes share it."""

    def __init__(self) -> None:
        self.data = encode_root(new_root())
        self.nodes: dict[str, Node] = {}

    @property
    def document(self) -> RootDocument:
        return decode_root(self.data, "root")

    def put(self, document: RootDocument) -> int:
        self.data = encode_root(structs.replace(document, version=self.document.version + 1))
        for node in self.nodes.values():
            if node.lives:
                node.follow()
        return self.document.version

    def set_node(self, node: Node, record: NodeRecord | None) -> int:
        return self.put(with_node(self.document, node.id, record, 0))


class Node:
    """One node: its part in the cluster, and its transforms."""

    def __init__(self, root: Root, name: str, directory: Path, incarnation: str) -> None:
        self.id, self.root, self.incarnation = name, root, incarnation
        runtime = directory / "runtime"
        runtime.mkdir(parents=True, exist_ok=True)
        self.manager = Manager(Places(str(directory / "cache"), str(runtime), 64), name, keeps=False)
        self.wanted = Wanted(self.manager)
        self.everywhere = Everywhere(self.manager, self.wanted, self, self, patience_seconds=2.0)
        self.verbs = self.everywhere.verbs()
        self.view: View | None = None
        self.lives = True
        self.said: list[tuple[str, str]] = []
        self._adopting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # What membership.py does.

    async def join(self) -> None:
        self.root.nodes[self.id] = self
        await self.everywhere.ready(View(self.root.document, self.id, 0))
        self.root.set_node(self, NodeRecord(f"http://{self.id}", self.incarnation))
        await self.refresh()

    def follow(self) -> None:
        task = asyncio.ensure_future(self.refresh())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def refresh(self) -> None:
        async with self._adopting:
            document = self.root.document
            if self.lives and (self.view is None or self.view.version < document.version):
                view = View(document, self.id, 0)
                await self.everywhere.adopt(view)
                self.view = view

    async def change(self, mutate: Mutate) -> int:
        if not self.lives:
            await asyncio.Event().wait()  # a process that was killed goes no further
        document = self.root.document
        wanted = mutate(document)
        return document.version if wanted is None else self.root.put(wanted)

    async def barrier(self, version: int, seconds: float) -> list[str]:
        for name in self.root.document.nodes:
            if self.root.nodes[name].lives:
                await self.root.nodes[name].refresh()
        return []

    async def asked(self, version: int) -> tuple[str, int]:
        await self.refresh()
        assert self.view is not None
        return self.incarnation, self.view.version

    # What the calls between nodes do.

    async def call(
        self, node: str, verb: str, arguments: dict[str, Any], report: ReportProgress, seconds: float
    ) -> Any:
        other = self.root.nodes[node]
        if not other.lives:
            raise PeerUnreachableError(f"node {node} does not answer")
        work = asyncio.ensure_future(
            other.everywhere.verbs_for_nodes()[verb](json.loads(json.dumps(arguments)), report)
        )
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # also if nobody waits any more
        while not work.done() and other.lives:
            await asyncio.wait([work], timeout=0.05)
        if not other.lives:
            raise PeerUnreachableError(f"node {node} does not answer")
        return json.loads(json.dumps(work.result()))

    # What tests do.

    async def ask(self, verb: str, **arguments: Any) -> Any:
        async def report(stage: str, message: str) -> None:
            self.said.append((stage, message))

        return await self.verbs[f"etl_{verb}"](arguments, report)

    async def init(self, name: str, code: str, **more: Any) -> Any:
        return await self.ask("init", spec={"name": name, "code": code, "sandbox": "off", "workers": 1, **more})

    def etl(self, name: str) -> ManagedEtl | None:
        return self.manager.etls().get(name)

    async def die(self) -> None:
        """End, as if killed: what was under way goes no further, and all processes are gone."""
        self.lives = False
        await self.close()

    async def close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.everywhere.close()
        await self.manager.close()


@asynccontextmanager
async def cluster(directory: Path, count: int = 3) -> AsyncIterator[list[Node]]:
    root = Root()
    nodes = [Node(root, f"n{number}", directory / f"n{number}", f"start-{number}") for number in range(1, count + 1)]
    try:
        for node in nodes:
            await node.join()
        await nodes[0].barrier(root.document.version, 0)
        yield nodes
    finally:
        for node in root.nodes.values():
            node.lives = False
        for node in root.nodes.values():
            await node.close()

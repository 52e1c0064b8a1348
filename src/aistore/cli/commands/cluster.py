"""``ais cluster`` and ``ais show cluster``: the nodes, and taking one out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from msgspec import structs

from ...errors import AisError, RetryLaterError
from ..complete import complete_node
from ..lazy import Lazy, LazyGroup
from ..options import confirm_removal, json_option, no_headers_option, yes_option
from ..output import Column, Record, counted, format_size, plain, write_properties, write_records
from ..session import client

if TYPE_CHECKING:
    from ...client import ClusterInfo, NodeStatus

_POLL_SECONDS = 0.25
_MONTH_SECONDS = 30 * 86_400
_LEASES_PER_LIST = 1000


@click.command("cluster")
@click.argument("what", metavar="[smap]", type=click.Choice(["smap"]), required=False)
@click.option("--cost", is_flag=True, help="Show the requests to the object store that being a cluster makes.")
@no_headers_option
@json_option
def show(what: str | None, cost: bool, no_headers: bool, as_json: bool) -> None:
    """Show the nodes of the store, or with `smap` its cluster map.

    STATE of a node of a cluster is what the node that was asked thinks of it: online, draining (it answers, but is home
    to no object), late (it did not say that it lives for a while) or lapsed (its objects are about to be others').

    \b
    Examples:
      ais show cluster
      ais show cluster smap
      ais show cluster --cost
      ais show cluster --json
    """
    info = client().cluster()
    statuses = client().nodes().of(info)
    if cost:
        _show_cost(statuses, as_json=as_json, headers=not no_headers)
    elif as_json:
        write_properties(_summary(info, statuses), as_json=True)
    elif statuses and what is None:
        _show_nodes(info, statuses, headers=not no_headers)
    else:
        _show_map(info, as_smap=what == "smap", headers=not no_headers)


def _summary(info: ClusterInfo, statuses: list[NodeStatus]) -> Record:
    known = {status.id: status for status in statuses}
    nodes = []
    for node in info.nodes:
        record: Record = {"node": node.id, "type": node.type, "url": node.url}
        if node.id in known:
            said = structs.asdict(known[node.id])
            record |= {name: value for name, value in said.items() if name not in ("id", "url", "others")}
        nodes.append(record)
    return {"uuid": info.uuid, "version": info.version, "primary": info.primary, "nodes": nodes}


def _show_map(info: ClusterInfo, *, as_smap: bool, headers: bool) -> None:
    nodes: list[Record] = [{"node": node.id, "type": node.type, "url": node.url} for node in info.nodes]
    columns = [Column("NODE", "node"), Column("TYPE", "type"), Column("PUBLIC URL", "url")]
    write_records(nodes, columns, as_json=False, headers=headers)
    if as_smap:
        click.echo(f"\nPrimary: {info.primary}\nUUID: {info.uuid}\nVersion: {info.version}")
        return
    proxies = sum(node.type == "proxy" for node in info.nodes)
    click.echo("\nSummary:")
    click.echo(f"  Proxies:              {proxies}")
    click.echo(f"  Targets:              {len(info.nodes) - proxies}")
    click.echo(f"  Cluster Map version:  {info.version}")
    click.echo(f"  Status:               {'ready' if client().is_ready() else 'not ready'}")


_NODE_COLUMNS = [
    Column("NODE", "node"),
    Column("STATE", "state"),
    Column("EPOCH", "epoch"),
    Column("CACHED", "cached"),
    Column("OBJECTS", "objects"),
    Column("CAPACITY", "capacity"),
    Column("LOAD", "load"),
    Column("URL", "url"),
    Column("STATUS", "status"),
]


def _node_record(status: NodeStatus) -> Record:
    if status.error:
        blank = dict.fromkeys(("epoch", "cached", "objects", "capacity", "load"), "-")
        return {"node": status.id, "state": status.state, **blank, "url": status.url, "status": "does not answer"}
    return {
        "node": status.id, "state": status.state, "epoch": str(status.epoch),
        "cached": format_size(status.cached_bytes), "objects": f"{status.cached_objects:,}",
        "capacity": format_size(status.cache_capacity), "load": f"{status.load:.2f}", "url": status.url,
        "status": "settled" if status.settled == status.epoch else f"settling, from {status.settled}",
    }  # fmt: skip


def _show_nodes(info: ClusterInfo, statuses: list[NodeStatus], *, headers: bool) -> None:
    write_records([_node_record(status) for status in statuses], _NODE_COLUMNS, as_json=False, headers=headers)
    answering = [status for status in statuses if not status.error]
    click.echo("\nSummary:")
    click.echo(f"  Nodes:                {len(statuses)}")
    click.echo(f"  Store:                {plain(answering[0].store) if answering else '-'}")
    click.echo(f"  Cached:               {format_size(sum(status.cached_bytes for status in answering))}")
    click.echo(f"  Cluster Map version:  {info.version}")
    click.echo(f"  Status:               {'ready' if client().is_ready() else 'not ready'}")
    for status in statuses:
        if status.error:
            click.echo(f"\n{status.id} does not answer: {plain(status.error)}")


def _show_cost(statuses: list[NodeStatus], *, as_json: bool, headers: bool) -> None:
    """Print what leases and the map cost: each node writes its lease, lists all leases and polls the root document."""
    answering = next((status for status in statuses if not status.error), None)
    if answering is None:
        raise (
            AisError("this store is one machine: it asks no other store")
            if not statuses
            else AisError("no node of the cluster answers", hint="`ais show cluster` says why")
        )
    nodes, renew, poll = len(statuses), answering.renew_seconds, answering.poll_seconds
    pages = -(-nodes // _LEASES_PER_LIST)
    kinds = [
        ("PUT", "write the node's lease", renew, 1),
        ("LIST", "see the other leases", renew, pages),
        ("GET", "see whether the map changed", poll, 1),
    ]
    records: list[Record] = [
        {
            "request": request, "why": why, "seconds": seconds, "nodes": nodes,
            "month": round(_MONTH_SECONDS / seconds * count * nodes),
        }
        for request, why, seconds, count in kinds
    ]  # fmt: skip
    columns = [
        Column("REQUEST", "request"),
        Column("WHY", "why"),
        Column("EVERY", "seconds", lambda seconds: f"{seconds:g} s"),
        Column("NODES", "nodes"),
        Column("A MONTH", "month", lambda number: f"{number:,}"),
    ]
    write_records(records, columns, as_json=as_json, headers=headers)
    if not as_json:
        click.echo("\nReads and writes of objects come on top. A longer --lease of `ais serve` makes fewer of these.")


@click.command()
@click.argument("node", shell_complete=complete_node)
@click.option("--undo", is_flag=True, help="Make a drained node home to objects again.")
def drain(node: str, undo: bool) -> None:
    """Make a node home to no object, so that it can be stopped or removed without anybody waiting for it.

    It goes on answering for every object. Comes back when all nodes know.

    \b
    Examples:
      ais cluster drain tAbCd1234
      ais cluster drain tAbCd1234 --undo
    """
    nodes = client().nodes()
    if undo:
        nodes.undrain(node)
        click.echo(f"{node} is home to objects again")
    else:
        nodes.drain(node)
        click.echo(f"{node} drained: it answers, and is home to no object")


@click.command()
@click.argument("node", shell_complete=complete_node)
@yes_option
def remove(node: str, yes: bool) -> None:
    """Take a node out of the cluster.

    No object is lost: they are in the object store. A removed node that still runs is refused by the others until it is
    started again. Asks first; without a terminal to ask on, -y is needed.

    \b
    Example:
      ais cluster remove tAbCd1234 -y
    """
    confirm_removal(f"node {node} from the cluster", yes=yes)
    client().nodes().remove(node)
    click.echo(f"{node} removed")


@click.command()
@click.option("--nodes", "count", type=click.IntRange(1), metavar="N", help="Wait until there are so many nodes.")
@click.option(
    "--timeout", type=click.FloatRange(0), default=120.0, show_default=True, metavar="SECONDS", help="Give up then."
)
def wait(count: int | None, timeout: float) -> None:
    """Wait until all nodes answer and have one map that is settled.

    \b
    Examples:
      ais cluster wait
      ais cluster wait --nodes 4 --timeout 60
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            statuses = client().nodes().statuses()
            if not statuses:
                raise AisError("this store is one machine: there are no nodes to wait for")
            lacking = _what_is_lacking(statuses, count)
        except RetryLaterError as error:
            lacking = error.message
        if not lacking:
            break
        if time.monotonic() > deadline:
            raise AisError(f"gave up after {timeout:g} s: {lacking}", hint="`ais show cluster` shows all nodes")
        time.sleep(_POLL_SECONDS)
    click.echo(f"{counted(len(statuses), 'node')}, epoch {statuses[0].epoch} settled")


def _what_is_lacking(statuses: list[NodeStatus], count: int | None) -> str:
    """Return why the cluster is not settled; empty if it is."""
    for status in statuses:
        if status.error:
            return f"node {status.id} does not answer: {status.error}"
        if status.state in ("late", "lapsed"):
            return f"node {status.id} is {status.state}"
    if len({status.version for status in statuses}) > 1:
        return "not all nodes have the latest map"
    if any(status.settled != status.epoch for status in statuses):
        return f"epoch {statuses[0].epoch} is not settled"
    if count is not None and len(statuses) != count:
        return f"there are {counted(len(statuses), 'node')}, not {count}"
    return ""


_LAZY = {
    "start-local": Lazy(
        "aistore.cli.commands.start_local:start_local", "Start a cluster on this machine, to try one.", local=True
    ),
}


@click.group(cls=LazyGroup, lazy=_LAZY)
def cluster() -> None:
    """Clusters: start one on this machine, show, drain, remove, wait."""


cluster.add_command(show, "show")
cluster.add_command(drain)
cluster.add_command(remove)
cluster.add_command(wait)

"""``ais cluster start-local``: an object store and a few nodes on this machine, until Ctrl-C."""

from __future__ import annotations

import selectors
import signal
import sys
import time
from types import FrameType

import click

from ...errors import AisError
from ...laptop.cluster import LocalCluster
from ...laptop.node import LocalNode
from ...settings import DEFAULT_PORT
from .serve import require_server_extra

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class _Told(BaseException):
    """Somebody wants the cluster to stop; not an Exception, so that nobody takes it for a failure."""


@click.command(short_help="Start a cluster on this machine, to try one.")
@click.option("--nodes", type=click.IntRange(1, 16), default=3, show_default=True, help="How many nodes.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False),
    help="Keep everything there, for the next start. [default: a new directory that is removed at the end]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port of the first node, the next ones take the following; 0 takes free ones.",
)
@click.option("--lease", type=float, help="As of `ais serve`: seconds after which a dead node counts as gone.")
def start_local(nodes: int, directory: str | None, port: int, lease: float | None) -> None:
    """Start a whole cluster on this machine: an object store (`weed`, S3) and nodes over it, until Ctrl-C or SIGTERM.

    Everything listens on 127.0.0.1 only. Needs the extras `server` and `cluster`. A node that ends is reported, and
    the others go on; when the object store ends, so does the cluster. Not for data that matters: this is one disk.

    \b
    Examples:
      ais cluster start-local
      ais cluster start-local --nodes 5 --port 0
      ais cluster start-local --dir ~/cluster      go on later where it was
    """
    require_server_extra("`ais cluster start-local`")
    cluster = LocalCluster(nodes, directory, first_port=port, lease_seconds=lease)
    ended_badly = False
    try:
        _stop_on_signals()
        started = time.monotonic()
        cluster.start()
        cluster.wait_settled()
        _describe(cluster, time.monotonic() - started, kept=directory is not None)
        _watch(cluster)
        ended_badly = True
    except _Told:
        click.echo("Stopping …")
    finally:
        _ignore_signals()
        cluster.stop()
    sys.exit(1 if ended_badly else 0)


def _stop_on_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        raise _Told

    for number in _SIGNALS:
        signal.signal(number, stop)


def _ignore_signals() -> None:
    """From now on it is being stopped, for which each of its parts has a bounded time."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _describe(cluster: LocalCluster, seconds: float, *, kept: bool) -> None:
    nodes = cluster.running
    width = max(map(len, (cluster.weed.endpoint, *(node.endpoint for node in nodes))))
    click.echo(f"store    {cluster.weed.endpoint:<{width}}  {cluster.store_url}, pid {cluster.weed.process.pid}")
    for node in nodes:
        click.echo(f"node {node.number:<3} {node.endpoint:<{width}}  {node.id}, pid {node.process.pid}")
    click.echo(
        f"{len(nodes)} nodes ready after {seconds:.0f} s, in {cluster.directory}"
        + ("" if kept else " (removed at the end)")
    )
    click.echo(f"In another terminal: source {cluster.environment_path}")
    click.echo("Ctrl-C stops the cluster")
    sys.stdout.flush()


def _watch(cluster: LocalCluster) -> None:
    """Report nodes that end; returns when the store has, or all nodes have."""
    with selectors.DefaultSelector() as selector:
        selector.register(cluster.weed.process, selectors.EVENT_READ, None)
        for node in cluster.running:
            selector.register(node.process, selectors.EVENT_READ, node)
        while len(selector.get_map()) > 1:
            for key, _ in selector.select():
                selector.unregister(key.fileobj)
                if key.data is None:
                    raise AisError(
                        f"the object store ended with {_how(cluster.weed.process.wait(5))}; the end of "
                        f"{cluster.weed.log_path}:\n{cluster.weed.log()[-2000:]}"
                    )
                _report(key.data)
    click.echo("All nodes have ended.", err=True)


def _report(node: LocalNode) -> None:
    how = _how(node.process.wait(5))
    click.echo(f"node {node.number} ({node.id}, {node.endpoint}) ended with {how}; the others go on", err=True)
    tail = node.log()[-1000:].strip()
    if tail:
        click.echo(f"the end of its log:\n{tail}", err=True)


def _how(status: int) -> str:
    return f"signal {status - 128} ({signal.Signals(status - 128).name})" if status > 128 else f"status {status}"

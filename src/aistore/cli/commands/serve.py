"""``ais serve``: start a whole store on this machine."""

from __future__ import annotations

import errno
import importlib.util
import os
import shlex
import shutil
import sqlite3
import sys
from urllib.parse import urlsplit

import click

from ...errors import AisError, BadRequestError
from ...settings import (
    DEFAULT_LEASE_SECONDS,
    DEFAULT_PORT,
    DURABILITIES,
    Durability,
    Secret,
    ServeSettings,
    default_data_directory,
    parse_limits,
)

_ROOM_BYTES_MIN = 64 << 10  # an empty index
_NEEDS = ("granian", "uvloop", "packaging")


@click.command(
    short_help="Start a store on this machine.",
    epilog="""\b
Examples:
  ais serve                                  start with the defaults
  ais serve --data /srv/ais --port 9000      choose where data lies and the port
  ais serve --store s3://lake/ais --cache /nvme/ais
                                             be a node of a cluster
  ais serve --mountpath /mnt/disk2/ais       spread objects over a second disk
  AIS_AUTHN_TOKEN=… ais serve --host 0.0.0.0 serve other machines, with a token
""",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    help="Data directory [default: $AIS_DATA, else the user's data directory]",
)
@click.option(
    "--mountpath",
    multiple=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="A directory on a further disk to spread objects over; may be repeated. Needed once, the store remembers it.",
)
@click.option(
    "--store",
    metavar="URL",
    help="Be a node of the cluster in this object store (s3://bucket/prefix); needs --cache instead of --data.",
)
@click.option("--cache", type=click.Path(file_okay=False), help="Directory for this node's copies, with --store.")
@click.option("--cache-size", default="80%", show_default=True, help="How much --cache may hold: 500GiB, 80%.")
@click.option(
    "--transform-cache",
    default="5%",
    show_default=True,
    metavar="SIZE",
    help="How much may be kept of the results of transforms that ask for it: 100GiB, 5%; 0 keeps none.",
)
@click.option("--advertise", metavar="URL", help="Where other nodes and clients reach this one [default: its address]")
@click.option(
    "--lease",
    type=click.FloatRange(1.0, 600.0),
    help="Seconds after which a silent node counts as gone [default: as the cluster has it, 30 in a new one]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--workers", type=click.IntRange(0, 256), default=0, help="HTTP worker processes [default: one per core]")
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="A further name by which browsers may reach this store."
)
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default="default",
    envvar="AIS_DURABILITY",
    show_envvar=True,
    show_default=True,
    help="What a power cut may cost: the last second, or, with durable, nothing; writes wait for the disk then.",
)
@click.option("--insecure", is_flag=True, help="Serve other machines without a token.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    envvar="AIS_LOG_LEVEL",
    show_default=True,
    help="What is logged, to standard error; $AIS_LOG_LEVEL.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="AIS_LOG_FORMAT",
    show_default=True,
    help="How; $AIS_LOG_FORMAT.",
)
@click.option("--access-log", is_flag=True, envvar="AIS_ACCESS_LOG", help="Log every request too; $AIS_ACCESS_LOG=1.")
@click.option("--limit", multiple=True, metavar="NAME=NUMBER", help="Change a limit (docs/http-api.md lists them).")
def serve(
    data: str | None,
    mountpath: tuple[str, ...],
    store: str | None,
    cache: str | None,
    cache_size: str,
    transform_cache: str,
    advertise: str | None,
    lease: float | None,
    port: int,
    host: str,
    workers: int,
    allow_host: tuple[str, ...],
    durability: Durability,
    insecure: bool,
    log_level: str,
    log_format: str,
    access_log: bool,
    limit: tuple[str, ...],
) -> None:
    """Start a store: objects, transforms and everything they need, until Ctrl-C or SIGTERM.

    Prints one line when it is ready. The data directory is made if it is not there.
    """
    require_server_extra("`ais serve`")
    from ...server.supervisor import Supervisor

    try:
        _check_place(store, cache, data, mountpath)
        _check_advertised(advertise or "")
        own = os.path.join(os.path.abspath(cache), "objects") if cache else ""
        settings = ServeSettings(
            data=own or (os.path.abspath(data) if data else default_data_directory()),
            store=store or "",
            cache=os.path.abspath(cache) if cache else "",
            cache_size=cache_size,
            transform_cache=transform_cache,
            advertise=(advertise or "").rstrip("/"),
            lease_seconds=lease or (0.0 if store else DEFAULT_LEASE_SECONDS),
            cluster_secret=Secret(os.environ.get("AIS_CLUSTER_SECRET", "")),
            container_engine=os.environ.get("AIS_CONTAINER_ENGINE", ""),
            host=host,
            port=port,
            workers=workers,
            token=Secret(os.environ.get("AIS_AUTHN_TOKEN", "")),
            insecure=insecure,
            allowed_hosts=allow_host,
            mountpaths=tuple(map(os.path.abspath, mountpath)),
            log_level=log_level,
            log_format=log_format,
            access_log=access_log,
            durability=durability,
            limits=parse_limits(limit),
        )
        sys.exit(Supervisor(settings, click.echo).run())
    except AisError as error:
        click.echo(f"Error: {error.message}" + (f"\nHint: {error.hint}" if error.hint else ""), err=True)
        sys.exit(1)
    except (OSError, sqlite3.OperationalError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or _is_full(settings.data)
        reason = "its disk is full" if full else getattr(error, "strerror", "") or str(error)
        hint = "make room" if full else "choose another with --data or AIS_DATA"
        click.echo(f"Error: the data directory {settings.data} cannot be used: {reason}\nHint: {hint}", err=True)
        sys.exit(1)


def _check_advertised(url: str) -> None:
    """Refuse an address that no other node could call."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme == "http" and parts.hostname and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        parts, whole = urlsplit(""), False
    if url and (not whole or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc):
        raise BadRequestError(f"--advertise {url!r} is no address of a node", hint="expected http://host:port")


def _check_place(store: str | None, cache: str | None, data: str | None, mountpath: tuple[str, ...]) -> None:
    """Refuse combinations of places that mean nothing."""
    if bool(store) != bool(cache):
        given, missing = ("--store", "--cache DIR") if store else ("--cache", "--store URL")
        raise BadRequestError(f"{given} needs {missing}", hint="a node of a cluster keeps copies of what a store has")
    if store and (data or mountpath):
        raise BadRequestError(
            f"{'--data' if data else '--mountpath'} does not go with --store: a node keeps nothing but copies",
            hint="leave it out; --cache says where the copies are",
        )


def _is_full(directory: str) -> bool:
    """Return whether the disk of ``directory`` has no room; SQLite only says that it could not write."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    usage = shutil.disk_usage(directory)
    return usage.total > 0 and usage.free < _ROOM_BYTES_MIN  # what is no disk has none


def require_server_extra(command: str) -> None:
    """End with what to install if the server extra is not there."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        click.echo(
            f"Error: {command} needs the server extra ({', '.join(missing)} not installed)\n"
            f"Install it with: {_this_python()} -m pip install 'pyaistore[server]'",
            err=True,
        )
        sys.exit(1)


def _this_python() -> str:
    """Return how a shell calls this interpreter: by the short name if that is the one it finds, else by its path."""
    here = os.path.dirname(sys.executable)
    for name in ("python", os.path.basename(sys.executable)):
        found = shutil.which(name)
        if found is not None and os.path.dirname(found) == here:
            return name
    return shlex.quote(sys.executable)

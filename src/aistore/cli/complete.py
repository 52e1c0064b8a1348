"""Completion of names that only the store knows: buckets, objects, transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from ..client import Client

#: Names offered at a time; more than a screen helps nobody.
NAMES_MAX = 100


def complete_uri(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer buckets, and after ``ais://bucket/`` the objects of that bucket, a directory at a time."""
    from ..errors import AisError

    scheme, given, rest = incomplete.rpartition("://")
    head, slash, prefix = rest.partition("/")
    try:
        client = _client()
        if not slash:
            found = [str(bucket) for bucket in client.buckets()]
        else:
            bucket = client.bucket(head, scheme)
            names = bucket.list(prefix, props="name", limit=NAMES_MAX)
            found = sorted({f"{bucket}/{_to_next_slash(entry.name, len(prefix))}" for entry in names})
    except AisError:
        return []  # a prompt is no place for an error
    return [CompletionItem(name) for name in found if name.startswith(incomplete) or not (given or ":" in rest)]


def complete_etl(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the transforms of the store."""
    from ..errors import AisError

    try:
        found = [summary.id for summary in _client().etls()]
    except AisError:
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def complete_node(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the nodes of the cluster."""
    from ..errors import AisError

    try:
        found = [node.id for node in _client().cluster().nodes if node.type == "target"]
    except AisError:
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def _to_next_slash(name: str, start: int) -> str:
    slash = name.find("/", start)
    return name if slash < 0 else name[: slash + 1]


def _client() -> Client:
    """Return a client that gives up before a person notices; the options before the command are not known here."""
    from ..client import Client, RetryPolicy
    from .session import Session

    return Client(
        Session(None).endpoints,
        connect_timeout_seconds=0.5,
        read_timeout_seconds=1.0,
        retry=RetryPolicy(attempts_max=1, busy_seconds_max=0.0),
    )

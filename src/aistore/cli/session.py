"""What one run of ``ais`` knows: where the store is, and the client that talks to it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from ..errors import BadRequestError

if TYPE_CHECKING:
    from ..client import Client, Endpoint


class Session:
    """Finds the endpoint and makes the client when a command first asks for it."""

    def __init__(self, endpoint: str | None) -> None:
        self._endpoint = endpoint
        self._client: Client | None = None

    def use_endpoint(self, text: str) -> None:
        """Talk to the store at ``text``: what ``--endpoint`` says, before the command or after it."""
        self._endpoint = text

    @property
    def client(self) -> Client:
        """The client of this run. It gives up sooner than a training job would: somebody is waiting."""
        if self._client is None:
            from ..client import Client, RetryPolicy

            retry = RetryPolicy(attempts_max=3, pause_seconds=0.05, busy_seconds_max=20.0)
            self._client = Client(self.endpoints, retry=retry)
        return self._client

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the store is, to be tried in turn.

        ``--endpoint``, else AIS_ENDPOINT, else the configuration file, else the default.
        """
        from ..client.endpoint import VARIABLE, find_endpoints, parse_endpoints

        if self._endpoint:
            return parse_endpoints(self._endpoint, "from --endpoint")
        configured = "" if os.environ.get(VARIABLE, "").strip() else _configured_url()
        if configured:
            return parse_endpoints(configured, f"from {config_path()}")
        return find_endpoints()


def client() -> Client:
    """Return the client of the command that runs now."""
    session = click.get_current_context().find_object(Session)
    assert session is not None
    return session.client


def config_path() -> str:
    """Return where the field's CLI keeps its configuration."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "ais", "cli", "cli.json")


def _configured_url() -> str:
    """Return ``cluster.url`` of the configuration file, empty without one."""
    try:
        with open(config_path(), encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise BadRequestError(f"{config_path()} cannot be read: {error}", hint="correct or remove it") from error
    cluster = config.get("cluster") if isinstance(config, dict) else None
    url = cluster.get("url") if isinstance(cluster, dict) else None
    return url if isinstance(url, str) else ""

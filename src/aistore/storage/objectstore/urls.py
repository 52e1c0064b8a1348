"""Opening an object store by its URL, with credentials from the environment of the process."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, MemoryStore, S3Store

from ...errors import BackendRefusedError, BadRequestError
from .clients import Clients, Maker
from .contract import Capabilities
from .pages import PrefixReader
from .s3_pages import S3Access, S3PageReader
from .store import ObstoreStore

#: What each kind of store can do as its makers document it; ``probe.py`` finds out what one does.
DECLARED: Mapping[str, Capabilities] = {
    "s3": Capabilities(),
    "gs": Capabilities(metadata_bytes_max=8 << 10),
    "az": Capabilities(metadata_bytes_max=8 << 10),
    "http": Capabilities(
        writable=False, listing=False, conditional_create=False, conditional_replace=False, metadata_bytes_max=0
    ),
    # A name of a file ends at 255 bytes; the library writes "name#1" before it renames, and hides such names.
    "file": Capabilities(
        conditional_replace=False, metadata_bytes_max=0, nesting=False, segment_bytes_max=255, forbidden="#"
    ),
    "memory": Capabilities(metadata_bytes_max=8 << 10),
}

#: Other spellings of the schemes: the wire's names of providers, and what other tools use.
_SCHEMES = {"gcp": "gs", "gcs": "gs", "aws": "s3", "azure": "az", "abfs": "az", "https": "http"}

OPTIONS = ("endpoint", "region", "profile", "anonymous")

_memories: dict[str, MemoryStore] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is: the kind, the bucket (host, directory), and the prefix of all its keys (ends in ``/``)."""

    kind: str
    bucket: str
    base: str

    @property
    def url(self) -> str:
        """The place as a person writes it."""
        if self.kind == "http":
            return self.bucket
        return f"{self.kind}://{self.bucket}{'/' + self.base if self.base else ''}".rstrip("/")


def parse_url(url: str) -> Place:
    """Return the place that ``url`` names; raises BadRequestError."""
    scheme, separator, rest = url.partition("://")
    kind = _SCHEMES.get(scheme.lower(), scheme.lower())
    if not separator or kind not in DECLARED:
        raise BadRequestError(
            f"{url!r} is not the URL of an object store",
            hint="expected for example s3://bucket/prefix, gs://bucket, az://container, https://host/path, file:///dir",
        )
    if kind == "http":
        return _web_place(url)
    if kind == "file":
        if not rest.startswith("/"):
            raise BadRequestError(f"{url!r} has no absolute path", hint="expected for example file:///var/lake")
        return Place(kind, rest.rstrip("/") or "/", "")
    bucket, _, prefix = rest.partition("/")
    if not bucket and kind != "memory":
        raise BadRequestError(f"{url!r} names no bucket", hint=f"expected {kind}://bucket or {kind}://bucket/prefix")
    if "@" in bucket or "?" in rest or "#" in rest:
        raise BadRequestError(f"{kind}://…: a URL of a store has no credentials, query or fragment")
    prefix = prefix.strip("/")
    return Place(kind, bucket, f"{prefix}/" if prefix else "")


def _web_place(url: str) -> Place:
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise BadRequestError(
            f"{parts.scheme}://{parts.hostname or ''}: not the URL of a directory on a web server",
            hint="expected http(s)://host/path, without credentials, query or fragment",
        )
    return Place("http", url.rstrip("/"), "")


def open_object_store(url: str, options: Mapping[str, Any] | None = None) -> ObstoreStore:
    """Open the store at ``url``: s3:// gs:// az:// http(s):// file:// memory://, with a prefix of keys if it has one.

    ``options``: ``endpoint`` (the store's own address, instead of the provider's), ``region``, ``profile`` (of the AWS
    files), ``anonymous`` (public data, no credentials). What is not given there comes from the variables that the
    store's other tools read (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, …). Nothing is sent yet.
    ``memory://name`` is the same store for every opener in the process, ``memory://`` is a new one. Raises
    BadRequestError, BackendRefusedError (the profile).
    """
    place = parse_url(url)
    given = dict(options or {})
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise BadRequestError(f"unknown option {unknown[0]!r} for {url}", hint="expected: " + ", ".join(OPTIONS))
    if place.kind == "s3":
        maker, access = _s3(place, given)
    else:
        maker, access = _MAKERS[place.kind](place, given), None
    clients = Clients(maker)
    pages = (
        S3PageReader(place.base, access)
        if access is not None
        else PrefixReader(place.url, place.base, clients, folders=place.kind in ("s3", "gs", "az"))
    )
    return ObstoreStore(place.url, place.kind, place.base, clients, DECLARED[place.kind], pages)


def _client(options: dict[str, Any], endpoint: str) -> Any:
    # Whoever writes http:// into the endpoint wants no encryption; nothing else turns it off.
    return {**options, "allow_http": True} if endpoint.startswith("http://") else options


def _s3(place: Place, options: Mapping[str, Any]) -> tuple[Maker, S3Access | None]:
    """Return the maker of clients, and how to reach the bucket without them where its keys are known here."""
    environment = os.environ
    config: Any = {"bucket": place.bucket}
    endpoint = str(options.get("endpoint") or environment.get("AWS_ENDPOINT_URL_S3") or "")
    endpoint = (endpoint or environment.get("AWS_ENDPOINT_URL") or environment.get("AWS_ENDPOINT") or "").rstrip("/")
    if endpoint:
        config["endpoint"] = endpoint
    profile = str(options.get("profile") or "")
    anonymous = bool(options.get("anonymous")) or environment.get("AWS_SKIP_SIGNATURE", "").lower() in ("true", "1")
    if anonymous:
        config["skip_signature"] = True
    elif profile or "AWS_ACCESS_KEY_ID" not in environment:
        config.update(_profile(profile))
    else:
        config["access_key_id"] = environment["AWS_ACCESS_KEY_ID"]
        config["secret_access_key"] = environment.get("AWS_SECRET_ACCESS_KEY", "")
        if environment.get("AWS_SESSION_TOKEN"):
            config["session_token"] = environment["AWS_SESSION_TOKEN"]
    region = str(options.get("region") or config.get("region") or environment.get("AWS_REGION") or "")
    config["region"] = region or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    access = None
    if anonymous or "access_key_id" in config:
        keys = tuple(config.get(name, "") for name in ("access_key_id", "secret_access_key", "session_token"))
        access = S3Access(
            endpoint or f"https://s3.{config['region']}.amazonaws.com",
            place.bucket,
            config["region"],
            None if anonymous else (keys[0], keys[1], keys[2]),
        )
    return (
        lambda client, retry: S3Store(config=config, client_options=_client(client, endpoint), retry_config=retry),
        access,
    )


def _profile(name: str) -> dict[str, str]:
    """Return the keys and the region of a profile in the AWS files; the library does not read them itself."""
    wanted = name or os.environ.get("AWS_PROFILE") or "default"
    home = os.path.expanduser("~/.aws")
    credentials, config = configparser.RawConfigParser(), configparser.RawConfigParser()
    credentials.read(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(home, "credentials"))
    config.read(os.environ.get("AWS_CONFIG_FILE") or os.path.join(home, "config"))
    merged: dict[str, str] = {}
    for parser, section in ((config, wanted if wanted == "default" else f"profile {wanted}"), (credentials, wanted)):
        if parser.has_section(section):
            merged.update(parser.items(section))
    names = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "region": "region",
    }
    found = {ours: merged[theirs] for theirs, ours in names.items() if theirs in merged}
    if name and "access_key_id" not in found:
        raise BackendRefusedError(
            f"the AWS profile {name!r} has no access key", hint="look into ~/.aws/credentials, or set AWS_ACCESS_KEY_ID"
        )
    return found


def _gs(place: Place, options: Mapping[str, Any]) -> Maker:
    config: Any = {"bucket": place.bucket}
    endpoint = str(options.get("endpoint") or os.environ.get("STORAGE_EMULATOR_HOST") or "")
    if endpoint:
        config["base_url"] = endpoint.rstrip("/")
    if options.get("anonymous"):
        config["skip_signature"] = True
    return lambda client, retry: GCSStore(config=config, client_options=_client(client, endpoint), retry_config=retry)


def _az(place: Place, options: Mapping[str, Any]) -> Maker:
    config: Any = {"container_name": place.bucket}
    endpoint = str(options.get("endpoint") or os.environ.get("AZURE_STORAGE_ENDPOINT") or "")
    if endpoint:
        config["endpoint"] = endpoint.rstrip("/")
    if options.get("anonymous"):
        config["skip_signature"] = True
    if "AZURE_STORAGE_ACCOUNT_NAME" not in os.environ:
        raise BackendRefusedError(
            f"{place.url}: the storage account is not known", hint="set AZURE_STORAGE_ACCOUNT_NAME (and its key)"
        )
    return lambda client, retry: AzureStore(config=config, client_options=_client(client, endpoint), retry_config=retry)


def _web(place: Place, options: Mapping[str, Any]) -> Maker:
    return lambda client, retry: HTTPStore(
        place.bucket, client_options=_client(client, place.bucket), retry_config=retry
    )


def _file(place: Place, options: Mapping[str, Any]) -> Maker:
    if not os.path.isdir(place.bucket):
        raise BackendRefusedError(f"{place.url}: there is no such directory", hint="create it, or correct the path")
    store = LocalStore(place.bucket)
    return lambda client, retry: store


def _memory(place: Place, options: Mapping[str, Any]) -> Maker:
    store = _memories.setdefault(place.bucket, MemoryStore()) if place.bucket else MemoryStore()
    return lambda client, retry: store


_MAKERS = {"gs": _gs, "az": _az, "http": _web, "file": _file, "memory": _memory}

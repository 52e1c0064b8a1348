"""The description of the HTTP API is of what is routed, all of it, and is served."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import urllib3

import aistore
from aistore.errors import AisError
from aistore.server.description import described_handlers, operations_of
from aistore.server.openapi import belongs, describe, spellings
from aistore.server.request import Request
from aistore.server.routes import ROUTES, route
from aistore.testing import StoreProcess

DOCUMENT = describe(ROUTES)
OPERATIONS = [(path, method, one) for path, methods in DOCUMENT["paths"].items() for method, one in methods.items()]


def request(method: str, path: str) -> Request:
    scope = {"method": method.upper(), "raw_path": path.encode(), "query_string": b"", "headers": []}
    return Request(scope, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind in ROUTES for method in ROUTES[kind]])
def test_every_route_is_described(kind: str, method: str) -> None:
    declared = operations_of(ROUTES[kind][method])
    assert [one for one in declared if belongs(one, kind, method)], f"nothing is declared for {method} /{kind}"


@pytest.mark.parametrize(("path", "method"), [(path, method) for path, method, _ in OPERATIONS])
def test_every_described_operation_is_routed(path: str, method: str) -> None:
    handler, _ = route(request(method, re.sub(r"{\w+}", "x", path)))
    assert path in {spelling for one in operations_of(handler) for spelling in spellings(one.path)}


def test_every_declaration_is_in_the_description() -> None:
    for handler in described_handlers():
        for one in operations_of(handler):
            for path in spellings(one.path):
                assert path in DOCUMENT["paths"], f"{handler.__name__} declares {path}, which is not routed"


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if "$ref" in value else []
        return here + [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def test_references_lead_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 100
    for reference in found:
        target = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_operations_can_be_told_apart() -> None:
    names = [one["operationId"] for _, _, one in OPERATIONS]
    assert len(set(names)) == len(names)


def test_the_document_for_people_names_every_path() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "http-api.md").read_text(encoding="utf-8")
    for path in DOCUMENT["paths"]:
        first = "/".join(path.split("/")[:3]) if path.startswith("/v1") else path.partition("{")[0].rstrip("/")
        assert first in text, f"docs/http-api.md does not name {first}"


def test_the_store_serves_its_description_without_a_token(new_store: object) -> None:
    store: StoreProcess = new_store(env={"AIS_AUTHN_TOKEN": "secret"})  # type: ignore[operator]
    reply = urllib3.request("GET", f"{store.endpoint}/openapi.json")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    served = reply.json()
    assert served == json.loads(json.dumps(DOCUMENT))
    assert served["info"]["version"] == aistore.__version__
    assert urllib3.request("GET", f"{store.endpoint}/v1/buckets").status == 401


def test_errors_are_declared_with_their_statuses() -> None:
    statuses = {kind.status for kind in _kinds(AisError)} - {500}
    declared = {int(name.removeprefix("Body")) for name in DOCUMENT["components"]["responses"] if "Body" in name}
    assert statuses - {405} == declared


def _kinds(kind: type[AisError]) -> list[type[AisError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _kinds(child))]

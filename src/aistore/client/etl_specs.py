"""Specifications of transforms as files: what is in one becomes the messages that the store takes."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import Any

from ..errors import BadRequestError
from ..model.yaml_documents import read_yaml

_FILE_BYTES_MAX = 8 << 20


def read_messages(spec: str | os.PathLike[str] | Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the init messages in a specification: a file (a path object), its text, or a message itself.

    A file may have several documents. A pod is sent as it is. ``file`` in ``runtime`` is read, relative to the
    specification. Raises BadRequestError for what is no specification, OSError for a file that cannot be read.
    """
    directory = "."
    if isinstance(spec, Mapping):
        documents: list[Any] = [dict(spec)]
    elif isinstance(spec, os.PathLike):
        directory = os.path.dirname(os.path.abspath(spec))
        with open(spec, "rb") as file:
            documents = read_yaml(file.read(), os.fspath(spec))
    else:
        documents = read_yaml(spec)
    if not documents:
        raise BadRequestError("the specification is empty", hint="expected name, runtime, …; see `ais etl init --help`")
    return [_message(document, directory) for document in documents]


def _message(document: Any, directory: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise BadRequestError(
            f"a specification is a mapping of names to values, not {document!r:.80}", hint="expected name, runtime, …"
        )
    if "kind" in document or "apiVersion" in document:
        return _pod_message(document)
    runtime = document.get("runtime")
    if isinstance(runtime, dict) and isinstance(runtime.get("file"), str):
        return {**document, "runtime": _with_file(runtime, directory)}
    return document


def _pod_message(pod: dict[str, Any]) -> dict[str, Any]:
    metadata = pod.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    try:
        text = json.dumps(pod)  # which is YAML too
    except TypeError as error:
        raise BadRequestError(f"the pod specification has a value that is no text or number: {error}") from error
    return {"name": name or "", "spec": base64.b64encode(text.encode()).decode()}


def _with_file(runtime: dict[str, Any], directory: str) -> dict[str, Any]:
    """Return ``runtime`` with the contents of its ``file`` as code."""
    rest = {key: value for key, value in runtime.items() if key != "file"}
    path = os.path.join(directory, runtime["file"])
    for key in ("code", "filename"):
        if key in rest:
            raise BadRequestError(f"runtime has both a file and {key}", hint="leave one of them out")
    if os.path.getsize(path) > _FILE_BYTES_MAX:
        raise BadRequestError(f"{path} is too long for a transform", hint=f"expected at most {_FILE_BYTES_MAX} bytes")
    try:
        with open(path, encoding="utf-8") as file:
            return {**rest, "code": file.read(), "filename": os.path.basename(path)}
    except UnicodeDecodeError as error:
        raise BadRequestError(f"{path} is no text in UTF-8: {error}") from error

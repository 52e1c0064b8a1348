"""The node's identity: made once, kept with its data."""

from __future__ import annotations

import json
import os
import secrets
import string

from ..errors import BadRequestError

_ALPHABET = string.ascii_letters + string.digits


def node_identity(data: str) -> str:
    """Return the node's id, eight letters and digits; made and written on the first start."""
    path = os.path.join(data, "node.json")
    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file)["node_id"])
    except FileNotFoundError:
        node_id = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"format": 1, "node_id": node_id}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
        return node_id
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequestError(f"{path} cannot be read: {error}", hint="remove it to give the node a new id") from error

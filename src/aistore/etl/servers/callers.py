"""Who may ask for what belongs to a transform's calls: whoever shows the secret in its AIS_TARGET_URL."""

from __future__ import annotations

import hmac

from ...errors import BadRequestError
from ..running import Running
from .call_files import Offers

#: How the path of such a request begins; the transform's name, its secret and the object's unique name follow.
PREFIX = "/v1/etl/_object/"


def check_secret(running: Running, given: str) -> Offers:
    """Return what the calls through a transform offer to whoever knows its secret; raises BadRequestError."""
    secret = running.secret
    if not secret or not running.calls or not hmac.compare_digest(given.encode(), secret.encode()):
        raise unrecognized()
    return Offers(running.calls)


def unrecognized() -> BadRequestError:
    """Return the error of a caller that has no secret, or none of a transform."""
    return BadRequestError(
        "unrecognized request source", hint="a transform adds the object's name to AIS_TARGET_URL as it was given"
    )

"""What an object store's answers mean for whoever called a verb: the library's errors become ours, in one place."""

from __future__ import annotations

import re

from obstore import exceptions

from ...errors import (
    AisError,
    AmbiguousWriteError,
    BackendRefusedError,
    BackendUnavailableError,
    BadRequestError,
    NotSupportedError,
    RangeNotSatisfiableError,
    StaleConditionError,
    StoredNotFoundError,
    TooLargeError,
)

#: What the library raises; anything else is a bug of ours and passes.
LIBRARY_ERRORS = (exceptions.BaseError, OSError, ValueError, NotImplementedError)

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_RANGE = re.compile(r"416 Range Not|InvalidRange|StartTooLarge|Requested range was invalid|Invalid range")

_TOO_LARGE = frozenset(("EntityTooLarge", "MetadataTooLarge", "RequestBodyTooLarge"))

#: What to do about answers that somebody has to do something about, by the store's own code for them.
_HINTS = {
    "RequestTimeTooSkewed": "the clock of this machine differs from the store's by minutes: set it (NTP)",
    "InvalidAccessKeyId": "the store does not know this access key: check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key is not that of the access key: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session's credentials have expired: get new ones",
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION or the endpoint",
    "NoSuchBucket": "create the bucket with the store's own tools, or correct its name",
    "ContainerNotFound": "create the container with the store's own tools, or correct its name",
    "AccessDenied": "these credentials may not do this: check the bucket's policy and the key's rights",
    "AuthenticationFailed": "check the account and its key, and that the clock of this machine is right",
}


def first_line(error: BaseException) -> str:
    """Return what the library says without its dump of Rust values."""
    return str(error).partition("\n\nDebug source")[0].partition("\n")[0][:500]


def translate(error: BaseException, what: str, *, writing: bool = False) -> AisError:
    """Return the error to raise for ``error`` of the library; ``what`` says what was tried, as in ``GET s3://b/k``."""
    text = str(error)
    code = _found(_CODE, text)
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return _refused(what, error, code)
    if isinstance(error, FileNotFoundError) or (not writing and "NotADirectory" in text):
        return StoredNotFoundError(f"{what}: there is no such key")
    if isinstance(error, (exceptions.AlreadyExistsError, exceptions.PreconditionError)):
        return StaleConditionError(f"{what}: the key is not as expected, nothing was written")
    if writing and re.search(r"NotADirectory|IsADirectory|DirectoryNotEmpty|ENOTDIR", text):
        return BadRequestError(
            f"{what}: this store is a file system, where a name cannot be an object and a directory at once",
            hint="remove the other one, or choose another name",
        )
    if isinstance(error, NotImplementedError):
        return NotSupportedError(f"{what}: {first_line(error)}")
    if "Range request not supported" in text:
        return NotSupportedError(f"{what}: this store does not serve ranges", hint="read the whole object")
    status = int(_found(_STATUS, text) or 0)
    if status == 409 and writing:  # S3 says so of conditional writes that meet; none of them was done
        return StaleConditionError(f"{what}: another write of the key is under way, nothing was written")
    if status == 416 or (not writing and not status and _RANGE.search(text)):
        return RangeNotSatisfiableError(f"{what}: the range is outside the object")
    if "169.254.169.254" in text or "Missing" in text.partition("\n\n")[0]:
        return BackendRefusedError(
            f"{what}: there are no credentials for it",
            hint="set the store's usual environment variables (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, "
            "AZURE_STORAGE_ACCOUNT_NAME, …), or read a public bucket with AWS_SKIP_SIGNATURE=true",
        )
    if status in (401, 403) or (300 <= status < 400) or (status == 400 and code in _HINTS):
        return _refused(what, error, code)
    if writing and code in _TOO_LARGE:
        return TooLargeError(f"{what}: the store takes no object of this size in one request ({code})")
    if writing and status == 400 and code and code != "RequestTimeout":  # an answer to this write: it was not done
        return BadRequestError(f"{what}: the store refused it ({code})", hint=first_line(error))
    if _is_certificate(text):
        return BackendRefusedError(f"{what}: its certificate is not accepted", hint="check the endpoint and the clock")
    if writing and not _never_sent(text):
        return AmbiguousWriteError(f"{what}: {_reason(error)}; it may have been done or not")
    return BackendUnavailableError(f"{what}: {_reason(error)}", hint=_unavailable_hint(status, text))


def _refused(what: str, error: BaseException, code: str) -> BackendRefusedError:
    hint = _HINTS.get(code, "check the credentials, the bucket's policy and the clock of this machine")
    return BackendRefusedError(f"{what}: the store refused it ({code or first_line(error)})", hint=hint)


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def _never_sent(text: str) -> bool:
    """Say whether no connection was made, or the failure is the library's own: then nothing was written."""
    return "kind: Connect" in text or ("HTTP error" not in text and not _STATUS.search(text))


def _is_certificate(text: str) -> bool:
    return "certificate" in text.lower() and "kind: Connect" in text


def _reason(error: BaseException) -> str:
    text = str(error)
    if "kind: Timeout" in text or "TimedOut" in text:
        return "it did not answer in time"
    if "dns error" in text:
        return "its host name is not known"
    if "kind: Connect" in text:
        return "no connection to it can be made"
    status = _found(_STATUS, text)
    return f"it answered {status}" if status else first_line(error)


def _unavailable_hint(status: int, text: str) -> str:
    if status == 429 or status == 503:
        return "the store asks for fewer requests; it is tried again with pauses"
    if "kind: Connect" in text or "dns error" in text:
        return "check the endpoint, and the network between this machine and it"
    return "try again; if it lasts, look at the store itself"

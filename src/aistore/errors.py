"""Every error of the project, on both sides of the wire.

The tree branches by what the caller can do about it::

    AisError
    ├── RequestError              correct the request, then send it again
    │   ├── BadRequestError             400
    │   │   └── ChecksumMismatchError   400
    │   ├── UnauthorizedError           401
    │   ├── ForbiddenError              403
    │   ├── NotFoundError               404
    │   │   ├── BucketNotFoundError
    │   │   ├── ObjectNotFoundError
    │   │   ├── StoredNotFoundError         no such key in an object store
    │   │   ├── EtlNotFoundError
    │   │   └── JobNotFoundError
    │   ├── MethodNotAllowedError       405
    │   ├── RequestTimeoutError         408
    │   ├── ConflictError               409
    │   │   ├── BucketExistsError
    │   │   ├── EtlExistsError
    │   │   ├── StaleConditionError         an object store's key is not what a write expected
    │   │   ├── StaleJobError           the record of a job was changed by somebody else
    │   │   └── PreconditionFailedError 412
    │   ├── TooLargeError               413
    │   ├── RangeNotSatisfiableError    416
    │   ├── EtlInitError                400  the transform could not be made ready
    │   └── TransformError              422  the transform failed on this object
    │       ├── TransformTimeoutError
    │       ├── TransformCrashError
    │       └── TransformExcessError        it used more memory, processes or disk than it may
    ├── RetryLaterError           the same request can succeed later
    │   ├── OverloadedError             503
    │   ├── EtlNotRunningError          503 (409 when it was stopped or aborted)
    │   ├── OutOfSpaceError             507
    │   ├── MountpathUnavailableError   503  a disk is gone or failing
    │   ├── BackendUnavailableError     503  the object store behind this store does not answer
    │   ├── BackendRefusedError         503  it refuses this node: credentials, clock, a bucket that is not there
    │   ├── AmbiguousWriteError         503  a write may have been done or not
    │   ├── NotHomeError                503  the map of nodes changed while a request was on its way
    │   ├── PeerUnreachableError        503  another node of the cluster does not answer
    │   └── StoreUnreachableError       no answer from the store (client side)
    ├── DataError                 never on the wire: what came is not what the program reading it expects
    │   ├── ForeignReplyError           what answers at the endpoint is not a store
    │   ├── SamplesError                the objects do not form samples
    │   └── DecodeError                 the bytes of an object are not what its name promises
    ├── NotSupportedError         501, a thing this store does not do
    └── InternalError             500, our bug
        └── ObjectDamagedError          500, the disk did not keep the bytes of this object

A failing transform answers 422 and not 5xx: clients of the field retry 5xx with back-off for a minute, and a picture
that cannot be decoded does not get better by waiting.
"""

from __future__ import annotations


class AisError(Exception):
    """Base of all errors: a message for people, a code for programs, a status for HTTP.

    ``code`` never changes for a kind of error and goes over the wire as ``tcode``; the message may be reworded.
    ``hint`` is an optional sentence that says what to do.
    """

    code = "ErrInternal"
    status = 500

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if status is not None:
            self.status = status

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.status))


def _rebuild(kind: type[AisError], message: str, hint: str, status: int) -> AisError:
    error = kind.__new__(kind)
    AisError.__init__(error, message, hint=hint, status=status)
    return error


class RequestError(AisError):
    """The request cannot succeed as it is."""

    code = "ErrRequest"
    status = 400


class BadRequestError(RequestError):
    """The request is malformed or asks for something invalid."""

    code = "ErrBadRequest"


class ChecksumMismatchError(BadRequestError):
    """The bytes received do not have the checksum that the client sent with them."""

    code = "ErrBadChecksum"


class UnauthorizedError(RequestError):
    """The store wants a token and the request has none, or a wrong one."""

    code = "ErrUnauthorized"
    status = 401


class ForbiddenError(RequestError):
    """The request is refused whoever sends it this way (foreign origin, foreign host)."""

    code = "ErrForbidden"
    status = 403


class NotFoundError(RequestError):
    """The thing named by the request does not exist."""

    code = "ErrNotFound"
    status = 404


class BucketNotFoundError(NotFoundError):
    """No bucket of that name."""

    code = "ErrBckNotFound"

    @classmethod
    def of(cls, bucket: str, provider: str = "ais") -> BucketNotFoundError:
        """Return the error for ``bucket``, in the words that clients of the field look for."""
        return cls(f'bucket "{provider}://{bucket}" does not exist')


class ObjectNotFoundError(NotFoundError):
    """No object of that name in the bucket."""

    code = "ErrObjNotFound"

    @classmethod
    def of(cls, bucket: str, name: str) -> ObjectNotFoundError:
        """Return the error for one object, in the words that clients of the field look for."""
        return cls(f"ais://{bucket}/{name} does not exist")


class StoredNotFoundError(NotFoundError):
    """An object store has no such key."""

    code = "ErrStoredNotFound"


class EtlNotFoundError(NotFoundError):
    """No ETL of that name."""

    code = "ErrETLNotFound"

    @classmethod
    def of(cls, name: str) -> EtlNotFoundError:
        """Return the error for ETL ``name``, in the words that clients of the field look for."""
        return cls(f"etl job {name} does not exist", hint="`ais etl list` shows the transforms there are")


class JobNotFoundError(NotFoundError):
    """No job of that id."""

    code = "ErrJobNotFound"

    @classmethod
    def of(cls, job: str) -> JobNotFoundError:
        """Return the error for job ``job``."""
        return cls(f"job {job!r} does not exist", hint="`ais show job --all` shows the jobs there are")


class MethodNotAllowedError(RequestError):
    """The path exists but not with this HTTP method."""

    code = "ErrMethodNotAllowed"
    status = 405
    allow = ""

    def __init__(self, message: str, *, allow: str = "", hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint=hint, status=status)
        self.allow = allow


class RequestTimeoutError(RequestError):
    """The client stopped sending before its request was whole."""

    code = "ErrRequestTimeout"
    status = 408


class ConflictError(RequestError):
    """The request conflicts with what is there."""

    code = "ErrConflict"
    status = 409


class BucketExistsError(ConflictError):
    """A bucket of that name exists."""

    code = "ErrBckAlreadyExists"

    @classmethod
    def of(cls, bucket: str) -> BucketExistsError:
        """Return the error for ``bucket``."""
        return cls(f'bucket "ais://{bucket}" already exists')


class EtlExistsError(ConflictError):
    """An ETL of that name exists."""

    code = "ErrETLAlreadyExists"

    @classmethod
    def of(cls, name: str) -> EtlExistsError:
        """Return the error for ETL ``name``."""
        return cls(f"etl job {name} already exists", hint=f"remove it with `ais etl rm {name}` or choose another name")


class EtlChangedError(ConflictError):
    """A transform is not the one any more that a job began with."""

    code = "ErrETLChanged"


class StaleConditionError(ConflictError):
    """A conditional write found a key of an object store in another state than it expected; nothing was written."""

    code = "ErrStaleCondition"


class StaleJobError(ConflictError):
    """The record of a job is not what it was when it was read: somebody else has changed it."""

    code = "ErrStaleJob"


class PreconditionFailedError(ConflictError):
    """The object is not the version that the request is meant for (``If-Match`` and the like)."""

    code = "ErrPreconditionFailed"
    status = 412


class TooLargeError(RequestError):
    """The body or a header is larger than the store accepts."""

    code = "ErrTooLarge"
    status = 413


class RangeNotSatisfiableError(RequestError):
    """The byte range lies outside the object."""

    code = "ErrRangeNotSatisfiable"
    status = 416


class EtlInitError(RequestError):
    """A transform could not be made ready: its code, its dependencies or its runtime is at fault."""

    code = "ErrETLInit"


class TransformError(RequestError):
    """The transform failed on this object; the message carries its own traceback."""

    code = "ErrETLTransform"
    status = 422


class TransformTimeoutError(TransformError):
    """The transform took longer than its limit on this object and was ended."""

    code = "ErrETLTimeout"


class TransformCrashError(TransformError):
    """The transform's process ended without an answer for this object."""

    code = "ErrETLCrash"


class TransformExcessError(TransformError):
    """The transform used more memory, processes or disk than it may, and was ended for it."""

    code = "ErrETLExcess"


class RetryLaterError(AisError):
    """The same request can succeed later; ``retry_after_seconds`` is the store's guess when, None for no guess."""

    code = "ErrRetryLater"
    status = 503
    retry_after_seconds: int | None = 1


class OverloadedError(RetryLaterError):
    """A bounded queue is full."""

    code = "ErrBusy"


class EtlNotRunningError(RetryLaterError):
    """The ETL exists but does not take objects now."""

    code = "ErrETLNotRunning"


class OutOfSpaceError(RetryLaterError):
    """The disk is full; reads go on."""

    code = "ErrOutOfSpace"
    status = 507


class MountpathUnavailableError(RetryLaterError):
    """The disk that has the object, or may have it, is gone or failing; what is on other disks is served."""

    code = "ErrMountpathUnavailable"
    retry_after_seconds = 3  # a disk that was away for a moment is used again within two seconds


class BackendUnavailableError(RetryLaterError):
    """The object store behind this store does not answer, or answers that it cannot now."""

    code = "ErrBackendUnavailable"
    retry_after_seconds = 2


class BackendRefusedError(RetryLaterError):
    """The object store behind this store refuses this node; somebody has to change a setting.

    Nodes go on trying, because credentials are renewed under them; clients are told at once.
    """

    code = "ErrBackendRefused"
    retry_after_seconds = None


class AmbiguousWriteError(RetryLaterError):
    """A write to an object store got no answer: it may have been done, or be done later, or not at all."""

    code = "ErrAmbiguousWrite"


class NotHomeError(RetryLaterError):
    """The map of nodes changed while a request was on its way: it has to be sent to where the object lives now."""

    code = "ErrNotHome"


class PeerUnreachableError(RetryLaterError):
    """Another node of the cluster does not answer. Unless ``sent``, it cannot have seen anything of the request."""

    code = "ErrPeerUnreachable"
    sent = True


class StoreUnreachableError(RetryLaterError):
    """No store answered at the endpoint."""

    code = "ErrUnreachable"


class DataError(AisError):
    """The store did its part, but what came is not what the program that reads it expects (client side)."""

    code = "ErrData"


class ForeignReplyError(DataError):
    """Something answers at the endpoint, but what it says is not what a store says."""

    code = "ErrForeignReply"


class SamplesError(DataError):
    """The objects of a listing do not form samples that are alike."""

    code = "ErrSamples"


class DecodeError(DataError):
    """The bytes of an object, or of a transform's result, are not what the decoder for its name expects."""

    code = "ErrDecode"


class NotSupportedError(AisError):
    """A documented part of the field's API that this store does not have."""

    code = "ErrNotSupported"
    status = 501


class InternalError(AisError):
    """A bug of ours."""


class ObjectDamagedError(InternalError):
    """The stored bytes of an object are not those that were stored; they are never given out as if they were."""

    code = "ErrObjDamaged"


class ClientGoneError(Exception):
    """The client closed the connection before its request was whole or answered, so nobody reads a reply.

    Not an AisError on purpose: it never becomes one.
    """


def _all_kinds(kind: type[AisError]) -> dict[str, type[AisError]]:
    kinds = {kind.code: kind}
    for child in kind.__subclasses__():
        kinds.update(_all_kinds(child))
    return kinds


def error_codes() -> list[str]:
    """Return the codes of all errors, in the order of their names."""
    return sorted(_all_kinds(AisError))


def error_from_code(code: str, message: str, *, hint: str = "", status: int | None = None) -> AisError:
    """Return the error for a wire ``code``; an unknown code gives the nearest kind by ``status``."""
    kind = _all_kinds(AisError).get(code)
    if kind is None:
        by_status = {404: NotFoundError, 409: ConflictError, 403: ForbiddenError, 416: RangeNotSatisfiableError}
        if status is None or status >= 500:
            kind = RetryLaterError if status in (429, 503, 507) else InternalError
        else:
            kind = by_status.get(status, RequestError)
    return _rebuild(kind, message, hint, status if status is not None else kind.status)

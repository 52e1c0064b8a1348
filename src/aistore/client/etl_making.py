"""Making a transform: from code, from a Python function or class, from a specification."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import msgspec

from ..errors import BadRequestError, EtlInitError, InternalError
from ..model.etl import Isolation, Network, Sandbox, parse_duration
from ..wire.messages import EtlInitCode, Progress, encode_base64
from .transport import Reply, Request, Transport

if TYPE_CHECKING:
    from typing_extensions import Unpack

NDJSON = "application/x-ndjson"

#: How much longer than the store the client waits for an ETL to become ready, in seconds.
INIT_MARGIN_SECONDS = 30.0
_PATIENCE_SECONDS = 3600.0

OnProgress = Callable[[Progress], None]

_Made = TypeVar("_Made", bound=Callable[..., Any])


class CodeOptions(TypedDict, total=False):
    """What `Etl.init_code` takes besides the code, its name and its communication type."""

    dependencies: str | list[str]
    runtime: str
    isolation: str | Isolation
    sandbox: str | Sandbox
    init_timeout: str
    object_timeout: str
    workers: int
    network: str | Network
    deterministic: bool
    cache: bool
    env: Mapping[str, str]
    memory: str
    cpus: str | float
    on_progress: OnProgress


class EtlMaking:
    """The methods of `Etl` that make a transform; each waits until it is ready and returns its name."""

    _transport: Transport
    name: str

    def init_code(
        self,
        code: str | os.PathLike[str],
        *,
        dependencies: str | list[str] = "",
        runtime: str = "python3",
        comm_type: str = "hpush://",
        isolation: str | Isolation = Isolation.WARM,
        sandbox: str | Sandbox = Sandbox.ON,
        init_timeout: str = "",
        object_timeout: str = "",
        workers: int = 0,
        filename: str = "",
        network: str | Network = Network.NONE,
        deterministic: bool = False,
        cache: bool = False,
        env: Mapping[str, str] | None = None,
        memory: str = "",
        cpus: str | float = "",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> str:
        """Make a transform from code, wait until it is ready and return its name.

        ``code`` is the program itself, or (a path object) the file that has it: with ``comm_type`` ``io://`` a script
        from standard input to standard output, with ``hpush://`` a module with ``transform(data: bytes) -> bytes``.
        ``dependencies`` is the text of a requirements file, or a list of requirements. Timeouts are spelled ``45s``
        or ``5m``, empty for the store's default. ``filename`` is what tracebacks call the code, for a path its base
        name. ``network`` ``full`` lets it reach what the store's machine reaches. ``deterministic`` is your word that
        equal objects and arguments give equal bytes; with ``cache`` the store keeps such results, and those of reads
        with a seed, and gives them out again. ``env`` are variables; ``memory`` (``1Gi``) and ``cpus``
        (``500m``) limit it. ``on_progress`` is called with each stage: resolving, installing, importing, ready.

        Raises EtlExistsError, and EtlInitError with the reason why it could not be made ready.
        """
        if isinstance(code, os.PathLike):
            filename = filename or os.path.basename(code)
            with open(code, encoding="utf-8") as file:
                code = file.read()
        message = EtlInitCode(
            code=encode_base64(code),
            dependencies=encode_base64(dependencies if isinstance(dependencies, str) else "\n".join(dependencies)),
            name=self.name,
            id=self.name,
            runtime=runtime,
            communication_type=comm_type if "://" in comm_type else f"{comm_type}://",
            wait_timeout=init_timeout,
            obj_timeout=object_timeout,
            isolation=str(getattr(isolation, "value", isolation)),
            sandbox=str(getattr(sandbox, "value", sandbox)),
            workers=workers,
            filename=filename,
            network=str(getattr(network, "value", network)),
            deterministic=deterministic,
            cache=cache,
            env=dict(env or {}),
            memory=memory,
            cpus=cpus,
        )
        return self._make("POST", "/v1/etl/init_code", msgspec.json.encode(message), init_timeout, on_progress)

    def init_function(self, made: Callable[..., Any], **options: Unpack[CodeOptions]) -> str:
        """Make a transform from a Python function, or from a class with a method ``transform``; return its name.

        The function gets an object as ``bytes`` (and, in parameters of these names, its ``path`` and ``etl_args``) and
        returns ``bytes``. Of a class one instance is made when the transform is started. It is sent as source with
        what it uses of its module; what has no source is pickled, which needs cloudpickle here, and this Python at the
        store. ``dependencies`` are the packages that it imports. The options are those of `init_code`.

        Raises BadRequestError for what is no such function, NotSupportedError for what can be neither written down nor
        pickled, and what `init_code` raises.
        """
        from .functions import code_of

        found = code_of(made)
        dependencies = options.get("dependencies", "")
        if isinstance(dependencies, str):
            dependencies = dependencies.splitlines()
        if found.pickled and options.get("runtime", found.runtime) != found.runtime:
            raise BadRequestError(
                f"{made.__name__} is pickled by {found.runtime} and cannot run in {options['runtime']}",
                hint="leave the runtime out, or write the function so that its source says everything",
            )
        complete: CodeOptions = {"runtime": found.runtime, **options}
        complete["dependencies"] = [*dependencies, *found.dependencies]
        return self.init_code(found.code, filename=f"{made.__name__}.py", **complete)

    def transform(self, **options: Unpack[CodeOptions]) -> Callable[[_Made], _Made]:
        """Return a decorator that makes a transform from the function or class below it (see `init_function`).

        The function stays what it is, so it can still be called.
        """

        def decorate(made: _Made) -> _Made:
            self.init_function(made, **options)
            return made

        return decorate

    def init_spec(
        self,
        spec: str | os.PathLike[str] | Mapping[str, Any],
        *,
        comm_type: str = "",
        init_timeout: str = "",
        object_timeout: str = "",
        on_progress: OnProgress | None = None,
    ) -> str:
        """Make a transform from a specification, wait until it is ready and return its name.

        ``spec`` is a file (a path object), the text of one, or a mapping of the same keys: the runtime message of
        AIStore (``runtime`` with an image or a command), or the pod of 2021. The name of this `Etl` comes before that
        in it, and so do the other arguments unless they are empty.

        Raises BadRequestError that names what is wrong in it, EtlExistsError, and EtlInitError with the reason why it
        could not be made ready.
        """
        from .etl_specs import read_messages

        messages = read_messages(spec)
        if len(messages) != 1:
            raise BadRequestError(f"expected one specification, got {len(messages)}", hint="make each by itself")
        given = {
            "name": self.name, "communication": comm_type, "init_timeout": init_timeout, "obj_timeout": object_timeout
        }  # fmt: skip
        message = {**messages[0], **{key: value for key, value in given.items() if value}}
        timeout = message.get("init_timeout")
        return self._make(
            "PUT", "/v1/etl", msgspec.json.encode(message), timeout if isinstance(timeout, str) else "", on_progress
        )

    def _make(self, method: str, path: str, body: bytes, init_timeout: str, on_progress: OnProgress | None) -> str:
        """Send an init message and follow what the store reports until the transform is ready."""
        patience = parse_duration(init_timeout) + INIT_MARGIN_SECONDS if init_timeout else _PATIENCE_SECONDS
        headers = {"Content-Type": "application/json", "Accept": NDJSON}
        reply = self._transport.send(Request(method, path, headers=headers, body=body, read_timeout_seconds=patience))
        if reply.headers.get("content-type", "").startswith(NDJSON):
            self.name = _follow(reply, on_progress)
        else:
            self.name = reply.drain().decode()
        return self.name


def _follow(reply: Reply, on_progress: Callable[[Progress], None] | None) -> str:
    """Read progress until the last line and return the name in it."""
    try:
        for line in reply.lines():
            if not line.strip():
                continue
            progress = msgspec.json.decode(line, type=Progress)
            if progress.error is not None:
                raise progress.error.to_error()
            if on_progress is not None:
                on_progress(progress)
            if progress.name:
                return progress.name
    except msgspec.DecodeError as error:
        raise InternalError(f"the store's progress report cannot be read: {error}") from error
    finally:
        reply.close()
    raise EtlInitError("the store ended the report before the transform was ready", hint="see the store's log")

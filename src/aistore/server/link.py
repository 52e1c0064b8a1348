"""The wire between HTTP workers and the controller: one Unix connection per call.

A call is one message, the answer any number of ``progress`` messages and then one ``result`` or ``error``. A message
is four bytes of length, little endian, and msgpack.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from ..errors import AisError, OverloadedError, error_from_code

_LENGTH = struct.Struct("<I")
_MESSAGE_BYTES_MAX = 64 << 20
_CONNECT_ATTEMPTS = 40
_CONNECT_PAUSE_SECONDS = 0.25
_CALL_SECONDS_MAX = 150.0  # longer than a read waits for an ETL that is being made ready (Limits)

ReportProgress = Callable[[str, str], Awaitable[None]]
#: A verb of the controller: keyword arguments and a way to report progress in, a value out.
Verb = Callable[[dict[str, Any], ReportProgress], Awaitable[Any]]


async def receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next message; raises IncompleteReadError at the end."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _MESSAGE_BYTES_MAX:
        raise OverloadedError(f"message of {length} bytes between the store's own processes")
    message: dict[str, Any] = msgspec.msgpack.decode(await reader.readexactly(length))
    return message


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as it is sent."""
    data = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(data)) + data


class ControllerLink:
    """Calls the controller. While it restarts, calls wait for it for some seconds, then raise OverloadedError."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def call(self, verb: str, **arguments: Any) -> Any:
        """Call ``verb`` and return its result, or raise the error that the controller raised.

        For verbs that answer soon: raises OverloadedError when a controller that lives does not answer.
        """
        try:
            return await asyncio.wait_for(self._result(verb, arguments), _CALL_SECONDS_MAX)
        except asyncio.TimeoutError:
            raise OverloadedError("the store's controller does not answer", hint="try again in some seconds") from None

    async def call_patiently(self, verb: str, **arguments: Any) -> Any:
        """Call a verb that may take as long as an installer does, as ``call`` does otherwise."""
        return await self._result(verb, arguments)

    async def _result(self, verb: str, arguments: dict[str, Any]) -> Any:
        result = None
        async for kind, value in self.stream(verb, **arguments):
            if kind == "result":
                result = value
        return result

    async def stream(self, verb: str, **arguments: Any) -> AsyncIterator[tuple[str, Any]]:
        """Call ``verb`` and yield ``("progress", [stage, message])`` … then ``("result", value)``."""
        reader, writer = await self._connect()
        try:
            writer.write(encode({"verb": verb, "arguments": arguments}))
            await writer.drain()
            while True:
                message = await receive(reader)
                if "error" in message:
                    code, text, hint, status = message["error"]
                    raise error_from_code(code, text, hint=hint, status=status)
                if "progress" in message:
                    yield "progress", message["progress"]
                else:
                    yield "result", message.get("result")
                    return
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise OverloadedError("the store's controller restarted during this call", hint="try again") from error
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for attempt in range(_CONNECT_ATTEMPTS):
            try:
                return await asyncio.open_unix_connection(self._path)
            except (FileNotFoundError, ConnectionError, BlockingIOError):
                if attempt + 1 < _CONNECT_ATTEMPTS:
                    await asyncio.sleep(_CONNECT_PAUSE_SECONDS)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                raise OverloadedError(
                    "the store has too many open files", hint="raise the limit (ulimit -n)"
                ) from error
        raise OverloadedError("the store's controller does not answer", hint="try again in some seconds")


async def serve_verbs(
    path: str, verbs: dict[str, Verb], as_error: Callable[[BaseException], AisError]
) -> asyncio.Server:
    """Listen on ``path`` and answer calls of ``verbs``."""

    async def serve_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def report(stage: str, message: str) -> None:
            if writer.is_closing():
                return  # the caller went away; what it asked for goes on all the same
            try:
                writer.write(encode({"progress": [stage, message]}))
                await writer.drain()
            except ConnectionError:
                pass

        try:
            request = await receive(reader)
            answer = {"result": await verbs[request["verb"]](request["arguments"], report)}
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        except Exception as error:  # becomes the caller's exception
            ours = as_error(error)
            answer = {"error": [ours.code, ours.message, ours.hint, ours.status]}
        try:
            writer.write(encode(answer))
            await writer.drain()
        except ConnectionError:
            pass  # the caller went away; what it asked for is done all the same
        finally:
            writer.close()

    return await asyncio.start_unix_server(serve_call, path)

"""Whether a transform that serves takes objects: it says so at ``/health``."""

from __future__ import annotations

import asyncio

from ...errors import AisError, EtlNotRunningError
from ..running import Running
from .connect import connect

# A server needs some tenths of a second at least to come up, one with torch some seconds.
_PAUSE_SECONDS, _PAUSE_SECONDS_MAX = 0.01, 0.2
_ANSWER_SECONDS = 5.0
_ANSWER_BYTES_MAX = 4096


async def ask_health(running: Running) -> str:
    """Return nothing if the server says that it is healthy, else what is wrong, in words."""
    try:
        connection = await connect(running)
    except EtlNotRunningError:
        return f"nothing listens at port {running.port}"
    except AisError as error:
        return error.message
    loop = asyncio.get_running_loop()
    try:
        request = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(connection, request.encode())
        answer = b""
        while b"\r\n" not in answer and len(answer) < _ANSWER_BYTES_MAX:
            piece = await asyncio.wait_for(loop.sock_recv(connection, _ANSWER_BYTES_MAX), _ANSWER_SECONDS)
            if not piece:
                break
            answer += piece
    except OSError as error:
        return f"GET /health: {error}"
    except asyncio.TimeoutError:
        return f"GET /health: no answer for {_ANSWER_SECONDS:g} s"
    finally:
        connection.close()
    line = answer.partition(b"\r\n")[0].decode("latin-1")
    version, _, status = line.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdigit():
        return f"GET /health: {line[:80]!r} is no answer of an HTTP server" if line else "GET /health: no answer"
    return "" if 200 <= int(status[:3]) < 400 else f"GET /health: {status[:80]}"


class Health:
    """Asks a server again and again until it is healthy; ``says`` is what it heard last."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.says = ""

    async def wait(self) -> None:
        """Return when it is healthy. Asks as long as nobody cancels it."""
        pause = _PAUSE_SECONDS
        while True:
            self.says = await ask_health(self._running)
            if not self.says:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _PAUSE_SECONDS_MAX)

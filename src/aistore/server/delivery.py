"""One reply on its way to the client: whether it has begun, and whether anybody is still there to take it."""

from __future__ import annotations

from ..errors import ClientGoneError
from .replies import Message, Send
from .request import Request


class Delivery:
    """A ``send`` for replies that notices, on long ones, that the client went away.

    Granian drops what is sent to nobody without a word, so a reply of 100 GB would be read from the disk to its end.
    """

    __slots__ = ("_request", "_send", "started")

    def __init__(self, send: Send, request: Request) -> None:
        self._send = send
        self._request = request
        self.started = False

    async def __call__(self, message: Message) -> None:
        """Send; raises ClientGoneError when the client is known to have gone."""
        self.started = True
        await self._send(message)
        if message.get("more_body") and self._request.gone.done():
            raise ClientGoneError

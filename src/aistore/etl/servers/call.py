"""One object on its way through a transform that is a server: what everybody who has to do with it needs."""

from __future__ import annotations

from dataclasses import dataclass

from ..passing import Passing
from ..running import Ask, Running
from .call_files import CallFiles
from .connection import Body
from .replies import Spool
from .watch import Watch


@dataclass(frozen=True, slots=True)
class Call:
    """The object ``source``, and where it goes."""

    running: Running
    ask: Ask
    source: Passing
    watch: Watch
    spool: Spool
    files: CallFiles

    def body(self) -> Body:
        """Return the object as what is sent with a request."""
        return Body(self.source, self.spool.threads)

    async def file(self) -> str:
        """Return the path of a file of the object for a transform that wants files; empty if it gets bytes."""
        if self.running.direct_file and self.files.can_be_file:
            return await self.files.file()
        return ""

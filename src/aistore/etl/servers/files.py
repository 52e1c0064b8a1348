"""The directories for the files of calls that are under way through one transform that serves."""

from __future__ import annotations

import os
import shutil


class CallDirectories:
    """``files`` can be read by the transform, under the same path; ``calls`` is the store's alone."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.files = os.path.join(directory, "files")
        self.calls = os.path.join(directory, "calls")

    def make(self) -> None:
        """Make them, empty."""
        self.remove()
        os.makedirs(self._directory, mode=0o700)
        for path, mode in ((self.files, 0o755), (self.calls, 0o700)):
            os.mkdir(path)
            os.chmod(path, mode)  # whatever the umask is

    def remove(self) -> None:
        """Remove them with what is in them."""
        shutil.rmtree(self._directory, ignore_errors=True)

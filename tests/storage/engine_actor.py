"""An engine in a process of its own, and the proxy that drives it: the verbs go through pipes, pickled.

The process stays for many stores; ``open`` makes an engine on another directory.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from aistore.model.objects import ObjectInfo, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.settings import LocalSettings


class Result:
    """What a future has become in the other process."""

    def __init__(self, value: object) -> None:
        self._value = value

    def result(self) -> Any:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class RemoteReading:
    """An object, read whole in the other process."""

    def __init__(self, info: ObjectInfo, data: bytes) -> None:
        self.info, self._data = info, data

    def read(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]

    read_cached = read

    def peek(self) -> bytes:
        return self.read(0, self.info.size)

    def __enter__(self) -> RemoteReading:
        return self

    def __exit__(self, *_: object) -> None: ...


class RemoteStaging:
    """Chunks, staged in the other process when they are all there."""

    def __init__(self, commit: Callable[[list[bytes]], Result]) -> None:
        self._chunks: list[bytes] = []
        self._commit = commit

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def commit(self) -> Result:
        return self._commit(self._chunks)


class RemoteEngine:
    """Looks like an engine; every verb runs in another process."""

    def __init__(self) -> None:
        self.directory = ""
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def open(self, directory: str) -> None:
        self.directory = directory
        self._call("open", directory)

    def kill(self) -> None:
        """Kill the process; the next one goes on with the same store."""
        self.end()
        self._start()
        self._call("open", self.directory)

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass

    def _call(self, verb: str, *arguments: object, **named: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((verb, arguments, named), self.process.stdin)
        self.process.stdin.flush()
        raised, value = pickle.load(self.process.stdout)
        if raised:
            raise value
        return value

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return lambda *arguments, **named: self._call(verb, *arguments, **named)

    def put(self, *arguments: object) -> Result:
        return Result(self._call("put", *arguments))

    def delete(self, *arguments: object) -> Result:
        return Result(self._call("delete", *arguments))

    def set_custom(self, *arguments: object, replace: bool) -> Result:
        return Result(self._call("set_custom", *arguments, replace=replace))

    def stage(self, bucket: str, name: str, options: PutOptions) -> RemoteStaging:
        self.head_bucket(bucket)
        return RemoteStaging(lambda chunks: Result(self._call("stage", bucket, name, options, chunks)))

    def get_many(self, bucket: str, names: list[str]) -> dict[str, RemoteReading]:
        return {name: RemoteReading(*found) for name, found in self._call("get_many", bucket, names).items()}

    def get(self, bucket: str, name: str) -> RemoteReading:
        return RemoteReading(*self._call("get", bucket, name))


def perform(engine: LocalEngine, verb: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> object:
    if verb == "get":
        with engine.get(*arguments) as reading:
            size = reading.info.size
            return reading.info, reading.read_cached(0, size) or reading.read(0, size)
    if verb == "get_many":
        found = engine.get_many(*arguments)
        return {name: (reading.info, reading.read(0, reading.info.size)) for name, reading in found.items()}
    if verb == "stage":
        staging = engine.stage(*arguments[:3])
        for chunk in arguments[3]:
            staging.write(chunk)
        future = staging.commit()
    else:
        value = getattr(engine, verb)(*arguments, **named)
        if verb not in ("put", "delete", "set_custom"):
            return value
        future = value
    return future.exception() or future.result()


def main() -> None:
    engine = None
    while True:
        try:
            verb, arguments, named = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if verb in ("open", "close"):
                if engine is not None:
                    engine.close()
                engine = LocalEngine(arguments[0], LocalSettings(generation_files_max=3)) if arguments else None
                answer = (False, None)
            else:
                assert engine is not None
                answer = (False, perform(engine, verb, arguments, named))
        except Exception as error:
            answer = (True, error)
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

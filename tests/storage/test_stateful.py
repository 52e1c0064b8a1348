"""The local engine against a plain dictionary, driven by hypothesis through any sequence of verbs.

Once with engines in this process, once with each verb in the next of three processes, which may be killed in between.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from engine_actor import RemoteEngine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aistore.errors import (
    BadRequestError,
    BucketExistsError,
    BucketNotFoundError,
    ConflictError,
    ObjectNotFoundError,
)
from aistore.model.objects import ListOptions, PutOptions
from aistore.storage.local.engine import LocalEngine
from aistore.storage.local.housekeeping import Housekeeper, recover_store
from aistore.storage.local.members import attach, detach, switch
from aistore.storage.local.presence import mountpaths
from aistore.storage.local.settings import LocalSettings

# Few letters make names that collide and nest; the rest of Unicode is drawn as well.
NAMES = st.one_of(
    st.text(st.sampled_from("ab/\0é"), min_size=1, max_size=4),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
)
BUCKETS = st.sampled_from(["b", "c"])
DATA = st.one_of(st.binary(max_size=8), st.integers(200, 6000).map(lambda size: bytes([size % 251]) * size))
CUSTOM = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.text("xyz", max_size=5))


@dataclass
class Model:
    data: bytes
    version: int
    custom: dict[str, str] = field(default_factory=dict)


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.top = tempfile.mkdtemp()
        self.directory = f"{self.top}/store"
        self.attached = 0
        self.model: dict[str, dict[str, Model]] = {}
        self.now = 0.0
        self.open()

    def open(self) -> None:
        self.engine = LocalEngine(self.directory, LocalSettings(generation_files_max=3))
        # As in another process: all it can know of a change is in the index and in the stamps.
        self.reader = LocalEngine(self.directory)

    @initialize()
    def first_bucket(self) -> None:
        self.create("b")

    @rule(bucket=BUCKETS)
    def create(self, bucket: str) -> None:
        if bucket in self.model:
            with pytest.raises(BucketExistsError):
                self.engine.create_bucket(bucket, {})
        else:
            self.engine.create_bucket(bucket, {"p": bucket})
            self.model[bucket] = {}

    @rule(bucket=BUCKETS)
    def destroy(self, bucket: str) -> None:
        if bucket in self.model:
            self.engine.delete_bucket(bucket)
            del self.model[bucket]
        else:
            with pytest.raises(BucketNotFoundError):
                self.engine.delete_bucket(bucket)

    @rule(bucket=BUCKETS, name=NAMES, data=DATA, custom=CUSTOM, staged=st.booleans(), cut=st.integers(0, 6000))
    def put(self, bucket: str, name: str, data: bytes, custom: dict[str, str], staged: bool, cut: int) -> None:
        def write() -> int:
            options = PutOptions(custom=custom)
            if not staged:
                return self.engine.put(bucket, name, data, options).result().version
            staging = self.engine.stage(bucket, name, options)
            staging.write(data[:cut])
            staging.write(data[cut:])
            return staging.commit().result().version

        if bucket not in self.model:
            with pytest.raises(BucketNotFoundError):
                write()
            return
        before = self.model[bucket].get(name)
        version = before.version + 1 if before else 1
        assert write() == version
        self.model[bucket][name] = Model(data, version, custom)

    @rule(bucket=BUCKETS, name=NAMES, data=DATA, if_version=st.integers(0, 3))
    def put_if(self, bucket: str, name: str, data: bytes, if_version: int) -> None:
        objects = self.model.get(bucket)
        if objects is None:
            return
        current = objects[name].version if name in objects else 0
        future = self.engine.put(bucket, name, data, PutOptions(if_version=if_version))
        if current == if_version:
            assert future.result().version == current + 1
            objects[name] = Model(data, current + 1)
        else:
            with pytest.raises(ConflictError):
                future.result()

    @rule(bucket=BUCKETS, name=NAMES)
    def delete(self, bucket: str, name: str) -> None:
        future = self.engine.delete(bucket, name)
        if bucket not in self.model:
            with pytest.raises(BucketNotFoundError):
                future.result()
        elif name not in self.model[bucket]:
            with pytest.raises(ObjectNotFoundError):
                future.result()
        else:
            assert future.result().version == self.model[bucket].pop(name).version

    @rule(data=st.data(), custom=CUSTOM, replace=st.booleans())
    def set_custom(self, data: st.DataObject, custom: dict[str, str], replace: bool) -> None:
        known = [(bucket, name) for bucket, objects in self.model.items() for name in objects]
        if known:
            bucket, name = data.draw(st.sampled_from(known))
            model = self.model[bucket][name]
            model.custom = custom if replace else {**model.custom, **custom}
            assert self.engine.set_custom(bucket, name, custom, replace=replace).result().custom == model.custom

    @rule(name=st.text(min_size=1, max_size=3).map(lambda text: text + "\ud800"))
    def lone_surrogates_are_refused(self, name: str) -> None:
        with pytest.raises(BadRequestError):
            self.engine.put("b", name, b"", PutOptions())

    @rule(bucket=BUCKETS, prefix=NAMES, after=NAMES, limit=st.integers(1, 4))
    def list_part(self, bucket: str, prefix: str, after: str, limit: int) -> None:
        if bucket in self.model:
            names = [name for name in self.model[bucket] if name.startswith(prefix) and name.encode() > after.encode()]
            names.sort(key=str.encode)
            page = self.engine.list(bucket, ListOptions(prefix=prefix, start_after=after, limit=limit))
            assert [entry.name for entry in page.entries] == names[:limit]
            assert page.continuation == (names[limit - 1] if len(names) > limit else "")

    @rule()
    def reopen(self) -> None:
        self.engine.close()
        self.reader.close()
        recover_store(self.directory)
        self.open()

    @rule(steps=st.integers(1, 10))
    def reclaim(self, steps: int) -> None:
        keeper = Housekeeper(self.directory, grace_seconds=0.0)
        for _ in range(steps):
            self.now += 1.0
            keeper.step(self.now)
        keeper.close()

    @precondition(lambda self: self.attached < 3)
    @rule()
    def attach(self) -> None:
        self.attached += 1
        attach(self.directory, f"{self.top}/disk{self.attached}")

    @rule(data=st.data())
    def detach_an_empty_one_or_fail(self, data: st.DataObject) -> None:
        paths = [member.path for member in mountpaths(self.directory).members if member.path]
        if paths:
            path = data.draw(st.sampled_from(paths))
            try:
                detach(self.directory, path)
            except ConflictError:
                assert any(self.model.values()), "there is nothing that could be on it"

    @rule(data=st.data())
    def switch_off_and_on(self, data: st.DataObject) -> None:
        paths = [member.path for member in mountpaths(self.directory).members if member.path]
        if paths:
            path = data.draw(st.sampled_from(paths))
            switch(self.directory, path, enabled=False)
            switch(self.directory, path, enabled=True)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert [bucket.name for bucket in self.engine.list_buckets()] == sorted(self.model)
        for bucket, objects in self.model.items():
            entries = self.engine.list(bucket, ListOptions()).entries
            assert [entry.name for entry in entries] == sorted(objects, key=str.encode)
            for entry in entries:
                model = objects[entry.name]
                for engine in (self.engine, self.reader):
                    with engine.get(bucket, entry.name) as reading:
                        assert reading.info == entry
                        assert (reading.read_cached(0, entry.size) or reading.read(0, entry.size)) == model.data
                assert (entry.version, entry.custom) == (model.version, model.custom)

    def teardown(self) -> None:
        self.engine.close()
        self.reader.close()
        shutil.rmtree(self.top)


EngineMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEngine = EngineMachine.TestCase


class ProcessesMachine(EngineMachine):
    """Each verb is done by the next of three processes, and all is read in two."""

    remotes: ClassVar[list[RemoteEngine]] = []

    def open(self) -> None:
        self.local = LocalEngine(self.directory, LocalSettings(generation_files_max=3))
        for remote in self.remotes:
            remote.open(self.directory)
        self._engines = itertools.cycle([self.local, *self.remotes])

    @property
    def engine(self) -> Any:
        return next(self._engines)

    @property
    def reader(self) -> Any:
        return next(self._engines)

    @rule()
    def reopen(self) -> None:
        self.close()
        recover_store(self.directory)
        self.open()

    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        self.remotes[which].kill()

    def close(self) -> None:
        self.local.close()
        for remote in self.remotes:
            remote.close()

    def teardown(self) -> None:
        self.close()
        shutil.rmtree(self.top)


ProcessesMachine.TestCase.settings = settings(
    max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestProcesses(ProcessesMachine.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        ProcessesMachine.remotes = [RemoteEngine(), RemoteEngine()]

    @classmethod
    def tearDownClass(cls) -> None:
        for remote in ProcessesMachine.remotes:
            remote.end()

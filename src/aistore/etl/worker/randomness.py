"""Where a program's random numbers come from: the kernel, or the seed of the object that it works on.

Forked processes inherit the state of every generator, so each worker begins with new ones. For an object with a seed
all of them are set to numbers made of that, also those that the program makes during the object without a seed of its
own (``default_rng()``, ``RandomState()``, ``random.Random()``) and those that come with a library which it imports only
then. What asks the kernel itself stays random: ``os.urandom``, ``secrets``, ``uuid4``, ``torch.seed()``.
"""

import hashlib
import os
import random
import sys
import types
import weakref
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from . import generators

#: Bring generators of their own when they are imported.
_LIBRARIES = ("numpy.random", "torch")
#: What a program draws while it is loaded is the same at every start, so that it is the same on every node.
_LOADING = b"loading"
_SEED_BITS = 256


class Randomness:
    """All generators of a process. There is one, made before anything foreign is imported (``RANDOMNESS``)."""

    def __init__(self) -> None:
        self._key: Optional[bytes] = None  # what numbers are made of; None: the kernel gives them
        self._made: Dict[Tuple[str, str], int] = {}  # generators without a seed so far: of a kind, by a module
        self._forks = 0
        self._kept: List[Any] = []
        self._unseeded: Set[int] = set()  # of those, by their place among them
        self._states: Dict[int, Any] = {}  # of those that the program seeded itself, as it left them without a seed
        self._python_unseeded: "weakref.WeakSet[random.Random]" = weakref.WeakSet()
        self._numpy_entropy: Set[int] = set()
        self._cannot = ""  # why a seed would not fix all

    def install(self) -> None:
        """Take over where generators without a seed get one; once, before anything foreign is imported."""
        original = random.Random.seed

        def seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
            if a is None and self._key is not None:
                a = self._entropy("random", _SEED_BITS)
                if self._key == _LOADING:
                    self._python_unseeded.add(generator)
            original(generator, a, version)

        random.Random.seed = seed  # type: ignore[method-assign,assignment]
        random.seed = random._inst.seed
        sys.meta_path.insert(0, _Imports(self._imported))
        os.register_at_fork(before=self._before_fork, after_in_child=self._in_child)

    def load(self) -> None:
        """Begin to load the program."""
        self._fix(_LOADING)

    def loaded(self, module: Optional[types.ModuleType]) -> None:
        """Note which generators the loaded program keeps, in its ``module`` if that stays from object to object."""
        if module is not None:
            self._kept = generators.kept_by(module)
            self._unseeded = {place for place, one in enumerate(self._kept) if self._is_unseeded(one)}
        self._python_unseeded.clear()
        self._numpy_entropy.clear()
        self._key = None

    def reseed(self) -> None:
        """Let the kernel seed every generator that nobody has given a seed, in a worker that begins."""
        self._key = None
        random.seed(int.from_bytes(os.urandom(32), "little"))
        self._seed_libraries(os.urandom(32), _LIBRARIES)
        for place in self._unseeded:
            generators.seed(self._kept[place], os.urandom(32))
        for place, state in self._states.items():
            generators.go_back(self._kept[place], state)
        self._states.clear()

    def begin(self, seed: str) -> None:
        """Begin an object: with ``seed``, in hexadecimal digits, or, where that is empty, at random.

        Raises RuntimeError when a library that is loaded cannot be seeded.
        """
        if seed and self._cannot:
            raise RuntimeError(self._cannot)
        if seed:
            if self._key is None:
                own = set(range(len(self._kept))) - self._unseeded
                self._states = {place: generators.state_of(self._kept[place]) for place in own}
            self._fix(bytes.fromhex(seed))
        elif self._key is not None:  # what comes after a seed must not be known from it
            self.reseed()

    def _fix(self, key: bytes) -> None:
        self._key = key
        self._made.clear()
        self._forks = 0
        random.seed(int.from_bytes(self._number("random"), "little"))
        self._seed_libraries(key, _LIBRARIES)
        for place, kept in enumerate(self._kept):
            generators.seed(kept, self._number("kept", str(place)))

    def _seed_libraries(self, key: bytes, names: Tuple[str, ...]) -> None:
        for name in names:
            module = sys.modules.get(name)
            if module is not None:
                generators.seed_library(module, _number(key, name))

    def _imported(self, name: str) -> None:
        """Treat a library that has just been imported like those that were there before the object."""
        if name == "numpy.random":
            try:
                self._take_over(sys.modules[name])
            except RuntimeError as error:
                self._cannot = str(error)
                if self._key not in (None, _LOADING):
                    raise
        if self._key is not None:
            self._seed_libraries(self._key, (name,))

    def _take_over(self, numpy_random: Any) -> None:
        original = generators.numpy_entropy(numpy_random)

        def randbits(bits: int) -> int:
            if self._key is None:
                return original(bits)
            number = self._entropy("numpy", bits)
            if self._key == _LOADING:
                self._numpy_entropy.add(number)
            return number

        generators.replace_numpy_entropy(numpy_random, randbits)

    def _entropy(self, kind: str, bits: int) -> int:
        """Return a seed for a generator that is made without one.

        It depends on which of its kind it is that the calling module makes for this object. On the module, because
        what a library makes once and keeps for later objects must not move the numbers of the program's own.
        """
        place = (kind, _calling_module())
        count = self._made[place] = self._made.get(place, 0) + 1
        number = self._number(*place, str(count), size=-(-bits // 8))
        return int.from_bytes(number, "little") & ((1 << bits) - 1)

    def _number(self, *labels: str, size: int = 32) -> bytes:
        assert self._key is not None
        return _number(self._key, *labels, size=size)

    def _is_unseeded(self, kept: Any) -> bool:
        if isinstance(kept, random.Random):
            return kept in self._python_unseeded
        return generators.entropy_of(kept) in self._numpy_entropy

    def _before_fork(self) -> None:
        self._forks += 1

    def _in_child(self) -> None:
        """Give a child that the program forks numbers of its own, as Python does; made of the seed if there is one."""
        if self._key is not None:
            self._fix(self._number("child", str(self._forks)))


#: The generators of this process.
RANDOMNESS = Randomness()


def _number(key: bytes, *labels: str, size: int = 32) -> bytes:
    return hashlib.shake_256(b"\0".join((key, *(label.encode() for label in labels)))).digest(size)


def _calling_module() -> str:
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "random"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")) if frame is not None else ""


class _Imports:
    """A finder of modules that finds nothing itself; it says when a library with generators has been imported."""

    def __init__(self, imported: Callable[[str], None]) -> None:
        self._imported = imported

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return what the other finders find, with an execution that says when it is done."""
        if name not in _LIBRARIES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None and finder is not self else None
            if spec is not None:
                self._watch(spec)
                return spec
        return None

    def _watch(self, spec: Any) -> None:
        execute = getattr(spec.loader, "exec_module", None)
        if execute is None:
            return

        def exec_module(module: types.ModuleType) -> None:
            execute(module)
            self._imported(spec.name)

        spec.loader.exec_module = exec_module

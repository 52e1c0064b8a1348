"""Generators of random numbers, Python's, NumPy's and torch's: which ones a program keeps, and how each is seeded."""

import collections
import gc
import random
import sys
import types
from typing import Any, Callable, List, Set, Tuple

#: Values in which nothing can be kept.
_ATOMS = frozenset((int, float, complex, bool, str, bytes, type(None), types.CodeType, types.BuiltinFunctionType,
                    types.FrameType, types.GeneratorType, types.CoroutineType))  # fmt: skip
#: Guessed: a second. What a program keeps beyond so many objects is tables of data.
_OBJECTS_MAX = 1_000_000


def kept_by(module: types.ModuleType) -> List[Any]:
    """Return the generators that can be reached from a module's variables, nearest first, always in the same order.

    Looks into instances, containers, closures and the module's own classes; not into other modules.
    """
    kinds = _kinds()
    found: List[Any] = []
    seen: Set[int] = set()
    waiting = collections.deque(vars(module).values())
    while waiting and len(seen) < _OBJECTS_MAX:
        value = waiting.popleft()
        kind = type(value)
        if kind in _ATOMS or id(value) in seen:
            continue
        seen.add(id(value))
        if issubclass(kind, kinds):
            if not issubclass(kind, random.SystemRandom):
                found.append(value)
        elif kind is types.FunctionType:
            waiting.extend(_kept_by_function(value))
        elif issubclass(kind, type):
            if value.__dict__.get("__module__") == module.__name__:
                waiting.extend(value.__dict__.values())
        elif not issubclass(kind, types.ModuleType):
            waiting.extend(gc.get_referents(value))
    return found


def _kinds() -> Tuple[Any, ...]:
    numpy_random: Any = sys.modules.get("numpy.random")
    bits = getattr(numpy_random, "bit_generator", None)  # where NumPy 1.17 has the class
    named = [(numpy_random, "RandomState"), (bits, "BitGenerator"), (sys.modules.get("torch"), "Generator")]
    kinds = [getattr(module, name) for module, name in named if hasattr(module, name)]
    return (random.Random, *kinds)


def _kept_by_function(function: types.FunctionType) -> List[Any]:
    kept: List[Any] = list(function.__defaults__ or ()) + list((function.__kwdefaults__ or {}).values())
    for cell in function.__closure__ or ():
        try:
            kept.append(cell.cell_contents)
        except ValueError:  # empty
            pass
    return [*kept, *vars(function).values()]


def seed(generator: Any, key: bytes) -> None:
    """Set one generator to numbers made of ``key``, 32 bytes."""
    number = int.from_bytes(key, "little")
    if isinstance(generator, random.Random):
        generator.seed(number)
    elif hasattr(generator, "manual_seed"):
        generator.manual_seed(number >> 193)
    elif type(getattr(generator, "_bit_generator", None)).__name__ == "MT19937":  # a RandomState, as nearly all are
        generator.seed(_words(key))
    else:  # a state can be had from another one of its kind only
        bits = getattr(generator, "_bit_generator", generator)
        bits.state = type(bits)(sys.modules["numpy.random"].SeedSequence(number)).state


def state_of(generator: Any) -> Any:
    """Return where a generator is in its numbers, for ``go_back``."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state() if hasattr(generator, "get_state") else generator.state


def go_back(generator: Any, state: Any) -> None:
    """Have a generator go on from where it was."""
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        generator.state = state


def seed_library(module: Any, key: bytes) -> None:
    """Set the generators that all users of ``numpy.random`` or ``torch`` share.

    ``torch.manual_seed`` would walk every accelerator (200 µs); its CPU generator alone takes 5 µs.
    """
    if module.__name__ == "numpy.random":
        module.seed(_words(key))
    elif hasattr(module, "default_generator"):
        module.default_generator.manual_seed(int.from_bytes(key, "little") >> 193)


def _words(key: bytes) -> List[int]:
    return [int.from_bytes(key[start : start + 4], "little") for start in range(0, len(key), 4)]


def entropy_of(generator: Any) -> Any:
    """Return what one of NumPy's was seeded with; None for others, and for what does not tell."""
    bits = getattr(generator, "_bit_generator", generator)
    sequence = getattr(bits, "seed_seq", None) or getattr(bits, "_seed_seq", None)
    return getattr(sequence, "entropy", None)


def numpy_entropy(numpy_random: Any) -> Callable[[int], int]:
    """Return the function by which NumPy asks for random bits where no seed was given; raises RuntimeError."""
    found = getattr(numpy_random.bit_generator, "randbits", None)
    if found is None:
        raise _not_known()
    entropy: Callable[[int], int] = found
    return entropy


def replace_numpy_entropy(numpy_random: Any, randbits: Callable[[int], int]) -> None:
    """Have NumPy ask ``randbits`` instead; raises RuntimeError when it does not."""
    module, probe = numpy_random.bit_generator, 0x5EED
    module.randbits = lambda bits: probe
    if numpy_random.SeedSequence().entropy != probe:
        raise _not_known()
    module.randbits = randbits


def _not_known() -> RuntimeError:
    version = getattr(sys.modules.get("numpy"), "__version__", "?")
    return RuntimeError("NumPy {} gets its entropy in a way that is not known here".format(version))

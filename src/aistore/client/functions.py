"""From a Python function or class to the code of a transform: by source where that says everything, else pickled.

By source, the code has the function as it was written, and before it what it uses of its module: imports, constants,
other functions and classes, each likewise. That runs in any Python of the store. What has no source, or uses values
that cannot be written down (a model, an open file), is pickled by cloudpickle, and then only the Python that pickled
can run it.
"""

from __future__ import annotations
import __future__

import ast
import base64
import builtins
import inspect
import math
import os
import symtable
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import BadRequestError, NotSupportedError

_CONSTANT_LENGTH_MAX = 64 << 10
_PICKLED = '''\
import base64
import sys

if sys.version_info[:2] != {version}:
    raise ImportError(
        "this transform was pickled by Python {major}.{minor} and is run by {{}}.{{}}".format(*sys.version_info[:2])
    )

import cloudpickle

_made = cloudpickle.loads(base64.b64decode("""
{payload}"""))
'''


@dataclass(frozen=True, slots=True)
class FunctionCode:
    """The ``code`` of a transform; if it is ``pickled``, ``runtime`` is the only one that can run it."""

    code: str
    runtime: str
    dependencies: tuple[str, ...]
    pickled: bool


class _NoSourceError(Exception):
    """Something of the function cannot be written down; says what."""


def code_of(made: Callable[..., Any]) -> FunctionCode:
    """Return the code of a function ``f(data: bytes) -> bytes``, or of a class with a method ``transform`` like it.

    Of a class one instance is made, when the transform is started. Raises BadRequestError for anything else, and
    NotSupportedError for what can neither be written down nor pickled.
    """
    tail = _check(made)
    try:
        return FunctionCode(_Writer().program(made) + tail, "python3", (), pickled=False)
    except _NoSourceError as error:
        return _pickled(made, tail.replace(f"= {made.__name__}", "= _made"), str(error))


def _check(made: Any) -> str:
    """Return the lines that define ``transform`` from what is called ``made.__name__``."""
    name = getattr(made, "__name__", "")
    if inspect.iscoroutinefunction(made) or inspect.isgeneratorfunction(made):
        raise BadRequestError(
            f"{name} does not return bytes but a coroutine or a generator", hint="use a plain function"
        )
    if inspect.isclass(made):
        if not callable(getattr(made, "transform", None)):
            raise BadRequestError(
                f"class {name} has no method transform", hint="def transform(self, data: bytes) -> bytes"
            )
        return f"\n\ntransform = {name}().transform\n"
    if not inspect.isfunction(made):
        raise BadRequestError(
            f"{made!r} is neither a function nor a class",
            hint="pass def f(data: bytes) -> bytes, or a class with such a method transform",
        )
    try:
        inspect.signature(made).bind(b"", **{key: "" for key in ("path", "etl_args") if key in _parameters(made)})
    except TypeError as error:
        raise BadRequestError(
            f"{name} cannot be called with an object: {error}",
            hint="expected def f(data), and optional parameters path and etl_args",
        ) from error
    return "" if name == "transform" else f"\n\ntransform = {name}\n"


def _parameters(made: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(made).parameters)


class _Writer:
    """Writes definitions after what they use; raises _NoSourceError."""

    def __init__(self) -> None:
        self._written: dict[str, object] = {}
        self._imports: dict[str, None] = {}
        self._definitions: list[str] = []

    def program(self, made: Any) -> str:
        """Return the program that defines ``made`` under its name."""
        self._definition(made.__name__, made)
        head = "\n".join(sorted(self._imports, key=lambda line: not line.startswith("from __future__ ")))
        return "\n\n\n".join(filter(None, [head, *self._definitions])) + "\n"

    def _definition(self, name: str, made: Any) -> None:
        if made.__name__ != name or not name.isidentifier():
            raise _NoSourceError(f"{name} is a lambda, or is called otherwise where it was defined")
        self._written[name] = made
        tree = _parse(made)
        module = sys.modules.get(made.__module__)
        if getattr(module, "annotations", None) is __future__.annotations:
            self._imports["from __future__ import annotations"] = None
        namespace = _namespace(made, module)
        for used in _free_names(tree, name):
            if used in namespace:
                self._value(used, namespace[used], tree)
            elif not hasattr(builtins, used):
                raise _NoSourceError(f"{name} uses {used!r}, which is not defined yet")
        self._definitions.append(ast.unparse(tree))

    def _value(self, name: str, value: Any, tree: ast.stmt) -> None:
        """Write what makes ``name`` mean ``value`` where ``tree`` uses it."""
        if isinstance(value, types.ModuleType):
            self._imports.update(dict.fromkeys(_imports_of(name, value, tree)))
        if name in self._written:
            if self._written[name] is not value:
                raise _NoSourceError(f"{name!r} means two things in it")
            return
        origin = getattr(value, "__name__", ""), sys.modules.get(getattr(value, "__module__", None) or "")
        if isinstance(value, types.ModuleType):
            self._written[name] = value
        elif origin[1] is not None and is_of_package(origin[1]) and getattr(origin[1], str(origin[0]), None) is value:
            self._written[name] = value
            alias = "" if name == origin[0] else f" as {name}"
            self._imports[f"from {origin[1].__name__} import {origin[0]}{alias}"] = None
        elif inspect.isfunction(value) or inspect.isclass(value):
            self._definition(name, value)
        else:
            self._written[name] = value
            self._definitions.append(f"{name} = {_constant(name, value)}")


def _parse(made: Any) -> ast.stmt:
    """Return a definition as it was written. Of a function without decorators: what they made of it is not that."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(made)))
    except (OSError, TypeError, SyntaxError, ValueError) as error:
        raise _NoSourceError(f"the source of {made.__name__} cannot be had: {error}") from error
    definition = tree.body[0] if len(tree.body) == 1 else None
    if not isinstance(definition, (ast.FunctionDef, ast.ClassDef)) or definition.name != made.__name__:
        raise _NoSourceError(f"the source of {made.__name__} cannot be had")
    if hasattr(made, "__wrapped__"):
        raise _NoSourceError(f"{made.__name__} is wrapped by a decorator")
    of_class = isinstance(definition, ast.ClassDef)
    definition.decorator_list = [one for one in definition.decorator_list if of_class and not _is_ours(one)]
    return definition


def _is_ours(decorator: ast.expr) -> bool:
    """Return whether a decorator is ``@….transform(…)``, which asks for the code that we are writing."""
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr == "transform"
    )


def _namespace(made: Any, module: types.ModuleType | None) -> dict[str, Any]:
    """Return what the names in a definition mean: the module's, and what a function encloses."""
    if not isinstance(made, types.FunctionType):
        return dict(vars(module)) if module is not None else {}
    names = dict(made.__globals__)
    for name, cell in zip(made.__code__.co_freevars, made.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            names.pop(name, None)
    return names


def _free_names(tree: ast.stmt, name: str) -> list[str]:
    """Return the names that a definition takes from around it."""
    found: set[str] = set()
    tables = [symtable.symtable(ast.unparse(tree), "<transform>", "exec")]
    for table in tables:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table is tables[0] or symbol.is_global()):
                found.add(symbol.get_name())
        tables.extend(table.get_children())
    return sorted(used for used in found if used != name and not used.startswith("__"))


def _imports_of(name: str, module: types.ModuleType, tree: ast.stmt) -> Iterator[str]:
    """Yield imports that make ``name`` mean ``module``, with the submodules that ``tree`` uses as its attributes."""
    if not is_of_package(module):
        raise _NoSourceError(f"module {module.__name__!r} is a file of this machine")
    yield f"import {module.__name__}" if name == module.__name__ else f"import {module.__name__} as {name}"
    for node in ast.walk(tree):
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if dotted.startswith(f"{name}.") and f"{module.__name__}{dotted[len(name) :]}" in sys.modules:
            yield f"import {module.__name__}{dotted[len(name) :]}"


def is_of_package(module: types.ModuleType) -> bool:
    """Whether a module is Python's own or was installed: the store can have it too."""
    path = getattr(module, "__file__", None)
    if module.__name__ == "__main__":
        return False
    if path is None:  # built in, or a namespace
        return module.__name__.partition(".")[0] in sys.stdlib_module_names
    places = {os.path.realpath(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    real = os.path.realpath(path)
    return any(real.startswith(place + os.sep) for place in places) or f"{os.sep}site-packages{os.sep}" in real


def _constant(name: str, value: Any) -> str:
    """Return the expression that makes ``value`` again."""
    text = repr(value) if _is_plain(value) else ""
    if not text or len(text) > _CONSTANT_LENGTH_MAX:
        raise _NoSourceError(f"the value of {name!r} ({type(value).__name__}) cannot be written down")
    return text


def _is_plain(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if value is None or type(value) in (bool, int, str, bytes):
        return True
    if type(value) in (tuple, frozenset, list, set):
        return bool(value or type(value) in (tuple, list)) and all(map(_is_plain, value))
    return type(value) is dict and all(_is_plain(item) for pair in value.items() for item in pair)


def _pickled(made: Any, tail: str, reason: str) -> FunctionCode:
    try:
        import cloudpickle
    except ImportError as error:
        raise NotSupportedError(
            f"{made.__name__} can only be pickled ({reason}), and cloudpickle is not installed here",
            hint="pip install cloudpickle, or write the function so that its source says everything",
        ) from error
    modules = [module for module in _modules_of(made) if not is_of_package(module) and module.__name__ != "__main__"]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        pickled = cloudpickle.dumps(made)
    except Exception as error:  # whatever the objects in it raise
        raise NotSupportedError(
            f"{made.__name__} can only be pickled ({reason}), which fails: {type(error).__name__}: {error}",
            hint="make such values inside the function, or in __init__ of a class",
        ) from error
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    payload = "\n".join(textwrap.wrap(base64.b64encode(pickled).decode(), 76))
    major, minor = sys.version_info[:2]
    code = _PICKLED.format(version=(major, minor), major=major, minor=minor, payload=payload)
    name = "" if tail else "\ntransform = _made\n"
    return FunctionCode(code + name + tail, f"python{major}.{minor}", ("cloudpickle",), pickled=True)


def _modules_of(made: Any) -> list[types.ModuleType]:
    """Return the modules of a function and of what it uses directly."""
    module = sys.modules.get(made.__module__)
    found = {} if module is None else {module.__name__: module}
    for value in getattr(made, "__globals__", {}).values():
        used = value if isinstance(value, types.ModuleType) else sys.modules.get(getattr(value, "__module__", "") or "")
        if used is not None and not is_of_package(used):
            found.setdefault(used.__name__, used)
    return list(found.values())

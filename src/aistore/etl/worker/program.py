"""The user's program: compiled once, its imports run once, kept ready to run for each object."""

import ast
import gc
import inspect
import linecache
import sys
import traceback
import types
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import failure
from .randomness import RANDOMNESS

MODULE_NAME = "aistore_transform"  # of a program of kind "function"; a script is __main__, as it would be alone
# What a script that reads or writes standard streams has in it, one of them at least.
_SCRIPT_WORDS = ("stdin", "stdout", "open(", "input(", "print(", "os.read", "os.write", "subprocess", "os.system")
_KEYWORDS = ("path", "etl_args")  # parameters of transform() that are filled in when it has them


class LoadError(Exception):
    """The program cannot be made ready: ``reason`` is ``syntax``, ``import`` or ``contract``."""

    def __init__(self, reason: str, message: str, text: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.traceback = text


class Program:
    """A program that is ready to run.

    ``filename`` is what tracebacks call it, ``path`` its ``__file__``. ``code`` is the compiled script (kind
    ``script``), ``transform`` the function to call (kind ``function``) and ``keywords`` which of its optional
    parameters it takes. ``uses_logging`` says whether a run can change the levels of loggers, which are then put back
    after each object.
    """

    def __init__(self, filename: str, path: str, code: types.CodeType, source: str) -> None:
        self.filename = filename
        self.path = path
        self.code = code
        self.uses_logging = "logging" in source or "getLogger" in source
        self.transform: Optional[Callable[..., Any]] = None
        self.keywords: Tuple[str, ...] = ()


def compile_program(source: str, filename: str, path: str) -> Tuple[Program, ast.Module]:
    """Compile ``source``; raises LoadError with file, line and caret if it is not valid Python.

    The source is put where ``inspect`` and tracebacks look for it, whether or not the file exists.
    """
    for name in (filename, path):
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    try:
        tree = ast.parse(source, filename)
        code = compile(source, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        message = "{}, line {}: {} ({})".format(filename, error.lineno, error.msg, type(error).__name__)
        raise LoadError("syntax", message, "".join(traceback.format_exception_only(type(error), error))) from None
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; an expression nested too deep
        raise LoadError("syntax", "{}: {}".format(filename, failure.summary(error))) from None
    return Program(filename, path, code, source), tree


def check_script(tree: ast.Module, source: str, filename: str) -> None:
    """Raise LoadError for a function that was sent as a script: it would turn every object into nothing."""
    has_function = any(isinstance(node, ast.FunctionDef) and node.name == "transform" for node in tree.body)
    if has_function and not any(word in source for word in _SCRIPT_WORDS):
        raise LoadError(
            "contract",
            "{}: this is a function, transform(), and nothing in it reads standard input or writes standard output: "
            "use --comm-type hpush://".format(filename),
        )


def run_imports(tree: ast.Module, program: Program) -> None:
    """Import what the script imports at module level; raises LoadError when one that it cannot do without fails.

    An import inside ``try``, ``with`` or a condition may fail: the script itself decides what that means. Settings
    of environment variables that come before an import (thread counts, for example) are made as well.
    """
    # A script that extends sys.path first finds modules that we cannot find yet.
    tolerant = any(isinstance(node, ast.Attribute) and node.attr == "path" and _is_name(node.value, "sys")
                   for node in ast.walk(tree))  # fmt: skip
    importer = _Importer(program, tolerant)
    importer.run(tree.body, guarded=False)


def load_function(program: Program) -> None:
    """Run the module of kind ``function`` once and find its ``transform``; raises LoadError."""
    module = types.ModuleType(MODULE_NAME)
    module.__file__ = program.path
    sys.modules[MODULE_NAME] = module
    try:
        exec(program.code, module.__dict__)
    except BaseException as error:
        raise LoadError("import", failure.summary(error), failure.user_traceback(error, program.filename)) from None
    transform = module.__dict__.get("transform")
    if not callable(transform):
        found = "is a {}".format(type(transform).__name__) if "transform" in module.__dict__ else "is missing"
        raise LoadError(
            "contract",
            "{}: the function transform {}; expected def transform(data: bytes) -> bytes".format(
                program.filename, found
            ),
        )
    program.transform = transform
    try:
        parameters = inspect.signature(transform).parameters
    except (TypeError, ValueError):  # a builtin without a signature, such as zlib.compress
        parameters = {}  # type: ignore[assignment]
    program.keywords = tuple(name for name in _KEYWORDS if name in parameters)


class _Importer:
    """Walks module-level statements and runs the imports among them, in order."""

    def __init__(self, program: Program, tolerant: bool) -> None:
        self._filename = program.filename
        self._tolerant = tolerant
        self._namespace: Dict[str, Any] = {"__name__": "__main__", "__file__": program.path}

    def run(self, statements: List[ast.stmt], guarded: bool) -> bool:
        """Run the imports of ``statements``; return whether all of them succeeded."""
        fine = True
        for node in statements:
            if isinstance(node, (ast.Import, ast.ImportFrom)) or _sets_environment(node):
                fine = self._execute(node, guarded) and fine
            elif isinstance(node, ast.If):
                fine = self._condition(node, guarded) and fine
            elif isinstance(node, (ast.With, ast.AsyncWith)):
                fine = self.run(node.body, guarded=True) and fine
            elif hasattr(node, "handlers"):  # try, and try with except*
                self._attempt(node)
        return fine

    def _condition(self, node: ast.If, guarded: bool) -> bool:
        if _is_main_check(node.test):
            return self.run(node.body, guarded)
        if _is_name(node.test, "TYPE_CHECKING") or getattr(node.test, "attr", "") == "TYPE_CHECKING":
            return self.run(node.orelse, guarded)
        self.run(node.body, guarded=True)
        self.run(node.orelse, guarded=True)
        return True

    def _attempt(self, node: Any) -> None:
        if self.run(node.body, guarded=True):
            self.run(node.orelse, guarded=True)
        else:
            for handler in node.handlers:
                self.run(handler.body, guarded=True)
        self.run(node.finalbody, guarded=True)

    def _execute(self, node: ast.stmt, guarded: bool) -> bool:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            return True
        code = compile(ast.Module(body=[node], type_ignores=[]), self._filename, "exec", dont_inherit=True)
        try:
            exec(code, self._namespace)
        except BaseException as error:
            if guarded or self._tolerant or not isinstance(node, (ast.Import, ast.ImportFrom)):
                return False
            raise LoadError("import", failure.summary(error), failure.user_traceback(error, self._filename)) from None
        return True


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_main_check(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and _is_name(test.left, "__name__")


def _sets_environment(node: ast.stmt) -> bool:
    """Return whether ``node`` is ``os.environ["A"] = "b"`` or ``os.environ.setdefault("A", "b")``."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript):
        owner, values = node.targets[0].value, [node.value]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        if node.value.func.attr != "setdefault" or node.value.keywords:
            return False
        owner, values = node.value.func.value, list(node.value.args)
    else:
        return False
    is_environ = isinstance(owner, ast.Attribute) and owner.attr == "environ" and _is_name(owner.value, "os")
    return is_environ and all(isinstance(value, ast.Constant) for value in values)


def load(config: Dict[str, Any], importing: Callable[[], None] = lambda: None) -> Program:
    """Compile the program and import what it imports; raises LoadError. Calls ``importing`` in between."""
    path, source = config["filename"], config["code"]
    program, tree = compile_program(source, config.get("title") or path, path)
    if config["kind"] == "script":
        check_script(tree, source, program.filename)
    _save(source, path)
    RANDOMNESS.install()
    RANDOMNESS.load()
    importing()
    sys.argv = [path]
    if config["kind"] == "function":
        load_function(program)
    else:
        run_imports(tree, program)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)  # workers are the parallelism; threads of a forked pool would hang
    RANDOMNESS.loaded(sys.modules[MODULE_NAME] if program.transform is not None else None)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    gc.collect()
    gc.freeze()
    return program


def _save(code: str, path: str) -> None:
    """Put the program where its ``__file__`` says it is, if nothing is there and the place can be written."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(code)
    except OSError:
        pass

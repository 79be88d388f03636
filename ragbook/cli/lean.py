"""What `transformers` imports for other uses of it stays out of the command's process.

With its first model, `transformers` imports Accelerate, SciPy's optimization, and torch's compiler
and distributed tensors, which take longer than all else that it needs, torch itself included. The
commands that answer questions compile nothing and run in one process, so they tell `transformers`
that these are not installed. Python code that imports ragbook is not told so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

COMMANDS = (
    "ask",
    "compare",
    "datastore",
    "evaluate",
    "index",
    "perplexity",
    "retrieve",
    "serve",
)
"""The commands that only read with models. The others import what they import."""
COMPILER, AVAILABLE = "torch._dynamo", "transformers.utils.import_utils"
LEFT_OUT = ("is_accelerate_available", "is_scipy_available", "is_torch_distributed_available")
"""What `transformers` asks before it imports these."""


def keep_lean(argv: Sequence[str]) -> None:
    """Prepare the imports of this process for the command line `argv`, without the program's
    name."""
    if argv and argv[0] in COMMANDS and not {COMPILER, AVAILABLE} & sys.modules.keys():
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the two modules, each with a loader of its own; all others are found as ever."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in (COMPILER, AVAILABLE):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(self) if fullname == COMPILER else _Less(spec.loader)
        return spec


class _Less(Loader):
    """Loads the module in which `transformers` asks what there is, and gives the answers."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.real.exec_module(module)
        for name in LEFT_OUT:
            if hasattr(module, name):
                setattr(module, name, _no)


def _no(*_: object, **__: object) -> bool:
    return False


class _Later(Loader):
    """Gives an empty package in the compiler's place, which loads the real one when it is used."""

    def __init__(self, finder: MetaPathFinder) -> None:
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _Compiler(spec.name)
        vars(module)["_finder"] = self.finder
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Compiler(ModuleType):
    """The package without its content. Its submodules can be imported; its decorators, which only
    mark functions for the compiler, leave them as they are."""

    def disable(self, fn: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:
        return _unchanged if fn is None else fn

    def allow_in_graph(self, fn: Any) -> Any:
        return fn

    def assume_constant_result(self, fn: Any) -> Any:
        return fn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {COMPILER!r} has no attribute {name!r}")
        finder = vars(self)["_finder"]
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
            del sys.modules[COMPILER]
        return getattr(import_module(COMPILER), name)


def _unchanged(fn: Callable[..., Any]) -> Callable[..., Any]:
    return fn

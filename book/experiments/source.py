"""The package's functions as the chapters show them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def shown(function: Callable[..., Any]) -> str:
    """A function's source with its `def` line and without its docstring.

    The explanation of the parameters is in the package's reference; what a chapter needs is the
    signature and the body.
    """
    source = textwrap.dedent(inspect.getsource(function)).rstrip()
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef)
    if ast.get_docstring(definition) is None:
        return source
    lines, docstring = source.split("\n"), definition.body[0]
    assert docstring.end_lineno is not None
    return "\n".join(
        lines[: docstring.lineno - 1] + lines[docstring.end_lineno :]
    )

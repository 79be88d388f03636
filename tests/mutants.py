"""Mutants of a module: the module with one operator, constant, comparison, argument or statement
changed. A test fails on each of them, or nothing holds that part of the module to what it does.

Types, docstrings, decorators, imports and the wording of errors are left as they are.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "argmin": "argmax", "argmax": "argmin", "any": "all", "all": "any",
    "sum": "mean", "mean": "sum", "amax": "amin", "amin": "amax", "softmax": "log_softmax",
    "log_softmax": "softmax", "lower": "upper", "clamp_min": "clamp_max", "clamp_max": "clamp_min",
}  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NEVER = {"annotation", "returns", "decorator_list", "format_spec", "type_params", "names"}
"""Fields of the syntax tree in which nothing is changed."""


@dataclass
class Mutant:
    """One change of one module: `owner.field`, or its element `at`, becomes `value`."""

    path: str  # of the module, from the repository's root
    function: str  # where the change is: `Class.method`, "" outside every function
    lines: range  # of the statement, without the statements inside it
    before: str
    after: str
    number: int  # among the module's mutants of this text
    tree: ast.Module
    owner: ast.AST
    field: str
    at: int | None
    value: Any

    @property
    def name(self) -> str:
        """The same as long as the statement is."""
        where = f"{self.path}:{self.function}" if self.function else self.path
        return f"{where}: {self.before} -> {self.after}" + (f" #{self.number}" * bool(self.number))

    def swap(self) -> None:
        """Put the change into the module's tree; the second time takes it out again."""
        held = getattr(self.owner, self.field)
        if self.at is None:
            setattr(self.owner, self.field, self.value)
            self.value = held
        else:
            held[self.at], self.value = self.value, held[self.at]

    def compiled(self, filename: str) -> Any:
        """The changed module's code."""
        self.swap()
        code = compile(ast.fix_missing_locations(self.tree), filename, "exec")
        self.swap()
        return code


def mutants(path: str, source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its text."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for owner, statement, function in _walk(tree):
        for field, at, value in _changes(owner):
            own, where = statement, function
            if isinstance(value, ast.Pass):  # a statement of the owner's block is taken out
                own, where = getattr(owner, field)[at], _inside(owner, function)
            before = _text(own)
            one = Mutant(path, where, _lines(own), before, "pass", 0, tree, owner, field, at, value)
            if own is statement:
                one.swap()
                one.after = _text(statement)
                one.swap()
            if one.after == before:  # two equal arguments changed places
                continue
            one.number = seen[one.name] = seen.get(one.name, -1) + 1
            found.append(one)
    return found


def sample(path: Path, root: Path, each: int, seed: int) -> list[Mutant]:
    """`each` of a module's mutants, or all if they are fewer; the seed draws which."""
    name = path.relative_to(root).as_posix()
    every = mutants(name, path.read_text(encoding="utf-8"))
    return random.Random(f"{seed} {name}").sample(every, min(each, len(every)))


def _walk(
    node: ast.AST, statement: ast.stmt | None = None, function: str = ""
) -> Iterator[tuple[ast.AST, Any, str]]:
    """Every part that may be changed, with its statement and the function it is in."""
    yield node, statement, function
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or field in NEVER or _left_alone(child):
                continue
            own = child if isinstance(child, ast.stmt) else statement
            yield from _walk(child, own, _inside(node, function) if field == "body" else function)


def _inside(node: ast.AST, function: str) -> str:
    """Where the statements of a node are that is itself in `function`."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return f"{function}.{node.name}".lstrip(".")
    return function


def _left_alone(node: ast.AST) -> bool:
    """Whether a part of a module is no behaviour that its tests should hold."""
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.Raise)):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # a docstring
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    test = ast.unparse(node.test) if isinstance(node, ast.If) else ""
    return test in ("TYPE_CHECKING", "__name__ == '__main__'")


def _changes(node: ast.AST) -> Iterator[tuple[str, int | None, Any]]:
    """What may be put into a node in place of a part of it: field, place in it, new part."""
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield "op", None, OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        for at, comparison in enumerate(node.ops):
            for other in COMPARISONS[type(comparison)]:
                yield "ops", at, other()
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield "attr", None, NAMES[node.attr]
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max", "any", "all"):
            yield "func", None, ast.Name(NAMES[node.func.id], ast.Load())
        for at, keyword in enumerate(node.keywords):
            if _is_strict(keyword):
                continue
            yield "keywords", None, node.keywords[:at] + node.keywords[at + 1 :]
        for at in range(len(node.args) - 1):
            swapped = [*node.args[:at], node.args[at + 1], node.args[at], *node.args[at + 2 :]]
            yield "args", None, swapped
    elif isinstance(node, ast.Slice):
        for field in ("lower", "upper", "step"):
            if getattr(node, field) is not None:
                yield field, None, None
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
        yield "test", None, _negated(node.test)
    elif isinstance(node, ast.comprehension):
        for at, test in enumerate(node.ifs):
            yield "ifs", at, _negated(test)
    yield from _changes_of_children(node)


def _changes_of_children(node: ast.AST) -> Iterator[tuple[str, int | None, Any]]:
    """Other constants, no sign or no `not`, and statements taken out."""
    is_float = isinstance(node, ast.Call) and ast.unparse(node.func) == "float"
    for field, value in ast.iter_fields(node):
        if field in NEVER or _is_strict(node):
            continue
        several = isinstance(value, list)
        for at, child in enumerate(value if several else [value]):
            place = (field, at if several else None)
            if isinstance(child, ast.UnaryOp) and isinstance(child.op, (ast.USub, ast.Not)):
                if field not in ("test", "ifs"):  # those are negated anyhow
                    yield *place, child.operand
            elif isinstance(child, ast.Constant) and not isinstance(node, ast.Expr):
                for other in _other_constants(child.value, is_float):
                    yield *place, ast.Constant(other)
            elif several and _may_be_taken_out(child):
                yield *place, ast.Pass()


def _negated(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


def _is_strict(node: ast.AST) -> bool:
    """`strict=True` of a zip asserts what the lines before it make so; no test can reach it."""
    if not isinstance(node, ast.keyword) or node.arg != "strict":
        return False
    return isinstance(node.value, ast.Constant) and node.value.value is True


def _other_constants(value: object, is_float: bool) -> list[bool | int | float | str]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [2 * value if value else 1.0]
    if isinstance(value, str) and is_float:  # float("-inf")
        return [value.removeprefix("-") if value[:1] == "-" else f"-{value}"]
    if isinstance(value, str):
        return [f"{value}x"]
    return []


def _may_be_taken_out(node: object) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], (ast.Subscript, ast.Attribute))
    return isinstance(node, (ast.AugAssign, ast.Raise, ast.Break, ast.Continue))


def _lines(statement: ast.stmt | None) -> range:
    """The lines of a statement's own, without the statements inside it."""
    if statement is None:
        return range(0)
    last = statement.end_lineno or statement.lineno
    body = getattr(statement, "body", None)
    if body:
        last = max(statement.lineno, body[0].lineno - 1)
    return range(statement.lineno, last + 1)


def _text(statement: ast.stmt | None) -> str:
    """A statement in one line, without the statements inside it."""
    if statement is None:
        return ""
    lines = ast.unparse(statement).splitlines()
    return next(line for line in lines if not line.startswith("@"))

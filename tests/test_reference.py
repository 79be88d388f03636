"""The reference: every module of the package is in it, and every public name says what it is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, REFERENCE = ROOT / "ragbook", ROOT / "book" / "api"
DIRECTIVE = re.compile(r"^\.\. automodule:: (\S+)$", re.M)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def module_name(path: Path) -> str:
    """`ragbook/index/build.py` is `ragbook.index.build`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def public_definitions(body: list[ast.stmt], inside: str = ""):
    """(name, node) of the functions and classes without a leading underscore, and of their methods.

    An overload has no docstring of its own: the function after it has.
    """
    for node in body:
        if not isinstance(node, (*FUNCTION, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if any(ast.unparse(one).endswith("overload") for one in node.decorator_list):
            continue
        yield inside + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node.body, f"{inside}{node.name}.")


def has_public_names(path: Path) -> bool:
    """Whether a module defines a public function, class or constant; `__init__` only re-exports
    those of its modules unless it defines some itself."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    constants = [
        target.id
        for node in body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and (target.id == "__version__" or target.id[0] != "_")
    ]
    return bool(constants or list(public_definitions(body)))


def listed() -> list[str]:
    """The modules that the pages of the reference name, as often as they name them."""
    pages = sorted(REFERENCE.glob("*.md"))
    return [name for page in pages for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


def test_every_module_is_in_the_reference_once():
    wanted = {name for name, path in MODULES.items() if has_public_names(path)}
    assert sorted(listed()) == sorted(wanted)


def test_every_page_is_in_the_table_of_contents():
    contents = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    for page in REFERENCE.glob("*.md"):
        assert re.search(rf"^ *- file: api/{page.stem}$", contents, re.M), page.name


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), module
    silent = [name for name, node in public_definitions(tree.body) if not ast.get_docstring(node)]
    assert not silent, f"{module} says nothing of {', '.join(silent)}"

"""The house's order: imports point one way, and nothing heavy is imported before it is needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ragbook.cli.lean import keep_lean

PACKAGE = Path(__file__).resolve().parents[1] / "ragbook"
ROOMS = (
    "errors", "version", "printable", "machine", "files", "manifests", "corpus", "models", "index",
    "retrieval", "methods", "training", "evaluation", "figures", "explorer", "serve",
    "doctor", "cli",
)  # fmt: skip
HEAVY = (
    "torch", "transformers", "sentence_transformers", "faiss", "pandas", "scipy", "matplotlib",
    "pyarrow", "bm25s", "starlette", "uvicorn",
)  # fmt: skip


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file's import statements name, wherever in the file they stand."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
            if node.module == "ragbook":
                modules = [f"ragbook.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        found |= {m.split(".")[1] for m in modules if m.startswith("ragbook.")}
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem in ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    below = set(ROOMS[ROOMS.index(room) + 1 :])
    assert not imported_rooms(path) & below


def imported_modules() -> dict[str, set[str]]:
    """For every module of the package, the modules of it that its import statements name."""
    root = PACKAGE.parent
    paths = {
        ".".join(p.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): p
        for p in PACKAGE.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {name if name in paths else node.module for name in whole}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        found[module] = {name for name in named if name in paths and name != module}
    return found


def test_no_circle_of_modules():
    """Not even through an import inside a function."""
    with_imports = imported_modules()
    while leaves := {m for m, named in with_imports.items() if not named & with_imports.keys()}:
        for module in leaves:
            del with_imports[module]
    # A package that names its own parts is above them; what is left besides is a circle.
    assert not with_imports


def test_every_module_has_its_room():
    top = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.name[0] != "_"} - {"py.typed"}
    assert top == set(ROOMS)


@pytest.mark.parametrize(
    "code",
    [
        "import ragbook, ragbook.models",
        "from ragbook.cli import main; assert main(['--help']) == 0",
        "from ragbook.cli import main; assert main(['compare', '--help']) == 0",
        "from ragbook.corpus import load_questions; load_questions('miniwiki')",
    ],
)
def test_nothing_heavy_is_imported_early(code):
    report = f"{code}\nimport sys; print('HEAVY', *(m for m in {HEAVY!r} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "HEAVY"


def test_a_command_that_answers_does_without_the_compiler_until_it_is_used():
    """And answers as ever; Accelerate, SciPy and SymPy are installed here."""
    code = """
import sys
from ragbook.cli.lean import keep_lean
keep_lean(["ask", "Which?"])
from ragbook.models import load_encoder
vectors = load_encoder().encode_queries(["Which river flows through Lisbon?"])
print(vectors.tobytes().hex())
print(sorted({"accelerate", "scipy", "sympy", "torch.distributed.tensor"} & sys.modules.keys()))
import torch
before = torch._dynamo
print(before is torch._dynamo.config, torch._dynamo.config.__name__, torch._dynamo is before)
print("sympy" in sys.modules, sys.modules["torch._dynamo"].config is torch._dynamo.config)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    vectors, absent, first, second = run.stdout.splitlines()
    from ragbook.models import load_encoder

    expected = load_encoder().encode_queries(["Which river flows through Lisbon?"])
    assert bytes.fromhex(vectors) == expected.tobytes()
    assert (absent, first) == ("[]", "False torch._dynamo.config False")
    assert second == "True True"


@pytest.mark.parametrize("argv", [[], ["--help"], ["train", "reader"], ["doctor"]])
def test_other_commands_import_what_they_import(argv):
    before = list(sys.meta_path)
    keep_lean(argv)
    assert sys.meta_path == before


def test_nothing_is_unpickled():
    """No loader that could execute what a file says."""
    forbidden = re.compile(
        r"import pickle|torch\.load\(|allow_pickle=True|(?<![\w.])(?:eval|exec)\("
    )
    for path in PACKAGE.rglob("*.py"):
        assert not forbidden.findall(path.read_text(encoding="utf-8")), path


def test_no_code_of_a_model_is_run():
    """Every loader is told so, or it asks the user on standard input whether to."""
    found = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if re.search(r"\.from_(pretrained|config)$", name) and not name.startswith("nn."):
                pass
            elif name not in ("SentenceTransformer", "sentence_transformers.CrossEncoder"):
                continue
            found += 1
            said = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert said.get("trust_remote_code") == "False", f"{path}, line {node.lineno}"
        assert "trust_remote_code=True" not in path.read_text(encoding="utf-8"), path
    assert found >= 12

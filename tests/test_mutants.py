"""The mutants that `make mutants` tries: one change each, of what a module does, and repeatable."""

import ast
from pathlib import Path

import pytest

from tests import mutants, run_mutants

SOURCE = '''"""A module."""
import math

__all__ = ["area"]


def area(r: float = 1.0, names: str | None = None) -> float:
    """Of a circle."""
    if r < 0:
        raise ValueError(f"{r} is below 0")
    return round(math.pi * r**2, ndigits=-1)
'''
WANTED = {
    "def area(r: float=1.0, names: str | None=None) -> float: -> "
    "def area(r: float=2.0, names: str | None=None) -> float:",
    "if r < 0: -> if r <= 0:",
    "if r < 0: -> if r >= 0:",
    "if r < 0: -> if r < 1:",
    "if r < 0: -> if not r < 0:",
    "raise ValueError(f'{r} is below 0') -> pass",
    "return round(math.pi * r ** 2, ndigits=-1) -> return round(math.pi * (r * 2), ndigits=-1)",
    "return round(math.pi * r ** 2, ndigits=-1) -> return round(math.pi / r ** 2, ndigits=-1)",
    "return round(math.pi * r ** 2, ndigits=-1) -> return round(math.pi * r ** 3, ndigits=-1)",
    "return round(math.pi * r ** 2, ndigits=-1) -> return round(math.pi * r ** 2, ndigits=1)",
    "return round(math.pi * r ** 2, ndigits=-1) -> return round(math.pi * r ** 2, ndigits=-2)",
    "return round(math.pi * r ** 2, ndigits=-1) -> return round(math.pi * r ** 2)",
}


def test_every_change_is_made_and_taken_back():
    found = mutants.mutants("ragbook/area.py", SOURCE)
    assert {f"{one.before} -> {one.after}" for one in found} == WANTED
    assert len({one.name for one in found}) == len(found)
    plain = ast.dump(ast.parse(SOURCE))
    for one in found:
        names: dict = {}
        exec(one.compiled("area.py"), names)
        assert ast.dump(one.tree) == plain
    names = {}
    exec(found[0].compiled("area.py"), names)  # the default radius is 2
    assert names["area"]() == names["area"](2.0)


def test_the_seed_draws_the_same_ones_again():
    root = Path(__file__).parents[1]
    path = root / "ragbook" / "evaluation" / "metrics.py"
    drawn, again, other = (
        [one.name for one in mutants.sample(path, root, 9, seed)] for seed in (0, 0, 1)
    )
    assert drawn == again
    assert len(set(drawn)) == 9
    assert drawn != other


@pytest.mark.parametrize(
    ("function", "line", "tests"),
    [
        # Those that run the statement: its own module's first, however long they take.
        ("f", 3, ["tests/methods/test_rag.py::slow", "tests/evaluation/test_x.py::quick"]),
        ("f", 4, ["tests/evaluation/test_x.py::quick", "tests/evaluation/test_x.py::other"]),
        ("f", 9, []),
        (
            "",
            9,
            [
                "tests/methods/test_rag.py::else",
                "tests/methods/test_rag.py::slow",
                "tests/evaluation/test_x.py::quick",
                "tests/evaluation/test_x.py::other",
            ],
        ),
    ],
)
def test_a_mutant_is_tried_with_the_tests_that_run_it(function, line, tests):
    """Line 4 is run by a fixture: all tests of its file. At import, all that run the module."""
    one, *_ = mutants.mutants("ragbook/methods/rag.py", SOURCE)
    one.function, one.lines, one.before = function, range(line, line + 1), "x = 1"
    slow, quick = "tests/methods/test_rag.py::slow", "tests/evaluation/test_x.py::quick"
    reach = {
        "tests/evaluation/test_x.py": {
            "seconds": {quick: 0.1, "tests/evaluation/test_x.py::other": 0.2},
            "lines": {one.path: {"3": [quick], "4": [""]}},
        },
        "tests/methods/test_rag.py": {
            "seconds": {slow: 9.0, "tests/methods/test_rag.py::else": 1.0},
            "lines": {one.path: {"3": [slow]}},
        },
    }
    assert run_mutants.tests_of(one, reach) == tests


def test_the_modules_and_tests_that_are_named_are_there():
    named = [*run_mutants.PATHS, *(f"tests/{name}" for name in run_mutants.TESTS)]
    assert [name for name in named if not (run_mutants.ROOT / name).exists()] == []

"""What `ragbook compare --append` does around a comparison: which run it adds to, whether it may,
and that nothing of that run is lost if the process is killed.

The added methods' answers are kept in the working folder of `--out` as those of any run
(:mod:`ragbook.evaluation.kept`). A copy of the stored files stands there too, under ``stored``:
while the files of the longer comparison take their place, a killed process leaves some of each, and
the next one puts the copy back first.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.cli.checks import FOLLOWED
from ragbook.errors import InputError
from ragbook.files import replace_together, sha256_of_file

if TYPE_CHECKING:
    from ragbook.corpus import QuestionSet
    from ragbook.evaluation import Comparison

_STORED = "stored"
_BY_CONTENT = (
    *("corpus", "index", "format", "columns", "cut", "overlap"),
    *("questions", "questions_format", "split", "limit", "encoder", "query_encoder"),
)
"""Arguments that count by what they name: its hash is among the conditions."""
_WITHOUT_EFFECT = (
    "append",
    "command",
    "documents",
    "json",
    "memory",
    "methods",
    "out",
    "parser",
    "run",
    "verify",
)
"""Arguments on which a method's answers do not depend."""


def stored_comparison(arguments: argparse.Namespace) -> Comparison | None:
    """The comparison that --append adds to; None without --append.

    Raises
    ------
    InputError: there is no whole one in --out.
    """
    if not arguments.append:
        return None
    from ragbook.evaluation import Comparison
    from ragbook.evaluation.kept import FOLDER
    from ragbook.evaluation.stored import RESULTS

    if arguments.out is None:
        raise InputError("--append adds to the comparison in --out; name its folder with --out.")
    copy = arguments.out / FOLDER / _STORED
    if not (arguments.out / RESULTS).is_file() and copy.is_dir():
        return Comparison.load(copy)
    if not (arguments.out / RESULTS).is_file():
        raise InputError(
            f"{arguments.out} holds no comparison to add to; compare without --append first."
        )
    return Comparison.load(arguments.out)


def methods_to_add(before: Comparison, names: Sequence[str], chosen: bool) -> list[str]:
    """The methods to add, of the names given: with `chosen`, by --methods, all of them; else those
    that were not compared yet.

    Raises
    ------
    InputError: one was compared already, or none is left.
    """
    from ragbook.evaluation.appending import check_names

    if chosen:
        check_names(before, list(names))
        return list(names)
    left = [name for name in names if name not in before.results["methods"]]
    if not left:
        raise InputError("All methods were compared already; there is none to add.")
    return left


def conditions_of(
    arguments: argparse.Namespace,
    names: Sequence[str],
    questions: QuestionSet,
    corpus: Any,
    index: Any,
    retriever: Any,
) -> dict[str, Any]:
    """What the methods `names` share (:func:`ragbook.evaluation.identity.conditions`). An option
    that none of them follows is not among it."""
    from ragbook.evaluation.identity import conditions

    settings = {
        "--lambda" if key == "lam" else f"--{key.replace('_', '-')}": _meaning(value)
        for key, value in sorted(vars(arguments).items())
        if key not in _BY_CONTENT + _WITHOUT_EFFECT
        and any(name in FOLLOWED.get(key, names) for name in names)
    }
    return conditions(questions, corpus, index, retriever, settings)


def _meaning(value: Any) -> Any:
    """An option's value as JSON; of a file or a folder with a model its content."""
    if isinstance(value, str | Path) and os.path.isfile(value):
        return f"a file with the SHA-256 {sha256_of_file(Path(value))}"
    if isinstance(value, str | Path) and os.path.isdir(value):
        digest = hashlib.sha256()
        for path in sorted(Path(value).rglob("*")):
            if path.suffix in (".json", ".safetensors", ".txt") and path.is_file():
                name = path.relative_to(value).as_posix()
                digest.update(f"{name} {sha256_of_file(path)}\n".encode())
        return f"a folder with the SHA-256 {digest.hexdigest()}"
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def protect(working: Path) -> None:
    """Keep a copy of the stored comparison in the working folder, which stands in its own and which
    this process has locked; or put the copy back, where a killed process has left a part of the
    files."""
    from ragbook.evaluation.comparison import OWN_FILES
    from ragbook.evaluation.stored import RESULTS

    out, copy, passing = working.parent, working / _STORED, working / "copying"
    shutil.rmtree(passing, ignore_errors=True)
    if not (out / RESULTS).is_file():
        shutil.copytree(copy, passing)
        replace_together(passing, out, OWN_FILES, RESULTS)
        shutil.rmtree(passing)
        return
    shutil.rmtree(copy, ignore_errors=True)  # of an earlier run
    for pattern in (RESULTS, *OWN_FILES):
        for path in out.glob(pattern):
            target = passing / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    os.rename(passing, copy)

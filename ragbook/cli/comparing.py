"""What `ragbook compare --out` keeps while it runs, and writes when it has ended."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.cli.printing import say

if TYPE_CHECKING:
    from ragbook.corpus import QuestionSet
    from ragbook.evaluation import Comparison
    from ragbook.evaluation.kept import Kept
    from ragbook.methods import Method


@contextmanager
def kept_answers(
    arguments: argparse.Namespace, methods: Sequence[Method], questions: QuestionSet
) -> Iterator[Kept | None]:
    """The answers that an earlier process left in --out for the same run; None without --out.

    Standard error says whether the run goes on or starts anew, and after an error how much is kept.

    Raises
    ------
    InputError: another process compares into the same folder.
    """
    if arguments.out is None:
        yield None
        return
    from ragbook.evaluation.identity import identity
    from ragbook.evaluation.kept import keeping

    where, n = arguments.out, len(questions)
    with keeping(where, identity(methods, questions, _settings(arguments))) as kept:
        if kept.other:
            say(
                f"the answers that a run which ended early left in {where} are not of this run, so "
                "all questions are asked anew."
            )
        elif kept.records:
            say(f"going on in {where}, where {len(kept.records):,} of {n:,} are answered.")
        try:
            yield kept
        except BaseException:
            if kept.done:
                say(
                    f"{where} keeps the answers to {kept.done:,} of {n:,} questions; the same "
                    "command goes on from there."
                )
            raise


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options on which answers may depend, as JSON; of a prompt's file its content."""
    given = {key: value for key, value in vars(arguments).items() if not callable(value)}
    settings = {key: str(value) for key, value in given.items() if key not in ("out", "json")}
    if arguments.prompt is not None and Path(arguments.prompt).is_file():
        settings["prompt"] = hashlib.sha256(Path(arguments.prompt).read_bytes()).hexdigest()
    return settings


def save_comparison(
    comparison: Comparison, out: Path, working: Path, corpus: Any, questions: QuestionSet
) -> None:
    """Write the results, tables, figures and the explorer to the folder `out`, all together, by way
    of the folder `working`."""
    from ragbook import explorer, figures
    from ragbook.evaluation.comparison import written_together

    with written_together(out, working / "finished") as finished:
        comparison.write(finished)
        figures.side_by_side(comparison.results).save(finished / "side_by_side.png")
        figures.errors(comparison.results).save(finished / "errors.png")
        explorer.write(finished / "explorer", comparison.predictions, corpus, questions)

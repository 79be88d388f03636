"""What `ragbook compare --out` keeps while it runs, and writes when it has ended."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.cli.appending import conditions_of, protect
from ragbook.cli.printing import say
from ragbook.errors import InputError

if TYPE_CHECKING:
    from ragbook.corpus import Question, QuestionSet
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
    without_effect = ("out", "json", "documents")
    settings = {key: str(value) for key, value in given.items() if key not in without_effect}
    if arguments.prompt is not None and Path(arguments.prompt).is_file():
        settings["prompt"] = hashlib.sha256(Path(arguments.prompt).read_bytes()).hexdigest()
    return settings


def compare_methods(
    arguments: argparse.Namespace,
    methods: Sequence[Method],
    questions: QuestionSet,
    corpus: Any,
    index: Any,
    retriever: Any,
    before: Comparison | None,
) -> Comparison:
    """Ask the methods, with what an earlier process has left in --out, and store the comparison
    there; with `before`, that of its methods and these.

    Raises
    ------
    InputError: nothing can be added to `before` under these conditions, or another process compares
        into the same folder.
    """
    from ragbook import evaluation
    from ragbook.evaluation.appending import appended, check_conditions, check_names

    shared, names = {}, [method.name for method in methods]
    if arguments.out is not None:
        shared["conditions"] = conditions_of(arguments, names, questions, corpus, index, retriever)
    if before is not None:  # fail now and not after an hour
        check_conditions(before.setup, shared)
        check_names(before, names)
    with kept_answers(arguments, methods, questions) as kept:
        if before is not None and kept is not None:
            protect(kept.folder)
        comparison = evaluation.compare(
            methods,
            questions,
            k=arguments.k,
            seed=arguments.seed,
            index=index,
            leave_one_out=arguments.leave_one_out,
            kept=kept,
        )
        comparison = replace(comparison, setup={**comparison.setup, **shared})
        if before is not None:
            comparison = appended(before, comparison)
        if kept is not None:
            _save(comparison, kept.folder, corpus, questions)
    return comparison


def _save(comparison: Comparison, working: Path, corpus: Any, questions: QuestionSet) -> None:
    """Write the results, tables, figures and the explorer to the folder that the folder `working`
    stands in, all together. There are no figures of scores where no answer is known."""
    from ragbook import explorer, figures
    from ragbook.evaluation.comparison import written_together
    from ragbook.evaluation.lines import scored_number

    with written_together(working.parent, working / "finished") as finished:
        comparison.write(finished)
        if scored_number(comparison.results):
            figures.side_by_side(comparison.results).save(finished / "side_by_side.png")
            figures.errors(comparison.results).save(finished / "errors.png")
        explorer.write(finished / "explorer", comparison.predictions, corpus, questions)


def without_answers(questions: Sequence[Question]) -> str | None:
    """How many questions have no known answer, and what that means; None if all have one."""
    n, without = len(questions), sum(not question.answers for question in questions)
    if not without:
        return None
    which = "none of the" if without == n else f"{without:,} of the"
    has = "has a known answer" if without == n else "have no known answer"
    return (
        f"{which} {n:,} questions {has}; they are asked, and where methods agree and what they "
        "rely on is counted, but they are left out of all scores."
    )


def with_answers(questions: QuestionSet) -> QuestionSet:
    """The questions to train on, those with a known answer; standard error says how many others are
    left out.

    Raises
    ------
    InputError: none is left.
    """
    from ragbook.corpus import QuestionSet

    known = [question for question in questions if question.answers]
    without = len(questions) - len(known)
    if not without:
        return questions
    if not known:
        raise InputError(
            f"No question of {questions.name!r} has a known answer to learn; name others with "
            "--questions."
        )
    say(f"{without:,} of the {len(questions):,} questions have no known answer and are left out.")
    return QuestionSet(questions.name, questions.split, known, skipped=questions.skipped)

"""The commands of rankings: `ragbook retrieve` and `ragbook evaluate`; and `--run` in `ask`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.cli.checks import check_retriever, given_options
from ragbook.cli.options import (
    add_device,
    add_json,
    add_k,
    add_measures,
    add_passages,
    add_retriever,
    at_least,
)
from ragbook.cli.parsers import add_command
from ragbook.cli.parts import (
    asked_of,
    device_and_precision,
    load_asked,
    make_retriever,
    make_retrievers,
    open_passages,
    run_of,
    served_by,
)
from ragbook.cli.printing import print_json, print_table, say
from ragbook.cli.status import OK
from ragbook.errors import InputError
from ragbook.printable import printable

if TYPE_CHECKING:
    from ragbook.corpus import Question, QuestionSet
    from ragbook.evaluation.ranking import Measured
    from ragbook.retrieval import Retriever
    from ragbook.retrieval.runs import Ranking

_BATCH = 32  # questions retrieved at a time


def retrieve(arguments: argparse.Namespace) -> int:
    """`ragbook retrieve`: write what retrievers find as run files, and measure it."""
    from ragbook.corpus.gold import missing_sentence, placed
    from ragbook.corpus.qrels import write_qrels
    from ragbook.evaluation.ranking import measure_runs, parse_measures, qrels_of
    from ragbook.methods.cuts import encoders_of
    from ragbook.models.devices import place
    from ragbook.retrieval.runs import write_run

    check_retriever(arguments, given_options(arguments))
    device, precision = device_and_precision(arguments)
    asked = None if arguments.measures is None else parse_measures(arguments.measures)
    named = None if arguments.questions is None else load_asked(arguments, arguments.split)
    corpus, index = open_passages(arguments)
    questions = placed(asked_of(arguments, named, corpus), corpus).numbered()
    if (lost := missing_sentence(questions, corpus.name)) is not None:
        say(f"{lost}.")
    qrels = qrels_of(questions)
    measures = asked or _measurable(bool(qrels), any(q.answers for q in questions), arguments.k)
    if arguments.qrels is not None and not qrels:
        raise InputError("No gold passage of the questions is known, so --qrels has none to write.")
    if not measures and arguments.out is None:
        raise InputError(
            "The questions have neither gold passages nor answers, so nothing can be measured; "
            "write what is found to a file with --out."
        )
    if arguments.run_file is None:
        retrievers, _ = make_retrievers(arguments, arguments.retriever, corpus, index)
    else:
        retrievers = [make_retriever(arguments, corpus, index)[0]]
        served_by(retrievers[0], questions, "they have no lines")
    if (device, precision) != ("cpu", "float32"):  # where and how they were loaded
        for encoder in {id(e): e for r in retrievers for e in encoders_of(r)}.values():
            place(encoder.query_model, device, precision)
    files = _files(arguments.out, [retriever.name for retriever in retrievers])
    runs = {}
    for retriever in retrievers:
        runs[retriever.name] = run = _ranked(retriever, questions, arguments.k)
        if retriever.name in files:
            write_run(files[retriever.name], run, retriever.name)
    if arguments.qrels is not None:
        write_qrels(arguments.qrels, qrels)
    found = None
    if measures:
        found = measure_runs(runs, measures, qrels, questions, corpus, seed=arguments.seed)
    if arguments.json:
        print_json(
            {
                "runs": {} if found is None else found.results,
                "paired": [] if found is None else found.paired,
                "files": {name: str(path) for name, path in files.items()},
            }
        )
        return OK
    if found is not None:
        _print(found)
    for name, path in files.items():
        passages = sum(len(one.ids) for one in runs[name].values())
        print(f"{printable(path)}: {passages:,} passages for {len(questions):,} questions")
    return OK


def _measurable(judged: bool, answered: bool, k: int) -> list[str]:
    """The measures that can be taken, without those that look further down than k."""
    from ragbook.evaluation.ranking import HITS, MEASURES

    names = (MEASURES if judged else ()) + (HITS if answered else ())
    return [name for name in names if "@" not in name or int(re.split("@", name)[1]) <= k]


def _files(out: Path | None, names: Sequence[str]) -> dict[str, Path]:
    """The run file of each retriever; its folder is made now, and not found missing after an
    hour."""
    if out is None:
        return {}
    if len(names) == 1 and not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        return {names[0]: out}
    out.mkdir(parents=True, exist_ok=True)
    return {name: out / f"{name}.trec" for name in names}


def _ranked(retriever: Retriever, questions: QuestionSet, k: int) -> dict[str, Ranking]:
    """What a retriever finds, by the questions' ids."""
    from tqdm import tqdm

    from ragbook.retrieval.runs import ranking

    run: dict[str, Ranking] = {}
    with tqdm(total=len(questions), desc=retriever.name, unit="question", disable=None) as bar:
        for first in range(0, len(questions), _BATCH):
            batch = questions[first : first + _BATCH]
            for question, found in zip(batch, retriever.retrieve(batch, k), strict=True):
                run[question.id or ""] = ranking(found)
            bar.update(len(batch))
    return run


def evaluate(arguments: argparse.Namespace) -> int:
    """`ragbook evaluate`: measure run files by judgements or by the text of answers."""
    from ragbook.corpus.gold import missing_sentence, placed
    from ragbook.corpus.qrels import read_qrels
    from ragbook.evaluation.ranking import measure_runs, parse_measures, qrels_of
    from ragbook.retrieval.runs import read_run

    asked = None if arguments.measures is None else parse_measures(arguments.measures)
    if arguments.qrels is None and arguments.questions is None:
        raise InputError(
            "It is not known what is right; name judgements with --qrels, or --questions with gold "
            "passages or answers."
        )
    has_corpus = arguments.corpus is not None or arguments.index is not None
    if has_corpus and arguments.questions is None:
        raise InputError(
            "The passages are read for the text of answers; name the questions with --questions, "
            "or leave --corpus and --index out."
        )
    names = _names(arguments.runs)
    questions, corpus = None, None
    if arguments.questions is not None:
        questions = load_asked(arguments, arguments.split).numbered()
    if has_corpus and questions is not None:
        corpus, _ = open_passages(arguments)
        questions = placed(questions, corpus)
        if (lost := missing_sentence(questions, corpus.name)) is not None:
            say(f"{lost}.")
    qrels: Any = None
    if arguments.qrels is not None:
        qrels = read_qrels(arguments.qrels)
    elif questions is not None:
        qrels = qrels_of(questions)
    answered = corpus is not None and any(q.answers for q in questions or ())
    measures = asked or _measurable(bool(qrels), answered, 1_000_000)
    if not measures:
        raise InputError(
            "The questions name no gold passages; name --qrels, or the passages with --corpus, in "
            "which their answers are looked for."
        )
    runs = {name: read_run(path) for name, path in zip(names, arguments.runs, strict=True)}
    found = measure_runs(
        runs,
        measures,
        qrels,
        questions or (),
        corpus,
        skip_missing=arguments.skip_missing,
        seed=arguments.seed,
    )
    if not arguments.json:
        _print(found)
    elif len(runs) == 1:
        print_json(found.results[names[0]])
    else:
        print_json({"runs": found.results, "paired": found.paired})
    return OK


def _names(paths: Sequence[Path]) -> list[str]:
    """What the runs are called: by the files' names, or by their paths where names are equal."""
    from ragbook.corpus.files import bare_name

    names = [bare_name(path) for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"The run {name} is given twice; name each run once.")
    return names


def _print(found: Measured) -> None:
    from ragbook.evaluation.ranking import is_hit_measure

    judged = [name for name in found.values if not is_hit_measure(name)]
    by_text = [name for name in found.values if is_hit_measure(name)]
    sheets = [found.sheet(names) for names in (judged, by_text) if names]
    if (pairs := found.pairs()) is not None:
        sheets.append(pairs)
    for number, sheet in enumerate(sheets):
        if number:
            print()
        print_table(sheet.terminal())


def asked_question(arguments: argparse.Namespace) -> Question:
    """The question of `ragbook ask`; for --run with the id that the run knows it by.

    Raises
    ------
    InputError: --run without an id or with two, or an id without --run.
    """
    from ragbook.corpus import Question

    text, own, source = arguments.question, arguments.question_id, arguments.questions
    if arguments.run_file is None:
        if own is not None or source is not None:
            option = "--id" if own is not None else "--questions"
            raise InputError(f"{option} is for --run; name a run file, or leave it out.")
        return Question(text, ())
    if (own is None) == (source is None):
        raise InputError(
            "A run knows questions by their ids; name the question's own with --id, or with "
            "--questions the file that has it" + ("." if own is None else ", not both.")
        )
    if own is not None:
        return Question(text, (), id=own)
    for question in load_asked(arguments, arguments.split).numbered():
        if question.text == text:
            return Question(text, (), id=question.id)
    raise InputError(
        f"No question of {source} is {text!r}; ask it word by word, or name its id with --id."
    )


def check_served(retriever: Retriever, question: Question) -> None:
    """Raise InputError if the run of --run has no passage for a question."""
    run = run_of(retriever)
    if run is not None and not run.serves(question):
        raise InputError(
            f"The run {run.name!r} has no passage of corpus {run.corpus.name!r} for the question "
            f"with the id {question.id!r}; name another id."
        )


def add_commands(top: Any) -> None:
    """Add `retrieve` and `evaluate`."""
    command = add_command(
        top,
        "retrieve",
        retrieve,
        "write what retrievers find as run files, and measure it where it is known what is right",
    )
    add_passages(command, questions=True)
    add_retriever(command, ["dense", "bm25", "hybrid"], several=True)
    command.add_argument(
        "--questions", metavar="NAME_OR_PATH", help="questions (default on MiniWiki: MiniWiki's)"
    )
    add_k(command, 100, "passages retrieved (default: 100)")
    command.add_argument(
        "--limit", type=at_least(1), metavar="N", help="only the first N questions"
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the run file, gzip if it ends in .gz; for several retrievers, or where it is a "
        "folder, the folder of files RETRIEVER.trec; white space in ids is written as %%20",
    )
    command.add_argument(
        "--qrels", type=Path, metavar="FILE", help="write the questions' gold passages here"
    )
    add_measures(command)
    add_device(command, "float32")
    add_json(command)

    command = add_command(
        top,
        "evaluate",
        evaluate,
        "measure run files of any system by relevance judgements, or by the text of answers",
    )
    command.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="TREC's run files, or - for standard input",
    )
    command.add_argument(
        "--qrels",
        type=Path,
        metavar="FILE",
        help="judgements, as TREC or BEIR writes them (default: the gold passages of --questions)",
    )
    command.add_argument(
        "--questions",
        metavar="NAME_OR_PATH",
        help="the questions; with the passages, hit@k counts those that hold an answer",
    )
    add_passages(command, questions=True)
    add_measures(command)
    command.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out queries that a run lacks (default: they count 0)",
    )
    add_json(command)

"""The function of each command: it takes the arguments and returns the exit status."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path
from typing import Any

from ragbook.cli.appending import methods_to_add, stored_comparison
from ragbook.cli.checks import check_reading, given_options
from ragbook.cli.comparing import (
    compare_methods,
    without_answers,
)
from ragbook.cli.options import (
    add_interpolation,
    add_json,
    add_k,
    add_lm,
    add_passages,
    add_reader,
    add_reading,
    add_retriever,
    add_seed,
    at_least,
    names,
    words,
)
from ragbook.cli.parsers import add_command
from ragbook.cli.parts import (
    asked_of,
    load_asked,
    load_language_model,
    load_methods,
    make_retriever,
    method_names,
    open_passages,
    read_text,
    reading_of,
    served_by,
)
from ragbook.cli.printing import (
    named,
    print_json,
    print_pairs,
    print_perplexities,
    print_table,
    say,
)
from ragbook.cli.ranking import asked_question, check_served
from ragbook.cli.status import OK
from ragbook.errors import InputError
from ragbook.files import cache_folder
from ragbook.printable import printable


def compare(arguments: argparse.Namespace) -> int:
    """`ragbook compare`: ask all methods the same questions; print the table, store the results."""
    from ragbook.cli.advice import advice, answers_cut, cut_sentence, unread
    from ragbook.corpus.gold import by_answer, missing_sentence, placed
    from ragbook.evaluation.lines import scored_number

    reading_of(arguments)  # or its refusal
    if arguments.documents is not None and not arguments.documents.is_dir():
        raise InputError(f"There is no folder {arguments.documents}; check --documents.")
    before = stored_comparison(arguments)
    names = method_names(arguments.methods, arguments.reader)
    if before is not None:
        names = methods_to_add(before, names, arguments.methods is not None)
    check_reading(arguments, names, given_options(arguments))
    named = None if arguments.questions is None else load_asked(arguments, arguments.split)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)  # fail now and not after an hour
    corpus, index = open_passages(arguments)
    if arguments.documents is not None:
        corpus.documents = arguments.documents
    questions = asked_of(arguments, named, corpus)
    questions = by_answer(questions) if arguments.gold == "answer" else placed(questions, corpus)
    if (told := without_answers(questions)) is not None:
        say(told)
    if (lost := missing_sentence(questions, corpus.name)) is not None:
        if arguments.retriever == "oracle":
            raise InputError(f"{lost}; the oracle needs the corpus that belongs to the questions.")
        say(
            f"{lost}; for these questions neither recall nor evidence is counted. Name the corpus "
            "that they belong to, or count passages that hold an answer with --gold answer."
        )
    retriever, index = make_retriever(arguments, corpus, index)
    questions = served_by(retriever, questions, "they are left out")
    methods = load_methods(arguments, names, retriever, corpus, questions)
    comparison = compare_methods(arguments, methods, questions, corpus, index, retriever, before)
    results = comparison.results
    if results["cut_passages"]:
        say(cut_sentence(results["cut_passages"], results["cut_words"], "passages"))
    for sentence in [*unread(results), *answers_cut(results)]:
        say(sentence)
    for sentence in advice(results, arguments.max_length, arguments.length_penalty):
        say(sentence)
    if arguments.json:
        print_json(comparison.results)
    else:
        print_table(comparison.table())
        if (errors := comparison.errors()) is not None:
            print()
            print_table(errors.terminal())
        unscored = scored_number(comparison.results) < len(questions)
        if unscored and (agreement := comparison.agreement(numbered=True)) is not None:
            print()
            print_table(agreement.terminal())
        if arguments.out is not None:
            print(f"saved in {printable(arguments.out)}")
    return OK


def ask(arguments: argparse.Namespace) -> int:
    """`ragbook ask`: each method's answer to one question, and the passages that it relied on."""
    from ragbook.cli.advice import cut_sentence, unread_by
    from ragbook.methods.cuts import found_by_part, notes_of, read_short

    names = method_names(arguments.method, arguments.reader)
    check_reading(arguments, names, given_options(arguments))
    question = asked_question(arguments)
    corpus, index = open_passages(arguments)
    retriever, _ = make_retriever(arguments, corpus, index)
    check_served(retriever, question)
    methods = load_methods(arguments, names, retriever, corpus, [question])
    answers = {}
    for method in methods:
        answers[method.name] = method.answer([question], arguments.k)[0]
        notes = notes_of(method)
        if notes is not None and (left := notes.take_unread().get(question.text)):
            say(unread_by(method.name, left))
    (found,) = retriever.retrieve([question], arguments.k)
    cut = found_by_part([retriever], found.passages) | read_short(methods)
    if cut:
        say(cut_sentence(len(cut), max(cut.values()), "passages"))
    if arguments.json:
        entries = {
            name: {
                "text": answer.text,
                "log_prob": answer.log_prob,
                "evidence": [
                    {"passage_id": each.passage_id, "weight": each.weight}
                    for each in answer.evidence
                ],
            }
            for name, answer in answers.items()
        }
        print_json({"question": question.text, "methods": entries})
        return OK
    width = shutil.get_terminal_size().columns
    for name, answer in answers.items():
        print(f"{name:<14} {printable(answer.text)}   (log p = {answer.log_prob:.2f})")
        for each in answer.evidence:
            passage = corpus.get(each.passage_id)
            line = f"{named(passage)}: {printable(' '.join(passage.text.split()))}"
            shown = textwrap.shorten(line, max(width - 24, 40), placeholder=" …")
            print(f"{'':<15}{each.weight:.3f}  {shown}")
    return OK


def _heldout(split: str) -> list[str]:
    """MiniWiki's held-out articles of a split, as texts."""
    from ragbook.corpus import miniwiki

    return ["\n".join(p.text for p in article.passages) for article in miniwiki.heldout(split)]


def perplexity(arguments: argparse.Namespace) -> int:
    """`ragbook perplexity`: base model, kNN-LM and in-context retrieval on held-out text."""
    from ragbook.evaluation.perplexity import perplexity
    from ragbook.evaluation.windows import STRIDE, WINDOW

    options = {} if arguments.k is None else {"k": arguments.k}
    options |= {"window": arguments.window or WINDOW, "stride": arguments.stride or STRIDE}
    if arguments.dev is not None:
        options["dev"] = [read_text(arguments.dev)]
    if arguments.approximate and arguments.datastore is None:
        raise InputError(
            "Only a datastore that was built with --ivfpq can be searched approximately; name one "
            "with --datastore."
        )
    if arguments.datastore is not None and (arguments.corpus or arguments.index):
        raise InputError(
            "A datastore holds its passages; name --datastore, or --corpus or --index, not both."
        )
    text = None if arguments.text is None else read_text(arguments.text)
    lm = load_language_model(arguments)
    if arguments.datastore is None:
        corpus, _ = open_passages(arguments)
    else:
        from ragbook.index.datastore import Datastore

        options["datastore"] = datastore = Datastore.open(arguments.datastore, arguments.verify)
        corpus = datastore.passages
    documents = _heldout("test") if text is None else [text]
    given = arguments.dev or (arguments.lam is not None and arguments.temperature is not None)
    if text is None and not given and arguments.lm != "bundled":
        options["dev"] = _heldout("dev")
    # Stored passages can be used as a corpus.
    found = perplexity(
        documents,
        corpus,  # type: ignore[arg-type]
        progress=True,
        lm=lm,
        approximate=arguments.approximate,
        lam=arguments.lam,
        temperature=arguments.temperature,
        **options,
    )
    if arguments.json:
        print_json(found)
    else:
        print_perplexities(found, len(documents), options["window"], options["stride"])
        if arguments.approximate:
            print(f"the search found {100 * found['knn-lm']['recall']:.1f} % of the neighbours")
    return OK


def export(arguments: argparse.Namespace) -> int:
    """`ragbook export`: write a bundled model as a checkpoint that `transformers` loads."""
    from ragbook.models.checkpoints.export import export

    export(arguments.name, arguments.out, arguments.reader)
    return OK


def doctor(arguments: argparse.Namespace) -> int:
    """`ragbook doctor`: print what is installed, and what would need a download."""
    from ragbook import doctor

    report = doctor.examine(cache_folder())
    if arguments.json:
        print_json(report)
        return OK
    for heading, entries in report.items():
        print(heading)
        print_pairs(
            ((name, "missing" if value is None else value) for name, value in entries.items()), "  "
        )
    return OK


def add_asking(top: Any) -> None:
    """Add `compare` and `ask`."""
    command = add_command(top, "compare", compare, "compare the methods on one index")
    add_passages(command, questions=True)
    add_retriever(command, ["dense", "bm25", "hybrid", "oracle"])
    command.add_argument(
        "--questions", metavar="NAME_OR_PATH", help="questions (default on MiniWiki: MiniWiki's)"
    )
    command.add_argument("--methods", type=names, metavar="A,B", help="methods (default: all)")
    command.add_argument(
        "--gold",
        choices=["passage", "answer"],
        default="passage",
        help="what a question's right passage is: the one that its file names, or with answer any "
        "that holds an answer (default: passage; answer where the file names none)",
    )
    add_k(command)
    add_reading(command)
    command.add_argument(
        "--limit", type=at_least(1), metavar="N", help="only the first N questions"
    )
    command.add_argument(
        "--leave-one-out",
        nargs="?",
        const=True,
        default=False,
        type=at_least(1),
        metavar="N",
        help="also measure how much less likely each answer becomes without each of its passages, "
        "the one measure of evidence that is the same for all methods, on the first N questions "
        "(without N, on all)",
    )
    add_seed(command)
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="save results, tables, figures and the explorer here",
    )
    command.add_argument(
        "--append",
        action="store_true",
        help="add the methods to the comparison that is stored in --out, whose own are not asked "
        "again (without --methods, all that it lacks)",
    )
    command.add_argument(
        "--documents",
        type=Path,
        metavar="DIR",
        help="folder of the documents that the passages were cut from, to which the explorer links "
        "them (default: that of --corpus or --index, if it was one)",
    )
    add_json(command)

    command = add_command(top, "ask", ask, "ask all methods one question; shows their evidence too")
    command.add_argument("question", type=words, metavar="QUESTION")
    command.add_argument(
        "--method", type=lambda name: [name], metavar="NAME", help="only this method"
    )
    add_passages(command, questions=True)
    add_retriever(command, ["dense", "bm25", "hybrid"])
    command.add_argument(
        "--id", dest="question_id", metavar="ID", help="for --run: the question's id there"
    )
    command.add_argument(
        "--questions",
        metavar="NAME_OR_PATH",
        help="for --run: questions with the ids of the run, in which the asked one is looked up",
    )
    add_k(command)
    add_reading(command)
    add_json(command)


def add_others(top: Any) -> None:
    """Add `perplexity`, `export` and `doctor`."""
    command = add_command(
        top,
        "perplexity",
        perplexity,
        "measure base model, kNN-LM and in-context retrieval on a text",
    )
    command.add_argument(
        "--text", type=Path, metavar="FILE", help="(default: MiniWiki's held-out text)"
    )
    add_passages(command)
    command.add_argument(
        "--datastore",
        type=Path,
        metavar="DIR",
        help="a datastore, whose passages are used as --corpus (default: one is built)",
    )
    add_lm(command)
    command.add_argument(
        "--dev",
        type=Path,
        metavar="FILE",
        help="held-out text to tune lambda and temperature on, unless they are given (default: "
        "MiniWiki's, where --text is; the bundled model has values of its own)",
    )
    add_interpolation(command)
    command.add_argument(
        "--approximate",
        action="store_true",
        help="search the datastore's approximate index, and print the share of the exact "
        "neighbours that it finds",
    )
    add_k(command, None, "neighbours of each token (default: kNN-LM's)")
    command.add_argument(
        "--window",
        type=at_least(1),
        metavar="N",
        help="tokens that the model reads at a time, the scored ones included (default: 128)",
    )
    command.add_argument(
        "--stride",
        type=at_least(1),
        metavar="N",
        help="how many of a window's tokens are scored; those before them are their context "
        "(default: 64)",
    )
    add_json(command)

    command = add_command(
        top,
        "export",
        export,
        "write a model (reader, rag-sequence, rag-token, fid, realm or lm) as a checkpoint for "
        "`transformers`",
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    add_reader(command)

    command = add_command(
        top, "doctor", doctor, "show what is installed, and what would need a download"
    )
    add_json(command)

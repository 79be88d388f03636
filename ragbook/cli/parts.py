"""The parts that a command's options name: methods, passages, a retriever, an encoder, a text."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.cli.printing import say
from ragbook.errors import InputError
from ragbook.files import cache_folder
from ragbook.printable import printable

if TYPE_CHECKING:
    from ragbook.corpus import Corpus, Passage, Question, QuestionSet
    from ragbook.corpus.readers import PassageSource, Reading
    from ragbook.index import PassageIndex
    from ragbook.index.passages import StoredPassages
    from ragbook.methods import Method
    from ragbook.models import Encoder, LanguageModel
    from ragbook.retrieval import Retriever, RunRetriever


def method_names(wanted: Sequence[str] | None, reader: str = "bundled") -> list[str]:
    """The methods asked for; by default all that the reader can serve, with a line on standard
    error about the others. InputError for an unknown name."""
    from ragbook.methods import NAMES, check_names, left_out

    if wanted is None:
        without = left_out(reader)
        for name, reason in without.items():
            print(printable(f"without {name}: {reason}"), file=sys.stderr)
        return [name for name in NAMES if name not in without]
    names = list(wanted)
    check_names(names)
    return names


def load_methods(
    arguments: argparse.Namespace,
    names: Sequence[str],
    retriever: Retriever,
    corpus: Corpus,
    asked: Sequence[Question],
) -> list[Method]:
    """The methods, with the reader, prompt, beam search, device and precision of the options."""
    from ragbook import methods
    from ragbook.index.factories import parse_bytes

    how = {} if arguments.prompt is None else _prompt(arguments, corpus, asked)
    device, precision = device_and_precision(arguments)
    return methods.load(
        names,
        retriever,
        not arguments.free,
        arguments.reader,
        lm=arguments.lm,
        beams=arguments.beams,
        max_length=arguments.max_length,
        length_penalty=arguments.length_penalty,
        lam=arguments.lam,
        temperature=arguments.temperature,
        shared=arguments.same_weights,
        device=device,
        precision=precision,
        memory=parse_bytes(arguments.memory),
        **how,
    )


def _prompt(
    arguments: argparse.Namespace, corpus: Corpus, asked: Sequence[Question]
) -> dict[str, Any]:
    """The template of --prompt, and its demonstrations."""
    from ragbook.corpus import load_questions, miniwiki
    from ragbook.models.templates import draw_demonstrations, load_template

    template = load_template(arguments.prompt)
    if not template.demonstrations:
        return {"prompt": template}
    source = arguments.demonstrations or getattr(arguments, "questions", None) or corpus.name
    if arguments.demonstrations is None and source not in miniwiki.NAMES:
        raise InputError(
            "The prompt has demonstrations; name the questions to draw them from with "
            "--demonstrations."
        )
    drawn = draw_demonstrations(
        list(load_questions(source, "train" if source in miniwiki.NAMES else None)),
        corpus,
        template.demonstrations,
        getattr(arguments, "seed", 0),
        asked,
    )
    return {"prompt": template, "demonstrations": drawn}


def reading_of(arguments: argparse.Namespace) -> Reading:
    """How --format, --columns, --split and --overlap say that passages are read."""
    from ragbook.corpus.readers import Reading
    from ragbook.corpus.splitting import parse_split

    cut, overlap = arguments.cut, arguments.overlap
    split = None if cut is None and not overlap else parse_split(cut or "words", overlap)
    named = arguments.columns or {}
    columns = {part: named[part] for part in ("id", "title", "text") if part in named}
    return Reading(arguments.format, columns, split)


def load_passages(arguments: argparse.Namespace, name: str) -> Corpus:
    """The corpus of that name or path, read as the options say."""
    from ragbook.corpus import Corpus, miniwiki, readers

    reading = reading_of(arguments)
    if name in miniwiki.NAMES:
        if reading != readers.Reading():
            raise InputError(
                f"{name} is read in one way; leave --format, --columns, --split and --overlap out."
            )
        return readers.load_corpus(name)
    source = readers.open_passages(name, reading, say)
    return Corpus(source.name, _counted(source), source.documents)


def _counted(source: PassageSource) -> Iterator[Passage]:
    """The passages of a source, with a progress bar on a terminal if they take a while."""
    from tqdm import tqdm

    name = printable(source.name)
    yield from tqdm(source.passages(), f"reading {name}", unit="passage", delay=2, disable=None)


def load_asked(arguments: argparse.Namespace, split: str | None) -> QuestionSet:
    """The questions of --questions, read as the options say."""
    from ragbook.corpus import load_questions

    if arguments.questions == arguments.corpus == "-":
        raise InputError("Standard input can be passages or questions, not both; name a file.")
    named = arguments.columns or {}
    columns = {part: named[part] for part in ("question", "answers", "gold") if part in named}
    if "question-id" in named:
        columns["id"] = named["question-id"]
    return load_questions(arguments.questions, split, arguments.questions_format, columns, told=say)


def asked_of(
    arguments: argparse.Namespace, questions: QuestionSet | None, corpus: Corpus
) -> QuestionSet:
    """The questions of --questions, or by default a bundled corpus's own; of these the first
    --limit.

    Raises
    ------
    InputError: none are named, and the corpus comes without.
    """
    from ragbook.corpus import load_questions, miniwiki

    if questions is None:
        if corpus.name not in miniwiki.NAMES:
            raise InputError(
                f"Corpus {corpus.name!r} comes without questions; name some with --questions."
            )
        questions = load_questions(corpus.name, arguments.split)
    return questions if arguments.limit is None else questions.head(arguments.limit)


def open_passages(arguments: argparse.Namespace) -> tuple[Corpus, PassageIndex | None]:
    """The corpus that --corpus or --index names (MiniWiki by default), and the index of --index."""
    if arguments.index is None:
        return load_passages(arguments, arguments.corpus or "miniwiki"), None
    from ragbook.index import PassageIndex

    index = PassageIndex.open(arguments.index, arguments.verify)
    if arguments.corpus is not None:
        corpus = load_passages(arguments, arguments.corpus)
        if corpus.sha256 != index.corpus.sha256:
            raise InputError(
                f"The index {arguments.index} holds {len(index):,} passages of "
                f"{index.corpus.name!r}, not the {len(corpus):,} of {corpus.name!r} that --corpus "
                "names; leave --corpus out or build an index of it."
            )
        index.corpus.documents = corpus.documents
    return index.corpus, index  # type: ignore[return-value]  # stored passages serve as a corpus


@contextmanager
def stored_corpus(arguments: argparse.Namespace) -> Iterator[Corpus | StoredPassages]:
    """The corpus of --corpus, from which the index --out is built. It is read as a stream and kept
    in a hidden folder beside --out until the index exists, so that all of Wikipedia need not fit
    into memory."""
    from ragbook.corpus import miniwiki, readers

    reading = reading_of(arguments)
    if arguments.corpus in miniwiki.NAMES:
        yield load_passages(arguments, arguments.corpus)
        return
    from ragbook.index.passages import spool
    from ragbook.index.working import beside

    source = readers.open_passages(arguments.corpus, reading, say)
    out = Path(os.path.abspath(arguments.out))
    folder = out.with_name(f".{out.name}.passages")
    try:
        stored = spool(folder, source.name, source.identity, _counted(source))
        stored.documents = source.documents
        yield stored
    except InputError:
        if (folder / "source.json").is_file() and not beside(out).exists():
            shutil.rmtree(folder)  # there is no build that could go on
        raise
    shutil.rmtree(folder)


def make_retriever(
    arguments: argparse.Namespace, corpus: Corpus, index: PassageIndex | None
) -> tuple[Retriever, PassageIndex | None]:
    """The retriever of --run or --retriever, and the index it searches, built and kept if
    needed."""
    if arguments.run_file is not None:
        from ragbook.retrieval import RunRetriever

        run = RunRetriever(corpus, arguments.run_file, score_scale=arguments.score_scale)
        return _reranked(arguments, [run])[0], index
    (retriever,), index = make_retrievers(arguments, [arguments.retriever], corpus, index)
    return retriever, index


def make_retrievers(
    arguments: argparse.Namespace, kinds: Sequence[str], corpus: Corpus, index: PassageIndex | None
) -> tuple[list[Retriever], PassageIndex | None]:
    """A retriever of each kind, which share what they have in common, and the index they search,
    built and kept if needed."""
    from ragbook import retrieval  # each retriever's libraries are imported with its name

    made: dict[str, Retriever] = {}
    if {"bm25", "hybrid"} & set(kinds):
        made["bm25"] = retrieval.BM25Retriever(corpus, None if index is None else index.path)
    if {"dense", "hybrid", "oracle"} & set(kinds):
        encoder = load_encoder(arguments, index)
        if index is None:
            from ragbook.index import build_index
            from ragbook.index.index import encoder_record
            from ragbook.index.manifest import short_name

            name = f"index-{corpus.sha256[:16]}-{short_name(encoder_record(encoder))}"
            # The cache holds nothing that cannot be built again, so a damaged index is replaced.
            index = build_index(corpus, cache_folder() / name, encoder, overwrite=True)
        made["dense"] = retrieval.DenseRetriever(index, encoder)
    if "hybrid" in kinds:
        made["hybrid"] = retrieval.HybridRetriever(made["dense"], made["bm25"])
    if "oracle" in kinds:
        made["oracle"] = retrieval.OracleRetriever(corpus, made["dense"])
    return _reranked(arguments, [made[kind] for kind in kinds]), index


def _reranked(arguments: argparse.Namespace, retrievers: list[Retriever]) -> list[Retriever]:
    """The retrievers, their passages in the order of --reranker if there is one."""
    if arguments.reranker is None:
        return retrievers
    from ragbook.models.cross_encoder import load_cross_encoder
    from ragbook.retrieval import RerankedRetriever

    device, precision = device_and_precision(arguments)
    reranker = load_cross_encoder(arguments.reranker, device=device, precision=precision)
    return [RerankedRetriever(each, reranker, arguments.rerank) for each in retrievers]


def run_of(retriever: Retriever) -> RunRetriever | None:
    """The retriever of --run, or the one whose passages are reranked; None for another kind."""
    from ragbook.retrieval import RunRetriever

    first = next(iter(getattr(retriever, "retrievers", ())), None)
    return next((one for one in (retriever, first) if isinstance(one, RunRetriever)), None)


def served_by(retriever: Retriever, questions: QuestionSet, otherwise: str) -> QuestionSet:
    """The questions for which a retriever has passages: all of them, or those for which the run of
    --run ranks passages of the corpus, and then numbered. Standard error counts the others, with
    what becomes of them, and the passages that the corpus does not have.

    Raises
    ------
    InputError: the run serves none of the questions.
    """
    from ragbook.corpus import QuestionSet

    run = run_of(retriever)
    if run is None:
        return questions
    name, questions = run.name, questions.numbered()
    served = [question for question in questions if run.serves(question)]
    if not served:
        raise InputError(
            f"The run {name!r} has passages for none of the {len(questions):,} questions, such as "
            f"the one with the id {questions[0].id!r}; the first question of the run has the id "
            f"{next(iter(run.run))!r}: name the questions that belong to it."
        )
    if lacking := len(questions) - len(served):
        say(f"the run {name!r} has no passages for {lacking:,} of the questions; {otherwise}.")
    if run.unknown:
        say(
            f"{run.unknown:,} passages of the run {name!r} are not in corpus "
            f"{run.corpus.name!r} and are left out."
        )
    return QuestionSet(questions.name, questions.split, served, questions.skipped)


CONVENTIONS = ("pooling", "query_encoder", "similarity", "query_prompt", "passage_prompt")
"""The options that say how an encoder is used."""


def load_encoder(arguments: argparse.Namespace, index: PassageIndex | None = None) -> Encoder:
    """The encoder of --encoder and its options; by default the one that built the index, used in
    the same way, or `minilm`."""
    from ragbook.models import load_encoder
    from ragbook.models.embedded import MINILM_ID
    from ragbook.models.unfilled import unfilled

    how = {key: getattr(arguments, key) for key in CONVENTIONS}
    name = arguments.encoder
    if name is None and index is not None:
        built = index.manifest["encoder"]
        name = built["id"]
        prompts = {f"{role}_prompt": text for role, text in built.get("prompts", {}).items()}
        for key, value in ({key: built.get(key) for key in CONVENTIONS} | prompts).items():
            how[key] = value if how[key] is None else how[key]
    given = {key: value for key, value in how.items() if value is not None}
    if name in (None, "minilm", MINILM_ID) and "query_encoder" not in given:
        with unfilled():
            return load_encoder("minilm", **given)
    return load_encoder(name or "minilm", **given)


def load_language_model(arguments: argparse.Namespace) -> LanguageModel:
    """The model of --lm, where --device says and in the precision of --precision; its hash is that
    of its own weights."""
    device, precision = device_and_precision(arguments)  # refuse a wrong one before it is loaded
    from ragbook.models import load_language_model
    from ragbook.models.devices import placed_copy

    lm = load_language_model(arguments.lm)
    if (device, precision) == ("cpu", "float32"):  # where and how it was loaded
        return lm
    _ = lm.sha256  # taken now: rounded weights would have another
    return placed_copy(lm, [lm.model], device, precision)


def device_and_precision(arguments: argparse.Namespace) -> tuple[str, str]:
    """The names of the device and the number format that --device and --precision choose. If the
    device is slow at a format that was asked for by name, standard error says so.

    Raises
    ------
    InputError: there is no such device here.
    """
    from ragbook.models import devices

    device = devices.choose_device(arguments.device)
    dtype = devices.choose_precision(arguments.precision, device)
    if (told := devices.warning(dtype, device)) is not None:
        print(f"ragbook: {told}", file=sys.stderr)
    return str(device), devices.name_of(dtype)


def read_text(path: Path) -> str:
    """A text file's content; InputError if it is missing, empty or not UTF-8."""
    from ragbook.corpus import files

    text = files.read_text(path)
    if not text.strip():
        raise InputError(f"{path} has no text; give a file with some.")
    return text

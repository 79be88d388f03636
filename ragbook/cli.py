"""The command line. It parses, calls, prints; every command imports what it needs when it runs.

Status: 0 done, 1 `index verify` found damage, 2 bad input (one sentence on standard error), 130
interrupted, 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ragbook import __version__
from ragbook.errors import InputError

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.index import PassageIndex
    from ragbook.models import Encoder
    from ragbook.retrieval import Retriever

OK, DAMAGED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status. `argv` is the command line without the program's name."""
    # The models' libraries say what they do; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without † must not end the run
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except InputError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        if not error.filename:  # it may be standard output, on a full disk
            _discard_output()
        reason = error.strerror or str(error)
        return _refuse(f"{error.filename}: {reason}." if error.filename else f"{reason}.")
    except ModuleNotFoundError as error:
        if (error.name or "ragbook").split(".")[0] == "ragbook":
            raise
        return _refuse(
            f"The package {error.name} is missing; `ragbook doctor` lists what is there."
        )
    except KeyboardInterrupt:
        print("ragbook: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit:  # --help and --version have printed what they have to say
        return OK
    return arguments.run(arguments)


def _discard_output() -> None:
    """Python flushes standard output once more at its exit, where that must not fail again."""
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(sentence: str) -> int:
    print(f"ragbook: {' '.join(sentence.splitlines())}", file=sys.stderr)
    return BAD_INPUT


# --- the commands ---------------------------------------------------------------------------------


def _compare(arguments: argparse.Namespace) -> int:
    from ragbook import evaluation, methods
    from ragbook.corpus import load_questions, miniwiki

    names = _method_names(arguments.methods)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)  # found out now, not after an hour
    corpus, index = _passages(arguments)
    source = arguments.questions
    if source is None:
        if corpus.name not in miniwiki.NAMES:
            raise InputError(
                f"Corpus {corpus.name!r} has no questions of its own; name some with --questions."
            )
        source = corpus.name
    questions = load_questions(source, arguments.split)
    if arguments.limit is not None:
        questions = questions.head(arguments.limit)
    retriever, index = _retriever(arguments, corpus, index)
    comparison = evaluation.compare(
        methods.load(names, retriever, not arguments.free, arguments.reader),
        questions,
        k=arguments.k,
        seed=arguments.seed,
        index=index,
    )
    if arguments.json:
        _print_json(comparison.results)
    else:
        _print_rich(comparison.table())
    if arguments.out is not None:
        from ragbook import figures

        comparison.save(arguments.out)
        figures.side_by_side(comparison.results).save(arguments.out / "side_by_side.png")
        if not arguments.json:
            print(f"saved in {arguments.out}")
    return OK


def _ask(arguments: argparse.Namespace) -> int:
    from ragbook import methods
    from ragbook.corpus import Question

    names = _method_names(arguments.method)
    corpus, index = _passages(arguments)
    retriever, _ = _retriever(arguments, corpus, index)
    question = Question(arguments.question, ())
    answers = {
        method.name: method.answer([question], arguments.k)[0]
        for method in methods.load(names, retriever, not arguments.free, arguments.reader)
    }
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
        _print_json({"question": question.text, "methods": entries})
        return OK
    width = shutil.get_terminal_size().columns
    for name, answer in answers.items():
        print(f"{name:<14} {answer.text}   (log p = {answer.log_prob:.2f})")
        for each in answer.evidence:
            passage = corpus.get(each.passage_id)
            line = f"{passage.title} ({passage.id}): {passage.text}"
            shown = textwrap.shorten(line, max(width - 24, 40), placeholder=" …")
            print(f"{'':<15}{each.weight:.3f}  {shown}")
    return OK


def _index_build(arguments: argparse.Namespace) -> int:
    from ragbook.corpus import load_corpus
    from ragbook.index import build_index

    corpus = load_corpus(arguments.corpus)
    index = build_index(
        corpus, arguments.out, _load_encoder(arguments.encoder), overwrite=arguments.overwrite
    )
    print(f"{arguments.out}: {len(index):,} passages of {index.corpus.name}, digest {index.digest}")
    return OK


def _index_info(arguments: argparse.Namespace) -> int:
    from ragbook.index import PassageIndex

    index = PassageIndex.open(arguments.folder)
    manifest = index.manifest
    if arguments.json:
        _print_json({"digest": index.digest, **manifest})
        return OK
    corpus, encoder, kind = manifest["corpus"], manifest["encoder"], manifest["index"]
    _print_pairs(
        [
            ("corpus", f"{corpus['name']}, {corpus['passages']:,} passages"),
            ("corpus SHA-256", corpus["sha256"]),
            ("encoder", f"{encoder['id']}, {encoder['pooling']} pooling"),
            ("encoder SHA-256", encoder["sha256"]),
            ("vectors", f"{encoder['dimension']} dimensions, {encoder['metric']}"),
            ("index", " ".join([kind["type"], *map(str, kind["parameters"].items())])),
            *((name, f"{file['bytes']:,} bytes") for name, file in manifest["files"].items()),
            ("digest", index.digest),
        ]
    )
    return OK


def _index_verify(arguments: argparse.Namespace) -> int:
    from ragbook.index import verify

    problems = verify(arguments.folder)
    if arguments.json:
        _print_json({"whole": not problems, "problems": problems})
    else:
        print("\n".join(problems) or f"{arguments.folder} is whole")
    return DAMAGED if problems else OK


def _index_search(arguments: argparse.Namespace) -> int:
    from ragbook.corpus import Question
    from ragbook.index import PassageIndex
    from ragbook.retrieval import DenseRetriever

    index = PassageIndex.open(arguments.folder)
    encoder = _load_encoder(arguments.encoder or index.manifest["encoder"]["id"])
    retriever = DenseRetriever(index, encoder)
    (found,) = retriever.retrieve([Question(arguments.query, ())], arguments.k)
    rows = list(zip(found.passages, found.scores.tolist(), strict=True))
    if arguments.json:
        _print_json([{"passage_id": p.id, "title": p.title, "score": score} for p, score in rows])
    else:
        for passage, score in rows:
            print(f"{score:8.4f}  {passage.title} ({passage.id})")
    return OK


def _perplexity(arguments: argparse.Namespace) -> int:
    from ragbook.corpus import miniwiki
    from ragbook.evaluation.perplexity import perplexity

    corpus, _ = _passages(arguments)
    if arguments.text is None:
        documents = [
            "\n".join(passage.text for passage in article.passages)
            for article in miniwiki.heldout("test")
        ]
    else:
        documents = [_read_text(arguments.text)]
    options = {} if arguments.k is None else {"k": arguments.k}
    found = perplexity(documents, corpus, progress=True, **options)
    if arguments.json:
        _print_json(found)
    else:
        print(f"{'':<12}{'perplexity':>12}{'tokens':>10}")
        for name, entry in found.items():
            print(f"{name:<12}{entry['perplexity']:>12.3f}{entry['tokens']:>10,}")
    return OK


def _corpus_build(arguments: argparse.Namespace) -> int:
    from ragbook.corpus import read_passages
    from ragbook.corpus.building import split_passages, write_passages_jsonl

    if arguments.source.name.lower().endswith((".xml", ".xml.bz2", ".xml.gz", ".xml.7z")):
        raise InputError(
            f"{arguments.source} is a MediaWiki dump, which this version does not read; give "
            "passages or articles as TSV (id, text, title) or JSON lines (id, title, text)."
        )
    if arguments.out.exists() and not arguments.overwrite:
        raise InputError(f"{arguments.out} exists; choose another file or give --overwrite.")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    count = write_passages_jsonl(arguments.out, split_passages(read_passages(arguments.source)))
    print(f"{arguments.out}: {count:,} passages")
    return OK


def _corpus_info(arguments: argparse.Namespace) -> int:
    from ragbook.corpus import load_corpus

    corpus = load_corpus(arguments.corpus)
    lengths = sorted(len(passage.text.split()) for passage in corpus)
    info = {
        "name": corpus.name,
        "passages": len(corpus),
        "titles": len({passage.title for passage in corpus}),
        "words": sum(lengths),
        "words_per_passage": {
            "shortest": lengths[0],
            "median": lengths[len(lengths) // 2],
            "longest": lengths[-1],
        },
        "sha256": corpus.sha256,
    }
    if arguments.json:
        _print_json(info)
        return OK
    of_passage = ", ".join(f"{key} {value}" for key, value in info["words_per_passage"].items())
    _print_pairs(
        [
            ("name", info["name"]),
            ("passages", f"{info['passages']:,} of {info['titles']:,} titles"),
            ("words", f"{info['words']:,} ({of_passage})"),
            ("SHA-256", info["sha256"]),
        ]
    )
    return OK


def _datastore_build(arguments: argparse.Namespace) -> int:
    from ragbook.index.datastore import build_datastore
    from ragbook.models import load_lm

    corpus, _ = _passages(arguments)
    build_datastore(corpus, arguments.out, load_lm(arguments.lm), progress=True)
    print(f"{arguments.out}: the datastore of {corpus.name}")
    return OK


def _datastore_info(arguments: argparse.Namespace) -> int:
    from ragbook.index.datastore import Datastore

    manifest = Datastore.open(arguments.folder).manifest
    if arguments.json:
        _print_json(manifest)
    else:
        _print_pairs(_flat(manifest))
    return OK


def _train(arguments: argparse.Namespace) -> int:
    from ragbook.training import RECIPES

    if arguments.name not in RECIPES:
        raise InputError(f"There is no recipe {arguments.name!r}; there are {', '.join(RECIPES)}.")
    options = {name: getattr(arguments, name) for name in ("out", "steps", "seed", "resume")}
    if (arguments.corpus is None) != (arguments.questions is None):
        raise InputError("To go on with passages and questions, name --corpus and --questions.")
    if arguments.corpus is not None:
        from ragbook.corpus import load_corpus, load_questions

        corpus = load_corpus(arguments.corpus)
        options["own"] = (corpus, load_questions(arguments.questions, "train"))
    RECIPES[arguments.name](**{name: value for name, value in options.items() if value is not None})
    return OK


def _export(arguments: argparse.Namespace) -> int:
    from ragbook.models.export import export

    export(arguments.name, arguments.out, arguments.reader)
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    from ragbook import doctor

    report = doctor.examine(_cache())
    if arguments.json:
        _print_json(report)
        return OK
    for heading, entries in report.items():
        print(heading)
        _print_pairs(
            ((name, "missing" if value is None else value) for name, value in entries.items()), "  "
        )
    return OK


# --- what commands share --------------------------------------------------------------------------


def _method_names(wanted: Sequence[str] | None) -> list[str]:
    """The methods asked for, all of them by default; InputError for a name that is none."""
    from ragbook.methods import NAMES, check_names

    names = list(wanted or NAMES)
    check_names(names)
    return names


def _passages(arguments: argparse.Namespace) -> tuple[Corpus, PassageIndex | None]:
    """The corpus that --corpus and --index name (MiniWiki by default), and --index opened."""
    from ragbook.corpus import load_corpus

    if arguments.index is None:
        return load_corpus(arguments.corpus or "miniwiki"), None
    from ragbook.index import PassageIndex

    index = PassageIndex.open(arguments.index)
    if arguments.corpus is not None:
        corpus = load_corpus(arguments.corpus)
        if corpus.sha256 != index.corpus.sha256:
            raise InputError(
                f"The index {arguments.index} holds {len(index):,} passages of "
                f"{index.corpus.name!r}, not the {len(corpus):,} of {corpus.name!r} that --corpus "
                "names; leave --corpus out or build an index of it."
            )
    return index.corpus, index  # type: ignore[return-value]  # stored passages stand for a corpus


def _retriever(
    arguments: argparse.Namespace, corpus: Corpus, index: PassageIndex | None
) -> tuple[Retriever, PassageIndex | None]:
    """The retriever of --retriever, and the index it searches (built once and kept, if need be)."""
    if arguments.retriever == "bm25":
        from ragbook.retrieval import BM25Retriever

        return BM25Retriever(corpus), index
    from ragbook.retrieval import DenseRetriever, HybridRetriever, OracleRetriever

    built_with = "minilm" if index is None else index.manifest["encoder"]["id"]
    encoder = _load_encoder(arguments.encoder or built_with)
    if index is None:
        from ragbook.index import build_index

        name = f"index-{corpus.sha256[:16]}-{encoder.sha256[:16]}"
        # In the cache nothing is anybody's work: a damaged index there is simply replaced.
        index = build_index(corpus, _cache() / name, encoder, overwrite=True)
    dense = DenseRetriever(index, encoder)
    if arguments.retriever == "hybrid":
        from ragbook.retrieval import BM25Retriever

        return HybridRetriever(dense, BM25Retriever(corpus)), index
    if arguments.retriever == "oracle":
        return OracleRetriever(corpus, dense), index
    return dense, index


def _load_encoder(name: str) -> Encoder:
    from ragbook.models import load_encoder

    return load_encoder(name)


def _cache() -> Path:
    """Where indexes that nobody gave a place are kept: RAGBOOK_CACHE, or ~/.cache/ragbook."""
    return Path(os.environ.get("RAGBOOK_CACHE") or Path.home() / ".cache" / "ragbook")


def _read_text(path: Path) -> str:
    """A text file's content; InputError if it is missing, empty or not UTF-8."""
    from ragbook.corpus.files import read_lines

    text = "".join(read_lines(path))
    if not text.strip():
        raise InputError(f"{path} has no text; give a file with some.")
    return text


def _finite(value: Any) -> Any:
    """`value` with None for the numbers that JSON does not have (log 0 is one)."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_json(value: Any) -> None:
    print(json.dumps(_finite(value), indent=2, allow_nan=False))


def _print_rich(table: Any) -> None:
    from rich.console import Console

    # A file or a pipe has no width to fit into.
    console = Console(width=None if sys.stdout.isatty() else 200)
    with console.capture() as capture:
        console.print(table)
    print(capture.get(), end="")


def _print_pairs(pairs: Iterable[tuple[str, Any]], indent: str = "") -> None:
    rows = list(pairs)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{indent}{name:<{width}}  {value}")


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested dictionaries with dotted names."""
    rows: list[tuple[str, Any]] = []
    for key, each in value.items():
        rows += _flat(each, f"{prefix}{key}.") if isinstance(each, dict) else [(prefix + key, each)]
    return rows


# --- the parser -----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Bad usage is bad input like any other: one sentence, no page of usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"it must be {least} or more, not {value}")
        return value

    return number


def _words(text: str) -> str:
    """A question or query: any text with something in it."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give it some words")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not valid UTF-8") from None
    return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different names, a,b,c")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ragbook",
        description="One passage index, five ways to use it: kNN-LM, REALM, RAG-Sequence, "
        "RAG-Token and FiD, beside the same reader without passages.",
    )
    parser.add_argument("--version", action="version", version=f"ragbook {__version__}")
    commands = _commands(parser)

    command = _command(commands, "compare", _compare, "every method on one index, side by side")
    _add_passages(command)
    _add_retriever(command, ["dense", "bm25", "hybrid", "oracle"])
    command.add_argument(
        "--questions", metavar="NAME_OR_PATH", help="questions (default: MiniWiki's, on MiniWiki)"
    )
    command.add_argument("--split", help="split of the questions, as train, dev or test (default)")
    command.add_argument("--methods", type=_names, metavar="A,B", help="methods (default: all)")
    _add_k(command)
    _add_reading(command)
    command.add_argument(
        "--limit", type=_at_least(1), metavar="N", help="only the first N questions"
    )
    command.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="seed of the resampling (default: 0)",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="save results, tables and figures here"
    )
    _add_json(command)

    command = _command(
        commands, "ask", _ask, "one question through every method, with its evidence"
    )
    command.add_argument("question", type=_words, metavar="QUESTION")
    command.add_argument(
        "--method", type=lambda name: [name], metavar="NAME", help="only this method"
    )
    _add_passages(command)
    _add_retriever(command, ["dense", "bm25", "hybrid"])
    _add_k(command)
    _add_reading(command)
    _add_json(command)

    group = _commands(_command(commands, "index", None, "the passage index"))
    command = _command(group, "build", _index_build, "encode a corpus and write its index")
    command.add_argument(
        "--corpus", required=True, metavar="NAME_OR_PATH", help="miniwiki, or a file"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the index"
    )
    command.add_argument("--encoder", default="minilm", metavar="NAME", help="(default: minilm)")
    command.add_argument(
        "--overwrite", action="store_true", help="replace an index that stands there"
    )
    command = _command(group, "info", _index_info, "what an index holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)
    command = _command(
        group,
        "verify",
        _index_verify,
        "check every byte: status 0 whole, 1 damaged, 2 not an index",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)
    command = _command(group, "search", _index_search, "the passages nearest to a query")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("query", type=_words, metavar="QUERY")
    command.add_argument(
        "--encoder", metavar="NAME", help="(default: the one that built the index)"
    )
    _add_k(command)
    _add_json(command)

    command = _command(
        commands, "perplexity", _perplexity, "base model, kNN-LM and in-context retrieval on a text"
    )
    command.add_argument(
        "--text", type=Path, metavar="FILE", help="(default: MiniWiki's held-out text)"
    )
    _add_passages(command)
    _add_k(command, None, "neighbours of each token (default: kNN-LM's)")
    _add_json(command)

    group = _commands(_command(commands, "corpus", None, "passages"))
    command = _command(
        group, "build", _corpus_build, "TSV or JSON lines to passages of at most 100 words"
    )
    command.add_argument("source", type=Path, metavar="SOURCE", help=".tsv or .jsonl, plain or .gz")
    command.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help=".jsonl or .jsonl.gz"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace a file that stands there"
    )
    command = _command(group, "info", _corpus_info, "what a corpus holds")
    command.add_argument("corpus", metavar="NAME_OR_PATH")
    _add_json(command)

    group = _commands(_command(commands, "datastore", None, "the kNN-LM datastore"))
    command = _command(
        group, "build", _datastore_build, "store a language model's states over a corpus"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the datastore"
    )
    command.add_argument(
        "--lm", default="bundled", metavar="NAME", help="(default: the bundled one)"
    )
    _add_passages(command)
    command = _command(group, "info", _datastore_info, "what a datastore holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)

    command = _command(
        commands,
        "train",
        _train,
        "train a bundled model, reader (realm, rag, fid) or lm; readers also on questions of one's "
        "own, from the bundled ones",
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("--corpus", metavar="NAME_OR_PATH", help="passages to go on with")
    command.add_argument(
        "--questions", metavar="NAME_OR_PATH", help="questions to go on with, gold passages named"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the weights"
    )
    command.add_argument("--steps", type=_at_least(1), metavar="N", help="(default: the recipe's)")
    command.add_argument("--seed", type=_at_least(0), metavar="N", help="(default: the recipe's)")
    command.add_argument("--resume", action="store_true", help="go on from what is in --out")

    command = _command(
        commands,
        "export",
        _export,
        "write a reader (reader, rag-sequence, rag-token, fid, realm) or lm as a whole checkpoint "
        "for from_pretrained",
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    _add_reader(command)

    command = _command(
        commands, "doctor", _doctor, "what is installed, at hand, or would need a download"
    )
    _add_json(command)
    return parser


def _commands(parser: argparse.ArgumentParser) -> Any:
    return parser.add_subparsers(required=True, metavar="COMMAND", dest="command")


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:])
    command.set_defaults(run=run)
    return command


def _add_passages(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--corpus", metavar="NAME_OR_PATH", help="miniwiki or a passage file (default: the index's)"
    )
    command.add_argument(
        "--index", type=Path, metavar="DIR", help="index folder (default: one built once and kept)"
    )


def _add_retriever(command: argparse.ArgumentParser, names: list[str]) -> None:
    command.add_argument("--retriever", choices=names, default="dense", help="(default: dense)")
    command.add_argument("--encoder", metavar="NAME", help="(default: the index's, or minilm)")


def _add_k(
    command: argparse.ArgumentParser,
    default: int | None = 5,
    what: str = "passages retrieved (default: 5)",
) -> None:
    command.add_argument("--k", type=_at_least(1), default=default, metavar="N", help=what)


def _add_reader(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reader",
        default="bundled",
        metavar="DIR",
        help="readers that `ragbook train reader` wrote (default: the bundled ones)",
    )


def _add_reading(command: argparse.ArgumentParser) -> None:
    _add_reader(command)
    command.add_argument(
        "--free",
        action="store_true",
        help="let generative methods write freely (default: runs of words of the passages)",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


if __name__ == "__main__":
    sys.exit(main())

"""The commands and their options, and checks of the options' values."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from ragbook.cli import commands
from ragbook.cli.completion import SHELLS, PrintCompletion
from ragbook.errors import InputError
from ragbook.machine import DEVICES, PRECISIONS
from ragbook.training import RECIPES
from ragbook.version import __version__


class _Parser(argparse.ArgumentParser):
    """A parser that reports bad usage as other bad input: in one sentence, without a usage text."""

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


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"it must be more than 0, not {text}")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"it must be from 0 to 1, not {text}")
    return value


def _words(text: str) -> str:
    """A question or query: any text that is not blank."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give it some words")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not valid UTF-8; write it in UTF-8") from None
    return text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different names, as in a,b,c")
    return names


def new_parser() -> argparse.ArgumentParser:
    """The parser of all commands and options; it stores the command's function as `run`."""
    parser = _Parser(
        prog="ragbook",
        description="One passage index, five ways to use it: kNN-LM, REALM, RAG-Sequence, "
        "RAG-Token and FiD, compared with the same reader without passages.",
    )
    parser.add_argument("--version", action="version", version=f"ragbook {__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help=f"print the completion script of a shell: {', '.join(SHELLS)}",
    )
    top = _subcommands(parser)

    command = _command(top, "compare", commands.compare, "compare the methods on one index")
    _add_passages(command)
    _add_retriever(command, ["dense", "bm25", "hybrid", "oracle"])
    command.add_argument(
        "--questions", metavar="NAME_OR_PATH", help="questions (default on MiniWiki: MiniWiki's)"
    )
    command.add_argument("--split", help="split of the questions: train, dev or test (default)")
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
        "--out",
        type=Path,
        metavar="DIR",
        help="save results, tables, figures and the explorer here",
    )
    _add_json(command)

    command = _command(
        top, "ask", commands.ask, "ask all methods one question; shows their evidence too"
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

    group = _subcommands(_command(top, "index", None, "build, check and search a passage index"))
    command = _command(group, "build", commands.index_build, "encode a corpus and write its index")
    command.add_argument(
        "--corpus", required=True, metavar="NAME_OR_PATH", help="miniwiki, or a file"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the index"
    )
    _add_encoder(command, "(default: minilm)")
    command.add_argument("--overwrite", action="store_true", help="replace an existing index")
    command.add_argument(
        "--factory",
        metavar="STRING",
        help="kind of index, as Faiss's factory string (default: Flat, which is exact)",
    )
    command.add_argument(
        "--budget", metavar="SIZE", help="memory for the index, such as 8GB; chooses its kind"
    )
    command.add_argument(
        "--parts", type=_at_least(1), default=1, metavar="N", help="index files (default: 1)"
    )
    command.add_argument(
        "--workers",
        type=_at_least(1),
        default=1,
        metavar="N",
        help="processes that encode (default: 1)",
    )
    command.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="where the workers run: on this machine, or on a Ray cluster that shares its disk "
        "(default: local)",
    )
    _add_device(command, "float32")
    command = _command(group, "info", commands.index_info, "show what an index holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)
    command = _command(
        group,
        "verify",
        commands.index_verify,
        "check every byte; the exit status is 0 if all are right, 1 if damaged, 2 if not an index",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)
    command = _command(group, "search", commands.index_search, "show the best passages for a query")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("query", type=_words, metavar="QUERY")
    _add_encoder(command, "(default: the one that built the index)")
    _add_device(command, "float32")
    _add_k(command)
    _add_json(command)

    command = _command(
        top,
        "perplexity",
        commands.perplexity,
        "measure base model, kNN-LM and in-context retrieval on a text",
    )
    command.add_argument(
        "--text", type=Path, metavar="FILE", help="(default: MiniWiki's held-out text)"
    )
    _add_passages(command)
    command.add_argument(
        "--datastore",
        type=Path,
        metavar="DIR",
        help="a datastore, whose passages are used as --corpus (default: one is built)",
    )
    _add_lm(command)
    command.add_argument(
        "--dev",
        type=Path,
        metavar="FILE",
        help="held-out text to tune lambda and temperature on (default for the bundled model: its "
        "own values, tuned on MiniWiki)",
    )
    command.add_argument(
        "--approximate",
        action="store_true",
        help="search the datastore's approximate index, and print the share of the exact "
        "neighbours that it finds",
    )
    _add_k(command, None, "neighbours of each token (default: kNN-LM's)")
    _add_json(command)

    group = _subcommands(_command(top, "corpus", None, "build and describe passage files"))
    command = _command(
        group,
        "build",
        commands.corpus_build,
        "cut a Wikipedia dump, TSV, JSON lines or data set into passages of at most 100 words; a "
        "killed build goes on where it was",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a file .xml, .xml.bz2 (MediaWiki), .tsv or .jsonl, plain or .gz; the https address "
        "of one, which is kept in RAGBOOK_CACHE; or hf:NAME:CONFIGURATION for a Hugging Face data "
        "set",
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help=".jsonl or .jsonl.gz"
    )
    command.add_argument(
        "--checksum", metavar="ALGORITHM:HEX", help="checksum of the file, as sha256:0123...ef"
    )
    command.add_argument(
        "--processes", type=_at_least(1), default=1, metavar="N", help="for a dump (default: 1)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    command = _command(group, "info", commands.corpus_info, "show what a corpus holds")
    command.add_argument("corpus", metavar="NAME_OR_PATH")
    _add_json(command)

    group = _subcommands(_command(top, "datastore", None, "build and search a kNN-LM datastore"))
    command = _command(
        group, "build", commands.datastore_build, "store a language model's states over a corpus"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the datastore"
    )
    _add_lm(command)
    command.add_argument(
        "--ivfpq", action="store_true", help="also train an approximate index of the keys"
    )
    _add_passages(command)
    command = _command(
        group,
        "verify",
        commands.datastore_verify,
        "check every byte; the exit status is 0 if all are right, 1 if damaged, 2 if no datastore",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)
    command = _command(
        group, "search", commands.datastore_search, "show the stored contexts nearest to a text"
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("text", type=_words, metavar="TEXT")
    _add_lm(command)
    _add_k(command, 10, "neighbours shown (default: 10)")
    _add_json(command)
    command = _command(group, "info", commands.datastore_info, "show what a datastore holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)

    command = _command(
        top,
        "train",
        commands.train,
        "train a model by its recipe; with --corpus and --questions on your own data, starting "
        "from trained models",
    )
    command.add_argument("name", metavar="NAME", help=f"recipe: {', '.join(RECIPES)}")
    command.add_argument("--corpus", metavar="NAME_OR_PATH", help="your own passages")
    command.add_argument(
        "--questions",
        metavar="NAME_OR_PATH",
        help="your own questions; the recipe reader needs their gold passages",
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the weights"
    )
    command.add_argument("--steps", type=_at_least(1), metavar="N", help="(default: the recipe's)")
    command.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="(default: 0)")
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    command.add_argument(
        "--similarity", choices=["cosine", "dot", "l2"], help="for dpr (default: the recipe's)"
    )
    command.add_argument(
        "--loss", choices=["cross-entropy", "hinge"], help="for dpr (default: cross-entropy)"
    )
    command.add_argument(
        "--reader", metavar="DIR", help="for distil: the reader to learn from (default: bundled)"
    )
    _add_encoder(command, "of dpr and distil: what is trained (default: minilm)", similarity=False)
    command.add_argument(
        "--background",
        action="store_true",
        default=None,
        help="for realm: build the new indexes in a second process while training goes on",
    )
    _add_device(command, "auto")

    command = _command(
        top,
        "export",
        commands.export,
        "write a model (reader, rag-sequence, rag-token, fid, realm or lm) as a checkpoint for "
        "`transformers`",
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    _add_reader(command)

    command = _command(
        top, "doctor", commands.doctor, "show what is installed, and what would need a download"
    )
    _add_json(command)
    return parser


def _subcommands(parser: argparse.ArgumentParser) -> Any:
    return parser.add_subparsers(required=True, metavar="COMMAND", dest="command")


def _command(group: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    command = group.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:])
    command.set_defaults(run=run)
    return command


def _add_passages(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--corpus",
        metavar="NAME_OR_PATH",
        help="miniwiki or a passage file (default: that of --index, or miniwiki)",
    )
    command.add_argument(
        "--index",
        type=Path,
        metavar="DIR",
        help="index folder (default: an index is built and kept for the next time)",
    )


def _add_retriever(command: argparse.ArgumentParser, names: list[str]) -> None:
    command.add_argument("--retriever", choices=names, default="dense", help="(default: dense)")
    _add_encoder(command, "(default: the index's, or minilm)")


def _add_encoder(command: argparse.ArgumentParser, what: str, similarity: bool = True) -> None:
    command.add_argument(
        "--encoder",
        metavar="NAME",
        help="minilm, a sentence-transformers, BERT-like or DPR model (folder or hub name), or a "
        f"folder that `ragbook train` wrote {what}",
    )
    command.add_argument(
        "--query-encoder", metavar="NAME", help="another model for questions (default: --encoder)"
    )
    command.add_argument(
        "--pooling",
        choices=["mean", "cls", "last"],
        help="pooling of a plain model's states (default: the model's own, or mean)",
    )
    if similarity:
        command.add_argument(
            "--similarity",
            choices=["cosine", "dot", "l2"],
            help="(default: the model's own, or cosine)",
        )
    for role in ("query", "passage"):
        command.add_argument(
            f"--{role}-prompt",
            metavar="TEXT",
            help=f"text before every {role}, such as '{role}: ' for E5 (default: the model's own)",
        )


def _add_k(
    command: argparse.ArgumentParser,
    default: int | None = 5,
    what: str = "passages retrieved (default: 5)",
) -> None:
    command.add_argument("--k", type=_at_least(1), default=default, metavar="N", help=what)


def _add_lm(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--lm",
        default="bundled",
        metavar="NAME",
        help="a causal language model: a folder, such as `ragbook train lm` writes, or a hub name "
        "(default: the bundled one)",
    )
    _add_device(command, "float32")


def _add_device(command: argparse.ArgumentParser, precision: str) -> None:
    command.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where it computes; auto: a GPU where there is one (default: auto)",
    )
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        help="number format of its matrix products; auto: bfloat16 where that is fast, else "
        f"float32 (default: {precision})",
    )


def _add_reader(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reader",
        default="bundled",
        metavar="NAME",
        help="readers that `ragbook train reader` or `rag` wrote, or any seq2seq or causal model, "
        "by folder or hub name (default: the bundled ones)",
    )


def _add_reading(command: argparse.ArgumentParser) -> None:
    _add_reader(command)
    command.add_argument(
        "--free",
        action="store_true",
        help="let generative methods write freely (default: answers are words of the passages)",
    )
    command.add_argument(
        "--lm",
        metavar="NAME",
        help="kNN-LM's language model (default: the reader if it is causal, else the bundled one)",
    )
    command.add_argument(
        "--lambda", type=_share, dest="lam", metavar="X", help="kNN-LM's weight of the neighbours"
    )
    command.add_argument(
        "--temperature", type=_positive, metavar="X", help="kNN-LM's, of the distances"
    )
    command.add_argument(
        "--prompt",
        metavar="NAME_OR_FILE",
        help="how a reader that is not bundled is asked: base, chat, t5, or a TOML file "
        "(default: what fits the model)",
    )
    command.add_argument(
        "--demonstrations",
        metavar="NAME_OR_PATH",
        help="questions that a prompt's demonstrations are drawn from (default: the train split of "
        "--questions)",
    )
    command.add_argument(
        "--beams", type=_at_least(1), default=2, metavar="N", help="of the search (default: 2)"
    )
    command.add_argument(
        "--max-length",
        type=_at_least(1),
        default=16,
        metavar="N",
        help="longest answer in tokens (default: 16)",
    )
    command.add_argument(
        "--length-penalty",
        type=_number,
        default=0.0,
        metavar="X",
        help="0 compares answers by log-probability, 1 by its mean over tokens (default: 0)",
    )
    command.add_argument(
        "--memory",
        default="1GiB",
        metavar="SIZE",
        help="of passages that a causal reader keeps between questions (default: 1GiB)",
    )
    _add_device(command, "float32")


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")

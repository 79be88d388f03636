"""The commands and their options, and what an option's value must look like."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from ragbook.cli import commands
from ragbook.cli.completion import SHELLS, PrintCompletion
from ragbook.errors import InputError
from ragbook.training import RECIPES
from ragbook.version import __version__


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


def new_parser() -> argparse.ArgumentParser:
    """Every command with its options; `run` of what it parses is the command's function."""
    parser = _Parser(
        prog="ragbook",
        description="One passage index, five ways to use it: kNN-LM, REALM, RAG-Sequence, "
        "RAG-Token and FiD, beside the same reader without passages.",
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

    command = _command(top, "compare", commands.compare, "every method on one index, side by side")
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
        "--out",
        type=Path,
        metavar="DIR",
        help="save results, tables, figures and the explorer here",
    )
    _add_json(command)

    command = _command(
        top, "ask", commands.ask, "one question through every method, with its evidence"
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

    group = _subcommands(_command(top, "index", None, "the passage index"))
    command = _command(group, "build", commands.index_build, "encode a corpus and write its index")
    command.add_argument(
        "--corpus", required=True, metavar="NAME_OR_PATH", help="miniwiki, or a file"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the index"
    )
    _add_encoder(command, "(default: minilm)")
    command.add_argument(
        "--overwrite", action="store_true", help="replace an index that stands there"
    )
    command.add_argument(
        "--factory",
        metavar="STRING",
        help="kind of index, as Faiss writes it (default: Flat, exact)",
    )
    command.add_argument(
        "--budget", metavar="SIZE", help="the kind of highest recall that fits, as into 8GB"
    )
    command.add_argument(
        "--parts", type=_at_least(1), default=1, metavar="N", help="files of the index (default: 1)"
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
        help="where the workers are: here, or on a Ray cluster with this disk (default: local)",
    )
    command.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="of the encoding; with cuda every worker has a GPU (default: cpu)",
    )
    command.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the encoding (default: float32)",
    )
    command = _command(group, "info", commands.index_info, "what an index holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)
    command = _command(
        group,
        "verify",
        commands.index_verify,
        "check every byte: status 0 whole, 1 damaged, 2 not an index",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)
    command = _command(group, "search", commands.index_search, "the passages nearest to a query")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("query", type=_words, metavar="QUERY")
    _add_encoder(command, "(default: the one that built the index)")
    _add_k(command)
    _add_json(command)

    command = _command(
        top,
        "perplexity",
        commands.perplexity,
        "base model, kNN-LM and in-context retrieval on a text",
    )
    command.add_argument(
        "--text", type=Path, metavar="FILE", help="(default: MiniWiki's held-out text)"
    )
    _add_passages(command)
    command.add_argument(
        "--datastore",
        type=Path,
        metavar="DIR",
        help="a datastore, whose passages then stand for --corpus (default: one is built)",
    )
    _add_lm(command)
    command.add_argument(
        "--dev",
        type=Path,
        metavar="FILE",
        help="held-out text that lambda and temperature are tuned on (default: the bundled "
        "model's, tuned on MiniWiki's)",
    )
    command.add_argument(
        "--approximate",
        action="store_true",
        help="search the datastore's approximate index, and say what share of the neighbours it "
        "finds",
    )
    _add_k(command, None, "neighbours of each token (default: kNN-LM's)")
    _add_json(command)

    group = _subcommands(_command(top, "corpus", None, "passages"))
    command = _command(
        group,
        "build",
        commands.corpus_build,
        "a Wikipedia dump, TSV, JSON lines or data set to passages of at most 100 words; what was "
        "killed goes on where it was",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help=".xml, .xml.bz2 (MediaWiki), .tsv or .jsonl, plain or .gz; the https address of one, "
        "which is then kept in RAGBOOK_CACHE; or hf:NAME:CONFIGURATION of Hugging Face data sets",
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help=".jsonl or .jsonl.gz"
    )
    command.add_argument(
        "--checksum", metavar="ALGORITHM:HEX", help="of the source's file, as sha256:0123...ef"
    )
    command.add_argument(
        "--processes", type=_at_least(1), default=1, metavar="N", help="of a dump (default: 1)"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace a file that stands there"
    )
    command = _command(group, "info", commands.corpus_info, "what a corpus holds")
    command.add_argument("corpus", metavar="NAME_OR_PATH")
    _add_json(command)

    group = _subcommands(_command(top, "datastore", None, "the kNN-LM datastore"))
    command = _command(
        group, "build", commands.datastore_build, "store a language model's states over a corpus"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the datastore"
    )
    _add_lm(command)
    command.add_argument(
        "--ivfpq", action="store_true", help="train an approximate index of the keys as well"
    )
    _add_passages(command)
    command = _command(
        group, "verify", commands.datastore_verify, "exit 0 whole, 1 damaged, 2 no datastore"
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)
    command = _command(
        group, "search", commands.datastore_search, "which stored contexts say what comes next"
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("text", type=_words, metavar="TEXT")
    _add_lm(command)
    _add_k(command, 10, "neighbours shown (default: 10)")
    _add_json(command)
    command = _command(group, "info", commands.datastore_info, "what a datastore holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    _add_json(command)

    command = _command(
        top,
        "train",
        commands.train,
        "train a model by its recipe; readers and encoders (dpr, distil, realm) also on passages "
        "and questions of one's own, from the bundled ones",
    )
    command.add_argument("name", metavar="NAME", help=f"recipe: {', '.join(RECIPES)}")
    command.add_argument("--corpus", metavar="NAME_OR_PATH", help="passages to go on with")
    command.add_argument(
        "--questions",
        metavar="NAME_OR_PATH",
        help="questions to go on with; readers need gold passages named",
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the weights"
    )
    command.add_argument("--steps", type=_at_least(1), metavar="N", help="(default: the recipe's)")
    command.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="(default: 0)")
    command.add_argument("--resume", action="store_true", help="go on from what is in --out")
    command.add_argument(
        "--similarity", choices=["cosine", "dot", "l2"], help="of dpr (default: the recipe's)"
    )
    command.add_argument(
        "--loss", choices=["cross-entropy", "hinge"], help="of dpr (default: cross-entropy)"
    )
    command.add_argument(
        "--reader", metavar="DIR", help="of distil: who teaches (default: the bundled one)"
    )
    _add_encoder(command, "of dpr and distil: what is trained (default: minilm)", similarity=False)
    command.add_argument(
        "--background",
        action="store_true",
        default=None,
        help="of realm: a second process builds the new indexes while training goes on",
    )

    command = _command(
        top,
        "export",
        commands.export,
        "write a reader (reader, rag-sequence, rag-token, fid, realm) or lm as a whole checkpoint "
        "for from_pretrained",
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    _add_reader(command)

    command = _command(
        top, "doctor", commands.doctor, "what is installed, at hand, or would need a download"
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
        "--corpus", metavar="NAME_OR_PATH", help="miniwiki or a passage file (default: the index's)"
    )
    command.add_argument(
        "--index", type=Path, metavar="DIR", help="index folder (default: one built once and kept)"
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
        help="of a plain model's states (default: what the model says, or mean)",
    )
    if similarity:
        command.add_argument(
            "--similarity",
            choices=["cosine", "dot", "l2"],
            help="(default: what the model says, or cosine)",
        )
    for role in ("query", "passage"):
        command.add_argument(
            f"--{role}-prompt",
            metavar="TEXT",
            help=f"before every {role}, as '{role}: ' for E5 (default: what the model says)",
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
        help="a causal language model: a folder, as `ragbook train lm` writes, or a hub name "
        "(default: the bundled one)",
    )
    command.add_argument(
        "--device", default="cpu", metavar="NAME", help="where it runs, as cuda (default: cpu)"
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
        help="let generative methods write freely (default: runs of words of the passages)",
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
    command.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="where models compute (default: auto)",
    )
    command.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="float32",
        help="how precisely; auto is bfloat16 where that is fast (default: float32)",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")

"""The commands and their options, and checks of the options' values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from ragbook.cli import commands, ranking, results
from ragbook.cli.completion import SHELLS, PrintCompletion
from ragbook.cli.options import (
    add_corpus,
    add_device,
    add_encoder,
    add_interpolation,
    add_json,
    add_k,
    add_layout,
    add_lm,
    add_measures,
    add_passages,
    add_reader,
    add_reading,
    add_retriever,
    add_verify,
    at_least,
    names,
    words,
)
from ragbook.cli.results import FORMS, LISTED
from ragbook.errors import InputError
from ragbook.training import RECIPES
from ragbook.version import __version__


class _Parser(argparse.ArgumentParser):
    """A parser that reports bad usage as other bad input: in one sentence, without a usage text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


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
    command.add_argument(
        "--seed",
        type=at_least(0),
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

    command = _command(
        top,
        "results",
        results.results,
        "print a comparison that `compare --out` stored, or write it in another form",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument(
        "--format",
        choices=FORMS,
        help="squad, kilt: predictions for these evaluation scripts, a file for each method; csv: "
        "a row for each question and method, exactly as answered (import it into spreadsheets as "
        "text: a cell that begins with = would run); tidy-csv, tidy-parquet: a row for each method "
        "and metric",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE_OR_DIR",
        help="the file; of squad and kilt, the folder of the files",
    )
    command.add_argument("--methods", type=names, metavar="A,B", help="only these (default: all)")
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_json(command)

    command = _command(
        top,
        "diff",
        results.diff,
        "show what changed from one comparison that `compare --out` stored to another: scores with "
        "paired tests, and answers",
    )
    command.add_argument("a", type=Path, metavar="A", help="folder of the first")
    command.add_argument("b", type=Path, metavar="B", help="folder of the second")
    command.add_argument("--method", metavar="NAME", help="only this (default: all that both have)")
    command.add_argument(
        "--methods", type=names, metavar="X,Y", help="the first's X against the second's Y"
    )
    command.add_argument(
        "--limit",
        type=at_least(0),
        metavar="N",
        help=f"changed answers that are listed of a method (default: {LISTED}; with --json all)",
    )
    command.add_argument("--all", action="store_true", help="list all changed answers")
    command.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="seed of the resampling (default: 0)",
    )
    add_json(command)

    command = _command(
        top, "ask", commands.ask, "ask all methods one question; shows their evidence too"
    )
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

    command = _command(
        top,
        "retrieve",
        ranking.retrieve,
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

    command = _command(
        top,
        "evaluate",
        ranking.evaluate,
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

    group = _subcommands(_command(top, "index", None, "build, check and search a passage index"))
    command = _command(group, "build", commands.index_build, "encode a corpus and write its index")
    add_corpus(command, "miniwiki, or a file or folder of passages or documents", required=True)
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the index"
    )
    add_encoder(command, "(default: minilm)")
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
        "--parts", type=at_least(1), default=1, metavar="N", help="index files (default: 1)"
    )
    command.add_argument(
        "--workers",
        type=at_least(1),
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
    add_device(command, "float32")
    command = _command(group, "info", commands.index_info, "show what an index holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    add_verify(command)
    add_json(command)
    command = _command(
        group,
        "verify",
        commands.index_verify,
        "check every byte; the exit status is 0 if all are right, 1 if damaged, 2 if not an index",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    add_json(command)
    command = _command(group, "search", commands.index_search, "show the best passages for a query")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("query", type=words, metavar="QUERY")
    add_verify(command)
    add_encoder(command, "(default: the one that built the index)")
    add_device(command, "float32")
    add_k(command)
    add_json(command)

    command = _command(
        top,
        "perplexity",
        commands.perplexity,
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

    group = _subcommands(_command(top, "corpus", None, "build and describe passage files"))
    command = _command(
        group,
        "build",
        commands.corpus_build,
        "cut a Wikipedia dump, documents, passages or a data set into passages of at most 100 "
        "words; a killed build goes on where it was",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a file .xml, .xml.bz2 (MediaWiki), or a file or folder of passages or documents; the "
        "https address of a file, which is kept in RAGBOOK_CACHE; hf:NAME:CONFIGURATION for a "
        "Hugging Face data set; or - for standard input",
    )
    add_layout(command)
    command.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help=".jsonl or .jsonl.gz"
    )
    command.add_argument(
        "--checksum", metavar="ALGORITHM:HEX", help="checksum of the file, as sha256:0123...ef"
    )
    command.add_argument(
        "--processes", type=at_least(1), default=1, metavar="N", help="for a dump (default: 1)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    command = _command(group, "info", commands.corpus_info, "show what a corpus holds")
    command.add_argument("corpus", metavar="NAME_OR_PATH")
    add_layout(command)
    add_json(command)

    group = _subcommands(_command(top, "datastore", None, "build and search a kNN-LM datastore"))
    command = _command(
        group, "build", commands.datastore_build, "store a language model's states over a corpus"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the datastore"
    )
    add_lm(command)
    command.add_argument(
        "--ivfpq", action="store_true", help="also train an approximate index of the keys"
    )
    add_passages(command)
    command = _command(
        group,
        "verify",
        commands.datastore_verify,
        "check every byte; the exit status is 0 if all are right, 1 if damaged, 2 if no datastore",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    add_json(command)
    command = _command(
        group, "search", commands.datastore_search, "show the stored contexts nearest to a text"
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("text", type=words, metavar="TEXT")
    add_verify(command)
    add_lm(command)
    add_k(command, 10, "neighbours shown (default: 10)")
    add_json(command)
    command = _command(group, "info", commands.datastore_info, "show what a datastore holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    add_verify(command)
    add_json(command)

    command = _command(
        top,
        "train",
        commands.train,
        "train a model by its recipe; with --corpus and --questions on your own data, starting "
        "from trained models",
    )
    command.add_argument("name", metavar="NAME", help=f"recipe: {', '.join(RECIPES)}")
    add_corpus(command, "your own passages", questions=True)
    command.add_argument(
        "--questions",
        metavar="NAME_OR_PATH",
        help="your own questions; the recipe reader needs their gold passages",
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the weights"
    )
    command.add_argument("--steps", type=at_least(1), metavar="N", help="(default: the recipe's)")
    command.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="(default: 0)")
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    command.add_argument(
        "--similarity", choices=["cosine", "dot", "l2"], help="for dpr (default: the recipe's)"
    )
    command.add_argument(
        "--loss", choices=["cross-entropy", "hinge"], help="for dpr (default: cross-entropy)"
    )
    command.add_argument(
        "--reader",
        metavar="NAME_OR_PATH",
        help="for distil: the reader to learn from (default: bundled); for lora: the causal model "
        "that the adapter is for, or an adapter to go on from (default: smollm2)",
    )
    command.add_argument(
        "--method",
        choices=["reading", "in-context", "rag-sequence", "rag-token", "fid"],
        help="for lora: whose likelihood is raised (default: reading, for all methods)",
    )
    add_encoder(command, "of dpr and distil: what is trained (default: minilm)", similarity=False)
    command.add_argument(
        "--background",
        action="store_true",
        default=None,
        help="for realm: build the new indexes in a second process while training goes on",
    )
    add_device(command, "auto")

    command = _command(
        top,
        "export",
        commands.export,
        "write a model (reader, rag-sequence, rag-token, fid, realm or lm) as a checkpoint for "
        "`transformers`",
    )
    command.add_argument("name", metavar="NAME")
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    add_reader(command)

    command = _command(
        top, "doctor", commands.doctor, "show what is installed, and what would need a download"
    )
    add_json(command)
    return parser


def _subcommands(parser: argparse.ArgumentParser) -> Any:
    return parser.add_subparsers(required=True, metavar="COMMAND", dest="command")


def _command(group: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    command = group.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:])
    command.set_defaults(run=run, parser=command)
    return command

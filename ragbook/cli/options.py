"""What several commands' options have in common: what a value must look like, groups of options."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from ragbook.machine import DEVICES, PRECISIONS


def at_least(least: int) -> Any:
    """Values that are whole numbers of `least` or more."""

    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"it must be {least} or more, not {value}")
        return value

    return whole


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"it must be more than 0, not {text}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"it must be from 0 to 1, not {text}")
    return value


def words(text: str) -> str:
    """A question or query: any text that is not blank."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give it some words")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not valid UTF-8; write it in UTF-8") from None
    return text


def names(text: str) -> list[str]:
    """Different names, separated by commas."""
    given = [name.strip() for name in text.split(",")]
    if len(set(given)) < len(given) or not all(given):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different names, as in a,b,c")
    return given


def some_of(known: list[str]) -> Any:
    """Values that are different names out of those known, separated by commas."""

    def chosen(text: str) -> list[str]:
        given = names(text)
        for name in given:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return given

    return chosen


def columns(text: str) -> dict[str, str]:
    """Parts of passages and questions, each with a file's own name of its column."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    named = {_PARTS.get(part.strip(), part.strip()): own.strip() for part, _, own in pairs}
    parts = set(_PARTS.values())
    if len(named) < len(pairs) or not all(named.values()) or named.keys() - parts:
        raise argparse.ArgumentTypeError(
            f"{text!r} does not name columns, as in id=doc,title=name,text=body for passages or "
            "question=query,answers=label,gold=doc,question-id=nr for questions"
        )
    return named


_PARTS = {part: part for part in ("id", "title", "text", "question", "answers", "gold")} | {
    "answer": "answers",
    "gold_passage": "gold",
    "question-id": "question-id",
    "question_id": "question-id",
    "qid": "question-id",
}


class Split(argparse.Action):
    """`--split` where both passages and questions are read: ways of cutting texts are told from the
    names of splits."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        way = values.partition(":")[0] in ("words", "sentences", "headings", "none")
        setattr(namespace, "cut" if way else "split", values)


def add_corpus(
    command: argparse.ArgumentParser, what: str, required: bool = False, questions: bool = False
) -> None:
    """`--corpus` and how it is read; `questions` is whether the command reads some too."""
    command.add_argument("--corpus", required=required, metavar="NAME_OR_PATH", help=what)
    add_layout(command, questions)


def add_layout(command: argparse.ArgumentParser, questions: bool = False) -> None:
    """How passages, and perhaps questions, are read where their content does not say it."""
    command.add_argument(
        "--format",
        metavar="NAME",
        help="what the passages are, such as beir, kilt, csv or markdown (default: what their "
        "content says)",
    )
    command.add_argument(
        "--columns",
        type=columns,
        metavar="PART=COLUMN,...",
        help="a file's own names of the columns id, title and text"
        + (", question, answers, gold and question-id" if questions else ""),
    )
    cutting = (
        "how texts are cut into passages: words:100, sentences, headings or none (default: "
        "documents by words:100, passages not at all)"
    )
    if questions:
        command.set_defaults(cut=None)
        command.add_argument(
            "--split",
            action=Split,
            metavar="NAME",
            help=f"split of the questions: train, dev or test (default); or {cutting}",
        )
        command.add_argument(
            "--questions-format",
            metavar="NAME",
            help="what the questions are, such as squad or lines (default: what they say)",
        )
    else:
        command.add_argument("--split", dest="cut", metavar="HOW", help=cutting)
    command.add_argument(
        "--overlap",
        type=at_least(0),
        default=0,
        metavar="N",
        help="how many words, or sentences, a passage repeats of the one before (default: 0)",
    )


def add_passages(command: argparse.ArgumentParser, questions: bool = False) -> None:
    """`--corpus` and `--index`: where the passages are."""
    add_corpus(
        command,
        "miniwiki, or a file or folder of passages or documents (default: that of --index, or "
        "miniwiki)",
        questions=questions,
    )
    command.add_argument(
        "--index",
        type=Path,
        metavar="DIR",
        help="index folder (default: an index is built and kept for the next time)",
    )
    add_verify(command)


def add_verify(command: argparse.ArgumentParser) -> None:
    """`--verify`."""
    command.add_argument(
        "--verify",
        action="store_true",
        help="check every byte of the folders that are opened, before they are used (default: the "
        "manifest, sizes, and checksums of what is small)",
    )


def add_retriever(
    command: argparse.ArgumentParser, names: list[str], several: bool = False
) -> None:
    """`--retriever`, one of `names` or `several`, its encoder, or `--run` in its place."""
    kind = command.add_mutually_exclusive_group()
    if several:
        kind.add_argument(
            "--retriever",
            type=some_of(names),
            default=["dense"],
            metavar="A,B",
            help=f"some of {', '.join(names)} (default: dense)",
        )
    else:
        kind.add_argument("--retriever", choices=names, default="dense", help="(default: dense)")
    kind.add_argument(
        "--run",
        type=Path,
        dest="run_file",  # `run` is the command's function
        metavar="FILE",
        help="take the passages from this run file (TREC's form; .gz too), by the questions' ids",
    )
    command.add_argument(
        "--score-scale",
        type=positive,
        metavar="X",
        help="factor of the scores of --run in p(z|x) (default: one that makes the best passage "
        "5 nats likelier than the fifth, for the median question)",
    )
    add_reranker(command)
    add_encoder(command, "(default: the index's, or minilm)")


def add_reranker(command: argparse.ArgumentParser) -> None:
    """`--reranker`, and how many passages it reads."""
    command.add_argument(
        "--reranker",
        metavar="NAME",
        help="order the passages by a cross-encoder of sentence-transformers (folder or hub name)",
    )
    command.add_argument(
        "--rerank",
        type=at_least(1),
        default=100,
        metavar="N",
        help="passages that --reranker reads for each question (default: 100)",
    )


def add_encoder(command: argparse.ArgumentParser, what: str, similarity: bool = True) -> None:
    """`--encoder` and how it is used; `what` ends the help text of the name."""
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


def add_measures(command: argparse.ArgumentParser) -> None:
    """`--measures`, and the seed of their intervals."""
    command.add_argument(
        "--measures",
        metavar="A,B",
        help="by ir_measures' names, such as nDCG@10,R@100,RR,AP,P(rel=2)@5, and hit@k for answers "
        "by text (default: what can be measured)",
    )
    add_seed(command)


def add_seed(command: argparse.ArgumentParser) -> None:
    """`--seed` of intervals and tests."""
    command.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="seed of the resampling (default: 0)",
    )


def add_k(
    command: argparse.ArgumentParser,
    default: int | None = 5,
    what: str = "passages retrieved (default: 5)",
) -> None:
    """`--k`."""
    command.add_argument("--k", type=at_least(1), default=default, metavar="N", help=what)


def add_lm(command: argparse.ArgumentParser) -> None:
    """`--lm`, and where it computes."""
    command.add_argument(
        "--lm",
        default="bundled",
        metavar="NAME",
        help="a causal language model: a folder, such as `ragbook train lm` writes, or a hub name "
        "(default: the bundled one)",
    )
    add_device(command, "float32")


def add_device(command: argparse.ArgumentParser, precision: str) -> None:
    """`--device` and `--precision`."""
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


def add_reader(command: argparse.ArgumentParser) -> None:
    """`--reader`."""
    command.add_argument(
        "--reader",
        default="bundled",
        metavar="NAME",
        help="readers that `ragbook train reader` or `rag` wrote, or any seq2seq or causal model, "
        "by folder or hub name (default: the bundled ones)",
    )


def add_reading(command: argparse.ArgumentParser) -> None:
    """What `compare` and `ask` say of the methods: models, prompt, search, device."""
    add_reader(command)
    command.add_argument(
        "--same-weights",
        action="store_true",
        help="all methods use the one shared reader and question encoder (default: each those that "
        "its own training changed)",
    )
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
    add_interpolation(command)
    command.add_argument(
        "--prompt",
        metavar="NAME_OR_FILE",
        help="how a reader that is not bundled is asked: base, few-shot, chat, t5, or a TOML file "
        "(default: what fits the model)",
    )
    command.add_argument(
        "--demonstrations",
        metavar="NAME_OR_PATH",
        help="questions that a prompt's demonstrations are drawn from (default: the train split of "
        "--questions)",
    )
    command.add_argument(
        "--beams", type=at_least(1), default=2, metavar="N", help="of the search (default: 2)"
    )
    command.add_argument(
        "--max-length",
        type=at_least(1),
        default=16,
        metavar="N",
        help="longest answer in tokens (default: 16)",
    )
    command.add_argument(
        "--length-penalty",
        type=number,
        metavar="X",
        help="0 compares answers by log-probability, 1 by its mean over tokens (default: what was "
        "chosen for the method on dev questions, or else 0)",
    )
    command.add_argument(
        "--memory",
        default="1GiB",
        metavar="SIZE",
        help="of passages that a causal reader keeps between questions, and of kNN-LM's keys "
        "(default: 1GiB each)",
    )
    add_device(command, "float32")


def add_interpolation(command: argparse.ArgumentParser) -> None:
    """`--lambda` and `--temperature` of kNN-LM."""
    command.add_argument(
        "--lambda", type=share, dest="lam", metavar="X", help="kNN-LM's weight of the neighbours"
    )
    command.add_argument(
        "--temperature", type=positive, metavar="X", help="kNN-LM's, of the distances"
    )


def add_json(command: argparse.ArgumentParser) -> None:
    """`--json`."""
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")

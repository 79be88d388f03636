"""Why answers stop before their end: decoding, passages and training, each changed by itself.

`python -m book.experiments.early_stops book/results/stops.json FREE` measures what chapters 5 and 7
say about answers that are cut short, on MiniWiki's dev questions, in about an hour on one
core. FREE is a folder of readers whose own training did not know the rule that answers are runs of
the passages' words: `methods_recipe(Run(Path("FREE")), Recipe(held=False))`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ragbook.corpus import Question, miniwiki
from ragbook.evaluation.errors import error_kind
from ragbook.evaluation.metrics import contains, exact_matches
from ragbook.evaluation.statistics import mean_ci, paired_test
from ragbook.methods import Answer, Method, decoding, load, rag
from ragbook.methods.base import doc_log_probs
from ragbook.methods.rag import RagToken
from ragbook.models.generator import pad_labels
from ragbook.retrieval import Retrieved, Retriever

from .report import answered, write_sections

METHODS = ("rag-sequence", "rag-token", "fid")
PENALTIES = (0.0, 0.5, 1.0)
SAMPLE = 300
"""How many dev questions are answered at each setting; length penalties are tried on all."""
TRAINED_SAMPLE = 400
"""And after each training."""
BATCH = 16


def _forbidden_only(
    log_probs: Tensor,
    allowed: Sequence[decoding.Allowed],
    prefixes: Tensor,
    end: int,
) -> Tensor:
    """What `decoding.share` is compared with: forbidden tokens lose their probability, and the
    allowed ones are not given it."""
    held = torch.full_like(log_probs, float("-inf"))
    for at, prefix in enumerate(prefixes.tolist()):
        tokens = allowed[at](prefix[1:])
        held[at, tokens or slice(None)] = log_probs[at, tokens or slice(None)]
    return held


@contextmanager
def one_rule() -> Iterator[None]:
    """RAG-Token with one rule for the mixture of its passages, in which all of them have a say."""
    with patch.object(rag, "_in_own_words", lambda log_probs, *_: log_probs):
        yield


@contextmanager
def without_shares() -> Iterator[None]:
    """Beam search as it compares hypotheses without dividing by what is allowed."""
    with one_rule(), patch.object(decoding, "share", _forbidden_only):
        yield


DECODING: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "held, one rule": one_rule,
    "held, without shares": without_shares,
}
"""Settings that change how answers are decoded."""
AGAINST = {
    "held, one rule": "held",
    "held, without shares": "held, one rule",
    "free": "held",
    "one passage": "held",
}
"""From which setting another differs in one thing."""


def settings(
    retriever: Retriever, questions: Sequence[Question], shared: bool
) -> dict[str, dict[str, Any]]:
    """For each method and setting: exact match, the lenient score, and the share of answers that
    are cut short; and for the settings of `AGAINST`, the paired tests against what they differ
    from. `shared` methods have one reader's weights, others those that they trained.

    All settings take a batch before the next, so that its passages are read once a method.
    """

    def made(verbatim: bool) -> dict[str, Method]:
        found = load(
            METHODS, retriever, verbatim, shared=shared, length_penalty=0.0
        )
        return {m.name: m for m in found}

    held, free = made(True), made(False)
    ways: dict[str, tuple[dict[str, Method], int]] = {
        "held": (held, 5),
        **{way: (held, 5) for way in DECODING},
        "free": (free, 5),
        "one passage": (held, 1),
    }
    found: dict[str, dict[str, list[Answer]]] = {
        m: {way: [] for way in ways} for m in METHODS
    }
    for at in range(0, len(questions), BATCH):
        batch = questions[at : at + BATCH]
        for method in METHODS:
            for way, (methods, k) in ways.items():
                answer = methods[method].answer
                with DECODING.get(way, nullcontext)():
                    found[method][way] += answer(batch, k)
    return {
        method: _compared(each, AGAINST, questions)
        for method, each in found.items()
    }


def penalties(
    retriever: Retriever, questions: Sequence[Question]
) -> dict[str, Any]:
    """Each method's scores with its own weights at every length penalty of `PENALTIES`, and the
    paired tests against none."""
    found: dict[str, dict[str, list[Answer]]] = {m: {} for m in METHODS}
    for penalty in PENALTIES:
        methods = load(METHODS, retriever, True, length_penalty=penalty)
        by_name = {m.name: m for m in methods}
        for name, answers in answered(by_name, questions).items():
            found[name][f"{penalty:g}"] = answers
    none, *others = (f"{penalty:g}" for penalty in PENALTIES)
    against = dict.fromkeys(others, none)
    return {
        "n": len(questions),
        **{m: _compared(each, against, questions) for m, each in found.items()},
    }


def objectives(
    retriever: Retriever, questions: Sequence[Question], free: str
) -> dict[str, Any]:
    """Each method's scores with the shared reader, after training by the likelihood among all words
    (the readers in the folder `free`), and by that under the rule; decoded alike."""
    readers: dict[str, dict[str, Any]] = {
        "none": {"shared": True},
        "among all words": {"reader": free},
        "under the rule": {},
    }
    found: dict[str, dict[str, list[Answer]]] = {name: {} for name in METHODS}
    for training, how in readers.items():
        methods = {
            m.name: m
            for m in load(METHODS, retriever, True, length_penalty=0.0, **how)
        }
        for name, answers in answered(methods, questions).items():
            found[name][training] = answers
    against = {"among all words": "none", "under the rule": "none"}
    return {
        "n": len(questions),
        **{m: _compared(each, against, questions) for m, each in found.items()},
    }


def _compared(
    found: Mapping[str, Sequence[Answer]],
    against: Mapping[str, str],
    questions: Sequence[Question],
) -> dict[str, Any]:
    """The scores of every way of answering, and for those of `against` the paired differences."""
    values = {
        way: _values(answers, questions) for way, answers in found.items()
    }
    out: dict[str, Any] = {}
    for way, each in values.items():
        out[way] = {key: mean_ci(value) for key, value in each.items()}
        if way in against:
            other = values[against[way]]
            out[way]["against"] = {
                "way": against[way],
                **{
                    key: asdict(paired_test(each[key], other[key]))
                    for key in ("em", "cut")
                },
            }
    return out


def _values(
    answers: Sequence[Answer], questions: Sequence[Question]
) -> dict[str, list[float]]:
    """Of every answer: exact match, the lenient score, and whether it is cut short."""
    pairs = list(zip(answers, questions, strict=True))
    return {
        "em": list(exact_matches(answers, questions)),
        "contains": [float(contains(a.text, q.answers)) for a, q in pairs],
        "cut": [float(error_kind(a.text, q, None) == "cut") for a, q in pairs],
    }


def end_tokens(
    retriever: Retriever, questions: Sequence[Question], shared: bool
) -> dict[str, Any]:
    """Where an answer of several tokens could end too early, what each passage makes of it.

    For every prefix of a gold answer, short of the answer itself, RAG-Token's passages are of two
    kinds: those whose text goes on from the prefix as the answer does, and others. Of each kind:
    the mean of p(end | x, z, prefix) and of the next token's, and the kind's part of the prior.
    """
    method = load(["rag-token"], retriever, shared=shared)[0]
    assert isinstance(method, RagToken)
    reader = method.reader
    sums = {
        kind: {"prior": 0.0, "end": 0.0, "next": 0.0, "n": 0}
        for kind in ("holds", "others")
    }
    for question in questions:
        (retrieved,) = method.retriever.retrieve([question], 5)
        tokens = reader.answer_ids(question.answers[0])[:-1]
        if len(tokens) < 2:
            continue
        prior = doc_log_probs([retrieved], method.retriever.score_scale)[
            0
        ].exp()
        memory = reader.read([question], [retrieved.passages])
        rows = torch.arange(len(retrieved.ids))
        holds = _hold(reader, retrieved, tokens)
        for cut in range(1, len(tokens)):
            ends, goes_on = (
                reader.token_log_probs(
                    memory,
                    pad_labels([[*tokens[:cut], token]] * len(rows)),
                    rows,
                )[:, -1].exp()
                for token in (reader.end, tokens[cut])
            )
            for kind, chosen in (("holds", holds), ("others", ~holds)):
                if chosen.any():
                    sums[kind]["n"] += 1
                    sums[kind]["prior"] += float(prior[chosen].sum())
                    sums[kind]["end"] += float(ends[chosen].mean())
                    sums[kind]["next"] += float(goes_on[chosen].mean())
    return {
        kind: {
            "n": each["n"],
            **{
                key: each[key] / max(1, each["n"])
                for key in ("prior", "end", "next")
            },
        }
        for kind, each in sums.items()
    }


def _hold(reader: Any, retrieved: Retrieved, tokens: Sequence[int]) -> Tensor:
    """Which passages hold these tokens in a row, bool [n]."""
    wanted = ",".join(map(str, tokens))
    rows = [
        [
            ",".join(map(str, run))
            for run, _, _ in reader.runs(f"{p.title}. {p.text}")
        ]
        for p in retrieved.passages
    ]
    return torch.tensor(
        [any(f",{wanted}," in f",{run}," for run in runs) for runs in rows]
    )


def main(out: Path, free: str) -> None:
    """Measure both kinds of weights, and the trainings; write what `out` does not hold yet."""
    from ragbook.index import PassageIndex
    from ragbook.models import load_encoder
    from ragbook.retrieval import DenseRetriever

    dev = list(miniwiki.questions("dev"))
    questions = dev[:SAMPLE]
    retriever = DenseRetriever(PassageIndex.open("build/index"), load_encoder())
    sections: dict[str, Callable[[], Any]] = {"n": lambda: len(questions)}
    for name, shared in (("same weights", True), ("own training", False)):
        sections[name] = lambda shared=shared: settings(
            retriever, questions, shared
        )
        sections[f"end tokens, {name}"] = lambda shared=shared: end_tokens(
            retriever, questions, shared
        )
    sections["length penalties"] = lambda: penalties(retriever, dev)
    sections["objectives"] = lambda: objectives(
        retriever, dev[-TRAINED_SAMPLE:], free
    )
    write_sections(out, sections)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

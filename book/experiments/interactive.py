"""Figures with sliders: the numbers of one question, and the formula that a reader can move.

Each function here takes numbers that a chapter has computed and returns an `Interactive`. It is a
checked figure like any other, so Jupyter, print and a browser without scripts show its picture. The
same numbers go into the notebook beside the picture as JSON; on the site
`book/_tools/interactive.js` replaces the picture by a table with controls and computes the formula
itself. `tests/book/test_interactive.py` compares what it shows with `ragbook.methods`.

A picture and its table have the same rows and columns. Both are made from the rounded numbers.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ragbook.corpus import Question
from ragbook.figures import BLUE, INK, STYLE, VERMILLION, CheckedFigure
from ragbook.methods import posterior, rag, realm
from ragbook.methods.fid import FiD
from ragbook.methods.knn_lm import interpolate, knn_log_probs
from ragbook.models.generator import Generator
from ragbook.retrieval import Retrieved

MIME = "application/vnd.ragbook.interactive+json"
OTHERS = "all others"


class Interactive(CheckedFigure):
    """A checked figure with the numbers that the site's script needs.

    Args:
        figure: the picture at the controls' first positions.
        kind: which of the script's figures it is.
        data: what that figure computes from; plain numbers, texts, lists and dictionaries.
    """

    def __init__(
        self, figure: Figure, kind: str, data: Mapping[str, Any]
    ) -> None:
        super().__init__(figure)
        self.kind, self.data = kind, dict(data)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {MIME: {"kind": self.kind, **self.data}}


def next_token(
    names: Sequence[str],
    log_probs: Tensor,
    distances: Tensor,
    values: Tensor,
    lam: float,
    temperature: float,
    shown: int = 8,
) -> Interactive:
    """kNN-LM's distribution of one token, with lambda and the temperature to move.

    Args:
        names: V texts, one for each token of the vocabulary.
        log_probs: [V], log p_LM, nats.
        distances: [k], squared distances of the nearest contexts.
        values: int64 [k], the token that followed each.
        lam, temperature: where the controls start.
        shown: how many tokens have rows: the most probable of the mixture. The rest are one row.
    """
    knn = knn_log_probs(distances[None], values[None], len(names), temperature)[
        0
    ]
    mixture = interpolate(log_probs, knn, lam)
    top = mixture.topk(shown).indices.tolist()
    rows = [names[token] for token in top]
    model = _rounded(log_probs[top].exp())
    data = {
        "tokens": [*rows, OTHERS],
        "model": [*model, round(1 - sum(model), 4)],
        "distances": _rounded(distances, 2),
        "values": [
            top.index(v) if v in top else shown for v in values.tolist()
        ],
        "lambda": lam,
        "temperature": temperature,
    }
    said = knn_log_probs(
        _numbers([data["distances"]]),
        torch.tensor([data["values"]]),
        shown + 1,
        temperature,
    )[0]
    base = _numbers(data["model"]).log()
    columns = {
        "model": base.exp(),
        "memory": said.exp(),
        "mixture": interpolate(base, said, lam).exp(),
    }
    figure = _panels(
        data["tokens"], {n: v.tolist() for n, v in columns.items()}
    )
    return Interactive(figure, "next-token", data)


def passages_posterior(
    passages: Sequence[str], doc_log_probs: Tensor, given: Tensor, moved: int
) -> Interactive:
    """REALM's posterior of the passages and the gradient of their scores, with one passage's score
    and what the reader knows to move.

    Args:
        passages: n names.
        doc_log_probs: [n], log p(z | x).
        given: [n], p(y | z, x) of one answer; 0 where the passage does not hold it.
        moved: the place of the passage whose score is moved.
    """
    data = {
        "passages": list(passages),
        "log_prior": _rounded(doc_log_probs, 3),
        "given": _rounded(given),
        "moved": moved,
    }
    log_prior = _numbers([data["log_prior"]]).log_softmax(-1)
    log_given = _numbers([data["given"]]).log()
    columns = {
        "prior p(z|x)": log_prior.exp(),
        "reader p(y|z,x)": log_given.exp(),
        "posterior p(z|x,y)": posterior(log_prior, log_given),
        "gradient": realm.score_gradient(log_given, log_prior),
    }
    figure = _panels(passages, {n: v[0].tolist() for n, v in columns.items()})
    return Interactive(figure, "posterior", data)


def where_the_sum_is(
    passages: Sequence[str],
    tokens: Sequence[str],
    doc_log_probs: Tensor,
    token_log_probs: Tensor,
    moved: int,
) -> Interactive:
    """RAG-Sequence and RAG-Token on the same numbers, with the prior to move. As in the methods'
    diagrams, a column is a passage and a row a token.

    Args:
        passages: n names.
        tokens: T pieces of the answer.
        doc_log_probs: [n], log p(z | x).
        token_log_probs: [n, T], log p(y_t | x, z, y_<t).
        moved: the place of the passage whose score is moved.
    """
    data = {
        "passages": list(passages),
        "tokens": list(tokens),
        "log_prior": _rounded(doc_log_probs, 3),
        "log_probs": [_rounded(row, 3) for row in token_log_probs],
        "moved": moved,
    }
    log_prior = _numbers([data["log_prior"]]).log_softmax(-1)
    each = _numbers([data["log_probs"]])
    own = torch.ones(1, len(tokens))
    by_token = rag.token_log_prob(
        each[0].T[:, :, None],
        log_prior.expand(len(tokens), -1),
        torch.ones(len(tokens), 1),
    )
    whole = [
        core(each, log_prior, own).exp().item()
        for core in (rag.token_log_prob, rag.sequence_log_prob)
    ]
    columns = {
        name: torch.cat([prior[None], row, row.sum()[None]]).exp().tolist()
        for name, prior, row in zip(
            passages, log_prior[0], each[0], strict=True
        )
    }
    nothing = float("nan")
    sums = by_token.exp().tolist()
    columns["RAG-Token: sums"] = [nothing, *sums, whole[0]]
    columns["RAG-Sequence: sum"] = [nothing, *(nothing for _ in sums), whole[1]]
    rows = [
        "prior p(z|x)",
        *(f"{t + 1}: {piece}" for t, piece in enumerate(tokens)),
        "whole answer",
    ]
    return Interactive(_panels(rows, columns), "where-the-sum-is", data)


def struck_out(
    reader: Generator, question: Question, found: Retrieved, answer: str
) -> Interactive:
    """FiD on every choice of the passages: the probability of `answer`, the attention that each
    passage gets while it is written, and what FiD writes by itself. The gold passage is marked.

    Args:
        reader: the generator, which reads all 2^n - 1 choices.
        found: n passages, at least two.
        answer: the right answer.
    """
    n = len(found.ids)
    choices: dict[str, dict[str, Any]] = {}
    for size in range(1, n + 1):
        for kept in itertools.combinations(range(n), size):
            method = FiD(reader, Kept(found, kept), verbatim=True)
            shares = method.attention([question], [answer], n)[0].tolist()
            p = method.log_prob([question], [answer], n).exp().item()
            choices["".join("01"[z in kept] for z in range(n))] = {
                "p": float(f"{p:.3g}"),
                "text": method.answer([question], n)[0].text,
                "attention": [
                    round(shares[kept.index(z)], 3) if z in kept else 0.0
                    for z in range(n)
                ],
            }
    names = [
        f"{one} (gold)" if one == question.gold_passage else one
        for one in found.ids
    ]
    data = {"passages": names, "answer": answer, "choices": choices}
    everything = "1" * n
    columns = {
        "attention": choices[everything]["attention"],
        "p(answer) without it": [
            choices[everything[:z] + "0" + everything[z + 1 :]]["p"]
            for z in range(n)
        ],
    }
    return Interactive(_panels(names, columns), "struck-out", data)


class Kept:
    """A retriever that always gives the same passages, those at the places `kept` of `found`."""

    name, score_scale = "kept", 1.0

    def __init__(self, found: Retrieved, kept: Sequence[int]) -> None:
        self.found = Retrieved(
            tuple(found.ids[z] for z in kept),
            found.scores[list(kept)],
            tuple(found.passages[z] for z in kept),
        )

    def retrieve(
        self, questions: Sequence[Question], k: int
    ) -> list[Retrieved]:
        return [self.found for _ in questions]


def _numbers(values: Any) -> Tensor:
    """In double precision, as the script computes: products of probabilities get very small."""
    return torch.tensor(values, dtype=torch.float64)


def _rounded(values: Tensor, decimals: int = 4) -> list[float]:
    return [round(float(value), decimals) for value in values]


def shown(value: float) -> str:
    """A number as the picture and the script write it: three decimals, or a power of ten."""
    if value != 0 and abs(value) < 0.0005:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.3f}"


def _panels(
    rows: Sequence[str], columns: Mapping[str, Sequence[float]]
) -> Figure:
    """A panel for each column, a bar for each row; NaN where a column has no such row."""
    signed = {name: np.nanmin(values) < 0 for name, values in columns.items()}
    with matplotlib.rc_context(STYLE):
        each = 1.15 if len(columns) < 6 else 0.85
        size = (1.6 + each * len(columns), 0.7 + 0.27 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for panel, (name, values) in zip(panels, columns.items(), strict=True):
            there = [
                at for at, value in enumerate(values) if not np.isnan(value)
            ]
            numbers = [values[at] for at in there]
            panel.barh(
                there,
                numbers,
                color=[VERMILLION if value < 0 else BLUE for value in numbers],
                height=0.6,
            )
            panel.set_xlim(-1 if signed[name] else 0, 1.75)
            panel.set_xticks([])
            panel.spines[["bottom", "left"]].set_visible(False)
            panel.tick_params(axis="y", length=0)
            panel.set_title(textwrap.fill(name, 14), fontsize=8)
            for at, value in zip(there, numbers, strict=True):
                panel.text(
                    max(value, 0) + 0.05,
                    at,
                    shown(value),
                    va="center",
                    fontsize=7,
                    color=INK,
                )
        panels[0].set_yticks(range(len(rows)), labels=list(rows))
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure

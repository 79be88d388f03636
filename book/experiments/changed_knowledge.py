"""How answers change when the passages change and the weights do not.

`python -m book.experiments.changed_knowledge book/results/change.json` measures what chapter 8
plots, on MiniWiki's two editions with the bundled readers, in about ten minutes on two cores; and,
for chapter 11, some of it with SmolLM2 in as many again.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.corpus import Corpus, Passage, Question, miniwiki
from ragbook.evaluation.metrics import (
    exact_match,
    exact_matches,
    normalize_answer,
)
from ragbook.evaluation.statistics import mean_ci, paired_test
from ragbook.index import build_index
from ragbook.methods import NAMES, load
from ragbook.methods.base import Answer
from ragbook.models import Encoder, load_encoder
from ragbook.models.bundled import BUNDLED
from ragbook.models.smollm2 import READING
from ragbook.retrieval import DenseRetriever

from .report import answered, write_sections

K = 5
NEAR, FAR = 100, 60
"""How many questions with the same answer in both editions are asked: about articles that changed,
and about others."""

FALSE = 150
"""How many test questions get a false passage."""

PRETRAINED = 60
"""How many questions with different answers in the two editions SmolLM2 is asked."""

GENERATIVE = [name for name in NAMES if name != "realm"]

Answers = dict[str, list[Answer]]


def edited(
    corpus: Corpus, without: set[str], added: Sequence[Passage], name: str
) -> Corpus:
    """The corpus without the passages of some ids and with others at its end."""
    return Corpus(name, [*(p for p in corpus if p.id not in without), *added])


def counterfeits(
    questions: Sequence[Question], corpus: Corpus
) -> tuple[list[Question], list[Passage], list[str]]:
    """A false passage for each question: its gold passage with the answer replaced.

    The false answer is the different answer of the next question that begins in the same way (who,
    where, how many) and whose answer is written in the same way (with a digit, or with a capital,
    or neither); it replaces every occurrence of the right one. A passage gets only one false
    version, for the first question about it, as another version would still state the right answer.
    Questions are left out if their first answer is not in the passage exactly as it is written, or
    if there is no such false answer.

    Returns
    -------
    The questions that have a false passage, the false passages (with ``-false-`` and a number after
    the gold passage's id), and the false answers.
    """
    kept: list[Question] = []
    passages: list[Passage] = []
    false: list[str] = []
    used: set[str] = set()
    for at, question in enumerate(questions):
        right = question.answers[0]
        passage = corpus.get(question.gold_passage or "")
        place = re.compile(rf"(?<!\w){re.escape(right)}(?!\w)")
        other = next(
            (
                other.answers[0]
                for other in [*questions[at + 1 :], *questions[:at]]
                if _asked(other) == _asked(question)
                and not exact_match(other.answers[0], question.answers)
            ),
            None,
        )
        if (
            other is not None
            and place.search(passage.text)
            and passage.id not in used
        ):
            used.add(passage.id)
            text = place.sub(lambda _, other=other: other, passage.text)
            kept.append(question)
            passages.append(
                Passage(f"{passage.id}-false-{at}", passage.title, text)
            )
            false.append(other)
    return kept, passages, false


def _asked(question: Question) -> tuple[str, str]:
    """The question word and how the answer is written; equal for questions of roughly one kind."""
    found = re.search(
        r"\b(?:who|where|when|how \w+|what|which)", question.text.lower()
    )
    word = "" if found is None else found[0].replace("which", "what")
    answer = question.answers[0]
    if any(character.isdigit() for character in answer):
        return word, "number"
    return word, "name" if any(
        character.isupper() for character in answer
    ) else "word"


def answered_over(
    corpus: Corpus,
    encoder: Encoder,
    questions: Sequence[Question],
    names: Sequence[str] = NAMES,
    reader: str = BUNDLED,
) -> Answers:
    """Each method's answers with an index of the corpus, which is built for this only."""
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(
            corpus, Path(folder) / "index", encoder, progress=False
        )
        retriever = DenseRetriever(index, encoder)
        methods = load(names, retriever, verbatim=True, reader=reader)
        return answered(
            {method.name: method for method in methods}, questions, K
        )


def followed(
    answers: Mapping[str, Answers], questions: Mapping[str, Sequence[Question]]
) -> dict[str, Any]:
    """How often each method's answers follow the index.

    Parameters
    ----------
    answers: the answers with each edition's index, by edition; two editions, the earlier first.
    questions: the same questions with each edition's answers.

    Returns
    -------
    For each method: ``right``, exact match by edition of the index and of the answer; ``follows``,
    the share of questions answered correctly with both indexes; ``same``, the share of questions
    that get the same answer with both.
    """
    first, second = answers
    out = {}
    for name in answers[first]:
        marks = {
            (index, edition): exact_matches(
                answers[index][name], questions[edition]
            )
            for index in answers
            for edition in answers
        }
        both = [
            a * b
            for a, b in zip(
                marks[first, first], marks[second, second], strict=True
            )
        ]
        out[name] = {
            "right": {
                i: {e: mean_ci(marks[i, e]) for e in answers} for i in answers
            },
            "follows": mean_ci(both),
            "same": mean_ci(_same(answers[first][name], answers[second][name])),
        }
    return {"n": len(questions[first]), "methods": out}


def damage(
    before: Answers, after: Answers, questions: Sequence[Question]
) -> dict[str, Any]:
    """The effect of a change on questions whose right answer did not change: for each method the
    share that gets another answer (``moved``), exact match before and after, and the difference."""
    out = {}
    for name in before:
        then, now = (
            exact_matches(before[name], questions),
            exact_matches(after[name], questions),
        )
        test = paired_test(now, then)
        out[name] = {
            "moved": mean_ci([1 - s for s in _same(before[name], after[name])]),
            "before": mean_ci(then),
            "after": mean_ci(now),
            "difference": {
                "mean": test.difference,
                "ci95": list(test.ci95),
                "p": test.p,
            },
        }
    return {"n": len(questions), "methods": out}


def deleted(
    before: Answers, after: Answers, questions: Sequence[Question]
) -> dict[str, Any]:
    """The effect of removing the passages that answer: for each method exact match before and
    after, and the mean probability that it gave its own answers."""
    out = {}
    for name in before:
        entry: dict[str, Any] = {}
        for when, answers in (("before", before[name]), ("after", after[name])):
            sure = [float(np.exp(answer.log_prob)) for answer in answers]
            entry[when] = {
                "em": mean_ci(exact_matches(answers, questions)),
                "probability": mean_ci(sure),
            }
        out[name] = entry
    return {"n": len(questions), "methods": out}


def deceived(
    answers: Answers,
    questions: Sequence[Question],
    passages: Sequence[Passage],
    false: Sequence[str],
) -> dict[str, Any]:
    """The effect of a false passage beside the true one: for each method the shares of answers that
    are ``true``, ``false`` and ``neither``, and the mean weight of the false passage."""
    out = {}
    for name, given in answers.items():
        true = exact_matches(given, questions)
        wrong = [
            float(exact_match(a.text, [text]))
            for a, text in zip(given, false, strict=True)
        ]
        weight = [
            sum(e.weight for e in answer.evidence if e.passage_id == passage.id)
            for answer, passage in zip(given, passages, strict=True)
        ]
        neither = [1 - t - w for t, w in zip(true, wrong, strict=True)]
        out[name] = {
            "true": mean_ci(true),
            "false": mean_ci(wrong),
            "neither": mean_ci(neither),
            "weight": mean_ci(weight),
        }
    return {"n": len(questions), "methods": out}


def _same(a: Sequence[Answer], b: Sequence[Answer]) -> list[float]:
    return [
        float(normalize_answer(x.text) == normalize_answer(y.text))
        for x, y in zip(a, b, strict=True)
    ]


def unchanged(
    changed: Sequence[Question], near: int = NEAR, far: int = FAR
) -> dict[str, list[Question]]:
    """Test questions whose answer is the same in both editions: `near` are about an article that
    changed, `far` about another."""
    moved = {p.id for a in miniwiki.articles() if a.changes for p in a.passages}
    texts = {question.text for question in changed}
    rest = [q for q in miniwiki.questions("test") if q.text not in texts]
    return {
        "near": [q for q in rest if q.gold_passage in moved][:near],
        "far": [q for q in rest if q.gold_passage not in moved][:far],
    }


def main(out: str, limit: int | None = None) -> None:
    """Measure everything that `out` does not hold yet, on `limit` questions of each kind."""
    encoder = load_encoder()
    pairs = miniwiki.changed_questions("test")[:limit]
    names = [miniwiki.corpus(edition).name for edition in miniwiki.EDITIONS]
    corpora = {
        name: miniwiki.corpus(e)
        for name, e in zip(names, miniwiki.EDITIONS, strict=True)
    }
    changed = {
        name: [pair[i] for pair in pairs] for i, name in enumerate(names)
    }
    current, now = corpora[names[-1]], changed[names[-1]]
    same = {
        kind: questions[:limit] for kind, questions in unchanged(now).items()
    }

    def editions() -> dict[str, Any]:
        answers: dict[str, dict[str, Answers]] = {}
        for name, corpus in corpora.items():
            asked = [*changed[name], *same["near"], *same["far"]]
            given = answered_over(corpus, encoder, asked)
            ends = np.cumsum([0, len(now), len(same["near"]), len(same["far"])])
            answers[name] = {
                part: {m: a[start:stop] for m, a in given.items()}
                for part, start, stop in zip(
                    ("changed", "near", "far"), ends[:-1], ends[1:], strict=True
                )
            }
        then, after = (answers[name] for name in names)
        gone = {
            question.gold_passage for question in now if question.gold_passage
        }
        less = answered_over(edited(current, gone, (), "deleted"), encoder, now)
        return {
            "changed": followed(
                {n: answers[n]["changed"] for n in names}, changed
            ),
            "unchanged": {
                k: damage(then[k], after[k], q) for k, q in same.items()
            },
            "deleted": deleted(after["changed"], less, now),
        }

    def pretrained() -> dict[str, Any]:
        few = {name: asked[:PRETRAINED] for name, asked in changed.items()}
        answers = {
            name: answered_over(
                corpora[name], encoder, asked, GENERATIVE, READING
            )
            for name, asked in few.items()
        }
        return followed(answers, few)

    def false_passages() -> dict[str, Any]:
        test = list(miniwiki.questions("test"))
        random.Random(0).shuffle(test)
        kept, passages, false = counterfeits(test, current)
        most = limit or FALSE
        kept, passages, false = kept[:most], passages[:most], false[:most]
        answers = answered_over(
            edited(current, set(), passages, "with false"), encoder, kept
        )
        return deceived(answers, kept, passages, false)

    def seconds() -> dict[str, Any]:
        earlier = corpora[names[0]]
        moved = [p for p in current if p.text != earlier.get(p.id).text]
        started = time.perf_counter()
        encoder.encode_passages(moved)
        encoded = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            build_index(
                current, Path(folder) / "index", encoder, progress=False
            )
        return {
            "passages": len(current),
            "changed": len(moved),
            "encode_changed": encoded - started,
            "build_whole": time.perf_counter() - encoded,
        }

    write_sections(
        Path(out),
        {
            "seconds": seconds,
            "editions": editions,
            "false": false_passages,
            "pretrained": pretrained,
        },
    )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

"""Draws the readers' training examples from a corpus: from its questions and from its sentences.

Three kinds of examples need nothing but passages and questions: a question with its gold passage
and distractors, a sentence with one salient span asked for (REALM's pre-training task, section 3.4,
with the passage itself as evidence), and a run of words to be restored after some were masked
(the text infilling of BART, Lewis et al. 2020).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from ragbook.corpus import Corpus, Passage, Question, QuestionSet
from ragbook.corpus.gold import gold_passage, missing_sentence, placed
from ragbook.errors import InputError
from ragbook.training.reader.worlds import Example

LEAST_PASSAGES = 12
"""The least number of passages in a corpus: ten are shown at a time, and one may be left out."""

_SALIENT = re.compile(
    r"\b\d{1,2} [A-Z][a-z]+ \d{4}\b"  # dates
    r"|\b\d[\d,.]*\d\b|\b\d\b"  # numbers
    r"|\b[A-Z][\w'’-]+(?: (?:of |the |de |van )?[A-Z][\w'’-]+)*"  # names
)


def _words(text: str) -> str:
    """Lower-case words and numbers, single-spaced, to test whether a passage holds an answer."""
    return " ".join(re.findall(r"\w+", text.lower()))


def cloze_question(rng: random.Random, passage: Passage) -> Question | None:
    """A sentence of the passage with one salient span (a name, a date, a number) asked for.

    The first word of the sentence is never asked for, as its capital does not show that it is a
    name; a third of the other words is dropped, so that sentence and question do not simply match.
    """
    sentence = rng.choice(re.split(r"(?<=[.!?]) ", passage.text))
    spans = [m for m in _SALIENT.finditer(sentence) if m.start() > 0]
    spans = [m for m in spans if passage.text.count(m.group()) == 1]
    if not spans:
        return None
    span = rng.choice(spans)

    def thin(text: str) -> str:
        return " ".join(w for w in text.split() if rng.random() > 0.33)

    text = f"{passage.title}: {thin(sentence[: span.start()])} what {thin(sentence[span.end() :])}?"
    return Question(text, (span.group().rstrip(".,"),), passage.id)


def infilling(rng: random.Random, passage: Passage) -> Question | None:
    """A run of 3 to 8 words of the passage, half of them masked, that is to be restored.

    With the passage beside it, this teaches to find a longer run of words from a part of it, and to
    copy it word for word.
    """
    words = passage.text.split()
    length = rng.randint(3, 8)
    start = rng.randrange(max(1, len(words) - length))
    run = words[start : start + length]
    answer = " ".join(run).rstrip(".,;:!?")
    if passage.text.count(answer) != 1:
        return None
    shown = " ".join("[MASK]" if rng.random() < 0.5 else word for word in run)
    return Question(f"{passage.title}: {shown}", (answer,), passage.id)


def exchange(rng: random.Random, passage: Passage, answer: str, others: Sequence[str]) -> str:
    """One of `others` that can replace the answer in the passage, or else the answer itself.

    With both the passage and the answer changed, the question can still be answered from the
    passage, but not by heart.
    """
    word = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    if not word.search(passage.text) or word.search(passage.title):
        return answer
    fitting = [o for o in others if o not in passage.text and o not in passage.title]
    return rng.choice(fitting) if fitting else answer


def _form(question: Question) -> tuple[str, ...]:
    """How a question begins and what its answer looks like; answers to questions of the same form
    can replace each other."""
    answer = question.answers[0]
    looks = re.sub(r"[^\W\d_]+", lambda m: "Aa" if m.group()[0].isupper() else "a", answer)
    return (*question.text.lower().split()[:2], re.sub(r"\d", "0", looks))


@dataclass(frozen=True)
class RetrievedQuestion:
    """A question with the passages that the embedded encoder's retriever finds for it.

    `scores` are the retriever's times their scale: their softmax is p(z | x). `holder` is the
    position of the first passage that holds the answer.
    """

    question: Question
    passages: tuple[Passage, ...]
    scores: tuple[float, ...]
    holder: int


class GoldExamples:
    """Draws questions with gold, retrieved and distracting passages.

    Any passage of the corpus can be shown beside the gold one, as happens when the reader is used.
    A question's rival passage is among the distractors, and its second gold passage, if it needs
    one, is shown whenever there is room for two.

    Parameters
    ----------
    corpus: where gold passages and distractors come from.
    questions: a question whose gold passage holds none of its answers is left out; otherwise the
        first answer that it holds is the target.
    device: where the corpus is encoded, to find what the retriever finds.

    Raises
    ------
    InputError: no question is left, or there are too few passages to draw distractors from.
    """

    def __init__(self, corpus: Corpus, questions: Iterable[Question], device: str = "cpu") -> None:
        from ragbook.models import load_encoder

        self.corpus = corpus
        asked = placed(QuestionSet("", "", questions), corpus)
        self.questions = [taught for q in asked if (taught := self._taught(q))]
        if not self.questions:
            missing = missing_sentence(asked, corpus.name)
            raise InputError(
                f"No question has a gold passage in {corpus.name!r} that holds its answer"
                f"{f' ({missing})' if missing else ''}; give questions with gold passages, from "
                "which readers learn."
            )
        if len(corpus) < LEAST_PASSAGES:
            raise InputError(
                f"{corpus.name!r} has {len(corpus)} passages; readers need at least "
                f"{LEAST_PASSAGES} to draw distractors from, so give a larger corpus."
            )
        taught = repr([(q.text, q.answers, q.gold_passage) for q in self.questions])
        self.sha256 = hashlib.sha256((corpus.sha256 + taught).encode()).hexdigest()
        gold = {q.gold_passage for q in self.questions}
        self.passages = [p for p in corpus if p.id in gold]
        encoder = load_encoder().to(device)
        self.keys = torch.from_numpy(encoder.encode_passages(list(self.corpus)))
        self.queries = torch.from_numpy(encoder.encode_queries([q.text for q in self.questions]))
        self.score_scale = encoder.score_scale
        scores, places = (self.queries @ self.keys.T).topk(min(40, len(corpus)))
        self.scores, nearest = (scores * self.score_scale).tolist(), places.tolist()
        self.nearest = nearest
        self.distractors: list[list[Passage]] = []
        # Many questions find the same passage.
        text = cache(lambda i: f" {_words(self.corpus[i].text)} ")
        for question, found in zip(self.questions, nearest, strict=True):
            others = [i for i in found if self.corpus[i].id != question.gold_passage]
            answers = [f" {_words(a)} " for a in question.answers]
            passages = [self.corpus[i] for i in others]
            silent = [self.corpus[i] for i in others if not any(a in text(i) for a in answers)]
            rival = [self.corpus.get(question.rival_passage)] if question.rival_passage else []
            rest = [p for p in [*silent, *passages] if p not in rival]
            self.distractors.append([*rival, *dict.fromkeys(rest)][:11])
        self.alike: dict[tuple[str, ...], list[str]] = {}
        for question in self.questions:
            self.alike.setdefault(_form(question), []).append(question.answers[0])

    def _taught(self, question: Question) -> Question | None:
        """The question with its answers in a new order: the first that its gold passage holds comes
        first. None if the gold passage holds none, or is not in the corpus."""
        gold = gold_passage(self.corpus, question)
        if gold is None:
            return None
        text = f" {_words(gold.text)} "
        held = [a for a in question.answers if f" {_words(a)} " in text]
        if not held:
            return None
        answers = tuple(dict.fromkeys([*held[:1], *question.answers]))
        return replace(question, answers=answers, gold_passage=gold.id, placed=None)

    def example(self, rng: random.Random, n: int, negative: float) -> Example:
        """One question with n passages; with probability `negative` the gold one is left out.

        In every third example the answer is replaced by another of the same form.
        """
        at = rng.randrange(len(self.questions))
        question, others = self.questions[at], self.distractors[at]
        if rng.random() < negative:
            return Example(question, tuple(rng.sample(others, n)), None)
        gold = self.corpus.get(question.gold_passage or "")
        if rng.random() < 0.33:
            old = question.answers[0]
            new = self.other_answer(rng, question)
            gold = replace(gold, text=re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, gold.text))
            question = replace(question, answers=(new,))
        needed = [self.corpus.get(question.second_passage)] if question.second_passage else []
        shown = [gold, *needed, *(p for p in rng.sample(others[: n + 1], n) if p not in needed)][:n]
        rng.shuffle(shown)
        return Example(question, tuple(shown), shown.index(gold))

    def other_answer(self, rng: random.Random, question: Question) -> str:
        """An answer of the same form that can stand in the gold passage in place of the question's
        own; its own if there is none."""
        gold = self.corpus.get(question.gold_passage or "")
        return exchange(rng, gold, question.answers[0], self.alike[_form(question)])

    def found(self, n: int) -> list[RetrievedQuestion]:
        """The questions whose answer is in one of the n best passages of the retriever.

        Raises
        ------
        InputError: there is no such question.
        """
        out = []
        for question, nearest, scores in zip(
            self.questions, self.nearest, self.scores, strict=True
        ):
            passages = tuple(self.corpus[at] for at in nearest[:n])
            wanted = f" {_words(question.answers[0])} "
            holds = [wanted in f" {_words(passage.text)} " for passage in passages]
            if any(holds):
                out.append(
                    RetrievedQuestion(question, passages, tuple(scores[:n]), holds.index(True))
                )
        if not out:
            raise InputError(
                f"Retrieval finds no answer to any question among the {n} best passages of "
                f"{self.corpus.name!r}; check that the questions belong to this corpus."
            )
        return out

    def cloze_example(self, rng: random.Random) -> Example:
        """A cloze question on a train passage, with that passage."""
        return self._alone(rng, cloze_question)

    def infilling(self, rng: random.Random) -> Example:
        """A run of words to be restored, with the train passage that it is taken from."""
        return self._alone(rng, infilling)

    def _alone(
        self, rng: random.Random, ask: Callable[[random.Random, Passage], Question | None]
    ) -> Example:
        while True:
            passage = rng.choice(self.passages)
            question = ask(rng, passage)
            if question:
                return Example(question, (passage,), 0)

    def closed_book(self, rng: random.Random) -> Example:
        """A train question alone."""
        return Example(rng.choice(self.questions), (), None)

"""Teaches the bundled readers: RAG's and FiD's seq2seq reader and REALM's span reader, together.

Both stand on one encoder, the embedded one with its upper layers fine-tuned, so that what differs
between the methods is the way the evidence is used and nothing else. A step shows questions with
n passages each and adds up

* the answer's cross-entropy, the passages fused as FiD fuses them (n = 1 is the plain reader);
* a pointer loss: the mean cross-attention of the decoder's last layer should lie on the token of
  the passage that is being written. Copying is learned from it within a few hundred steps, where
  from the answers alone it takes many thousand;
* the span loss of REALM's reader on each passage by itself; [CLS] stands for "not here".

A passage that does not hold the answer has the empty answer as its target, so the reader's
p(y | x, z) is low where z says nothing, which the marginalisations of RAG and REALM live on.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.models.bundled import reader_model, span_scorer, write_manifest
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.prompts import find, pair
from ragbook.models.reader import new_reader_model
from ragbook.models.span import SpanScorer
from ragbook.training import worlds
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.worlds import Example

FROZEN_LAYERS = 2
"""Layers of the embedded encoder, from the bottom, that stay as they are, as its embeddings do."""

TRAIN_INPUT, MAX_ANSWER = 176, 16
"""Longest input and answer in training, in tokens; rarely reached."""

LEAST_PASSAGES = 12
"""Passages that a corpus needs, so that six can be shown that are not the gold one."""


@dataclass
class Batch:
    """One step's tensors: B questions, n passages each, L input tokens, T answer tokens."""

    inputs: dict[str, Tensor]  # int64 [B * n, L] each
    passage_mask: Tensor  # bool [B * n, L]: the passage's own tokens
    labels: Tensor  # int64 [B, T]: answer tokens and [SEP], padded with -100
    pointer: Tensor  # bool [B, T, n * L]: where the token to be written stands in the passages
    spans: Tensor  # int64 [B * n]: start * max_span + width - 1 of the answer's span, 0 for none
    n: int


def collate(tokenizer: Any, examples: Sequence[Example], max_span: int) -> Batch:
    """Tensors of examples that all show the same number of passages; none shown = closed book."""
    n = max(1, len(examples[0].passages))
    rows = [(e.question.text, p) for e in examples for p in (e.passages or (None,))]
    read = pair(tokenizer, [q for q, _ in rows], [p for _, p in rows], max_input=TRAIN_INPUT)
    answers = tokenizer(
        [e.question.answers[0] for e in examples],
        add_special_tokens=False,
        truncation=True,
        max_length=MAX_ANSWER - 1,
    )["input_ids"]
    length = read.mask.shape[1]
    labels = torch.full((len(examples), max(len(a) for a in answers) + 1), -100)
    pointer = torch.zeros(*labels.shape, n * length, dtype=torch.bool)
    spans = torch.zeros(len(rows), dtype=torch.long)
    for number, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        if example.passages and example.gold is None:
            labels[number, 0] = tokenizer.sep_token_id
            continue
        labels[number, : len(answer) + 1] = torch.tensor([*answer, tokenizer.sep_token_id])
        if example.gold is None:
            continue
        row = number * n + example.gold
        own = read.tensors["input_ids"][row] * read.passage_mask[row]  # 0 outside the passage
        position = find(own.tolist(), answer)
        if position >= 0:
            for t in range(len(answer)):
                pointer[number, t, example.gold * length + position + t] = True
            if len(answer) <= max_span:
                spans[row] = position * max_span + len(answer) - 1
    return Batch(read.tensors, read.passage_mask, labels, pointer, spans, n)


def shift_right(labels: Tensor, start: int, pad: int) -> Tensor:
    """Decoder input of teacher forcing: the start token, then the labels without their last."""
    inputs = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1)
    return inputs.masked_fill(inputs == -100, pad)


def losses(model: Any, scorer: SpanScorer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """The step's loss: answer + pointer / 2 + span / 2 (module docstring), and its parts."""
    states = model.encoder(**batch.inputs).last_hidden_state
    rows, length, width = states.shape
    B = rows // batch.n
    out = model.decoder(
        input_ids=shift_right(batch.labels, model.config.decoder_start_token_id, 0),
        encoder_hidden_states=states.reshape(B, batch.n * length, width),
        encoder_attention_mask=batch.inputs["attention_mask"].reshape(B, batch.n * length),
        output_attentions=True,
        use_cache=False,
    )
    logits = out.logits.float()
    loss = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
    right = (logits.argmax(-1) == batch.labels) | (batch.labels == -100)
    figures = {"answer": loss.item(), "forced_em": float(right.all(-1).float().mean())}
    pointed = batch.pointer.any(-1)
    if pointed.any():
        attention = out.cross_attentions[-1].float().mean(1)  # [B, T, n * L]
        pointer = -((attention * batch.pointer).sum(-1)[pointed] + 1e-6).log().mean()
        loss = loss + 0.5 * pointer
        figures["pointer"] = pointer.item()
    if batch.passage_mask.any():
        scores = scorer(states, batch.passage_mask).flatten(1)
        span = functional.cross_entropy(scores, batch.spans)
        loss = loss + 0.5 * span
        figures["span"] = span.item()
    return loss, figures


def set_dropout(model: Any, p: float) -> None:
    """Training mode, with dropout on the outputs of the trained layers only."""
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            trained = any(q.requires_grad for q in model.get_submodule(name[:-8]).parameters())
            module.p = p if name.endswith("output.dropout") and trained else 0.0


def vocabulary_words(tokenizer: Any) -> list[str]:
    """Whole alphabetic words of the tokenizer, in the order of their ids."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [w for w, _ in vocabulary if len(w) > 2 and re.fullmatch("[a-z]+", w)]


_SALIENT = re.compile(
    r"\b\d{1,2} [A-Z][a-z]+ \d{4}\b"  # dates
    r"|\b\d[\d,.]*\d\b|\b\d\b"  # numbers
    r"|\b[A-Z][\w'’-]+(?: (?:of |the |de |van )?[A-Z][\w'’-]+)*"  # names
)


def _words(text: str) -> str:
    """Lower-case words and numbers, single-spaced: what "stands in the passage" is asked of."""
    return " ".join(re.findall(r"\w+", text.lower()))


def cloze(rng: random.Random, passage: Passage) -> Question | None:
    """A sentence of the passage with one salient span (a name, a date, a number) asked for.

    The first word of the sentence is never asked, for its capital says nothing; a third of the
    other words is dropped, so that sentence and question do not simply match.
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


def exchange(rng: random.Random, passage: Passage, answer: str, others: Sequence[str]) -> str:
    """One of `others` that may stand in the passage in the answer's place, or the answer itself.

    Exchanged in passage and answer alike, it leaves the question answerable, and what was learned
    by heart wrong.
    """
    word = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    if not word.search(passage.text) or word.search(passage.title):
        return answer
    fitting = [o for o in others if o not in passage.text and o not in passage.title]
    return rng.choice(fitting) if fitting else answer


def _form(question: Question) -> tuple[str, ...]:
    """How a question begins and what its answer looks like: answers of one form are exchanged."""
    answer = question.answers[0]
    looks = re.sub(r"[^\W\d_]+", lambda m: "Aa" if m.group()[0].isupper() else "a", answer)
    return (*question.text.lower().split()[:2], re.sub(r"\d", "0", looks))


class GoldExamples:
    """Draws questions with gold, retrieved and distracting passages.

    Any passage of the corpus may stand beside the gold one, as it does when the reader is used. The
    passage that must be told apart is among the distractors, and the second one that a question
    needs is shown whenever there is room for two.

    Parameters
    ----------
    corpus: where gold passages and distractors come from.
    questions: what is asked. A question whose gold passage holds none of its answers is left out;
        else the first that it holds is what is taught.

    Raises
    ------
    InputError: no question is left, or there are too few passages to draw distractors from.
    """

    def __init__(self, corpus: Corpus, questions: Iterable[Question]) -> None:
        from ragbook.models import load_encoder

        self.corpus = corpus
        self.questions = [taught for q in questions if (taught := self._taught(q))]
        if not self.questions:
            raise InputError(
                f"No question has a gold passage in {corpus.name!r} that holds its answer; "
                "readers are taught from questions with gold passages."
            )
        if len(corpus) < LEAST_PASSAGES:
            raise InputError(
                f"{corpus.name!r} has {len(corpus)} passages; to draw distractors from, readers "
                f"need at least {LEAST_PASSAGES}."
            )
        asked = repr([(q.text, q.answers, q.gold_passage) for q in self.questions])
        self.sha256 = hashlib.sha256((corpus.sha256 + asked).encode()).hexdigest()
        gold = {q.gold_passage for q in self.questions}
        self.passages = [p for p in corpus if p.id in gold]
        encoder = load_encoder()
        keys = torch.from_numpy(encoder.encode_passages(list(self.corpus)))
        queries = torch.from_numpy(encoder.encode_queries([q.text for q in self.questions]))
        nearest = (queries @ keys.T).topk(min(40, len(corpus))).indices.tolist()
        self.distractors: list[list[Passage]] = []
        for question, found in zip(self.questions, nearest, strict=True):
            passages = [self.corpus[i] for i in found if self.corpus[i].id != question.gold_passage]
            silent = [
                p
                for p in passages
                if not any(f" {_words(a)} " in f" {_words(p.text)} " for a in question.answers)
            ]
            rival = [self.corpus.get(question.rival_passage)] if question.rival_passage else []
            others = [p for p in [*silent, *passages] if p not in rival]
            self.distractors.append([*rival, *dict.fromkeys(others)][:10])
        self.alike: dict[tuple[str, ...], list[str]] = {}
        for question in self.questions:
            self.alike.setdefault(_form(question), []).append(question.answers[0])

    def _taught(self, question: Question) -> Question | None:
        """The question with the first of its answers that its gold passage holds in front."""
        if question.gold_passage is None:
            return None
        text = f" {_words(self.corpus.get(question.gold_passage).text)} "
        held = [a for a in question.answers if f" {_words(a)} " in text]
        return (
            replace(question, answers=tuple(dict.fromkeys([*held[:1], *question.answers])))
            if held
            else None
        )

    def example(self, rng: random.Random, n: int, negative: float) -> Example:
        """One question with n passages; with probability `negative` the gold one is left out.

        In every third example the answer is exchanged for another of its form.
        """
        at = rng.randrange(len(self.questions))
        question, others = self.questions[at], self.distractors[at]
        if rng.random() < negative:
            return Example(question, tuple(rng.sample(others, n)), None)
        gold = self.corpus.get(question.gold_passage or "")
        if rng.random() < 0.33:
            old = question.answers[0]
            new = exchange(rng, gold, old, self.alike[_form(question)])
            gold = replace(gold, text=re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, gold.text))
            question = replace(question, answers=(new,))
        needed = [self.corpus.get(question.second_passage)] if question.second_passage else []
        shown = [gold, *needed, *(p for p in rng.sample(others[: n + 1], n) if p not in needed)][:n]
        rng.shuffle(shown)
        return Example(question, tuple(shown), shown.index(gold))

    def cloze(self, rng: random.Random) -> Example:
        """A cloze question on a train passage, with that passage."""
        while True:
            passage = rng.choice(self.passages)
            question = cloze(rng, passage)
            if question:
                return Example(question, (passage,), 0)

    def closed_book(self, rng: random.Random) -> Example:
        """A train question alone."""
        return Example(rng.choice(self.questions), (), None)


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: `draw` gives (examples a step, one example's maker).

    `dropout` is that of the trained layers' outputs. Invented worlds never come twice and need
    none; four thousand real questions would soon be known by heart. `source` is a hash of the
    questions and passages of one's own that are drawn from, so that a run goes on only with the
    data it began with.
    """

    name: str
    steps: int
    encoder_rate: float
    decoder_rate: float
    draw: Callable[[random.Random], tuple[int, Callable[[], Example]]]
    dropout: float = 0.0
    source: str = ""


def fine_tuning(tokenizer: Any, source: GoldExamples) -> list[Stage]:
    """For readers that can read already: questions of one's own, with some invented worlds."""
    words = vocabulary_words(tokenizer)

    def own(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        kind = rng.random()
        if kind < 0.5:
            return 24, lambda: source.example(rng, 1, 0.2)
        if kind < 0.85:
            return 6, lambda: source.example(rng, 5, 0.05)
        return 32, lambda: worlds.example(rng, 1, (1, 7), 0.1, words)

    return [Stage("own", 300, 5e-5, 1.5e-4, own, dropout=0.1, source=source.sha256)]


def curriculum(tokenizer: Any) -> list[Stage]:
    """Short invented contexts, long and many invented ones, then MiniWiki mixed with them."""
    words = vocabulary_words(tokenizer)
    wiki: list[GoldExamples] = []

    def short(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        return 64, lambda: worlds.example(rng, 1, (1, 2), 0.1, words)

    def long(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        if rng.random() < 0.6:
            return 48, lambda: worlds.example(rng, 1, (2, 7), 0.2, words)
        n = rng.choice([3, 5])
        return 60 // n, lambda: worlds.example(rng, n, (1, 4), 0.05, words)

    def miniwiki(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        if not wiki:
            from ragbook.corpus import miniwiki as bundled

            wiki.append(GoldExamples(bundled.corpus(), bundled.questions("train")))
        source, kind = wiki[0], rng.random()
        if kind < 0.50:
            return (
                32,
                lambda: source.cloze(rng) if rng.random() < 0.2 else source.example(rng, 1, 0.2),
            )
        if kind < 0.80:
            return 8, lambda: source.example(rng, 5, 0.05)
        if kind < 0.84:
            return 64, lambda: source.closed_book(rng)
        return short(rng) if kind < 0.90 else long(rng)

    return [
        Stage("short-worlds", 700, 1.5e-4, 7e-4, short),
        Stage("long-worlds", 250, 1.5e-4, 5e-4, long),
        Stage("miniwiki", 1700, 1.2e-4, 4e-4, miniwiki, dropout=0.1),
    ]


def train_reader(
    model: Any,
    scorer: SpanScorer,
    stages: Sequence[Stage],
    work: Path,
    seed: int = 0,
    steps: int | None = None,
    progress: bool | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Train or resume encoder, decoder and span scorer; returns their trained tensors (bfloat16).

    Parameters
    ----------
    model, scorer: where training starts; changed in place.
    stages: the curriculum.
    work: folder of checkpoints and logs.
    seed: of everything that is drawn.
    steps: cuts every stage to this many steps, to try the recipe.
    """
    tokenizer = minilm_tokenizer()
    model.set_attn_implementation("eager")  # faster backward here, and the pointer loss needs it
    model, scorer = model.bfloat16(), scorer.bfloat16()
    for name, parameter in model.encoder.named_parameters():
        layer = re.match(r"encoder\.layer\.(\d+)\.", name)
        parameter.requires_grad = layer is not None and int(layer[1]) >= FROZEN_LAYERS
    model.decoder.bert.embeddings.word_embeddings.weight.requires_grad = False
    fresh = [*model.decoder.parameters(), *scorer.parameters()]
    group = 4  # batches of like lengths are cut from this many batches' examples

    for stage in stages:
        set_dropout(model, stage.dropout)
        optimizer = MasterAdamW(
            [(list(model.encoder.parameters()), stage.encoder_rate), (fresh, stage.decoder_rate)]
        )
        pools: dict[int, list[list[Example]]] = {}

        def batch_loss(step: int, stage: Stage = stage, pools: dict = pools):
            torch.manual_seed(step + 1_000_003 * seed)  # a resumed run drops out the same
            number = step // group
            if number not in pools:
                pools.clear()
                rng = random.Random(f"{seed}-{stage.name}-{number}")
                size, make = stage.draw(rng)
                pool = [make() for _ in range(size * group)]
                pool.sort(key=lambda e: sum(len(p.text) for p in e.passages) + len(e.question.text))
                batches = [pool[at : at + size] for at in range(0, len(pool), size)]
                rng.shuffle(batches)
                pools[number] = batches
            batch = collate(tokenizer, pools[number][step % group], scorer.max_span)
            return losses(model, scorer, batch)

        length = stage.steps if steps is None else min(steps, stage.steps)
        train(
            stage.name,
            batch_loss,
            optimizer,
            length,
            work,
            warmup=100 if stage.name == "short-worlds" else 50,
            fingerprint=json.dumps(
                [stage.name, length, stage.encoder_rate, stage.decoder_rate, seed, stage.source]
            ),
            progress=progress,
        )
    return trained_tensors(model, scorer)


def trained_tensors(model: Any, scorer: nn.Module) -> dict[str, dict[str, Tensor]]:
    """What training changed, by file: the encoder's upper layers, the decoder, the span scorer."""
    encoder = {n: p for n, p in model.encoder.named_parameters() if p.requires_grad}
    decoder = {n: p for n, p in model.decoder.named_parameters() if p.requires_grad}
    span = dict(scorer.named_parameters())
    return {
        file: {name: p.detach().bfloat16().contiguous() for name, p in tensors.items()}
        for file, tensors in (("encoder", encoder), ("decoder", decoder), ("span", span))
    }


def recipe(
    out: Path,
    seed: int = 0,
    steps: int | None = None,
    progress: bool | None = None,
    own: tuple[Corpus, Iterable[Question]] | None = None,
) -> None:
    """`ragbook train reader`: train and write encoder, decoder and span files into `out`.

    Without `own`, from the embedded encoder to the bundled readers. With it, from the bundled
    readers to such as know one's own passages and questions. `weights.json` comes last: a folder
    without it is not whole.
    """
    torch.manual_seed(seed)
    tokenizer = minilm_tokenizer()
    if own is None:
        model, scorer, stages = new_reader_model(), SpanScorer(384), curriculum(tokenizer)
    else:
        model, scorer = reader_model(), span_scorer(384)
        stages = fine_tuning(tokenizer, GoldExamples(*own))
    files = train_reader(model, scorer, stages, out / "work", seed, steps, progress)
    for file, tensors in files.items():
        partial = out / f"{file}.partial"
        save_file(tensors, str(partial))
        partial.replace(out / f"{file}.safetensors")
    write_manifest(out)

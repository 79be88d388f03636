r"""Distils the reader into the retriever: FiD-KD (Izacard & Grave 2021b, "Distilling knowledge from
reader to retriever for question answering").

A reader that has read the passages knows which of them it needed. Its cross-attention score of
passage i, before the softmax and averaged over heads, layers and the passage's tokens, is \(G_i\)
(`FiD.first_token_scores`, their section 3.2). The retriever is trained so that its scores of the
passages that it found agree with it:

\[ \mathrm{KL}(\tilde G \,\|\, \tilde S), \quad
   \tilde G_i = \frac{\exp(G_i / \tau)}{\sum_j \exp(G_j / \tau)}, \quad
   \tilde S_i = \frac{\exp(\alpha s_i)}{\sum_j \exp(\alpha s_j)}, \]

where \(s_i\) is the retriever's score, \(\alpha\) the scale under which it is trained, and \(\tau\)
a temperature. Neither gold passages nor answers are used: questions are enough.

The paper compares only the passages of each question, a hundred of them. From the ten or so that a
CPU can read, the retriever would learn their order, while the scores of all other passages could
rise unchecked. So the passages of the batch's other questions are part of the sum in \(\tilde S\)
too, with no share in \(\tilde G\), as negatives are in DPR (Karpukhin et al. 2020, section 3.2).

A round is: retrieve, let the reader score the passages found, train the encoder, build its index.
The next round starts from better passages (their section 3.4). The reader is not changed; the paper
trains it again on each round's passages.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from msgspec import Struct
from torch import Tensor

from ragbook import manifests
from ragbook.corpus import Corpus, Passage, Question, miniwiki
from ragbook.errors import InputError
from ragbook.files import write_json
from ragbook.index import build_index
from ragbook.methods.fid import FiD
from ragbook.models import SeqReader, load_encoder, load_reader
from ragbook.models.devices import choose_precision, device_of, name_of, placed_copy, products_in
from ragbook.models.encoder import Encoder, save_encoder, weights_sha256
from ragbook.models.prompts import passage_text
from ragbook.printable import printable
from ragbook.retrieval import DenseRetriever, Retrieved
from ragbook.training.dpr import epoch_batches, freeze_lower_layers
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.run import Run

PART = 64
"""How many questions' scores are written into one file."""
CHUNK = 32
"""How many passages the encoder reads at a time."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a distillation; the defaults are those of `ragbook train distil`.

    Parameters
    ----------
    rounds: rounds of reading, training and indexing.
    questions: how many questions each round uses; new ones in each round, as long as there are any.
    k: passages found for each question, which are the ones compared.
    epochs: how often a round's questions are shown in training.
    steps: the most updates of a round, to try the recipe; None sets no limit.
    batch: questions in one update.
    rate: peak learning rate.
    frozen_layers: layers from the bottom that are not trained; the embeddings are not either.
    temperature: tau, in the units of the reader's scores.
    in_batch: whether the passages of a batch's other questions count as well; False is the paper's
        loss, for a large k.
    dtype: what reader and towers compute in: `bfloat16`, `float32`, or `auto` for the faster of the
        two.
    """

    rounds: int = 3
    questions: int = 640
    k: int = 10
    epochs: int = 1
    steps: int | None = None
    batch: int = 8
    rate: float = 1e-4
    frozen_layers: int = 2
    temperature: float = 0.5
    in_batch: bool = True
    dtype: str = "auto"

    def on(self, device: torch.device) -> Recipe:
        """The same recipe with the `dtype` that `auto` is on that device."""
        return replace(self, dtype=name_of(choose_precision(self.dtype, device)))


@dataclass(frozen=True)
class Target:
    """A question, the passages found for it, and the reader's score of each of them."""

    question: Question
    passages: tuple[Passage, ...]
    scores: tuple[float, ...]


def divergence(scores: Tensor, targets: Tensor) -> Tensor:
    r"""\(\mathrm{KL}(\tilde G \| \tilde S)\), averaged over the questions: a scalar.

    Its gradient by the retriever's scores is \((\tilde S - \tilde G) / B\).

    Parameters
    ----------
    scores: float [B, P], \(\alpha s\); -inf where a passage does not count for a question.
    targets: float [B, P], G / tau, constants; -inf where the reader has given no score, and
        wherever `scores` are -inf.
    """
    given = targets > float("-inf")
    teacher, student = targets.log_softmax(-1), scores.log_softmax(-1)
    gap = (teacher - student).masked_fill(~given, 0.0)
    return (teacher.exp() * gap).sum(-1).mean()


def reader_targets(
    reader: SeqReader,
    retriever: DenseRetriever,
    questions: Sequence[Question],
    folder: Path,
    recipe: Recipe = Recipe(),
    fingerprint: str = "",
) -> list[Target]:
    """The reader's scores of the passages found for each question.

    They are kept in `folder`, `PART` questions to a file; scores that are there with the same
    fingerprint are not computed again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = device_of(reader.model)
    dtype = choose_precision(recipe.dtype, device)
    out = []
    for at in range(0, len(questions), PART):
        part = questions[at : at + PART]
        found = retriever.retrieve(part, recipe.k)
        path = folder / f"scores-{at // PART:05d}.json"
        rows = _standing(path, fingerprint, [len(one.ids) for one in found])
        if rows is None:
            rows = list[list[float]]()
            for first in range(0, len(part), recipe.batch):
                own = slice(first, first + recipe.batch)
                with products_in(dtype, device):
                    method = FiD(reader, _Given(found[own]))
                    scores = method.first_token_scores(part[own], recipe.k).tolist()
                rows += [row[: len(f.ids)] for row, f in zip(scores, found[own], strict=True)]
            write_json(path, {"fingerprint": fingerprint, "scores": rows}, indent=None)
        out += [
            Target(question, one.passages, tuple(row))
            for question, one, row in zip(part, found, rows, strict=True)
        ]
    return out


def batch_loss(
    encoder: Encoder, targets: Sequence[Target], recipe: Recipe
) -> tuple[Tensor, dict[str, float]]:
    """The divergence of a batch, and figures to log: also the share of its questions for which
    retriever and reader agree on the best passage."""
    passages = list(dict.fromkeys(p for target in targets for p in target.passages))
    passages.sort(key=lambda passage: len(passage_text(passage)))  # little padding
    column = {passage: at for at, passage in enumerate(passages)}
    wanted = torch.full((len(targets), len(passages)), float("-inf"))
    for row, target in enumerate(targets):
        own = [column[passage] for passage in target.passages]
        wanted[row, own] = torch.tensor(target.scores) / recipe.temperature
    queries = encoder.query_vectors([target.question.text for target in targets])
    parts = (passages[first : first + CHUNK] for first in range(0, len(passages), CHUNK))
    vectors = torch.cat([encoder.passage_vectors(part) for part in parts])
    scores = encoder.score_scale * encoder.scores(queries, vectors)
    wanted = wanted.to(scores.device)
    read = wanted > float("-inf")
    own_scores = scores.masked_fill(~read, float("-inf"))
    loss = divergence(scores if recipe.in_batch else own_scores, wanted)
    agreement = (own_scores.argmax(1) == wanted.argmax(1)).float().mean().item()
    return loss, {"divergence": loss.item(), "agreement": agreement}


def train_round(
    encoder: Encoder,
    targets: Sequence[Target],
    out: Path,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    fingerprint: str = "",
    progress: bool | None = None,
) -> Encoder:
    """Train a copy of `encoder` towards the reader's scores, or resume this training, write it into
    `out` and load it. If one tower reads both questions and passages, the copy has one too.

    Raises
    ------
    InputError: `out` holds a run with other settings.
    """
    trained, whole = _copy(encoder), _copy(encoder)
    dtype = choose_precision(recipe.dtype, device_of(encoder.passage_model))
    towers = {id(t): t for t in (trained.passage_model, trained.query_model)}.values()
    for tower in towers:
        freeze_lower_layers(tower, recipe.frozen_layers, dtype)
    per_epoch = len(epoch_batches(targets, recipe.batch, seed, 0))
    steps = recipe.epochs * per_epoch
    if recipe.steps is not None:
        steps = min(steps, recipe.steps)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        epoch, at = divmod(step, per_epoch)
        shown = epoch_batches(targets, recipe.batch, seed, epoch)[at]
        return batch_loss(trained, shown, recipe)

    train(
        "distil",
        loss_of,
        MasterAdamW([(tower.parameters(), recipe.rate) for tower in towers]),
        steps,
        out / "work",
        warmup=max(1, steps // 10),
        fingerprint=fingerprint,
        progress=progress,
    )
    for tower, kept in (
        (trained.passage_model, whole.passage_model),
        (trained.query_model, whole.query_model),
    ):
        # The frozen tensors were only rounded during the run; the copy keeps the exact ones.
        changed = {n: p.detach().float() for n, p in tower.named_parameters() if p.requires_grad}
        kept.load_state_dict(changed, strict=False)
    save_encoder(out, whole)
    return load_encoder(str(out))


def distil(
    reader: SeqReader,
    encoder: Encoder,
    corpus: Corpus,
    questions: Iterable[Question],
    out: Path,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    progress: bool | None = None,
) -> Iterator[DenseRetriever]:
    """Run the rounds, or resume them; yields the retriever before the first and after each round.

    Parameters
    ----------
    reader: any seq2seq model that was trained to read passages.
    encoder: the encoder to start from; it is not changed, copies of it are trained, where it is.
    questions: their answers and gold passages are not used.
    out: the first index is in `start`, each round's encoder in `round-1`, ..., with its index in
        `index` and checkpoints in `work`.
    seed: of the order in which questions are shown.

    Raises
    ------
    InputError: there is no question, or `out` holds a run with other settings.
    """
    asked = list(questions)
    if not asked:
        raise InputError("there is no question to distil with; name a file that has some")
    device = device_of(encoder.passage_model)
    recipe = recipe.on(device)  # so that the settings of a run say what it computes in
    order = random.Random(f"{seed}-distil").sample(range(len(asked)), len(asked))
    read_by = weights_sha256(reader.model)
    shown = progress is not False
    index = build_index(corpus, out / "start", encoder, progress=shown, overwrite=True)
    retriever = DenseRetriever(index, encoder)
    yield retriever
    for number in range(1, recipe.rounds + 1):
        folder = out / f"round-{number}"
        first = (number - 1) * recipe.questions
        wanted = range(first, first + min(recipe.questions, len(asked)))
        own = [asked[order[at % len(asked)]] for at in wanted]
        fingerprint = json.dumps(
            [repr(recipe), seed, read_by, index.digest, encoder.query_sha256, _sha256(own)]
        )
        targets = reader_targets(reader, retriever, own, folder / "work", recipe, fingerprint)
        encoder = train_round(encoder, targets, folder, recipe, seed, fingerprint, progress)
        encoder.to(str(device))
        index = build_index(corpus, folder / "index", encoder, progress=shown, overwrite=True)
        retriever = DenseRetriever(index, encoder)
        yield retriever


def recipe(
    run: Run, *, reader: str = "bundled", encoder: str = "minilm", **conventions: str
) -> None:
    """`ragbook train distil`: writes an encoder into `run.out`, for `--encoder`, and each round's
    encoder and index into `run.work`. It learns from MiniWiki's train questions or your own.
    `conventions` are further arguments of `load_encoder`."""
    start = load_encoder(encoder, **conventions)
    run.begin()
    corpus, questions = run.own or (miniwiki.corpus(), miniwiki.questions("train"))
    teacher = load_reader(reader, "fid")
    # The encoder of its pairs may be another module with the same weights.
    teacher = placed_copy(teacher, [teacher.model, *teacher.pairs.encoders], run.device)
    rounds = distil(
        teacher,
        start.to(str(run.where)),
        corpus,
        questions,
        run.work,
        Recipe(steps=run.steps, dtype=name_of(run.dtype)),
        run.seed,
    )
    *_, last = rounds
    save_encoder(run.out, last.encoder)


class _Given:
    """A retriever that returns passages found before, because the encoder must not compute in the
    reader's lower precision."""

    name, score_scale = "found", 1.0

    def __init__(self, found: list[Retrieved]) -> None:
        self.found = found

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        return self.found


def _copy(encoder: Encoder) -> Encoder:
    """A copy of the encoder and its towers; one tower for both stays one."""
    passage_model, query_model = deepcopy((encoder.passage_model, encoder.query_model))
    return encoder.changed(passage_model=passage_model, query_model=query_model)


class _Scores(Struct):
    """A file of scores: one for each passage found for each question."""

    fingerprint: str
    scores: list[list[float]]


def _standing(path: Path, fingerprint: str, numbers: list[int]) -> list[list[float]] | None:
    """The scores in a file of this run, for so many passages of each question; None if there is no
    file."""
    if not path.exists():
        return None
    try:
        content = manifests.read(path)
        manifests.check(content, _Scores)
        if content["fingerprint"] == fingerprint and [*map(len, content["scores"])] != numbers:
            raise ValueError("it has scores of other passages")
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is damaged ({printable(error)}); delete it, and the same command goes on"
        ) from None
    if content["fingerprint"] != fingerprint:
        raise InputError(
            f"{path} belongs to a run with other settings; name another folder or delete it"
        )
    return content["scores"]


def _sha256(questions: Sequence[Question]) -> str:
    return hashlib.sha256(repr([q.text for q in questions]).encode()).hexdigest()

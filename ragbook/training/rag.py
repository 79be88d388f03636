r"""Trains RAG's question tower and generator together (Lewis et al. 2020, section 2.4).

The loss is the negative marginal log-likelihood of the answers, \(-\log p(y \mid x)\), over the
passages that the question tower finds at that step: it trains the question tower through the prior
\(p(z \mid x)\) and the generator through \(p(y_t \mid x, z, y_{<t})\). Gold passages are not used.
The gradient of the log-likelihood by a passage's score is its posterior minus its prior, so a
question moves towards the passages that gave its answer a higher probability than the others did.
The passage tower and the index do not change, as in the paper: encoding all passages again and
again would cost more than everything else together, and was not needed.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ragbook.corpus import Passage, Question, miniwiki
from ragbook.index import PassageIndex, build_index
from ragbook.methods import rag
from ragbook.models import Encoder, SeqReader, load_encoder, load_reader
from ragbook.models.bundled import WEIGHTS, write_manifest
from ragbook.models.devices import place
from ragbook.models.encoder import save_encoder
from ragbook.models.generator import pad_labels
from ragbook.training.loop import MasterAdamW, train, write_tensors
from ragbook.training.run import Run

MARGINALS = {"rag-sequence": rag.sequence_log_prob, "rag-token": rag.token_log_prob}
MAX_ANSWER = 32
"""Longest answer in training, in tokens."""


@dataclass(frozen=True)
class Recipe:
    """The settings of RAG's training; the defaults are those of `ragbook train rag`.

    Parameters
    ----------
    k: passages found for each question. Only these have an effect on the question tower: with few
        of them it learns their order, and may no longer find others.
    batch: questions in one update.
    parts: forward passes that one update is divided into, to save memory; their gradients add up.
    steps: number of updates.
    query_rate, reader_rate: peak learning rates of question tower and generator; 0 freezes it.
    biases: train only biases and layer norms, of the question tower and of the generator's decoder
        (BitFit, Ben Zaken et al. 2022), which gives files of a few kilobytes; otherwise train
        everything, as in the paper.
    """

    k: int = 20
    batch: int = 8
    parts: int = 1
    steps: int = 100
    query_rate: float = 5e-4
    reader_rate: float = 2e-4
    biases: bool = True


def trainable_prior(
    encoder: Encoder, index: PassageIndex, questions: Sequence[str], k: int
) -> tuple[Tensor, Tensor]:
    """The k best passages of the index and their scores, with gradients to the question tower.

    Returns
    -------
    (log p(z | x) float32 [B, k'], positions int64 [B, k']), k' = min(k, passages).
    """
    queries = encoder.query_vectors(questions)
    _, positions = index.search(queries.detach().cpu().numpy(), k)
    stored = index.vectors(positions.flatten()).reshape(*positions.shape, -1)
    passages = torch.from_numpy(stored).to(queries.device)  # frozen
    scores = encoder.scores(queries, passages)
    return (encoder.score_scale * scores).log_softmax(-1), torch.from_numpy(positions)


def log_likelihood(
    method: str,
    reader: SeqReader,
    encoder: Encoder,
    index: PassageIndex,
    questions: Sequence[Question],
    k: int,
) -> Tensor:
    """log p(first answer | question) of RAG-Sequence or RAG-Token, nats, float32 [B], with
    gradients to all parameters of question tower and generator that require them."""
    log_prior, positions = trainable_prior(encoder, index, [q.text for q in questions], k)
    passages = [[index.corpus[at] for at in found] for found in positions.tolist()]
    return marginal_log_likelihood(method, reader, questions, passages, log_prior)


def marginal_log_likelihood(
    method: str,
    reader: SeqReader,
    questions: Sequence[Question],
    passages: Sequence[Sequence[Passage | None]],
    log_prior: Tensor,
) -> Tensor:
    """log p(first answer | question) over the given passages, nats, float32 [B], with gradients to
    the generator and to `log_prior`, log p(z | x), float32 [B, n].

    All questions have n passages. For a passage None, the question is read alone.
    """
    B, n = log_prior.shape
    device = next(reader.model.parameters()).device
    inputs = reader.pairs.layout(
        reader.tokenizer,
        [q.text for q in questions for _ in range(n)],
        [passage for found in passages for passage in found],
    )
    tensors = {name: value.to(device) for name, value in inputs.tensors.items()}
    answers = [reader.answer_ids(q.answers[0])[:-1] for q in questions]
    labels = pad_labels([[*one[: MAX_ANSWER - 1], reader.end] for one in answers]).to(device)
    states = reader.model.get_encoder()(**tensors).last_hidden_state
    wide = labels.repeat_interleave(n, 0)
    logits = reader.forward(states, tensors["attention_mask"], reader.teacher_forcing(wide)).logits
    log_probs = logits[:, len(reader.opening) :].float().log_softmax(-1)
    token_log_probs = log_probs.gather(-1, wide.clamp_min(0)[:, :, None]).squeeze(-1)
    own = labels != -100
    return MARGINALS[method](token_log_probs.reshape(B, n, -1), log_prior.to(device), own)


def train_rag(
    method: str,
    reader: SeqReader,
    encoder: Encoder,
    index: PassageIndex,
    questions: Sequence[Question],
    work: Path,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    progress: bool | None = None,
) -> None:
    """Train `reader` and `encoder.query_model` in place, or resume their training.

    Parameters
    ----------
    method: `rag-sequence` or `rag-token`, whose likelihood is maximised.
    reader: the generator, any seq2seq model. Its parameters may be bfloat16, and on another device.
    encoder: its question tower must not be its passage tower; see `Encoder.untied`.
    index: built with the encoder's passage tower.
    questions: each has at least one answer; gold passages are not used.
    work: folder of checkpoints and the log.
    recipe: the settings.
    seed: of the order in which questions are shown.

    Raises
    ------
    InputError: another encoder built the index, or `work` holds a run with other settings.
    """
    index.check_encoder(encoder)
    trained = _trained(reader, encoder, recipe)

    def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        shown = random.Random(f"{seed}-{step}").choices(questions, k=recipe.batch)
        losses = _parts(method, reader, encoder, index, shown, recipe)
        total, last = 0.0, torch.zeros(())
        for number, last in enumerate(losses, 1):
            total += last.item()
            if number < recipe.parts:
                last.backward()
        return last, {"nll": total}

    train(
        method,
        batch_loss,
        MasterAdamW(trained, weight_decay=0.0),
        recipe.steps,
        work,
        warmup=max(1, recipe.steps // 8),
        fingerprint=json.dumps([method, repr(recipe), seed, _sha256(questions), index.digest]),
        progress=progress,
    )


def _parts(
    method: str,
    reader: SeqReader,
    encoder: Encoder,
    index: PassageIndex,
    shown: Sequence[Question],
    recipe: Recipe,
) -> Iterator[Tensor]:
    """The parts of an update's loss; their sum is the mean over its questions."""
    size = -(-len(shown) // recipe.parts)
    for at in range(0, len(shown), size):
        part = shown[at : at + size]
        likelihood = log_likelihood(method, reader, encoder, index, part, recipe.k)
        yield -likelihood.sum() / len(shown)


def small_parameters(model: Any) -> dict[str, nn.Parameter]:
    """Biases and layer norms by name, without the output layer's bias, which could learn answers by
    heart."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 1 and parameter.numel() < model.config.vocab_size
    }


def _trained(
    reader: SeqReader, encoder: Encoder, recipe: Recipe
) -> list[tuple[list[nn.Parameter], float]]:
    """Freeze all other parameters, and return the trained ones with their peak rates."""
    for model in (reader.model, encoder.query_model):
        model.eval().requires_grad_(False)
    if recipe.biases:
        towers = (
            small_parameters(encoder.query_model).values(),
            small_parameters(reader.model.get_decoder()).values(),
        )
    else:
        towers = (encoder.query_model.parameters(), reader.model.parameters())
    groups = zip(map(list, towers), (recipe.query_rate, recipe.reader_rate), strict=True)
    trained = [(parameters, rate) for parameters, rate in groups if rate]
    for parameters, _ in trained:
        for parameter in parameters:
            parameter.requires_grad = True
    return trained


def recipe(run: Run) -> None:
    """`ragbook train rag`: trains both methods from the bundled reader and encoder, over an index
    in `run.out`, on MiniWiki's train questions or your own.

    It writes a folder for each method, which both `--reader` and `--encoder` accept.
    """
    run.begin()
    torch.manual_seed(run.seed)
    corpus, questions = run.own or (miniwiki.corpus(), miniwiki.questions("train"))
    encoder = load_encoder().to(str(run.where))
    index = build_index(corpus, run.out / "index", encoder, overwrite=True)
    chosen = Recipe()
    chosen = replace(chosen, steps=run.cut(chosen.steps))
    for method in MARGINALS:
        work, folder = run.work / method, run.out / method
        reader, encoder = trained_pair(
            method,
            index,
            list(questions),
            work,
            chosen,
            run.seed,
            device=run.device,
            precision=run.precision,
        )
        folder.mkdir(exist_ok=True)
        for file in ("encoder", "decoder", "span"):
            shutil.copy(WEIGHTS / f"{file}.safetensors", folder)
        small = small_parameters(reader.model.get_decoder())
        own = {name: parameter.detach().bfloat16() for name, parameter in small.items()}
        write_tensors(folder / f"{method}.safetensors", own)
        save_encoder(folder, encoder)
        write_manifest(folder)


def trained_pair(
    method: str,
    index: PassageIndex,
    questions: Sequence[Question],
    work: Path,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    progress: bool | None = None,
    device: str = "cpu",
    precision: str = "auto",
) -> tuple[SeqReader, Encoder]:
    """The bundled reader and the embedded encoder, trained together; parameters as in `train_rag`.

    They are trained on `device` and in `precision`, and come back float32 and on the CPU; tensors
    that were not trained keep their exact values.
    """
    readers = [_copy(load_reader()) for _ in range(2)]
    encoders = [load_encoder().untied() for _ in range(2)]
    for model in (readers[0].model, encoders[0].query_model):
        place(model, device, precision)
    train_rag(method, readers[0], encoders[0], index, questions, work, recipe, seed, progress)
    for rounded, whole in (
        (readers[0].model, readers[1].model),
        (encoders[0].query_model, encoders[1].query_model),
    ):
        changed = {n: p.detach().float() for n, p in rounded.named_parameters() if p.requires_grad}
        whole.load_state_dict(changed, strict=False)
    return readers[1], encoders[1]


def _copy(reader: SeqReader) -> SeqReader:
    """A copy of the reader and its model, with the same layout and opening tokens."""
    model = deepcopy(reader.model)
    return SeqReader(model, reader.tokenizer, reader.name, reader.pairs.layout, reader.opening)


def _sha256(questions: Sequence[Question]) -> str:
    said = repr([(q.text, q.answers[0]) for q in questions])
    return hashlib.sha256(said.encode()).hexdigest()

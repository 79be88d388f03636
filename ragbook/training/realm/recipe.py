"""`ragbook train realm`: pre-training and fine-tuning of REALM on a corpus.

Each stage can be resumed. First the reader is trained on masked sentences; then pre-training trains
retriever and reader together; then the passages' vectors are fixed, and pairs of question and
answer train the question tower and the span scorer.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ragbook.corpus import Corpus, Question, miniwiki
from ragbook.index import PassageIndex, build_index
from ragbook.models import Encoder, load_encoder, load_span_reader
from ragbook.models.bundled import BUNDLED, WEIGHTS, write_manifest
from ragbook.models.checkpoints.realm import save_realm_encoder
from ragbook.models.devices import place
from ragbook.models.embedded import minilm_model, minilm_tokenizer
from ragbook.models.encoder import save_encoder, weights_sha256
from ragbook.models.masked import MaskedReader
from ragbook.models.projected import NarrowTower
from ragbook.models.span import SpanReader
from ragbook.training.loop import write_tensors
from ragbook.training.realm.cloze import ClozeRecipe, train_cloze
from ragbook.training.realm.masked_reader import (
    ReaderRecipe,
    new_masked_reader,
    train_masked_reader,
)
from ragbook.training.realm.masking import MASKS, Masked, masked_sentences
from ragbook.training.realm.open_qa import QaRecipe, train_open_qa
from ragbook.training.realm.pretraining import RealmRecipe, train_realm
from ragbook.training.run import Run

WHOLE_MAP = 1e-4
"""Peak learning rate of a map that starts from a good retriever: low, so as not to spoil it."""


def mapped_encoder(weight: Tensor) -> Encoder:
    """The embedded encoder's vectors through a linear map, which is quick to train.

    The map is the projection at the end of REALM's embedder (section 3.2). The encoder below it is
    rounded to bfloat16 and is not trained.

    Parameters
    ----------
    weight: the map, float32 [dimension, 384].
    """
    body = minilm_model()
    config = deepcopy(body.config)
    config.retriever_proj_size, config.frozen_body = len(weight), True
    tower = NarrowTower(config)
    tower.body.load_state_dict(body.bfloat16().state_dict())
    with torch.no_grad():
        tower.projection.weight.copy_(weight)
    return Encoder(
        tower,
        minilm_tokenizer(),
        f"minilm-mapped-{len(weight)}",
        weights_sha256(tower),
        20.0,
        pooling="cls",
    )


def warm_start(
    encoder: Encoder,
    corpus: Corpus,
    masked: Sequence[Sequence[Masked]],
    work: Path,
    cloze: ClozeRecipe | None,
    reading: ReaderRecipe,
    seed: int = 0,
    progress: bool | None = None,
    device: str = "cpu",
    precision: str = "auto",
) -> tuple[MaskedReader, Encoder]:
    """Train the models that REALM's pre-training starts from, or resume: a masked reader, and the
    retriever, with the inverse cloze task if it needs that. If they are already trained, they are
    taken from `work`.

    Parameters
    ----------
    encoder: the retriever to start from, as `mapped_encoder` makes it; changed in place.
    masked: the sentences that the reader learns from; the more kinds of masks the better.
    cloze: the inverse cloze task (section 3.4), for a retriever that cannot find anything yet;
        None for one that can.
    device, precision: of both, from here on; only the encoder's map stays float32.
    """
    reader = new_masked_reader(seed)
    place(encoder.passage_model, device)
    for module in (encoder.passage_model.body, reader.model, reader.head):
        place(module, device, precision)
    if cloze is not None:
        train_cloze(encoder, corpus, work, cloze, seed, progress)
    train_masked_reader(reader, corpus, masked, work, reading, seed, progress)
    return reader, encoder


def fine_tuned(
    encoder: Encoder,
    index: PassageIndex,
    questions: Sequence[Question],
    work: Path,
    recipe: QaRecipe,
    seed: int = 0,
    progress: bool | None = None,
    reader: str = BUNDLED,
    device: str = "cpu",
    precision: str = "auto",
) -> tuple[SpanReader, Encoder]:
    """REALM's span reader and the encoder, fine-tuned on questions over the encoder's index; both
    come back float32 and on the CPU.

    The encoder's passage tower is not changed; neither is the encoder of the reader. `reader` is
    the bundled one or a folder that `ragbook train reader` wrote. `device` and `precision` are of
    the training; the scorer, which is small, is float32 in any.
    """
    bundled = load_span_reader(reader, "realm")
    model = place(deepcopy(bundled.pairs.encoder), device, precision)  # not trained, only encodes
    scorer, tuned = place(deepcopy(bundled.scorer), device), encoder.untied()
    place(tuned.query_model, device, precision)
    train_open_qa(
        model, scorer, bundled.tokenizer, tuned, index, questions, work, recipe, seed, progress
    )
    whole = encoder.changed(
        query_model=place(tuned.query_model),
        query_sha256=weights_sha256(tuned.query_model),
    )
    return SpanReader(bundled.pairs.encoder, place(scorer), bundled.tokenizer, "realm"), whole


def whole_reader(reader: MaskedReader) -> MaskedReader:
    """The same reader in float32, on the CPU."""
    model, head = place(deepcopy(reader.model)), place(deepcopy(reader.head))
    return MaskedReader(model.eval(), head.eval(), reader.tokenizer, reader.titles)


def recipe(run: Run, background: bool = False) -> None:
    """`ragbook train realm`, on MiniWiki and its train questions or on your own data.

    The retriever starts as the embedded encoder, followed by a linear map that is trained.

    With `background`, a second process builds the new indexes while pre-training goes on; without
    it pre-training waits for each, and the run can be repeated bit by bit.

    It writes into `run.out` the folders `pretrained` (the encoder, and in `reader` the
    knowledge-augmented encoder in the original layout), `index` (of that encoder), and `realm`,
    which both `--encoder` and `--reader` accept.
    """
    run.begin()
    corpus, questions = run.own or (miniwiki.corpus(), miniwiki.questions("train"))
    masked, others = (
        masked_sentences(minilm_tokenizer(), corpus, masks, run.seed) for masks in MASKS
    )
    reading, qa = ReaderRecipe(), QaRecipe()
    realm = RealmRecipe(retriever_rate=WHOLE_MAP)
    reader, encoder = warm_start(
        mapped_encoder(torch.eye(minilm_model().config.hidden_size)),
        corpus,
        [*masked, *others],
        run.work,
        None,
        replace(reading, steps=run.cut(reading.steps)),
        run.seed,
        device=run.device,
        precision=run.precision,
    )
    realm = replace(realm, steps=run.cut(realm.steps), background=background)
    train_realm(reader, encoder, corpus, masked, run.work, realm, run.seed)
    pretrained = run.out / "pretrained"
    save_encoder(pretrained, encoder)
    save_realm_encoder(pretrained / "reader", whole_reader(reader))
    encoder = load_encoder(str(pretrained)).to(str(run.where))
    index = build_index(corpus, run.out / "index", encoder, overwrite=True)
    qa = replace(qa, steps=run.cut(qa.steps))
    span_reader, encoder = fine_tuned(
        encoder.to("cpu"),
        index,
        list(questions),
        run.work,
        qa,
        run.seed,
        device=run.device,
        precision=run.precision,
    )

    folder = run.out / "realm"
    folder.mkdir(exist_ok=True)
    for file in ("encoder", "decoder", "span"):
        shutil.copy(WEIGHTS / f"{file}.safetensors", folder)
    scorer = dict(span_reader.scorer.named_parameters())
    write_tensors(folder / "realm.safetensors", {n: p.detach() for n, p in scorer.items()})
    save_encoder(folder, encoder)
    write_manifest(folder)

"""`ragbook train realm`: from a retriever and a corpus to answers.

Each stage can be resumed. Masked sentences give the reader its start; pre-training lets retriever
and reader teach each other; then the passages' vectors are fixed, and pairs of question and answer
train the question tower and the span scorer.
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
"""Peak learning rate of a map that starts from a good retriever, and has that to lose."""


def mapped_encoder(weight: Tensor) -> Encoder:
    """The embedded encoder's vectors through a linear map, which is quick to train.

    The map is the projection that REALM's embedder ends in (section 3.2). The encoder under it is
    rounded to bfloat16 and stays as it is.

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
) -> tuple[MaskedReader, Encoder]:
    """Train or resume what REALM starts from, or take it from `work` where it is done: a masked
    reader in bfloat16, and the retriever, after the inverse cloze task where it needs that.

    Parameters
    ----------
    encoder: the retriever to start from, as `mapped_encoder` makes it; changed in place.
    masked: what the reader learns from; the more kinds of masks the better.
    cloze: the inverse cloze task (section 3.4), for a retriever that cannot find anything yet;
        None for one that can.
    """
    reader = new_masked_reader(seed)
    for module in (encoder.passage_model.body, reader.model, reader.head):
        module.bfloat16()
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
) -> tuple[SpanReader, Encoder]:
    """REALM's span reader and the encoder, tuned to questions over the encoder's index.

    The encoder's passage tower is the one given, and so is the encoder of the reader, the bundled
    one or that of a folder that `ragbook train reader` wrote.
    """
    bundled = load_span_reader(reader, "realm")
    model = deepcopy(bundled.pairs.encoder).bfloat16()  # it is not trained; here it only reads
    scorer, tuned = deepcopy(bundled.scorer), encoder.untied()
    tuned.query_model.bfloat16()
    train_open_qa(
        model, scorer, bundled.tokenizer, tuned, index, questions, work, recipe, seed, progress
    )
    whole = encoder.changed(
        query_model=tuned.query_model.float(),
        query_sha256=weights_sha256(tuned.query_model),
    )
    return SpanReader(bundled.pairs.encoder, scorer, bundled.tokenizer, "realm"), whole


def whole_reader(reader: MaskedReader) -> MaskedReader:
    """The same reader in float32."""
    model, head = deepcopy(reader.model).float(), deepcopy(reader.head).float()
    return MaskedReader(model.eval(), head.eval(), reader.tokenizer, reader.titles)


def recipe(run: Run, background: bool = False) -> None:
    """`ragbook train realm`, on MiniWiki and its train questions or on one's own.

    The retriever starts as the embedded encoder, whose vectors pass through a map that is trained.

    With `background`, a second process builds the refreshed indexes while pre-training goes on;
    without it pre-training waits for each, and the run can be repeated bit by bit.

    In `run.out` stand `pretrained` (the encoder, and in `reader` the knowledge-augmented encoder in
    the original layout), `index` (of that encoder), and `realm`, a folder that `--encoder` and
    `--reader` both take.
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
    )
    realm = replace(realm, steps=run.cut(realm.steps), background=background)
    train_realm(reader, encoder, corpus, masked, run.work, realm, run.seed)
    pretrained = run.out / "pretrained"
    save_encoder(pretrained, encoder)
    save_realm_encoder(pretrained / "reader", whole_reader(reader))
    encoder = load_encoder(str(pretrained))
    index = build_index(corpus, run.out / "index", encoder, overwrite=True)
    qa = replace(qa, steps=run.cut(qa.steps))
    span_reader, encoder = fine_tuned(encoder, index, list(questions), run.work, qa, run.seed)

    folder = run.out / "realm"
    folder.mkdir(exist_ok=True)
    for file in ("encoder", "decoder", "span"):
        shutil.copy(WEIGHTS / f"{file}.safetensors", folder)
    scorer = dict(span_reader.scorer.named_parameters())
    write_tensors(folder / "realm.safetensors", {n: p.detach() for n, p in scorer.items()})
    save_encoder(folder, encoder)
    write_manifest(folder)

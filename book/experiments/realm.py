"""REALM's ablations: refreshed or stale index, salient or random masks, one softmax or two.

`python -m book.experiments.realm book/results/realm.json` measures what chapter 4 plots, on
MiniWiki with a damaged retriever; every run has the same warm start. Sections that the file already
holds are not measured again, and a killed run goes on from its last checkpoint in `build/realm`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragbook.corpus import (
    Corpus,
    Question,
    load_corpus,
    load_questions,
    miniwiki,
)
from ragbook.evaluation.metrics import exact_matches, is_hit
from ragbook.evaluation.statistics import mean_ci, paired_test
from ragbook.index import PassageIndex, build_index
from ragbook.methods.base import posterior
from ragbook.methods.realm import Realm, retrieval_utility
from ragbook.models import Encoder, load_encoder
from ragbook.models.bundled import BUNDLED
from ragbook.models.embedded import minilm_model, minilm_tokenizer
from ragbook.models.encoder import save_encoder
from ragbook.models.masked import MaskedReader
from ragbook.retrieval import DenseRetriever
from ragbook.training.realm.cloze import ClozeRecipe
from ragbook.training.realm.masked_reader import ReaderRecipe
from ragbook.training.realm.masking import MASKS, Masked, masked_sentences
from ragbook.training.realm.open_qa import QaRecipe
from ragbook.training.realm.pretraining import (
    RealmRecipe,
    retrieve_then_predict,
    train_realm,
)
from ragbook.training.realm.recipe import fine_tuned, mapped_encoder, warm_start

from .report import answered, write_sections

KS = (1, 5, 20)
SEED = 0
SAMPLE = 800
"""How many test questions are answered after fine-tuning."""

WHOLE_TOWER = 2e-5
"""Peak learning rate of a question tower of which all layers are trained."""

LATENT = 12
"""How many sentences' prior and posterior are stored, before and after pre-training."""


DIMENSION = 64
"""Length of the damaged retriever's vectors; the embedded encoder's have length 384."""


def damaged_map(dimension: int = DIMENSION, seed: int = 0) -> Tensor:
    """A random linear map to fewer dimensions, each of which is scaled at random: float32
    [dimension, 384].

    The factors are log-normal, so that a few dimensions dominate all others. This makes a poor
    retriever, with which the effect of training can be seen.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = minilm_model().config.hidden_size
    drawn = torch.randn(dimension, hidden, generator=generator) / dimension**0.5
    return drawn * torch.randn(dimension, 1, generator=generator).exp()


class Measurement:
    """The passages, questions, masked sentences and the folder of runs that all sections use.

    Parameters
    ----------
    work: the folder of runs.
    corpus: the passages; the questions' gold passages are among them.
    train, dev, test: questions to fine-tune on, to monitor a run with, and to measure with.
    """

    def __init__(
        self,
        work: Path,
        corpus: Corpus,
        train: Sequence[Question],
        dev: Sequence[Question],
        test: Sequence[Question],
    ) -> None:
        self.work, self.corpus = work, corpus
        self.train, self.dev, self.test = list(train), list(dev), list(test)

    @cached_property
    def masked(self) -> dict[str, list[tuple[Masked, ...]]]:
        """The masked sentences, by kind of mask: salient or random."""
        return {
            masks: masked_sentences(
                minilm_tokenizer(), self.corpus, masks, SEED
            )
            for masks in MASKS
        }

    def start(self) -> tuple[MaskedReader, Encoder]:
        """The warm start of every run, trained at the first call."""
        every = [ways for masked in self.masked.values() for ways in masked]
        return warm_start(
            mapped_encoder(damaged_map(seed=SEED)),
            self.corpus,
            every,
            self.work / "start",
            ClozeRecipe(),
            ReaderRecipe(),
            SEED,
            False,
        )

    def hits(self, encoder: Encoder, index: PassageIndex) -> np.ndarray:
        """Whether the first k passages for each test question hold its gold passage: bool
        [n, len(KS)]."""
        positions = self._search(encoder, index, self.test, max(KS))
        gold = np.array(
            [self.corpus.position(q.gold_passage or "") for q in self.test]
        )
        there = positions == gold[:, None]
        return np.stack([there[:, :k].any(1) for k in KS], 1)

    def dev_recall(
        self, encoder: Encoder
    ) -> Callable[[PassageIndex], dict[str, float]]:
        """A function that gives recall@5 on the dev questions, for the log of a run."""
        gold = [self.corpus.position(q.gold_passage or "") for q in self.dev]

        def recall(index: PassageIndex) -> dict[str, float]:
            found = self._search(encoder, index, self.dev, 5).tolist()
            hits = [at in row for at, row in zip(gold, found, strict=True)]
            return {"recall@5": float(np.mean(hits))}

        return recall

    @staticmethod
    def _search(
        encoder: Encoder,
        index: PassageIndex,
        questions: Sequence[Question],
        k: int,
    ) -> np.ndarray:
        return index.search(
            encoder.encode_queries([q.text for q in questions]), k
        )[1]


def beginnings(m: Measurement) -> dict[str, Any]:
    """Recall of the damaged embedder before and after the inverse cloze task, and the numbers of
    masked sentences."""
    out: dict[str, Any] = {"questions": len(m.test), "passages": len(m.corpus)}
    for masks, ways in m.masked.items():
        out[masks] = {"sentences": len(ways), "masks": sum(map(len, ways))}
    raw = mapped_encoder(damaged_map())
    _, warm = m.start()
    for name, encoder in (("damaged", raw), ("cloze", warm)):
        index = build_index(
            m.corpus, m.work / name, encoder, progress=False, overwrite=True
        )
        out[name] = _recall(m.hits(encoder, index))
    for name in ("cloze", "reader"):
        out[f"{name}_log"] = _rows(m.work / "start" / f"{name}.log.jsonl")
    return out


def pretraining(
    m: Measurement, name: str, masks: str, recipe: RealmRecipe
) -> dict[str, Any]:
    """One run from the warm start: its logs, the trained retriever's recall, and the gain over the
    start, paired by question."""
    reader, encoder = m.start()
    before = m.hits(encoder, PassageIndex.open(m.work / "cloze"))
    index = train_realm(
        reader,
        encoder,
        m.corpus,
        m.masked[masks],
        m.work / name,
        recipe,
        SEED,
        m.dev_recall(encoder),
        False,
    )
    after = m.hits(encoder, index)
    save_encoder(m.work / name / "encoder", encoder)
    np.save(m.work / name / "hits.npy", after)
    return {
        "masks": masks,
        "recipe": asdict(recipe),
        "log": _rows(m.work / name / "realm.log.jsonl"),
        "refresh": _rows(m.work / name / "refresh.jsonl"),
        "recall": _recall(after),
        "gain": {
            str(k): asdict(paired_test(after[:, i], before[:, i]))
            for i, k in enumerate(KS)
        },
    }


def differences(m: Measurement, names: Sequence[str]) -> dict[str, Any]:
    """Recall@5 of the first run minus that of each other run, on the same questions."""
    hits = {
        name: np.load(m.work / name / "hits.npy")[:, KS.index(5)]
        for name in names
    }
    first, *others = names
    return {
        name: asdict(paired_test(hits[first], hits[name])) for name in others
    }


def latent(
    m: Measurement, name: str, recipe: RealmRecipe
) -> list[dict[str, Any]]:
    """The candidates of a few masked sentences with prior, posterior and retrieval utility, before
    and after pre-training."""
    reader, encoder = m.start()
    start = PassageIndex.open(m.work / "cloze")
    sentences = random.Random(SEED).sample(m.masked["salient"], LATENT)
    shown = [ways[0] for ways in sentences]
    rows = [
        {
            "text": one.text,
            "answer": minilm_tokenizer().decode(list(one.answer)),
        }
        for one in shown
    ]
    for when, index in (("before", start), ("after", None)):
        if index is None:
            index = train_realm(
                reader, encoder, m.corpus, m.masked["salient"], m.work / name, recipe, SEED,
                m.dev_recall(encoder), False,
            )  # fmt: skip
        with torch.no_grad():
            found = retrieve_then_predict(
                reader, encoder, index, shown, recipe.k
            )
        given = found.answer_log_probs
        # The null document's learned score is left out: only passages are compared here.
        prior = found.log_prior[:, 1:].log_softmax(-1)
        after = posterior(prior, given[:, 1:])
        worth = retrieval_utility(given, given[:, 0])[:, 1:]
        for b, row in enumerate(rows):
            row[when] = [
                {
                    "passage": m.corpus[at].id,
                    "holds": at in shown[b].holders,
                    "prior": prior[b, z].exp().item(),
                    "posterior": after[b, z].item(),
                    "utility": worth[b, z].item(),
                }
                for z, at in enumerate(found.positions[b].tolist())
            ]
    return rows


def answering(
    m: Measurement,
    encoder: Encoder,
    name: str,
    recipe: QaRecipe,
    reader_name: str = BUNDLED,
) -> dict[str, Any]:
    """After fine-tuning an encoder's question tower and the bundled span scorer: exact match on a
    sample of the test questions, recall on all of them, and recall before."""
    index = build_index(
        m.corpus,
        m.work / f"{name}-index",
        encoder,
        progress=False,
        overwrite=True,
    )
    before = _recall(m.hits(encoder, index))
    reader, tuned = fine_tuned(
        encoder, index, m.train, m.work / name, recipe, SEED, False, reader_name
    )
    retriever = DenseRetriever(index, tuned)
    method = Realm(reader, retriever, orqa=recipe.objective == "orqa")
    found = retriever.retrieve(m.test, max(KS))
    hits = np.array(
        [
            [is_hit(q, f, k) for k in KS]
            for q, f in zip(m.test, found, strict=True)
        ]
    )
    asked = random.Random(SEED).sample(m.test, min(SAMPLE, len(m.test)))
    answers = answered({"realm": method}, asked)["realm"]
    right = exact_matches(answers, asked)
    return {
        "recipe": asdict(recipe),
        "n": len(asked),
        "k": 5,
        "em": mean_ci(right),
        "recall": _recall(hits),
        "recall_before": before,
        "log": _rows(m.work / name / f"qa-{recipe.objective}.log.jsonl"),
    }


def _recall(hits: np.ndarray) -> dict[str, Any]:
    return {str(k): mean_ci(hits[:, i].tolist()) for i, k in enumerate(KS)}


def _rows(path: Path) -> list[dict[str, float]]:
    return [
        json.loads(line)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def sections(m: Measurement) -> Mapping[str, Callable[[], Any]]:
    """The measurements by their names in the results, in an order in which they can be made."""
    full = RealmRecipe()

    def pretrained() -> Encoder:
        return load_encoder(str(m.work / "refreshed" / "encoder"))

    return {
        "start": lambda: beginnings(m),
        "refreshed": lambda: pretraining(m, "refreshed", "salient", full),
        "stale": lambda: pretraining(
            m, "stale", "salient", replace(full, refresh=0)
        ),
        "random": lambda: pretraining(m, "random", "random", full),
        "differences": lambda: differences(m, ["refreshed", "stale", "random"]),
        "latent": lambda: latent(m, "refreshed", full),
        "realm": lambda: answering(m, pretrained(), "qa", QaRecipe()),
        "orqa": lambda: answering(m, pretrained(), "qa-orqa", QaRecipe("orqa")),
        "embedded": lambda: answering(
            m, load_encoder(), "qa-embedded", QaRecipe(query_rate=WHOLE_TOWER)
        ),
    }


def main(out: str, *arguments: str) -> None:
    """Measure everything, or the named sections; or with `own CORPUS TRAIN TEST READER` measure
    fine-tuning on your own passages and questions."""
    work = Path("build/realm")
    if arguments[:1] == ("own",):
        corpus, train, test, reader = arguments[1:]
        tune, ask = (
            list(load_questions(name, "train")) for name in (train, test)
        )
        own = Measurement(work / "own", load_corpus(corpus), tune, ask, ask)
        recipe = QaRecipe(query_rate=WHOLE_TOWER)
        write_sections(
            Path(out),
            {
                "own": lambda: answering(
                    own, load_encoder(), "qa", recipe, reader
                )
            },
        )
        return
    train, dev, test = (
        miniwiki.questions(split) for split in ("train", "dev", "test")
    )
    every = sections(Measurement(work, miniwiki.corpus(), train, dev, test))
    write_sections(
        Path(out),
        {n: one for n, one in every.items() if not arguments or n in arguments},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

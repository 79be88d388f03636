"""Tunes the settings of kNN-LM on dev data only, and lists the bundled weights' files.

`python -m ragbook.evaluation.tuning FOLDER` is the last step of a retraining: it loads the language
model in the folder, tunes lambda and temperature, and writes `weights.json` with every file's hash.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from ragbook.corpus import miniwiki
from ragbook.evaluation.perplexity import score
from ragbook.methods.knn_lm import KnnLM, tune
from ragbook.models import LanguageModel, load_encoder, load_language_model
from ragbook.models.bundled import write_manifest


def tune_answers(lm: LanguageModel, k: int = 5) -> dict[str, float]:
    """Lambda and temperature that give the dev answers' tokens the highest mean log-probability."""
    from ragbook.index import build_index
    from ragbook.retrieval import DenseRetriever

    questions = list(miniwiki.questions("dev"))
    encoder, corpus = load_encoder(), miniwiki.corpus()
    index = build_index(corpus, Path("build/tuning-index"), encoder, overwrite=True)
    retriever = DenseRetriever(index, encoder)
    method = KnnLM(lm, retriever, lam=0.0, temperature=1.0)
    parts = []
    for question, found in zip(questions, retriever.retrieve(questions, k), strict=True):
        tokens = lm.answer_ids(question.answers[0])
        parts.append(method.neighbours(question, tokens, method.datastore(found)))
    lam, temperature, _ = tune(
        torch.cat([own for own, _, _ in parts]),
        [distances for _, distances, _ in parts],
        [hits for _, _, hits in parts],
    )
    return {"lam": lam, "temperature": temperature}


def tune_text(lm: LanguageModel) -> dict[str, float]:
    """Lambda and temperature that give the lowest perplexity on the held-out dev articles."""
    documents = ["\n".join(p.text for p in a.passages) for a in miniwiki.heldout("dev")]
    found = score(documents, miniwiki.corpus(), lm)
    lam, temperature, _ = tune(
        torch.cat([one.base for one in found]),
        [one.distances for one in found],
        [one.hits for one in found],
    )
    return {"lam": lam, "temperature": temperature}


def main(folder: Path) -> None:
    """Write `weights.json` of the folder: first with the files only, so that the language model can
    be loaded, then with the tuned settings."""
    write_manifest(folder)
    lm = load_language_model(str(folder))
    settings = {"knn_lm": tune_answers(lm), "perplexity": tune_text(lm)}
    write_manifest(folder, **settings)
    print(json.dumps(settings))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

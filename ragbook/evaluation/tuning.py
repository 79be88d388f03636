"""Tunes the settings of the methods on dev data only, and lists the bundled weights' files.

`python -m ragbook.evaluation.tuning FOLDER` is the last step of a retraining. It writes
`weights.json` with every file's hash, and for all methods that write, kNN-LM's lambda and
temperature and the length penalty, once with the weights that each method trained and once with the
shared ones; all by the same rule, from the same number of values.
`... FOLDER --corpus CORPUS --questions QUESTIONS` chooses them on dev questions of your own, and
leaves the settings for perplexity as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ragbook.corpus import Corpus, Question, load_corpus, load_questions, miniwiki
from ragbook.evaluation.metrics import exact_matches
from ragbook.evaluation.perplexity import score
from ragbook.methods import load
from ragbook.methods.knn_lm import KnnLM, tune
from ragbook.models import (
    LanguageModel,
    load_adapted_language_model,
    load_encoder,
    load_language_model,
)
from ragbook.models.bundled import BUNDLED, manifest, write_manifest
from ragbook.retrieval import Retriever

PENALTIES = (0.0, 1.0, 2.0)
"""The length penalties that are tried; 0 compares log-probabilities, 1 their means over tokens."""
UNTRAINED = ("in-context",)
"""The method that writes and has no training of its own: its reader is the shared one."""
TRAINED = ("knn-lm", "rag-sequence", "rag-token", "fid")
SAMPLE, BATCH = 160, 16
"""How many dev questions a penalty is chosen on, and how many are answered at once."""


def tune_answers(
    lm: LanguageModel, retriever: Retriever, questions: Sequence[Question], k: int = 5
) -> dict[str, float]:
    """Lambda and temperature that give the answers' tokens the highest mean log-probability."""
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


def choose_length_penalties(
    names: Sequence[str],
    folder: str,
    retriever: Retriever,
    questions: Sequence[Question],
    shared: bool = False,
    k: int = 5,
) -> dict[str, float]:
    """For each method, the penalty of `PENALTIES` with which most answers are right; the smallest
    of equals.

    Parameters
    ----------
    names: of methods that write.
    folder: of the readers.
    questions: dev questions.
    shared: all methods use the shared reader as it is.
    k: passages of a question.
    """
    right: dict[str, dict[float, float]] = {name: {} for name in names}
    for penalty in PENALTIES:
        made = load(names, retriever, True, folder, length_penalty=penalty, shared=shared)
        for method in made:
            answers = [
                answer
                for at in range(0, len(questions), BATCH)
                for answer in method.answer(questions[at : at + BATCH], k)
            ]
            right[method.name][penalty] = sum(exact_matches(answers, questions))
    return {name: max(PENALTIES, key=lambda p: (found[p], -p)) for name, found in right.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `weights.json` of the folder: first with the files only, so that the readers can be
    loaded, then with the tuned settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus")
    parser.add_argument("--questions")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    own = options.corpus is not None
    settings = _of_text(folder) if own else {}
    write_manifest(folder, **settings)
    lm = load_language_model(BUNDLED if own else str(folder))
    if not own:
        settings["perplexity"] = tune_text(lm)
    retriever = _dense(load_corpus(options.corpus) if own else miniwiki.corpus())
    questions = list(load_questions(options.questions) if own else miniwiki.questions("dev"))
    adapted = load_adapted_language_model(str(folder)) or lm
    settings["knn_lm"] = {
        which: tune_answers(model, retriever, questions)
        for which, model in (("own", adapted), ("shared", lm))
    }
    write_manifest(folder, **settings)
    given = str(folder), retriever, questions[:SAMPLE]
    untrained = choose_length_penalties(UNTRAINED, *given)
    settings["length_penalty"] = {
        which: untrained | choose_length_penalties(TRAINED, *given, shared=which == "shared")
        for which in ("own", "shared")
    }
    write_manifest(folder, **settings)
    print(json.dumps(settings))


def _of_text(folder: Path) -> dict[str, Any]:
    """The setting of the folder's `weights.json` that no question is answered with."""
    found = manifest(folder)
    return {name: found[name] for name in ("perplexity",) if name in found}


def _dense(corpus: Corpus) -> Retriever:
    """Dense retrieval with the embedded encoder over all passages."""
    from ragbook.index import build_index
    from ragbook.retrieval import DenseRetriever

    encoder = load_encoder()
    index = build_index(corpus, Path("build/tuning-index"), encoder, overwrite=True)
    return DenseRetriever(index, encoder)


if __name__ == "__main__":
    main()

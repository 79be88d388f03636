"""Tuning kNN-LM: which model, which tokens, whose questions."""

import json
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import save_file

from ragbook.corpus import miniwiki
from ragbook.evaluation import tuning
from ragbook.models import load_language_model


def test_the_model_that_is_tuned_is_the_folders(tmp_path, monkeypatch):
    bundled = load_language_model()
    name, weight = next((n, p) for n, p in bundled.model.named_parameters() if "layer.5." in n)
    save_file({name: (weight.detach() + 1.0).contiguous()}, str(tmp_path / "lm.safetensors"))
    seen = []
    for part, found in (("tune_answers", {"lam": 0.3}), ("tune_text", {"lam": 0.1})):
        monkeypatch.setattr(tuning, part, lambda lm, found=found: seen.append(lm) or found)
    tuning.main(tmp_path)
    assert len(seen) == 2
    for lm in seen:
        torch.testing.assert_close(dict(lm.model.named_parameters())[name], weight + 1.0)
    written = json.loads((tmp_path / "weights.json").read_text())
    assert (written["knn_lm"], written["perplexity"]) == ({"lam": 0.3}, {"lam": 0.1})
    assert list(written["files"]) == ["lm.safetensors"]


def test_the_end_of_an_answer_is_tuned_for_too(monkeypatch):
    """A model must say that an answer is over, as well as what it is."""
    questions = list(miniwiki.questions("dev"))[:3]
    lm = load_language_model()
    scored = []

    class Recorded:
        def __init__(self, *_, **__):
            pass

        def datastore(self, found):
            return found

        def neighbours(self, question, tokens, _):
            scored.append(list(tokens))
            zeros = torch.zeros(len(tokens), 2)
            return zeros[:, 0], zeros, zeros.bool()

    retriever = SimpleNamespace(retrieve=lambda questions, k: [None] * len(questions))
    monkeypatch.setattr(tuning, "KnnLM", Recorded)
    monkeypatch.setattr(tuning, "tune", lambda *_: (0.1, 2.0, np.nan))
    monkeypatch.setattr(tuning.miniwiki, "questions", lambda split: questions)
    monkeypatch.setattr(tuning, "load_encoder", lambda: None)
    monkeypatch.setattr("ragbook.index.build_index", lambda *_, **__: None)
    monkeypatch.setattr("ragbook.retrieval.DenseRetriever", lambda *_: retriever, raising=False)
    assert tuning.tune_answers(lm) == {"lam": 0.1, "temperature": 2.0}
    ids = [lm.tokenizer(q.answers[0], add_special_tokens=False)["input_ids"] for q in questions]
    assert scored == [[*one, lm.end] for one in ids]

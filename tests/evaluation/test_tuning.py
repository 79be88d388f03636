"""Tuning kNN-LM: which model, which tokens, whose questions, which text."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ragbook.corpus import Question, miniwiki
from ragbook.evaluation import tuning
from ragbook.methods.knn_lm import LAMS, TEMPERATURES, interpolate, knn_target_log_prob
from ragbook.models import load_language_model
from ragbook.models.bundled import tensors


def test_the_model_that_is_tuned_is_the_folders(tmp_path, monkeypatch):
    bundled = load_language_model()
    name, weight = next((n, p) for n, p in bundled.model.named_parameters() if "layer.5." in n)
    stored = tensors("lm.safetensors") | {name: (weight.detach() + 1.0).contiguous()}
    save_file(stored, str(tmp_path / "lm.safetensors"))
    seen = []
    answers, text = {"lam": 0.3, "temperature": 3.0}, {"lam": 0.1, "temperature": 9.0}
    for part, found in (("tune_answers", answers), ("tune_text", text)):
        monkeypatch.setattr(tuning, part, lambda lm, *_, found=found: seen.append(lm) or found)
    asked, penalties = [], {"fid": 1.0}
    monkeypatch.setattr(tuning, "_dense", lambda corpus: corpus)
    monkeypatch.setattr(
        tuning,
        "choose_length_penalties",
        lambda names, *given, shared=False: asked.append((*given, shared)) or dict(penalties),
    )
    tuning.main([str(tmp_path)])
    assert len(seen) == 3
    for lm in seen:
        torch.testing.assert_close(dict(lm.model.named_parameters())[name], weight + 1.0)
    written = json.loads((tmp_path / "weights.json").read_text())
    assert written["knn_lm"] == {"own": answers, "shared": answers}
    assert written["perplexity"] == text
    assert list(written["files"]) == ["lm.safetensors"]
    assert written["length_penalty"] == {"own": penalties, "shared": penalties}
    dev = list(miniwiki.questions("dev"))[: tuning.SAMPLE]
    given = str(tmp_path), miniwiki.corpus(), dev
    assert asked == [(*given, False), (*given, False), (*given, True)]


def test_the_end_of_an_answer_is_tuned_for_too(monkeypatch):
    """A model must say that an answer is over, as well as what it is; every question is read with
    its own passages."""
    questions = list(miniwiki.questions("dev"))[:3]
    lm = load_language_model()
    scored, tuned = [], []

    class Recorded(tuning.KnnLM):
        def datastore(self, retrieved):
            return retrieved

        def neighbours(self, question, tokens, memory):
            assert self.lm is lm
            assert memory == f"{question.text}: 4 of all passages"
            scored.append(list(tokens))
            distances = torch.full((len(tokens), 2), float(len(scored)))
            return distances[:, 0] - 9, distances, distances > 1

    class Retriever:
        def retrieve(self, questions, k):
            return [f"{question.text}: {k} of all passages" for question in questions]

    monkeypatch.setattr(tuning, "KnnLM", Recorded)
    monkeypatch.setattr(tuning, "tune", lambda *given: tuned.append(given) or (0.1, 2.0, np.nan))
    found = tuning.tune_answers(lm, Retriever(), questions, k=4)  # type: ignore[arg-type]
    assert found == {"lam": 0.1, "temperature": 2.0}
    texts = [question.answers[0] for question in questions]
    ids = lm.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert scored == [[*one, lm.end] for one in ids]
    ((base, distances, hits),) = tuned
    assert base.tolist() == [n - 9 for n, one in enumerate(ids, 1) for _ in range(len(one) + 1)]
    for n, (own, said) in enumerate(zip(distances, hits, strict=True), 1):
        assert (own == n).all()
        assert (said == (n > 1)).all()


def test_text_is_tuned_on_the_articles_set_aside_for_it(monkeypatch):
    """On none of those that perplexity is reported on, and to the best of the whole grid."""
    generator = torch.Generator().manual_seed(0)
    seen = []

    def scored(documents, corpus, lm):
        seen.append((documents, corpus.name, lm))
        return [
            SimpleNamespace(
                base=-5 * torch.rand(n, generator=generator),
                distances=30 * torch.rand(n, 6, generator=generator),
                hits=torch.rand(n, 6, generator=generator) < 0.5,
            )
            for n in (3, 4)
        ]

    monkeypatch.setattr(tuning, "score", scored)
    found = tuning.tune_text("the model")  # type: ignore[arg-type]
    ((documents, corpus, lm),) = seen
    assert (corpus, lm) == (miniwiki.corpus().name, "the model")
    assert [text.split("\n") for text in documents] == [
        [passage.text for passage in article.passages] for article in miniwiki.heldout("dev")
    ]
    generator.manual_seed(0)
    parts = scored(documents, miniwiki.corpus(), lm)
    means = {
        (lam, temperature): interpolate(
            torch.cat([one.base for one in parts]),
            torch.cat([knn_target_log_prob(one.distances, one.hits, temperature) for one in parts]),
            lam,
        )
        .mean()
        .item()
        for lam in LAMS
        for temperature in TEMPERATURES
    }
    assert set(found) == {"lam", "temperature"}
    assert means[found["lam"], found["temperature"]] == pytest.approx(max(means.values()))


def test_the_penalty_with_most_right_answers_is_chosen(monkeypatch):
    """And of equals the smallest, for each method by itself; each question counts once."""
    questions = [Question(str(i), ("yes",)) for i in range(tuning.BATCH + 4)]
    right = {"fid": {0.0: 3, 1.0: 18, 2.0: 18}, "rag-token": {2.0: 1}}
    loaded = []

    def made(name, penalty):
        def answer(batch, k):
            assert k == 3
            return [
                SimpleNamespace(
                    text="yes" if int(q.text) < right.get(name, {}).get(penalty, 0) else "no"
                )
                for q in batch
            ]

        return SimpleNamespace(name=name, answer=answer)

    def load(names, retriever, verbatim, folder, length_penalty, shared):
        assert (retriever, verbatim, folder, shared) == ("all passages", True, "a folder", True)
        loaded.append(length_penalty)
        return [made(name, length_penalty) for name in names]

    monkeypatch.setattr(tuning, "load", load)
    found = tuning.choose_length_penalties(
        ["rag-sequence", "rag-token", "fid"],
        "a folder",
        "all passages",  # type: ignore[arg-type]
        questions,
        True,
        k=3,
    )
    assert found == {"rag-sequence": 0.0, "rag-token": 2.0, "fid": 1.0}
    assert loaded == list(tuning.PENALTIES)


def test_the_passages_are_those_of_dense_retrieval_over_all(monkeypatch):
    def build(corpus, out, encoder, overwrite):
        assert (encoder, overwrite) == ("an encoder", True)
        return f"index of {corpus}"

    monkeypatch.setattr(tuning, "load_encoder", lambda: "an encoder")
    monkeypatch.setattr("ragbook.index.build_index", build)
    monkeypatch.setattr("ragbook.retrieval.DenseRetriever", lambda *given: given, raising=False)
    assert tuning._dense("a corpus") == ("index of a corpus", "an encoder")  # type: ignore[arg-type]


def test_own_questions_tune_all_but_perplexity(tmp_path, monkeypatch):
    (tmp_path / "weights.json").write_text(
        '{"files": {}, "perplexity": {"lam": 0.1, "temperature": 5.0}}'
    )
    monkeypatch.setattr(tuning, "_dense", lambda corpus: corpus)
    monkeypatch.setattr(tuning, "load_corpus", lambda name: f"passages of {name}")
    monkeypatch.setattr(tuning, "load_questions", lambda name: [f"questions of {name}"])
    monkeypatch.setattr(tuning, "tune_text", lambda lm: pytest.fail("it was not asked to"))
    monkeypatch.setattr(tuning, "tune_answers", lambda lm, *given: {"lam": repr((lm, given))})
    for which in ("load_language_model", "load_adapted_language_model"):
        monkeypatch.setattr(tuning, which, lambda name, which=which: f"{which} {name}")
    monkeypatch.setattr(
        tuning,
        "choose_length_penalties",
        lambda names, *given, **how: {name: repr((given, how)) for name in names},
    )
    tuning.main([str(tmp_path), "--corpus", "mine", "--questions", "asked"])
    written = json.loads((tmp_path / "weights.json").read_text())
    assert written["perplexity"] == {"lam": 0.1, "temperature": 5.0}
    on = ("passages of mine", ["questions of asked"])
    assert written["knn_lm"] == {
        "own": {"lam": repr((f"load_adapted_language_model {tmp_path}", on))},
        "shared": {"lam": repr(("load_language_model bundled", on))},
    }
    given = (str(tmp_path), "passages of mine", ["questions of asked"])
    for which, same in (("own", False), ("shared", True)):
        assert written["length_penalty"][which] == {
            **{name: repr((given, {})) for name in tuning.UNTRAINED},
            **{name: repr((given, {"shared": same})) for name in tuning.TRAINED},
        }

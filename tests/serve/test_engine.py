"""What a question gives: the methods' own answers, and what is behind them by the definitions."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from ragbook import cli
from ragbook.corpus import Corpus, Passage, Question, load_corpus
from ragbook.errors import InputError
from ragbook.index import build_index
from ragbook.methods import NAMES
from ragbook.methods import load as load_methods
from ragbook.methods.base import doc_log_probs
from ragbook.methods.cuts import notes_of
from ragbook.models import load_encoder
from ragbook.models.prompts import passage_text
from ragbook.retrieval import BM25Retriever, DenseRetriever, Retrieved
from ragbook.serve.asking import EDITED, QUESTION, Ask, K, parse_ask
from ragbook.serve.changed import ChangedRetriever
from ragbook.serve.engine import Engine
from tests.fakes import FixedRetriever
from tests.serve.conftest import BACKWARDS, FORWARDS, PASSAGES, load

TEXT = "Which river passes through Vienna?"


def told(engine: Engine, **ask) -> dict:
    """What is known of each method when all has been told, and the rest by its event's name."""
    found: dict = {"methods": {}, "passages": [], "failed": {}}
    for event in engine.answers(Ask(TEXT, **ask)):
        json.dumps(event, allow_nan=False)
        match event["event"]:
            case "answer" | "detail":
                found["methods"].setdefault(event["method"], {}).update(event)
            case "passages":
                found["passages"] += event["passages"]
            case "failed":
                found["failed"][event["method"]] = event["sentence"]
            case "end":
                found["end"] = event
    return found


def same(entry, answer):
    assert entry["text"] == answer.text
    assert entry["log_prob"] == pytest.approx(answer.log_prob, abs=1e-6)
    ours = {e["passage_id"]: e["weight"] for e in entry["evidence"]}
    assert ours == pytest.approx({e.passage_id: e.weight for e in answer.evidence}, abs=1e-6)


@pytest.mark.parametrize("name", ["forwards", "backwards"])
def test_answers_are_those_of_the_methods_alone(engine, name):
    retriever = {"forwards": FORWARDS, "backwards": BACKWARDS}[name]
    found = told(engine, retriever=name, typed="Danube")
    assert not found["failed"]
    assert [p["id"] for p in found["passages"]] == [p.id for p in retriever.passages[:3]]
    question = Question(TEXT, ())
    for method in load(retriever):
        entry = found["methods"][method.name]
        answer = method.answer([question], 3)[0]
        same(entry, answer)
        typed = float(method.log_prob([question], ["Danube"], 3)[0])
        assert entry["typed"] == (pytest.approx(typed, abs=1e-5) if math.isfinite(typed) else None)
        if method.retriever is not None:
            falls = method.leave_one_out([question], [answer.text], 3)[0].tolist()
            for passage, fall in zip(retriever.passages, falls, strict=False):
                loo = entry["loo"][passage.id]
                assert loo == (pytest.approx(fall, abs=1e-4) if math.isfinite(fall) else None)
        if answer.token_evidence is not None:
            assert [one["token"] for one in entry["tokens"]] == [
                one.token for one in answer.token_evidence
            ]


def test_answers_come_first_and_then_what_is_behind_them(engine):
    kinds = [event["event"] for event in engine.answers(Ask(TEXT))]
    assert kinds == ["passages", *["answer"] * 7, *["detail"] * 7, "end"]


def test_settings_reach_the_methods_and_stay_with_their_question(engine):
    before = [vars(method).copy() for method in engine.methods]
    _, changed = engine.methods_for(Ask(TEXT, beams=5, free=True, lam=0.25, temperature=3.0))
    by_name = {method.name: method for method in changed}
    assert {m.beams for m in changed if hasattr(m, "beams")} == {5}
    assert not any(m.verbatim for m in changed if hasattr(m, "verbatim"))
    assert (by_name["knn-lm"].lam, by_name["knn-lm"].temperature) == (0.25, 3.0)
    assert [vars(method) for method in engine.methods] == before
    plain = {name: entry["log_prob"] for name, entry in told(engine)["methods"].items()}
    other = {
        name: entry["log_prob"]
        for name, entry in told(engine, lam=1.0, beams=1, k=1)["methods"].items()
    }
    assert plain["knn-lm"] != other["knn-lm"]
    assert told(engine)["methods"]["realm"]["log_prob"] == plain["realm"]
    assert asdict(engine.defaults) == {
        "k": 3, "retriever": "forwards", "beams": 2, "free": False, "lam": 0.5, "temperature": 10.0,
    }  # fmt: skip


def test_what_is_struck_out_is_left_out_and_the_prior_shared_anew(engine):
    found = told(engine, struck=("p0",))
    assert [p["struck"] for p in found["passages"]] == [True, False, False]
    left = FixedRetriever(PASSAGES[1:3], [0.7, 0.4], score_scale=2.0)
    for method in load(left):
        same(found["methods"][method.name], method.answer([Question(TEXT, ())], 2)[0])
    prior = torch.softmax(2.0 * torch.tensor([0.7, 0.4]), 0).tolist()
    told_prior = {e["passage_id"]: e["prior"] for e in found["methods"]["realm"]["evidence"]}
    assert told_prior == pytest.approx({"p1": prior[0], "p2": prior[1]}, abs=1e-6)


def test_what_is_edited_is_what_the_methods_read(engine):
    text = "Hamburg is a city."
    found = told(engine, edited={"p0": text})
    first = found["passages"][0]
    assert (first["edited"], first["text"], first["own_text"]) == (True, text, PASSAGES[0].text)
    other = FixedRetriever(
        [Passage("p0", "Danube", text), *PASSAGES[1:]], [0.9, 0.7, 0.4, 0.1], score_scale=2.0
    )
    for method in load(other):
        same(found["methods"][method.name], method.answer([Question(TEXT, ())], 3)[0])
    assert "Vienna" not in "".join(one["text"] for one in found["methods"]["realm"]["spans"])


def test_without_any_passage_those_that_read_some_say_so(engine):
    found = told(engine, struck=("p0", "p1", "p2"))
    assert set(found["methods"]) == {"closed-book"}
    assert set(found["failed"]) == set(NAMES) - {"closed-book"}
    assert set(found["failed"].values()) == {
        "All of its passages are struck out; leave it at least one."
    }


def test_tokens_multiply_to_the_answer(engine):
    found = told(engine)["methods"]
    by_name = {method.name: method for method in load(FORWARDS)}
    for name in ("closed-book", "knn-lm"):
        product = math.prod(one["probability"] for one in found[name]["tokens"])
        # That of the answer's text: a random model writes pieces that no text is split into.
        whole = by_name[name].log_prob([Question(TEXT, ())], [found[name]["text"]], 3)
        assert math.log(product) == pytest.approx(float(whole[0]), rel=1e-4)
        assert found[name]["tokens"][-1]["token"] == "(end)"
    for one in found["knn-lm"]["tokens"]:
        assert one["probability"] == pytest.approx(
            0.5 * one["model"] + 0.5 * one["memory"], abs=1e-6
        )
        for near in one["neighbours"]:
            assert near["said"] == (near["token"] == one["token"])


def test_a_neighbours_context_stands_before_it_in_its_passage(engine):
    lm = next(m for m in load(FORWARDS) if m.name == "knn-lm").lm
    texts = {p.id: lm.tokenizer.decode(lm.texts([p])[0][1:-1]) for p in PASSAGES}
    seen = 0
    for one in told(engine)["methods"]["knn-lm"]["tokens"]:
        for near in one["neighbours"]:
            before, text = near["before"].removeprefix("##"), texts[near["passage_id"]]
            rest = text[text.index(before) + len(before) :].lstrip()
            seen += bool(before)
            assert rest.startswith(near["token"].removeprefix("##")) or near["token"] == "(end)"
            assert (near["token"] == "(end)") == (rest == "")
    assert seen


def test_spans_are_where_they_say_and_as_probable_as_by_enumeration(engine):
    found = told(engine)
    spans = found["methods"]["realm"]["spans"]
    texts = {p.id: passage_text(p) for p in PASSAGES}
    for one in spans:
        assert texts[one["passage_id"]][one["start"] : one["end"]] == one["text"]
    realm = next(m for m in load(FORWARDS) if m.name == "realm")
    (retrieved,) = FORWARDS.retrieve([Question(TEXT, ())], 3)
    prior = doc_log_probs([retrieved], FORWARDS.score_scale)[0]
    _, log_probs = realm.reader.span_log_probs([TEXT] * 3, list(retrieved.passages))
    log_probs[:, 0, 0] = float("-inf")
    every = (prior[:, None, None] + log_probs).exp().flatten().sort(descending=True).values
    given = [one["probability"] for one in spans]
    assert given == pytest.approx(every[: len(given)].tolist(), abs=1e-6)
    # The spans of a string sum to no more than the string; the best string is the answer.
    answer = found["methods"]["realm"]
    own = sum(one["probability"] for one in spans if one["text"] == answer["text"])
    assert own <= math.exp(answer["log_prob"]) + 1e-6


def test_notes_do_not_pile_up(engine):
    """Of what did not fit into a model, a server would otherwise keep every passage's."""
    long = "word " * 400
    found = told(engine, edited={"p0": long[:EDITED]})
    assert found["end"]["cut"]["p0"] > 100
    assert told(engine)["end"]["cut"] == {}
    for method in engine.methods:
        notes = notes_of(method)
        assert not notes.passages
        assert not notes.answers


def test_a_faulty_method_does_not_silence_the_others(capsys):
    class Broken:
        name, parameters, retriever = "mine", 0, None

        def answer(self, questions, k=5):
            raise ZeroDivisionError("a secret")

    engine = Engine({"forwards": FORWARDS}, lambda r: [*load(r)[:1], Broken()])  # type: ignore[list-item]
    found = told(engine)
    assert "closed-book" in found["methods"]
    assert found["failed"] == {"mine": "It has failed; the server's messages say why."}
    assert "a secret" in capsys.readouterr().err


def test_one_search_serves_all_who_share_a_retriever():
    calls = []

    class Counting(FixedRetriever):
        def retrieve(self, questions, k):
            calls.append(k)
            return super().retrieve(questions, k)

    engine = Engine({"one": Counting(PASSAGES, [3.0, 2.0, 1.0, 0.0])}, load)
    told(engine, typed="Elbe", k=2)
    assert calls == [2]


def test_changes_keep_scores_and_titles():
    retriever = ChangedRetriever(FORWARDS, {"p1"}, {"p2": "New."})
    (found,) = retriever.retrieve([Question(TEXT, ())], 3)
    assert isinstance(found, Retrieved)
    assert found.ids == ("p0", "p2")
    assert np.array_equal(found.scores, np.array([0.9, 0.4], np.float32))
    assert found.passages[1] == Passage("p2", "Elbe", "New.")
    assert (retriever.name, retriever.score_scale) == ("fixed", 2.0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"question": "  "}',
        b'{"question": "?", "k": 0}',
        b'{"question": "?", "k": 21}',
        b'{"question": "?", "beams": 9}',
        b'{"question": "?", "lam": 1.1}',
        b'{"question": "?", "temperature": 0}',
        b'{"question": "?", "shell": "rm"}',
        b'{"question": "\\ud800"}',
        b'{"question": "?", "k": 1e400}',
        json.dumps({"question": "a" * (QUESTION + 1)}).encode(),
        json.dumps({"question": "?", "edited": {"p": "a" * (EDITED + 1)}}).encode(),
        json.dumps({"question": "?", "struck": ["p"] * (K + 1)}).encode(),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(body):
    with pytest.raises(InputError) as refusal:
        parse_ask(body)
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


def test_results_are_those_of_ragbook_ask(tmp_path, monkeypatch, capsys):
    """With the bundled models, on some of MiniWiki, by both retrievers."""
    monkeypatch.setenv("RAGBOOK_CACHE", str(tmp_path))
    part = [p for p in load_corpus("miniwiki") if p.id.startswith(("danube", "rhine", "volga"))]
    source = tmp_path / "rivers.jsonl"
    source.write_text(
        "".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in part)
    )
    corpus, encoder = Corpus("rivers", part), load_encoder()
    index = build_index(corpus, tmp_path / "index", encoder, progress=False)
    retrievers = {"dense": DenseRetriever(index, encoder), "bm25": BM25Retriever(corpus)}
    engine = Engine(retrievers, lambda r: load_methods(NAMES, r, verbatim=True))
    for name in retrievers:
        where = ["--corpus", str(source), "--retriever", name]
        assert cli.main(["ask", TEXT, *where, "--k", "2", "--json"]) == 0
        asked = json.loads(capsys.readouterr().out)["methods"]
        found = told(engine, retriever=name, k=2)["methods"]
        assert set(found) == set(asked) == set(NAMES)
        for method, entry in asked.items():
            assert found[method]["text"] == entry["text"]
            assert found[method]["log_prob"] == pytest.approx(entry["log_prob"], abs=1e-5)
            ids = [e["passage_id"] for e in found[method]["evidence"]]
            assert ids == [e["passage_id"] for e in entry["evidence"]]

"""Each method's training objective is the likelihood that the method itself gives the answer."""

import random
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ragbook.corpus import Corpus, Passage, Question
from ragbook.methods.base import held_to
from ragbook.methods.decoding import share
from ragbook.methods.fid import FiD
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.methods.realm import Realm
from ragbook.models import Encoder, load_encoder, load_reader, load_span_reader
from ragbook.models.changes import apply, part
from ragbook.models.embedded import minilm_tokenizer
from ragbook.training.reader import objectives
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.objectives import (
    IMPOSSIBLE,
    METHODS,
    SEARCHING,
    Recipe,
    Trainee,
    answer_places,
    answer_spans,
    exchanged,
    may_follow,
    objective,
    train_method,
)
from ragbook.training.reader.train import collate, quicken
from ragbook.training.reader.worlds import Example
from ragbook.training.run import Run
from tests.fakes import FixedRetriever
from tests.training.reader.lakes import ASKED, SHOWN

SCORES = np.array([[0.9, 0.5, 0.2], [0.1, 0.3, 0.2]], dtype=np.float32)
RETRIEVER = FixedRetriever(SHOWN, SCORES, score_scale=3.0)


def batch():
    examples = [Example(question, SHOWN, 0) for question in ASKED]
    prior = torch.from_numpy(SCORES * RETRIEVER.score_scale).log_softmax(-1)
    return collate(minilm_tokenizer(), examples, 10), prior


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("realm", lambda: Realm(load_span_reader(), RETRIEVER)),
        ("rag-sequence", lambda: RagSequence(load_reader(), RETRIEVER)),
        ("rag-token", lambda: RagToken(load_reader(), RETRIEVER)),
        ("fid", lambda: FiD(load_reader(), RETRIEVER)),
    ],
)
def test_the_objective_is_the_methods_own_likelihood(name, method):
    reader, span = load_reader(), load_span_reader()
    with torch.no_grad():
        trained = objective(name, reader.model, span.scorer, *batch()).answer
    expected = method().log_prob(ASKED, [q.answers[0] for q in ASKED], k=3)
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-4)


def divided_up(method: str, question: Question, scores: np.ndarray) -> float:
    """log p of the question's answer as the search divides it up, step by step, from the reader's
    own distributions."""
    reader = load_reader()
    memory = reader.read([question], [SHOWN])
    memory = memory.fused() if method == "fid" else memory
    following, rows = reader.continuation(memory), torch.arange(1 if method == "fid" else 3)
    each = held_to(reader, [[passage] for passage in SHOWN], True)
    together = held_to(reader, [SHOWN], True)
    assert each is not None
    assert together is not None
    prior = torch.from_numpy(scores * RETRIEVER.score_scale).log_softmax(-1)
    total, given = 0.0, torch.zeros(3)
    tokens = reader.answer_ids(question.answers[0])
    for t, token in enumerate(tokens):
        prefixes = torch.tensor([[reader.start, *tokens[:t]]]).expand(len(rows), -1)
        log_probs = following(prefixes, rows, rows)
        if method != "fid":
            own = share(log_probs, each, prefixes, reader.end, otherwise=False)
            given = given + own[:, token]
            log_probs = (prior[:, None] + own).logsumexp(0)[None]
        total += float(share(log_probs, together, prefixes[:1], reader.end)[0, token])
    return float((prior + given).logsumexp(0)) if method == "rag-sequence" else total


@pytest.mark.parametrize("name", METHODS[1:])
def test_under_the_rule_the_objective_is_what_the_search_compares(name):
    """A passage that does not hold the answer has no part in it; in RAG-Token it has one until the
    answer leaves its words."""
    reader, span = load_reader(), load_span_reader()
    asked = [*ASKED, Question("Who drew it too?", ("Ilsa Brenkov charted",), "a")]
    scores = np.concatenate([SCORES, SCORES[:1]])
    examples = [Example(question, SHOWN, 0) for question in asked]
    one = collate(minilm_tokenizer(), examples, 10)
    prior = torch.from_numpy(scores * RETRIEVER.score_scale).log_softmax(-1)
    rule = may_follow(examples, one.labels, name, 30_522)
    with torch.no_grad():
        held = objective(name, reader.model, span.scorer, one, prior, rule).answer
        free = objective(name, reader.model, span.scorer, one, prior).answer
    expected = [divided_up(name, q, row) for q, row in zip(asked, scores, strict=True)]
    torch.testing.assert_close(held, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert (held > free).all()


def test_an_answer_that_no_passage_holds_is_written_freely():
    """By FiD; under RAG it is as good as impossible, and its gradient does no harm."""
    reader, span = deepcopy(load_reader()), load_span_reader()
    examples = [Example(Question("Who was it?", ("Zyx Qwertz",)), SHOWN, 0)]
    one, prior = collate(minilm_tokenizer(), examples, 10), torch.zeros(1, 3)
    for name in METHODS[1:]:
        rule = may_follow(examples, one.labels, name, 30_522)
        found = objective(name, reader.model, span.scorer, one, prior, rule).answer
        if name == "fid":
            free = objective(name, reader.model, span.scorer, one, prior).answer
            torch.testing.assert_close(found, free)
        else:
            assert float(found.detach()) < IMPOSSIBLE / 2
        found.sum().backward()
        gradients = [p.grad for p in reader.model.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", METHODS)
def test_a_passage_without_the_answer_is_asked_to_say_so(name):
    """By REALM's span of [CLS], by the empty answer where passages are read one by one, and not at
    all where they are read together."""
    reader, span = load_reader(), load_span_reader()
    with torch.no_grad():
        not_here = objective(name, reader.model, span.scorer, *batch()).not_here
    without = [[False, True, False], [False, True, True]]
    assert (not_here != 0).tolist() == ([[False] * 3] * 2 if name == "fid" else without)
    if name == "realm":
        _, log_probs = span.span_log_probs([ASKED[1].text], [SHOWN[1]])
        assert float(not_here[1, 1]) == pytest.approx(float(log_probs[0, 0, 0]), rel=1e-3)
    if name.startswith("rag"):
        memory, empty = reader.read([ASKED[1]], [[SHOWN[1]]]), torch.tensor([[reader.end]])
        expected = reader.token_log_probs(memory, empty, torch.tensor([0]))
        assert float(not_here[1, 1]) == pytest.approx(float(expected), rel=1e-3)


def test_what_is_copied_is_looked_at():
    """The attention to every place of the token to be written, against the model's own weights."""
    reader, span = load_reader(), load_span_reader()
    one = collate(minilm_tokenizer(), [Example(ASKED[0], SHOWN[:1], 0)], 10)
    labels = one.labels[0].tolist()
    decoder_input = torch.tensor([[reader.start, *labels[:-1]]])
    reader.model.config._attn_implementation = "eager"
    trained = deepcopy(reader.model)
    quicken(trained, "cpu", "float32")
    with torch.no_grad():
        out = trained(**one.inputs, decoder_input_ids=decoder_input, output_attentions=True)
        found = {
            name: objective(name, trained, span.scorer, one, torch.zeros(1, 1)).copied
            for name in METHODS
        }
    attention = out.cross_attentions[-1].mean(1)[0]
    ids = one.inputs["input_ids"][0].tolist()
    begins = [i for i in range(len(ids)) if ids[i : i + len(labels) - 1] == labels[:-1]]
    assert len(begins) == 2
    looked = [sum(float(attention[t, i + t]) for i in begins) for t in range(len(labels) - 1)]
    for name in ("rag-sequence", "rag-token", "fid"):
        torch.testing.assert_close(found[name].exp(), torch.tensor(looked), rtol=1e-3, atol=1e-5)
    assert len(found["realm"]) == 0


def test_places_are_the_answers_own():
    made, _ = batch()
    places = answer_places(made)
    ids = made.inputs["input_ids"]
    for row, token, at in places.nonzero().tolist():
        assert ids[row, at] == made.labels[row // 3, token]
    answers = (made.labels != -100).sum(-1) - 1
    times = [2, 0, 1, 1, 0, 0]
    assert places.sum((1, 2)).tolist() == [
        n * int(answers[row // 3]) for row, n in enumerate(times)
    ]


def test_every_place_that_reads_the_answer_counts():
    made, _ = batch()
    spans = answer_spans(made, 10)
    assert spans.flatten(1).sum(1).tolist() == [2, 0, 1, 1, 0, 0]
    row, start, width = (int(i[0]) for i in spans.nonzero(as_tuple=True))
    tokens = made.inputs["input_ids"][row, start : start + width + 1]
    assert minilm_tokenizer().decode(tokens) == "ilsa brenkov"


@pytest.fixture(name="few")
def source() -> GoldExamples:
    """Twelve passages, three of them `SHOWN`, and the questions `ASKED`."""
    others = [Passage(str(i), f"Hill {i}", f"Hill {i} was climbed in 19{i:02}.") for i in range(9)]
    return GoldExamples(Corpus("lakes", [*SHOWN, *others]), ASKED)


QUICK = Recipe(steps=8, batch=2, n=3)


def trainee(method: str, encoder: Encoder, tmp_path: Path) -> Trainee:
    model, scorer = load_reader().model, load_span_reader().scorer
    return Trainee(method, model, scorer, encoder, QUICK, Run(tmp_path, precision="float32"))


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_trains_is_what_its_paper_trains(method, tmp_path):
    """The decoder or the scorer whole but for what could learn answers by heart, the encoder's
    upper layers by adapters, and the question tower where the retriever is trained too."""
    one = trainee(method, load_encoder(), tmp_path)
    trained = {id(p) for parameters, _ in one.groups for p in parameters}
    decoder = {n for n, p in one.model.decoder.named_parameters() if id(p) in trained}
    every = {n for n, p in one.model.decoder.named_parameters() if 30_522 not in p.shape}
    assert decoder == (set() if method == "realm" else every)
    scorer = [id(p) in trained for p in one.scorer.parameters()]
    assert all(scorer) if method == "realm" else not any(scorer)
    towers = {"encoder": one.model.encoder, "query": one.encoder.query_model}
    for name, tower in towers.items():
        adapted = {n for n, p in tower.named_parameters() if id(p) in trained}
        assert all("lora_" in n for n in adapted)
        layers = {n.split(".")[2] for n in adapted}
        expected = name == "encoder" or method in SEARCHING
        assert layers == ({"4", "5"} if expected else set())
    rates = [QUICK.decoder_rate, QUICK.adapter_rate, QUICK.query_rate]
    assert [rate for _, rate in one.groups] == rates[: 3 if method in SEARCHING else 2]
    # The shared models are others, and the passage tower is not trained.
    others = (one.encoder.passage_model, load_reader().model, load_span_reader().scorer)
    assert not trained & {id(p) for other in others for p in other.parameters()}


@pytest.mark.parametrize("method", METHODS)
def test_training_raises_the_likelihood_and_leaves_the_shared_reader(method, few, tmp_path):
    """And a file's changes, added to the shared models, give what was trained."""
    model, scorer = deepcopy(load_reader().model), deepcopy(load_span_reader().scorer)
    before = {n: p.clone() for n, p in [*model.named_parameters(), *scorer.named_parameters()]}
    stored = train_method(
        method,
        model,
        scorer,
        load_encoder(),
        few,
        Run(tmp_path, precision="float32"),
        replace(QUICK, kept=384),
    )
    for name, parameter in [*model.named_parameters(), *scorer.named_parameters()]:
        assert torch.equal(parameter, before[name]), name
    with torch.no_grad():
        shared = objective(method, model, scorer, *batch()).answer
        apply(model.encoder, part(stored, "encoder"))
        apply(model.decoder, part(stored, "decoder"))
        apply(scorer, part(stored, "scorer"))
        own = objective(method, model, scorer, *batch()).answer
    assert own.mean() > shared.mean()
    assert bool(part(stored, "query")) == (method in SEARCHING)


def test_answers_are_held_to_the_passages_but_where_it_is_not_wanted(few, tmp_path, monkeypatch):
    """The rule is another for each method; without it nothing asks for it."""
    asked = []
    true = objectives.may_follow

    def counted(examples, labels, method, words):
        asked.append((method, len(examples), words))
        return true(examples, labels, method, words)

    monkeypatch.setattr(objectives, "may_follow", counted)
    given = load_reader().model, load_span_reader().scorer, load_encoder(), few
    for held in (True, False):
        for method in METHODS:
            recipe = replace(QUICK, steps=1, held=held)
            train_method(
                method, *given, Run(tmp_path / f"{method}-{held}", precision="float32"), recipe
            )
    assert asked == [(method, 2, 30_522) for method in METHODS[1:]]


def test_the_prior_moves_towards_the_passage_that_gave_the_answer(few, tmp_path):
    """Its gradient by the question's vector, against the closed form posterior - prior."""
    one = trainee("rag-sequence", load_encoder(), tmp_path)
    log_prior, positions = one.log_prior(ASKED, few.keys)
    assert log_prior.requires_grad
    assert log_prior.exp().sum(1).tolist() == pytest.approx([1, 1])
    vectors = torch.from_numpy(load_encoder().encode_queries([q.text for q in ASKED]))
    scores = (vectors @ few.keys.T) * one.encoder.score_scale
    assert positions.tolist() == scores.topk(3).indices.tolist()
    torch.testing.assert_close(log_prior, scores.topk(3).values.log_softmax(-1))
    assert not trainee("fid", load_encoder(), tmp_path).log_prior(ASKED, few.keys)[0].requires_grad


def test_an_exchanged_answer_is_exchanged_in_every_passage(few):
    """In about one of three examples, for the answer of a question of the same form."""
    shown = (SHOWN[0], Passage("d", "Velm's maps", "Maps of Velm begin in 1873."), SHOWN[1])
    asked = [*ASKED, Question("When was Orm charted?", ("1901",), "b")]
    passages = [Passage("b", "Orm", "Orm was charted by Tor Halst in 1901."), *shown[:2], SHOWN[2]]
    source = GoldExamples(Corpus("lakes", [*passages, *list(few.corpus)[3:]]), asked)
    question = next(q for q in source.questions if q.answers[0] == "1873")
    rng, seen = random.Random(0), []
    for _ in range(300):
        asks, said = exchanged(rng, source, question, shown)
        (answer,) = asks.answers[:1]
        seen.append(answer)
        assert (answer == "1873") == (said == list(shown))
        for before, after in zip(shown, said, strict=True):
            assert after.text == before.text.replace("1873", answer)
    assert set(seen) == {"1873", "1901"}
    assert 60 < seen.count("1901") < 140


def test_an_answer_that_no_span_reads_does_no_harm(few, tmp_path):
    """Eleven tokens or more: REALM cannot say it, and what it learns stays finite and small."""
    model, scorer = load_reader().model, load_span_reader().scorer
    long = "Ilsa Brenkov charted Velm in 1873. Ilsa Brenkov drew it"
    few = GoldExamples(few.corpus, [Question("Who charted Velm in 1873?", (long,), "a")])
    recipe = replace(QUICK, steps=2, kept=384)  # whole differences, not factors
    stored = train_method(
        "realm", model, scorer, load_encoder(), few, Run(tmp_path, precision="float32"), recipe
    )
    for name, change in part(stored, "scorer").items():
        assert change.abs().max() < 0.01, name

"""REALM's fine-tuning: both likelihoods by enumeration, what stays fixed, what is left out."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertModel

from ragbook.corpus import Corpus, Question
from ragbook.corpus.answers import has_answer
from ragbook.errors import InputError
from ragbook.index import build_index
from ragbook.methods.realm import Realm
from ragbook.models import Encoder, SpanReader
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.span import SpanScorer
from ragbook.retrieval import DenseRetriever
from ragbook.training.realm.open_qa import OBJECTIVES, QaRecipe, terms, train_open_qa
from tests.methods.conftest import PASSAGES, QUESTIONS

CITY = Question("Which city lies on the Rhine?", ("Bonn", "Cologne"), "p1")
NOWHERE = Question("Who rules?", ("a man whom no passage names",))


def bert(seed: int) -> BertModel:
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.4,
    )
    return BertModel(config, add_pooling_layer=False).eval()


@pytest.fixture
def parts(tmp_path):
    """(span reader, encoder with a question tower of its own, index)."""
    torch.manual_seed(2)
    reader = SpanReader(bert(0), SpanScorer(16, 8), minilm_tokenizer(), "s")
    encoder = Encoder(bert(1), minilm_tokenizer(), "tiny", "hash", 3.0).untied()
    index = build_index(Corpus("four", PASSAGES), tmp_path / "index", encoder, progress=False)
    return reader, encoder, index


def found(parts, questions, recipe):
    reader, encoder, index = parts
    model = reader.pairs.encoder
    return terms(model, reader.scorer, reader.tokenizer, encoder, index, questions, recipe)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_readers_term_is_the_methods_own_log_probability(parts, objective):
    """Training's likelihood and the method's, which enumerates strings, are one number."""
    reader, encoder, index = parts
    questions = [*QUESTIONS, CITY]
    own = found(parts, questions, QaRecipe(objective, k=4, wide=4))
    method = Realm(reader, DenseRetriever(index, encoder), orqa=objective == "orqa")
    wanted = method.log_prob(questions, [q.answers[0] for q in questions], k=4)
    torch.testing.assert_close(own.reader.detach(), wanted, rtol=1e-4, atol=1e-4)
    assert (own.silence == 0).all() == (objective == "orqa")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_readers_prior_is_over_the_passages_that_it_reads(parts, objective):
    """However many more the retriever's own term looks at."""
    reader, encoder, index = parts
    questions = [*QUESTIONS, CITY]
    method = Realm(reader, DenseRetriever(index, encoder), orqa=objective == "orqa")
    wanted = method.log_prob(questions, [q.answers[0] for q in questions], k=2)
    own = found(parts, questions, QaRecipe(objective, k=2, wide=4)).reader.detach()
    there = wanted.isfinite()
    assert there.any()
    torch.testing.assert_close(own[there], wanted[there], rtol=1e-4, atol=1e-4)


def test_the_retrievers_term_counts_passages_that_hold_an_answer(parts):
    _, encoder, _ = parts
    questions = [*QUESTIONS, CITY, NOWHERE]
    term = found(parts, questions, QaRecipe(k=2, wide=4)).retriever
    queries = torch.from_numpy(encoder.encode_queries([q.text for q in questions]))
    passages = torch.from_numpy(encoder.encode_passages(PASSAGES))
    prior = (3.0 * queries @ passages.T).softmax(-1)
    for row, question, value in zip(prior.tolist(), questions, term.tolist(), strict=True):
        right = [has_answer(p.text, question.answers) for p in PASSAGES]
        mass = sum(p for p, here in zip(row, right, strict=True) if here)
        assert value == pytest.approx(math.log(mass) if mass else 0.0, abs=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_question_without_a_right_span_teaches_neither_sum(parts, objective):
    reader, encoder, _ = parts
    encoder.query_model.zero_grad()
    own = found(parts, [NOWHERE], QaRecipe(objective, k=3, wide=4))
    assert own.reader.item() == own.retriever.item() == 0
    (own.reader + own.retriever).sum().backward()
    assert all(
        p.grad is None or not p.grad.any()
        for module in (encoder.query_model, reader.scorer)
        for p in module.parameters()
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_raises_the_likelihood_and_leaves_passages_and_reader_alone(
    parts, tmp_path, objective
):
    reader, encoder, index = parts
    questions = [*QUESTIONS, CITY]
    chosen = QaRecipe(objective, 3, 4, batch=6, steps=15, query_rate=1e-2, scorer_rate=1e-2)
    fixed = [encoder.passage_model, reader.pairs.encoder]
    before = [p.detach().clone() for m in fixed for p in m.parameters()]
    start = found(parts, questions, chosen).loss.item()
    query = [p.detach().clone() for p in encoder.query_model.parameters()]

    def run(recipe, folder):
        train_open_qa(
            reader.pairs.encoder, reader.scorer, reader.tokenizer, encoder, index, questions,
            folder, recipe, progress=False,
        )  # fmt: skip

    run(chosen, tmp_path / "w")
    assert found(parts, questions, chosen).loss.item() < start - 0.1
    after = [p for m in fixed for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    moved = zip(query, encoder.query_model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in moved)
    ended = [p.detach().clone() for p in reader.scorer.parameters()]
    run(chosen, tmp_path / "w")  # it is done already
    assert all(torch.equal(a, b) for a, b in zip(ended, reader.scorer.parameters(), strict=True))
    with pytest.raises(InputError, match="other settings"):
        run(replace(chosen, k=2), tmp_path / "w")
    with pytest.raises(InputError, match="choose from realm, orqa"):
        run(replace(chosen, objective="rag"), tmp_path / "x")
    encoder.sha256 = "another"
    with pytest.raises(InputError, match="was built with encoder"):
        run(chosen, tmp_path / "x")

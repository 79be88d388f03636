"""REALM's pre-training on tiny random models: likelihood, gradients, exclusion, resumption."""

import json

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.index import build_index
from ragbook.methods.realm import score_gradient
from ragbook.models import Encoder, load_encoder, load_span_reader
from ragbook.models.checkpoints.realm import load_realm_encoder
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.encoder import save_encoder
from ragbook.models.masked import NULL, MaskedHead, MaskedReader
from ragbook.models.projected import ProjectedTower
from ragbook.retrieval import DenseRetriever
from ragbook.training.realm import masked_reader
from ragbook.training.realm import pretraining as realm
from ragbook.training.realm.cloze import ClozeRecipe, taken_out, train_cloze
from ragbook.training.realm.masked_reader import ReaderRecipe, passage_beside, train_masked_reader
from ragbook.training.realm.masking import Masked, masked_sentences
from ragbook.training.realm.pretraining import (
    RealmRecipe,
    candidates,
    retrieve_then_predict,
    train_realm,
)
from ragbook.training.realm.recipe import mapped_encoder, recipe
from ragbook.training.run import Run

NAMES = ["Oda", "Velm", "Sorn", "Ket", "Tavia", "Ordania"]
CORPUS = Corpus(
    "towns",
    [
        Passage(
            f"p{i}",
            f"Town {i}",
            f"The town was founded by {NAMES[i % 6]} in {1400 + i % 5}. "
            f"Later {NAMES[(i + 1) % 6]} came here from {NAMES[(i + 2) % 6]}.",
        )
        for i in range(12)
    ],
)


def config(**own) -> BertConfig:
    return BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.3,
        **own,
    )


def new_encoder(kind: str = "tied") -> Encoder:
    torch.manual_seed(5)
    if kind == "projected":
        tower = ProjectedTower(config(retriever_proj_size=8))
        return Encoder(tower, minilm_tokenizer(), "p", "h", 1.0, pooling="cls", similarity="dot")
    tower = BertModel(config(), add_pooling_layer=False)
    encoder = Encoder(tower, minilm_tokenizer(), "tiny", "h", 4.0)
    return encoder.untied() if kind == "untied" else encoder


def new_reader() -> MaskedReader:
    torch.manual_seed(6)
    model = BertModel(config(), add_pooling_layer=False).eval()
    return MaskedReader(model, MaskedHead(16, 30522), minilm_tokenizer())


@pytest.fixture(scope="module")
def masked():
    return masked_sentences(minilm_tokenizer(), CORPUS)


def shown(masked, n=3):
    return [ways[0] for ways in masked[:n]]


def index_of(encoder, folder):
    return build_index(CORPUS, folder, encoder, progress=False)


def test_the_own_passage_is_never_a_candidate(masked, tmp_path):
    encoder = new_encoder()
    index = index_of(encoder, tmp_path / "i")
    some = [ways[0] for ways in masked]
    queries = encoder.encode_queries([one.text for one in some])
    _, everything = index.search(queries, len(CORPUS))
    for k in (1, 4, 11, 50):
        found = candidates(index, queries, some, k)
        assert found.shape == (len(some), min(k, len(CORPUS) - 1))
        for row, one, order in zip(found.tolist(), some, everything.tolist(), strict=True):
            assert row == [at for at in order if at != one.source][:k]


@pytest.mark.parametrize("kind", ["tied", "untied", "projected"])
def test_the_likelihood_is_that_of_pairs_read_one_by_one(masked, tmp_path, kind):
    encoder, reader = new_encoder(kind), new_reader()
    index = index_of(encoder, tmp_path / "i")
    some = shown(masked)
    with torch.no_grad():
        found = retrieve_then_predict(reader, encoder, index, some, 3, null_score=0.5)
    for b, one in enumerate(some):
        passages = [NULL, *(CORPUS[at] for at in found.positions[b])]
        query = torch.from_numpy(encoder.encode_queries([one.text]))[0]
        vectors = torch.from_numpy(encoder.encode_passages(passages))
        scores = encoder.score_scale * vectors @ query
        scores[0] += 0.5
        torch.testing.assert_close(found.log_prior[b], scores.log_softmax(0), rtol=1e-4, atol=1e-4)
        total = 0.0
        for passage, log_prior in zip(passages, scores.log_softmax(0), strict=True):
            body = f"{passage.title}. {passage.text}" if passage.title else ""
            inputs = reader.tokenizer([one.text], [body], return_tensors="pt")
            places = (inputs["input_ids"][0] == reader.tokenizer.mask_token_id).nonzero().flatten()
            with torch.no_grad():
                states = reader.model(**inputs).last_hidden_state[0, places]
                log_p = reader.head(states, reader.words).log_softmax(-1)
            given = sum(log_p[j, token].item() for j, token in enumerate(one.answer))
            total += (log_prior + given).exp().item()
        assert found.log_prob()[b].exp().item() == pytest.approx(total, rel=1e-3)
    token = found.log_prob("token")
    assert token.shape == (3,)
    assert not torch.isnan(token).any()


def test_gradients_reach_both_towers_and_are_the_closed_form(masked, tmp_path):
    encoder, reader = new_encoder("untied"), new_reader()
    index = index_of(encoder, tmp_path / "i")
    found = retrieve_then_predict(reader, encoder, index, shown(masked), 3)
    found.log_prior.retain_grad()
    found.log_prob().sum().backward()
    prior = found.log_prior.detach()
    closed = score_gradient(found.answer_log_probs.detach(), prior)
    # Through the log-softmax: g - p * sum(g).
    grad = found.log_prior.grad
    assert grad is not None
    torch.testing.assert_close(grad - prior.exp() * grad.sum(-1, keepdim=True), closed)
    for tower in (encoder.query_model, encoder.passage_model, reader.model, reader.head):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters())


SMALL = RealmRecipe(
    k=3, batch=3, steps=6, refresh=2, retriever_rate=1e-2, reader_rate=1e-3, frozen_layers=1
)


def weights(*modules):
    return [p.detach().clone() for m in modules for p in m.parameters()]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(masked, tmp_path, monkeypatch):
    ended = []
    for folder, dies in (("whole", None), ("killed", 5)):
        for attempt in range(1 if dies is None else 2):
            encoder, reader = new_encoder(), new_reader()
            with monkeypatch.context() as patch:
                if dies is not None and attempt == 0:
                    calls = iter(range(100))

                    def dying(*arguments, calls=calls, dies=dies, **named):
                        if next(calls) == dies:
                            raise KeyboardInterrupt
                        return retrieve_then_predict(*arguments, **named)

                    patch.setattr(realm, "retrieve_then_predict", dying)
                try:
                    train_realm(
                        reader, encoder, CORPUS, masked, tmp_path / folder, SMALL, progress=False
                    )
                except KeyboardInterrupt:
                    continue
        ended.append(weights(encoder.passage_model, reader.model, reader.head))
    assert all(torch.equal(a, b) for a, b in zip(*ended, strict=True))
    with pytest.raises(InputError, match="other settings"):
        train_realm(
            new_reader(), new_encoder(), CORPUS, masked, tmp_path / "whole",
            RealmRecipe(steps=3), progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(("refresh", "wanted"), [(2, [0, 2, 4, 6]), (0, [0, 6])])
def test_the_index_is_made_anew_and_its_moves_are_logged(masked, tmp_path, refresh, wanted):
    encoder, reader = new_encoder(), new_reader()
    chosen = RealmRecipe(
        k=3, batch=3, steps=6, refresh=refresh, retriever_rate=1e-2, frozen_layers=1
    )
    seen: list[str] = []

    def evaluate(index) -> dict[str, float]:
        seen.append(index.digest)
        return {"passages": len(index)}

    index = train_realm(
        reader, encoder, CORPUS, masked, tmp_path, chosen, evaluate=evaluate, progress=False
    )
    rows = [json.loads(line) for line in (tmp_path / "refresh.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == wanted
    assert len(set(seen)) == len(wanted)  # every index is another
    assert "overlap" not in rows[0]
    assert all(0 <= row["overlap"] <= 1 and row["passages"] == 12 for row in rows[1:])
    trained = torch.from_numpy(encoder.encode_passages(list(CORPUS)))
    torch.testing.assert_close(torch.from_numpy(index.vectors(torch.arange(12).numpy())), trained)
    log = [json.loads(line) for line in (tmp_path / "realm.log.jsonl").read_text().splitlines()]
    assert 0 < log[-1]["null_prior"] < 1
    assert {"utility", "null_posterior", "holder_found", "holder_posterior", "nll"} <= set(log[-1])


def test_training_in_the_background_ends_with_the_trained_index_and_no_process(masked, tmp_path):
    encoder, reader = new_encoder(), new_reader()
    chosen = RealmRecipe(k=3, batch=2, steps=5, refresh=2, background=True, frozen_layers=1)
    index = train_realm(reader, encoder, CORPUS, masked, tmp_path, chosen, progress=False)
    trained = torch.from_numpy(encoder.encode_passages(list(CORPUS)))
    torch.testing.assert_close(torch.from_numpy(index.vectors(torch.arange(12).numpy())), trained)
    rows = [json.loads(line) for line in (tmp_path / "refresh.jsonl").read_text().splitlines()]
    assert (rows[0]["index"], rows[-1]["index"]) == (0, 5)


def test_training_raises_the_likelihood(masked, tmp_path):
    encoder, reader = new_encoder(), new_reader()
    index = index_of(encoder, tmp_path / "i")
    some = [ways[0] for ways in masked]

    def mean():
        with torch.no_grad():
            return retrieve_then_predict(reader, encoder, index, some, 3).log_prob().mean().item()

    before = mean()
    chosen = RealmRecipe(
        k=3, batch=4, steps=12, refresh=6, form="token", reader_rate=1e-2, frozen_layers=0
    )
    train_realm(reader, encoder, CORPUS, masked, tmp_path / "w", chosen, progress=False)
    assert mean() > before + 1


def test_bad_input_is_named(masked, tmp_path):
    with pytest.raises(InputError, match="choose from answer, token"):
        train_realm(new_reader(), new_encoder(), CORPUS, masked, tmp_path, RealmRecipe(form="sum"))
    with pytest.raises(InputError, match="at least 2"):
        train_realm(new_reader(), new_encoder(), Corpus("one", [CORPUS[0]]), masked, tmp_path)


def test_the_cloze_task_takes_a_sentence_out(tmp_path):
    import random

    whole = 0
    for seed in range(300):
        sentence, passage = taken_out(CORPUS[0], random.Random(seed))
        assert sentence in CORPUS[0].text
        whole += passage == CORPUS[0]
        if passage != CORPUS[0]:
            assert sentence not in passage.text
            assert len(passage.text) + len(sentence) + 1 == len(CORPUS[0].text)
    assert 10 < whole < 60  # one in ten, as in the paper
    encoder = new_encoder()
    train_cloze(encoder, CORPUS, tmp_path, ClozeRecipe(8, 20, 1e-2), progress=False)
    rows = [json.loads(r) for r in (tmp_path / "cloze.log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 2.08  # the logarithm of 8
    with pytest.raises(InputError, match="two sentences"):
        train_cloze(encoder, Corpus("x", [Passage("a", "A", "One only.")]), tmp_path / "x")


def test_the_readers_warm_start_teaches_it_to_copy(masked, tmp_path):
    import random

    rng = random.Random(0)
    one = next(ways[0] for ways in masked if len(ways[0].holders) > 1)
    beside = [passage_beside(CORPUS, one, rng) for _ in range(200)]
    assert NULL in beside
    assert CORPUS[one.source] in beside
    assert sum(p in [CORPUS[at] for at in one.holders] for p in beside) > 60
    reader = new_reader()
    some = shown(masked, 6)
    passages = [CORPUS[m.source] for m in some]
    masked_reader.freeze(reader, 0)
    _, before = masked_reader.loss(reader, some, passages)
    chosen = ReaderRecipe(batch=6, steps=15, rate=1e-2, head_rate=1e-2, frozen_layers=0)
    train_masked_reader(reader, CORPUS, masked, tmp_path, chosen, progress=False)
    _, after = masked_reader.loss(reader, some, passages)
    assert after["words"] < before["words"] - 1
    assert after["pointer"] < before["pointer"]


def test_a_holder_of_the_same_article_is_shown_before_others(monkeypatch):
    import random

    corpus = Corpus("c", [Passage(str(n), "A" if n < 3 else "B", f"text {n}") for n in range(6)])
    monkeypatch.setattr(masked_reader, "SHOWN", {"holder": 1.0})
    near = Masked("x [MASK]", (7,), 0, (1, 2, 3, 4, 5))
    drawn = {passage_beside(corpus, near, random.Random(seed)).id for seed in range(40)}
    assert drawn == {"1", "2"}
    far = Masked("x [MASK]", (7,), 0, (3, 4, 5))
    drawn = {passage_beside(corpus, far, random.Random(seed)).id for seed in range(40)}
    assert drawn == {"3", "4", "5"}


def test_a_warm_start_of_other_sentences_is_not_gone_on_with(masked, tmp_path):
    """As many sentences, but others: the run in the folder is another one."""
    chosen = ReaderRecipe(batch=2, steps=1, frozen_layers=0)
    train_masked_reader(new_reader(), CORPUS, masked, tmp_path, chosen, progress=False)
    with pytest.raises(InputError, match="other settings"):
        train_masked_reader(new_reader(), CORPUS, masked[::-1], tmp_path, chosen, progress=False)


def test_the_recipe_starts_from_the_encoder_as_it_is(monkeypatch, tmp_path):
    """On MiniWiki too: what pre-training begins with finds what the embedded encoder finds."""
    from ragbook.training.realm import recipe as module

    begun = []

    def stop(encoder, *_, **__):
        begun.append(encoder)
        raise InputError("far enough")

    monkeypatch.setattr(module, "warm_start", stop)
    monkeypatch.setattr(module, "masked_sentences", lambda *_: [])
    for own in (None, (CORPUS, [])):
        with pytest.raises(InputError, match="far enough"):
            recipe(Run(tmp_path / str(own is None), own=own))
    texts = [passage.text for passage in CORPUS]
    wanted = load_encoder().encode_queries(texts)
    for encoder in begun:
        np.testing.assert_allclose(encoder.encode_queries(texts), wanted, atol=0.02)


def test_the_recipe_ends_in_folders_that_answer(tmp_path):
    """One step of every stage; the encoder, the index and the reader belong together."""
    from ragbook.corpus import Question
    from ragbook.index import PassageIndex
    from ragbook.methods.realm import Realm

    questions = [Question(f"Who founded town {i}?", (NAMES[i % 6],), f"p{i}") for i in range(12)]
    recipe(Run(tmp_path, steps=1, own=(CORPUS, questions)))
    index = PassageIndex.open(tmp_path / "index")
    encoder = load_encoder(str(tmp_path / "realm"))
    reader = load_span_reader(str(tmp_path / "realm"), "realm")
    assert encoder.query_sha256 != encoder.sha256
    assert encoder.sha256 == load_encoder(str(tmp_path / "pretrained")).sha256
    answers = Realm(reader, DenseRetriever(index, encoder)).answer(questions[:2], 3)
    assert all(answer.text for answer in answers)
    masked = load_realm_encoder(str(tmp_path / "pretrained" / "reader"))
    assert masked.model.config.num_hidden_layers == 6
    with pytest.raises(InputError, match="holds a run already"):
        recipe(Run(tmp_path, steps=1, own=(CORPUS, questions)))


def test_the_mapped_encoder_is_the_embedded_one_through_a_map(tmp_path):
    weight, another = torch.randn(2, 8, 384, generator=torch.Generator().manual_seed(3))
    narrow, whole = mapped_encoder(weight), load_encoder()
    whole.model.bfloat16().float()
    texts = [p.text for p in CORPUS]
    wanted = whole.encode_queries(texts) @ weight.numpy().T
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(narrow.encode_queries(texts), wanted, atol=1e-5)
    read_once = narrow.passage_model.body
    calls = []
    read_once.register_forward_hook(lambda *_: calls.append(1))
    np.testing.assert_allclose(narrow.encode_queries(texts[::-1])[::-1], wanted, atol=1e-5)
    assert not calls
    again, other = mapped_encoder(weight).sha256, mapped_encoder(another).sha256
    assert again == narrow.sha256 != other
    save_encoder(tmp_path, narrow)
    again = load_encoder(str(tmp_path))
    assert again.sha256 == narrow.sha256
    np.testing.assert_allclose(again.encode_queries(texts), wanted, atol=1e-5)

"""What every method promises, and the identities between them, on tiny random models."""

import inspect
import itertools
import math
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.methods import load
from ragbook.methods.base import Method, doc_log_probs
from ragbook.methods.closed_book import ClosedBook
from ragbook.methods.decoding import Verbatim, beam_search
from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.knn_lm import KnnLM
from ragbook.methods.rag import RagSequence, RagToken, _in_own_words
from ragbook.methods.realm import Realm
from ragbook.models import load_language_model
from ragbook.models.answers import detokenize, word_runs
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.generator import labels_of
from tests.fakes import FixedRetriever as ListRetriever
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever

ANSWERS = ["Danube", "the Elbe"]


@pytest.fixture(params=["closed-book", "knn-lm", "realm", "rag-sequence", "rag-token", "fid"])
def method(request, reader, span_reader, language_model):
    retriever = FixedRetriever()
    return {
        "closed-book": lambda: ClosedBook(reader, beams=2, max_length=4),
        "knn-lm": lambda: KnnLM(language_model, retriever, 0.4, 5.0, beams=2, max_length=4),
        "realm": lambda: Realm(span_reader, retriever),
        "rag-sequence": lambda: RagSequence(reader, retriever, beams=2, max_length=4),
        "rag-token": lambda: RagToken(reader, retriever, beams=2, max_length=4),
        "fid": lambda: FiD(reader, retriever, beams=2, max_length=4),
    }[request.param]()


def test_answers_are_whole(method):
    answers = method.answer(QUESTIONS, k=3)
    assert [a.question for a in answers] == [q.text for q in QUESTIONS]
    for answer, shown in zip(answers, (3, 2), strict=True):
        assert answer.log_prob < 0
        assert answer.seconds > 0
        if method.name == "closed-book":
            assert answer.evidence == ()
            continue
        assert {e.passage_id for e in answer.evidence} == {p.id for p in PASSAGES[:shown]}
        assert sum(e.weight for e in answer.evidence) == pytest.approx(1, abs=1e-5)
        weights = [e.weight for e in answer.evidence]
        assert weights == sorted(weights, reverse=True)
        assert min(weights) >= 0


def test_the_answer_has_the_probability_it_says(method):
    """`log_prob` of the text an answer gives is the log-probability the answer came with."""
    answers = method.answer(QUESTIONS, k=3)
    found = method.log_prob(QUESTIONS, [a.text for a in answers], k=3)
    tokenizer = (method.lm if method.name == "knn-lm" else method.reader).tokenizer
    for answer, log_prob in zip(answers, found.tolist(), strict=True):
        tokens = tokenizer(answer.text, add_special_tokens=False)["input_ids"]
        if tokenizer.decode(tokens) == answer.text.lower() and len(tokens) <= 4:
            assert log_prob <= answer.log_prob + 1e-3  # the same tokens, unless a word splits anew
    assert found.dtype == torch.float32
    assert found.shape == (2,)


def test_a_method_has_the_parameters_of_its_model(method):
    modules = [method.lm.model] if method.name == "knn-lm" else []
    if method.name == "realm":
        modules = [method.reader.pairs.encoder, method.reader.scorer]
    counted = sum(p.numel() for m in modules or [method.reader.model] for p in m.parameters())
    assert method.parameters == counted > 0


def test_questions_do_not_touch_each_other(method):
    together = method.log_prob(QUESTIONS, ANSWERS, k=2)
    turned = method.log_prob(QUESTIONS[:1], ANSWERS[:1], k=2)
    torch.testing.assert_close(together[:1], turned, rtol=1e-4, atol=1e-4)


def test_bad_input_is_refused_and_none_is_fine(method):
    assert method.answer([], k=2) == []
    with pytest.raises(InputError, match="question 2 is empty"):
        method.answer([QUESTIONS[0], Question("  ", ("x",))], k=2)
    with pytest.raises(InputError, match="k must be at least 1"):
        method.log_prob(QUESTIONS, ANSWERS, k=0)


def test_a_question_of_ten_thousand_words(method):
    long = Question("why " * 10_000 + "?", ("Danube",))
    assert len(method.answer([long], k=2)) == 1
    assert not math.isnan(method.log_prob([long], ["Danube"], k=2).item())


def test_one_document_is_the_plain_reader_under_every_method(reader):
    """n = 1: Sequence = Token = FiD = the reader's own sum of token log-probabilities."""
    retriever = FixedRetriever(order=(2, 0, 1, 3))
    found = {
        m.name: m(reader, retriever).log_prob(QUESTIONS, ANSWERS, k=1)
        for m in (RagSequence, RagToken, FiD)
    }
    states, mask = reader.encode_documents(QUESTIONS, [[PASSAGES[2]]] * 2)
    logits = reader.model(
        encoder_outputs=(states[:, 0],),
        attention_mask=mask[:, 0],
        labels=labels_of(reader, ANSWERS).masked_fill(labels_of(reader, ANSWERS) == -100, -100),
    )
    assert logits.loss is not None
    plain = reader.token_log_probs(
        reader.memory(states[:, 0], mask[:, 0]), labels_of(reader, ANSWERS)
    ).sum(-1)
    for name, log_probs in found.items():
        torch.testing.assert_close(log_probs, plain, rtol=1e-5, atol=1e-5, msg=name)


def test_plain_reader_is_the_models_own_cross_entropy(reader):
    states, mask = reader.encode_documents(QUESTIONS[:1], [[PASSAGES[0]]])
    labels = labels_of(reader, ANSWERS[:1])
    with torch.no_grad():
        loss = reader.model(
            input_ids=None,
            encoder_outputs=(states[:, 0],),
            attention_mask=mask[:, 0],
            labels=labels,
        ).loss
    ours = reader.token_log_probs(reader.memory(states[:, 0], mask[:, 0]), labels).sum()
    if reader.name == "t5":  # BART shifts with its start token as well, so both agree
        assert reader.start == reader.model.config.decoder_start_token_id
    torch.testing.assert_close(-loss * labels.shape[1], ours, rtol=1e-4, atol=1e-4)


def test_fid_does_not_mind_the_order_of_passages(reader):
    results = []
    for order in itertools.islice(itertools.permutations((0, 1, 2, 3)), 0, 24, 7):
        fid = FiD(reader, FixedRetriever(order, uneven=False), beams=2, max_length=3)
        answers = fid.answer(QUESTIONS, k=4)
        results.append(
            (
                fid.log_prob(QUESTIONS, ANSWERS, k=4),
                [a.text for a in answers],
                torch.tensor(
                    [
                        [dict((e.passage_id, e.weight) for e in a.evidence)[p.id] for p in PASSAGES]
                        for a in answers
                    ]
                ),
            )
        )
    for log_probs, texts, weights in results[1:]:
        torch.testing.assert_close(log_probs, results[0][0], rtol=1e-4, atol=1e-4)
        assert texts == results[0][1]
        torch.testing.assert_close(weights, results[0][2], rtol=1e-3, atol=1e-4)


def test_k_larger_than_what_there_is(method):
    some, all_of_them = (
        method.log_prob(QUESTIONS, ANSWERS, k=5),
        method.log_prob(QUESTIONS, ANSWERS, k=50),
    )
    torch.testing.assert_close(some, all_of_them)


def test_lambda_zero_is_the_language_model(language_model, tokenizer):
    plain = []
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        prompt = language_model.prompt_ids(question.text)
        target = [*tokenizer(answer, add_special_tokens=False)["input_ids"], language_model.end]
        with torch.no_grad():
            logits = language_model.model(torch.tensor([prompt + target])).logits[0]
        log_probs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        plain.append(sum(log_probs[i, t].item() for i, t in enumerate(target)))
    knn = KnnLM(language_model, FixedRetriever(), lam=0.0, temperature=1.0)
    torch.testing.assert_close(
        knn.log_prob(QUESTIONS, ANSWERS, k=3), torch.tensor(plain), rtol=1e-4, atol=1e-4
    )


def test_keys_are_the_input_of_the_last_feed_forward_block(language_model):
    """GPT-2: the output of `ln_2` in the last block, computed here from the block's own parts."""
    ids = torch.tensor([language_model.passage_ids(PASSAGES[0])])
    (keys, values) = language_model.key_values(PASSAGES[:1])[0]
    seen = {}
    block = language_model.model.transformer.h[-1]
    hook = block.ln_2.register_forward_hook(lambda _m, _i, out: seen.update(key=out))
    with torch.no_grad():
        language_model.model(ids)
    hook.remove()
    torch.testing.assert_close(keys, seen["key"][0, :-1])
    assert values.tolist() == ids[0, 1:].tolist()


def test_realm_against_enumeration(span_reader):
    """log p(y | x) summed over passages and over every span that reads y, by plain loops."""
    question, answer = QUESTIONS[0], "and"
    retriever = FixedRetriever(uneven=False)
    found = retriever.retrieve([question], 4)[0]
    exps = [math.exp(2.0 * s) for s in found.scores.tolist()]
    total = 0.0
    for z, passage in enumerate(found.passages):
        inputs, log_probs = span_reader.span_log_probs([question.text], [passage])
        assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-4)
        ids = inputs.tensors["input_ids"][0].tolist()
        wanted = span_reader.tokenizer(answer, add_special_tokens=False)["input_ids"]
        for start in range(len(ids) - len(wanted) + 1):
            if ids[start : start + len(wanted)] == wanted:
                total += exps[z] / sum(exps) * math.exp(log_probs[0, start, len(wanted) - 1])
    realm = Realm(span_reader, retriever)
    assert realm.log_prob([question], [answer], k=4).item() == pytest.approx(
        math.log(total), abs=1e-4
    )
    assert realm.log_prob([question], ["zebra"], k=4).item() == float("-inf")


def test_realm_answers_with_a_span_of_a_passage(span_reader):
    for answer in Realm(span_reader, FixedRetriever()).answer(QUESTIONS, k=4):
        assert any(answer.text in f"{p.title}. {p.text}" for p in PASSAGES)


def test_rag_sequence_takes_the_best_of_all_candidates(reader):
    """Thorough decoding: no candidate of any passage's beam has a higher marginal probability."""
    rag = RagSequence(reader, FixedRetriever(), beams=3, max_length=3)
    answer = rag.answer(QUESTIONS[:1], k=3)[0]
    states, mask = reader.encode_documents(QUESTIONS[:1], [PASSAGES[:3]])
    for z in range(3):
        for hypothesis in beam_search(
            reader.continuation(reader.memory(states[:, z], mask[:, z])),
            1,
            reader.start,
            reader.end,
            3,
            3,
        )[0]:
            text = reader.decode(hypothesis.tokens)
            if reader.tokenizer(text, add_special_tokens=False)["input_ids"] == list(
                hypothesis.tokens
            ):
                other = rag.log_prob(QUESTIONS[:1], [text], k=3).item()
                assert other <= answer.log_prob + 1e-4


def test_beam_search_finds_the_best_sequence_when_beams_are_many():
    """Against all sequences of a Markov chain over 5 tokens, 0 being the end."""
    generator = torch.Generator().manual_seed(4)
    chain = (2 * torch.randn(5, 5, generator=generator)).log_softmax(-1)
    found = beam_search(lambda p, *_: chain[p[:, -1]], 1, 1, 0, beams=200, max_length=3)[0]
    scored = []
    for length in (1, 2, 3):
        for tokens in itertools.product(range(1, 5), repeat=length):
            path = [1, *tokens, 0]
            scored.append((sum(chain[a, b].item() for a, b in itertools.pairwise(path)), tokens))
    scored.sort(reverse=True)
    for hypothesis, (log_prob, tokens) in zip(found, scored[:10], strict=False):
        assert hypothesis.tokens == tokens
        assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-5)


def test_beam_search_keeps_to_what_is_allowed():
    """Against all sequences of the chain that are among a few allowed ones."""
    generator = torch.Generator().manual_seed(4)
    chain = (2 * torch.randn(5, 5, generator=generator)).log_softmax(-1)
    some = [(1, 2), (1, 2, 3), (4,), (4, 4), (3, 1, 2)]

    def following(prefix):
        own = [s for s in some if list(s[: len(prefix)]) == list(prefix)]
        after = {s[len(prefix)] for s in own if len(s) > len(prefix)}
        return sorted(after | ({0} if tuple(prefix) in some else set()))

    found = beam_search(
        lambda p, *_: chain[p[:, -1]], 1, 1, 0, beams=20, max_length=4, allowed=[following]
    )[0]
    scored = []
    for tokens in some:
        log_prob = held = 0.0
        for t, (a, b) in enumerate(itertools.pairwise([1, *tokens, 0])):
            log_prob += chain[a, b].item()
            # At the beginning the end keeps its share, though no answer is empty.
            may = following(tokens[:t]) if t else [0, *following(())]
            held += (chain[a, b] - chain[a, may].logsumexp(0)).item()
        scored.append((held, log_prob, tokens))
    scored.sort(reverse=True)
    assert [h.tokens for h in found] == [tokens for _, _, tokens in scored]
    for hypothesis, (held, log_prob, _) in zip(found, scored, strict=True):
        assert hypothesis.log_prob == pytest.approx(log_prob, abs=1e-5)
        assert hypothesis.held == pytest.approx(held, abs=1e-5)
    # With the empty answer they share out all probability, and the model's own order is another.
    empty = (chain[1, 0] - chain[1, [0, *following(())]].logsumexp(0)).exp().item()
    assert sum(math.exp(h.held) for h in found) + empty == pytest.approx(1)
    assert [h.log_prob for h in found] != sorted((h.log_prob for h in found), reverse=True)


def held(tokenizer, passages):
    """The rule for these passages, with WordPiece's end token."""
    return Verbatim(partial(word_runs, tokenizer), passages, 102, partial(detokenize, tokenizer))


@given(st.lists(st.text("ab cdéß-1.", max_size=40), min_size=1, max_size=3), st.randoms())
@settings(deadline=None)
def test_verbatim_writes_every_run_of_words_and_nothing_else(texts, rng):
    """A random walk ends at a run of whole words; every run of whole words can be walked, but not
    to its end where it is articles and punctuation only and more can follow."""
    tokenizer = minilm_tokenizer()
    passages = [Passage(str(i), "", text) for i, text in enumerate(texts)]
    follow = held(tokenizer, passages)
    silent = {tokenizer.convert_tokens_to_ids(mark) for mark in ("a", "-", ".")}
    runs = set()
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        # A hyphen or a point between two characters of words holds them together.
        parted = re.sub(r"(?<=\w)-(?=\w)|(?<=\d)\.(?=\d)", "x", text)
        words = [m.span() for m in re.finditer(r"\w+|[^\w\s]", parted)]
        tokens = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
        pieces = [[t for t, (a, b) in tokens if first <= a < b <= last] for first, last in words]
        runs |= {
            tuple(itertools.chain(*pieces[i:j]))
            for i in range(len(pieces))
            for j in range(i + 1, len(pieces) + 1)
        }
    for run in runs:
        assert all(run[i] in follow(run[:i]) for i in range(len(run)))
        longer = any(other != run and other[: len(run)] == run for other in runs)
        assert (102 in follow(run)) == (not silent.issuperset(run) or not longer)
    prefix = []
    while after := follow(prefix):
        if (token := rng.choice(after)) == 102:
            break
        prefix.append(token)
    assert tuple(prefix) in runs or not runs


def test_an_article_alone_is_no_answer():
    """Whatever its capital; it may begin one, and end one."""
    tokenizer = minilm_tokenizer()
    passage = Passage("a", "", "The Who played an encore. Who wrote the? A")

    def tokens(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    follow = held(tokenizer, [passage])
    assert follow(tokens("The")) == sorted([*tokens("Who"), *tokens("?")])
    assert follow(tokens("an")) == tokens("encore")
    assert 102 in follow(tokens("The Who"))
    assert 102 in follow(tokens("wrote the"))
    alone = held(tokenizer, [Passage("b", "", "Who wrote it? A")])
    assert alone(tokens("a")) == [102]  # nothing else can follow


def test_punctuation_alone_is_no_answer():
    """With articles or without; an answer may begin with it, and end with it."""
    tokenizer = minilm_tokenizer()

    def tokens(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    follow = held(tokenizer, [Passage("a", "", "A cost of $ 5 (the). Done")])
    assert follow(tokens("$")) == tokens("5")
    assert follow(tokens("(the")) == tokens(")")
    assert follow(tokens(").")) == tokens("done")
    assert 102 in follow(tokens("$ 5"))
    assert 102 in follow(tokens("5 ("))
    assert held(tokenizer, [Passage("b", "", "Done.")])(tokens(".")) == [102]


def test_verbatim_answers_stand_in_a_passage(reader, language_model):
    """And are spelled as there; free answers of these random models are not."""
    retriever = FixedRetriever()

    def stands(answers):
        return [any(a.text in f"{p.title}. {p.text}" for p in PASSAGES[:3]) for a in answers]

    for make in (
        lambda held: RagSequence(reader, retriever, 2, 6, held),
        lambda held: RagToken(reader, retriever, 2, 6, held),
        lambda held: FiD(reader, retriever, 2, 6, held),
        lambda held: KnnLM(language_model, retriever, 0.4, 5.0, 2, 6, held),
    ):
        assert all(stands(make(True).answer(QUESTIONS, k=3)))
    assert not all(stands(FiD(reader, retriever, 2, 6).answer(QUESTIONS, k=3)))


def test_beam_search_of_one_beam_is_greedy():
    chain = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]).log()
    best = beam_search(lambda p, *_: chain[p[:, -1]], 2, 1, 0, beams=1, max_length=5)
    assert [h[0].tokens for h in best] == [(2,), (2,)]
    assert best[0][0].log_prob == pytest.approx(math.log(0.7 * 0.6))


def chain_search(end_after: float, beams: int, max_length: int, allowed=None):
    """Token 2 follows everything with what `end_after` leaves, and 0 ends with `end_after`."""
    row = torch.tensor([end_after, 0.0, 1 - end_after]).log()
    return beam_search(lambda p, *_: row.repeat(len(p), 1), 1, 1, 0, beams, max_length, allowed)[0]


def test_an_answer_is_truncated_if_it_would_have_gone_on():
    """With one beam a prefix goes on while its next word is likelier than its end."""
    (held,) = chain_search(0.4, 1, 3)
    assert (held.tokens, held.truncated) == ((2, 2, 2), True)
    (whole,) = chain_search(0.6, 1, 3)
    assert (whole.tokens, whole.truncated) == ((2,), False)
    (just,) = chain_search(0.6, 1, 1)  # as long as may be, but it ends there by itself
    assert (just.tokens, just.truncated) == ((2,), False)


def test_what_may_not_follow_does_not_keep_an_answer_open():
    """As long as the run of words that it is taken from, and one that may not end there."""
    (whole,) = chain_search(0.1, 1, 2, [lambda prefix: [2] if len(prefix) < 2 else [0]])
    assert (whole.tokens, whole.truncated) == ((2, 2), False)
    (held,) = chain_search(0.9, 1, 2, [lambda prefix: [2]])
    assert (held.tokens, held.truncated) == ((2, 2), True)
    assert held.log_prob == pytest.approx(2 * math.log(0.1) + math.log(0.9), abs=1e-5)


@pytest.mark.parametrize("longest", [1, 40])
def test_methods_say_which_answers_are_truncated(
    longest, reader, language_model, span_reader, monkeypatch
):
    """As the search says it of the hypothesis that became the answer."""
    seen = []

    def spy(*args, **kwargs):
        found = beam_search(*args, **kwargs)
        seen.extend(one for each in found for one in each)
        return found

    for module in ("closed_book", "all_at_once", "rag", "knn_lm.answers"):
        monkeypatch.setattr(f"ragbook.methods.{module}.beam_search", spy)
    retriever = FixedRetriever()
    search = {"beams": 2, "max_length": longest}
    for method in (
        ClosedBook(reader, **search),
        InContext(reader, retriever, **search),
        KnnLM(language_model, retriever, 0.4, 5.0, **search),
        RagSequence(reader, retriever, **search),
        RagToken(reader, retriever, **search),
        FiD(reader, retriever, **search),
    ):
        seen.clear()
        answers = method.answer(QUESTIONS, k=2)
        assert any(one.truncated for one in seen) or longest == 40 or method.name == "knn-lm"
        for answer in answers:
            ways = {one.truncated for one in seen if near(method, one, answer)}
            assert answer.truncated in ways, method.name
    assert not any(answer.truncated for answer in Realm(span_reader, retriever).answer(QUESTIONS))


def near(method, hypothesis, answer) -> bool:
    """Whether the hypothesis reads as the answer does."""
    model = method.lm if method.name == "knn-lm" else method.reader
    text = detokenize(model.tokenizer, hypothesis.tokens)
    return "".join(text.lower().split()) == "".join(answer.text.lower().split())


def test_a_continuation_is_the_model_run_from_the_start(reader):
    """Kept keys and values, with prefixes that swap rows, drop out and are copied, against the
    whole prefix run anew without any cache."""
    states, mask = reader.encode_documents(QUESTIONS, [PASSAGES[:2], PASSAGES[2:3]])
    states, mask = states.flatten(1, 2), mask.flatten(1, 2)
    following = reader.continuation(reader.memory(states, mask))
    generator = torch.Generator().manual_seed(5)
    prefixes = torch.full((2, 1), reader.start)
    for rows, parents in (
        ([0, 1], [0, 1]),
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([0, 0, 1, 1], [1, 1, 3, 2]),
        ([1, 1], [3, 2]),
        ([1], [1]),
    ):
        rows, parents = torch.tensor(rows), torch.tensor(parents)
        if prefixes.shape[1] > 1 or len(rows) > 2:
            new = torch.randint(5, 30_000, (len(rows), 1), generator=generator)
            prefixes = torch.cat([prefixes[parents], new], dim=1)
        with torch.no_grad():
            logits = reader.model(
                encoder_outputs=(states[rows],),
                attention_mask=mask[rows],
                decoder_input_ids=prefixes,
                use_cache=False,
            ).logits
        torch.testing.assert_close(
            following(prefixes, rows, parents),
            logits[:, -1].log_softmax(-1),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("bundled", [False, True])
def test_a_continued_prompt_is_the_model_run_from_the_start(language_model, bundled):
    """As above for the causal model: prompts of two lengths, padded on the left."""
    lm = load_language_model() if bundled else language_model
    texts = ["Which river passes through Vienna?", "Where is it?"]
    following = lm.key_continuation(texts)
    prefixes = torch.full((2, 1), lm.end)
    for rows, parents in (
        ([0, 1], [0, 1]),
        ([0, 0, 1], [0, 0, 1]),
        ([0, 1, 1], [1, 2, 2]),
        ([1], [1]),
    ):
        rows, parents = torch.tensor(rows), torch.tensor(parents)
        if len(rows) != 2:
            prefixes = torch.cat(
                [prefixes[parents], 1000 + 7 * torch.arange(len(rows))[:, None]], 1
            )
        keys, log_probs = following(prefixes, rows, parents)
        for at, row in enumerate(rows.tolist()):
            ids = torch.tensor([[*lm.prompt_ids(texts[row]), *prefixes[at, 1:].tolist()]])
            own_keys, own = lm.forward(ids)
            torch.testing.assert_close(keys[at], own_keys[0, -1], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(log_probs[at], own[0, -1], rtol=1e-3, atol=1e-4)


def test_pairs_encoded_for_one_method_are_charged_to_the_next(reader):
    """The second method finds the states done; the clock runs on as if it had made them."""
    retriever = FixedRetriever()
    RagToken(reader, retriever, beams=1, max_length=2).log_prob(QUESTIONS, ANSWERS, k=3)
    states = reader.pairs._read
    cost = reader.pairs._seconds = 100.0
    answers = FiD(reader, retriever, beams=1, max_length=2).answer(QUESTIONS, k=3)
    assert reader.pairs._read is states
    assert all(answer.seconds > cost / 2 for answer in answers)


@pytest.mark.parametrize("chunk", [1, 3, 4, 64])
def test_labels_that_share_states_are_scored_as_if_each_had_its_own(reader, chunk):
    """Rows have different numbers of labels; some are the beginning of others, two are the same."""
    states, mask = reader.encode_documents(QUESTIONS, [PASSAGES[:2], PASSAGES[2:3]])
    states, mask = states.flatten(1, 2), mask.flatten(1, 2)
    rows = torch.tensor([1, 0, 1, 1, 0, 1])
    answers = ["the Danube", "the Danube", "the Danube at Ulm", "the", "x", "the Danube"]
    labels = labels_of(reader, answers)
    torch.testing.assert_close(
        reader.token_log_probs(reader.memory(states, mask), labels, rows, chunk=chunk),
        reader.token_log_probs(reader.memory(states[rows], mask[rows]), labels),
        rtol=1e-4,
        atol=1e-4,
    )
    for row, label, own in zip(
        rows.tolist(),
        labels,
        reader.token_log_probs(reader.memory(states, mask), labels, rows, chunk=chunk),
        strict=True,
    ):
        alone = label[label != -100]
        out = reader.model(
            encoder_outputs=(states[row : row + 1],),
            attention_mask=mask[row : row + 1],
            labels=alone[None],
        )
        assert own.sum().item() == pytest.approx(-out.loss.item() * len(alone), abs=1e-3)


def test_all_methods_are_asked_in_the_same_way_where_nothing_is_said():
    """The same number of passages, beams and tokens: else a comparison compares those."""
    kinds = (ClosedBook, InContext, KnnLM, Realm, RagSequence, RagToken, FiD)
    for kind in (Method, *kinds):
        for call in (kind.answer, kind.log_prob):
            assert inspect.signature(call).parameters["k"].default == 5
    for kind in (kind for kind in kinds if kind is not Realm):
        settings = inspect.signature(kind).parameters
        assert (settings["beams"].default, settings["max_length"].default) == (2, 16)
    for kind in (InContext, KnnLM, RagSequence, RagToken, FiD):
        assert inspect.signature(kind).parameters["verbatim"].default is False
    for kind in (InContext, RagSequence, RagToken, FiD):
        assert inspect.signature(kind).parameters["length_penalty"].default == 0.0


def test_a_name_that_no_method_has_is_refused():
    """It is not passed over: the others would be compared without it."""
    with pytest.raises(InputError, match="no method 'fid2'"):
        load(["fid", "fid2"], FixedRetriever())
    with pytest.raises(InputError, match="no method is named"):
        load([], FixedRetriever())


def test_rag_token_holds_each_passage_to_its_own_words(reader):
    """The best answer by enumeration of all runs of words: a token's probability is a mixture of
    what the passages that hold the prefix may say, shared out among what is allowed."""
    shown = (
        Passage("a", "", "Oda drew Velm first"),
        Passage("b", "", "Velm lies south"),
        Passage("c", "", "Tor drew Ist"),
    )
    retriever = ListRetriever(shown, [0.3, 0.2, 0.1], score_scale=2.0)
    question = Question("Who drew Velm?", ("Oda",))
    method = RagToken(reader, retriever, beams=80, max_length=20, verbatim=True)
    prior = doc_log_probs(retriever.retrieve([question], 3), 2.0)[0].exp().double()
    memory = reader.read([question], [shown])
    runs = []
    for passage in shown:
        (tokens, _, ends), *others = word_runs(reader.tokenizer, passage.text)
        assert not others
        cuts = [0, *(at + 1 for at, end in enumerate(ends) if end)]
        runs.append({tuple(tokens[i:j]) for i, j in itertools.combinations(cuts, 2)})

    def after(own, prefix):
        """What may follow a prefix in a passage: more of a run, the end, at first also nothing."""
        longer = {run[len(prefix)] for run in own if run[: len(prefix)] == prefix != run}
        return longer | ({reader.end} if prefix in own or not prefix else set())

    def score(run):
        total = 0.0
        shifted = torch.tensor([[reader.start, *run]]).expand(3, -1)
        with torch.no_grad():
            logits = reader.forward(memory.states, memory.mask, shifted).logits
        each = logits.double().softmax(-1)
        for t, token in enumerate((*run, reader.end)):
            mixed: dict[int, float] = {}
            for z, own in enumerate(runs):
                may = sorted(after(own, run[:t]))
                share = each[z, t, may].sum()
                for one in may:
                    mixed[one] = mixed.get(one, 0.0) + float(prior[z] * each[z, t, one] / share)
            total += math.log(mixed[token] / sum(mixed.values()))
        return total

    every = sorted({run for own in runs for run in own}, key=score, reverse=True)
    found = method.generate([question], 3, 80)[0]
    assert {one.tokens for one in found} == set(every)
    assert score(every[0]) > score(every[1]) + 1e-4
    best = max(found, key=lambda one: score(one.tokens))
    assert method.answer([question], 3)[0].text == detokenize(reader.tokenizer, best.tokens, shown)


def test_a_passage_without_the_prefix_has_no_say_in_how_it_goes_on():
    """And one that holds it shares all its probability among what may follow there."""
    a, b = (
        Verbatim(
            lambda _, own=own: [(own, [True] * len(own), [True] * len(own))], [PASSAGES[0]], 0, str
        )
        for own in ([1, 2, 3], [4, 2])
    )
    torch.manual_seed(0)
    log_probs = torch.randn(1, 2, 2, 6).log_softmax(-1)  # a question, two passages, two prefixes
    prefixes = torch.tensor([[[5, 1, 2], [5, 4, 2]]])  # 5 is the start, 0 the end
    held = _in_own_words(log_probs, [[a, b]], prefixes)
    shares = torch.zeros(2, 2, 6)
    shares[0, 0, [3, 0]] = log_probs[0, 0, 0, [3, 0]].softmax(-1)  # a goes on after 1 2 or ends
    shares[1, 1, 0] = 1  # b must end after 4 2
    torch.testing.assert_close(held[0].exp(), shares)
    assert torch.equal(_in_own_words(log_probs, [None], prefixes), log_probs)


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize("empty", ["\u200b", "\0", "\ufeff \u00ad"])
def test_a_passage_without_a_word_does_not_lift_the_rule(reader, thorough, empty):
    """RAG-Sequence's beam of such a passage would be free: its candidates are the others' words."""
    worded = Passage("a", "", "Faust by Goethe")
    retriever = ListRetriever([Passage("b", "", empty), worded], [0.9, 0.1])
    method = RagSequence(reader, retriever, beams=4, max_length=8, verbatim=True, thorough=thorough)
    question = Question("Who wrote it?", ("x",))
    found = method.generate([question], 2)[0]
    ((tokens, begins, ends),) = word_runs(reader.tokenizer, worded.text)
    runs = {
        tuple(tokens[i:j])
        for i, j in itertools.combinations(range(len(tokens) + 1), 2)
        if begins[i] and ends[j - 1]
    }
    assert {one.tokens for one in found} <= runs
    assert method.answer([question], 2)[0].text in worded.text


def test_a_piece_that_ends_within_a_word_can_only_end():
    pieces = [([1, 2, 3], [True] * 3, [True, True, False])]
    follow = Verbatim(lambda _: pieces, [PASSAGES[0]], 0, str)
    assert follow([2, 3]) == [0]
    assert follow([2]) == [0, 3]


def test_an_answer_closed_within_a_word_is_one_all_the_same(reader):
    """No passage may end there, so that the rule cannot hold where open answers are closed."""
    long = Passage("a", "", "Floccinaucinihilipilification")
    (tokens, _, ends), *_ = word_runs(reader.tokenizer, long.text)
    assert len(tokens) > 3
    assert not any(ends[:3])
    retriever = ListRetriever([long, long], [0.2, 0.1])
    method = RagToken(reader, retriever, beams=2, max_length=2, verbatim=True)
    (found,) = method.generate([Question("What is it?", ("x",))], 2)
    assert found[0].tokens == tuple(tokens[:2])
    assert found[0].truncated

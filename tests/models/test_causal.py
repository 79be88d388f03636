"""Decoder-only generators, against plain forward passes without caches, padding or rows."""

import itertools
from functools import cached_property

import pytest
import torch

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.methods.base import doc_log_probs
from ragbook.methods.closed_book import ClosedBook
from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.knn_lm import KnnLM
from ragbook.methods.rag import RagSequence, RagToken, sequence_log_prob, token_log_prob
from ragbook.methods.remembering import remembering
from ragbook.models.causal import CausalReader
from ragbook.models.causal_memory import ANSWER, CausalMemory
from ragbook.models.causal_states import batches
from ragbook.models.generator import labels_of
from ragbook.models.templates import Demonstration, Template
from ragbook.retrieval import Retrieved
from tests.checkpoints import CAUSAL, END, START, new_tokenizer, random_model, tokenizer_of

PASSAGES = [
    Passage("a", "Lake Velm", "Lake Velm lies in Ordania, north of the town of Brisk."),
    Passage("b", "Mount Orr", "Mount Orr is a mountain of granite."),
    Passage("c", "Ister", "The Ister is a river, long and quiet in its lower course, and shallow."),
]
QUESTIONS = [
    Question("Where does Lake Velm lie?", ("Ordania",)),
    Question("What is the Ister, and how is its lower course?", ("a river",)),
]
ANSWERS = ["Ordania", "a quiet river"]


class Fixed:
    """Finds the same passages in the order given."""

    name, score_scale = "fixed", 1.0

    def __init__(self, order=(0, 1, 2)):
        self.order = order

    def retrieve(self, questions, k):
        shown = [PASSAGES[at] for at in self.order[:k]]
        scores = torch.tensor([1.0, 0.2, 0.7])[list(self.order[:k])].numpy()
        return [Retrieved(tuple(p.id for p in shown), scores, tuple(shown)) for _ in questions]


@pytest.fixture(scope="module", params=CAUSAL)
def reader(request):
    return CausalReader(random_model(request.param), tokenizer_of(request.param), request.param)


@pytest.fixture(scope="module")
def llama():
    return CausalReader(random_model("llama"), tokenizer_of("llama"), "llama")


@torch.no_grad()
def plain(reader, before, answer):
    """log p of each of an answer's tokens after a prompt, by one forward pass of everything."""
    ids = torch.tensor([[*before, *answer[:-1]]])
    log_probs = reader.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return log_probs[len(before) - 1 :].gather(1, torch.tensor(answer)[:, None])[:, 0]


def prompt(reader, question, *passages):
    """The tokens of a prompt, end to end."""
    shown = [token for passage in passages for token in reader.prompt.passage(passage)]
    return [*reader.beginning.ids, *shown, *reader.prompt.question(question.text), reader.start]


def close(found, wanted, tolerance=1e-5):
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_rag_is_a_plain_forward_pass(reader):
    per_token = [
        torch.stack([plain(reader, prompt(reader, q, p), reader.answer_ids(a)) for p in PASSAGES])
        for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    assert per_token[0].std(0).max() > 0.05  # the passages make a difference
    prior = doc_log_probs(Fixed().retrieve(QUESTIONS[:1], 3), 1.0)
    for kind, core in ((RagSequence, sequence_log_prob), (RagToken, token_log_prob)):
        wanted = [core(one[None], prior, torch.ones(1, one.shape[1]))[0] for one in per_token]
        close(kind(reader, Fixed()).log_prob(QUESTIONS, ANSWERS, 3), torch.stack(wanted))


def test_the_closed_book_and_knn_lm_without_neighbours_are_the_model(reader):
    wanted = torch.stack(
        [
            plain(reader, prompt(reader, q), reader.answer_ids(a)).sum()
            for q, a in zip(QUESTIONS, ANSWERS, strict=True)
        ]
    )
    close(ClosedBook(reader).log_prob(QUESTIONS, ANSWERS), wanted)
    method = KnnLM(reader, Fixed(), lam=0.0, temperature=1.0, max_length=4)
    close(method.log_prob(QUESTIONS, ANSWERS, 3), wanted)
    alone = ClosedBook(reader, max_length=4).answer(QUESTIONS)
    assert [a.text for a in method.answer(QUESTIONS, 3)] == [a.text for a in alone]


def test_in_context_is_one_prompt_with_the_best_passage_last(reader):
    wanted = [
        plain(reader, prompt(reader, q, *PASSAGES[::-1]), reader.answer_ids(a)).sum()
        for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    close(InContext(reader, Fixed()).log_prob(QUESTIONS, ANSWERS, 3), torch.stack(wanted))


@torch.no_grad()
def blocked(reader, question, passages, answer):
    """Fused passages in one forward pass, with an explicit mask of blocks and explicit places.

    Every block is the beginning, a passage and the question; the answer sees one beginning. With
    rotary positions the blocks are one after the other, the best last.
    """
    first, asked = len(reader.beginning.ids), reader.prompt.question(question.text)
    rotary = reader.rotation is not None
    ids, places, block, unseen, after = [], [], [], [], first
    for z, passage in enumerate(passages[::-1] if rotary else passages):
        own = [*reader.prompt.passage(passage), *asked]
        begins = after if rotary else first
        ids += [*reader.beginning.ids, *own]
        places += range(begins - first, begins + len(own))
        block += [z] * (first + len(own))
        unseen += [z > 0] * first + [False] * len(own)
        after = max(after, begins + len(own))
    written = [reader.start, *answer[:-1]]
    ids += written
    places += range(after, after + len(written))
    block += [-2] * len(written)
    unseen += [False] * len(written)
    N, window = len(ids), reader._window
    masks = {}
    for kind, reach in (("full_attention", None), ("sliding_attention", window)):
        own, at = torch.tensor(block), torch.tensor(places)
        allowed = (own == own[:, None]) | ((own == -2)[:, None] & ~torch.tensor(unseen))
        allowed &= torch.ones(N, N, dtype=torch.bool).tril()
        if reach is not None:
            allowed &= at[:, None] - at < reach
        masks[kind] = torch.zeros(1, 1, N, N).masked_fill(~allowed, torch.finfo().min)
    mixed = getattr(reader.model.config, "layer_types", None) is not None and window is not None
    only = masks["full_attention" if window is None else "sliding_attention"]
    logits = reader.model(
        input_ids=torch.tensor([ids]),
        attention_mask=masks if mixed else only,
        position_ids=torch.tensor([places]),
        use_cache=False,
    ).logits[0]
    log_probs = logits[N - len(answer) :].log_softmax(-1)
    return log_probs.gather(1, torch.tensor(answer)[:, None])[:, 0]


def test_fused_passages_are_blocks_of_one_forward_pass(reader):
    wanted = [
        blocked(reader, q, PASSAGES, reader.answer_ids(a)).sum()
        for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    close(FiD(reader, Fixed()).log_prob(QUESTIONS, ANSWERS, 3), torch.stack(wanted))


def test_the_order_of_fused_passages_matters_to_rotary_positions_alone(reader):
    one, other = FiD(reader, Fixed()), FiD(reader, Fixed((2, 0, 1)))
    mine, others = (m.log_prob(QUESTIONS, ANSWERS, 3) for m in (one, other))
    if reader.rotation is not None:
        assert (mine - others).abs().max() > 1e-4
        return
    close(mine, others)
    mine, others = (m.attention(QUESTIONS, ANSWERS, 3) for m in (one, other))
    close(mine[:, [2, 0, 1]], others)
    losses, moved = (m.leave_one_out(QUESTIONS, ANSWERS, 3) for m in (one, other))
    close(losses[:, [2, 0, 1]], moved, 1e-4)


def test_without_room_for_one_after_the_other_passages_keep_their_positions(llama, monkeypatch):
    kept = CausalReader(llama.model, llama.tokenizer, "kept")
    kept.rotation = None
    wanted = FiD(kept, Fixed()).log_prob(QUESTIONS, ANSWERS, 3)
    apart = FiD(llama, Fixed()).log_prob(QUESTIONS, ANSWERS, 3)
    assert (apart - wanted).abs().max() > 1e-4
    fits = max(len(prompt(llama, q, p)) for q in QUESTIONS for p in PASSAGES)
    monkeypatch.setattr(CausalReader, "positions", property(lambda _: fits + ANSWER))
    close(FiD(llama, Fixed()).log_prob(QUESTIONS, ANSWERS, 3), wanted)


def test_leaving_one_out_is_reading_the_others(reader):
    method = FiD(reader, Fixed())
    whole = method.log_prob(QUESTIONS, ANSWERS, 3)
    losses = method.leave_one_out(QUESTIONS, ANSWERS, 3)
    for i, rest in enumerate(((1, 2), (0, 2), (0, 1))):
        less = FiD(reader, Fixed(rest)).log_prob(QUESTIONS, ANSWERS, 2)
        close(losses[:, i], whole - less, 1e-4)


def test_with_one_passage_all_methods_are_one(reader):
    kinds = (RagSequence, RagToken, FiD, InContext)
    methods = [kind(reader, Fixed(), max_length=4) for kind in kinds]
    first, *others = (method.log_prob(QUESTIONS, ANSWERS, 1) for method in methods)
    for other in others:
        close(other, first)
    texts = [[answer.text for answer in method.answer(QUESTIONS, 1)] for method in methods]
    assert all(one == texts[0] for one in texts)


def test_answers_are_the_best_of_what_the_beams_compare(reader):
    """Through the cache, with beams that change places: the score is that of the whole pass."""
    method = FiD(reader, Fixed(), beams=3, max_length=5)
    for hypotheses, question in zip(method.generate(QUESTIONS, 3, 3), QUESTIONS, strict=True):
        for one in hypotheses:
            wanted = blocked(reader, question, PASSAGES, [*one.tokens, reader.end]).sum()
            assert one.log_prob == pytest.approx(wanted.item(), abs=1e-4)


def test_attention_is_the_last_layers_over_each_passages_tokens(llama):
    """By hand from the weights of one eager forward pass with the block mask."""
    method = FiD(llama, Fixed())
    found = method.attention(QUESTIONS[:1], ANSWERS[:1], 1)
    close(found, torch.ones(1, 1))
    memory = llama.read(QUESTIONS[:1], [PASSAGES[:1]]).fused()
    weights = llama.last_attention(memory, labels_of(llama, ANSWERS[:1]))[0]
    answer = llama.answer_ids(ANSWERS[0])
    ids = torch.tensor([[*prompt(llama, QUESTIONS[0], PASSAGES[0]), *answer[:-1]]])
    llama.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            out = llama.model(input_ids=ids, use_cache=False, output_attentions=True)
    finally:
        llama.model.set_attn_implementation("sdpa")
    before = ids.shape[1] - len(answer)  # the last token of the prompt writes the first one
    rows = out.attentions[-1][0].mean(0)[before : before + len(answer) - 1]
    close(weights[:before], rows.mean(0)[:before])


def counting(llama):
    """A reader with the model of another, and the list of all pieces that it will have read."""
    reader, read = CausalReader(llama.model, llama.tokenizer, "counted"), []
    states = reader.states

    def counted(pieces, before):
        read.extend(pieces)
        return states(pieces, before)

    reader.states = counted
    return reader, read


def test_passages_are_read_once_and_the_oldest_are_forgotten(llama):
    reader, read = counting(llama)
    fresh = RagSequence(reader, Fixed()).log_prob(QUESTIONS, ANSWERS, 3)
    read.clear()  # the three passages
    FiD(reader, Fixed()).answer(QUESTIONS, 2)
    KnnLM(reader, Fixed(), 0.3, 10.0).log_prob(QUESTIONS, ANSWERS, 3)
    assert not read  # whoever asks and however often
    kept = reader.kept
    kept.budget = 2 * max(states.nbytes for states in kept._kept.values())
    reader.read(QUESTIONS[:1], [[PASSAGES[1]]])
    assert 0 < sum(states.nbytes for states in kept._kept.values()) <= kept.budget
    assert reader.prompt.passage(PASSAGES[1]) in kept._kept
    kept.budget = 0  # what is asked for is read all the same
    close(RagSequence(reader, Fixed()).log_prob(QUESTIONS, ANSWERS, 3), fresh)
    assert not kept._kept


def test_a_prompt_shares_its_first_passage_with_the_other_methods(llama):
    """The passage directly after the beginning sees no other, so its states are those that it has
    alone. What is read after it is not kept, as no other prompt has the same passages before."""
    reader, read = counting(llama)
    whole = InContext(reader, Fixed()).log_prob(QUESTIONS, ANSWERS, 3)
    close(whole, InContext(llama, Fixed()).log_prob(QUESTIONS, ANSWERS, 3))
    best, middle, worst = map(reader.prompt.passage, PASSAGES)
    assert read[-3:] == [worst, middle + best, middle + best]
    assert list(reader.kept._kept) == [worst]
    before = reader.clock()
    reader.read(QUESTIONS[:1], [PASSAGES])
    assert read[-2:] in ([middle, best], [best, middle])
    assert reader.clock() - before > reader.kept.reused > 0  # as long as if it were read again


def test_a_question_is_read_once_after_each_passage_for_all_methods(llama, monkeypatch):
    """RAG's rows are those that fused caches are made of."""
    one = Fixed()
    three = [kind(llama, one) for kind in (RagSequence, RagToken, FiD)]
    plain = [[answer.text for answer in method.answer(QUESTIONS, 2)] for method in three]
    rows = []
    make = CausalMemory.rows.func
    counted = cached_property(lambda memory: rows.append(memory) or make(memory))
    counted.__set_name__(CausalMemory, "rows")
    monkeypatch.setattr(CausalMemory, "rows", counted)
    with remembering(three):
        shared = [[answer.text for answer in method.answer(QUESTIONS, 2)] for method in three]
    assert shared == plain
    assert len(rows) == 1
    assert three[2]._saved >= rows[0].seconds > 0


def test_knn_lm_stores_the_states_of_the_shared_reading(llama):
    """A key is what comes into the last feed-forward network after the context."""
    ((keys, values),) = llama.key_values(PASSAGES[:1])
    ids = [*llama.beginning.ids, *llama.prompt.passage(PASSAGES[0])]
    wanted, _ = llama.forward(torch.tensor([ids]))
    close(keys, wanted[0, len(llama.beginning.ids) : -1])
    assert values.tolist() == list(llama.prompt.passage(PASSAGES[0]))[1:]


@pytest.mark.parametrize("kind", ["bytes", "metaspace", "unigram"])
@pytest.mark.parametrize(("before", "after"), [("", ""), (START, ""), (START, END), ("", END)])
def test_prompt_and_answer_are_one_token_sequence(llama, kind, before, after):
    """With tokenizers that write a start token, an end token, a prefix space, or none of these."""
    tokenizer = new_tokenizer(kind, before, after)
    reader = CausalReader(llama.model, tokenizer, kind)
    question = QUESTIONS[0].text
    text = f"Question: {question}\nAnswer: Ordania and Brisk"
    whole = tokenizer("\n" + text, add_special_tokens=False)["input_ids"]
    answer = reader.answer_ids("Ordania and Brisk")[:-1]
    own = [*reader.prompt.question(question), reader.start, *answer]
    assert whole[-len(own) :] == own
    assert reader.decode(answer) == "Ordania and Brisk"
    assert reader.beginning.ids == ((tokenizer.bos_token_id,) if before else ())
    assert reader.end == tokenizer.convert_tokens_to_ids("Ċ" if kind == "bytes" else "\n") or (
        reader.end == tokenizer.eos_token_id
    )


def test_a_chat_template_is_put_around_the_prompt(llama):
    tokenizer = tokenizer_of("qwen2", chat=True)
    shown = Demonstration("Who?", "Oda", PASSAGES[1])
    reader = CausalReader(random_model("qwen2"), tokenizer, "chat", demonstrations=[shown])
    ids = prompt(reader, QUESTIONS[0], PASSAGES[0])
    instruction = reader.prompt.template.instruction
    assert tokenizer.decode(ids) == (
        f"<s>user\n{instruction}Mount Orr\n{PASSAGES[1].text}\n\nQuestion: Who?\n</s>\n"
        f"<s>assistant\nOda</s>\n<s>user\nLake Velm\n{PASSAGES[0].text}\n\n"
        f"Question: {QUESTIONS[0].text}\n</s>\n<s>assistant\n"
    )
    assert reader.end == tokenizer.eos_token_id
    bare = tokenizer.decode(reader.prompt_ids("Why?"))
    assert "Mount Orr" not in bare  # where no passages are shown, the demonstrations have none
    assert "Question: Who?" in bare


def test_a_long_passage_is_cut_and_a_long_prompt_keeps_its_best(llama):
    long = Passage("l", "Long", "word " * 2000)
    ids = llama.prompt.passage(long)
    assert len(ids) <= llama.prompt.template.max_passage + 4
    assert llama.tokenizer.decode(ids).endswith("\n\n")
    memory = llama.read_together(QUESTIONS[:1], [[long] * 12])
    (((piece,),),) = (memory.shown,)
    assert 1 < max(piece.owner) + 1 < 12  # some, not all
    assert piece.owner[-1] == 0  # the best stands last
    assert len(piece.owner) < llama.places


def test_a_prompt_longer_than_the_model_is_refused():
    """A learned position beyond the last one would be an error deep in the model."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=700, n_embd=32, n_layer=1, n_head=2, n_positions=96)
    reader = CausalReader(GPT2LMHeadModel(config).eval(), tokenizer_of("gpt2"), "short")
    fits = reader.read(QUESTIONS[:1], [PASSAGES[1:2]])
    assert torch.isfinite(reader.token_log_probs(fits, labels_of(reader, ANSWERS[:1]))).all()
    long = Passage("l", "Long", "granite mountain " * 100)
    with pytest.raises(InputError, match=r"longer than the 96 that short can read"):
        reader.read(QUESTIONS[:1], [[long]])


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (Template(answer="", chat=False), "is empty"),
        (Template(chat=True), "has no chat template"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused(llama, template, sentence):
    with pytest.raises(InputError, match=sentence):
        CausalReader(llama.model, llama.tokenizer, "llama", template)


def test_a_model_without_positions_of_its_own_is_refused():
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=700, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(InputError, match="positions"):
        CausalReader(model, new_tokenizer(), "bloom")


def test_a_retriever_cannot_be_distilled_from_it(llama):
    with pytest.raises(InputError, match="encoder-decoder"):
        FiD(llama, Fixed()).first_token_scores(QUESTIONS, 2)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_hold_every_row_once_and_no_more_than_fits(device):
    lengths = [5, 0, 700, 300, 2000, 5, 600, 1024, 4097]
    found = batches([[7] * length for length in lengths], torch.device(device))
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    sizes = [[lengths[row] for row in batch] for batch in found]
    assert [length for batch in sizes for length in batch] == sorted(lengths)
    most = {"cpu": 1024, "cuda": 4096}[device]
    assert all(len(batch) == 1 or len(batch) * max(batch) <= most for batch in sizes)
    # No row was left for the next batch that would have fitted.
    for batch, (first, *_) in itertools.pairwise(sizes):
        assert (len(batch) + 1) * first > most

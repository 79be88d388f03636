"""FiD against a fusion written with `transformers` alone; its packing, layout and evidence."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.methods.decoding import beam_search
from ragbook.methods.fid import FiD, fuse, pack, passage_sums
from ragbook.models import SeqReader, load_reader
from ragbook.models.attention import recorded_scores
from ragbook.models.checkpoints.fid import CROSS_BIAS, is_fid, load_fid
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.generator import labels_of
from ragbook.models.prompts import FidLayout
from ragbook.retrieval import Retrieved
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever, seq_model

ANSWERS = ["the danube", "elbe, in hamburg"]
START, END, LONGEST = 101, 102, 40
CUT = 16  # tokens of an input: with this layout some passages are cut


class Counted:
    """The first few of PASSAGES, of each question as many as it is told."""

    name, score_scale = "counted", 1.0

    def __init__(self, counts: Sequence[int], without: int | None = None) -> None:
        self.counts, self.without = counts, without

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        out = []
        for count in self.counts:
            shown = [PASSAGES[i % 4] for i in range(count) if i != self.without]
            ids = tuple(f"{i}" for i in range(count) if i != self.without)
            out.append(Retrieved(ids, torch.zeros(len(shown)).numpy(), tuple(shown)))
        return out


def ending(model: Any, bias: float) -> Any:
    """The model with an output bias that ends its answers after a few tokens."""
    head = nn.Linear(model.config.d_model, model.config.vocab_size)
    with torch.no_grad():
        head.weight.normal_(std=2.0, generator=torch.Generator().manual_seed(3))
        head.bias.zero_()
        head.bias[END] = bias
    model.lm_head = head
    return model.eval()


def padded_fusion(
    model: Any, questions: Sequence[Question], counts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode every passage padded to CUT tokens, and concatenate: [B, n * CUT, d] and its mask."""
    tokenizer, n = minilm_tokenizer(), max(counts)
    rows = [
        f"question: {q.text} title: {PASSAGES[i % 4].title} context: {PASSAGES[i % 4].text}"
        for q, count in zip(questions, counts, strict=True)
        for i in range(count)
    ]
    read = tokenizer(
        rows, truncation=True, max_length=CUT, padding="max_length", return_tensors="pt"
    )
    with torch.no_grad():
        encoded = model.get_encoder()(
            input_ids=read["input_ids"], attention_mask=read["attention_mask"]
        )
    states = torch.zeros(len(counts), n * CUT, encoded.last_hidden_state.shape[-1])
    mask = torch.zeros(len(counts), n * CUT, dtype=torch.long)
    at = 0
    for b, count in enumerate(counts):
        states[b, : count * CUT] = encoded.last_hidden_state[at : at + count].flatten(0, 1)
        mask[b, : count * CUT] = read["attention_mask"][at : at + count].flatten()
        at += count
    return states, mask


def fid(model: Any, counts: Sequence[int], **settings: Any) -> FiD:
    """Ours, which shares nothing with the peer but its weights."""
    ours = T5ForConditionalGeneration(model.config) if model.config.model_type == "t5" else None
    assert ours is not None
    ours.lm_head = nn.Linear(model.config.d_model, model.config.vocab_size)
    ours.load_state_dict(model.state_dict())
    reader = SeqReader(ours, minilm_tokenizer(), "t5", FidLayout(max_input=CUT))
    return FiD(reader, Counted(counts), max_length=LONGEST, **settings)


# Packing


@given(st.data())
@settings(deadline=None)
def test_packing_keeps_real_tokens_in_order_and_names_their_passages(data):
    B, n, L = (data.draw(st.integers(1, 4)) for _ in range(3))
    bits = data.draw(st.lists(st.integers(0, 1), min_size=B * n * L, max_size=B * n * L))
    mask = torch.tensor(bits).reshape(B, n, L)
    states = torch.arange(B * n * L * 2, dtype=torch.float).reshape(B, n, L, 2)
    packed, real, owner = pack(states, mask)
    wanted = [
        [(states[b, i, t].tolist(), i) for i in range(n) for t in range(L) if mask[b, i, t]]
        for b in range(B)
    ]
    longest = max(map(len, wanted))
    assert packed.shape == (B, longest, 2)
    for b, tokens in enumerate(wanted):
        assert real[b].tolist() == [1] * len(tokens) + [0] * (longest - len(tokens))
        kept = list(zip(packed[b].tolist(), owner[b].tolist(), strict=True))
        assert kept[: len(tokens)] == tokens
        assert (owner[b, len(tokens) :] == -1).all()
    sums = passage_sums(real.float(), owner, n)
    assert sums.tolist() == mask.sum(-1).float().tolist()


def test_fused_states_stand_passage_by_passage():
    states, mask = torch.randn(2, 3, 4, 5), torch.ones(2, 3, 4)
    fused, real = fuse(states, mask)
    assert fused.shape == (2, 12, 5)
    assert real.shape == (2, 12)
    assert torch.equal(fused[:, 4:8], states[:, 1])


@pytest.mark.parametrize("bundled", [False, True])
def test_packed_is_padded(reader, bundled):
    """The same log-probabilities and answers as from fused states with their padding."""
    reader = load_reader() if bundled else reader
    retriever = Counted((4, 1))
    method = FiD(reader, retriever, beams=3, max_length=4)
    found = [f.passages for f in retriever.retrieve(QUESTIONS, 4)]
    memory = reader.memory(*fuse(*reader.encode_documents(QUESTIONS, found)))
    labels = labels_of(reader, ANSWERS)
    torch.testing.assert_close(
        method.log_prob(QUESTIONS, ANSWERS),
        reader.token_log_probs(memory, labels).sum(-1),
        rtol=1e-4,
        atol=1e-4,
    )
    wanted = beam_search(reader.continuation(memory), 2, reader.start, reader.end, 3, 4)
    for ours, theirs in zip(method.generate(QUESTIONS, 4, 3), wanted, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert [h.log_prob for h in ours] == pytest.approx([h.log_prob for h in theirs], abs=1e-4)


def test_questions_with_different_numbers_of_passages_do_not_touch_each_other(reader):
    questions = [*QUESTIONS, QUESTIONS[0]]
    counts, answers = (1, 9, 100), [*ANSWERS, ANSWERS[0]]
    together = FiD(reader, Counted(counts), max_length=3)
    log_probs, written = together.log_prob(questions, answers), together.answer(questions)
    for b, count in enumerate(counts):
        alone = FiD(reader, Counted((count,)), max_length=3)
        one = questions[b : b + 1]
        torch.testing.assert_close(
            alone.log_prob(one, answers[b : b + 1]), log_probs[b : b + 1], rtol=1e-4, atol=1e-4
        )
        (answer,) = alone.answer(one)
        assert answer.text == written[b].text
        assert len(answer.evidence) == count


def test_passages_are_encoded_in_chunks(reader, monkeypatch):
    """However many passages there are, the encoder never holds more than a chunk of them."""
    seen = []
    encoder = reader.pairs.encoder
    hook = encoder.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    reader.pairs.forget()
    FiD(reader, Counted((100, 60))).log_prob(QUESTIONS, ANSWERS)
    hook.remove()
    assert max(seen) <= 32
    assert sum(seen) == 160


# The peer: `transformers` alone, every passage padded


@pytest.mark.parametrize("counts", [(3, 3), (1, 4)])
@pytest.mark.parametrize(("beams", "penalty"), [(1, 0.0), (4, 0.0), (4, 1.0)])
def test_answers_are_those_of_a_plain_fusion(counts, beams, penalty):
    model = ending(seq_model("t5"), bias=9.0)
    states, mask = padded_fusion(model, QUESTIONS, counts)
    generated = model.generate(
        encoder_outputs=BaseModelOutput(states),
        attention_mask=mask,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=penalty,
        min_length=2,  # no empty answer
        max_length=LONGEST + 1,
        do_sample=False,
    )
    wanted = [[t for t in row if t not in (0, START, END)] for row in generated.tolist()]
    assert 1 < max(map(len, wanted)) < LONGEST - 1  # none is cut off
    found = fid(model, counts, beams=beams, length_penalty=penalty).generate(QUESTIONS, 4, beams)
    assert [list(one.tokens) for each in found for one in each] == wanted


def test_log_likelihoods_are_those_of_a_plain_fusion():
    model = ending(seq_model("t5"), bias=5.0)
    states, mask = padded_fusion(model, QUESTIONS, (2, 4))
    found = fid(model, (2, 4)).log_prob(QUESTIONS, ANSWERS)
    for b, answer in enumerate(ANSWERS):
        ids = minilm_tokenizer()(answer, add_special_tokens=False)["input_ids"]
        labels = torch.tensor([[*ids, END]])
        with torch.no_grad():
            out = model(
                encoder_outputs=BaseModelOutput(states[b : b + 1]),
                attention_mask=mask[b : b + 1],
                labels=labels,
            )
        assert found[b].item() == pytest.approx(-out.loss.item() * labels.shape[1], abs=1e-3)


# Evidence


def test_first_token_scores_are_the_peers():
    """Queries times keys, read from the projections of a plain run, averaged as they are there."""
    model, counts = ending(seq_model("t5"), bias=5.0), (2, 4)
    states, mask = padded_fusion(model, QUESTIONS, counts)
    seen: dict[str, list[torch.Tensor]] = {"q": [], "k": []}
    hooks = []
    for block in model.decoder.block:
        attention = block.layer[1].EncDecAttention
        for name in seen:
            hook = getattr(attention, name).register_forward_hook(
                lambda _m, _i, out, name=name: seen[name].append(out)
            )
            hooks.append(hook)
    with torch.no_grad():
        model(
            encoder_outputs=BaseModelOutput(states),
            attention_mask=mask,
            decoder_input_ids=torch.full((2, 1), START),
        )
    for hook in hooks:
        hook.remove()
    scores = torch.stack(  # [layers, B, heads, n * CUT]
        [
            torch.einsum("bqhd,bkhd->bhk", q.unflatten(-1, (2, 8)), k.unflatten(-1, (2, 8)))
            for q, k in zip(seen["q"], seen["k"], strict=True)
        ]
    )
    found = fid(model, counts).first_token_scores(QUESTIONS)
    for b, count in enumerate(counts):
        for i in range(4):
            if i >= count:
                assert found[b, i].item() == float("-inf")
                continue
            at = slice(i * CUT, (i + 1) * CUT)
            real = mask[b, at].bool()
            wanted = scores[:, b, :, at][:, :, real].mean()
            assert found[b, i].item() == pytest.approx(wanted.item(), abs=1e-4)


@pytest.mark.parametrize("bundled", [False, True])
def test_recorded_scores_are_what_attention_is_the_softmax_of(reader, bundled):
    """In every kind of decoder: self-attention first, cross-attention second, layer by layer."""
    reader = load_reader() if bundled else reader
    states, mask = reader.encode_documents(QUESTIONS, [PASSAGES[:2], PASSAGES[2:3]])
    memory = reader.memory(*pack(states, mask)[:2])
    start = torch.full((2, 1), reader.start)
    with recorded_scores() as recorded, torch.no_grad():
        out = reader.forward(memory.states, memory.mask, start, output_attentions=True)
    assert len(recorded) == 2 * len(out.cross_attentions)
    for scores, weights in zip(recorded[1::2], out.cross_attentions, strict=True):
        masked = scores.masked_fill(memory.mask[:, None, None] == 0, float("-inf"))
        torch.testing.assert_close(masked.softmax(-1), weights, rtol=1e-4, atol=1e-6)
    wanted = torch.stack(recorded[1::2]).mean((0, 2))[:, 0]
    torch.testing.assert_close(reader.first_token_scores(memory), wanted, rtol=1e-4, atol=1e-5)
    assert len(recorded) == 2 * len(out.cross_attentions)  # what came after is not recorded


def test_attention_is_the_peers_pooled_by_passage():
    model, counts = ending(seq_model("t5"), bias=5.0), (2, 4)
    states, mask = padded_fusion(model, QUESTIONS, counts)
    model.set_attn_implementation("eager")
    found = fid(model, counts).attention(QUESTIONS, ANSWERS)
    for b, answer in enumerate(ANSWERS):
        ids = minilm_tokenizer()(answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            out = model(
                encoder_outputs=BaseModelOutput(states[b : b + 1]),
                attention_mask=mask[b : b + 1],
                decoder_input_ids=torch.tensor([[START, *ids[:-1]]]),
                output_attentions=True,
            )
        weights = out.cross_attentions[-1][0].mean(0).mean(0)  # [n * CUT]
        torch.testing.assert_close(
            found[b], weights.unflatten(0, (4, CUT)).sum(-1), rtol=1e-4, atol=1e-5
        )


def test_evidence_of_an_answer_is_its_attention(reader):
    method = FiD(reader, FixedRetriever(), max_length=3)
    answers = method.answer(QUESTIONS, k=3)
    found = method.attention(QUESTIONS, [a.text for a in answers], k=3)
    for answer, weights in zip(answers, found, strict=True):
        ids = reader.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
        if reader.decode(ids) != answer.text or len(ids) > 3:
            continue  # read anew it is other tokens
        own = {e.passage_id: e.weight for e in answer.evidence}
        for passage, weight in zip(PASSAGES, weights.tolist(), strict=False):
            assert own.get(passage.id, 0.0) == pytest.approx(weight, abs=1e-4)


def test_leaving_one_out_is_reading_the_others(reader):
    counts = (4, 2)
    found = FiD(reader, Counted(counts)).leave_one_out(QUESTIONS, ANSWERS)
    whole = FiD(reader, Counted(counts)).log_prob(QUESTIONS, ANSWERS)
    for i in range(4):
        rest = FiD(reader, Counted(counts, without=i)).log_prob(QUESTIONS, ANSWERS)
        for b, count in enumerate(counts):
            wanted = (whole - rest)[b].item() if i < count else float("-inf")
            assert found[b, i].item() == pytest.approx(wanted, abs=1e-3)


def test_bad_evidence_and_empty_retrieval_are_refused(reader):
    with pytest.raises(InputError, match="question 2 has one passage"):
        FiD(reader, Counted((2, 1))).leave_one_out(QUESTIONS, ANSWERS)
    with pytest.raises(InputError, match="nothing was retrieved for question 2"):
        FiD(reader, Counted((2, 0))).answer(QUESTIONS)
    assert FiD(reader, Counted(())).generate([]) == []
    assert FiD(reader, Counted(())).log_prob([], []).shape == (0,)


# The layout


def unigram() -> PreTrainedTokenizerFast:
    """A tokenizer built as T5's is: pieces that mark the space before them, </s> at the end."""
    text = [p.text for p in PASSAGES] + [p.title for p in PASSAGES] + [q.text for q in QUESTIONS]
    built = Tokenizer(models.Unigram())
    built.normalizer = normalizers.Replace(" {2,}", " ")
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"
    )
    built.train_from_iterator([*text, "question: title: context:"] * 3, trainer)
    built.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("make", [minilm_tokenizer, unigram])
@pytest.mark.parametrize("special", [True, False])
def test_inputs_are_the_originals(make, special):
    """The string of the original code, cut at its end as the tokenizer itself would cut it."""
    tokenizer, (q, p) = make(), (QUESTIONS[0].text, PASSAGES[0])
    text = f"question: {q} title: {p.title} context: {p.text}"
    whole = tokenizer(text, add_special_tokens=special)["input_ids"]
    for max_input in (len(whole), len(whole) - 3, len(whole) - 7):
        read = FidLayout(max_input, special)(tokenizer, [q], [p])
        wanted = tokenizer(text, add_special_tokens=special, truncation=True, max_length=max_input)[
            "input_ids"
        ]
        assert read.tensors["input_ids"][0].tolist() == wanted
    alone = FidLayout(special=special)(tokenizer, [q], [None])
    assert (
        alone.tensors["input_ids"][0].tolist()
        == tokenizer(f"question: {q}", add_special_tokens=special)["input_ids"]
    )
    assert not alone.passage_mask.any()


def test_the_question_is_never_cut_away_by_a_passage():
    tokenizer, layout = minilm_tokenizer(), FidLayout()
    long = Passage("p", "A title", "many words " * 500)
    read = layout(tokenizer, [QUESTIONS[0].text, "why " * 500], [long, long])
    assert read.mask.sum(1).max() == 250
    asked = tokenizer.decode(read.tensors["input_ids"][0][~read.passage_mask[0]])
    assert QUESTIONS[0].text.lower() in asked
    assert read.passage_mask[1].sum() > 100
    for row in range(2):
        inside = read.passage_mask[row]
        shown = read.texts[row][: int(read.offsets[row][inside][-1, 1])]
        assert tokenizer(shown, add_special_tokens=False)["input_ids"] == (
            read.tensors["input_ids"][row][inside].tolist()
        )


# Checkpoints


def save(folder, wrap: str, bias: bool = False) -> Any:
    """A small random T5 under the original's names, or plain ones; returns it as it was saved."""
    model: Any = seq_model("t5").eval()
    config = model.config
    config.architectures = ["FiDT5"] if wrap == "plain" else ["T5ForConditionalGeneration"]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    if wrap != "plain":
        state = {re.sub(r"^encoder\.", "encoder.encoder.", k): v for k, v in state.items()}
    if wrap == "module":
        state = {
            re.sub(r"^(encoder\S*block\.\d+)\.", r"\1.module.", k): v for k, v in state.items()
        }
        assert "encoder.encoder.block.0.module.layer.0.SelfAttention.q.weight" in state
    if bias:
        attention = model.decoder.block[0].layer[1].EncDecAttention
        attention.has_relative_attention_bias = True
        attention.relative_attention_bias = nn.Embedding(32, 2)
        with torch.no_grad():
            attention.relative_attention_bias.weight.mul_(5)
        state[CROSS_BIAS] = attention.relative_attention_bias.weight.detach().clone()
    config.save_pretrained(folder)
    minilm_tokenizer().save_pretrained(folder)
    save_file(state, str(folder / "model.safetensors"))
    return model


@pytest.mark.parametrize("wrap", ["module", "bare", "plain"])
@pytest.mark.parametrize("bias", [False, True])
def test_original_checkpoints_give_the_same_logits(tmp_path, wrap, bias):
    saved = save(tmp_path, wrap, bias)
    reader = load_reader(str(tmp_path))  # found out without being told
    assert reader.pairs.layout == FidLayout(special=not bias)
    ids = torch.randint(5, 30_000, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = saved(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
        ours = reader.model(input_ids=ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_an_original_checkpoint_answers_as_a_plain_fusion(tmp_path, bias):
    """With the old bias too, which only the first passage's first tokens feel."""
    model = save(tmp_path, "module", bias)
    method = FiD(load_fid(str(tmp_path)), Counted((3, 2)), beams=1, max_length=6)
    n, tokenizer = 3, minilm_tokenizer()
    for b, (question, count) in enumerate(zip(QUESTIONS, (3, 2), strict=True)):
        rows = [
            f"question: {question.text} title: {p.title} context: {p.text}"
            for p in PASSAGES[:count]
        ]
        read = tokenizer(
            rows,
            add_special_tokens=not bias,
            truncation=True,
            max_length=250,
            padding="max_length",
            return_tensors="pt",
        )
        with torch.no_grad():
            states = model.encoder(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"]
            ).last_hidden_state
            generated = model.generate(
                encoder_outputs=BaseModelOutput(states.reshape(1, count * 250, -1)),
                attention_mask=read["attention_mask"].reshape(1, -1),
                min_new_tokens=6,
                max_new_tokens=6,
                do_sample=False,
                use_cache=not bias,  # through a cache it counts the bias's positions wrongly
            )
        found = method.generate(QUESTIONS, n)[b][0]
        assert list(found.tokens) == generated[0, 1:].tolist()


def test_other_checkpoints_are_not_taken_for_it(tmp_path):
    for folder, names in (
        ("t5", ["encoder.block.0.layer.0.SelfAttention.q.weight"]),
        ("two-berts", ["encoder.encoder.layer.0.output.dense.weight"]),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text('{"architectures": ["X"]}')
        assert not is_fid(str(tmp_path / folder))  # no weights
        tensors = {name: torch.zeros(1) for name in names}
        save_file(tensors, str(tmp_path / folder / "model.safetensors"))
        assert not is_fid(str(tmp_path / folder))
    assert not is_fid("bundled")


def test_a_wrong_folder_is_said(tmp_path):
    with pytest.raises(InputError, match="no FiD checkpoint"):
        load_fid(str(tmp_path / "nowhere"))
    save(tmp_path, "plain")
    weights = tmp_path / "model.safetensors"
    tokenizer = tmp_path / "tokenizer.json"
    held = tokenizer.read_bytes()
    tokenizer.unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        load_fid(str(tmp_path))
    tokenizer.write_bytes(held)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors of .* is damaged"):
        load_fid(str(tmp_path))
    save_file({"shared.weight": torch.zeros(30522, 16)}, str(weights))
    with pytest.raises(InputError, match="is not a whole T5: decoder"):
        load_fid(str(tmp_path))
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickle.*save_file"):
        load_reader(str(tmp_path))

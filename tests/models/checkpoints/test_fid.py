"""Original FiD checkpoints against their decoder written out in float64, without a cache.

The computation below is the one of `transformers` 3.0.2, for which those checkpoints were made:
T5's relative bias in self-attention and, unlike today's, in cross-attention, where an input's
position counts the tokens that every passage is padded to (250). It is made of matrix products on
the saved tensors and shares nothing with the package or with `transformers`.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ragbook.corpus import Passage, Question
from ragbook.methods.decoding import beam_search
from ragbook.methods.fid import FiD, pack
from ragbook.models.checkpoints.fid import CROSS_BIAS, load_fid, places
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.generator import labels_of
from ragbook.retrieval import Retrieved
from tests.methods.conftest import seq_model

PADDED = 250
QUESTIONS = (Question("Where?", ("here",), "p0"), Question("Who was it?", ("she",), "p1"))
PASSAGES = (  # the first are so short that an answer is longer
    Passage("p0", "A", "At sea."),
    Passage("p1", "B", "It was Ada Lovelace."),
    Passage("p2", "C", "The Vistula flows through Krakow and Warsaw to the Baltic Sea."),
)
COUNTS = (3, 2)
ANSWERS = (
    "the sea, which was so wide that nobody who had set out in the morning saw the other side of "
    "it before the night had come",
    "ada",
)
START, END = 101, 102


class Fixed:
    """For each question the first few of PASSAGES, as many as COUNTS says."""

    name, score_scale = "fixed", 1.0

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        found = [PASSAGES[: COUNTS[QUESTIONS.index(question)]] for question in questions]
        return [Retrieved(tuple(p.id for p in f), torch.zeros(len(f)).numpy(), f) for f in found]


# The computation


def bucket(offset: int, both_ways: bool, buckets: int = 32, longest: int = 128) -> int:
    """T5's bucket of a key `offset` tokens after its query (Raffel et al. 2020, section 2.1)."""
    half = buckets // 2 if both_ways else buckets
    first = half if both_ways and offset > 0 else 0
    distance = abs(offset) if both_ways else max(-offset, 0)
    if distance < half // 2:
        return first + distance
    share = math.log(distance / (half // 2)) / math.log(longest / (half // 2))
    return first + min(half // 2 + int(share * (half - half // 2)), half - 1)


class Original:
    """A saved checkpoint, read in float64."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        read = load_file(str(folder / "model.safetensors"))
        self.tensors = {name: tensor.double() for name, tensor in read.items()}
        self.tokenizer = minilm_tokenizer()

    def norm(self, x: Tensor, name: str) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + self.config["layer_norm_epsilon"]).rsqrt()
        return x * scale * self.tensors[f"{name}.layer_norm.weight"]

    def bias(self, name: str, queries: Sequence[int], keys: Sequence[int], both: bool) -> Tensor:
        """[heads, q, k]"""
        rows = [[bucket(k - q, both) for k in keys] for q in queries]
        weight = self.tensors[f"{name}.relative_attention_bias.weight"]
        return weight[torch.tensor(rows)].permute(2, 0, 1)

    def attend(self, x: Tensor, keys: Tensor, name: str, bias: Tensor) -> tuple[Tensor, Tensor]:
        """What attention adds to x [q, d], and its scores [heads, q, k]."""
        w, heads = self.tensors, self.config["num_heads"]
        q, k, v = (
            (y @ w[f"{name}.{part}.weight"].T).unflatten(-1, (heads, -1)).transpose(0, 1)
            for y, part in ((x, "q"), (keys, "k"), (keys, "v"))
        )
        scores = q @ k.transpose(1, 2) + bias
        out = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        return out @ w[f"{name}.o.weight"].T, scores

    def feed(self, x: Tensor, name: str) -> Tensor:
        inner = (self.norm(x, name) @ self.tensors[f"{name}.DenseReluDense.wi.weight"].T).relu()
        return x + inner @ self.tensors[f"{name}.DenseReluDense.wo.weight"].T

    def encode(self, question: Question, passage: Passage) -> Tensor:
        """The states of one passage, [L, d]."""
        text = f"question: {question.text} title: {passage.title} context: {passage.text}"
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        x, at, root = self.tensors["shared.weight"][ids], range(len(ids)), "encoder.encoder"
        bias = self.bias(f"{root}.block.0.module.layer.0.SelfAttention", at, at, both=True)
        for n in range(self.config["num_layers"]):
            name = f"{root}.block.{n}.module.layer"
            y = self.norm(x, f"{name}.0")
            x = x + self.attend(y, y, f"{name}.0.SelfAttention", bias)[0]
            x = self.feed(x, f"{name}.1")
        final = self.tensors[f"{root}.final_layer_norm.weight"]
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * final

    def decode(self, passages: Sequence[Tensor], prefix: Sequence[int]) -> tuple[Tensor, Tensor]:
        """log p(next token) after each token of a prefix, [t, V], and the scores of cross-attention
        [layers, heads, t, K] on the passages' tokens."""
        at, w = range(len(prefix)), self.tensors
        keys = torch.cat(list(passages))
        stand = [PADDED * n + t for n, one in enumerate(passages) for t in range(len(one))]
        own = self.bias("decoder.block.0.layer.0.SelfAttention", at, at, both=False)
        own = own + torch.full((len(prefix),) * 2, float("-inf"), dtype=torch.double).triu(1)
        cross = self.bias("decoder.block.0.layer.1.EncDecAttention", at, stand, both=False)
        x, all_scores = w["shared.weight"][list(prefix)], []
        for n in range(self.config["num_layers"]):
            name = f"decoder.block.{n}.layer"
            y = self.norm(x, f"{name}.0")
            x = x + self.attend(y, y, f"{name}.0.SelfAttention", own)[0]
            read, scores = self.attend(
                self.norm(x, f"{name}.1"), keys, f"{name}.1.EncDecAttention", cross
            )
            x = self.feed(x + read, f"{name}.2")
            all_scores.append(scores)
        x = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        x = x * w["decoder.final_layer_norm.weight"] * self.config["d_model"] ** -0.5
        return (x @ w["shared.weight"].T).log_softmax(-1), torch.stack(all_scores)

    def read(self, b: int, without: int | None = None) -> list[Tensor]:
        """The states of question b's passages, one of them left out."""
        numbers = [n for n in range(COUNTS[b]) if n != without]
        return [self.encode(QUESTIONS[b], PASSAGES[n]) for n in numbers]

    def answer_ids(self, answer: str) -> list[int]:
        return [*self.tokenizer(answer, add_special_tokens=False)["input_ids"], END]

    def log_prob(self, passages: Sequence[Tensor], answer: str) -> Tensor:
        """log p of each token of an answer."""
        ids = self.answer_ids(answer)
        log_probs, _ = self.decode(passages, [START, *ids[:-1]])
        return log_probs[torch.arange(len(ids)), ids]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random checkpoint under the original's names, all its biases of standard deviation 1."""
    folder = tmp_path_factory.mktemp("fid")
    model = seq_model("t5")
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, tensor in model.state_dict().items():
        if name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
            continue  # the shared embeddings
        if name.startswith("encoder."):
            name = "encoder." + name.replace("encoder.block.0", "encoder.block.0.module").replace(
                "encoder.block.1", "encoder.block.1.module"
            )
        if "relative_attention_bias" in name:
            tensor = torch.randn(tensor.shape, generator=generator)
        state[name] = tensor.clone()
    state[CROSS_BIAS] = torch.randn(32, 2, generator=generator)
    model.config.architectures = ["FiDT5"]
    model.config.save_pretrained(folder)
    minilm_tokenizer().save_pretrained(folder)
    save_file(state, str(folder / "model.safetensors"))
    return folder


@pytest.fixture(scope="module")
def original(folder) -> Original:
    return Original(folder)


@pytest.fixture(scope="module")
def method(folder) -> FiD:
    return FiD(load_fid(str(folder)), Fixed())


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-5)


# The comparisons


def test_an_answers_tokens_have_the_originals_probabilities(method, original):
    shortest = len(original.read(0)[0])
    assert shortest < len(original.answer_ids(ANSWERS[0])) - 5  # positions reach past a passage
    memory = method._read(QUESTIONS, 3)[1]
    labels = labels_of(method.reader, ANSWERS)
    found = method.reader.token_log_probs(memory, labels)
    for b, answer in enumerate(ANSWERS):
        wanted = original.log_prob(original.read(b), answer)
        close(found[b, : len(wanted)], wanted)
    close(method.log_prob(QUESTIONS, ANSWERS), found.double().sum(1))
    for rows in ([0, 0, 1], [1, 0, 1], [1]):  # several answers from one question's keys
        again = method.reader.token_log_probs(memory, labels[rows], torch.tensor(rows))
        close(again, found[rows].double())


def test_every_step_through_the_cache_has_the_originals_distribution(method, original):
    """Beams that change places, and a question that is done before the other."""
    following = method.reader.continuation(method._read(QUESTIONS, 3)[1])
    states = [original.read(b) for b in range(2)]
    generator = torch.Generator().manual_seed(0)
    beams, rows = 3, torch.tensor([0, 0, 0, 1, 1, 1])
    prefixes = torch.full((6, 1), START)
    parents = torch.arange(6)
    for step in range(30):
        found = following(prefixes, rows, parents)
        for row, prefix, log_probs in zip(rows.tolist(), prefixes.tolist(), found, strict=True):
            close(log_probs, original.decode(states[row], prefix)[0][-1])
        if step == 20:  # the first question is done
            kept = torch.arange(3, 6)
            rows = rows[kept]
        else:
            kept = torch.arange(len(rows))
        swap = torch.randint(beams, (len(rows),), generator=generator)
        parents = kept[0] + torch.arange(len(rows)) // beams * beams + swap
        words = torch.randint(1000, 30_000, (len(rows), 1), generator=generator)
        prefixes = torch.cat([prefixes[parents], words], dim=1)


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_the_originals(folder, original, beams):
    method = FiD(load_fid(str(folder)), Fixed(), beams=beams, max_length=24)
    states = [original.read(b) for b in range(2)]

    def following(prefixes: Tensor, rows: Tensor, parents: Tensor) -> Tensor:
        read = zip(rows.tolist(), prefixes.tolist(), strict=True)
        return torch.stack([original.decode(states[row], prefix)[0][-1] for row, prefix in read])

    wanted = beam_search(following, 2, START, END, beams, 24)
    found = method.generate(QUESTIONS, 3, beams)
    for ours, theirs in zip(found, wanted, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        for h, other in zip(ours, theirs, strict=True):
            assert h.log_prob == pytest.approx(other.log_prob, rel=1e-6, abs=1e-5)
    assert max(len(h[0].tokens) for h in found) > len(states[0][0])
    for b, answer in enumerate(method.answer(QUESTIONS, 3)):
        assert answer.log_prob == pytest.approx(wanted[b][0].log_prob, rel=1e-6, abs=1e-5)
        _, scores = original.decode(states[b], [START, *wanted[b][0].tokens])
        weights = scores[-1].softmax(-1)[:, : len(wanted[b][0].tokens)].mean((0, 1))
        parts = [part.sum().item() for part in weights.split([len(s) for s in states[b]])]
        shares = {e.passage_id: e.weight for e in answer.evidence}
        assert shares == pytest.approx({p.id: w for p, w in zip(PASSAGES, parts, strict=False)})


def test_leaving_a_passage_out_is_the_originals_reading_of_the_others(method, original):
    """Without the first, the second one stands where it stood."""
    found = method.leave_one_out(QUESTIONS, ANSWERS, 3)
    for b, answer in enumerate(ANSWERS):
        whole = original.log_prob(original.read(b), answer).sum()
        for i in range(COUNTS[b]):
            rest = original.log_prob(original.read(b, without=i), answer).sum()
            torch.testing.assert_close(found[b, i].double(), whole - rest, rtol=0, atol=5e-5)
    assert found[1, 2] == float("-inf")


def test_attention_and_first_token_scores_are_the_originals(method, original):
    attention = method.attention(QUESTIONS, ANSWERS, 3)
    first = method.first_token_scores(QUESTIONS, 3)
    for b, answer in enumerate(ANSWERS):
        states = original.read(b)
        ids, lengths = original.answer_ids(answer), [len(one) for one in states]
        _, scores = original.decode(states, [START, *ids[:-1]])
        weights = scores[-1].softmax(-1)[:, : len(ids) - 1].mean((0, 1))
        close(attention[b, : len(states)], torch.stack([w.sum() for w in weights.split(lengths)]))
        parts = scores[:, :, 0].mean((0, 1)).split(lengths)
        close(first[b, : len(states)], torch.stack([part.mean() for part in parts]))


def test_places_count_the_padding_that_was_left_out():
    mask = torch.tensor(
        [[[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], [[1, 1, 0, 0], [0] * 4, [0] * 4]]
    )
    _, real, owner = pack(torch.zeros(2, 3, 4, 1), mask)
    assert places(owner, real != 0, 10)[0].tolist() == [0, 1, 2, 10, 20, 21]
    assert places(owner, real != 0, 10)[1, :2].tolist() == [0, 1]
    rest = (real != 0) & (owner != 0)
    assert places(owner, rest, 10)[0, 3:].tolist() == [0, 10, 11]
    rest = (real != 0) & (owner != 1)
    assert places(owner, rest, 10)[0, [0, 1, 2, 4, 5]].tolist() == [0, 1, 2, 10, 11]

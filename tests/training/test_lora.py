"""Adapters are trained on what the methods will read, by what they will answer with."""

import json
import random
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file

from ragbook.cli.parser import new_parser
from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.methods import load
from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import load_reader
from ragbook.models.adapters import CONFIG, FACTORS, PROMPT
from ragbook.models.causal import CausalReader
from ragbook.models.causal_prompt import CausalPrompt
from ragbook.models.templates import INSTRUCTION, Demonstration, Template
from ragbook.retrieval import Retrieved
from ragbook.training import lora
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.worlds import Example
from ragbook.training.run import Run
from tests.checkpoints import random_model, tokenizer_of, write_checkpoint

PASSAGES = tuple(
    Passage(str(i), f"River {i}", f"River {i} rises at Vel{i}, {'high ' * (i % 4)}in the hills.")
    for i in range(14)
)
QUESTIONS = [
    Question(f"Where does river {i} rise{' now' * (i % 3)}?", (f"Vel{i}",), str(i))
    for i in range(12)
]
SHOWN = Demonstration("Where is it?", "At Orm", Passage("d", "Orm", "It is at Orm."))


@pytest.fixture(scope="module", params=["llama", "gpt2", "opt"])
def reader(request):
    name = request.param
    return CausalReader(
        random_model(name), tokenizer_of(name), name, Template(INSTRUCTION), [SHOWN]
    )


@pytest.fixture(scope="module")
def source():
    return GoldExamples(Corpus("rivers", PASSAGES), QUESTIONS)


class Given:
    """Finds the passages of an example, with the scores that training gives them."""

    name, score_scale = "given", 1.0

    def __init__(self, examples, log_prior):
        self.found = [
            Retrieved(tuple(p.id for p in e.passages), scores.numpy(), tuple(e.passages))
            for e, scores in zip(examples, log_prior, strict=True)
        ]

    def retrieve(self, questions, k):
        assert len(questions) == len(self.found)
        return self.found


METHODS = {
    "in-context": InContext,
    "fid": FiD,
    "rag-sequence": RagSequence,
    "rag-token": RagToken,
}


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_what_the_method_answers_with(reader, source, method):
    """The mean of -log p(answer), which the method computes piece by piece from its caches."""
    shown = lora.Shown(method, source, lora.Recipe(negative=0.0), seed=3)
    prompt = CausalPrompt(reader.tokenizer, Template(INSTRUCTION), [SHOWN], reader.end)
    moves = reader.rotation is not None
    loss, figures = lora.objective(method, reader.model, prompt, shown, 1, moves)
    examples, _ = shown(1)
    retriever = Given(examples, shown.log_prior(examples))
    k = len(examples[0].passages)
    answers = [e.question.answers[0] for e in examples]
    given = METHODS[method](reader, retriever).log_prob([e.question for e in examples], answers, k)
    torch.testing.assert_close(loss.detach(), -given.mean(), atol=1e-3, rtol=1e-5)
    assert figures == {"nll": loss.item()}


def test_reading_shows_one_passage_half_of_the_time_and_teaches_silence(source):
    shown = lora.Shown(lora.READING, source, lora.Recipe(negative=0.5), seed=0)
    steps = [shown(step) for step in range(200)]
    layouts = [layout for _, layout in steps]
    assert 80 < layouts.count(lora.EACH) < 120
    assert {lora.EACH, lora.TOGETHER, lora.APART} == set(layouts)
    for examples, layout in steps:
        assert {len(e.passages) for e in examples} <= ({1} if layout == lora.EACH else {2, 3, 4, 5})
        assert len(examples) == (8 if layout == lora.EACH else 4)
    silent = {
        layout: [e.gold is None for found, one in steps if one == layout for e in found]
        for layout in set(layouts)
    }
    assert 0.4 < sum(silent[lora.EACH]) / len(silent[lora.EACH]) < 0.6
    assert 0.15 < sum(silent[lora.TOGETHER]) / len(silent[lora.TOGETHER]) < 0.35
    assert [shown(7)[0] for _ in range(2)] == [shown(7)[0]] * 2  # of the step alone


def test_the_empty_answer_is_the_end_token(reader):
    example = Example(QUESTIONS[0], PASSAGES[1:2], None)
    prompt = CausalPrompt(reader.tokenizer, Template(INSTRUCTION), (), reader.end)
    asked, moves = [example, replace(example, gold=0)], reader.rotation is not None
    batch = lora.lay_out(prompt, asked, lora.EACH, [True, False], moves)
    said = [row[row != -100].tolist() for row in batch.labels]
    assert said == [[prompt.end], prompt.answer("Vel0")]


def test_the_prior_is_the_retriever_s(source):
    shown = lora.Shown("rag-token", source, lora.Recipe(), seed=0)
    examples, _ = shown(0)
    from ragbook.models import load_encoder

    encoder = load_encoder()
    for example, got in zip(examples, shown.log_prior(examples), strict=True):
        query = encoder.encode_queries([example.question.text])
        # An exchanged answer does not move the passage: its vector is that of the corpus.
        real = [source.corpus.get(p.id) for p in example.passages]
        scores = torch.from_numpy(query @ encoder.encode_passages(real).T)[0]
        want = (encoder.score_scale * scores).log_softmax(-1)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("base") / "llama", "llama")


OWN = (Corpus("rivers", PASSAGES), QUESTIONS)


def test_it_learns_and_only_its_factors_do(base, tmp_path):
    settings = lora.Recipe(steps=40, rate=5e-3, warmup=2, n=2)
    lora.train_adapter(Run(tmp_path, own=OWN, precision="float32"), "fid", str(base), settings)
    rows = [json.loads(line) for line in (tmp_path / "work/fid.log.jsonl").open()]
    reader, before = load_reader(str(tmp_path)), load_reader(str(base))
    assert reader.prompt.template == Template(INSTRUCTION)
    rng, source = random.Random(0), GoldExamples(*OWN)
    examples = [source.example(rng, 2, 0.0) for _ in range(8)]
    prompt = CausalPrompt(reader.tokenizer, Template(INSTRUCTION), (), reader.end)
    moves = reader.rotation is not None
    batch = lora.lay_out(prompt, examples, lora.APART, [False] * 8, moves)
    with torch.no_grad():
        now, then = (
            float(lora.answer_log_probs(r.model, batch).sum(-1).mean()) for r in (reader, before)
        )
    assert now > then + 5
    assert rows[-1]["step"] == 40
    ours, theirs = reader.model.state_dict(), before.model.state_dict()
    moved = {name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])}
    assert moved == {n for n in ours if n.endswith("_proj.weight")}


def test_peft_reads_what_was_written(base, tmp_path):
    run = Run(tmp_path, steps=2, own=OWN, precision="float32")
    lora.recipe(run, "in-context", str(base))
    assert json.loads((tmp_path / CONFIG).read_text())["base_model_name_or_path"] == str(base)
    assert json.loads((tmp_path / PROMPT).read_text())["instruction"] == INSTRUCTION
    model = peft.PeftModel.from_pretrained(random_model("llama"), str(tmp_path))
    ids = torch.tensor([[1, 40, 41, 300, 17]])
    with torch.no_grad():
        want = model(input_ids=ids).logits
        got = load_reader(str(tmp_path)).model(input_ids=ids).logits
        plain = load_reader(str(base)).model(input_ids=ids).logits
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert not torch.equal(got, plain)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(base, tmp_path):
    whole = Run(tmp_path / "whole", steps=30, own=OWN, precision="float32")
    lora.recipe(whole, lora.READING, str(base))

    class Killed(Exception):
        pass

    part = replace(whole, out=tmp_path / "part")
    with pytest.MonkeyPatch.context() as patch:
        real = lora.objective

        def dies(method, model, prompt, shown, step, moves):
            assert moves  # Llama's positions are rotary
            if step == 27:
                raise Killed
            return real(method, model, prompt, shown, step, moves)

        patch.setattr(lora, "objective", dies)
        with pytest.raises(Killed):
            lora.recipe(part, lora.READING, str(base))
    assert not (part.out / FACTORS).exists()
    lora.recipe(replace(part, resume=True), lora.READING, str(base))
    ours, theirs = (load_file(str(run.out / FACTORS)) for run in (whole, part))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_training_goes_on_from_an_adapter(base, tmp_path):
    first = Run(tmp_path / "first", steps=3, own=OWN, precision="float32")
    lora.recipe(first, lora.READING, str(base))
    second = replace(first, out=tmp_path / "second", steps=1)
    lora.recipe(second, "rag-token", str(first.out))
    assert json.loads((second.out / CONFIG).read_text())["base_model_name_or_path"] == str(base)
    before, after = (load_file(str(run.out / FACTORS)) for run in (first, second))
    fresh = Run(tmp_path / "fresh", steps=1, own=OWN, precision="float32")
    lora.recipe(fresh, "rag-token", str(base))
    other = load_file(str(fresh.out / FACTORS))

    def distance(left, right):
        return sum(float((left[n].float() - right[n].float()).norm()) for n in left)

    assert 0 < distance(before, after) < distance(other, after)
    with pytest.raises(InputError, match="other layers or another rank"):
        lora.train_adapter(
            replace(second, out=tmp_path / "third"), "fid", str(first.out), lora.Recipe(rank=4)
        )
    other = replace(second, out=tmp_path / "fourth")
    with pytest.raises(InputError, match=r"has another scale than 4\.0"):
        lora.train_adapter(other, "fid", str(first.out), lora.Recipe(scale=4.0))


def test_what_cannot_be_trained_is_refused(base, tmp_path):
    run = Run(tmp_path / "out", own=OWN)
    with pytest.raises(InputError, match="there is no objective 'realm'"):
        lora.recipe(run, "realm", str(base))
    with pytest.raises(InputError, match="not a decoder-only model"):
        lora.recipe(run, lora.READING, str(write_checkpoint(tmp_path / "t5", "t5")))
    assert not run.out.exists()


def test_each_method_answers_with_its_own_adapter(base, tmp_path):
    """Where there is one in the shared adapter's folder; without it, and with `shared`, with that
    of all."""
    run = Run(tmp_path / "all", steps=2, own=OWN, precision="float32")
    lora.recipe(run, lora.READING, str(base))
    lora.recipe(replace(run, out=run.out / "fid", steps=1), "fid", str(run.out))
    names = ["closed-book", "in-context", "rag-token", "fid"]
    retriever = Given([], torch.zeros(0))
    found: dict[str, Any] = {m.name: m for m in load(names, retriever, reader=str(run.out))}
    shared, own = load_reader(str(run.out)), load_reader(str(run.out / "fid"))
    assert [found[name].reader for name in names] == [shared, shared, shared, own]
    assert shared.sha256 != own.sha256
    same: list[Any] = list(load(names, retriever, reader=str(run.out), shared=True))
    assert {m.reader for m in same} == {shared}
    assert load_reader(str(base), "fid") is load_reader(str(base))


def test_the_command_offers_the_objectives_that_there_are():
    words = ["train", "lora", "--out", "somewhere", "--method"]
    for method in lora.METHODS:
        assert new_parser().parse_args([*words, method]).method == method
    with pytest.raises(InputError, match="invalid choice: 'realm'"):
        new_parser().parse_args([*words, "realm"])

"""What a training step is made of: where the answer stands, and what each loss asks for."""

import random

import pytest
import torch

from ragbook.corpus import Passage, Question
from ragbook.models.bundled import new_reader_model
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.span import SpanScorer
from ragbook.training.reader.train import (
    collate,
    losses,
    quicken_and_freeze,
    set_dropout,
    shift_right,
)
from ragbook.training.reader.worlds import Example, example

DANUBE = Passage("d", "Danube", "In Vienna the Danube is wide. Ludwig Bemelmans saw it in 1931.")
ELBE = Passage("e", "Elbe", "Dresden lies on the Elbe.")
ASKED = Question("Who saw the river at Vienna?", ("Ludwig Bemelmans",), "d")


def test_pointer_and_span_lie_on_the_answer():
    tokenizer = minilm_tokenizer()
    batch = collate(tokenizer, [Example(ASKED, (ELBE, DANUBE), 1)], 10)
    length = batch.passage_mask.shape[1]
    answer = tokenizer("Ludwig Bemelmans", add_special_tokens=False)["input_ids"]
    assert batch.labels[0].tolist() == [*answer, tokenizer.sep_token_id]
    flat = batch.inputs["input_ids"].flatten()
    for t, token in enumerate(answer):
        (place,) = batch.pointer[0, t].nonzero().flatten().tolist()
        assert flat[place] == token
        assert place >= length  # in the second passage
    assert not batch.pointer[0, len(answer)].any()  # the end is nowhere
    assert batch.spans[0] == 0
    start, width = divmod(int(batch.spans[1]), 10)
    span = batch.inputs["input_ids"][1, start : start + width + 1].tolist()
    assert span == answer


def test_a_passage_without_the_answer_asks_for_silence():
    batch = collate(minilm_tokenizer(), [Example(ASKED, (ELBE,), None)], 10)
    assert batch.labels[0, 0] == minilm_tokenizer().sep_token_id
    assert (batch.labels[0, 1:] == -100).all()
    assert not batch.pointer.any()
    assert batch.spans.tolist() == [0]


def test_closed_book_shows_no_passage():
    batch = collate(minilm_tokenizer(), [Example(ASKED, (), None)], 10)
    assert not batch.passage_mask.any()
    assert batch.labels[0, 0] != minilm_tokenizer().sep_token_id


def test_an_answer_in_the_question_alone_is_not_pointed_at():
    asked = Question("Is it the Danube?", ("it",), "e")
    batch = collate(minilm_tokenizer(), [Example(asked, (ELBE,), 0)], 10)
    assert not batch.pointer.any()


def test_shift_right():
    labels = torch.tensor([[5, 6, 102], [7, 102, -100]])
    assert shift_right(labels, 101, 0).tolist() == [[101, 5, 6], [101, 7, 102]]


def test_attention_is_unfused_everywhere_and_the_lower_layers_are_frozen():
    """The fused kernel gives no weights to the pointer loss, and is slow to train on CPUs."""
    model, scorer = new_reader_model(), SpanScorer(384)
    quicken_and_freeze(model, scorer, precision="bfloat16")
    asked = {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}
    assert asked == {"eager"}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n.split(".")[3] for n in trained if n.startswith("encoder.")} == {"2", "3", "4", "5"}
    assert not any("word_embeddings" in n for n in trained)
    assert {p.dtype for m in (model, scorer) for p in m.parameters()} == {torch.bfloat16}


def test_dropout_stays_out_of_what_is_frozen():
    model = new_reader_model()
    for name, parameter in model.encoder.named_parameters():
        parameter.requires_grad = ".layer.5." in name
    set_dropout(model, 0.2)
    on = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and m.p}
    assert {n.split(".")[3] for n in on if n.startswith("encoder.")} == {"5"}
    assert any(n.startswith("decoder.") for n in on)
    assert not any("embeddings" in n or n.endswith("self.dropout") for n in on)
    set_dropout(model, 0.0)
    assert not any(m.p for m in model.modules() if isinstance(m, torch.nn.Dropout))


def test_a_few_steps_lower_every_loss():
    """Fresh decoder and scorer, frozen encoder, one batch of worlds: all three parts fall."""
    torch.manual_seed(0)
    model, scorer = new_reader_model(), SpanScorer(384)
    for parameter in model.encoder.parameters():
        parameter.requires_grad = False
    model.decoder.set_attn_implementation("eager")
    rng = random.Random(0)
    batch = collate(minilm_tokenizer(), [example(rng, 1, (1, 2)) for _ in range(12)], 10)
    trained = [p for m in (model.decoder, scorer) for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    history = []
    for _ in range(8):
        loss, figures = losses(model, scorer, batch)
        history.append(figures)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for part in ("answer", "pointer", "span"):
        assert history[-1][part] < 0.9 * history[0][part], part


@pytest.mark.parametrize("tokens", [1, 3])
def test_losses_equal_their_definitions(tokens):
    torch.manual_seed(tokens)
    model, scorer = new_reader_model(), SpanScorer(384)
    model.decoder.set_attn_implementation("eager")
    asked = Question("Who saw it?", ({1: "Ludwig", 3: "Ludwig Bemelmans saw"}[tokens],), "d")
    batch = collate(minilm_tokenizer(), [Example(asked, (DANUBE, ELBE), 0)], 10)
    with torch.no_grad():
        loss, figures = losses(model, scorer, batch)
        states = model.encoder(**batch.inputs).last_hidden_state
        out = model.decoder(
            input_ids=shift_right(batch.labels, 101, 0),
            encoder_hidden_states=states.reshape(1, -1, 384),
            encoder_attention_mask=batch.inputs["attention_mask"].reshape(1, -1),
            output_attentions=True,
        )
        answer = sum(
            -out.logits[0, t].log_softmax(-1)[label] for t, label in enumerate(batch.labels[0])
        ) / len(batch.labels[0])
        spans = scorer(states, batch.passage_mask).flatten(1).log_softmax(-1)
        span = -(spans[0, batch.spans[0]] + spans[1, 0]) / 2
        mass = [
            out.cross_attentions[-1][0, :, t, batch.pointer[0, t].nonzero()[0, 0]].mean()
            for t in range(len(batch.labels[0]) - 1)
        ]
        pointer = -sum(torch.log(m + 1e-6) for m in mass) / len(mass)
    assert figures["answer"] == pytest.approx(float(answer), rel=1e-4)
    assert figures["span"] == pytest.approx(float(span), rel=1e-4)
    assert figures["pointer"] == pytest.approx(float(pointer), rel=1e-4)
    assert float(loss) == pytest.approx(float(answer + 0.5 * pointer + 0.5 * span), rel=1e-4)

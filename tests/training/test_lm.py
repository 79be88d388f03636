"""The language model's recipe on passages of one's own."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.models import load_language_model
from ragbook.models.lm import new_lm_model
from ragbook.training import lm as module
from ragbook.training.lm import adapt_lm, recipe, train_lm
from ragbook.training.run import Run

LAKES = Corpus(
    "lakes",
    [Passage(str(n), f"Lake {n}", f"Lake {n} lies in Ordania, {n} miles away.") for n in range(8)],
)


def test_a_language_model_of_ones_own(tmp_path):
    """Three steps: a checkpoint that loads, knows more of the text, and moved only what it may."""
    run = Run(tmp_path / "lm", steps=3, own=(LAKES, ()), precision="bfloat16")
    recipe(run)
    own, bundled = load_language_model(str(run.out)), load_language_model()
    ids = torch.tensor([lm_ids[:14] for lm_ids in bundled.texts(list(LAKES))])

    def loss(lm):
        return -lm.forward(ids)[1][:, :-1].gather(2, ids[:, 1:, None]).mean().item()

    assert loss(own) < loss(bundled) - 0.05
    before = bundled.model.state_dict()
    moved = {
        n
        for n, t in own.model.state_dict().items()
        if not torch.equal(t, before[n].bfloat16().float())
    }
    assert any("layer.5." in name for name in moved)
    assert not any("embeddings.word" in name or "layer.1." in name for name in moved)
    later = replace(run, resume=True, own=None)
    again = adapt_lm(later, LAKES)  # its training is not done anew
    torch.testing.assert_close(again.forward(ids)[1], own.forward(ids)[1], rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="other settings"):
        adapt_lm(later, Corpus("others", list(LAKES)[:5]))
    with pytest.raises(InputError, match="go on with --precision bfloat16"):
        adapt_lm(replace(later, precision="float32"), LAKES)


def test_no_questions_and_some_passages(tmp_path):
    asked = [Question("Where is it?", ("Ordania",), "1")]
    with pytest.raises(InputError, match="leave --questions out"):
        recipe(Run(tmp_path / "lm", own=(LAKES, asked)))
    assert not (tmp_path / "lm").exists()
    with pytest.raises(InputError, match="no passages"):
        adapt_lm(Run(tmp_path / "lm"), Corpus("none", []))


class PlacedBert(torch.nn.Module):
    """In a model's place: its states say where they stand, row and column."""

    seen: torch.Tensor
    mask: torch.Tensor

    def forward(self, input_ids, attention_mask, use_cache):
        self.seen, self.mask = input_ids, attention_mask
        rows, columns = torch.meshgrid(*map(torch.arange, input_ids.shape), indexing="ij")
        return (torch.stack([rows, columns], -1).float(),)


def targets_of_a_step(monkeypatch, train):
    """One step's (places [N, 2] that were read, targets [N], ids [B, L], mask [B, L])."""
    steps, given = [], {}
    monkeypatch.setattr(
        module, "train", lambda name, batch_loss, *_, **__: steps.append(batch_loss)
    )
    model = train()

    def record(logits, targets, **_):
        given["targets"] = targets
        return logits.sum()

    monkeypatch.setattr(module.functional, "cross_entropy", record)
    model.bert = placed = PlacedBert()
    model.cls = torch.nn.Module()

    def head(states):
        given["places"] = states.long()
        return states

    model.cls.forward = head
    steps[0](0)
    return given["places"], given["targets"], placed.seen, placed.mask


def check_targets(places, targets, ids, mask):
    """Every state is asked for the token that comes after its own, never for padding."""
    assert len(places) > 20
    rows, columns = places.unbind(1)
    assert torch.equal(ids[rows, columns + 1], targets)
    assert mask[rows, columns + 1].all()


def test_a_state_is_taught_the_token_after_it(monkeypatch, tmp_path):
    """From nothing: the recipe of the bundled model."""
    encoder = module.load_encoder()
    models = []
    monkeypatch.setattr(module, "new_lm_model", lambda: models.append(new_lm_model()) or models[0])
    fake = SimpleNamespace(
        to=lambda device: fake,
        tokenizer=encoder.tokenizer,
        encode_passages=lambda passages: torch.eye(len(passages)).numpy(),
    )
    monkeypatch.setattr(module, "load_encoder", lambda: fake)

    def train():
        train_lm(Run(tmp_path / "lm"))
        return models[0]

    check_targets(*targets_of_a_step(monkeypatch, train))


def test_token_zero_is_a_word_like_any_other(monkeypatch, tmp_path):
    """Adapting to one's own text pads by length, whatever token 0 is, and teaches it too."""
    bundled = load_language_model()
    zero = Corpus("zero", [Passage("z", "", "the lake " * 40)])
    texts = [[0 if at % 3 == 0 else 7 for at in range(30 + n)] for n in range(3)]
    monkeypatch.setattr(type(bundled), "texts", lambda self, passages: texts)

    def train():
        return adapt_lm(Run(tmp_path / "lm"), zero).model

    places, targets, ids, mask = targets_of_a_step(monkeypatch, train)
    check_targets(places, targets, ids, mask)
    assert (targets == 0).any()
    assert (mask.sum(1) > 1).all()
    assert len(targets) == int(mask[:, 1:].sum())

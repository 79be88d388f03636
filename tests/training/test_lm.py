"""The language model's recipe on passages of one's own."""

import pytest
import torch

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.models import load_language_model
from ragbook.training.lm import adapt_lm, recipe
from ragbook.training.run import Run

LAKES = Corpus(
    "lakes",
    [Passage(str(n), f"Lake {n}", f"Lake {n} lies in Ordania, {n} miles away.") for n in range(8)],
)


def test_a_language_model_of_ones_own(tmp_path):
    """Three steps: a checkpoint that loads, knows more of the text, and moved only what it may."""
    run = Run(tmp_path / "lm", steps=3, own=(LAKES, ()))
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
    again = adapt_lm(Run(run.out, steps=3, resume=True), LAKES)  # its training is not done anew
    torch.testing.assert_close(again.forward(ids)[1], own.forward(ids)[1], rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="other settings"):
        adapt_lm(Run(run.out, steps=3, resume=True), Corpus("others", list(LAKES)[:5]))


def test_no_questions_and_some_passages(tmp_path):
    asked = [Question("Where is it?", ("Ordania",), "1")]
    with pytest.raises(InputError, match="leave --questions out"):
        recipe(Run(tmp_path / "lm", own=(LAKES, asked)))
    assert not (tmp_path / "lm").exists()
    with pytest.raises(InputError, match="no passages"):
        adapt_lm(Run(tmp_path / "lm"), Corpus("none", []))

"""kNN-LM on a file of articles: what each is for, and the whole report on a few tiny ones."""

import json

import pytest
import torch
from experiments import knn_lm as language
from experiments import knn_lm_real_text as own_text
from experiments.knn_lm_real_text import Articles, main
from transformers import BertConfig, BertLMHeadModel

from ragbook.corpus import Corpus, Passage, miniwiki
from ragbook.errors import InputError
from ragbook.models import LanguageModel
from ragbook.models.embedded import minilm_tokenizer
from ragbook.training import lm as recipe


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    texts = (
        f" = Lake {n} = \n \n Lake {n} lies in Ordania , {n} miles away . \n" for n in range(24)
    )
    path.write_text("".join(texts))
    return path


def test_no_article_is_for_two_things(file):
    articles = Articles(file)
    assert [p.title for p in articles.known] == [f"Lake {n}" for n in range(20)]
    assert [p.title for p in articles.earlier] == [f"Lake {n}" for n in range(18)]
    assert articles.dev == [p.text for p in list(articles.known)[18:]]
    assert articles.test[0] == "Lake 20 lies in Ordania , 20 miles away ."
    assert len(articles.test) == 4
    file.write_text(file.read_text().replace(" = Lake 1 = ", "More of it ."))
    with pytest.raises(InputError, match="23 articles"):
        Articles(file)


@pytest.fixture
def tiny(monkeypatch):
    """A small random model in the place of the bundled one."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        is_decoder=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    lm = LanguageModel(BertLMHeadModel(config), minilm_tokenizer(), "tiny")
    for module in (own_text, recipe):
        monkeypatch.setattr(module, "load_language_model", lambda: lm)


@pytest.mark.usefixtures("tiny")
def test_the_whole_report_on_tiny_text(file, tmp_path, monkeypatch):
    """It ends, twice with the same; training and memory bring what they should; no word is kept."""
    lake = Passage("velm", "Lake Velm", "Lake Velm lies in Ordania, north of the town of Brisk.")
    monkeypatch.setattr(miniwiki, "corpus", lambda: Corpus("miniwiki", [lake]))
    monkeypatch.setattr(own_text, "heldout_texts", lambda split: [lake.text, f"{split} text."])
    monkeypatch.setattr(own_text, "STORES", tmp_path / "stores")
    monkeypatch.setattr(own_text, "MORE_STEPS", 3)
    monkeypatch.setattr(recipe, "EPOCHS", 20)
    monkeypatch.setattr(language, "RESAMPLES", 50)
    out = tmp_path / "own.json"
    main(str(file), str(out), str(tmp_path / "work"))
    found = json.loads(out.read_text())
    assert found["articles"] == {"memory": 20, "dev": 2, "test": 4}
    plain, trained = (found[name]["test"] for name in ("bundled", "adapted"))
    assert trained["base"]["perplexity"] < plain["base"]["perplexity"]
    assert found["adapted"]["from_bundled"][0] == pytest.approx(
        trained["base"]["perplexity"] / plain["base"]["perplexity"] - 1
    )
    assert plain["knn-lm"]["perplexity"] < plain["base"]["perplexity"]
    assert "in-context" in trained
    crossed = found["the file, miniwiki's memory"]["test"]
    assert crossed["base"]["perplexity"] == pytest.approx(plain["base"]["perplexity"])
    assert "Ordania" not in out.read_text()
    before = out.read_bytes()
    main(str(file), str(out), str(tmp_path / "work"))
    assert out.read_bytes() == before

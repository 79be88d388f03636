"""Cross-encoders: tiny random ones, written by the libraries that users have."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import LogitScore, Transformer
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models.cross_encoder import inspect_cross_encoder, load_cross_encoder
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.prompts import passage_text

SMALL: dict[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "pad_token_id": 0,
}
QUESTION = "Which river flows into the sea?"
PASSAGES = [
    Passage(
        str(i), f"Title {i}" if i % 2 else "", " ".join(["a river", "of words"] * (1 + i * 5 % 23))
    )
    for i in range(40)
]
IDENTITY = torch.nn.Identity()


def small(labels: int) -> dict[str, Any]:
    """The settings of a small model with so many labels."""
    return {**SMALL, "num_labels": labels}


def spread(model):
    """Weights so large that scores differ visibly."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture
def folder(tmp_path):
    """A BERT with one label, as `transformers` writes it."""
    spread(BertForSequenceClassification(BertConfig(**small(1)))).save_pretrained(tmp_path)
    minilm_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_scores_are_the_raw_logits_of_sentence_transformers(folder, tmp_path):
    theirs = CrossEncoder(str(folder), device="cpu")
    theirs.save_pretrained(str(tmp_path / "saved"))
    pairs = [(QUESTION, passage_text(passage)) for passage in PASSAGES]
    expected = theirs.predict(pairs, activation_fn=IDENTITY)
    assert np.ptp(expected) > 0.1
    for name in (folder, tmp_path / "saved"):
        encoder = load_cross_encoder(str(name))
        found = encoder.scores(QUESTION, PASSAGES)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
        # Not what its own settings make of them.
        assert not np.allclose(found, theirs.predict(pairs), atol=1e-2)
    assert encoder.scores(QUESTION, []).shape == (0,)


def test_scores_are_those_of_each_pair_alone(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = minilm_tokenizer()
    found = load_cross_encoder(str(folder)).scores(QUESTION, PASSAGES)
    for passage, score in zip(PASSAGES[:12], found, strict=False):
        text = f"{passage.title}. {passage.text}" if passage.title else passage.text
        inputs = tokenizer(QUESTION, text, return_tensors="pt")
        with torch.no_grad():
            assert score == pytest.approx(model(**inputs).logits.item(), abs=1e-5)


def test_two_labels_give_the_log_odds_of_the_second(tmp_path):
    config = RobertaConfig(**small(2), max_position_embeddings=33)
    spread(RobertaForSequenceClassification(config)).save_pretrained(tmp_path)
    minilm_tokenizer().save_pretrained(tmp_path)
    # RoBERTa counts its places from the padding token's id on; the tokenizer allows 512.
    encoder = load_cross_encoder(str(tmp_path))
    assert encoder.model.max_seq_length == 32
    theirs = CrossEncoder(str(tmp_path), device="cpu", max_length=32)
    pairs = [(QUESTION, passage_text(passage)) for passage in PASSAGES]
    logits = theirs.predict(pairs, activation_fn=IDENTITY)
    found = encoder.scores(QUESTION, PASSAGES)
    np.testing.assert_allclose(found, logits[:, 1] - logits[:, 0], atol=1e-5)
    probabilities = theirs.predict(pairs, apply_softmax=True)
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), probabilities[:, 1], atol=1e-5)


def test_a_causal_model_with_a_logit_score(tmp_path):
    plain, saved = tmp_path / "plain", tmp_path / "saved"
    config = LlamaConfig(**SMALL, num_key_value_heads=2, bos_token_id=None, eos_token_id=None)
    spread(LlamaForCausalLM(config)).save_pretrained(plain)
    tokenizer = minilm_tokenizer()
    tokenizer.save_pretrained(plain)
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    for name, words in (("saved", (yes, no)), ("other", (no, yes))):
        reads = Transformer(str(plain), transformer_task="text-generation")
        theirs = CrossEncoder(modules=[reads, LogitScore(*words)], device="cpu")
        theirs.save_pretrained(str(tmp_path / name))
    encoder, other = load_cross_encoder(str(saved)), load_cross_encoder(str(tmp_path / "other"))
    found = encoder.scores(QUESTION, PASSAGES)
    np.testing.assert_allclose(found, -other.scores(QUESTION, PASSAGES), atol=1e-5)
    pairs = [(QUESTION, passage_text(passage)) for passage in PASSAGES]
    expected = theirs.predict(pairs, activation_fn=IDENTITY)  # the last one, of `other`
    np.testing.assert_allclose(-found, expected, atol=1e-5)
    assert encoder.sha256 != other.sha256
    # Without the module nothing says which words are meant.
    with pytest.raises(InputError, match=r"LlamaForCausalLM.* gives no score to a pair"):
        inspect_cross_encoder(str(plain))


def test_what_else_was_asked_changes_nothing(folder):
    encoder = load_cross_encoder(str(folder))
    before = encoder.scores(QUESTION, PASSAGES)
    encoder.scores("Another one?", PASSAGES[:3])
    assert (encoder.scores(QUESTION, PASSAGES) == before).all()


def test_the_hash_is_that_of_the_weights(folder):
    before = load_cross_encoder(str(folder))
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    after = load_cross_encoder(str(folder))
    assert before.sha256 != after.sha256
    assert load_cross_encoder(str(folder), precision="bfloat16").sha256 == after.sha256


def test_bfloat16_scores_are_near(folder):
    found = load_cross_encoder(str(folder), precision="bfloat16").scores(QUESTION, PASSAGES)
    assert found.dtype == np.float32
    exact = load_cross_encoder(str(folder)).scores(QUESTION, PASSAGES)
    assert 0 < np.abs(found - exact).max() < 0.2


# --- refusals -------------------------------------------------------------------------------------


def settings(folder, name, **changed):
    path = folder / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **changed}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("classifier.weight"), "lacks tensors of its model: classifier.weight"),
        (lambda t: t.update(other=torch.zeros(2)), "tensors that its model does not have: other"),
        (
            lambda t: t.update({"classifier.bias": torch.zeros(3)}),
            "of other shapes.*classifier.bias",
        ),
        (lambda t: t["classifier.bias"].fill_(torch.nan), "infinite or none: .*classifier.bias"),
    ],
)
def test_other_tensors_are_refused_by_name(folder, change, said):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=said):
        load_cross_encoder(str(folder))


def test_code_is_never_run(folder):
    settings(folder, "config.json", auto_map={"AutoModelForSequenceClassification": "own.Model"})
    (folder / "own.py").write_text("raise SystemExit('executed')")
    with pytest.raises(InputError, match="brings code of its own"):
        load_cross_encoder(str(folder))


def test_no_activation_is_imported(folder, tmp_path):
    """sentence-transformers would import whatever name begins with `torch.`."""
    saved = tmp_path / "saved"
    CrossEncoder(str(folder), device="cpu").save_pretrained(str(saved))
    settings(saved, "config_sentence_transformers.json", activation_fn="torch.no.such.thing")
    expected = load_cross_encoder(str(folder)).scores(QUESTION, PASSAGES)
    found = load_cross_encoder(str(saved)).scores(QUESTION, PASSAGES)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([{"type": "os.system", "path": ""}], "has the module 'os.system'"),
        (
            [
                {
                    "type": "sentence_transformers.base.modules.transformer.Transformer",
                    "path": "../x",
                }
            ],
            "has files in '../x'",
        ),
        ([], "does not describe a cross-encoder"),
        (["x"], "has the module 'None'"),
    ],
)
def test_modules_of_others_are_refused(folder, modules, said):
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=said):
        inspect_cross_encoder(str(folder))


def test_what_is_no_cross_encoder_is_refused(folder, tmp_path):
    settings(folder, "config_sentence_transformers.json", model_type="SentenceTransformer")
    (folder / "modules.json").write_text("[]")
    with pytest.raises(InputError, match="is a SentenceTransformer of sentence-transformers"):
        inspect_cross_encoder(str(folder))
    other = tmp_path / "masked"
    BertForMaskedLM(BertConfig(**SMALL)).save_pretrained(other)
    minilm_tokenizer().save_pretrained(other)
    with pytest.raises(InputError, match=r"BertForMaskedLM.* gives no score to a pair"):
        inspect_cross_encoder(str(other))
    three = tmp_path / "three"
    BertForSequenceClassification(BertConfig(**small(3))).save_pretrained(three)
    minilm_tokenizer().save_pretrained(three)
    with pytest.raises(InputError, match="tells 3 classes apart"):
        inspect_cross_encoder(str(three))
    with pytest.raises(InputError, match="there is no reranker 'nowhere'"):
        inspect_cross_encoder("nowhere")


def test_a_pickle_is_not_read(folder):
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"has no model\.safetensors \(only pytorch_model\.bin\)"):
        inspect_cross_encoder(str(folder))

"""Encoders of one tower and of two: what their vectors are, and that folders give them back."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import DPRConfig, DPRContextEncoder, DPRQuestionEncoder

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models import load_encoder
from ragbook.models.embedded import MINILM_SHA256, minilm_tokenizer
from ragbook.models.encoder import Encoder, save_encoder, weights_sha256

QUESTIONS = ["Who first charted Lake Velm?", "Which lake?", "lake " * 400]
PASSAGES = [
    Passage("x-1", "Lake Velm", "Lake Velm lies in Ordania. Ilsa Brenkov charted it in 1873."),
    Passage("x-2", "Ordania", "Ordania is a country without a coast."),
    Passage("x-3", "", "A text without a title."),
    Passage("x-4", "Long", "river " * 500),
]


def write_dpr(folder: Path, projection: int = 0) -> None:
    """A small random pair in the layout of the published DPR checkpoints."""
    tokenizer = minilm_tokenizer()
    config = DPRConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        projection_dim=projection,
        initializer_range=0.3,
    )
    for seed, (kind, name) in enumerate(
        [(DPRContextEncoder, "ctx_encoder"), (DPRQuestionEncoder, "question_encoder")]
    ):
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder / f"dpr-{name}-tiny")
        tokenizer.save_pretrained(folder / f"dpr-{name}-tiny")


@pytest.fixture(scope="module")
def dpr(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dpr")
    write_dpr(folder)
    return folder


def reference_vectors(model, texts: list[list[str]]) -> np.ndarray:
    """The definition, one text at a time: [CLS] a [SEP] b [SEP], token types 0, 256 tokens."""
    tokenizer, rows = minilm_tokenizer(), []
    for parts in texts:
        pieces = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts]
        ids = [tokenizer.cls_token_id]
        for piece in pieces:
            ids += [*piece, tokenizer.sep_token_id]
        if len(ids) > 256:  # all of it from the last part, as the title is the shorter one
            ids = [*ids[:255], tokenizer.sep_token_id]
        with torch.no_grad():
            out = model(torch.tensor([ids]), token_type_ids=torch.zeros(1, len(ids)).long())
        rows.append(out.pooler_output[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("half", ["ctx_encoder", "question_encoder"])
def test_dpr_checkpoints_give_the_vectors_of_transformers_own_classes(dpr, half):
    encoder = load_encoder(str(dpr / f"dpr-{half}-tiny"))
    assert (encoder.pooling, encoder.similarity, encoder.metric) == ("cls", "dot", "inner_product")
    assert (encoder.dimension, encoder.score_scale) == (16, 1.0)
    assert encoder.id == str(dpr / "dpr-ctx_encoder-tiny")  # either half names the pair
    passage_model = DPRContextEncoder.from_pretrained(dpr / "dpr-ctx_encoder-tiny").eval()
    query_model = DPRQuestionEncoder.from_pretrained(dpr / "dpr-question_encoder-tiny").eval()
    expected = reference_vectors(
        passage_model, [[p.title, p.text] if p.title else [p.text] for p in PASSAGES]
    )
    np.testing.assert_allclose(encoder.encode_passages(PASSAGES), expected, atol=2e-5)
    expected = reference_vectors(query_model, [[q] for q in QUESTIONS])
    np.testing.assert_allclose(encoder.encode_queries(QUESTIONS), expected, atol=2e-5)
    assert encoder.encode_passages(PASSAGES).dtype == np.float32
    assert encoder.sha256 != encoder.query_sha256


@pytest.mark.parametrize("missing", ["ctx_encoder", "question_encoder"])
def test_half_a_pair_is_named_with_the_other_half(tmp_path, missing):
    write_dpr(tmp_path)
    there = {"ctx_encoder": "question_encoder", "question_encoder": "ctx_encoder"}[missing]
    for file in (tmp_path / f"dpr-{missing}-tiny").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=f"dpr-{missing}-tiny.*other half of.*dpr-{there}-tiny"):
        load_encoder(str(tmp_path / f"dpr-{there}-tiny"))


def test_projected_vectors_are_refused(tmp_path):
    write_dpr(tmp_path, projection=8)
    with pytest.raises(InputError, match="projects its vectors"):
        load_encoder(str(tmp_path / "dpr-ctx_encoder-tiny"))


def same_vectors(one: Encoder, other: Encoder) -> None:
    np.testing.assert_array_equal(one.encode_queries(QUESTIONS), other.encode_queries(QUESTIONS))
    np.testing.assert_array_equal(one.encode_passages(PASSAGES), other.encode_passages(PASSAGES))


def test_a_dpr_pair_comes_back_from_a_folder(dpr, tmp_path):
    encoder = load_encoder(str(dpr / "dpr-ctx_encoder-tiny"))
    save_encoder(tmp_path / "saved", encoder)
    back = load_encoder(str(tmp_path / "saved"))
    same_vectors(encoder, back)
    assert (back.sha256, back.query_sha256) == (encoder.sha256, encoder.query_sha256)
    assert (back.pooling, back.similarity, back.score_scale) == ("cls", "dot", 1.0)


def test_a_query_tower_over_the_embedded_passages_is_all_that_is_written(tmp_path):
    encoder = load_encoder().untied()
    frozen = weights_sha256(encoder.passage_model)
    bias = encoder.query_model.encoder.layer[5].output.dense.bias
    with torch.no_grad():
        bias += 1 / 3
    save_encoder(tmp_path, encoder)
    assert {p.name for p in tmp_path.iterdir()} == {"encoder.json", "query.safetensors"}
    assert (tmp_path / "query.safetensors").stat().st_size < 5_000
    back = load_encoder(str(tmp_path))
    same_vectors(encoder, back)
    assert back.sha256 == MINILM_SHA256
    assert back.query_sha256 == weights_sha256(encoder.query_model) != frozen
    assert weights_sha256(back.passage_model) == frozen
    assert back.passage_model is not back.query_model
    np.testing.assert_array_equal(
        load_encoder().encode_passages(PASSAGES), back.encode_passages(PASSAGES)
    )
    assert not np.array_equal(
        load_encoder().encode_queries(QUESTIONS), back.encode_queries(QUESTIONS)
    )


@pytest.mark.parametrize(
    ("tied", "pooling", "similarity"),
    [(True, "mean", "cosine"), (False, "mean", "dot"), (False, "cls", "l2")],
)
def test_settings_come_back(tmp_path, tied, pooling, similarity):
    one = load_encoder()
    own = None if tied else load_encoder().model
    encoder = Encoder(
        one.model, one.tokenizer, "x", MINILM_SHA256, 3.5,
        query_model=own, pooling=pooling, similarity=similarity,
    )  # fmt: skip
    save_encoder(tmp_path, encoder)
    back = load_encoder(str(tmp_path))
    same_vectors(encoder, back)
    assert (back.pooling, back.similarity, back.score_scale) == (pooling, similarity, 3.5)
    assert back.metric == ("l2" if similarity == "l2" else "inner_product")
    assert (back.passage_model is back.query_model) == tied
    assert (back.id, back.sha256, back.query_sha256) == (str(tmp_path),) + 2 * (MINILM_SHA256,)
    lengths = np.linalg.norm(back.encode_passages(PASSAGES), axis=1)
    assert np.allclose(lengths, 1, atol=1e-5) == (similarity == "cosine")


def test_weights_in_bfloat16_take_half_the_room_and_come_back_exactly(tmp_path):
    encoder = load_encoder().untied()
    layer = encoder.query_model.encoder.layer[5]
    with torch.no_grad():
        layer.output.dense.weight.mul_(1.01).copy_(layer.output.dense.weight.bfloat16())
    save_encoder(tmp_path, encoder)
    assert (tmp_path / "query.safetensors").stat().st_size < 2.1 * 384 * 1536
    same_vectors(encoder, load_encoder(str(tmp_path)))


def test_vectors_have_gradients_and_encoding_shares_them():
    encoder = load_encoder().untied()
    vectors = encoder.query_vectors(QUESTIONS)
    assert vectors.dtype == torch.float32
    np.testing.assert_allclose(
        vectors.detach().numpy(), encoder.encode_queries(QUESTIONS), atol=2e-6
    )
    vectors.square().sum().backward()
    assert encoder.query_model.embeddings.word_embeddings.weight.grad is not None
    assert all(p.grad is None for p in encoder.passage_model.parameters())


@pytest.mark.parametrize("damage", ["flip", "missing", "manifest", "setting"])
def test_damage_is_refused_in_one_sentence(tmp_path, damage):
    encoder = load_encoder().untied()
    with torch.no_grad():
        encoder.query_model.encoder.layer[5].output.dense.bias += 1
    save_encoder(tmp_path, encoder)
    path, manifest = tmp_path / "query.safetensors", tmp_path / "encoder.json"
    if damage == "flip":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:-9])
    else:
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"pooling": "max"}))
    with pytest.raises(InputError, match="damaged"):
        load_encoder(str(tmp_path))


def test_a_folder_whose_writing_was_cut_short_does_not_load(tmp_path, monkeypatch):
    save_encoder(tmp_path, load_encoder())
    encoder = load_encoder().untied()
    with torch.no_grad():
        encoder.query_model.encoder.layer[5].output.dense.bias += 1

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ragbook.models.encoder.save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_encoder(tmp_path, encoder)
    with pytest.raises(InputError, match="there is no encoder"):
        load_encoder(str(tmp_path))


def test_a_corpus_encoded_in_bfloat16_has_nearly_the_same_vectors():
    encoder = load_encoder()
    passages = [
        Passage(str(i), f"River {i}", f"It flows {i} km to the sea. " * 5) for i in range(4)
    ]
    exact, queries = encoder.encode_passages(passages), encoder.encode_queries(["Which river?"])
    encoder.precision = "bfloat16"
    rounded = encoder.encode_passages(passages)
    assert rounded.dtype == np.float32
    assert (rounded != exact).any()
    assert ((rounded * exact).sum(1) > 0.9995).all()
    np.testing.assert_array_equal(encoder.encode_queries(["Which river?"]), queries)


def test_inputs_follow_the_tower_to_its_device():
    """The device "meta" computes shapes only, and refuses what is elsewhere."""

    class Tower(torch.nn.Embedding):
        def forward(self, input_ids, attention_mask, token_type_ids):
            assert {t.device.type for t in (input_ids, attention_mask, token_type_ids)} == {"meta"}
            return SimpleNamespace(last_hidden_state=super().forward(input_ids))

    encoder = load_encoder()
    encoder.passage_model = Tower(30_522, 384)
    encoder.query_model = encoder.passage_model
    encoder.to("meta")
    assert encoder.query_vectors(["a question"]).device.type == "meta"
    assert encoder.passage_vectors([Passage("1", "T", "text")]).shape == (1, 384)


def test_a_copy_for_training_keeps_the_precision():
    encoder = load_encoder()
    encoder.precision = "bfloat16"
    assert encoder.untied().precision == "bfloat16"


def test_a_narrow_tower_keeps_a_bounded_number_of_texts(monkeypatch):
    """The ones used last; a batch larger than the bound is read all the same."""
    from ragbook.models import projected
    from ragbook.training.realm.recipe import mapped_encoder

    monkeypatch.setattr(projected, "KEPT_TEXTS", 3)
    encoder = mapped_encoder(torch.eye(384))
    first = encoder.encode_queries(["a", "b", "c", "d", "e"])
    assert len(encoder.model._kept) == 3
    np.testing.assert_allclose(encoder.encode_queries(["e", "a"])[::-1], first[[0, 4]], atol=1e-6)
    assert len(encoder.model._kept) == 3

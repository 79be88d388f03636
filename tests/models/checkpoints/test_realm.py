"""Small random checkpoints, their tensors named as the originals', against the formulas."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import BertConfig, BertModel

from ragbook.corpus import Corpus
from ragbook.errors import InputError
from ragbook.index import build_index
from ragbook.methods.realm import Realm
from ragbook.models.checkpoints.realm import (
    load_realm_embedder,
    load_realm_encoder,
    load_realm_open_qa,
    save_realm_encoder,
)
from ragbook.models.embedded import minilm_path
from ragbook.models.encoder import load_encoder, save_encoder
from ragbook.models.masked import NULL
from ragbook.retrieval import DenseRetriever
from tests.methods.conftest import PASSAGES, QUESTIONS

SETTINGS = {
    "model_type": "realm",
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_act": "gelu_new",
    "retriever_proj_size": 6,
    "span_hidden_size": 8,
    "max_span_width": 4,
    "reader_seq_len": 64,
}
CONFIG = BertConfig(**(SETTINGS | {"model_type": "bert", "initializer_range": 0.4}))


def drawn(*shape):
    return torch.randn(*shape) * 0.4


def bert(prefix):
    """A BERT's tensors under a prefix, its pooler and, as old versions saved it, `position_ids`."""
    tensors = {f"{prefix}.{k}": v.clone() for k, v in BertModel(CONFIG).state_dict().items()}
    tensors[f"{prefix}.embeddings.position_ids"] = torch.arange(512)[None]
    return tensors


def predictions(prefix):
    return {
        f"{prefix}.bias": drawn(30522),
        f"{prefix}.decoder.bias": drawn(30522),
        f"{prefix}.decoder.weight": drawn(30522, 16),
        f"{prefix}.transform.dense.weight": drawn(16, 16),
        f"{prefix}.transform.dense.bias": drawn(16),
        f"{prefix}.transform.LayerNorm.weight": 1 + drawn(16),
        f"{prefix}.transform.LayerNorm.bias": drawn(16),
    }


def embedder(prefix=""):
    return {
        **bert(f"{prefix}realm"),
        **predictions(f"{prefix}cls.predictions"),
        f"{prefix}cls.dense.weight": drawn(6, 16),
        f"{prefix}cls.dense.bias": drawn(6),
        f"{prefix}cls.LayerNorm.weight": 1 + drawn(6),
        f"{prefix}cls.LayerNorm.bias": drawn(6),
    }


def open_qa():
    return {
        **embedder("embedder."),
        **bert("reader.realm"),
        **predictions("reader.cls.predictions"),
        "reader.qa_outputs.dense_intermediate.weight": drawn(16, 16),
        "reader.qa_outputs.dense_intermediate.bias": drawn(16),
        "reader.qa_outputs.dense_output.weight": drawn(1, 8),
        "reader.qa_outputs.dense_output.bias": drawn(1),
        "reader.qa_outputs.layer_normalization.weight": 1 + drawn(8),
        "reader.qa_outputs.layer_normalization.bias": drawn(8),
        "block_emb": drawn(3, 6),
    }


def written(folder, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(minilm_path() / "vocab.txt", folder)
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    save_file(
        {k: v.clone().contiguous() for k, v in tensors.items()}, str(folder / "model.safetensors")
    )
    return str(folder)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def embedded(tensors, inputs, prefix=""):
    """The embedder's formula, from the tensors themselves."""
    pooled = states(tensors, inputs, f"{prefix}realm", pooler=True)
    projected = functional.linear(
        pooled, tensors[f"{prefix}cls.dense.weight"], tensors[f"{prefix}cls.dense.bias"]
    )
    return functional.layer_norm(
        projected,
        (6,),
        tensors[f"{prefix}cls.LayerNorm.weight"],
        tensors[f"{prefix}cls.LayerNorm.bias"],
        1e-12,
    )


def states(tensors, inputs, prefix, pooler=False):
    model = BertModel(CONFIG).eval()
    own = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(prefix)}
    model.load_state_dict({k: v for k, v in own.items() if "position_ids" not in k})
    with torch.no_grad():
        out = model(**inputs)
    return out.pooler_output if pooler else out.last_hidden_state


@pytest.mark.parametrize("kind", ["embedder", "scorer", "two towers"])
def test_an_embedder_gives_the_projected_vectors(tmp_path, kind):
    prefix = "" if kind == "embedder" else "embedder."
    tensors = embedder(prefix)
    if kind == "two towers":
        tensors |= embedder("query_embedder.")
    encoder = load_realm_embedder(written(tmp_path / "a", tensors))
    asked = encoder.tokenizer([q.text for q in QUESTIONS], padding=True, return_tensors="pt")
    query = "query_embedder." if kind == "two towers" else prefix
    wanted = embedded(tensors, asked, query)
    torch.testing.assert_close(
        torch.from_numpy(encoder.encode_queries([q.text for q in QUESTIONS])), wanted
    )
    shown = encoder.tokenizer(
        [p.title for p in PASSAGES], [p.text for p in PASSAGES], padding=True, return_tensors="pt"
    )
    assert shown["token_type_ids"].any()
    torch.testing.assert_close(
        torch.from_numpy(encoder.encode_passages(PASSAGES)), embedded(tensors, shown, prefix)
    )
    assert encoder.dimension == 6
    assert (encoder.query_sha256 == encoder.sha256) == (kind != "two towers")
    index = build_index(Corpus("four", PASSAGES), tmp_path / "index", encoder, progress=False)
    found = DenseRetriever(index, encoder).retrieve(QUESTIONS, 4)
    scores = wanted @ embedded(tensors, shown, prefix).T
    for row, one in zip(scores, found, strict=True):
        torch.testing.assert_close(torch.from_numpy(one.scores), row.sort(descending=True).values)


def test_a_projected_encoder_is_saved_and_loaded_without_loss(tmp_path):
    encoder = load_realm_embedder(written(tmp_path / "a", embedder())).untied()
    with torch.no_grad():
        encoder.query_model.dense.bias += 1
    save_encoder(tmp_path / "b", encoder)
    again = load_encoder(str(tmp_path / "b"))
    texts = [q.text for q in QUESTIONS]
    assert (again.encode_queries(texts) == encoder.encode_queries(texts)).all()
    assert (again.encode_passages(PASSAGES) == encoder.encode_passages(PASSAGES)).all()
    assert again.sha256 == encoder.sha256


def test_the_knowledge_augmented_encoder_predicts_by_its_formula(tmp_path):
    tensors = bert("realm") | predictions("cls.predictions")
    tensors["cls.predictions.decoder.weight"] = tensors["realm.embeddings.word_embeddings.weight"]
    reader = load_realm_encoder(written(tmp_path / "a", tensors))
    answer = reader.tokenizer("vienna", add_special_tokens=False)["input_ids"]
    text = "The Danube passes [MASK]."
    with torch.no_grad():
        found, mask = reader.token_log_probs([text], [answer], [[PASSAGES[0], NULL]])
    for n, passage in enumerate((PASSAGES[0], NULL)):
        inputs = reader.tokenizer([text], [passage.text], return_tensors="pt")  # without its title
        at = (inputs["input_ids"][0] == reader.tokenizer.mask_token_id).nonzero()[0]
        hidden = states(tensors, inputs, "realm")[0, at]
        own = {k.removeprefix("cls.predictions."): v for k, v in tensors.items()}
        hidden = functional.linear(
            hidden, own["transform.dense.weight"], own["transform.dense.bias"]
        )
        hidden = functional.gelu(hidden, approximate="tanh")
        hidden = functional.layer_norm(
            hidden, (16,), own["transform.LayerNorm.weight"], own["transform.LayerNorm.bias"], 1e-12
        )
        logits = functional.linear(hidden, own["decoder.weight"], own["bias"])
        wanted = logits.log_softmax(-1)[0, answer[0]]
        torch.testing.assert_close(found[0, n, 0], wanted, rtol=1e-4, atol=1e-4)
    assert mask.tolist() == [[True]]
    save_realm_encoder(tmp_path / "b", reader)
    again = load_realm_encoder(str(tmp_path / "b"))
    with torch.no_grad():
        repeated, _ = again.token_log_probs([text], [answer], [[PASSAGES[0], NULL]])
    torch.testing.assert_close(repeated, found)
    names = set(load_file(str(tmp_path / "b" / "model.safetensors")))
    # What the original has besides: the pooler, and the word vectors a second time.
    assert not {n for n in set(tensors) - names if "pooler" not in n and "decoder" not in n} - {
        "realm.embeddings.position_ids"
    }


def test_open_qa_scores_spans_by_its_formula_and_answers(tmp_path):
    tensors = open_qa()
    encoder, reader, blocks = load_realm_open_qa(written(tmp_path / "a", tensors))
    torch.testing.assert_close(blocks, tensors["block_emb"])
    inputs, scores = reader.span_scores([QUESTIONS[0].text] * 2, PASSAGES[:2])
    hidden = states(tensors, dict(inputs.tensors), "reader.realm")
    part = {k.removeprefix("reader.qa_outputs."): v for k, v in tensors.items()}
    both = functional.linear(
        hidden, part["dense_intermediate.weight"], part["dense_intermediate.bias"]
    )
    starts, ends = both.chunk(2, -1)
    for row in range(2):
        inside = inputs.passage_mask[row].nonzero().flatten().tolist()
        first, last = inside[0], inside[-1]
        for start, end in ((first, first), (first + 1, first + 4), (last - 2, last)):
            span = functional.layer_norm(
                torch.relu(starts[row, start] + ends[row, end]),
                (8,),
                part["layer_normalization.weight"],
                part["layer_normalization.bias"],
                1e-3,
            )
            wanted = functional.linear(span, part["dense_output.weight"], part["dense_output.bias"])
            torch.testing.assert_close(
                scores[row, start, end - start], wanted[0], rtol=1e-4, atol=1e-4
            )
        assert scores.shape[2] == 4  # the widest span
    index = build_index(Corpus("four", PASSAGES), tmp_path / "index", encoder, progress=False)
    answers = Realm(reader, DenseRetriever(index, encoder), orqa=True).answer(QUESTIONS, 3)
    assert all(a.text and a.text in "\n".join(p.text for p in PASSAGES) for a in answers)


def test_what_is_no_checkpoint_of_realm_is_refused(tmp_path):
    with pytest.raises(InputError, match="pickle"):
        load_realm_embedder(str(tmp_path))
    folder = tmp_path / "a"
    name = written(folder, embedder())
    with pytest.raises(InputError, match=r"SpanScorer|BertModel|open QA"):
        load_realm_open_qa(name)
    cut = embedder()
    del cut["cls.dense.bias"]
    written(folder, cut)
    with pytest.raises(InputError, match=r"dense\.bias"):
        load_realm_embedder(name)
    (folder / "config.json").write_text(json.dumps(SETTINGS | {"model_type": "bert"}))
    with pytest.raises(InputError, match="'bert'; name one of REALM"):
        load_realm_encoder(name)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(InputError, match="convert it"):
        load_realm_embedder(name)

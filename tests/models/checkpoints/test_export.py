"""Exported folders are what `transformers` alone reads, and compute the same."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models import load_language_model, load_reader, load_span_reader
from ragbook.models.bundled import fill
from ragbook.models.checkpoints.export import EXPORTS, export
from ragbook.models.generator import labels_of
from ragbook.models.span import SpanScorer

PASSAGE = Passage("x", "Lake Velm", "Lake Velm was first charted by Ilsa Brenkov in 1873.")
QUESTION = Question("Who first charted Lake Velm?", ("Ilsa Brenkov",), "x")


@pytest.mark.parametrize("name", ["reader", "fid"])
def test_a_reader_reads_without_this_package(tmp_path, name):
    export(name, tmp_path / "out")
    model, loading = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(loading.values())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = f"{PASSAGE.title}. {PASSAGE.text}"
    written = model.generate(**tokenizer(QUESTION.text, text, return_tensors="pt"), num_beams=2)
    assert tokenizer.decode(written[0], skip_special_tokens=True) == "ilsa brenkov"

    again, own = load_reader(str(tmp_path / "out")), load_reader("bundled", name)
    scores = []
    for reader in (again, own):
        states, mask = reader.encode_documents([QUESTION], [[PASSAGE]])
        labels = labels_of(reader, ["Ilsa Brenkov in 1873"])
        scores.append(reader.token_log_probs(reader.memory(states[:, 0], mask[:, 0]), labels))
    torch.testing.assert_close(*scores)


def test_a_language_model_predicts_the_same(tmp_path):
    export("lm", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor([load_language_model().passage_ids(PASSAGE)])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, load_language_model().model(ids).logits)


def test_realm_is_an_encoder_and_a_scorer(tmp_path):
    export("realm", tmp_path / "out")
    span = load_span_reader("bundled", "realm")
    inputs, expected = span.span_log_probs([QUESTION.text], [PASSAGE])
    encoder, scorer = AutoModel.from_pretrained(tmp_path / "out"), SpanScorer(384)
    fill(scorer, load_file(tmp_path / "out" / "span.safetensors"))
    with torch.no_grad():
        states = encoder(**inputs.tensors).last_hidden_state
        scores = scorer(states, inputs.passage_mask).flatten(1).log_softmax(-1)
    torch.testing.assert_close(scores.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_exported_is_said_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match=f"choose from {', '.join(EXPORTS)}"):
        export("bart", tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        export("lm", tmp_path)
    with pytest.raises(InputError, match=r"holds no weights\.json"):
        export("reader", tmp_path / "out", str(tmp_path))
    assert not (tmp_path / "out").exists()

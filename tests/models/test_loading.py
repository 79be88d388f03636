"""Any checkpoint behind every method, and refusals of what cannot be one."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    T5EncoderModel,
    ViTConfig,
    ViTModel,
)

from ragbook import methods
from ragbook.corpus import Corpus, QuestionSet, miniwiki
from ragbook.errors import InputError
from ragbook.evaluation import compare
from ragbook.models import CausalReader, SeqReader, load_language_model, load_reader
from ragbook.models.inspection import inspect_generator, loaded
from ragbook.models.templates import TEMPLATES, Template
from ragbook.retrieval import BM25Retriever
from tests.checkpoints import CAUSAL, SEQ2SEQ, random_model, tokenizer_of, write_checkpoint
from tests.methods.test_fid import save as save_fid
from tests.models.checkpoints.test_rag import save as save_rag

QUESTIONS = list(miniwiki.questions("dev"))[:12]


@pytest.fixture(scope="module")
def retriever():
    gold = {question.gold_passage for question in QUESTIONS}
    return BM25Retriever(Corpus("some", [p for p in miniwiki.corpus() if p.id in gold]))


PUBLISHED = {
    "rag": lambda folder: save_rag(folder, "bart"),
    "original-fid": lambda folder: save_fid(folder, "module", True),
}


@pytest.mark.parametrize("name", [*SEQ2SEQ, *PUBLISHED, *CAUSAL])
def test_a_checkpoint_answers_by_every_method_that_it_can_serve(tmp_path, name, retriever):
    folder = str(tmp_path)
    if name in PUBLISHED:
        PUBLISHED[name](tmp_path)
    else:
        write_checkpoint(tmp_path, name)
    reader = load_reader(folder)
    assert type(reader) is (CausalReader if name in CAUSAL else SeqReader)
    served = [one for one in methods.NAMES if one not in methods.left_out(folder)]
    assert served == [one for one in methods.NAMES if one != "realm"]
    if name not in CAUSAL:  # kNN-LM would be the bundled one
        served.remove("knn-lm")
    made: list[Any] = methods.load(served, retriever, True, folder, max_length=4)
    if name in CAUSAL:  # one set of weights
        assert len({id(getattr(m, "reader", None) or m.lm) for m in made}) == 1
    few = QuestionSet("few", "dev", QUESTIONS)
    found = compare(made, few, k=2, progress=False)
    held = [m for m in found.results["methods"] if m != "closed-book"]
    for line in found.predictions:
        for method in held:
            weights = [one["weight"] for one in line["methods"][method]["evidence"]]
            assert sum(weights) == pytest.approx(1, abs=1e-4)
            assert len(weights) == 2
            assert line["methods"][method]["log_prob"] < 0
    answers = {m: [line["methods"][m]["text"] for line in found.predictions] for m in served}
    assert len({text for said in answers.values() for text in said}) > 4  # it is not one answer


def test_a_prompt_of_ones_own_reaches_the_model(tmp_path):
    folder = str(write_checkpoint(tmp_path / "m", "llama"))
    template = Template(question="Q {question} A\n", answer="It is", end="")
    reader = load_reader(folder, prompt=template)
    assert "Q Who A\nIt is" in reader.tokenizer.decode(reader.prompt_ids("Who"))
    assert reader.end == reader.tokenizer.eos_token_id
    assert load_reader(folder) is load_reader(folder)
    assert load_reader(folder).prompt.template is TEMPLATES["base"]
    with pytest.raises(InputError, match="a prompt of its own"):
        load_reader("bundled", prompt=template)


def test_a_seq2seq_reader_takes_knn_lm_from_elsewhere(tmp_path, retriever):
    folder = str(write_checkpoint(tmp_path / "t5", "t5"))
    method: Any
    (method,) = methods.load(["knn-lm"], retriever, reader=folder)
    assert method.lm.name == "bundled"
    other = str(write_checkpoint(tmp_path / "gpt2", "gpt2"))
    (method,) = methods.load(["knn-lm"], retriever, reader=folder, lm=other)
    assert method.lm is load_reader(other)
    assert method.temperature == pytest.approx(10.0 * 32 / 384)
    with pytest.raises(InputError, match="not a decoder-only model"):
        methods.load(["knn-lm"], retriever, lm=folder)
    with pytest.raises(InputError, match=r"realm cannot use .*span reader"):
        methods.load(["realm"], retriever, reader=folder)
    with pytest.raises(InputError, match="is an encoder-decoder"):
        load_language_model(folder)


def test_what_a_reader_computes_is_float32_whatever_it_was_saved_in(tmp_path):
    model = random_model("llama").bfloat16()
    model.save_pretrained(tmp_path)
    tokenizer_of("llama").save_pretrained(tmp_path)
    assert next(load_reader(str(tmp_path)).model.parameters()).dtype == torch.float32


BERT = BertConfig(
    vocab_size=700,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
)


def _encoder(folder):
    BertModel(BERT).save_pretrained(folder)


def _classifier(folder):
    BertForSequenceClassification(BERT).save_pretrained(folder)


def _vision(folder):
    ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        folder
    )


def _encoder_half(folder):
    T5EncoderModel(SEQ2SEQ["t5"]()).save_pretrained(folder)


def _code(folder):
    write_checkpoint(folder, "gpt2")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()")


def _pickle(folder):
    write_checkpoint(folder, "gpt2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _gguf(folder):
    write_checkpoint(folder, "gpt2")
    (folder / "model.safetensors").rename(folder / "model.gguf")


def _no_tokenizer(folder):
    write_checkpoint(folder, "gpt2")
    (folder / "tokenizer.json").unlink()


def _sentencepiece(folder):
    write_checkpoint(folder, "t5")
    (folder / "tokenizer.json").rename(folder / "spiece.model")


def _empty(folder):
    write_checkpoint(folder, "gpt2")
    save_file({}, str(folder / "model.safetensors"))


def _changed(change):
    def write(folder):
        write_checkpoint(folder, "gpt2")
        path = str(folder / "model.safetensors")
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return write


def _cut(folder):
    write_checkpoint(folder, "gpt2")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


LAST = "transformer.h.1.mlp.c_fc.weight"
REFUSED = {
    "an encoder": (_encoder, "not a model that writes text.*may be an --encoder"),
    "a classifier": (_classifier, "is a classifier"),
    "a vision model": (_vision, "not a model that writes text"),
    "half a T5": (_encoder_half, "only the encoder of a seq2seq model"),
    "code": (_code, "code of its own"),
    "a pickle": (_pickle, r"only pytorch_model\.bin"),
    "GGUF": (_gguf, r"only model\.gguf"),
    "no tokenizer": (_no_tokenizer, "no tokenizer"),
    "SentencePiece": (_sentencepiece, "no fast tokenizer"),
    "no tensors": (_empty, "lacks tensors"),
    "a tensor missing": (_changed(lambda t: t.pop(LAST)), f"lacks tensors.*{LAST}"),
    "one too many": (_changed(lambda t: t.update(more=torch.ones(2))), "does not have: more"),
    "another shape": (_changed(lambda t: t.update({LAST: torch.ones(3, 3)})), "shape|damaged"),
    "cut": (_cut, "damaged"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_a_reader_is_refused_by_name(tmp_path, what, monkeypatch):
    write, sentence = REFUSED[what]
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks is told to go on
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder)
    for load in (load_reader, load_language_model):
        with pytest.raises(InputError, match=sentence) as refused:
            load(str(folder))
        assert str(folder) in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not (folder / "ran").exists()


def test_a_name_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no model 'no-such-model'"):
        load_reader("no-such-model")
    with pytest.raises(InputError, match="there is no model"):
        load_reader(str(tmp_path))


def test_a_checkpoint_in_pieces_is_loaded(tmp_path):
    random_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    tokenizer_of("llama").save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    model, _ = loaded(inspect_generator(str(tmp_path)))
    whole = random_model("llama").state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())
    shutil.rmtree(tmp_path)

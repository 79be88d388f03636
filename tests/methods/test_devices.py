"""Every method computes on a GPU what it computes on the CPU; no tensor is left behind."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ragbook.corpus import Corpus
from ragbook.evaluation.perplexity import token_log_probs
from ragbook.index.datastore import build_datastore
from ragbook.methods.closed_book import ClosedBook
from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.knn_lm import KnnLM
from ragbook.methods.knn_lm.text import OpenKnnLM
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.methods.realm import Realm
from ragbook.models import LanguageModel, SeqReader, SpanReader
from ragbook.models.causal import CausalReader
from ragbook.models.span import SpanScorer
from tests.devices import assert_same, on_gpus
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever, seq_model, tower

CORPUS = Corpus("four", PASSAGES)
ANSWERS = [q.answers[0] for q in QUESTIONS]


def causal_model(kind: str) -> Any:
    torch.manual_seed(3)
    special: dict[str, Any] = {"vocab_size": 30522, "bos_token_id": 101, "eos_token_id": 102}
    if kind == "gpt2":
        config = GPT2Config(
            n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=0.3, **special
        )
        return GPT2LMHeadModel(config)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.3,
        **special,
    )
    return LlamaForCausalLM(config)


def generator(kind: str, tokenizer, device: str | torch.device) -> Any:
    if kind in ("bart", "t5"):
        model: Any = seq_model(kind)
        return SeqReader(model.to(device), tokenizer, kind)
    return CausalReader(causal_model(kind).to(device), tokenizer, kind)


def generated(kind: str, tokenizer, device: str | torch.device) -> dict[str, list]:
    """What every generative method says, with its figures."""
    reader, retriever = generator(kind, tokenizer, device), FixedRetriever()
    options: dict[str, Any] = {"beams": 2, "max_length": 4}
    methods = {
        "closed-book": ClosedBook(reader, **options),
        "in-context": InContext(reader, retriever, **options),
        "rag-sequence": RagSequence(reader, retriever, **options),
        "rag-sequence, fast": RagSequence(reader, retriever, thorough=False, **options),
        "rag-sequence, verbatim": RagSequence(reader, retriever, verbatim=True, **options),
        "rag-token": RagToken(reader, retriever, **options),
        "fid": FiD(reader, retriever, **options),
    }
    found: dict[str, list] = {}
    for name, method in methods.items():
        found[name] = [
            (a.text, a.log_prob, a.evidence) for a in method.answer(QUESTIONS, k=3)
        ] + method.log_prob(QUESTIONS, ANSWERS, k=3).tolist()
    fid = methods["fid"]
    assert isinstance(fid, FiD)
    found["attention"] = fid.attention(QUESTIONS, ANSWERS, k=3).tolist()
    found["leave one out"] = fid.leave_one_out(QUESTIONS, ANSWERS, k=3).tolist()
    if kind in ("bart", "t5"):
        found["scores"] = fid.first_token_scores(QUESTIONS, k=3).tolist()
    return found


@on_gpus
@pytest.mark.parametrize("kind", ["bart", "t5", "gpt2", "llama"])
def test_generators(kind, a_gpu, tokenizer):
    here = generated(kind, tokenizer, "cpu")
    with a_gpu() as gpu:
        assert_same(generated(kind, tokenizer, gpu), here)


@on_gpus
@pytest.mark.parametrize("orqa", [False, True])
def test_the_span_reader(orqa, a_gpu, tokenizer):
    def found(device):
        torch.manual_seed(2)
        reader = SpanReader(tower().to(device), SpanScorer(16, 8).to(device), tokenizer, "s")
        method = Realm(reader, FixedRetriever(), orqa)
        answers = [(a.text, a.log_prob, a.evidence) for a in method.answer(QUESTIONS, k=3)]
        return answers, method.log_prob(QUESTIONS, ANSWERS, k=3).tolist()

    here = found("cpu")
    with a_gpu() as gpu:
        assert_same(found(gpu), here)


@on_gpus
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt2, prompted"])
def test_language_models(kind, a_gpu, tokenizer, tmp_path):
    """Answers, datastore, perplexity, and what is written with the whole memory."""

    def found(device):
        model = causal_model(kind.split(",")[0]).to(device)
        made = CausalReader if "prompted" in kind else LanguageModel
        lm = made(model, tokenizer, kind)
        method = KnnLM(lm, FixedRetriever(), lam=0.5, temperature=10.0, beams=2, max_length=4)
        answers = [(a.text, a.log_prob, a.evidence) for a in method.answer(QUESTIONS, k=3)]
        scores = method.log_prob(QUESTIONS, ANSWERS, k=3).tolist()
        store = build_datastore(CORPUS, tmp_path / str(device), lm, progress=False)
        text = ["The Danube passes through Vienna, and the Rhine through Basel."]
        lost = token_log_probs(
            text, CORPUS, lm, 3, 0.5, 10.0, progress=False, datastore=store, window=48, stride=24
        )
        memory = OpenKnnLM(lm, store, 0.5, 10.0, k=4)
        written = memory.write("The Danube passes", length=3)
        keys = np.load(store.path / "keys.npy").tolist()
        near = memory.neighbours("The Danube passes", 3)
        return answers, scores, {n: v[0].tolist() for n, v in lost.items()}, written, near, keys

    here = found("cpu")
    with a_gpu() as gpu:
        assert_same(found(gpu), here)

"""Tiny random models over a handful of passages: the methods' logic without their knowledge."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from ragbook.corpus import Passage, Question
from ragbook.models import LanguageModel, SeqReader, SpanReader
from ragbook.models.embedded import minilm_path
from ragbook.models.span import SpanScorer
from ragbook.retrieval import Retrieved
from tests import fakes

PASSAGES = (
    Passage("p0", "Danube", "The Danube passes through Vienna and Budapest."),
    Passage("p1", "Rhine", "The Rhine passes Basel, Bonn and Cologne on its way to the sea."),
    Passage("p2", "Elbe", "Dresden and Hamburg lie on the Elbe."),
    Passage(
        "p3", "Vistula", "The Vistula flows through Krakow and Warsaw; it is Poland's longest."
    ),
)
QUESTIONS = (
    Question("Which river passes through Vienna?", ("Danube",), "p0"),
    Question("On which river does Hamburg lie?", ("Elbe", "the Elbe"), "p2"),
)


class FixedRetriever(fakes.FixedRetriever):
    """PASSAGES in a fixed order with fixed scores; one fewer for all but the first question."""

    def __init__(self, order: Sequence[int] = (0, 1, 2, 3), uneven: bool = True) -> None:
        super().__init__(
            [PASSAGES[i] for i in order], [(0.9, 0.4, 0.7, 0.1)[i] for i in order], score_scale=2.0
        )
        self.uneven = uneven

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        first = super().retrieve(questions[:1], k)
        return first + super().retrieve(questions[1:], k - 1 if self.uneven and k > 1 else k)


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(minilm_path()))


def seq_model(kind: str):
    torch.manual_seed(1)
    special: dict[str, Any] = {
        "pad_token_id": 0,
        "eos_token_id": 102,
        "decoder_start_token_id": 101,
    }
    if kind == "t5":
        config = T5Config(
            vocab_size=30522, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, **special
        )
        return T5ForConditionalGeneration(config)
    config = BartConfig(
        vocab_size=30522,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=256,
        bos_token_id=101,
        init_std=0.5,
        **special,
    )
    return BartForConditionalGeneration(config)


def tower() -> BertModel:
    """A tiny encoder, its weights drawn with the seed that is set."""
    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    return BertModel(config, add_pooling_layer=False)


@pytest.fixture(scope="session", params=["bart", "t5"])
def reader(request, tokenizer):
    return SeqReader(seq_model(request.param), tokenizer, request.param)


@pytest.fixture(scope="session")
def span_reader(tokenizer):
    torch.manual_seed(2)
    return SpanReader(tower(), SpanScorer(16, 8), tokenizer, "s")


@pytest.fixture(scope="session")
def language_model(tokenizer):
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=30522,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=256,
        bos_token_id=101,
        eos_token_id=102,
        initializer_range=0.3,
    )
    return LanguageModel(GPT2LMHeadModel(config), tokenizer, "gpt2")

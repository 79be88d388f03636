"""What it saves that a causal reader keeps passages' keys and values: `python
benchmarks/passage_states.py [MODEL]`.

The same questions, several of which share passages, are answered by RAG-Sequence, RAG-Token and FiD
in one process, twice: with states kept between questions and methods, and with a budget of 0, so
that every passage is read whenever it is shown. Answers must be the same. MODEL is a causal model's
folder or hub name; without it, a random Llama of 8 layers and width 256 is made.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ragbook import methods
from ragbook.corpus import miniwiki
from ragbook.models import CausalReader, load_reader
from ragbook.retrieval import BM25Retriever

NAMES = ("rag-sequence", "rag-token", "fid")
QUESTIONS, K, MAX_LENGTH = 24, 5, 8


def random_llama(folder: Path) -> str:
    """A random Llama with the embedded encoder's tokenizer, saved into a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from ragbook.models.embedded import minilm_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    minilm_tokenizer().save_pretrained(folder)
    return str(folder)


def answer(name: str, budget: int, questions: list[Any], retriever: Any) -> tuple[float, list[str]]:
    """Seconds to answer all questions by all methods, one question after the other, and answers."""
    reader = load_reader(name, memory=budget)
    assert isinstance(reader, CausalReader)
    every = methods.load(NAMES, retriever, reader=reader, max_length=MAX_LENGTH)
    began, said = time.perf_counter(), []
    for question in questions:
        for method in every:
            said += [one.text for one in method.answer([question], K)]
    return time.perf_counter() - began, said


def main(name: str) -> None:
    """Print the seconds a question with and without kept states, and their ratio."""
    corpus = miniwiki.corpus()
    retriever = BM25Retriever(corpus)
    # Of one topic after the other, so that questions share passages as a conversation's do.
    questions = sorted(miniwiki.questions("test"), key=lambda q: q.gold_passage or "")[:QUESTIONS]
    shown = [p for found in retriever.retrieve(questions, K) for p in found.ids]
    answer(name, 0, questions[:2], retriever)  # warm
    fresh, said = answer(name, 0, questions, retriever)
    kept, again = answer(name, 2**34, questions, retriever)
    print(
        json.dumps(
            {
                "questions": len(questions),
                "k": K,
                "passages_shown": len(shown) * len(NAMES),
                "passages_different": len(set(shown)),
                "seconds_per_question": {"read each time": fresh / len(questions),
                                         "kept": kept / len(questions)},
                "ratio": fresh / kept,
                "answers_equal": said == again,
            },
            indent=1,
        )
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(random_llama(Path(folder)))

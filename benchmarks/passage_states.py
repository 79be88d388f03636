"""What it saves that a causal reader keeps passages' keys and values: `python
benchmarks/passage_states.py [MODEL]`.

The same questions, several of which share passages, are scored and answered by RAG-Sequence,
RAG-Token and FiD in one process, twice: with states kept between questions and methods, and with a
budget of 0, so that every passage is read whenever it is shown. Answers must be the same. MODEL is
a causal model's folder or hub name; without it, a random Llama of SmolLM2-135M's shape is made (30
layers, width 576).
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
QUESTIONS, K, MAX_LENGTH = 8, 5, 8


def random_llama(folder: Path) -> str:
    """A random Llama with the embedded encoder's tokenizer, saved into a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from ragbook.models.embedded import minilm_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    minilm_tokenizer().save_pretrained(folder)
    return str(folder)


def run(name: str, budget: int, questions: list[Any], retriever: Any) -> dict[str, Any]:
    """Seconds to score the first gold answers and to answer, one question after the other by all
    methods, and what was found."""
    reader = load_reader(name, memory=budget)
    assert isinstance(reader, CausalReader)
    every = methods.load(NAMES, retriever, reader=reader, max_length=MAX_LENGTH)
    reader.forget()
    began, scores, said = time.perf_counter(), [], []
    for question in questions:
        for method in every:
            scores += method.log_prob([question], [question.answers[0]], K).tolist()
    scored = time.perf_counter()
    reader.forget()
    for question in questions:
        for method in every:
            said += [one.text for one in method.answer([question], K)]
    answered = time.perf_counter()
    return {"score": scored - began, "answer": answered - scored, "scores": scores, "said": said}


def main(name: str) -> None:
    """Print the seconds a question with and without kept states, and their ratios."""
    corpus = miniwiki.corpus()
    retriever = BM25Retriever(corpus)
    # Of one topic after the other, so that questions share passages as a conversation's do.
    questions = sorted(miniwiki.questions("test"), key=lambda q: q.gold_passage or "")[:QUESTIONS]
    shown = [p for found in retriever.retrieve(questions, K) for p in found.ids]
    run(name, 0, questions[:1], retriever)  # warm
    fresh, kept = (run(name, budget, questions, retriever) for budget in (0, 2**34))
    n = len(questions)
    found = {
        "questions": n,
        "k": K,
        "passages shown": len(shown) * len(NAMES),
        "passages different": len(set(shown)),
        "answers equal": fresh["said"] == kept["said"],
        "largest difference of scores": max(
            abs(a - b) for a, b in zip(fresh["scores"], kept["scores"], strict=True)
        ),
    }
    for what in ("score", "answer"):
        found[f"seconds a question, {what}, read each time"] = fresh[what] / n
        found[f"seconds a question, {what}, kept"] = kept[what] / n
        found[f"ratio, {what}"] = fresh[what] / kept[what]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(random_llama(Path(folder)))

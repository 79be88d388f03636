"""What it saves that methods share passages' states: `python benchmarks/passage_states.py [MODEL]`.

All six methods that a causal model can have answer the same questions, several of which share
passages: once together, and once each for itself, so that a passage is read for every method that
shows it. Answers must be the same. MODEL is a reader's name or folder; without it, a random Llama
of SmolLM2-135M's shape is made (30 layers, width 576). With `--store FILE` the record is kept for
the book.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from rounds import compare, keep, options

from ragbook import methods
from ragbook.corpus import miniwiki
from ragbook.methods.remembering import remembering
from ragbook.models import CausalReader, load_reader
from ragbook.retrieval import BM25Retriever

NAMES = ("closed-book", "in-context", "knn-lm", "rag-sequence", "rag-token", "fid")
QUESTIONS, K, MAX_LENGTH = 4, 5, 8
MEMORY = 4 * 2**30


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


def main(name: str, shown: str, store: Path | None) -> None:
    """Measure both ways and print the record."""
    retriever = BM25Retriever(miniwiki.corpus())
    # Of one topic after the other, so that questions share passages as a conversation's do.
    every = sorted(miniwiki.questions("test"), key=lambda q: q.gold_passage or "")
    questions = every[:QUESTIONS]
    reader = load_reader(name, memory=MEMORY)
    assert isinstance(reader, CausalReader)
    six = methods.load(NAMES, retriever, reader=reader, max_length=MAX_LENGTH)
    said: dict[str, list[str]] = {}

    def together() -> None:
        reader.forget()
        with remembering(six):
            answers = [method.answer(questions, K) for method in six]
        said["together"] = [one.text for each in answers for one in each]

    def apart() -> None:
        answers = []
        for method in six:
            reader.forget()
            with remembering([method]):
                answers += method.answer(questions, K)
        said["apart"] = [one.text for one in answers]

    measured = compare(
        f"{shown}: {len(six)} methods answer {QUESTIONS} questions, k = {K}",
        {"every method for itself": apart, "ragbook": together},
        difference=lambda: (
            "answers that differ",
            float(sum(a != b for a, b in zip(said["apart"], said["together"], strict=True))),
            0.0,
        ),
    )
    keep(store, "shared-states", measured)


if __name__ == "__main__":
    kept, others = options()
    if others:
        main(others[0], others[0], kept)
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(random_llama(Path(folder)), "a random model", kept)

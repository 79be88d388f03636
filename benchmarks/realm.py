"""REALM compared with `transformers` 4's: the same random checkpoints, the same inputs.

`transformers` 5 has no REALM, so the benchmark needs another environment with version 4:

    python -m venv old && old/bin/pip install "transformers<4.40" "numpy<2" torch safetensors
    python benchmarks/realm.py old/bin/python

The old side makes and saves random checkpoints (two layers of width 64) and computes with them:
vectors and relevance scores, logits of hidden words, scores of all spans, and answers. This side
loads the checkpoints and computes the same. It prints the largest difference of each, and how many
answers are equal. The peer's spans may include the [SEP] after a passage; such an answer is not
text, and is counted but not compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

QUESTIONS, PASSAGES, BEAM, WIDTH = 32, 40, 5, 10
CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "retriever_proj_size": 32,
    "span_hidden_size": 48,
    "max_span_width": WIDTH,
    "initializer_range": 0.15,
    "reader_beam_size": BEAM,
    "searcher_beam_size": BEAM,
    "num_block_records": PASSAGES,
    "num_candidates": 1,
}
PARTS = ("embedder", "scorer", "encoder", "openqa")


def old_side(folder: Path) -> None:
    """Write checkpoints and their results into `folder`; this runs in the old environment."""
    import numpy as np
    import torch
    from safetensors.torch import save_file
    from transformers import (
        BertTokenizerFast,
        RealmConfig,
        RealmEmbedder,
        RealmForOpenQA,
        RealmKnowledgeAugEncoder,
        RealmRetriever,
        RealmScorer,
    )

    given = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    questions, passages, masked = given["questions"], given["passages"], given["masked"]
    tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))
    torch.manual_seed(0)
    config = RealmConfig(**CONFIG, pad_token_id=0)
    embedder, encoder = RealmEmbedder(config).eval(), RealmKnowledgeAugEncoder(config).eval()
    scorer = RealmScorer(config, query_embedder=RealmEmbedder(config)).eval()
    texts = np.array([text.encode() for _, text in passages], dtype=object)
    openqa = RealmForOpenQA(config, RealmRetriever(texts, tokenizer)).eval()
    out: dict[str, Any] = {}

    def read(*columns: list[str]) -> Any:
        return tokenizer(*columns, padding=True, return_tensors="pt")

    titles, bodies = ([p[n] for p in passages] for n in (0, 1))
    with torch.no_grad():
        shown, asked = read(titles, bodies), read(questions)
        out["passage_vectors"] = embedder(**shown).projected_score
        out["query_vectors"] = embedder(**asked).projected_score
        queries = scorer.query_embedder(**asked).projected_score
        out["relevance"] = queries @ scorer.embedder(**shown).projected_score.T
        pairs = read(masked, bodies[: len(masked)])
        logits = encoder(**pairs).logits
        hidden = pairs["input_ids"] == tokenizer.mask_token_id
        out["hidden_words"] = logits[hidden].log_softmax(-1)
        openqa.block_emb.copy_(openqa.embedder(**shown).projected_score)
        rows = read([questions[0]] * BEAM, bodies[:BEAM])
        states = openqa.reader.realm(**rows)[0]
        scores, starts, ends = openqa.reader.qa_outputs(states, rows["token_type_ids"])
        spans = torch.full((*rows["input_ids"].shape, WIDTH), float("-inf"))
        spans[:, starts, ends - starts] = scores
        out["spans"] = spans
        answers = []
        for question in questions:
            _, ids = openqa(**read([question]), return_dict=False)
            special = set(ids.tolist()) & set(tokenizer.all_special_ids)
            answers.append(None if special else ids.tolist())
    parts = dict(zip(PARTS, (embedder, scorer, encoder, openqa), strict=True))
    for name, model in parts.items():
        model.save_pretrained(folder / name, safe_serialization=True)
        tokenizer.save_pretrained(folder / name)
    save_file({k: v.contiguous() for k, v in out.items()}, str(folder / "expected.safetensors"))
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


def compare(folder: Path) -> dict[str, float]:
    """Compare this package's results with the stored ones: the largest difference of each figure,
    and the numbers of answers that are equal and that could be compared."""
    import torch
    from safetensors.torch import load_file

    from ragbook.corpus import Corpus, Passage, Question
    from ragbook.index import build_index
    from ragbook.methods.realm import Realm
    from ragbook.models.checkpoints.realm import (
        load_realm_embedder,
        load_realm_encoder,
        load_realm_open_qa,
    )
    from ragbook.retrieval import DenseRetriever

    given = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
    wanted = load_file(str(folder / "expected.safetensors"))
    corpus = Corpus("p", [Passage(str(n), *p) for n, p in enumerate(given["passages"])])
    questions = [Question(text, ()) for text in given["questions"]]
    texts = [question.text for question in questions]
    found = {}
    embedder, scorer = (load_realm_embedder(str(folder / name)) for name in PARTS[:2])
    found["passage_vectors"] = torch.from_numpy(embedder.encode_passages(list(corpus)))
    found["query_vectors"] = torch.from_numpy(embedder.encode_queries(texts))
    queries, passages = scorer.encode_queries(texts), scorer.encode_passages(list(corpus))
    found["relevance"] = torch.from_numpy(queries @ passages.T)
    reader = load_realm_encoder(str(folder / "encoder"))
    with torch.no_grad():
        inputs, inside, out = reader.states(given["masked"], corpus[: len(given["masked"])])
        states = out.last_hidden_state[reader.places(inputs, inside)]
        found["hidden_words"] = reader.head(states, reader.words).log_softmax(-1)
    encoder, spans, _ = load_realm_open_qa(str(folder / "openqa"))
    _, scores = spans.span_scores([texts[0]] * BEAM, corpus[:BEAM])
    scores[:, 0, 0] = float("-inf")
    found["spans"] = scores
    wanted["spans"] = wanted["spans"].masked_fill(~scores.isfinite(), float("-inf"))
    differences = {
        name: float((found[name] - wanted[name])[found[name].isfinite()].abs().max())
        for name in wanted
    }
    index = build_index(corpus, folder / "index", encoder, progress=False)
    retriever = DenseRetriever(index, encoder)
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    # The peer's answer is the best single span, not the best string.
    rows = [_best_span(spans, retriever, q, BEAM) for q in questions]
    comparable = [(a, b) for a, b in zip(answers, rows, strict=True) if a is not None]
    assert all(a.text for a in Realm(spans, retriever, orqa=True).answer(questions, BEAM))
    return differences | {
        "answers_compared": len(comparable),
        "answers_equal": sum(a == b for a, b in comparable),
    }


def _best_span(reader: Any, retriever: Any, question: Any, k: int) -> list[int]:
    """The tokens of the span with the highest sum of its score and its passage's relevance."""
    import torch

    (found,) = retriever.retrieve([question], k)
    inputs, scores = reader.span_scores([question.text] * k, found.passages)
    scores[:, 0, 0] = float("-inf")
    total = scores + torch.from_numpy(found.scores)[:, None, None]
    row, rest = divmod(int(total.argmax()), scores[0].numel())
    start, width = divmod(rest, scores.shape[2])
    return inputs.tensors["input_ids"][row, start : start + width + 1].tolist()


def main(python: str) -> None:
    """Run the old side with the interpreter `python`, compare and print."""
    import shutil

    from ragbook.corpus import miniwiki
    from ragbook.models.embedded import minilm_path

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passages = miniwiki.corpus()[:PASSAGES]
        masked = [f"It was seen in [MASK] by {p.title} and [MASK] [MASK]." for p in passages[:8]]
        asked = [q.text for q in miniwiki.questions("dev").head(QUESTIONS)]
        inputs = {
            "questions": asked,
            "passages": [(p.title, p.text) for p in passages],
            "masked": masked,
        }
        (folder / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
        shutil.copy(minilm_path() / "vocab.txt", folder)
        subprocess.run([python, __file__, "old", name], check=True)
        for what, value in compare(folder).items():
            print(f"{what:<18} {value:g}")


if __name__ == "__main__":
    if sys.argv[1] == "old":
        old_side(Path(sys.argv[2]))
    else:
        main(sys.argv[1])

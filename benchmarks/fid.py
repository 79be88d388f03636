"""FiD compared with a plain padded FiD that uses only `transformers`: the same random T5, the same
passages.

`python benchmarks/fid.py` draws a random T5 of t5-small's shape (6 and 6 layers of width 512, the
embedded tokenizer's 30,522 words) and answers MiniWiki's dev questions greedily from 1 to 100 of
BM25's passages, MAX_NEW tokens each. The passages have their natural lengths, at most about 100
words. The peer encodes them padded, concatenates the states and calls `generate`: `padded to 250`
is what the original code does (every passage has the maximum length), `to the longest` pads only to
the longest passage of the batch. Every measurement runs in a process of its own, which gives its
peak memory. The script prints whether answers and their log-probabilities are equal, and the times;
`python benchmarks/fid.py OUT.json` also writes them into a file, which chapter 6 plots.

`python benchmarks/fid.py --rounds` compares ragbook with the peer that pads to the longest on few
passages, where there is little padding to save: both in one process, in turn. With `--store FILE`
it keeps the comparisons as sections `fid-PASSAGES`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rounds import Difference, compare, keep, options
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging

QUESTIONS, BATCH, MAX_NEW, MAX_INPUT = 4, 2, 16, 250
COUNTS = (1, 5, 20, 50, 100)
FEW = (1, 5)
SIDES = ("padded to 250", "to the longest", "ragbook")
PAD, START, END = 0, 101, 102  # ids of the embedded tokenizer
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def model() -> Any:
    """The random T5. Its output layer is not tied to the word embeddings, because it would then
    repeat one word. It never ends an answer by itself."""
    torch.manual_seed(0)
    kind: Any = T5Config
    config = kind(
        vocab_size=30522,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=START,
    )
    built: Any = T5ForConditionalGeneration(config)
    head = nn.Linear(config.d_model, config.vocab_size)
    with torch.no_grad():
        head.weight.normal_()
        head.bias.zero_()
        head.bias[END] = -100.0
    built.lm_head = head
    return built.eval().to(DEVICE)


def retrieved(count: int) -> tuple[list[Any], list[Any]]:
    """Questions and the passages found for each."""
    from ragbook.corpus import load_corpus, load_questions
    from ragbook.retrieval import BM25Retriever

    questions = list(load_questions("miniwiki", "dev").head(QUESTIONS))
    return questions, BM25Retriever(load_corpus("miniwiki")).retrieve(questions, count)


def our_method(questions: list[Any], found: list[Any]) -> Any:
    """`ragbook`'s FiD on the random T5, over passages that are found already."""
    from ragbook.methods.fid import FiD
    from ragbook.models import SeqReader
    from ragbook.models.embedded import minilm_tokenizer
    from ragbook.models.prompts import FidLayout

    class Found:
        name, score_scale = "found", 1.0

        def retrieve(self, questions: Any, k: int) -> Any:
            return [by_text[question.text] for question in questions]

    by_text = {question.text: one for question, one in zip(questions, found, strict=True)}
    reader = SeqReader(model(), minilm_tokenizer(), "t5", FidLayout(MAX_INPUT))
    return FiD(reader, Found(), beams=1, max_length=MAX_NEW)


def ours(questions: list[Any], found: list[Any], count: int) -> dict[str, Any]:
    """The answers, their log-probabilities and the seconds of `ragbook`."""
    method = our_method(questions, found)
    reader, answers = method.reader, []
    began = time.perf_counter()
    for at in range(0, QUESTIONS, BATCH):
        for (best,) in method.generate(questions[at : at + BATCH], count):
            answers.append(list(best.tokens))
    seconds = time.perf_counter() - began
    # The end token that closed a cut answer is not compared.
    scores = []
    for question, one, answer in zip(questions, found, answers, strict=True):
        memory = reader.read([question], [one.passages]).fused()
        scores.append(reader.token_log_probs(memory, torch.tensor([answer])).sum().item())
    return {"seconds": seconds, "answers": answers, "scores": scores}


@torch.no_grad()
def theirs(
    questions: list[Any], found: list[Any], padding: str, t5: Any | None = None
) -> dict[str, Any]:
    """The same from `transformers`: encode with padding, concatenate, generate."""
    from ragbook.models.embedded import minilm_tokenizer

    tokenizer, t5 = minilm_tokenizer(), t5 or model()
    answers, scores = [], []
    began = time.perf_counter()
    for at in range(0, QUESTIONS, BATCH):
        batch = list(zip(questions, found, strict=True))[at : at + BATCH]
        read = tokenizer(
            [
                f"question: {q.text} title: {p.title} context: {p.text}"
                for q, f in batch
                for p in f.passages
            ],
            truncation=True,
            max_length=MAX_INPUT,
            padding=padding,
            return_tensors="pt",
        ).to(DEVICE)
        ids, mask = read["input_ids"], read["attention_mask"]
        states = t5.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        out = t5.generate(
            encoder_outputs=BaseModelOutput(states.reshape(len(batch), -1, states.shape[-1])),
            attention_mask=mask.reshape(len(batch), -1),
            do_sample=False,
            num_beams=1,
            min_new_tokens=MAX_NEW,
            max_new_tokens=MAX_NEW + 1,
            forced_eos_token_id=END,  # closes the cut answers, as ragbook does
            return_dict_in_generate=True,
            output_logits=True,
        )
        written = out.sequences[:, 1 : MAX_NEW + 1]
        log_probs = torch.stack(out.logits[:MAX_NEW], 1).log_softmax(-1)
        chosen = log_probs.gather(-1, written[:, :, None])
        answers += written.tolist()
        scores += chosen.sum((1, 2)).tolist()
    return {"seconds": time.perf_counter() - began, "answers": answers, "scores": scores}


def side(name: str, count: int) -> None:
    """Measure one side and print the result as JSON, with its peak memory in GiB."""
    logging.set_verbosity_error()
    questions, found = retrieved(count)
    if name == "ragbook":
        results = ours(questions, found, count)
    else:
        padding = "max_length" if name == SIDES[0] else "longest"
        results = theirs(questions, found, padding)
    results["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if DEVICE == "cuda":
        results["peak"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(results))


def compare_padding(out: Path | None) -> None:
    """Run all sides with every number of passages; print the results side by side, write them."""
    rows = []
    print(
        f"{QUESTIONS} questions, {BATCH} at a time, {MAX_NEW} tokens each, {DEVICE}, "
        f"{torch.get_num_threads()} threads; seconds for all, peak memory in GiB"
    )
    header = "".join(f"{name:>24}" for name in SIDES)
    print(f"{'passages':<10}{header}{'ratios':>14}{'equal':>8}{'greatest difference':>22}")
    for count in COUNTS:
        found = {}
        for name in SIDES:
            command = [sys.executable, __file__, name, str(count)]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = json.loads(run.stdout.splitlines()[-1])
        own = found["ragbook"]
        peers = [found[name] for name in SIDES[:2]]
        cells = "".join(
            f"{one['seconds']:>14.2f} {one['peak']:>5.2f} GiB" for one in found.values()
        )
        ratios = "  ".join(f"{one['seconds'] / own['seconds']:.2f}" for one in peers)
        same = [
            sum(a == b for a, b in zip(one["answers"], own["answers"], strict=True))
            for one in peers
        ]
        gap = max(
            abs(a - b) for one in peers for a, b in zip(one["scores"], own["scores"], strict=True)
        )
        print(
            f"{count:<10}{cells}{ratios:>14}{f'{min(same)}/{QUESTIONS}':>8}{gap:>22.1e}", flush=True
        )
        rows.append({"passages": count, "equal": min(same), "greatest_difference": gap})
        for name, one in found.items():
            rows[-1][name] = {"seconds": one["seconds"], "peak_gib": one["peak"]}
    if out is not None:
        settings = {
            "questions": QUESTIONS,
            "batch": BATCH,
            "tokens": MAX_NEW,
            "device": DEVICE,
            "threads": torch.get_num_threads(),
        }
        partial = out.with_suffix(".partial")
        partial.write_text(
            json.dumps({**settings, "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )
        partial.replace(out)


def few_passages(store: Path | None) -> None:
    """Print the times on few passages, and whether the answers are the same."""
    logging.set_verbosity_error()
    t5 = model()
    for count in FEW:
        questions, found = retrieved(count)
        method, written = our_method(questions, found), {}

        def own(method=method, written=written, questions=questions, count=count) -> None:
            method.reader.pairs.forget()
            written["ragbook"] = [
                list(best.tokens)
                for at in range(0, QUESTIONS, BATCH)
                for (best,) in method.generate(questions[at : at + BATCH], count)
            ]

        def peer(written=written, questions=questions, found=found) -> None:
            written["peer"] = theirs(questions, found, "longest", t5)["answers"]

        def apart(written=written) -> Difference:
            pairs = zip(written["peer"], written["ragbook"], strict=True)
            return "answers that differ", sum(a != b for a, b in pairs), 0

        what = f"{QUESTIONS} questions, passages of each: {count}, {MAX_NEW} tokens"
        sides = {"transformers": peer, "ragbook": own}
        keep(store, f"fid-{count}", compare(what, sides, ["transformers"], apart))


if __name__ == "__main__":
    kept, arguments = options()
    if arguments == ["--rounds"]:
        few_passages(kept)
    elif kept:
        sys.exit("--store keeps what --rounds measures: give both.")
    elif len(arguments) == 2:
        side(arguments[0], int(arguments[1]))
    else:
        compare_padding(Path(arguments[0]) if arguments else None)

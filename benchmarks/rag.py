"""RAG compared with `transformers`' RAG: one random checkpoint, the same documents, in one run.

`python benchmarks/rag.py` saves a random RAG checkpoint with a generator of BART-base's shape (6
and 6 layers of width 768, 50,265 words), reads 5 MiniWiki passages with each of 8 questions and
decodes with 4 beams. Each side runs in a process of its own, which gives its peak memory. The
script prints whether the losses, the answers and their scores are equal, the times, and their
ratio.

The inputs are cut to one length, about 100 words and the question, because the peer's RAG-Sequence
attends to padding when it generates, so that its answers are right only without padding. With the
argument `padded` the peer gets inputs as its own retriever makes them, padded to 300 tokens.

`python benchmarks/rag.py --rounds` compares both in one process, in turn, with a smaller generator
(SMALL) and fewer questions: decoding, the loss, and the loss with its gradients by the generator's
parameters and the scores. A name after it (`sequence`, `token`, `loss`) selects what is compared.
With `--store FILE` it keeps the comparisons as sections `rag-...`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rounds import Difference, compare, keep, options
from torch.nn import functional
from transformers import BartConfig, DPRConfig, RagConfig, RagSequenceForGeneration
from transformers import RagTokenForGeneration as HFRagToken
from transformers.utils import logging

QUESTIONS, N_DOCS, BEAMS, MAX_LENGTH = 8, 5, 4, 16
CUT, PADDED = 160, 300
PAD, START, END = 1, 101, 102  # ids of the embedded tokenizer, except PAD: with 0 the peer pads
# with END
SIDES = ("transformers", "ragbook")
BASE = {"width": 768, "words": 50265}
SMALL = {"width": 384, "words": 30522}  # both of about half BART-base's size
FEW = 2
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def checkpoint(folder: Path, width: int, words: int) -> None:
    """Save a random RAG checkpoint with `transformers`. Some of its answers end at once, others
    have the maximum length."""
    torch.manual_seed(0)
    generator = BartConfig(
        vocab_size=words,
        encoder_layers=6,
        decoder_layers=6,
        d_model=width,
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
        decoder_start_token_id=START,
        forced_eos_token_id=None,
        init_std=0.06,
        tie_word_embeddings=False,  # a random model with tied embeddings repeats one token
    )
    encoder = DPRConfig(num_hidden_layers=1, hidden_size=48, num_attention_heads=2)
    config = RagConfig.from_question_encoder_generator_configs(encoder, generator, n_docs=N_DOCS)
    config.pad_token_id, config.bos_token_id = PAD, None
    model: Any = RagSequenceForGeneration(config)
    with torch.no_grad():
        model.rag.generator.lm_head.weight *= 3.0  # less uniform distributions
        model.rag.generator.final_logits_bias[0, END] = 14.0
    model.save_pretrained(folder)


def documents(count: int = QUESTIONS) -> tuple[list[Any], list[Any], torch.Tensor]:
    """Questions, the passages retrieved for each, and their scores [B, n]."""
    from ragbook.corpus import load_corpus, load_questions
    from ragbook.retrieval import BM25Retriever

    questions = list(load_questions("miniwiki", "dev").head(count))
    found = BM25Retriever(load_corpus("miniwiki")).retrieve(questions, N_DOCS)
    long = [
        replace(f, passages=tuple(replace(p, text=4 * f"{p.text} ") for p in f.passages))
        for f in found
    ]
    return questions, long, torch.tensor([f.scores.tolist() for f in found])


def layout(tokenizer: Any, questions: Any, passages: Any) -> Any:
    """Inputs that are all cut to the same length."""
    from ragbook.models.prompts import pair

    return pair(tokenizer, questions, passages, max_input=CUT)


def our_methods(generator: Any, found: list[Any]) -> dict[str, Any]:
    """Both models of `ragbook`, over passages that are found already."""
    from ragbook.methods.rag import RagSequence, RagToken
    from ragbook.models import SeqReader
    from ragbook.models.embedded import minilm_tokenizer

    class Found:
        name, score_scale = "found", 1.0

        def retrieve(self, questions: Any, k: int) -> Any:
            return found

    reader = SeqReader(generator, minilm_tokenizer(), "bart", layout)
    return {
        "sequence": RagSequence(reader, Found(), BEAMS, MAX_LENGTH, length_penalty=0.0),
        "token": RagToken(reader, Found(), BEAMS, MAX_LENGTH, length_penalty=0.0),
    }


def ours(folder: Path) -> dict[str, Any]:
    """The times, answers and scores of `ragbook`."""
    questions, found, _ = documents()
    model: Any = RagSequenceForGeneration.from_pretrained(folder)
    answers = [q.answers[0] for q in questions]
    results: dict[str, Any] = {}
    for name, method in our_methods(model.rag.generator.to(DEVICE), found).items():
        method.reader.pairs.forget()
        began = time.perf_counter()
        candidates = method.generate(questions, N_DOCS, 1)
        seconds = time.perf_counter() - began
        method.reader.pairs.forget()
        began = time.perf_counter()
        losses = (-method.log_prob(questions, answers, N_DOCS)).tolist()
        results[name] = {
            "seconds": seconds,
            "loss seconds": time.perf_counter() - began,
            "answers": [[*c[0].tokens] for c in candidates],
            "scores": [c[0].log_prob for c in candidates],
            "losses": losses,
        }
    return results


def peer_inputs(
    questions: list[Any], found: list[Any], scores: torch.Tensor, width: int
) -> tuple[dict[str, Any], torch.Tensor]:
    """What `transformers` is given, in inputs of `width` tokens, and the first answers' labels."""
    from ragbook.models.embedded import minilm_tokenizer

    tokenizer = minilm_tokenizer()
    rows = [(q.text, p) for q, f in zip(questions, found, strict=True) for p in f.passages]
    read = layout(tokenizer, [q for q, _ in rows], [p for _, p in rows])
    assert read.mask.all()
    room = (0, width - CUT)
    given: dict[str, Any] = {
        "context_input_ids": functional.pad(read.tensors["input_ids"], room, value=PAD).to(DEVICE),
        "context_attention_mask": functional.pad(read.mask, room).to(DEVICE),
        "doc_scores": scores.to(DEVICE),
    }
    ids = tokenizer([q.answers[0] for q in questions], add_special_tokens=False)["input_ids"]
    labels = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([START, *one, END]) for one in ids], batch_first=True, padding_value=PAD
    ).to(DEVICE)
    return given, labels


def peer_answers(model: Any, given: dict[str, Any]) -> torch.Tensor:
    """The best answers of `transformers`, with their start and end tokens."""
    return model.generate(
        **given,
        num_beams=BEAMS,
        num_return_sequences=1,
        min_length=2,  # no empty answers
        max_length=MAX_LENGTH + 2,  # with the start and end tokens
        length_penalty=0.0,
        forced_eos_token_id=END,  # closes answers that have not ended, as ragbook does
    )


def without_special(generated: torch.Tensor) -> list[list[int]]:
    """The answers' own tokens."""
    return [[t for t in row if t not in (PAD, START, END)] for row in generated.tolist()]


def theirs(folder: Path, width: int) -> dict[str, Any]:
    """The same from `transformers`, with inputs of `width` tokens."""
    given, labels = peer_inputs(*documents(), width)
    results: dict[str, Any] = {}
    for name, kind in (("sequence", RagSequenceForGeneration), ("token", HFRagToken)):
        model: Any = kind.from_pretrained(folder)
        model = model.eval().to(DEVICE)
        began = time.perf_counter()
        generated = peer_answers(model, given)
        seconds = time.perf_counter() - began
        with torch.no_grad():
            began = time.perf_counter()
            losses = model(**given, labels=labels, reduce_loss=False).loss.tolist()
            loss_seconds = time.perf_counter() - began
            chosen = model(**given, labels=generated, reduce_loss=False).loss
        results[name] = {
            "seconds": seconds,
            "loss seconds": loss_seconds,
            "answers": without_special(generated),
            "scores": (-chosen).tolist(),
            "losses": losses,
        }
    return results


def rounds(folder: Path, wanted: str, store: Path | None) -> None:
    """Both sides in turn, with their results compared."""
    from ragbook.training.rag import marginal_log_likelihood

    logging.set_verbosity_error()
    checkpoint(folder, **SMALL)
    questions, found, scores = documents(FEW)
    passages = [list(one.passages) for one in found]
    answers = [q.answers[0] for q in questions]
    for name, kind in (("sequence", RagSequenceForGeneration), ("token", HFRagToken)):
        model: Any = kind.from_pretrained(folder)
        model = model.eval().to(DEVICE)
        copy: Any = RagSequenceForGeneration.from_pretrained(folder)
        method = our_methods(copy.rag.generator.to(DEVICE), found)[name]
        reader = method.reader
        results: dict[str, Any] = {"peer": None, "own": None}

        # Both sides begin with texts.
        def peer_decoding(model=model, results=results) -> None:
            given, _ = peer_inputs(questions, found, scores, CUT)
            results["peer"] = without_special(peer_answers(model, given))

        def own_decoding(method=method, results=results) -> None:
            method.reader.pairs.forget()
            best = method.generate(questions, N_DOCS, 1)
            results["own"] = [list(candidates[0].tokens) for candidates in best]

        @torch.no_grad()
        def peer_loss(model=model, results=results) -> None:
            given, labels = peer_inputs(questions, found, scores, CUT)
            results["peer"] = [model(**given, labels=labels, reduce_loss=False).loss]

        def own_loss(method=method, results=results) -> None:
            method.reader.pairs.forget()
            results["own"] = [-method.log_prob(questions, answers, N_DOCS)]

        def peer_gradient(model=model, results=results) -> None:
            given, labels = peer_inputs(questions, found, scores, CUT)
            prior = scores.to(DEVICE).requires_grad_()
            model.zero_grad()
            loss = model(**{**given, "doc_scores": prior}, labels=labels, reduce_loss=True).loss
            loss.backward()
            results["peer"] = [prior.grad, *gradients(model.rag.generator)]

        def own_gradient(name=name, reader=reader, results=results) -> None:
            prior = scores.to(DEVICE).requires_grad_()
            reader.model.zero_grad()
            log_prior = prior.log_softmax(-1)
            found = marginal_log_likelihood(f"rag-{name}", reader, questions, passages, log_prior)
            (-found.sum()).backward()
            results["own"] = [prior.grad, *gradients(reader.model)]

        def other_answers(results=results) -> Difference:
            pairs = zip(results["peer"], results["own"], strict=True)
            return "answers that differ", sum(a != b for a, b in pairs), 0

        def apart(results=results) -> Difference:
            one, other = (torch.cat([*map(torch.flatten, r)]) for r in results.values())
            return "relative difference", ((one - other).norm() / one.norm()).item(), 1e-4

        for what, key, peer, own, difference in (
            ("decoding", name, peer_decoding, own_decoding, other_answers),
            ("loss", "loss", peer_loss, own_loss, apart),
            ("gradients", "loss", peer_gradient, own_gradient, apart),
        ):
            if wanted not in ("", key):
                continue
            of = f"{FEW} questions, {N_DOCS} documents of {CUT} tokens"
            sides = {SIDES[0]: peer, SIDES[1]: own}
            measured = compare(f"RAG-{name} {what}, {of}", sides, ["transformers"], difference)
            keep(store, f"rag-{name}-{what}", measured)


def gradients(model: Any) -> list[torch.Tensor]:
    """The gradients of a generator's parameters, in order."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def side(name: str, folder: Path, width: int) -> None:
    """Measure one side and print the result as JSON, with its peak memory."""
    logging.set_verbosity_error()
    results = ours(folder) if name == "ragbook" else theirs(folder, width)
    results["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if DEVICE == "cuda":
        results["peak"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(results))


def main() -> None:
    """Run both sides on one checkpoint and print the results side by side."""
    store, arguments = options()
    if arguments[:1] == ["--rounds"]:
        with tempfile.TemporaryDirectory() as folder:
            rounds(Path(folder), "".join(arguments[1:]), store)
        return
    if store:
        sys.exit("--store keeps what --rounds measures: give both.")
    if len(arguments) == 3:
        side(arguments[0], Path(arguments[1]), int(arguments[2]))
        return
    width = PADDED if arguments == ["padded"] else CUT
    measured: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder), **BASE)
        for name in SIDES:
            command = [sys.executable, __file__, name, folder, str(width)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            measured[name] = json.loads(out.splitlines()[-1])
    peer, own = (measured[name] for name in SIDES)
    print(
        f"{QUESTIONS} questions, {N_DOCS} documents of {CUT} tokens (the peer's {width}), "
        f"{BEAMS} beams, {DEVICE}, seconds"
    )
    print(f"{'':<26}{SIDES[0]:>14}{SIDES[1]:>10}{'ratio':>8}")
    for kind in ("sequence", "token"):
        for what, key in ((f"RAG-{kind} decoding", "seconds"), ("  loss", "loss seconds")):
            a, b = peer[kind][key], own[kind][key]
            print(f"{what:<26}{a:>14.2f}{b:>10.2f}{a / b:>8.1f}")
        same = sum(a == b for a, b in zip(peer[kind]["answers"], own[kind]["answers"], strict=True))
        for key in ("scores", "losses"):
            pairs = zip(peer[kind][key], own[kind][key], strict=True)
            print(f"  greatest difference of {key}: {max(abs(a - b) for a, b in pairs):.1e}")
        lengths = [len(answer) for answer in own[kind]["answers"]]
        print(f"  equal answers: {same} of {QUESTIONS}, {min(lengths)} to {max(lengths)} tokens")
    print(f"{'peak memory, GiB':<26}{peer['peak']:>14.2f}{own['peak']:>10.2f}")


if __name__ == "__main__":
    main()

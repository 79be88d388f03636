"""What chapter 11 says of stored comparisons in a caption, in its prose and in its summary."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from ragbook.evaluation.statistics import ALPHA, holm, paired_test
from ragbook.evaluation.words import check_claim
from ragbook.methods import rag

BOOK = Path(__file__).resolve().parents[2] / "book"
TEXT = " ".join((BOOK / "11-one-pretrained-model.py").read_text(encoding="utf-8").split())
TEXT = TEXT.replace(" # ", " ")
READ = ("in-context", "rag-sequence", "rag-token", "fid")


def stored(name):
    return json.loads((BOOK / "results" / f"smollm2-{name}.json").read_text(encoding="utf-8"))


def right(name):
    """By method, whether each question was answered rightly."""
    path = BOOK / "results" / f"smollm2-{name}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return {
        method: [float(line["methods"][method]["em"]) for line in lines]
        for method in lines[0]["methods"]
    }


def test_what_the_adapter_improves():
    assert (
        "On the first 200 the adapter improves the four methods that read passages; for kNN-LM and "
        "the closed-book reader no improvement is significant." in TEXT
    )
    assert "(n = 200)" in TEXT
    assert "(n = 600)" in TEXT
    before, after = right("few-shot"), right("reading")
    assert {len(scores) for scores in before.values()} == {200}
    assert {len(scores) for scores in after.values()} == {600}
    tests = {name: paired_test(after[name][:200], before[name]) for name in before}
    p = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    for name in tests:
        improved = p[name] < ALPHA and tests[name].difference > 0
        assert improved == (name in READ), name


@pytest.mark.parametrize("name", ["few-shot", "reading"])
def test_passages_are_needed_and_caches_read_apart_keep_up(name):
    assert "A small pretrained model needs passages" in TEXT
    assert "whose keys were moved, no difference was significant" in TEXT
    found = stored(name)
    for method in READ:
        check_claim(found, f"{method} > closed-book")
    check_claim(found, "knn-lm ~ closed-book")
    check_claim(found, "in-context ~ fid")


def test_summing_probabilities_answers_more():
    assert "With the adapter, both RAGs, which sum probabilities instead, answer more" in TEXT
    for method in ("rag-sequence", "rag-token"):
        for other in ("in-context", "fid"):
            check_claim(stored("reading"), f"{method} > {other}")


def test_the_toy_is_worked_out_rightly():
    """The two results that the text works out by hand are the package's."""
    given = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).log()
    prior = torch.tensor([[0.5, 0.5]]).log()
    for function, said in (
        (rag.sequence_log_prob, "0.5 · 0.09 + 0.5 · 0.09 = 0.09"),
        (rag.token_log_prob, "(0.5 · 0.9 + 0.5 · 0.1)² = 0.25"),
    ):
        assert said in TEXT
        found = function(given, prior, torch.ones(1, 2)).exp().item()
        assert found == pytest.approx(float(said.rpartition(" ")[2]))

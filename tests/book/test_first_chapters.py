"""What chapters 1 to 3 state by hand, beside the stored results that it is drawn from."""

import gzip
import json
import re
from pathlib import Path

import jupytext
import pytest

from ragbook import load_questions

BOOK = Path(__file__).resolve().parents[2] / "book"


def stored(name):
    return json.loads((BOOK / "results" / f"{name}.json").read_text(encoding="utf-8"))


def prose(chapter):
    """A chapter's Markdown, on one line."""
    (path,) = BOOK.glob(f"{chapter:02d}-*.py")
    cells = jupytext.read(path).cells
    return " ".join(" ".join(c.source.split()) for c in cells if c.cell_type == "markdown")


@pytest.mark.parametrize("method", ["realm", "rag-sequence", "rag-token", "fid"])
def test_questions_that_need_two_passages_are_answered_much_less_often(method):
    assert "questions that need two passages are answered much less often" in prose(1)
    kinds = {q.text: q.kind for q in load_questions("miniwiki", "test")}
    right = {"plain": [], "two-passage": [], "indirect": [], "confusable": []}
    with gzip.open(BOOK / "results" / "predictions.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            asked = json.loads(line)
            right[kinds[asked["question"]]].append(asked["methods"][method]["em"])
    share = {kind: sum(em) / len(em) for kind, em in right.items()}
    assert share["two-passage"] < 0.6 * share["plain"]


def test_the_first_figure_shows_two_retrievers_that_are_close():
    assert "on all test questions: the two retrievers are close." in (
        BOOK / "02-retrievers.py"
    ).read_text("utf-8")
    notebook = (BOOK / "02-retrievers.ipynb").read_text("utf-8")
    curves = {
        name: [float(value) for value in values.split(",")]
        for name, values in re.findall(r"line '(dense|bm25)': x \[.*?\] y \[(.*?)\]", notebook)[:2]
    }
    assert set(curves) == {"dense", "bm25"}
    assert all(abs(a - b) < 4 for a, b in zip(*curves.values(), strict=True))


def test_training_helps_the_dot_product_most():
    assert "so it has more to learn there" in prose(2)
    dpr = stored("dpr")

    def gain(similarity):
        before, after = (
            dpr[f"{state}, {similarity}"]["test"]["recall"]["5"]["mean"]
            for state in ("untrained", "cross-entropy")
        )
        return after - before

    assert gain("dot") > max(gain("cosine"), gain("l2")) > 0


def test_text_of_a_domain_that_the_model_never_read_gains_the_most():
    assert "text of a domain that the model never read gains the most" in prose(3)
    wikitext = stored("wikitext")
    never = wikitext["bundled"]["test"]["knn-lm"]["difference"]
    trained = wikitext["adapted"]["test"]["knn-lm"]["difference"]
    own = stored("language")["test"]["knn-lm"]["difference"]
    assert never < min(trained, own) < 0


def test_more_neighbours_always_helped():
    assert "It falls up to the largest number tried." in (BOOK / "03-knn-lm.py").read_text("utf-8")
    by_k = {int(k): value for k, value in stored("language")["surface"]["ks"].items()}
    assert [by_k[k] for k in sorted(by_k)] == sorted(by_k.values(), reverse=True)


def test_the_adaptive_weight_adds_little():
    """The sentence about it is printed; that one weight fits nearly everywhere is written."""
    text = (BOOK / "03-knn-lm.py").read_text(encoding="utf-8")
    assert "one weight fits nearly everywhere" in text
    low, high = stored("language")["test"]["adaptive"]["from_knn_lm"][1]
    assert -0.01 < low < high < 0.01

"""What chapters 1 to 3 state by hand, beside the stored results that it is drawn from."""

import gzip
import json
import re
from pathlib import Path

import jupytext
import numpy as np
import pytest
from experiments import two_retrievers

from ragbook import load_corpus, load_questions
from ragbook.retrieval import BM25Retriever
from ragbook.retrieval.bm25 import terms

BOOK = Path(__file__).resolve().parents[2] / "book"


def stored(name):
    return json.loads((BOOK / "results" / f"{name}.json").read_text(encoding="utf-8"))


def prose(chapter):
    """A chapter's Markdown, on one line."""
    (path,) = BOOK.glob(f"{chapter:02d}-*.py")
    cells = jupytext.read(path).cells
    return " ".join(" ".join(c.source.split()) for c in cells if c.cell_type == "markdown")


def outputs(chapter):
    """All text outputs of a chapter's notebook."""
    (path,) = BOOK.glob(f"{chapter:02d}-*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outs = [out for cell in cells for out in cell.get("outputs", [])]
    texts = [out.get("text") or out["data"].get("text/markdown", "") for out in outs]
    return "\n".join("".join(text) for text in texts)


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


def test_the_first_chapter_opens_with_what_its_search_finds():
    assert "*Which bridge was opened in 1883?*, and the passage that says so, on" in prose(1)
    titles = re.findall(r"^0\.\d{3}  (.+?): ", outputs(1), re.M)
    assert len(titles) == 5
    assert [titles[0], titles[4]] == ["Tower Bridge", "Brooklyn Bridge"]
    assert "is number 5 of the list" in outputs(1)


def test_the_second_chapter_opens_with_a_question_that_words_alone_cannot_decide():
    asked = "How deep is the Congo, the deepest river in the world?"
    assert prose(2).split("## The problem")[1].strip().startswith(f"*{asked}*")
    (question,) = [q for q in load_questions("miniwiki", "test") if q.text == asked]
    corpus = load_corpus("miniwiki")
    on_congo = [p for p in corpus if p.title == "Congo River"]
    assert "MiniWiki has three passages on the Congo River, and the second" in prose(2)
    assert len(on_congo) == 3
    assert on_congo[1].id == question.gold_passage
    assert "more than 220 metres, and no river is known to be deeper." in prose(2)
    assert "No river is known to be deeper: more than 220 metres" in on_congo[1].text
    assert all("deep" not in terms([f"{p.title} {p.text}"])[0] for p in on_congo)
    bm25 = BM25Retriever(corpus).retrieve([question], 3)[0].ids
    assert set(bm25) == {p.id for p in on_congo}
    assert bm25[0] != question.gold_passage


def test_the_short_run_does_not_lower_the_loss():
    assert "but they do not lower the loss" in prose(2)
    lines = re.findall(r"^(MiniLM|trained) +loss (\d\.\d+)$", outputs(2), re.M)
    before, after = (float(dict(lines)[name]) for name in ("MiniLM", "trained"))
    assert after >= before


def test_a_passage_in_two_dimensions_is_where_its_score_says():
    """In the plane, the first coordinate is the inner product, and no other direction of the
    passages has more variance than the second."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 8))
    query = rng.normal(size=8)
    query /= np.linalg.norm(query)
    points = two_retrievers.plane(query, vectors)
    np.testing.assert_allclose(points[:, 0], vectors @ query)
    across = vectors - np.outer(vectors @ query, query)
    widest = np.linalg.eigvalsh(np.cov(across.T, bias=True))[-1]
    assert points[:, 1].var() == pytest.approx(widest)


def test_the_picture_of_two_retrievers_shows_what_each_word_adds():
    added = {"right": [0.0, 2.0], "wrong": [1.0, 2.0]}
    points = np.array([[0.8, 0.1], [0.5, -0.2]])
    figure = two_retrievers.two_views(["deep", "river"], added, ["right", "wrong"], points)
    assert "bars 'wrong': at [0.2, 1.2, 2.2] length [1, 2, 3]" in repr(figure)
    assert "line 'right': x [0.8] y [0.1]" in repr(figure)


def test_from_a_tenth_on_one_temperature_is_best_for_every_weight():
    text = (BOOK / "03-knn-lm.py").read_text(encoding="utf-8")
    assert "From a weight of 0.1 on, τ = 10 is the best temperature, whatever the weight." in text
    surface = stored("language")["surface"]
    for lam, column in zip(surface["lams"], zip(*surface["perplexity"], strict=True), strict=True):
        if lam >= 0.1:
            assert surface["temperatures"][column.index(min(column))] == 10


def test_text_of_a_domain_that_the_model_never_read_gains_the_most():
    assert "text of a domain that the model never read gains the most" in outputs(3)
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

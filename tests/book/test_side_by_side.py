"""What chapter 7 says by hand in captions and solutions, beside the stored measurements."""

import json
from pathlib import Path

import jupytext
import pytest
from experiments.sentences import widest_errors

BOOK = Path(__file__).resolve().parents[2] / "book"
CELLS = jupytext.read(BOOK / "07-side-by-side.py").cells
READS = ("realm", "rag-sequence", "rag-token", "fid")
TABLES = ("results", "same-weights", "nq", "nq-same-weights")


def stored(name):
    return json.loads((BOOK / "results" / f"{name}.json").read_text(encoding="utf-8"))


def said():
    captions = (c.metadata.get("mystnb", {}).get("figure", {}).get("caption", "") for c in CELLS)
    text = " ".join([*(c.source for c in CELLS if c.cell_type == "markdown"), *captions])
    return " ".join(text.split())


def shares(results, kind):
    n = results["questions"]["n"]
    return [results["methods"][name]["errors"][kind] / n for name in READS]


def spread(values):
    return max(values) - min(values)


@pytest.mark.parametrize("table", TABLES)
def test_the_wrong_passage_is_what_separates_the_four(table):
    assert "what separates the four is mostly which passage they believe" in said()
    results = stored(table)
    assert widest_errors(results, READS)["kind"] == "other passage"
    assert "in all four comparisons: answers from another passage" in said()
    others = [k for k in results["methods"]["fid"]["errors"] if k not in ("exact", "other-passage")]
    widest = max(spread(shares(results, kind)) for kind in others)
    assert spread(shares(results, "other-passage")) > 1.5 * widest


def test_the_four_find_and_read_the_gold_passage_alike():
    assert "miss the gold passage equally often and read it about equally well" in said()
    results = stored("results")
    assert spread(shares(results, "not-retrieved")) < 0.002
    assert spread(shares(results, "same-passage")) < 0.025


def test_answers_cut_short_are_rare_on_the_test_questions():
    assert "On the test questions this is rare" in said()
    for results in map(stored, ("results", "same-weights")):
        for entry in results["methods"].values():
            assert entry["errors"]["cut"] / results["questions"]["n"] < 0.05


def test_with_one_passage_a_method_loses_less_than_the_retriever():
    assert (
        "A method can therefore lose less than the retriever, and in the chapter's figure all do"
        in said()
    )
    one, five = (stored("sweep")[f"dense, k = {k}"] for k in (1, 5))
    lost = five["recall"]["mean"] - one["recall"]["mean"]
    for name, entry in five["methods"].items():
        assert entry["em"]["mean"] - one["methods"][name]["em"]["mean"] < lost


def test_the_toy_is_worked_out_rightly():
    """0.6 * 0.9 * 0.1 + 0.4 * 0.2 * 0.8 = 0.118 and (0.6 * 0.9 + 0.4 * 0.2)(0.6 * 0.1 + 0.4 * 0.8)
    = 0.62 * 0.38, which is about twice as much, as the text says."""
    assert "RAG-Token gives this answer about twice the probability" in said()
    assert abs(0.62 * 0.38 / 0.118 - 2) < 0.01


def test_the_first_screen_has_both_tables_and_the_results_in_words():
    first = CELLS[:3]
    assert [cell.cell_type for cell in first] == ["markdown", "code", "code"]
    assert {"stored-results", "stored-same-weights"} <= set(first[1].metadata["tags"])
    assert "return order(papers.among(results, readers), named=False)" in first[2].source
    for table in ("same", "own", "papers.of_seeds(trained)", "real"):
        assert f"four({table})" in first[2].source


def test_fid_has_the_highest_mean_nll_of_the_three_that_differ_in_one_thing():
    assert "its mean over all test questions, in table (a), is the highest of the three" in said()
    nll = {name: stored("same-weights")["methods"][name]["answer_nll"] for name in READS[1:]}
    assert max(nll, key=nll.__getitem__) == "fid"

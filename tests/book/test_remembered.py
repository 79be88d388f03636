"""What chapters ask their reader to remember, beside the stored results that it is drawn from."""

import ast
import gzip
import inspect
import json
import re
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from ragbook.evaluation.metrics import normalize_answer
from ragbook.evaluation.statistics import ALPHA, adjusted, paired_test
from ragbook.methods.base import Method

BOOK = Path(__file__).parents[2] / "book"
READS = ("realm", "rag-sequence", "rag-token", "fid")


def stored(name):
    return json.loads((BOOK / "results" / f"{name}.json").read_text(encoding="utf-8"))


def said(chapter):
    """A chapter's summary, on one line."""
    (path,) = BOOK.glob(f"{chapter:02d}-*.py")
    summary = path.read_text(encoding="utf-8").split("## What to remember")[1].split("## Exerc")[0]
    return " ".join(line.removeprefix("#") for line in summary.split("\n")).replace("  ", " ")


def told_apart(results):
    """The pairs of the four methods that read whose exact match the tests tell apart."""
    return {
        pair
        for pair, p in adjusted(results["paired"], "em").items()
        if p < ALPHA and pair <= set(READS)
    }


def test_a_memory_takes_a_quarter_off_the_perplexity_and_more_of_it_takes_more():
    assert "lowers the perplexity of the small model by about a quarter" in said(3)
    assert "the gain grows with the number of pairs stored" in said(3)
    language = stored("language")
    low, high = language["test"]["knn-lm"]["ci95"]
    assert low < -0.25 < high
    sizes = [(row["pairs"], row["perplexity"]) for row in language["growth"]]
    assert sizes == sorted(sizes, key=lambda row: (row[0], -row[1]))
    assert all(
        row["perplexity"] < language["test"]["base"]["perplexity"] for row in language["growth"]
    )


@pytest.mark.parametrize("name", ["miniwiki, the file's memory", "the file, miniwiki's memory"])
def test_a_memory_of_another_domain_helps_little_and_does_no_harm(name):
    assert "a memory of another domain helps little" in said(3)
    other, own = stored("wikitext")[name], stored("wikitext")["miniwiki, own memory"]
    assert -0.1 < other["test"]["knn-lm"]["difference"] < 0
    assert other["test"]["knn-lm"]["ci95"][1] < 0
    assert other["settings"]["lam"] < own["settings"]["lam"]


def test_the_right_answer_becomes_far_more_probable_and_rarely_the_most_probable():
    assert "makes the right answer far more probable than the model alone does" in said(3)
    assert "and rarely the most probable one" in said(3)
    methods = stored("results")["methods"]
    assert methods["knn-lm"]["answer_nll"] + 5 < methods["closed-book"]["answer_nll"]
    assert methods["knn-lm"]["ci95"]["em"][1] < 0.1


def test_pre_training_makes_up_for_damage():
    assert "sentences alone raises the damaged retriever's recall a good deal." in said(4)
    low, _ = stored("realm")["refreshed"]["gain"]["5"]["ci95"]
    assert low > 0.1


def test_salient_spans_and_a_refreshed_index_add_to_it():
    assert (
        "Salient spans and a refreshed index each add to it, here by a few points and in the "
        "paper by many." in said(4)
    )
    for run in ("stale", "random"):
        gain = stored("realm")["differences"][run]
        assert gain["ci95"][0] > 0
        assert gain["p"] < ALPHA
        assert 0.02 < gain["difference"] < 0.06
    text = (BOOK / "04-realm.py").read_text(encoding="utf-8")
    (paper,) = re.findall(r"^paper = (\{.+\})$", text, re.M)
    paper = ast.literal_eval(paper)
    for run in ("stale", "random"):
        assert paper["refreshed"] - paper[run] > 10


def test_each_further_passage_made_the_small_reader_worse_on_real_questions():
    assert "of real questions each step from one passage to ten lowered FiD's mean" in said(6)
    assert "and answers from another passage became more frequent" in said(6)
    by_k = {int(k): part for k, part in stored("order")["nq, by k"].items() if k != "n"}
    assert (min(by_k), max(by_k)) == (1, 10)
    em = [by_k[k]["em"]["fid"]["mean"] for k in sorted(by_k)]
    assert all(few > more for few, more in pairwise(em))
    wrong = [by_k[k]["fid's errors"].get("other-passage", 0) for k in sorted(by_k)]
    assert all(few < more for few, more in pairwise(wrong))


def test_ten_passages_were_better_than_one_on_miniwiki_and_twenty_worse_than_five():
    assert (
        "On MiniWiki ten passages of the dense retriever were better than one, and twenty were "
        "worse than five" in said(6)
    )
    ten, twenty = (
        stored("fid")[part]["difference"] for part in ("many and one", "twenty and five")
    )
    assert ten["ci95"][0] > 0 > twenty["ci95"][1]
    assert max(ten["p"], twenty["p"]) < ALPHA


def test_four_methods_are_close_and_three_are_far():
    assert "REALM, the two RAGs and FiD are close to each other" in said(7)
    em = {name: scores["em"] for name, scores in stored("results")["methods"].items()}
    others = em.keys() - set(READS)
    assert len(others) == 3
    spread = max(em[name] for name in READS) - min(em[name] for name in READS)
    gap = min(em[name] for name in READS) - max(em[name] for name in others)
    assert spread < 0.05 < 10 * spread < gap


def test_no_order_of_the_four_outlasts_their_training_seeds_or_their_questions():
    assert "over several training seeds none of those between the four was significant" in said(7)
    assert "most of the pairs that the tests told apart on real questions were not told" in said(7)
    trained = stored("trained")
    pairs = {frozenset((p["a"], p["b"])) for p in trained["paired"] if p["metric"] == "em"}
    assert pairs == set(map(frozenset, combinations(READS, 2)))
    assert trained["seeds"] > 1
    assert not told_apart(trained)
    real = told_apart(stored("nq"))
    assert len(real - told_apart(stored("results"))) > len(real) / 2


@pytest.mark.parametrize("name", READS)
def test_a_falsehood_is_repeated_for_about_a_quarter(name):
    assert "even beside the true one, for about a quarter of the questions" in said(8)
    repeated = stored("change")["false"]["methods"][name]["false"]
    assert repeated["ci95"][0] < 0.25 < repeated["ci95"][1]
    assert abs(repeated["mean"] - 0.25) < 0.03


def test_few_changes_are_followed():
    assert "even the best method follows fewer than half of the changes" in said(8)
    changed = stored("change")["editions"]["changed"]["methods"]
    assert max(entry["follows"]["mean"] for entry in changed.values()) < 0.5


def test_what_makes_a_method_is_the_packages_interface():
    assert "any object with `name` and `parameters`, `retriever`, `answer` and `log_prob`" in said(
        10
    )
    parts = {*inspect.get_annotations(Method), *vars(Method)}
    assert {part for part in parts if not part.startswith("_")} == {
        "name", "parameters", "retriever", "answer", "log_prob",
    }  # fmt: skip


def test_a_few_questions_decide_nothing():
    """Even three of four against none; of several hundred, a tenth fewer is a difference."""
    assert "A few questions decide nothing, whatever the means are" in said(12)
    assert paired_test([1, 1, 1, 0], [0, 0, 0, 0]).p > ALPHA
    assert paired_test([1.0] * 300, [1.0] * 270 + [0.0] * 30).p < ALPHA


def test_where_two_methods_agree_one_is_right_far_more_often():
    assert "where REALM and FiD agree, FiD is right far more often than where they differ" in said(
        12
    )
    path = BOOK / "results" / "predictions.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line)["methods"] for line in file]
    right = {True: [], False: []}
    for methods in lines:
        realm, fid = (normalize_answer(methods[name]["text"]) for name in ("realm", "fid"))
        right[realm == fid].append(methods["fid"]["em"])
    assert np.mean(right[True]) > 2 * np.mean(right[False])

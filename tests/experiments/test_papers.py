"""Claims held against stored tests, with made-up results of which every verdict is known."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from experiments import papers

from ragbook.errors import InputError
from ragbook.evaluation.words import in_words


def results(scores, chance=(), **more):
    """Methods with these scores; every p is 0.0001 but that of the pairs that could be chance."""
    pairs = [frozenset(pair) for pair in chance]
    paired = [
        {
            "a": a,
            "b": b,
            "metric": "em",
            "difference": scores[a] - scores[b],
            "ci95": [scores[a] - scores[b] - 0.02, scores[a] - scores[b] + 0.01],
            "p": 0.5 if frozenset((a, b)) in pairs else 0.0001,
        }
        for a, b in combinations(scores, 2)
    ]
    return {"methods": {name: {"em": em} for name, em in scores.items()}, "paired": paired, **more}


HERE = results(
    {"closed-book": 0.01, "realm": 0.55, "rag-sequence": 0.525, "rag-token": 0.5, "fid": 0.575},
    [("rag-sequence", "rag-token")],
)
THERE = results(
    {"realm": 0.5, "rag-sequence": 0.475, "rag-token": 0.45, "fid": 0.4},
    [("realm", "rag-sequence"), ("realm", "rag-token")],
)


def test_a_test_is_turned_round_with_its_interval():
    """Stored is realm - fid: -0.025 [-0.045, -0.015]."""
    assert papers.ahead(HERE, "realm", "fid") == "FiD ahead of REALM by 2.5 points [1.5, 4.5]"
    assert papers.ahead(HERE, "fid", "realm") == papers.ahead(HERE, "realm", "fid")
    assert papers.ahead(HERE, "rag-token", "rag-sequence") == (
        "RAG-Sequence 2.5 points [0.5, 3.5] above RAG-Token"
    )
    assert [papers.direction(HERE, *p) for p in (("fid", "realm"), ("realm", "fid"))] == [1, -1]
    assert papers.direction(HERE, "rag-sequence", "rag-token") == 0


def test_holm_decides_and_not_the_raw_value():
    """Of the six pairs, one has p = 0.01: 0.06 after Holm's correction if it is the smallest."""
    found = results({"realm": 0.5, "rag-sequence": 0.4, "rag-token": 0.3, "fid": 0.2})
    for test in found["paired"]:
        test["p"] = 0.01 if {test["a"], test["b"]} == {"realm", "fid"} else 0.9
    assert papers.direction(found, "realm", "fid") == 0
    assert papers.direction(papers.among(found, ["realm", "fid"]), "realm", "fid") == 0
    assert set(papers.among(found, ["realm", "fid"])["methods"]) == {"realm", "fid"}


def test_all_pairs_are_listed_with_a_star_for_what_is_beyond_chance():
    """Stored intervals are the difference - 0.02 and + 0.01."""
    assert papers.in_pairs(HERE, ("realm", "rag-sequence", "rag-token")) == {
        "REALM - RAG-Sequence": "+2.5 [+0.5, +3.5] *",
        "REALM - RAG-Token": "+5.0 [+3.0, +6.0] *",
        "RAG-Sequence - RAG-Token": "+2.5 [+0.5, +3.5]",
    }
    assert list(papers.in_pairs(HERE)) == [
        "REALM - RAG-Sequence", "REALM - RAG-Token", "REALM - FiD", "RAG-Sequence - RAG-Token",
        "RAG-Sequence - FiD", "RAG-Token - FiD",
    ]  # fmt: skip


def test_a_missing_test_is_said():
    with pytest.raises(InputError, match="'fid' and 'knn-lm'"):
        papers.ahead(HERE, "fid", "knn-lm")


def test_a_claim_is_borne_out_refuted_or_open():
    tables = {"here": HERE, "there": THERE, "neither": results({"realm": 0.5, "fid": 0.4})}
    found = papers.held_against(tables, ("fid", "rag-sequence"))
    assert [line.split(";")[0] for line in found] == [
        "here: as claimed",
        "there: the other way round",
    ]
    (line,) = papers.held_against({"here": HERE}, ("rag-sequence", "rag-token"))
    assert line.startswith("here: open; RAG-Sequence 2.5 points")


def test_what_turns_over():
    assert papers.turned_over(HERE, THERE) == {
        "alike": [],
        "the other way round": [
            "FiD ahead of REALM, RAG-Sequence and RAG-Token",
        ],
        "only in the first": ["REALM ahead of RAG-Sequence and RAG-Token"],
        "only in the second": ["RAG-Sequence ahead of RAG-Token"],
        "in neither": [],
    }
    same = papers.turned_over(HERE, HERE)
    assert same["in neither"] == ["RAG-Sequence and RAG-Token"]
    assert same["alike"] == [
        "FiD ahead of REALM, RAG-Sequence and RAG-Token",
        "REALM ahead of RAG-Sequence and RAG-Token",
    ]
    assert papers.turned_over(HERE, HERE, ("realm", "rag-sequence"))["alike"] == [
        "REALM ahead of RAG-Sequence"
    ]


def test_seeds_take_the_same_words():
    trained = {
        "methods": {
            n: {"em": {"mean": e["em"], "by_seed": []}} for n, e in HERE["methods"].items()
        },
        "paired": HERE["paired"],
    }
    found = papers.of_seeds(trained)
    assert in_words(found, "fid", "realm") == in_words(HERE, "fid", "realm")


BY_K = {
    1: {"methods": {"fid": {"right": "1000000000"}, "realm": {"right": "1111111111"}}},
    5: {"methods": {"fid": {"right": "1111111110"}, "realm": {"right": "1111111110"}}},
}


def test_gains_are_paired_by_question():
    fid, realm = papers.gains(BY_K, ["fid", "realm"], [(1, 5)])
    assert (fid["method"], fid["from"], fid["to"]) == ("fid", 1, 5)
    assert fid["difference"] == pytest.approx(0.8)
    assert realm["difference"] == pytest.approx(-0.1)
    assert fid["adjusted_p"] == pytest.approx(2 * fid["p"])
    assert papers.gain_in_words(fid).startswith("FiD gains 80.0 points [")
    assert papers.gain_in_words(fid).endswith("] from 1 to 5 passages")
    low, high = realm["ci95"]
    assert (low, high) == (pytest.approx(-0.3), 0)
    assert papers.gain_in_words(realm) == (
        "REALM loses 10.0 points [0.0, 30.0] from 1 to 5 passages (open)"
    )


def interval(mean, half=0.05):
    return {"mean": mean, "ci95": [mean - half, mean + half]}


def test_gaps_are_starred_where_intervals_are_apart():
    far = {"fid": interval(0.6), "rag-sequence": interval(0.4)}
    near = {"fid": interval(0.4), "rag-sequence": interval(0.4625)}
    order = {
        "nq, by k": {"n": 10, "1": {"em": far}, "5": {"em": near}},
        "nq, others": {"gold alone": near, "nearest": far, "random": near},
        "nq, short": {"whole": far, "short": near},
    }
    assert list(papers.gaps(order, "nq").values()) == [
        "+20.0 *",
        "-6.2",
        "-6.2",
        "+20.0 *",
        "-6.2",
        "+20.0 *",
        "-6.2",
    ]


def test_the_claims_table_follows_the_tests():
    both = {"fid", "rag-sequence", "rag-token"}
    by_k = {
        k: {"methods": {name: {"right": right * 20} for name in both}}
        for k, right in ((1, "10"), (5, "11"), (20, "11"))
    }
    realm = {
        "refreshed": {"gain": {"5": {"difference": 0.2, "ci95": [0.1, 0.3], "p": 0.0001}}},
        "differences": {"stale": {"difference": 0.01, "ci95": [-0.1, 0.1], "p": 0.9}},
    }
    language = {
        "test": {
            "base": {"perplexity": 400.0},
            "knn-lm": {"perplexity": 300.0, "difference": -0.25, "ci95": [-0.3, -0.2]},
        }
    }
    rows = papers.claims({"here": HERE, "there": THERE}, by_k, realm, language)
    said = {claim.split(" (")[0]: here for claim, _, here in rows}
    assert said["FiD is ahead of RAG"][0].startswith("here: as claimed; FiD ahead")
    assert said["FiD is ahead of RAG"][1].startswith("there: the other way round; RAG-Sequence")
    gained = next(here for claim, here in said.items() if claim.startswith("FiD still gains"))
    assert gained[0].startswith("FiD gains 50.0 points")
    assert gained[1] == ("FiD gains 0.0 points [0.0, 0.0] from 5 to 20 passages (open)")
    joint = next(here for claim, here in said.items() if claim.startswith("A retriever"))
    assert [line.split(": ")[1].split(";")[0] for line in joint] == ["as claimed", "open"]
    knn = next(here for claim, here in said.items() if claim.startswith("kNN-LM"))
    assert knn == ["perplexity: as claimed; 400.0 without the memory, 300.0 with it, "
                   "-25.0 [-30.0, -20.0] %"]  # fmt: skip
    closed = next(here for claim, here in said.items() if claim.startswith("Methods with"))
    assert closed == ["here: as claimed for REALM, RAG-Sequence, RAG-Token and FiD"]
    lines = papers.markdown(rows).split("\n")
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {4}


def test_the_change_of_perplexity_is_that_of_the_two_perplexities_beside_it():
    """With the stored measurement: 100 * (with / without - 1), cut off towards zero."""
    path = Path(__file__).parents[2] / "book" / "results" / "language.json"
    test = json.loads(path.read_text(encoding="utf-8"))["test"]
    ratio = test["knn-lm"]["perplexity"] / test["base"]["perplexity"]
    assert 1 + test["knn-lm"]["difference"] == pytest.approx(ratio, abs=1e-6)
    said = papers._perplexity(test)
    without, with_it = (float(x) for x in re.findall(r"(\d+\.\d) with", said))
    (change,) = re.findall(r"(-\d+\.\d) \[", said)
    assert float(change) == pytest.approx(100 * (with_it / without - 1), abs=0.15)

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage, Question
from ragbook.corpus.qrels import read_qrels, write_qrels
from ragbook.errors import InputError
from ragbook.evaluation.ranking import (
    MEASURES,
    hits,
    measure_runs,
    measured,
    parse_measures,
    qrels_of,
)
from ragbook.evaluation.statistics import bootstrap_ci, holm, paired_test
from ragbook.retrieval.runs import Ranking, read_run, write_run

NAMES = ["nDCG@3", "nDCG@10", "AP", "RR", "R@2", "P@2", "Success@1", "RR@2"]
passages = st.sampled_from("abcdefgh")
# Few scores, so that many are equal.
rankings = st.dictionaries(passages, st.sampled_from([0.0, 0.5, 1.0, -2.0]), min_size=1)
runs = st.dictionaries(st.sampled_from("123456"), rankings, min_size=1)
judgements = st.dictionaries(
    st.sampled_from("12345"), st.dictionaries(passages, st.integers(0, 3), min_size=1), min_size=1
)


def of(run: dict[str, dict[str, float]]) -> dict[str, Ranking]:
    return {
        query: Ranking(tuple(scores), np.array(list(scores.values()), np.float32))
        for query, scores in run.items()
    }


def own_measures(scores: dict[str, float], judged: dict[str, int]) -> dict[str, float]:
    """The definitions: nDCG with linear gains (Järvelin and Kekäläinen 2002, as trec_eval has it),
    average precision, reciprocal rank."""
    order = sorted(scores, key=lambda one: (scores[one], one), reverse=True)
    gains = [judged.get(one, 0) for one in order]
    ideal = sorted(judged.values(), reverse=True)
    relevant = sum(grade > 0 for grade in judged.values())

    def dcg(values: list[int], k: int) -> float:
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(values[:k], 1))

    def ndcg(k: int) -> float:
        return dcg(gains, k) / dcg(ideal, k) if dcg(ideal, k) else 0.0

    places = [rank for rank, gain in enumerate(gains, 1) if gain > 0]
    first = places[0] if places else math.inf
    return {
        "nDCG@3": ndcg(3),
        "nDCG@10": ndcg(10),
        "AP": sum(i / rank for i, rank in enumerate(places, 1)) / relevant if relevant else 0.0,
        "RR": 1 / first,
        "R@2": sum(rank <= 2 for rank in places) / relevant if relevant else 0.0,
        "P@2": sum(rank <= 2 for rank in places) / 2,
        "Success@1": float(first == 1),
        "RR@2": 1 / first if first <= 2 else 0.0,
    }


@given(runs, judgements)
@settings(max_examples=200, deadline=None)
def test_measures_are_those_of_their_definitions(run, judged):
    found = measured(of(run), judged, NAMES)
    for i, query in enumerate(judged):
        expected = own_measures(run.get(query, {}), judged[query])
        for name in NAMES:
            assert found[name][i] == pytest.approx(expected[name], abs=1e-6), (query, name)


@given(runs, judgements)
@settings(max_examples=200, deadline=None)
def test_measures_are_trec_evals_on_the_written_files(tmp_path_factory, run, judged):
    folder = tmp_path_factory.mktemp("trec")
    write_run(folder / "run.trec", of(run))
    write_qrels(folder / "qrels", judged)
    # What trec_eval makes of the files' own columns, whose order it does not trust.
    lines = [line.split() for line in (folder / "run.trec").read_text().splitlines()]
    theirs: dict[str, dict[str, float]] = {}
    for query, _, passage, _, score, _ in lines:
        theirs.setdefault(query, {})[passage] = float(score)
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut_3", "map", "recip_rank"})
    expected = evaluator.evaluate(theirs)
    found = measured(read_run(folder / "run.trec"), read_qrels(folder / "qrels"), NAMES)
    for i, query in enumerate(judged):
        for ours, name in (("nDCG@3", "ndcg_cut_3"), ("AP", "map"), ("RR", "recip_rank")):
            assert found[ours][i] == pytest.approx(expected.get(query, {}).get(name, 0.0))


def test_equal_scores_are_ordered_as_trec_eval_does():
    run = of({"q": {"a": 1.0, "b": 1.0}})
    assert measured(run, {"q": {"a": 1}}, ["RR"])["RR"].tolist() == [0.5]
    assert measured(run, {"q": {"b": 1}}, ["RR"])["RR"].tolist() == [1.0]


JUDGED = {"1": {"a": 1}, "2": {"b": 2, "c": 1}, "3": {"a": 1}, "4": {"d": 1}}
GOOD = of({"1": {"a": 2, "b": 1}, "2": {"b": 2, "c": 1}, "3": {"x": 2, "a": 1}, "9": {"a": 1}})
POOR = of({"1": {"b": 2, "a": 1}, "2": {"x": 2, "c": 1}, "3": {"x": 1}, "4": {"d": 1}})


def test_a_missing_query_counts_0_or_is_left_out():
    found = measure_runs({"good": GOOD}, ["RR"], JUDGED)
    assert found.values["RR"]["good"].tolist() == [1.0, 1.0, 0.5, 0.0]
    assert found.missing == {"good": 1}
    assert "Queries that a run lacks count 0: good lacks 1." in found.sheet().caption
    # trec_eval without -c: the mean over the queries that both have.
    found = measure_runs({"good": GOOD}, ["RR"], JUDGED, skip_missing=True)
    assert found.values["RR"]["good"].tolist() == [1.0, 1.0, 0.5]
    assert "Left out for all runs" in found.sheet().caption
    found = measure_runs({"good": GOOD, "poor": POOR}, ["RR"], JUDGED, skip_missing=True)
    assert found.values["RR"]["poor"].tolist() == [0.5, 0.5, 0.0]


def test_the_results_are_means_with_intervals_and_paired_tests():
    names = ["RR", "R@2"]
    found = measure_runs({"good": GOOD, "poor": POOR}, names, JUDGED, seed=3)
    results = found.results
    assert list(results) == ["good", "poor"]
    for run in results:
        assert list(results[run]) == names
        for name in names:
            values = found.values[name][run]
            assert results[run][name]["mean"] == pytest.approx(values.mean())
            assert results[run][name]["ci95"] == pytest.approx(list(bootstrap_ci(values, seed=3)))
    (rr, _) = found.paired
    test = paired_test(found.values["RR"]["good"], found.values["RR"]["poor"], seed=3)
    assert (rr["a"], rr["b"], rr["metric"]) == ("good", "poor", "RR")
    assert rr["difference"] == pytest.approx(test.difference)
    assert rr["ci95"] == pytest.approx(list(test.ci95))
    assert rr["p"] == rr["p_holm"] == test.p
    assert measure_runs({"good": GOOD}, names, JUDGED).paired == []


def test_p_values_are_adjusted_for_all_pairs_of_runs_on_a_measure():
    rng = np.random.default_rng(0)
    judged = {str(q): {"a": 1} for q in range(40)}
    made = {
        name: of({str(q): {"a": 1.0, "b": 2.0 * (rng.random() < share)} for q in range(40)})
        for name, share in (("x", 0.1), ("y", 0.5), ("z", 0.9))
    }
    found = measure_runs(made, ["RR", "R@1"], judged)
    for name in ("RR", "R@1"):
        tests = [test for test in found.paired if test["metric"] == name]
        assert len(tests) == 3
        assert [t["p_holm"] for t in tests] == pytest.approx(holm([t["p"] for t in tests]))
    sheet, pairs = found.sheet(), found.pairs()
    best, worst = sheet.rows[0][1], sheet.rows[2][1]
    assert (best.best, best.marks, worst.best, worst.marks) == (True, "", False, "‡")
    assert pairs is not None
    assert [(row[0].text, row[1].text) for row in pairs.rows] == [
        (pair, name) for pair in ("x − y", "x − z", "y − z") for name in ("RR", "R@1")
    ]
    assert (pairs.rows[2][2].best, pairs.rows[2][4].text) == (True, "< 0.001")
    assert measure_runs({"x": made["x"]}, ["RR"], judged).pairs() is None


CORPUS = Corpus(
    "own",
    [
        Passage("a", "Paris", "The capital of France."),
        Passage("b", "Lyon", "Not Paris."),
        Passage("c", "Rome", "Not Parisian."),
    ],
)


def test_hits_by_the_text_of_answers():
    questions = [
        Question("Which city?", ("paris",), "a", id="1"),
        Question("Which one?", ("Rome", "France"), id="2"),
        Question("Who?", (), id="3"),
    ]
    run = of({"1": {"a": 3.0, "c": 2.0, "b": 1.0, "gone": 0.0}, "2": {"gone": 2.0, "a": 1.0}})
    found = hits(run, questions, CORPUS, ["hit@1", "hit@2", "hit@3"])
    # The title does not count, and Parisian is another word.
    assert {name: values.tolist() for name, values in found.items()} == {
        "hit@1": [0.0, 0.0, 0.0],
        "hit@2": [0.0, 1.0, 0.0],
        "hit@3": [1.0, 1.0, 0.0],
    }
    # Only questions with answers are measured by text, all judged ones by judgements.
    both = measure_runs({"run": run}, ["hit@3", "RR"], qrels_of(questions), questions, CORPUS)
    assert both.values["hit@3"]["run"].tolist() == [1.0, 1.0]
    assert both.values["RR"]["run"].tolist() == [1.0]
    assert both.results["run"]["hit@3"]["mean"] == 1.0
    assert "2 queries for hit@3; 1 queries for RR" in both.sheet().caption


def test_gold_passages_are_judgements():
    questions = [
        Question("One?", ("x",), "a", id="1", also_gold=("b",)),
        Question("Two?", ("x",), "d", id="2", placed=("d-1", "d-2")),
        Question("Three?", ("x",), id="3"),
        Question("Four?", ("x",), "gone", id="4", placed=()),
    ]
    assert qrels_of(questions) == {"1": {"a": 1, "b": 1}, "2": {"d-1": 1, "d-2": 1}}


def test_qrels_are_written_and_read(tmp_path):
    judged = {"q 1": {"a b": 0, "c": -1}, "q2": {"a": 3}}
    for name in ("qrels.txt", "qrels.txt.gz"):
        write_qrels(tmp_path / name, judged)
        assert read_qrels(tmp_path / name) == judged
    assert (tmp_path / "qrels.txt").read_text() == "q%201 0 a%20b 0\nq%201 0 c -1\nq2 0 a 3\n"


def test_qrels_of_beir_are_read(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_text("query-id\tcorpus-id\tscore\n1\t31715818\t1\n3\t14717500\t2\n")
    assert read_qrels(path) == {"1": {"31715818": 1}, "3": {"14717500": 2}}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1 0 a\n", "line 1: 3 columns"),
        ("query-id corpus-id score\n1 0 a 1\n", "line 2: 4 columns"),
        ("1 0 a 1.5\n", "line 1: the grade '1.5'"),
        ("1 0 a yes\n", "line 1: the grade 'yes'"),
        ("1 0 a 999999999\n", "no whole number of at most 10,000"),
        ("1 0 a 1\n2 0 a 1\n1 0 a 1\n", "line 3: the passage 'a' is judged a second time"),
        ("", "holds no judgement"),
    ],
)
def test_malformed_qrels_are_refused(tmp_path, lines, said):
    path = tmp_path / "qrels"
    path.write_text(lines)
    with pytest.raises(InputError, match=f"qrels.*{said}"):
        read_qrels(path)


def test_names_of_measures():
    assert parse_measures("nDCG@10, R@100,MRR,P(rel=2)@5,RR, hit@20") == [
        "nDCG@10",
        "R@100",
        "RR",
        "P(rel=2)@5",
        "hit@20",
    ]
    assert parse_measures(",".join(MEASURES)) == list(MEASURES)


@pytest.mark.parametrize("name", ["ndgc@10", "nDCG@", "R", "hit@0", "NumRet", "", "P(x=1)@5"])
def test_no_such_measure(name):
    with pytest.raises(InputError, match="There is no measure"):
        parse_measures(f"RR,{name}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (({}, ["RR"], JUDGED), "nothing to measure"),
        (({"good": GOOD}, ["RR"]), "RR needs judgements"),
        (({"good": GOOD}, ["hit@5"], JUDGED), "hit@5 needs questions with answers"),
        (({"good": GOOD}, ["RR"], {"x": {"a": 1}}), "has none of the 1 queries, such as 'x'"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        measure_runs(*arguments)

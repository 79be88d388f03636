"""Rankings measured by relevance judgements (qrels), as trec_eval does: recall, reciprocal rank,
nDCG, average precision and the other measures of `ir_measures`, each with its interval.

A query that a run lacks counts 0, as a system that found nothing found nothing (trec_eval's `-c`;
without that option trec_eval leaves such queries out of the mean, and so does `skip_missing` here).
Queries without judgements are not measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Protocol

import numpy as np

from ragbook.corpus import Passage, Question
from ragbook.corpus.answers import has_answer
from ragbook.corpus.qrels import Qrels
from ragbook.errors import InputError
from ragbook.evaluation.sheets import Cell, Sheet
from ragbook.evaluation.statistics import (
    ALPHA,
    bootstrap_intervals,
    cut_off,
    holm,
    paired_tests,
)
from ragbook.retrieval.runs import Ranked, ranking

MEASURES = ("nDCG@10", "RR", "AP", "R@5", "R@20", "R@100")
"""What is measured where nothing else is asked for."""
HITS = ("hit@5", "hit@20", "hit@100")
"""And where the questions' answers are known."""
DIFFERING = "‡"
_HIT = re.compile(r"hit@([1-9][0-9]{0,8})")


class Passages(Protocol):
    """What is needed of a corpus here."""

    def get(self, passage_id: str) -> Passage:
        """The passage with this id; KeyError if there is none."""
        ...


def qrels_of(questions: Iterable[Question]) -> Qrels:
    """The questions' gold passages as judgements, each of grade 1. Questions without a known gold
    passage have none. The questions have ids (`QuestionSet.numbered`)."""
    return {
        question.id: dict.fromkeys(question.gold_passages, 1)
        for question in questions
        if question.id is not None and question.gold_passages
    }


def parse_measures(text: str) -> list[str]:
    """The names of measures that a list with commas holds, such as ``"nDCG@10, R@100, hit@5"``, as
    `ir_measures` writes them.

    Raises
    ------
    InputError: there is no such measure.
    """
    names = [name.strip() for name in re.split(r",(?![^(]*\))", text)]
    return list(
        dict.fromkeys(name if _HIT.fullmatch(name) else str(_measure(name)) for name in names)
    )


def _measure(name: str) -> Any:
    """The measure of `ir_measures` with that name."""
    import ir_measures

    try:
        measure = ir_measures.parse_measure(name)
        if _providers().supports(measure) and not name.startswith("Num"):  # no shares, but counts
            return measure
    except Exception:  # it lets through whatever its parser and its checks raise
        pass
    raise InputError(
        f"There is no measure {name!r}; name some of ir_measures, such as nDCG@10, R@100, P@5, "
        "RR, AP or Success@5, or hit@5 for passages that hold an answer."
    )


def _providers() -> Any:
    """What computes measures: trec_eval's own code, and Python; no other program is started."""
    import ir_measures
    from ir_measures.providers import FallbackProvider

    return FallbackProvider(
        [ir_measures.pytrec_eval, ir_measures.compat, ir_measures.judged, ir_measures.msmarco]
    )


def is_hit_measure(name: str) -> bool:
    """Whether it is `hit@k`, by the text of answers, and needs no judgements."""
    return _HIT.fullmatch(name) is not None


def measured(
    run: Mapping[str, Ranked], qrels: Mapping[str, Mapping[str, int]], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Each measure of a run on every query of the qrels, in their order: float64 [queries]. A query
    that the run lacks has the measure's value for an empty ranking, 0.

    Raises
    ------
    InputError: there is no such measure.
    """
    measures = {name: _measure(name) for name in names}
    # The ranks as scores: all providers then see the same order of equal scores.
    ranks = {
        query: {one: float(-rank) for rank, one in enumerate(ranking(run[query]).ids)}
        for query in qrels
        if query in run and len(run[query].ids)
    }
    at = {query: i for i, query in enumerate(qrels)}
    judged = {query: dict(grades) for query, grades in qrels.items()}
    values = {measure: np.zeros(len(at)) for measure in measures.values()}
    for metric in _providers().iter_calc(list(values), judged, ranks):
        values[metric.measure][at[metric.query_id]] = metric.value
    return {name: values[measure] for name, measure in measures.items()}


def hits(
    run: Mapping[str, Ranked], questions: Sequence[Question], corpus: Passages, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """For every `hit@k` and question 1.0 if the text of one of the first k passages holds one of
    its answers (Karpukhin et al. 2020, section 5; titles do not count), else 0.0: float64
    [questions]. The questions have ids; passages that the corpus lacks hold nothing."""
    first = np.array([_first_hit(run, question, corpus) for question in questions])
    return {name: (first < int(name.removeprefix("hit@"))).astype(float) for name in names}


def _first_hit(run: Mapping[str, Ranked], question: Question, corpus: Passages) -> float:
    """The place, from 0, of the first passage of the question's ranking that holds an answer."""
    found = run.get(question.id or "")
    for place, passage in enumerate(() if found is None else ranking(found).ids):
        try:
            if has_answer(corpus.get(passage).text, question.answers):
                return place
        except KeyError:
            pass
    return np.inf


@dataclass(frozen=True)
class Measured:
    """Runs, measured on the same queries.

    Attributes
    ----------
    values: for each measure and run one value a query, float64 [n].
    missing: how many of the measured queries each run lacks.
    skipped: whether queries that a run lacks were left out, for all runs.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    missing: Mapping[str, int]
    skipped: bool = False
    seed: int = 0

    @cached_property
    def results(self) -> dict[str, dict[str, dict[str, Any]]]:
        """For each run and measure the `mean` and its 95 % bootstrap interval `ci95`."""
        out: dict[str, dict[str, dict[str, Any]]] = {run: {} for run in self.missing}
        for names, runs, table in self._tables():
            bounds = iter(bootstrap_intervals(table, seed=self.seed).tolist())
            for name in names:
                for run in runs:
                    mean = float(self.values[name][run].mean())
                    out[run][name] = {"mean": mean, "ci95": next(bounds)}
        return {run: {name: own[name] for name in self.values} for run, own in out.items()}

    @cached_property
    def paired(self) -> list[dict[str, Any]]:
        """Every two runs on every measure: the mean `difference` a - b with its interval `ci95`,
        the p-value `p` of the paired randomization test, and `p_holm`, adjusted for all pairs of
        runs on that measure."""
        out: list[dict[str, Any]] = []
        for names, runs, table in self._tables():
            pairs = list(combinations(range(len(runs)), 2))
            if not pairs:
                continue
            of_run = table.reshape(len(table), len(names), len(runs))
            differences = np.stack(
                [of_run[:, i, a] - of_run[:, i, b] for i in range(len(names)) for a, b in pairs], 1
            )
            tests = iter(paired_tests(differences, seed=self.seed))
            for name in names:
                own = [next(tests) for _ in pairs]
                for (a, b), test, p in zip(pairs, own, holm([t.p for t in own]), strict=True):
                    out.append(
                        {
                            "a": runs[a],
                            "b": runs[b],
                            "metric": name,
                            "difference": test.difference,
                            "ci95": list(test.ci95),
                            "p": test.p,
                            "p_holm": p,
                        }
                    )
        return out

    def _tables(self) -> list[tuple[list[str], list[str], np.ndarray]]:
        """The measures with equally many queries, the runs, and the values [n, measures x runs]:
        one resampling serves all of them."""
        by_length: dict[int, list[str]] = {}
        for name, own in self.values.items():
            by_length.setdefault(len(next(iter(own.values()))), []).append(name)
        runs = list(self.missing)
        return [
            (names, runs, np.stack([self.values[n][r] for n in names for r in runs], axis=1))
            for names in by_length.values()
        ]

    def sheet(self, names: Sequence[str] | None = None) -> Sheet:
        """The runs as rows, the measures, or those of them that are named, as columns."""
        names = list(self.values) if names is None else names
        best = {name: max(own[name]["mean"] for own in self.results.values()) for name in names}
        differing = {
            (pair, test["metric"])
            for test in self.paired
            if test["p_holm"] < ALPHA
            for pair in ((test["a"], test["b"]), (test["b"], test["a"]))
        }
        rows = []
        for run, own in self.results.items():
            cells = [Cell(run)]
            for name in names:
                mean, (low, high) = own[name]["mean"], own[name]["ci95"]
                worse = (
                    ((run, other), name) in differing and theirs[name]["mean"] == best[name]
                    for other, theirs in self.results.items()
                )
                cells.append(
                    Cell(
                        cut_off(mean),
                        f"{cut_off(low)}–{cut_off(high)}",
                        DIFFERING if any(worse) else "",
                        len(self.results) > 1 and mean == best[name],
                    )
                )
            rows.append(cells)
        return Sheet(["run", *names], rows, self._caption(names))

    def pairs(self) -> Sheet | None:
        """Every two runs on each measure, a row each; None for a single run."""
        if not self.paired:
            return None
        tests = {(t["a"], t["b"], t["metric"]): t for t in self.paired}
        rows = []
        for a, b in dict.fromkeys((a, b) for a, b, _ in tests):
            for name in self.values:
                test = tests[a, b, name]
                low, high = (cut_off(bound, "+") for bound in test["ci95"])
                p = test["p_holm"]
                rows.append(
                    [
                        Cell(f"{a} − {b}"),
                        Cell(name),
                        Cell(cut_off(test["difference"], "+"), best=p < ALPHA),
                        Cell(f"{low} to {high}"),
                        Cell("< 0.001" if p < 0.001 else f"{p:.3f}", best=p < ALPHA),
                    ]
                )
        caption = (
            "Differences in percentage points, their 95% bootstrap intervals, and p of a paired "
            "randomization test, Holm-adjusted for all pairs of runs on a measure; below 0.05 in "
            "bold."
        )
        return Sheet(["runs", "measure", "difference", "95% interval", "p"], rows, caption)

    def _caption(self, names: Sequence[str]) -> str:
        sizes: dict[int, list[str]] = {}
        for name in names:
            sizes.setdefault(len(next(iter(self.values[name].values()))), []).append(name)
        each = [f"{n:,} queries for {', '.join(own)}" for n, own in sizes.items()]
        told = f"{'; '.join(each)}." if len(sizes) > 1 else f"{next(iter(sizes)):,} queries."
        lacking = [f"{run} lacks {n:,}" for run, n in self.missing.items() if n]
        if lacking and self.skipped:
            told += f" Left out for all runs, as not every run has them: {', '.join(lacking)}."
        elif lacking:
            told += f" Queries that a run lacks count 0: {', '.join(lacking)}."
        if any(map(is_hit_measure, names)):
            told += " hit@k: one of the first k passages holds an answer in its text."
        told += " Scores in %, rounded down, 95% bootstrap intervals below."
        if self.paired:
            told += (
                f" The best in bold; {DIFFERING} differs from the best (p < 0.05 in a paired "
                "randomization test, Holm-adjusted for all pairs of runs)."
            )
        return told


def measure_runs(
    runs: Mapping[str, Mapping[str, Ranked]],
    names: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]] | None = None,
    questions: Sequence[Question] = (),
    corpus: Passages | None = None,
    skip_missing: bool = False,
    seed: int = 0,
) -> Measured:
    """Measure runs on the same queries.

    Parameters
    ----------
    names: measures, as `parse_measures` gives them.
    qrels: the judgements, for all measures but `hit@k`.
    questions, corpus: for `hit@k`, which counts the questions that have answers.
    skip_missing: leave out the queries that one of the runs lacks, as trec_eval does without `-c`,
        and do not count them as 0.
    seed: of the bootstrap and of the randomization test.

    Raises
    ------
    InputError: there is no run, no such measure, what a measure needs is missing, or no run has any
        of the queries.
    """
    if not runs or not names:
        raise InputError("There is nothing to measure; name at least one run and one measure.")
    by_text = [name for name in names if is_hit_measure(name)]
    judged = [name for name in names if name not in by_text]
    asked = [q for q in questions if q.answers and q.id is not None] if by_text else []
    if judged and not qrels:
        raise InputError(
            f"{judged[0]} needs judgements; name a qrels file, or questions with gold passages."
        )
    if by_text and (not asked or corpus is None):
        raise InputError(
            f"{by_text[0]} needs questions with answers and the corpus; name both, or leave it out."
        )
    qrels = dict(qrels or {}) if judged else {}
    queries = dict.fromkeys([*qrels, *(q.id for q in asked if q.id is not None)])
    missing = {name: sum(not _has(run, q) for q in queries) for name, run in runs.items()}
    for name, lacking in missing.items():
        if lacking == len(queries):
            raise InputError(
                f"The run {name!r} has none of the {len(queries):,} queries, such as "
                f"{next(iter(queries))!r}; its first is {next(iter(runs[name]), '')!r}: name the "
                "judgements or questions that belong to it."
            )
    if skip_missing:
        there = {query for query in queries if all(_has(run, query) for run in runs.values())}
        qrels = {query: own for query, own in qrels.items() if query in there}
        asked = [question for question in asked if question.id in there]
        if (judged and not qrels) or (by_text and not asked):
            raise InputError("There is no query that all runs have; count those they lack as 0.")
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    for run_name, run in runs.items():
        own = measured(run, qrels, judged) if judged else {}
        if by_text and corpus is not None:
            own |= hits(run, asked, corpus, by_text)
        for name, values in own.items():
            found[name][run_name] = values
    return Measured(found, missing, skip_missing, seed)


def _has(run: Mapping[str, Ranked], query: str) -> bool:
    return query in run and len(run[query].ids) > 0

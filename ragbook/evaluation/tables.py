"""``results.json`` as tables: Markdown, LaTeX, HTML, and on the terminal.

All four render one :class:`~ragbook.evaluation.sheets.Sheet`. Seconds a question vary from run to
run; if a table is compared with an earlier one (a notebook's output), leave them out with
``timing=False``.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ragbook.evaluation.errors import LABELS, MEANINGS
from ragbook.evaluation.names import measures
from ragbook.evaluation.sheets import Cell, Sheet
from ragbook.evaluation.statistics import ALPHA, adjusted, cut_off

if TYPE_CHECKING:
    from rich.table import Table

BASELINE = "closed-book"
FROM_BASELINE, FROM_BEST = "†", "‡"
_SCORES = {"em": "EM", "f1": "F1", "contains": "contains"}
LEAVE_ONE_OUT = "leave one out"
_BRACKETS = "[{}, {}]"

Results = Mapping[str, Any]


def markdown(results: Results, timing: bool = True) -> str:
    """A Markdown table with its caption below."""
    return _sheet(results, timing).markdown()


def latex(results: Results, timing: bool = True) -> str:
    """A LaTeX table environment; the document needs the package booktabs."""
    return _sheet(results, timing).latex()


def html(results: Results, timing: bool = False) -> str:
    """An HTML table with its caption."""
    return _sheet(results, timing).html()


def terminal(results: Results, timing: bool = True) -> "Table":
    """A rich table, its caption below. Intervals and the numbers of parameters are on lines of
    their own, so that the table fits into 80 columns."""
    header, rows = _cells(results, timing, interval="{}–{}")
    params = header.index("params")
    header.pop(params)
    for row in rows:
        row[0] = Cell(row[0].text, f"{row.pop(params).text} params")
    below = caption(results, timing).replace("in brackets", "below")
    return Sheet(header, rows, below, wrapped=["NLL", LEAVE_ONE_OUT]).terminal()


def errors(results: Results) -> Sheet | None:
    """How many of each method's answers are right, and how many wrong in which way; None for
    results that were stored before answers were sorted so."""
    methods = results["methods"]
    if not _has(results, "errors"):
        return None
    meanings = "; ".join(f"{LABELS[name]}: {meaning}" for name, meaning in MEANINGS.items())
    return Sheet(
        ["method", *LABELS.values()],
        [
            [Cell(method), *(Cell(str(scores["errors"][name])) for name in LABELS)]
            for method, scores in methods.items()
        ],
        f"Answers to {results['questions']['n']} questions, each counted where it first fits: "
        f"{meanings}.",
        wrapped=list(LABELS.values()),
    )


def caption(results: Results, timing: bool = True) -> str:
    """The questions and settings of the table, its units, and the meaning of its marks."""
    questions = results["questions"]
    marks = [f"{FROM_BEST} differs from the best of its column"]
    if BASELINE in results["methods"]:
        marks.insert(0, f"{FROM_BASELINE} differs from {BASELINE}")
    infinite = ""
    if any(scores["answer_nll"] is None for scores in results["methods"].values()):
        infinite = " (∞ where some answers have probability 0, then the mean and number of others)"
    lenient = left_out = ""
    if _has(results, "leave_one_out_accuracy"):
        left_out = (
            f"{LEAVE_ONE_OUT}, the same for all methods: how often the passage without which the "
            "answer loses most probability is the gold passage; "
        )
    if _has(results, "contains"):
        lenient = "contains: a gold answer stands in the answer as whole words; "
    sentences = [
        f"{questions['name']} ({questions['split']}), {questions['n']} questions, "
        f"k = {results['k']}, seed {results['seed']}.",
        "Scores in %, cut off and never rounded up, 95% bootstrap intervals in brackets, the best "
        f"in bold; {lenient}evidence: how often the passage relied on most is the gold passage; "
        f"{left_out}NLL in nats an answer{infinite}{'; seconds a question' if timing else ''}.",
    ]
    read = [n for n, s in results["methods"].items() if s["evidence_accuracy"] is not None]
    # What was stored before answers were sorted by their errors has another RAG-Token's evidence.
    if read and _has(results, "errors"):
        sentences.append(
            "Evidence is a measure of each method's own, and can be compared between methods with "
            f"the same: {measures(read)}."
        )
    held = {scores.get("verbatim") for scores in results["methods"].values()} - {None}
    if len(held) == 1:
        words = "runs of words of the passages" if held.pop() else "written freely"
        sentences.append(f"Generated answers are {words}.")
    if lost := results.get("gold_missing"):
        sentences.append(
            f"The gold passages of {lost} questions are not among the passages; for these, recall "
            "counts passages that hold an answer, and evidence is not counted."
        )
    if results["paired"]:
        sentences.append(
            f"{', '.join(marks)} (p < 0.05 in a paired permutation test, Holm-adjusted for all "
            "pairs of methods)."
        )
    return " ".join(sentences)


def _sheet(results: Results, timing: bool) -> Sheet:
    return Sheet(*_cells(results, timing), caption(results, timing))


def _cells(
    results: Results, timing: bool, interval: str = _BRACKETS
) -> tuple[list[str], list[list[Cell]]]:
    """The header and, for each method, one cell a column; `interval` formats two numbers."""
    methods = results["methods"]
    scores = {
        heading: _score_column(results, metric, interval)
        for metric, heading in _SCORES.items()
        if _has(results, metric)
    }
    left_out: dict[str, Callable[[str], Cell]] = {}
    if _has(results, "leave_one_out_accuracy"):
        left_out[LEAVE_ONE_OUT] = lambda name: Cell(
            _percent(methods[name]["leave_one_out_accuracy"])
        )
    columns: dict[str, Callable[[str], Cell]] = {
        "method": Cell,
        "params": lambda name: Cell(_count(methods[name]["parameters"])),
        **scores,
        f"recall@{results['k']}": lambda name: Cell(_percent(methods[name]["recall_at_k"])),
        "evidence": lambda name: Cell(_percent(methods[name]["evidence_accuracy"])),
        **left_out,
        "NLL": lambda name: _nll(methods[name]),
    }
    if timing:
        columns["seconds"] = lambda name: Cell(f"{methods[name]['seconds_per_question']:.3f}")
    return list(columns), [[cell(name) for cell in columns.values()] for name in methods]


def _score_column(results: Results, metric: str, interval: str) -> Callable[[str], Cell]:
    """The column of a score, with intervals and marks: a cell for each method's name."""
    methods = results["methods"]
    best = max(methods, key=lambda name: methods[name][metric])
    differing = {pair for pair, p in adjusted(results["paired"], metric).items() if p < ALPHA}

    def cell(name: str) -> Cell:
        low, high = methods[name]["ci95"][metric]
        marks = [
            mark
            for mark, other in ((FROM_BASELINE, BASELINE), (FROM_BEST, best))
            if frozenset((name, other)) in differing
        ]
        return Cell(
            _percent(methods[name][metric]),
            interval.format(_percent(low), _percent(high)),
            "".join(marks),
            methods[name][metric] == methods[best][metric],
        )

    return cell


def _has(results: Results, metric: str) -> bool:
    """Whether every method has it, which a comparison that was stored before may lack."""
    return all(metric in scores for scores in results["methods"].values())


def _percent(share: float | None) -> str:
    return "–" if share is None else cut_off(share)


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}M" if parameters >= 100_000 else f"{parameters:,}"


def _nll(scores: Mapping[str, Any]) -> Cell:
    if scores["answer_nll"] is not None:
        return Cell(f"{scores['answer_nll']:.2f}")
    # Some answers have probability 0, so the mean is infinite; show that of the others as well.
    mean, n = scores["answer_nll_finite"], scores["answer_nll_finite_n"]
    return Cell("∞", f"({mean:.2f} on {n})" if n else "")

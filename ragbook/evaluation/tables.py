"""``results.json`` as tables: Markdown, LaTeX, HTML, and on the terminal.

All four render one :class:`~ragbook.evaluation.sheets.Sheet`. Seconds a question vary from run to
run; if a table is compared with an earlier one (a notebook's output), leave them out with
``timing=False``.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ragbook.evaluation.errors import LABELS, MEANINGS
from ragbook.evaluation.lines import scored_number
from ragbook.evaluation.names import capital, listed, measures
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
    return Sheet(header, rows, below, wrapped=["NLL", _left_out_heading(results)]).terminal()


def errors(results: Results) -> Sheet | None:
    """How many of each method's answers are right, and how many wrong in which way; None for
    results that were stored before answers were sorted so, and where no answer is known."""
    methods, scored = results["methods"], scored_number(results)
    if not _has(results, "errors") or not scored:
        return None
    meanings = "; ".join(f"{LABELS[name]}: {meaning}" for name, meaning in MEANINGS.items())
    return Sheet(
        ["method", *LABELS.values()],
        [
            [Cell(method), *(Cell(str(scores["errors"][name])) for name in LABELS)]
            for method, scores in methods.items()
        ],
        f"Answers to {scored} questions, each counted where it first fits: {meanings}.",
        wrapped=list(LABELS.values()),
    )


def agreement(results: Results, numbered: bool = False) -> Sheet | None:
    """On how many of the questions every two methods give the same answer; None for one method, and
    for results that were stored before this was counted.

    With `numbered`, the columns are the methods' numbers and not their names, as the names of seven
    do not fit into 80 columns."""
    if not results.get("agreement"):
        return None
    names = list(results["methods"])
    share = {frozenset((pair["a"], pair["b"])): pair for pair in results["agreement"]}

    def cell(a: str, b: str) -> Cell:
        low, high = map(_percent, share[frozenset((a, b))]["ci95"])
        interval = (f"{low}–{high}") if numbered else _BRACKETS.format(low, high)
        return Cell(_percent(share[frozenset((a, b))]["share"]), interval)

    # Each pair once: below the diagonal.
    rows = [
        [
            Cell(f"{place + 1} {name}" if numbered else name),
            *(cell(name, other) for other in names[:place]),
            *(Cell("") for _ in names[place:-1]),
        ]
        for place, name in enumerate(names)
        if place or numbered
    ]
    heads = [str(place + 1) if numbered else name for place, name in enumerate(names[:-1])]
    where = "below" if numbered else "in brackets"
    return Sheet(
        ["method", *heads],
        rows,
        f"Agreement: the share of the {results['questions']['n']} questions to which two methods "
        "give the same answer, in %, rounded down; answers are compared without "
        "case, punctuation and articles, and two empty ones are the same. 95% bootstrap intervals "
        f"{where}.",
    )


def caption(results: Results, timing: bool = True) -> str:
    """The questions and settings of the table, its units, and the meaning of its marks."""
    questions, scored = results["questions"], scored_number(results)
    if not scored:
        return _caption_without_scores(results, timing)
    marks = f"{FROM_BEST} differs from the best of its column"
    if BASELINE in results["methods"]:
        marks = f"{FROM_BASELINE} differs from {BASELINE}, {marks.replace(' differs', '')}"
    columns = []
    if _has(results, "contains"):
        columns.append("contains: a gold answer is in it as whole words")
    columns.append(_evidence_meaning(results))
    if _has(results, "leave_one_out_accuracy"):
        columns.append(_left_out_meaning(results))
    infinite = ""
    if any("answer_nll_finite" in scores for scores in results["methods"].values()):
        infinite = " (∞: some have probability 0; mean and number of the others)"
    columns.append(f"NLL: nats an answer{infinite}")
    if timing:
        columns.append("seconds a question")
    sentences = [
        f"{questions['name']} ({questions['split']}), {questions['n']} questions"
        f"{_scored_part(results)}, k = {results['k']}, seed {results['seed']}.",
        "Scores in %, rounded down, 95% bootstrap intervals in brackets, the best in bold; "
        f"{'; '.join(columns)}.",
        *_of_answers(results),
    ]
    if lost := results.get("gold_missing"):
        sentences.append(
            f"The gold passages of {lost} questions are not among the passages; for these, neither "
            "recall nor evidence is counted."
        )
    if results["paired"]:
        sentences.append(
            f"{marks} (p < 0.05, paired permutation test, Holm-adjusted for all pairs)."
        )
    return " ".join(sentences)


def _left_out_meaning(results: Results) -> str:
    """What leaving one out measures, and on how many questions where these are not all."""
    numbers = _left_out_numbers(results)
    first = f" (the first {numbers.pop()} questions)" if len(numbers) == 1 else ""
    return f"{LEAVE_ONE_OUT}{first}: how often removing the gold passage costs the answer most"


def _left_out_heading(results: Results) -> str:
    """The column's heading, with the number of its questions where these are not all."""
    numbers = _left_out_numbers(results)
    return f"{LEAVE_ONE_OUT} (n = {numbers.pop()})" if len(numbers) == 1 else LEAVE_ONE_OUT


def _left_out_column(results: Results) -> Callable[[str], Cell]:
    """The column's cells, each with the number of its questions where methods differ in it."""
    methods, differ = results["methods"], len(_left_out_numbers(results)) > 1

    def cell(name: str) -> Cell:
        value = methods[name]["leave_one_out_accuracy"]
        n = methods[name].get("leave_one_out_n", results["questions"]["n"])
        return Cell(_percent(value), f"(n = {n})" if differ and value is not None else "")

    return cell


def _left_out_numbers(results: Results) -> set[int]:
    """On how many questions leaving one out was measured; none if on all by every method."""
    every = results["questions"]["n"]
    numbers = {
        scores.get("leave_one_out_n", every)
        for scores in results["methods"].values()
        if scores.get("leave_one_out_accuracy") is not None
    }
    return set() if numbers == {every} else numbers


def _scored_part(results: Results) -> str:
    """How many of the questions have scores, where these are not all."""
    n, scored = results["questions"]["n"], scored_number(results)
    return "" if scored == n else f", of which {scored} have known answers and are scored"


def _evidence_meaning(results: Results) -> str:
    """What evidence is, and what it measures for each method."""
    read = [n for n, s in results["methods"].items() if s["evidence_accuracy"] is not None]
    # What was stored before answers were sorted by their errors has another RAG-Token's evidence.
    which = ""
    if read and _has(results, "errors"):
        which = f" ({measures(read)})"
    return f"evidence: how often the gold passage has most{which}"


def _of_answers(results: Results) -> list[str]:
    """Which passages were not read, and whose words answers are."""
    sentences = []
    for name, scores in results["methods"].items():
        if left := scores.get("unread"):
            times = listed([f"{number} on {n:,}" for number, n in left.items()])
            sentences.append(
                f"Passages that {name} left out, as its prompt had no room, and on how many "
                f"questions: {times}."
            )
    held = {scores.get("verbatim") for scores in results["methods"].values()} - {None}
    if len(held) == 1:
        words = "runs of words of the passages" if held.pop() else "written freely"
        sentences.append(f"Generated answers are {words}.")
    return sentences


def _caption_without_scores(results: Results, timing: bool) -> str:
    """The caption where no answer is known."""
    questions = results["questions"]
    units = ["answered: the number of answers that are not empty"]
    if _some(results, "recall_at_k"):
        units.append(f"recall@{results['k']} in %: how often a gold passage is retrieved")
    if _some(results, "evidence_accuracy"):
        units.append(f"{_evidence_meaning(results)}, in %")
    if _some(results, "leave_one_out_accuracy"):
        units.append(f"{_left_out_meaning(results)}, in %")
    if timing:
        units.append("seconds a question")
    sentences = [
        f"{questions['name']} ({questions['split']}), {questions['n']} questions without known "
        f"answers, so that nothing is scored, k = {results['k']}, seed {results['seed']}.",
        f"{capital('; '.join(units))}.",
    ]
    return " ".join([*sentences, *_of_answers(results)])


def _sheet(results: Results, timing: bool) -> Sheet:
    return Sheet(*_cells(results, timing), caption(results, timing))


def _cells(
    results: Results, timing: bool, interval: str = _BRACKETS
) -> tuple[list[str], list[list[Cell]]]:
    """The header and, for each method, one cell a column; `interval` formats two numbers."""
    methods, scored = results["methods"], scored_number(results)
    scores = {
        heading: _score_column(results, metric, interval)
        for metric, heading in _SCORES.items()
        if _has(results, metric) and scored
    }
    if not scored:
        scores["answered"] = lambda name: Cell(f"{methods[name]['answered']:,}")
    left_out: dict[str, Callable[[str], Cell]] = {}
    if _has(results, "leave_one_out_accuracy") and (
        scored or _some(results, "leave_one_out_accuracy")
    ):
        left_out[_left_out_heading(results)] = _left_out_column(results)
    columns: dict[str, Callable[[str], Cell]] = {
        "method": Cell,
        "params": lambda name: Cell(_count(methods[name]["parameters"])),
        **scores,
    }
    if scored or _some(results, "recall_at_k"):
        recall = f"recall@{results['k']}"
        columns[recall] = lambda name: Cell(_percent(methods[name]["recall_at_k"]))
    if scored or _some(results, "evidence_accuracy"):
        columns["evidence"] = lambda name: Cell(_percent(methods[name]["evidence_accuracy"]))
    columns |= left_out
    if scored:
        columns["NLL"] = lambda name: _nll(methods[name])
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


def _some(results: Results, metric: str) -> bool:
    """Whether a method has a value of it."""
    return any(scores.get(metric) is not None for scores in results["methods"].values())


def _percent(share: float | None) -> str:
    return "–" if share is None else cut_off(share)


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}M" if parameters >= 100_000 else f"{parameters:,}"


def _nll(scores: Mapping[str, Any]) -> Cell:
    if scores["answer_nll"] is not None:
        return Cell(f"{scores['answer_nll']:.2f}")
    if "answer_nll_finite" not in scores:  # no answer is known
        return Cell("–")
    # Some answers have probability 0, so the mean is infinite; show that of the others as well.
    mean, n = scores["answer_nll_finite"], scores["answer_nll_finite_n"]
    return Cell("∞", f"({mean:.2f} on {n})" if n else "")

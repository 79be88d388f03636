"""The table in its four forms: the same numbers, intervals and marks in each."""

import copy
import io
import re
from html import escape
from html.parser import HTMLParser

import pytest
from rich.console import Console

from ragbook.evaluation import Comparison
from ragbook.evaluation.errors import NAMES
from ragbook.evaluation.tables import caption


def method(em, **changed):
    interval = [em - 0.05, em + 0.05]
    return {
        "em": em,
        "f1": em,
        "recall_at_k": 0.9,
        "answer_nll": 1.234,
        "evidence_accuracy": 0.8,
        "seconds_per_question": 0.0123,
        "contains": em,
        "ci95": {"em": interval, "f1": interval, "contains": interval},
        "parameters": 1_234_567,
    } | changed


def pair(a, b, p, metric="em"):
    return {"a": a, "b": b, "metric": metric, "difference": 0.0, "ci95": [0.0, 0.0], "p": p}


RESULTS = {
    "ragbook": "0.1.0",
    "index": None,
    "questions": {"name": "nq_dev", "split": "all", "n": 300, "sha256": ""},
    "k": 3,
    "seed": 0,
    "methods": {
        "closed-book": method(
            0.1, recall_at_k=None, evidence_accuracy=None, parameters=12_345
        ),
        "realm": method(
            0.3, answer_nll=None, answer_nll_finite=2.5, answer_nll_finite_n=200
        ),
        "fid": method(0.4),
    },
    "paired": [
        # Holm over the three: .001 * 3, .02 * 2, .04 * 1 are .003, .04, .04: all significant.
        pair("closed-book", "fid", 0.001),
        pair("realm", "fid", 0.04),
        pair("closed-book", "realm", 0.02),
        # On F1 .03 * 3 and .03 * 2 are not, though each p is below 0.05.
        pair("closed-book", "fid", 0.03, "f1"),
        pair("closed-book", "realm", 0.03, "f1"),
        pair("realm", "fid", 0.2, "f1"),
        pair("closed-book", "fid", 0.001, "contains"),
        pair("closed-book", "realm", 0.03, "contains"),
        pair("realm", "fid", 0.2, "contains"),
    ],
}  # fmt: skip
COMPARISON = Comparison(RESULTS, [])

HEADER = [
    "method", "params", "EM", "F1", "contains", "recall@3", "evidence", "NLL", "seconds",
]  # fmt: skip
ROWS = [
    ["closed-book", "12,345", "10.0 [5.0, 15.0] ‡", "10.0 [5.0, 15.0]", "10.0 [5.0, 15.0] ‡",
     "–", "–", "1.23", "0.012"],
    ["realm", "1.2M", "30.0 [25.0, 35.0] †‡", "30.0 [25.0, 35.0]", "30.0 [25.0, 35.0]",
     "90.0", "80.0", "∞ (2.50 on 200)", "0.012"],
    ["fid", "1.2M", "40.0 [35.0, 45.0] †", "40.0 [35.0, 45.0]", "40.0 [35.0, 45.0] †",
     "90.0", "80.0", "1.23", "0.012"],
]  # fmt: skip


def test_markdown():
    lines = COMPARISON.markdown().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert table[0] == HEADER
    assert table[1] == ["---"] + ["---:"] * 8
    assert [[cell.replace("**", "") for cell in row] for row in table[2:]] == ROWS
    # The best of every score is bold, its interval and marks are not.
    assert [cell for row in table[2:] for cell in row if "**" in cell] == [
        "**40.0** [35.0, 45.0] †",
        "**40.0** [35.0, 45.0]",
        "**40.0** [35.0, 45.0] †",
    ]
    assert lines[5] == ""
    assert "300 questions, k = 3" in lines[6]
    assert "† differs from closed-book, ‡ from the best" in lines[6]


def test_latex():
    text = COMPARISON.latex()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    expected = [
        " & ".join(row)
        .replace("–", "--")
        .replace("∞", r"$\infty$")
        .replace("†", r"$^{\dagger}$")
        .replace("‡", r"$^{\ddagger}$")
        + r" \\"
        for row in [HEADER, *ROWS]
    ]
    assert [re.sub(r"\\textbf{(.*?)}", r"\1", row) for row in rows] == expected
    assert text.count(r"\textbf{40.0}") == 3
    frame = [line for line in text.splitlines() if not line.endswith(r"\\")]
    assert frame.pop(3).startswith(r"\caption{nq\_dev (all), 300 questions")
    assert frame == [
        r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering",
        r"\begin{tabular}{lrrrrrrrr}", r"\toprule", r"\midrule", r"\bottomrule",
        r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    assert r"nq\_dev (all)" in text
    assert r"Scores in \%" in text
    assert text.isascii()
    # Braces and environments close.
    assert text.count("{") == text.count("}")
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_latex_escapes_names():
    results = copy.deepcopy(RESULTS)
    results["questions"]["name"] = r"a_b & c% \d ~^ #{}$"
    assert (
        r"a\_b \& c\% \textbackslash{}d \textasciitilde{}\textasciicircum{} \#\{\}\$ (all)"
        in Comparison(results, []).latex()
    )


class Cells(HTMLParser):
    """The texts of all cells, and of those in bold."""

    def __init__(self):
        super().__init__()
        self.cells: list[str] = []
        self.bold: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"td", "th", "caption"} & set(self.open):
            assert data.isspace(), data  # no text stands beside the cells
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data
            if "b" in self.open:
                self.bold.append(data)


def test_html_without_seconds():
    parser = Cells()
    parser.feed(COMPARISON._repr_html_())
    assert parser.open == []
    assert parser.cells == [cell for row in [HEADER, *ROWS] for cell in row[:-1]]
    assert parser.bold == ["40.0", "40.0", "40.0"]


def test_html_escapes_names():
    results = copy.deepcopy(RESULTS)
    results["questions"]["name"] = "<script>"
    results["methods"]["<b>"] = method(0.2)
    text = Comparison(results, [])._repr_html_()
    assert "<script>" not in text
    assert "<td>&lt;b&gt;</td>" in text


def test_the_terminal_table():
    console = Console(file=io.StringIO(), width=80)
    table = COMPARISON.table()
    assert [column.justify for column in table.columns] == ["left"] + ["right"] * 7
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert lines[0] == [name for name in HEADER if name != "params"]
    # A row is a line of values with their marks and, below it, their intervals, and the number of
    # parameters below the method.
    start = next(i for i, line in enumerate(lines) if line[0] == "closed-book")
    rows = [row[:1] + row[2:] for row in ROWS]
    values = [[re.sub(r" [\[(][^])]*[])]", "", cell) for cell in row] for row in rows]
    below = [
        [f"{row[1]} params", *(f"{a}–{b}" for a, b in re.findall(r"\[(\S+), (\S+)]", str(row)))]
        for row in ROWS
    ]
    below[1].append("(2.50 on")  # and on the third line of the row
    assert lines[start + 4] == ["200)"]
    split = [lines[start : start + 7][i] for i in (0, 2, 5, 1, 3, 6)]
    assert split == [" ".join(row).split() for row in values + below]
    assert "300 questions" in text
    assert "95% bootstrap intervals below" in " ".join(text.split())


def test_the_widest_terminal_table_fits_into_80_columns():
    """With marks, scores of 100 %, and a mean NLL of some answers."""
    results = copy.deepcopy(RESULTS)
    wide = {
        "answer_nll": None, "answer_nll_finite": 21.12, "answer_nll_finite_n": 1000,
        "recall_at_k": 1.0, "evidence_accuracy": 1.0, "parameters": 123_456_789,
    }  # fmt: skip
    best = {"ci95": {key: [0.955, 1.0] for key in ("em", "f1", "contains")}}
    results["methods"] = {"rag-sequence": method(0.4, **wide), "in-context": method(1.0, **best)}
    results["paired"] = [
        pair("rag-sequence", "in-context", 0.001, metric) for metric in ("em", "f1", "contains")
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(Comparison(results, []).table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    for whole in ("in-context", "123.5M params", "95.5–100.0 95.5–100.0 95.5–100.0", "seconds"):
        assert whole in text


def test_a_comparison_stored_before_the_lenient_score_has_its_table():
    results = copy.deepcopy(RESULTS)
    for scores in results["methods"].values():
        del scores["contains"], scores["ci95"]["contains"]
    results["paired"] = [test for test in results["paired"] if test["metric"] != "contains"]
    text = Comparison(results, []).markdown()
    assert "contains" not in text
    assert text.splitlines()[0].count("|") == 9


def test_the_caption_says_what_every_column_is():
    results = copy.deepcopy(RESULTS)
    results["methods"]["fid"]["verbatim"] = True
    assert caption(results) == (
        "nq_dev (all), 300 questions, k = 3, seed 0. "
        "Scores in %, rounded down, 95% bootstrap intervals in brackets, the best in bold; "
        "contains: a gold answer is in it as whole words; evidence: how often the gold passage has "
        "most; NLL: nats an answer (∞: some have probability 0; mean and number of the others); "
        "seconds a question. "
        "Generated answers are runs of words of the passages. "
        "† differs from closed-book, ‡ from the best of its column (p < 0.05, paired "
        "permutation test, Holm-adjusted for all pairs)."
    )
    finite = {"fid": results["methods"]["fid"]}
    assert "NLL: nats an answer." in caption(results | {"methods": finite}, timing=False)


def test_the_caption_says_which_passages_did_not_fit_into_a_prompt():
    results = copy.deepcopy(RESULTS)
    assert "left out" not in caption(results)
    results["methods"]["fid"]["unread"] = {"1": 1022, "2": 213}
    assert (
        "Passages that fid left out, as its prompt had no room, and on how many questions: 1 on "
        "1,022 and 2 on 213." in caption(results)
    )


def test_a_table_without_closed_book_explains_only_the_mark_it_has():
    results = copy.deepcopy(RESULTS)
    del results["methods"]["closed-book"]
    results["paired"] = [pair("realm", "fid", 0.01), pair("realm", "fid", 0.01, "f1")]
    text = Comparison(results, []).markdown()
    assert "†" not in text
    assert text.count("‡") == 3  # two cells and the caption


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"fid": True, "rag-token": True}, "Generated answers are runs of words of the passages."),
        ({"fid": False, "realm": None}, "Generated answers are written freely."),
        ({"fid": False, "rag-token": True}, None),
        ({"realm": None}, None),
    ],
)
def test_the_caption_says_how_answers_were_decoded(held, words):
    results = copy.deepcopy(RESULTS)
    results["methods"] = {name: method(0.4) | {"verbatim": v} for name, v in held.items()}
    results["paired"] = []
    text = Comparison(results, []).markdown()
    assert words in text if words else "Generated" not in text


def test_one_method_needs_no_marks():
    results = copy.deepcopy(RESULTS)
    results["methods"] = {"fid": method(0.4)}
    results["paired"] = []
    text = Comparison(results, []).markdown()
    assert "permutation" not in text
    assert "‡" not in text


@pytest.mark.parametrize(("a", "b"), [("closed-book", "fid"), ("fid", "closed-book")])
def test_equal_scores_are_all_bold_and_unmarked(a, b):
    results = copy.deepcopy(RESULTS)
    results["methods"] = {name: method(0.4) for name in (a, b)}
    results["paired"] = [pair(a, b, 1.0, metric) for metric in ("em", "f1", "contains")]
    lines = Comparison(results, []).markdown().splitlines()
    assert all(line.count("**40.0** [35.0, 45.0] |") == 3 for line in lines[2:4])


def test_leaving_one_out_has_a_column_where_it_was_measured():
    results = copy.deepcopy(RESULTS)
    for name, value in (("closed-book", None), ("realm", 0.25), ("fid", 0.5)):
        results["methods"][name]["leave_one_out_accuracy"] = value
    comparison = Comparison(results, [])
    table = [line.strip("|").split("|") for line in comparison.markdown().splitlines()[:5]]
    at = [cell.strip() for cell in table[0]].index("leave one out")
    assert table[0][at - 1].strip() == "evidence"
    assert [row[at].strip() for row in table[2:]] == ["–", "25.0", "50.0"]
    assert "leave one out: how often removing the gold passage" in caption(results)
    console = Console(file=io.StringIO(), width=85)
    console.print(comparison.table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "leave one out" not in COMPARISON.markdown()


def left_out(numbers):
    """Results whose methods were measured on so many of the 300 questions."""
    results = copy.deepcopy(RESULTS)
    for name, value in (("closed-book", None), ("realm", 0.25), ("fid", 0.5)):
        results["methods"][name] |= {
            "leave_one_out_accuracy": value,
            "leave_one_out_n": numbers[name],
        }
    return results


@pytest.mark.parametrize("form", ["markdown", "latex", "_repr_html_"])
def test_a_column_measured_on_fewer_questions_says_so_in_its_heading(form):
    some = left_out({"closed-book": 160, "realm": 160, "fid": 160})
    text = getattr(Comparison(some, []), form)()
    assert "leave one out (n = 160)" in text
    assert "leave one out (the first 160 questions): how often" in text
    every = left_out({"closed-book": 300, "realm": 300, "fid": 300})
    text = getattr(Comparison(every, []), form)()
    assert "leave one out" in text
    assert not re.search(r"n = \d|the first", text)


def test_the_terminal_has_that_heading_too_and_still_fits():
    some = left_out({"closed-book": 160, "realm": 160, "fid": 160})
    console = Console(file=io.StringIO(), width=85)
    console.print(Comparison(some, []).table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "160)" in text.split("closed-book")[0]


def test_methods_measured_on_different_numbers_each_have_theirs():
    mixed = left_out({"closed-book": 20, "realm": 160, "fid": 300})
    lines = Comparison(mixed, []).markdown().splitlines()
    assert "| leave one out |" in lines[0]
    assert "| 25.0 (n = 160) |" in lines[3]
    assert "| 50.0 (n = 300) |" in lines[4]
    assert "n = 20" not in lines[2]  # a closed book has nothing to leave out
    assert "the first" not in caption(mixed)


def test_the_caption_says_what_each_methods_evidence_is():
    """Methods with one measure are named together, and those without evidence not at all."""
    results = copy.deepcopy(RESULTS)
    names = [
        "closed-book",
        "knn-lm",
        "realm",
        "rag-sequence",
        "rag-token",
        "fid",
        "in-context",
        "my",
    ]
    results["methods"] = {
        name: method(
            0.4, errors={}, evidence_accuracy=None if name == "closed-book" else 0.5
        )
        for name in names
    }  # fmt: skip
    results["paired"] = []
    note = (
        "evidence: how often the gold passage has most (share of p_kNN for knn-lm; posterior "
        "p(z|x,y) for realm and rag-sequence; mean over tokens of p(z_t|x,y<=t) for rag-token; "
        "attention for fid and in-context; its own measure for my)"
    )
    comparison = Comparison(results, [])
    assert note in comparison.markdown()
    assert escape(note) in comparison._repr_html_()
    text = comparison.latex()
    assert r"share of p\_kNN for knn-lm; posterior p(z$|$x,y) for realm" in text
    for scores in results["methods"].values():  # stored before RAG-Token's was its own
        del scores["errors"]
    assert "posterior" not in comparison.markdown()


ERRORS = {
    "fid": dict(zip(NAMES, (120, 1, 20, 10, 30, 60, 50, 9), strict=True)),
    "closed-book": dict(zip(NAMES, (30, 0, 5, 5, 0, 0, 0, 260), strict=True)),
}


def test_the_table_of_errors():
    results = copy.deepcopy(RESULTS)
    results["methods"] = {name: method(0.4, errors=errors) for name, errors in ERRORS.items()}
    sheet = Comparison(results, []).errors()
    assert sheet is not None
    table, text = sheet.markdown().split("\n\n")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[0] == [
        "method", "exact", "empty", "cut", "long", "not retrieved", "same passage",
        "other passage", "not in passages",
    ]  # fmt: skip
    assert lines[2:] == [
        ["fid", "120", "1", "20", "10", "30", "60", "50", "9"],
        ["closed-book", "30", "0", "5", "5", "0", "0", "0", "260"],
    ]
    assert text.startswith("Answers to 300 questions")
    assert all(f"{name.replace('-', ' ')}: " in text for name in NAMES)
    parser = Cells()
    parser.feed(sheet._repr_html_())
    assert parser.cells == [cell for line in (lines[0], *lines[2:]) for cell in line]
    console = Console(file=io.StringIO(), width=80)
    console.print(sheet.terminal())
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in printed
    assert "closed-book 30 0 5 5 0 0 0 260" in " ".join(printed.split())


def test_a_comparison_stored_before_answers_were_sorted_has_no_such_table(tmp_path):
    assert COMPARISON.errors() is None
    COMPARISON.save(tmp_path)
    assert not (tmp_path / "errors.md").exists()

"""Questions without known answers: asked like the others, compared, and left out of all scores."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook import explorer, figures
from ragbook.corpus import Corpus, Passage, Question, QuestionSet
from ragbook.corpus.gold import placed
from ragbook.errors import InputError
from ragbook.evaluation import Comparison, bootstrap_ci, breakdown, compare
from ragbook.evaluation.errors import NAMES
from ragbook.explorer.pages import detail, index
from ragbook.methods.base import Answer, Evidence
from ragbook.retrieval import Retrieved

N = 20  # a whole batch and a part of one
PASSAGES = [Passage(f"p{i}", f"Title {i}", f"The answer is number {i}.") for i in range(N + 3)]
CORPUS = Corpus("numbers", PASSAGES)
QUESTIONS = [Question(f"Which is {i}?", (f"number {i}",), f"p{i}") for i in range(N)]


def number(question: Question) -> int:
    return int(question.text[9:-1])


class Next:
    """Finds passages i + 1, i and i + 2 for question i."""

    name, score_scale, corpus = "next", 1.0, CORPUS

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        found = []
        for i in map(number, questions):
            passages = tuple(PASSAGES[j] for j in (i + 1, i, i + 2)[:k])
            ids = tuple(passage.id for passage in passages)
            found.append(Retrieved(ids, np.zeros(len(ids), np.float32), passages))
        return found


class Method:
    """Right on every `every`-th question, silent on question 5; it knows no answers but these."""

    parameters = 1

    def __init__(self, name: str, every: int, reads: bool = True) -> None:
        self.name, self.every = name, every
        self.retriever = Next() if reads else None
        self.scored: list[str] = []

    def answer(self, questions, k=5):
        out = []
        for question in questions:
            i = number(question)
            text = f"Number {i}" if i % self.every == 0 else "number"
            weights = (Evidence(f"p{i + i % 2}", 0.75), Evidence(f"p{i + 1 - i % 2}", 0.25))
            text, evidence = "" if i == 5 else text, weights if self.retriever else ()
            out.append(Answer(question.text, text, -0.5, evidence, i / 10))
        return out

    def log_prob(self, questions, answers, k=5):
        assert len(questions) == len(answers)
        assert all(q.answers[0] == a for q, a in zip(questions, answers, strict=True))
        self.scored += [question.text for question in questions]
        return [-float(number(question)) for question in questions]


def methods() -> list[Method]:
    return [Method("closed-book", 5, reads=False), Method("rag-token", 2), Method("fid", 3)]


def without(hidden: Sequence[bool], gold: bool = True) -> QuestionSet:
    asked = [
        replace(q, answers=(), gold_passage=q.gold_passage if gold else None) if hide else q
        for q, hide in zip(QUESTIONS, hidden, strict=True)
    ]
    return QuestionSet("numbers", "dev", asked)


def compared(questions: QuestionSet, k: int = 3) -> Comparison:
    return compare(methods(), questions, k=k, seed=4)  # type: ignore[arg-type]


NOT_OF_ANSWERS = ("recall_at_k", "evidence_accuracy", "seconds_per_question", "answered")


@settings(max_examples=12)
@given(st.lists(st.booleans(), min_size=N, max_size=N).filter(lambda hidden: not all(hidden)))
def test_scores_are_those_of_the_questions_with_answers_alone(hidden):
    mixed = compared(without(hidden))
    known = [q for q, hide in zip(QUESTIONS, hidden, strict=True) if not hide]
    alone = compared(QuestionSet("numbers", "dev", known))
    whole = compared(QuestionSet("numbers", "dev", QUESTIONS))
    assert mixed.results["questions"]["n"] == N
    assert mixed.results["questions"]["scored"] == len(known)
    assert mixed.results["paired"] == alone.results["paired"]
    for name, scores in mixed.results["methods"].items():
        for metric, value in scores.items():
            other = whole if metric in NOT_OF_ANSWERS else alone
            assert value == other.results["methods"][name][metric], metric
    # Every question has its gold passage, so retrieval and agreement are those of all.
    assert mixed.results["agreement"] == whole.results["agreement"]
    assert json.dumps(mixed.results, allow_nan=False)


def test_agreement_is_the_share_of_equal_answers():
    comparison = compared(QuestionSet("numbers", "dev", QUESTIONS))
    lines, names = comparison.predictions, list(comparison.results["methods"])
    matrix = breakdown.agreement(lines, names)
    assert [(pair["a"], pair["b"]) for pair in comparison.results["agreement"]] == list(
        combinations(names, 2)
    )
    for pair in comparison.results["agreement"]:
        a, b = names.index(pair["a"]), names.index(pair["b"])
        assert pair["share"] == pytest.approx(matrix[a, b])
        same = [
            line["methods"][pair["a"]]["text"] == line["methods"][pair["b"]]["text"]
            for line in lines
        ]
        assert pair["ci95"] == pytest.approx(list(bootstrap_ci(same, seed=4)))
    # By hand: one right on even ones, the other on every third, both else say the same word.
    both = sum((i % 2 == 0) == (i % 3 == 0) for i in range(N))
    assert comparison.results["agreement"][2]["share"] == both / N == 11 / 20


def test_without_any_answer_nothing_is_scored_and_nothing_is_zero(tmp_path):
    comparison = compared(without([True] * N))
    results = comparison.results
    assert results["questions"]["scored"] == 0
    assert results["paired"] == []
    for name, scores in results["methods"].items():
        nothing = ("em", "f1", "contains", "answer_nll")
        assert [scores[metric] for metric in nothing] == [None] * 4
        assert scores["ci95"] == {"em": None, "f1": None, "contains": None}
        assert scores["errors"] == dict.fromkeys(NAMES, 0)
        assert scores["answered"] == N - 1
        assert scores["recall_at_k"] == (None if name == "closed-book" else 1.0)
        assert scores["evidence_accuracy"] == (None if name == "closed-book" else 0.5)
    for line in comparison.predictions:
        for entry in line["methods"].values():
            assert [entry[key] for key in ("em", "f1", "contains", "error")] == [None] * 4
    table = comparison.markdown()
    head = [cell.strip() for cell in table.splitlines()[0].strip("|").split("|")]
    assert head == ["method", "params", "answered", "recall@3", "evidence", "seconds"]
    assert "20 questions without known answers, so that nothing is scored" in table
    assert "| fid | 1 | 19 | 100.0 | 50.0 | 0.950 |" in table
    assert "\\begin{table}" in comparison.latex()
    assert "<table>" in comparison._repr_html_()
    assert comparison.errors() is None
    frame = comparison.frame().set_index(["method", "metric"])
    assert np.isnan(frame.loc[("fid", "em"), ["value", "low", "high"]].to_numpy(float)).all()
    comparison.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json", "predictions.jsonl", "setup.json", "table.md", "table.tex", "agreement.md",
    }  # fmt: skip
    for draw in (figures.side_by_side, figures.errors):
        with pytest.raises(InputError, match="No question"):
            draw(results)
    with pytest.raises(InputError, match="No question"):
        breakdown.right(comparison.predictions)


def test_without_gold_passages_either_there_is_no_recall():
    comparison = compared(without([True] * N, gold=False))
    assert {scores["recall_at_k"] for scores in comparison.results["methods"].values()} == {None}
    head = comparison.markdown().splitlines()[0]
    assert "recall" not in head
    assert "evidence" not in head
    hidden = [i >= 10 for i in range(N)]
    half = compared(without(hidden, gold=False), k=1)
    # Of the ten whose answer is known; the gold passage is second.
    assert half.results["methods"]["fid"]["recall_at_k"] == 0.0
    assert compared(without(hidden, gold=False)).results["methods"]["fid"]["recall_at_k"] == 1.0


def test_no_method_is_asked_how_likely_an_unknown_answer_is():
    hidden = [i % 3 == 0 or i >= 16 for i in range(N)]  # nothing of the last batch is left
    asked = methods()
    comparison = compare(asked, without(hidden))  # type: ignore[arg-type]
    known = [q.text for q, hide in zip(QUESTIONS, hidden, strict=True) if not hide]
    assert [method.scored for method in asked] == [known] * 3
    mean = sum(i for i in range(N) if not hidden[i]) / len(known)
    assert comparison.results["methods"]["fid"]["answer_nll"] == pytest.approx(mean)


def test_the_tables_say_how_many_are_scored():
    comparison = compared(without([i >= 15 for i in range(N)]))
    assert "20 questions, of which 15 have known answers and are scored, k = 3" in (
        comparison.markdown()
    )
    errors = comparison.errors()
    assert errors is not None
    assert errors.caption.startswith("Answers to 15 questions")
    assert "n = 15 of 20" in repr(figures.side_by_side(comparison.results))
    shares = repr(figures.errors(comparison.results))
    right = 100 * comparison.results["methods"]["fid"]["em"]
    assert f"length [{100 * comparison.results['methods']['closed-book']['em']:.0f}" in shares
    assert f"{right:.3f}".rstrip("0").rstrip(".") in shares


def test_the_agreement_table_has_each_pair_once():
    comparison = compared(without([True] * N))
    sheet = comparison.agreement()
    assert sheet is not None
    rows = sheet.markdown().splitlines()
    assert rows[0] == "| method | closed-book | rag-token |"
    shares = [100 * pair["share"] for pair in comparison.results["agreement"]]
    assert [row.split(" | ")[0] for row in rows[2:4]] == ["| rag-token", "| fid"]
    assert rows[2].startswith(f"| rag-token | {shares[0]:.1f} [")
    assert rows[3].startswith(f"| fid | {shares[1]:.1f} [")
    assert f"| {shares[2]:.1f} [" in rows[3]
    one = compare(methods()[:1], without([True] * N))  # type: ignore[arg-type]
    assert one.results["agreement"] == []
    assert one.agreement() is None


def test_the_explorer_shows_them_and_marks_nothing(tmp_path):
    hidden = [True] + [False] * (N - 1)
    comparison = compared(without(hidden))
    found = index(comparison.predictions)
    rows = [dict(zip(found["fields"], row, strict=True)) for row in found["rows"]]
    assert (rows[0]["right"], rows[0]["kinds"], rows[0]["answers"]) == ("---", "---", "")
    assert set("".join(row["right"] for row in rows[1:])) == {"0", "1"}
    entry = detail(comparison.predictions[0], CORPUS)["methods"]["fid"]
    assert (entry["right"], entry["f1"], entry["error"]) == (None, None, None)
    explorer.write(tmp_path, comparison.predictions, CORPUS)


def test_breakdowns_are_of_the_questions_with_answers():
    hidden = [i % 4 == 1 for i in range(N)]
    asked = without(hidden)
    lines = compared(asked).predictions
    known = [line for line, hide in zip(lines, hidden, strict=True) if not hide]
    names = list(lines[0]["methods"])
    assert breakdown.by_kind(lines, asked) == breakdown.by_kind(known, asked)
    assert breakdown.by_evidence(lines) == breakdown.by_evidence(known)
    assert breakdown.shared(lines, names) == breakdown.shared(known, names)
    assert (breakdown.kappa(lines, names) == breakdown.kappa(known, names)).all()


def test_the_gold_passages_and_the_rank_of_the_first():
    pieces = Corpus("pieces", [Passage("d-1", "D", "a"), Passage("d-2", "D", "b"), *PASSAGES])
    asked = [
        Question("Which is 3?", ("number 3",), "p3"),
        Question("Which is 4?", ("number 4",), "p9", also_gold=("p6", "p4")),
        Question("Which is 5?", ("number 5",), "d"),
        Question("Which is 6?", ("number 6",), "elsewhere"),
        Question("Which is 7?", ()),
    ]
    questions = placed(QuestionSet("q", "dev", asked), pieces)
    lines = compare([Method("fid", 2)], questions, k=3).predictions  # type: ignore[arg-type]
    assert [line["gold_passage"] for line in lines] == ["p3", "p9", "d", "elsewhere", None]
    assert [line.get("gold_passages") for line in lines] == [
        None, ["p9", "p6", "p4"], [], [], None,
    ]  # fmt: skip
    # p4 is found second and p6 third; the retriever's own corpus has no d.
    assert [line["gold_rank"] for line in lines] == [2, 2, None, None, None]
    for k, rank in ((1, None), (2, 2)):
        (line, *_) = compare([Method("fid", 2)], questions, k=k).predictions  # type: ignore[arg-type]
        assert line["gold_rank"] == rank
    closed = compare([Method("closed-book", 2, reads=False)], questions)  # type: ignore[arg-type]
    assert [line["gold_rank"] for line in closed.predictions] == [None] * 5
    assert closed.predictions[2]["gold_passages"] == ["d-1", "d-2"]

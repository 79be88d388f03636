"""The comparison: with made-up methods whose every figure can be worked out by hand."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

import ragbook
from ragbook.corpus import Corpus, Passage, Question, QuestionSet
from ragbook.corpus.gold import by_answer
from ragbook.errors import InputError
from ragbook.evaluation import Comparison, bootstrap_ci, compare, f1, paired_test
from ragbook.evaluation.compare import _evidence_accuracy
from ragbook.methods.base import Answer, Evidence, TokenEvidence
from ragbook.retrieval import Retrieved, Retriever

N = 40  # more than two batches, and no multiple of a batch
PASSAGES = [Passage(f"p{i}", f"Title {i}", f"The answer is number {i}.") for i in range(N + 5)]
QUESTIONS = QuestionSet(
    "numbers",
    "dev",
    # The last eight have no gold passage.
    [
        Question(f"What is the {i}th?", (f"number {i}", f"{i}"), f"p{i}" if i < N - 8 else None)
        for i in range(N)
    ],
)


def number(question: Question) -> int:
    return int(question.answers[1])


@dataclass
class FakeRetriever:
    """Retrieves passages i + 1, i, i + 2, ... for question i, so the gold passage is second."""

    name: str = "fake"
    score_scale: float = 1.0
    calls: list[tuple[int, int]] = field(default_factory=list)

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        self.calls.append((len(questions), k))
        found = []
        for i in map(number, questions):
            passages = tuple(PASSAGES[j] for j in (i + 1, i, i + 2, i + 3, i + 4)[:k])
            ids = tuple(passage.id for passage in passages)
            found.append(Retrieved(ids, -np.arange(len(ids), dtype=np.float32), passages))
        return found


@dataclass
class FakeMethod:
    """Right on the first `right` questions, close on the others."""

    name: str
    right: int
    retriever: Retriever | None = None
    impossible: int = 0  # that many first answers have probability 0
    parameters: int = 1_234_567

    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        answers = []
        for question in questions:
            i = number(question)
            evidence = ()
            if self.retriever is not None:
                # The gold passage is the heaviest on even questions, though never named first.
                weight = 0.75 if i % 2 == 0 else 0.25
                evidence = (Evidence(f"p{i + 1}", 1 - weight), Evidence(f"p{i}", weight))
            text = f"the Number {i}!" if i < self.right else "number unknown"
            log_prob = -math.inf if i < self.impossible else -0.5
            answers.append(Answer(question.text, text, log_prob, evidence, seconds=i / 100))
        return answers

    def log_prob(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> torch.Tensor:
        assert list(answers) == [question.answers[0] for question in questions]
        numbers = [number(question) for question in questions]
        return torch.tensor([-math.inf if i < self.impossible else -float(i) for i in numbers])


@pytest.fixture(scope="module")
def retriever() -> FakeRetriever:
    return FakeRetriever()


@pytest.fixture(scope="module")
def comparison(retriever) -> Comparison:
    methods = [
        FakeMethod("closed-book", 4),
        FakeMethod("realm", 30, retriever, impossible=3),
        FakeMethod("fid", 32, retriever),
    ]
    return compare(methods, QUESTIONS, k=3, seed=7)


def test_the_results_say_what_was_compared(comparison):
    results = comparison.results
    assert list(results) == [
        "ragbook", "index", "questions", "k", "seed", "cut_passages", "cut_words", "gold_missing",
        "methods", "paired", "agreement",
    ]  # fmt: skip
    assert results["ragbook"] == ragbook.__version__
    assert results["index"] is None
    assert results["questions"] == {
        "name": "numbers",
        "split": "dev",
        "n": N,
        "scored": N,
        "sha256": QUESTIONS.sha256,
    }
    assert (results["k"], results["seed"]) == (3, 7)
    assert list(results["methods"]) == ["closed-book", "realm", "fid"]


def test_every_figure_of_a_method_by_hand(comparison):
    fid = comparison.results["methods"]["fid"]
    assert fid["em"] == 32 / 40
    # "number unknown" shares one of two words with "number i": F1 1/2.
    assert fid["f1"] == pytest.approx((32 + 8 / 2) / 40)
    assert fid["contains"] == 32 / 40
    assert fid["recall_at_k"] == 1.0
    assert fid["answer_nll"] == pytest.approx(39 / 2)  # the mean of 0..39
    assert fid["evidence_accuracy"] == 16 / 32  # even among the 32 with a gold passage
    assert fid["seconds_per_question"] == pytest.approx(0.195)
    assert fid["parameters"] == 1_234_567
    assert "answer_nll_finite" not in fid
    em = [1.0] * 32 + [0.0] * 8
    assert fid["ci95"]["em"] == pytest.approx(list(bootstrap_ci(em, seed=7)))
    assert fid["ci95"]["f1"] == pytest.approx(list(bootstrap_ci([max(x, 0.5) for x in em], seed=7)))


def test_closed_book_has_no_retrieval_and_no_evidence(comparison):
    closed_book = comparison.results["methods"]["closed-book"]
    assert closed_book["em"] == 0.1
    assert closed_book["recall_at_k"] is None
    assert closed_book["evidence_accuracy"] is None


def test_an_impossible_answer_leaves_the_mean_of_the_others(comparison):
    realm = comparison.results["methods"]["realm"]
    assert realm["answer_nll"] is None
    assert realm["answer_nll_finite_n"] == 37
    assert realm["answer_nll_finite"] == pytest.approx(sum(range(3, 40)) / 37)


def test_when_every_answer_is_impossible_there_is_no_mean():
    results = compare([FakeMethod("realm", 0, impossible=N)], QUESTIONS).results
    realm = results["methods"]["realm"]
    assert (realm["answer_nll"], realm["answer_nll_finite"]) == (None, None)
    assert realm["answer_nll_finite_n"] == 0
    assert results["paired"] == []


def test_recall_counts_only_the_first_k():
    """The gold passage is second; without a known one the second passage holds the answer."""
    for k, recall in ((1, 0.0), (2, 1.0)):
        results = compare([FakeMethod("fid", 0, FakeRetriever())], QUESTIONS, k=k).results
        assert results["methods"]["fid"]["recall_at_k"] == recall


def test_a_shared_retriever_is_asked_once(comparison, retriever):
    assert sum(asked for asked, _ in retriever.calls) == N
    assert {k for _, k in retriever.calls} == {3}
    assert len(retriever.calls) > 1


def test_two_retrievers_are_told_apart():
    class Blind(FakeRetriever):
        def retrieve(self, questions, k):
            return [Retrieved((), np.empty(0, np.float32), ()) for _ in questions]

    methods = [FakeMethod("a", 0, FakeRetriever()), FakeMethod("b", 0, Blind())]
    found = compare(methods, QUESTIONS).results["methods"]
    assert (found["a"]["recall_at_k"], found["b"]["recall_at_k"]) == (1.0, 0.0)


def test_evidence_accuracy_needs_gold_passages():
    without = QuestionSet("q", "dev", QUESTIONS[-8:])
    results = compare([FakeMethod("fid", 0, FakeRetriever())], without).results
    assert results["methods"]["fid"]["evidence_accuracy"] is None


@dataclass
class Known(FakeRetriever):
    """A retriever whose corpus is known."""

    corpus: Corpus = field(default_factory=lambda: Corpus("known", PASSAGES))


def test_gold_of_another_corpus_is_counted_and_never_a_silent_zero():
    asked = QuestionSet("q", "dev", [replace(q, gold_passage=f"wiki:{number(q)}")
                                     for q in QUESTIONS])  # fmt: skip
    comparison = compare([FakeMethod("fid", 9, Known())], asked, k=3)
    assert comparison.results["gold_missing"] == N
    scores = comparison.results["methods"]["fid"]
    assert scores["recall_at_k"] is None
    assert scores["evidence_accuracy"] is None
    assert scores["errors"]["not-retrieved"] == 0
    assert {line["gold_passage"] for line in comparison.predictions} == (
        {f"wiki:{i}" for i in range(N)}
    )
    assert f"gold passages of {N} questions are not among" in comparison.markdown()
    some = [*asked[:3], *QUESTIONS[3:]]
    results = compare([FakeMethod("fid", 9, Known())], QuestionSet("q", "dev", some)).results
    assert results["gold_missing"] == 3
    of_others = compare([FakeMethod("fid", 9, Known())], QuestionSet("q", "dev", QUESTIONS[3:]))
    others = of_others.results["methods"]["fid"]["recall_at_k"]
    assert results["methods"]["fid"]["recall_at_k"] == others
    told = compare([FakeMethod("fid", 9, Known())], by_answer(asked), k=3).results
    assert told["gold_missing"] == 0
    assert told["methods"]["fid"]["recall_at_k"] == 1.0  # a passage holds the answer
    results = compare([FakeMethod("fid", 9, Known())], QUESTIONS).results
    assert results["gold_missing"] == 0
    assert "are not among" not in Comparison(results, []).markdown()
    results = compare([FakeMethod("fid", 9, FakeRetriever())], QUESTIONS).results
    assert results["gold_missing"] is None


def test_gold_ids_of_whole_documents_count_for_their_pieces():
    """The corpus has p0-1 .. p44-1 and p0-2; the questions name p0, p1, ...: `corpus build`."""
    cut = [replace(p, id=f"{p.id}-1") for p in PASSAGES]

    class Cut(FakeRetriever):
        corpus = Corpus("cut", [*cut, Passage("p0-2", "Title 0", "More.")])

        def retrieve(self, questions, k):
            return [
                Retrieved(tuple(f"{i}-1" for i in r.ids), r.scores,
                          tuple(replace(p, id=f"{p.id}-1") for p in r.passages))
                for r in super().retrieve(questions, k)
            ]  # fmt: skip

    class OfPieces(FakeMethod):
        def answer(self, questions, k=5):
            return [
                replace(a, evidence=tuple(replace(e, passage_id=f"{e.passage_id}-1")
                                          for e in a.evidence))
                for a in super().answer(questions, k)
            ]  # fmt: skip

    whole = compare([FakeMethod("fid", 9, FakeRetriever())], QUESTIONS, k=3).results
    pieces = compare([OfPieces("fid", 9, Cut())], QUESTIONS, k=3).results
    assert pieces["gold_missing"] == 0
    assert pieces["methods"] == whole["methods"]
    assert pieces["methods"]["fid"]["evidence_accuracy"] == 16 / 32
    unretrieved = compare([OfPieces("fid", 9, Cut())], QUESTIONS, k=1).results["methods"]["fid"]
    assert unretrieved["recall_at_k"] == 0
    assert unretrieved["errors"]["not-retrieved"] == N - 9


def test_every_pair_is_tested_on_every_score(comparison):
    paired = comparison.results["paired"]
    assert [(test["metric"], test["a"], test["b"]) for test in paired] == [
        (metric, a, b)
        for metric in ("em", "f1", "contains")
        for a, b in (("closed-book", "realm"), ("closed-book", "fid"), ("realm", "fid"))
    ]
    columns = {
        (name, metric): [line["methods"][name][metric] for line in comparison.predictions]
        for name in comparison.results["methods"]
        for metric in ("em", "f1", "contains")
    }
    for test in paired:
        expected = paired_test(
            columns[test["a"], test["metric"]], columns[test["b"], test["metric"]], seed=7
        )
        assert test["difference"] == pytest.approx(expected.difference)
        assert test["ci95"] == pytest.approx(list(expected.ci95))
        assert test["p"] == pytest.approx(expected.p)


def test_a_prediction_is_a_question_with_every_method(comparison):
    line = comparison.predictions[1]
    assert line["id"] == "2"  # its number, as its file gave it none
    assert list(line) == [
        "id", "question", "answers", "gold_passage", "gold_rank", "retrieved", "methods",
    ]  # fmt: skip
    assert line["gold_rank"] == 2
    assert line["retrieved"] == [
        {"passage_id": "p2", "score": 0.0},
        {"passage_id": "p1", "score": -1.0},
        {"passage_id": "p3", "score": -2.0},
    ]
    assert line["question"] == "What is the 1th?"
    assert line["answers"] == ["number 1", "1"]
    assert line["gold_passage"] == "p1"
    assert line["methods"]["fid"] == {
        "text": "the Number 1!",
        "log_prob": -0.5,
        "em": 1,
        "f1": 1.0,
        "contains": 1,
        "error": "exact",
        "evidence": [{"passage_id": "p2", "weight": 0.75}, {"passage_id": "p1", "weight": 0.25}],
    }
    assert line["methods"]["closed-book"]["evidence"] == []
    assert line["methods"]["realm"]["log_prob"] is None  # JSON has no infinity
    assert comparison.predictions[-1]["gold_passage"] is None


def test_the_predictions_add_up_to_the_results(comparison):
    for name, scores in comparison.results["methods"].items():
        lines = [line["methods"][name] for line in comparison.predictions]
        assert scores["em"] == sum(line["em"] for line in lines) / N
        by_hand = [
            f1(line["methods"][name]["text"], line["answers"]) for line in comparison.predictions
        ]
        assert scores["f1"] == pytest.approx(sum(by_hand) / N)


def test_an_answer_that_says_more_is_right_on_the_lenient_score_only():
    class Wordy(FakeMethod):
        def answer(self, questions, k=5):
            found = super().answer(questions, k)
            return [replace(answer, text=f"It is {answer.text}") for answer in found]

    comparison = compare([Wordy("fid", 30)], QUESTIONS, seed=2)
    fid = comparison.results["methods"]["fid"]
    assert (fid["em"], fid["contains"]) == (0, 30 / N)
    expected = bootstrap_ci([1.0] * 30 + [0.0] * 10, seed=2)
    assert fid["ci95"]["contains"] == pytest.approx(list(expected))
    assert [line["methods"]["fid"]["contains"] for line in comparison.predictions] == (
        [1] * 30 + [0] * 10
    )
    frame = comparison.frame().set_index("metric")
    assert frame.loc["contains", ["value", "low"]].tolist() == [30 / N, expected[0]]


def test_the_same_seed_gives_the_same_results(comparison):
    class Wordy(FakeMethod):
        """The longer, the further down: F1 takes many values, as it does in earnest."""

        def answer(self, questions, k=5):
            found = super().answer(questions, k)
            texts = ["number" + " x" * number(question) for question in questions]
            return [replace(a, text=text) for a, text in zip(found, texts, strict=True)]

    methods = [FakeMethod("realm", 16), Wordy("fid", 20)]
    first, again = (compare(methods, QUESTIONS, seed=3).results for _ in range(2))
    assert first == again
    others = [compare(methods, QUESTIONS, seed=seed).results for seed in range(4, 9)]
    assert any(other["paired"] != first["paired"] for other in others)
    assert any(other["methods"] != first["methods"] for other in others)


def test_wrong_answers_are_sorted_by_what_went_wrong(comparison):
    """Every passage holds "number", and none "number unknown"."""
    for name, right in (("closed-book", 4), ("realm", 30), ("fid", 32)):
        errors = comparison.results["methods"][name]["errors"]
        assert {kind: n for kind, n in errors.items() if n} == (
            {"exact": right, "not-in-passages": N - right}
        )
        assert len(errors) == 8


def test_truncated_answers_of_generative_methods_are_counted():
    class Generative(FakeMethod):
        max_length = 16

        def answer(self, questions, k=5):
            found = super().answer(questions, k)
            return [
                replace(a, truncated=number(q) < 7) for a, q in zip(found, questions, strict=True)
            ]

    found = compare([Generative("fid", 3), FakeMethod("realm", 3)], QUESTIONS).results["methods"]
    assert (found["fid"]["truncated"], found["realm"]["truncated"]) == (7, None)


def test_evidence_by_token_is_stored_with_few_digits():
    class ByToken(FakeMethod):
        def answer(self, questions, k=5):
            each = (Evidence("p1", 2 / 3), Evidence("p0", 1 / 3))
            tokens = (TokenEvidence("num", each), TokenEvidence("[SEP]", each[:1]))
            return [replace(a, token_evidence=tokens) for a in super().answer(questions, k)]

    methods = [ByToken("rag-token", 3, FakeRetriever()), FakeMethod("fid", 3, FakeRetriever())]
    line = compare(methods, QUESTIONS).predictions[0]["methods"]
    assert line["rag-token"]["token_evidence"] == [
        {"token": "num", "weights": {"p1": 0.6667, "p0": 0.3333}},
        {"token": "[SEP]", "weights": {"p1": 0.6667}},
    ]
    assert "token_evidence" not in line["fid"]


@dataclass
class Loses(FakeMethod):
    """Loses most without the gold passage, the second, on every third question; on every third it
    loses as much without the first; and everything without the first on the others."""

    asked: list[list[str]] = field(default_factory=list)

    def leave_one_out(self, questions, answers, k=5):
        self.asked.append(list(answers))
        falls = ([0.25, 1 / 3, -math.inf], [0.5, 0.5, 0.0], [math.inf, -0.5, 0.1])
        return torch.tensor([falls[number(question) % 3] for question in questions])


def test_what_each_answer_loses_without_each_passage():
    retriever = FakeRetriever()
    loses = Loses("fid", 20, retriever)
    methods = [FakeMethod("closed-book", 1), loses, FakeMethod("own", 1, retriever)]
    comparison = compare(methods, QUESTIONS, k=3, leave_one_out=True)
    scores = comparison.results["methods"]
    assert scores["fid"]["leave_one_out_accuracy"] == 11 / 32  # 0, 3, ... 30 of those with gold
    assert scores["closed-book"]["leave_one_out_accuracy"] is None
    assert scores["own"]["leave_one_out_accuracy"] is None  # it cannot say
    lines = [line["methods"]["fid"] for line in comparison.predictions]
    assert [[(e["passage_id"], e["loo"]) for e in line["evidence"]] for line in lines[:3]] == [
        [("p1", 0.25), ("p0", 0.3333)],
        [("p2", 0.5), ("p1", 0.5)],
        [("p3", None), ("p2", -0.5)],
    ]
    assert all(set(e) == {"passage_id", "weight"} for e in
               comparison.predictions[0]["methods"]["own"]["evidence"])  # fmt: skip
    # Of its own answers, not of the gold ones.
    asked = [text for batch in loses.asked for text in batch]
    assert asked == [line["text"] for line in lines]
    assert json.dumps(comparison.results, allow_nan=False)
    assert "leave one out" in comparison.markdown()
    plain = compare(methods, QUESTIONS, k=3)
    assert "leave_one_out_accuracy" not in plain.results["methods"]["fid"]
    assert "loo" not in plain.predictions[0]["methods"]["fid"]["evidence"][0]


def test_what_the_first_answers_lose_is_measured_alone():
    """A number that ends within a batch: the same values as on all, and none after it."""
    loses, every = (Loses("fid", 20, FakeRetriever()) for _ in range(2))
    some = compare([loses], QUESTIONS, k=3, leave_one_out=21)
    whole = compare([every], QUESTIONS, k=3, leave_one_out=True)
    assert some.results["methods"]["fid"]["leave_one_out_n"] == 21
    assert sum(map(len, loses.asked)) == 21
    for i, (a, b) in enumerate(zip(some.predictions, whole.predictions, strict=True)):
        if i < 21:
            assert a == b
        else:
            assert not any("loo" in e for e in a["methods"]["fid"]["evidence"])


def test_a_question_with_one_passage_is_not_asked_what_it_loses():
    class Few(FakeRetriever):
        def retrieve(self, questions, k):
            found = super().retrieve(questions, k)
            return [
                Retrieved(r.ids[:1], r.scores[:1], r.passages[:1]) if number(q) % 2 else r
                for q, r in zip(questions, found, strict=True)
            ]

    loses = Loses("fid", 20, Few())
    comparison = compare([loses], QUESTIONS, k=3, leave_one_out=True)
    assert sum(map(len, loses.asked)) == N / 2
    # Of 0, 6, ... 30, the even ones of those with the gold passage ahead.
    assert comparison.results["methods"]["fid"]["leave_one_out_accuracy"] == 6 / 32
    evidence = [line["methods"]["fid"]["evidence"] for line in comparison.predictions[:4]]
    assert [[e["loo"] for e in each] for each in evidence] == [
        [0.25, 0.3333], [None, None], [None, -0.5], [None, None],
    ]  # fmt: skip


def test_every_method_is_judged_by_its_own_passages():
    class Next(FakeRetriever):
        """Finds passages i + 1 and on, so never the gold one of question i."""

        def retrieve(self, questions, k):
            found = super().retrieve(questions, k + 1)
            return [Retrieved(r.ids[:1] + r.ids[2:], r.scores[1:], r.passages[:1] + r.passages[2:])
                    for r in found]  # fmt: skip

    class Neighbour(FakeMethod):
        def answer(self, questions, k=5):
            found = super().answer(questions, k)
            texts = [f"answer is number {number(question) + 1}" for question in questions]
            return [replace(a, text=text) for a, text in zip(found, texts, strict=True)]

    methods = [
        Neighbour("blind", 0), Neighbour("there", 0, FakeRetriever()), Neighbour("lost", 0, Next()),
    ]  # fmt: skip
    comparison = compare(methods, QUESTIONS, k=2)
    kinds = [
        {kind: n for kind, n in scores["errors"].items() if n}
        for scores in comparison.results["methods"].values()
    ]
    assert kinds == [{"not-in-passages": N}, {"other-passage": N}, {"not-retrieved": N}]
    # The line tells what the first method that has passages read.
    assert [each["passage_id"] for each in comparison.predictions[5]["retrieved"]] == ["p6", "p5"]
    alone = compare(methods[:1], QUESTIONS)
    assert alone.predictions[0]["retrieved"] == []
    assert alone.predictions[0]["methods"]["blind"]["error"] == "not-in-passages"


def test_save_writes_seven_whole_files(comparison, tmp_path):
    out = tmp_path / "new" / "folder"
    comparison.save(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "agreement.md",
        "errors.md",
        "predictions.jsonl",
        "results.json",
        "setup.json",
        "table.md",
        "table.tex",
    ]
    text = (out / "results.json").read_text("utf-8")
    assert text == json.dumps(comparison.results, indent=2) + "\n"
    lines = (out / "predictions.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == comparison.predictions
    assert (out / "table.md").read_text("utf-8") == comparison.markdown()
    assert (out / "table.tex").read_text("utf-8") == comparison.latex()
    assert (out / "errors.md").read_text("utf-8") == comparison.errors().markdown()
    assert (out / "agreement.md").read_text("utf-8") == comparison.agreement().markdown()
    comparison.save(out)  # again, over the files that are there


def test_other_scripts_are_stored_as_they_are(comparison, tmp_path):
    """Not as escapes: people read and search the file."""
    lines = [{**comparison.predictions[0], "question": "Où est l'Øresund, 京都?"}]
    Comparison(comparison.results, lines).save(tmp_path)
    assert "Où est l'Øresund, 京都?" in (tmp_path / "predictions.jsonl").read_text("utf-8")


def test_a_comparison_says_what_it_compared(comparison):
    assert repr(comparison) == "Comparison(closed-book, realm, fid: 40 questions of numbers)"


def test_five_passages_are_read_where_no_number_is_given():
    retriever = FakeRetriever()
    assert compare([FakeMethod("fid", 1, retriever)], QUESTIONS).results["k"] == 5
    assert {k for _, k in retriever.calls} == {5}


def test_a_failing_save_leaves_the_old_file_and_no_rest(comparison, tmp_path, monkeypatch):
    comparison.save(tmp_path)
    before = (tmp_path / "results.json").read_bytes()

    def fail(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    changed = Comparison(comparison.results | {"seed": 8}, comparison.predictions)
    with pytest.raises(InputError, match="no space left"):
        changed.save(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 7


def test_save_refuses_a_file_as_folder(comparison, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        comparison.save(tmp_path / "file")


def test_frame_is_tidy(comparison):
    frame = comparison.frame()
    assert list(frame.columns) == [
        "method", "metric", "value", "low", "high", "n", "questions", "split", "k", "seed",
    ]  # fmt: skip
    assert not frame.duplicated(["method", "metric"]).any()
    table = frame.set_index(["method", "metric"])
    fid = comparison.results["methods"]["fid"]
    assert table.loc[("fid", "em"), "value"] == fid["em"]
    assert table.loc[("fid", "em"), ["low", "high"]].tolist() == fid["ci95"]["em"]
    assert math.isnan(table.loc[("fid", "recall_at_k"), "low"])  # type: ignore[arg-type]
    assert math.isnan(table.loc[("closed-book", "recall_at_k"), "value"])  # type: ignore[arg-type]
    assert table["value"].dtype == float
    assert table.loc[("fid", "em"), ["n", "questions", "split", "k", "seed"]].tolist() == [
        N, "numbers", "dev", 3, 7,
    ]  # fmt: skip
    # Eight questions name no gold passage; answers and passages of all are known.
    assert table.loc[("fid", "evidence_accuracy"), "n"] == N - 8
    assert table.loc[("fid", "recall_at_k"), "n"] == N
    assert table.loc[("realm", "answer_nll_finite"), "n"] == N - 3
    assert table.loc["closed-book", "n"].loc[["recall_at_k", "parameters"]].isna().all()
    assert "errors" not in set(frame["metric"])  # counts of kinds, no metric


def test_what_a_notebook_shows_is_the_same_every_time(comparison):
    slower = json.loads(json.dumps(comparison.results))
    for scores in slower["methods"].values():
        scores["seconds_per_question"] *= 3
    other = Comparison(slower, comparison.predictions)
    assert repr(other) == repr(comparison)
    assert other._repr_html_() == comparison._repr_html_()
    assert other.markdown() != comparison.markdown()
    assert other.markdown(timing=False) == comparison.markdown(timing=False)


def test_the_index_is_named_by_its_digest(retriever):
    class Index:
        digest = "abc"
        manifest = {  # noqa: RUF012
            "corpus": {"name": "numbers", "passages": 45, "sha256": "def"},
            "encoder": {"id": "an-encoder"},
        }

    expected = {"digest": "abc", "passages": 45, "encoder": "an-encoder"}
    given = compare([FakeMethod("a", 1)], QUESTIONS, index=Index())  # type: ignore[arg-type]
    assert given.results["index"] == expected

    dense = FakeRetriever()
    dense.index = Index()  # type: ignore[attr-defined]
    found = compare([FakeMethod("b", 1), FakeMethod("a", 1, dense)], QUESTIONS)
    assert found.results["index"] == expected


def test_no_progress_bar_off_a_terminal(capsys):
    compare([FakeMethod("a", 1)], QUESTIONS)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False)])
def test_a_progress_bar_on_a_terminal(capsys, monkeypatch, progress, shown):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    compare([FakeMethod("a", 1, FakeRetriever())], QUESTIONS, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("80/80" in captured.err) is shown  # 40 retrieved, 40 answered


def test_bad_input_is_refused(retriever):
    method = FakeMethod("a", 1)
    with pytest.raises(InputError, match="no method"):
        compare([], QUESTIONS)
    with pytest.raises(InputError, match="'a' is given twice"):
        compare([method, FakeMethod("b", 1), method], QUESTIONS)
    with pytest.raises(InputError, match="empty"):
        compare([method], QuestionSet("none", "dev", []))
    with pytest.raises(InputError, match="at least 1"):
        compare([method], QUESTIONS, k=0)
    with pytest.raises(InputError, match="single passage cannot be left out"):
        compare([method], QUESTIONS, k=1, leave_one_out=True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_log_probability_that_is_none_is_a_bug_and_said_so(value):
    class Broken(FakeMethod):
        def log_prob(self, questions, answers, k=5):
            return torch.full((len(questions),), value)

    with pytest.raises(ValueError, match="'a'"):
        compare([Broken("a", 1)], QUESTIONS)


def test_evidence_is_right_where_the_heaviest_passage_is_the_gold_one():
    """On three of four questions; the lightest would be right on the fourth. An answer without
    evidence is not right, and alone it is no method of passages."""
    questions = QuestionSet("four", "dev", [Question(f"q{i}", ("a",), "gold") for i in range(4)])
    evidence = [
        [{"passage_id": "other", "weight": w}, {"passage_id": "gold", "weight": 1 - w}]
        for w in (0.1, 0.8, 0.2, 0.3)
    ]
    assert _evidence_accuracy(questions, evidence) == 0.75
    assert _evidence_accuracy(questions, [[], *evidence[1:]]) == 0.5
    assert _evidence_accuracy(questions, [[]] * 4) is None

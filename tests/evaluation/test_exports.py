"""A comparison in others' forms, read as their programs read it, and read back from its folder."""

import csv
import gzip
import io
import json
import math
import re
import shutil
import string
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Question, QuestionSet
from ragbook.errors import InputError
from ragbook.evaluation import Comparison, compare
from ragbook.evaluation.exports import FORMS, formulas, kilt, rows, squad, write
from tests.evaluation.test_unanswered import Method

STORED = Path(__file__).parents[2] / "book" / "results"
ASKED = [
    Question("Which is 0?", ("Number, 0", "nil"), "p0", id="zero"),
    Question("Which is 1?", ("number 1",), "p1", id="a|b"),
    Question("Which is 5?", ("five",), "p5", id="5"),
    Question("Which is 6?", (), "p6", id="=6"),
]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    methods: Any = [Method("closed-book", 5, reads=False), Method("my:fid/1", 2)]
    return compare(methods, QuestionSet("q", "dev", ASKED), k=2, seed=3)


def official_em(data: list[dict], predictions: dict[str, str]) -> float:
    """SQuAD's exact match, written down from the paper and its data's form."""

    def normal(text: str) -> str:
        bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())

    scores = [
        max(float(normal(predictions[qa["id"]]) == normal(a["text"])) for a in qa["answers"])
        for article in data
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
        if qa["answers"]
    ]
    return sum(scores) / len(scores)


def test_squad_predictions_give_the_same_exact_match(comparison, tmp_path):
    qas = [{"id": q.id, "question": q.text, "answers": [{"text": a} for a in q.answers]}
           for q in ASKED]  # fmt: skip
    files = write(comparison, "squad", tmp_path / "out")
    assert [path.name for path in files] == ["closed-book.json", "my_fid_1.json"]
    for name, path in zip(comparison.results["methods"], files, strict=True):
        predictions = json.loads(path.read_text("utf-8"))
        assert list(predictions) == ["zero", "a|b", "5", "=6"]
        em = official_em([{"paragraphs": [{"qas": qas}]}], predictions)
        assert em == comparison.results["methods"][name]["em"]
    assert {comparison.results["methods"][name]["em"] for name in ("closed-book", "my:fid/1")} == {
        1 / 3
    }


def test_squad_predictions_of_the_stored_comparison_give_its_exact_match():
    comparison = Comparison.load(STORED)
    qas = [
        {"id": line["id"], "answers": [{"text": a} for a in line["answers"]]}
        for line in comparison.predictions
    ]
    for name in ("closed-book", "realm", "fid"):
        em = official_em([{"paragraphs": [{"qas": qas}]}], squad(comparison, name))
        assert em == pytest.approx(comparison.results["methods"][name]["em"])


def kilt_problems(line: dict) -> list[str]:
    """What KILT's scripts would refuse: they ask for one output with one answer, a string, and for
    provenance whose pages have ids that are strings."""
    problems = [key for key in ("id", "input") if not isinstance(line.get(key), str)]
    if len(line.get("output", [])) != 1:
        return [*problems, "output"]
    (output,) = line["output"]
    problems += [] if isinstance(output["answer"], str) else ["answer"]
    pages = [page["wikipedia_id"] for page in output["provenance"]]
    problems += [] if all(isinstance(page, str) for page in pages) else ["page"]
    return problems + ([] if len(set(pages)) == len(pages) else ["page twice"])


def test_kilt_predictions_are_what_its_scripts_read(comparison, tmp_path):
    files = write(comparison, "kilt", tmp_path)
    assert [path.name for path in files] == ["closed-book.jsonl", "my_fid_1.jsonl"]
    for path in files:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert [line["id"] for line in lines] == [q.id for q in ASKED]
        assert [line["input"] for line in lines] == [q.text for q in ASKED]
        assert [kilt_problems(line) for line in lines] == [[]] * 4
    first, _, silent, _ = kilt(comparison, "my:fid/1")
    # Question 0 relied most on p0, question 5 most on p6.
    assert [page["wikipedia_id"] for page in first["output"][0]["provenance"]] == ["p0", "p1"]
    assert [page["wikipedia_id"] for page in silent["output"][0]["provenance"]] == ["p6", "p5"]
    assert (first["output"][0]["answer"], silent["output"][0]["answer"]) == ("Number 0", "")
    assert next(kilt(comparison, "closed-book"))["output"][0]["provenance"] == []


def test_a_page_of_kilt_is_the_document_of_its_pieces(comparison):
    line = json.loads(json.dumps(comparison.predictions[0]))
    line["methods"]["my:fid/1"]["evidence"] = [
        {"passage_id": "12-3", "weight": 0.2},
        {"passage_id": "7-1", "weight": 0.5},
        {"passage_id": "12-1", "weight": 0.3},
        {"passage_id": "alone", "weight": 0.0},
    ]
    (found,) = kilt(Comparison(comparison.results, [line]), "my:fid/1")
    pages = [page["wikipedia_id"] for page in found["output"][0]["provenance"]]
    assert pages == ["7", "12", "alone"]


def read_csv(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def test_the_csv_file_has_every_answer(comparison, tmp_path):
    (path,) = write(comparison, "csv", tmp_path / "new" / "answers.csv")
    found = read_csv(path)
    assert list(found[0]) == [
        "id", "question", "answers", "method", "text", "log_prob", "em", "f1", "contains", "error",
        "best_passage", "retrieved", "gold_rank",
    ]  # fmt: skip
    assert [(row["id"], row["method"]) for row in found] == [
        (q.id, name) for q in ASKED for name in comparison.results["methods"]
    ]
    for line, (blind, fid) in zip(
        comparison.predictions, zip(found[::2], found[1::2], strict=True), strict=True
    ):
        own = line["methods"]["my:fid/1"]
        assert json.loads(fid["answers"]) == line["answers"]
        assert (fid["question"], fid["text"]) == (line["question"], own["text"])
        assert float(fid["log_prob"]) == own["log_prob"]
        for key in ("em", "f1", "contains", "error"):
            assert fid[key] == ("" if own[key] is None else str(own[key]))
        retrieved = [each["passage_id"] for each in line["retrieved"]]
        assert json.loads(fid["retrieved"]) == retrieved
        assert (fid["best_passage"], blind["best_passage"]) == (retrieved[line_best(line)], "")
        assert fid["gold_rank"] == blind["gold_rank"] == "2"
    assert path.read_bytes().count(b"\r\n") == 9


def line_best(line: dict) -> int:
    """Where the heaviest passage stands: the second of an even question, the first of an odd."""
    return 1 - int(line["question"][9:-1]) % 2


TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["=1+1", '"', ",", "a\r\nb", "\r", "\n", "\0", "@x", "'", '=cmd|" /C calc"!A0']
)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_no_text_is_changed_by_csv_squad_or_kilt(texts):
    lines = [
        {
            "id": f"{i}",
            "question": question,
            "answers": [text],
            "gold_passage": None,
            "methods": {"m": {"text": text, "log_prob": None, "em": 1, "f1": 1.0, "evidence": []}},
        }
        for i, (question, text) in enumerate(texts)
    ]
    comparison = Comparison({"methods": {"m": {}}}, lines)
    from ragbook.evaluation.exports import _csv

    found = list(csv.DictReader(io.StringIO(_csv(rows(comparison)), newline=""), strict=True))
    assert [(row["question"], row["text"]) for row in found] == texts
    assert [json.loads(row["answers"]) for row in found] == [[text] for _, text in texts]
    assert list(squad(comparison, "m").values()) == [text for _, text in texts]
    assert [one["output"][0]["answer"] for one in kilt(comparison, "m")] == [t for _, t in texts]
    risky = sum(cell[:1] in tuple("=+-@\t\r") for pair in texts for cell in pair if cell)
    assert formulas(comparison) == risky


def test_the_tidy_files_are_the_frame(comparison, tmp_path):
    frame = comparison.frame()
    (path,) = write(comparison, "tidy-csv", tmp_path / "tidy.csv")
    back = pd.read_csv(path, dtype={"n": "Int64"})
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    (path,) = write(comparison, "tidy-parquet", tmp_path / "tidy.parquet")
    back = pyarrow.parquet.read_table(path).to_pandas()
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    row = frame.set_index(["method", "metric"]).loc[("my:fid/1", "f1")]
    assert row[["n", "questions", "split", "k", "seed"]].tolist() == [3, "q", "dev", 2, 3]
    lines = [line["methods"]["my:fid/1"]["f1"] for line in comparison.predictions[:3]]
    assert row["value"] == pytest.approx(sum(lines) / 3)


def test_some_methods_only(comparison, tmp_path):
    (path,) = write(comparison, "squad", tmp_path, ["my:fid/1"])
    assert path.name == "my_fid_1.json"
    (path,) = write(comparison, "csv", tmp_path / "a.csv", ["my:fid/1"])
    assert {row["method"] for row in read_csv(path)} == {"my:fid/1"}
    assert comparison.only(["my:fid/1"]).results["paired"] == []
    assert (
        comparison.only(["my:fid/1", "closed-book"]).results["paired"]
        == (comparison.results["paired"])
    )
    with pytest.raises(InputError, match="rag is not among the methods compared"):
        write(comparison, "csv", tmp_path / "b.csv", ["rag"])


def test_what_is_there_is_not_written_over(comparison, tmp_path):
    for form in FORMS:
        out = tmp_path / form / "out"
        files = write(comparison, form, out)
        before = [path.read_bytes() for path in files]
        with pytest.raises(InputError, match="exists; choose another place or give --overwrite"):
            write(comparison, form, out)
        files[0].write_text("mine")
        assert write(comparison, form, out, overwrite=True) == files
        assert [path.read_bytes() for path in files] == before
        assert not list(out.parent.rglob("*.unfinished"))
    with pytest.raises(InputError, match="is a folder"):
        write(comparison, "csv", tmp_path)
    with pytest.raises(InputError, match="is a file"):
        write(comparison, "kilt", tmp_path / "csv" / "out")
    with pytest.raises(InputError, match="no form 'xml'"):
        write(comparison, "xml", tmp_path)


def test_ids_that_do_not_tell_questions_apart_are_refused(comparison, tmp_path):
    twice = Comparison(
        comparison.results, [line | {"id": "7"} for line in comparison.predictions[:2]]
    )
    for form in ("squad", "kilt"):
        with pytest.raises(InputError, match="Two questions have the id '7'"):
            write(twice, form, tmp_path / form)
    write(twice, "csv", tmp_path / "answers.csv")
    names = {name: comparison.results["methods"]["closed-book"] for name in ("a:b", "A/B")}
    with pytest.raises(InputError, match="make one file's name"):
        write(Comparison(comparison.results | {"methods": names}, []), "squad", tmp_path)


# --- reading a folder back ------------------------------------------------------------------------


def test_a_saved_comparison_is_read_back(comparison, tmp_path):
    comparison.save(tmp_path)
    back = Comparison.load(tmp_path)
    assert back.results == comparison.results
    assert back.predictions == comparison.predictions
    path = tmp_path / "predictions.jsonl"
    with gzip.open(tmp_path / "predictions.jsonl.gz", "wb") as file:
        file.write(path.read_bytes())
    path.unlink()
    assert Comparison.load(str(tmp_path)).predictions == comparison.predictions


def test_a_comparison_of_an_earlier_version_is_read_and_written(tmp_path):
    """The book's own, without what later versions say, whichever version made it."""
    results = json.loads((STORED / "results.json").read_text())
    results["questions"].pop("scored", None)
    results.pop("agreement", None)
    for scores in results["methods"].values():
        scores.pop("answered", None)
    (tmp_path / "results.json").write_text(json.dumps(results))
    lines = list(Comparison.load(STORED).predictions)
    for line in lines:
        line.pop("gold_rank", None)
        line.pop("gold_passages", None)
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    comparison = Comparison.load(tmp_path)
    assert "scored" not in comparison.results["questions"]
    assert comparison.agreement() is None
    n = comparison.results["questions"]["n"]
    table = comparison.frame().set_index(["method", "metric"])
    assert table.loc[("fid", "em"), "n"] == table.loc[("fid", "recall_at_k"), "n"] == n
    first = next(rows(comparison))
    assert first["gold_rank"] == 1
    assert comparison.markdown(timing=False) == comparison.markdown(timing=False)


def change(folder: Path, **changed) -> None:
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_a_damaged_folder_is_refused_in_one_sentence(comparison, tmp_path):
    comparison.save(tmp_path / "good")
    lines = (tmp_path / "good" / "predictions.jsonl").read_text().splitlines()

    def refused(damage) -> str:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        damage(tmp_path / "bad")
        with pytest.raises(InputError) as caught:
            Comparison.load(tmp_path / "bad")
        return str(caught.value)

    def put(*changed: str):
        return lambda folder: (folder / "predictions.jsonl").write_text("\n".join(changed) + "\n")

    def edited(**keys) -> str:
        return json.dumps(json.loads(lines[0]) | keys)

    def method(**keys) -> str:
        line = json.loads(lines[0])
        line["methods"]["closed-book"] |= keys
        return json.dumps(line)

    assert "holds no results.json" in refused(lambda f: (f / "results.json").unlink())
    assert "holds no predictions.jsonl" in refused(lambda f: (f / "predictions.jsonl").unlink())
    assert "not valid JSON" in refused(lambda f: (f / "results.json").write_text("{"))
    assert "not a JSON object" in refused(lambda f: (f / "results.json").write_text("[]"))
    assert '"k" cannot be' in refused(lambda f: change(f, k="five"))
    assert '"seed" cannot be True' in refused(lambda f: change(f, seed=True))
    assert "no question or no method" in refused(lambda f: change(f, methods={}))
    assert "method 'a': not a JSON object" in refused(lambda f: change(f, methods={"a": 3}))
    assert '"paired" must be of its methods' in refused(
        lambda f: change(f, paired=[{"a": "x", "b": "y", "metric": "em", "difference": 0, "p": 1}])
    )
    assert "line 2: not valid JSON" in refused(put(lines[0], lines[1][:-9], *lines[2:]))
    assert "holds 3 questions, and results.json speaks of 4" in refused(put(*lines[:3]))
    assert "its methods are not those" in refused(put(edited(methods={})))
    assert '"answers" cannot be' in refused(put(edited(answers="one")))
    assert "an answer must be a string" in refused(put(edited(answers=[7])))
    assert '"em" must be null' in refused(put(edited(answers=[])))
    assert '"em" must be a number' in refused(put(method(em=None)))
    assert '"em" must be a number' in refused(put(method(em=math.nan)))
    assert '"log_prob" cannot be inf' in refused(put(method(log_prob=math.inf)))
    assert "surrogate" in refused(put(method(text="\ud800")))
    assert '"weight" is missing' in refused(put(method(evidence=[{"passage_id": "p"}])))
    assert '"retrieved" must be a list' in refused(put(edited(retrieved=7)))
    with pytest.raises(InputError, match="There is no folder"):
        Comparison.load(tmp_path / "nowhere")

"""The README and the first pages: their numbers, questions and commands are what the package and
the stored comparison give."""

import gzip
import json
import math
import re
import shlex
from pathlib import Path

import one_question
import pytest

from ragbook import load_corpus, load_questions
from ragbook.cli.parser import new_parser
from ragbook.evaluation.names import row_name
from ragbook.evaluation.statistics import ALPHA, adjusted, cut_off
from ragbook.evaluation.words import check_claim
from ragbook.methods import NAMES
from ragbook.models.prompts import MAX_INPUT

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "results"
FOUR = ("realm", "rag-sequence", "rag-token", "fid")
PAGES = ("README.md", "book/run.md", "book/manual.md")


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def stored(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def em(results, name):
    return cut_off(results["methods"][name]["em"])


README = " ".join(text_of("README.md").split())
TABLE = {
    "MiniWiki, each by its own objective": "results",
    "MiniWiki, the same weights for all": "same-weights",
    "MiniWiki, SmolLM2 with an adapter (chapter 11)": "smollm2-reading",
    "Natural Questions, each by its own objective (chapter 7)": "nq",
}


def test_the_table_has_the_stored_scores():
    lines = re.findall(r"^\| (.+) \|$", text_of("README.md"), re.M)
    cells = {line.split(" | ")[0]: line.split(" | ")[1:] for line in lines}
    assert cells["exact match, %"][1:] == [row_name(name).split()[0] for name in NAMES]
    assert TABLE.keys() <= cells.keys()
    widest = {}
    for row, name in TABLE.items():
        found = stored(name)
        assert found["k"] == 5  # as below the table
        for method in found["methods"].values():
            low, high = method["ci95"]["em"]
            reach = max(method["em"] - low, high - method["em"])
            widest[name] = max(widest.get(name, 0), round(100 * reach, 6))
        scores = [em(found, m) if m in found["methods"] else "–" for m in NAMES]
        assert cells[row] == [f"{found['questions']['n']:,}", *scores]
    # The least bounds in tenths of a point that enclose all intervals of the rows.
    first, third, last = (
        math.ceil(10 * max(widest[name] for name in names)) / 10
        for names in (("results", "same-weights"), ("smollm2-reading",), ("nq",))
    )
    assert (
        f"intervals reach at most {first} points to either side in the first two rows, {third} in "
        f"the third and {last} in the last"
    ) in README
    assert "Further digits of a percentage are dropped, not rounded" in README
    assert "Further digits of a percentage are dropped, not rounded" in text_of("book/notation.md")


def test_the_first_result_is_the_stored_one():
    own = stored("results")
    assert "REALM, the two RAGs and FiD answer most of MiniWiki's questions correctly" in README
    assert min(own["methods"][name]["em"] for name in FOUR) > 0.6
    assert "reader without passages almost none" in README
    assert own["methods"]["closed-book"]["em"] < 0.01
    assert f"passages in one prompt it answers {em(own, 'in-context')} %, because" in README
    for name in FOUR:
        check_claim(own, f"{name} > closed-book")
        check_claim(own, f"{name} > knn-lm")


def test_the_prompt_of_in_context_retrieval_has_no_room_for_all_passages():
    """A passage that was not read has no attention at all."""
    with gzip.open(RESULTS / "predictions.jsonl.gz", "rt", encoding="utf-8") as file:
        read = [
            sum(one["weight"] > 0 for one in json.loads(line)["methods"]["in-context"]["evidence"])
            for line in file
        ]
    first_page = " ".join(text_of("book/index.md").split())
    assert "one or two of the five passages do not fit into its prompt for most" in first_page
    assert set(read) == {3, 4, 5}
    assert 2 * read.count(5) < len(read)


def test_the_second_result_is_what_the_tests_say():
    own, trained = stored("results"), stored("trained")
    scores = [own["methods"][name]["em"] for name in FOUR]
    assert (scores[0], scores[1]) == (max(scores), min(scores))
    said = cut_off(scores[0] - scores[1])
    assert f"REALM leads RAG-Sequence, the last of them, by {said} points." in README
    assert "It is ahead of both RAGs with the shipped weights" in README
    for name in ("rag-sequence", "rag-token"):
        check_claim(own, f"realm > {name}")
    check_claim(own, "realm ~ fid")
    assert f"over three training seeds (n = {trained['n']}) no difference between" in README
    assert trained["seeds"] == 3
    assert set(trained["methods"]) == set(FOUR)
    assert min(adjusted(trained["paired"], "em").values()) >= ALPHA
    assert "so few questions can show only differences of several points" in README
    for pair in trained["paired"]:
        low, high = pair["ci95"]
        assert pair["metric"] != "em" or (high - low) / 2 > 0.02


def test_elsewhere_the_ways_of_combining_differ_by_large_steps():
    """Said beside the second result, which is of the bundled readers and MiniWiki only."""
    text = " ".join(text_of("book/index.md").split())
    for page in (README, text):
        assert "This is true of these readers and questions only." in page
    assert "because it was trained on inputs of one passage." in README
    assert "SmolLM2 both RAGs are ahead of in-context retrieval and FiD" in README
    assert "REALM and RAG-Token are ahead of FiD and RAG-Sequence." in README
    assert f"on inputs of one passage and at most {MAX_INPUT} word pieces" in text
    reading, real = stored("smollm2-reading"), stored("nq")
    assert f"n = {reading['questions']['n']})" in text
    rags = [em(reading, name) for name in ("rag-sequence", "rag-token")]
    said = f"{rags[0]} % each" if rags[0] == rags[1] else f"{rags[0]} and {rags[1]} %"
    assert (
        f"the RAGs answer {said}, in-context retrieval {em(reading, 'in-context')} % "
        f"and FiD {em(reading, 'fid')} %" in text
    )
    assert (
        f"on Natural Questions (chapter 7, n = {real['questions']['n']}), REALM answers "
        f"{em(real, 'realm')} %, RAG-Token {em(real, 'rag-token')} %, FiD {em(real, 'fid')} % and "
        f"RAG-Sequence {em(real, 'rag-sequence')} %." in text
    )
    for rag in ("rag-sequence", "rag-token"):
        check_claim(reading, f"{rag} > in-context")
        check_claim(reading, f"{rag} > fid")
    for better in ("realm", "rag-token"):
        for worse in ("fid", "rag-sequence"):
            check_claim(real, f"{better} > {worse}")


def test_the_third_result_is_what_the_tests_say():
    own, same = stored("results"), stored("same-weights")
    assert "FiD answers more questions than both RAGs" in README
    assert "a part of their training fused several passages as FiD does" in README
    for name in ("rag-sequence", "rag-token"):
        check_claim(same, f"fid > {name}")
        check_claim(own, f"fid ~ {name}")
    check_claim(own, "rag-sequence ~ rag-token")


def test_the_length_of_a_passage_is_said_where_own_passages_come_first():
    for name in PAGES:
        first = text_of(name).index("ragbook compare --corpus passages.tsv")
        assert "100 words" in text_of(name)[first : first + 400], name
    assert f"read {MAX_INPUT} word pieces" in README


def test_the_passages_and_questions_that_are_shown_can_be_read(tmp_path):
    for name, kind in (("passages.tsv", "text"), ("questions.jsonl", "json")):
        (shown,) = re.findall(rf"^```{kind}\n(.*?)^```", text_of("README.md"), re.S | re.M)
        (tmp_path / name).write_text(shown, encoding="utf-8")
    (passage,) = load_corpus(tmp_path / "passages.tsv")
    assert (passage.id, passage.title) == ("1", "River Oke")
    (question,) = load_questions(tmp_path / "questions.jsonl")
    assert question.answers == ("Ada Fell", "Fell")
    assert question.answers[0] in passage.text


def test_a_question_that_is_shown_is_a_typical_one():
    """The same methods are right on it as on most questions; kNN-LM is not among them."""
    with gzip.open(RESULTS / "predictions.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = {line["question"]: line for line in map(json.loads, file)}
    found = one_question.chosen(lines.values())
    assert found is not None
    typical = right(found[0])
    assert {name for name, is_right in typical.items() if is_right} == set(FOUR)
    texts = [text_of(name) for name in PAGES[:2]]
    for text in texts:
        assert f'ragbook ask "{found[0]["question"]}"' in text
    texts += [path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.py"))]
    shown = {
        question.strip("\"'")
        for text in texts
        for question in re.findall(r'(?:Question\(\s*|ragbook ask )("[^"]+\?")', text)
    }
    assert len(shown) == 3
    for question in shown:
        assert right(lines[question]) == typical, question


def right(line):
    """Which methods answer a stored question rightly."""
    return {name: bool(entry["em"]) for name, entry in line["methods"].items()}


def commands():
    """Every `ragbook` command of the README and of the pages of commands, as a list of words."""
    out = []
    for name in PAGES:
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", text_of(name), re.S | re.M)
        joined = "\n".join(block for language, block in blocks if not language).replace("\\\n", " ")
        out += re.findall(r"^(?:\.venv/bin/)?ragbook .*", joined, re.M)
    return [shlex.split(line, comments=True) for line in out]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_that_is_shown_is_one(words):
    assert callable(new_parser().parse_args(words[1:]).run)


def test_there_are_commands():
    assert len(commands()) > 40

import gzip
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage, Question, QuestionSet
from ragbook.corpus.qrels import escaped, unescaped
from ragbook.errors import InputError
from ragbook.retrieval import RunRetriever
from ragbook.retrieval.runs import (
    Ranking,
    likely_scale,
    ranking,
    read_run,
    write_run,
)

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
texts = st.text(
    st.one_of(
        st.sampled_from("a%2059C0A \t\n\u00a0\u3000"), st.characters(exclude_categories=("Cs",))
    ),
    min_size=1,
    max_size=8,
)


def of(scores: dict[str, float]) -> Ranking:
    return Ranking(tuple(scores), np.array(list(scores.values()), np.float32))


def trec_order(scores: dict[str, float]) -> list[str]:
    """trec_eval's own comparison, in other words: by score, then by the bytes of the id."""
    by_id = sorted(scores, key=lambda one: one.encode(), reverse=True)
    return sorted(by_id, key=lambda one: -float(np.float32(scores[one])))


@given(st.dictionaries(texts, st.dictionaries(texts, float32s, min_size=1), min_size=1))
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("runs") / "own.trec"
    write_run(path, {question: of(scores) for question, scores in run.items()})
    found = read_run(path)
    assert list(found) == list(run)
    for question, scores in run.items():
        assert list(found[question].ids) == trec_order(scores)
        for one, score in zip(found[question].ids, found[question].scores, strict=True):
            assert score == np.float32(scores[one])
        assert found[question].scores.dtype == np.float32
    for line in path.read_text(encoding="utf-8").splitlines():
        assert len(line.split()) == 6  # also for a tool that splits at any white space


@given(texts)
@settings(max_examples=500)
def test_every_id_has_one_word(one):
    assert unescaped(escaped(one)) == one
    assert len(f"x{escaped(one)}x".split()) == 1


@pytest.mark.parametrize(
    ("one", "written"),
    [
        ("guide/my setup.md#L12", "guide/my%20setup.md#L12"),
        ("50%", "50%"),
        ("https://de.wikipedia.org/wiki/K%C3%B6ln", "https://de.wikipedia.org/wiki/K%C3%B6ln"),
        ("a%20b", "a%2520b"),
        ("a\u00a0b", "a%C2%A0b"),
    ],
)
def test_only_white_space_and_what_looks_like_its_code_is_escaped(one, written):
    assert escaped(one) == written


def test_ranks_follow_trec_evals_order_of_equal_scores(tmp_path):
    path = tmp_path / "run.trec"
    write_run(path, {"q": of({"a": 1.0, "c": 2.0, "b": 1.0, "B": 1.0})}, "my tag")
    assert path.read_text() == (
        "q Q0 c 1 2 my%20tag\nq Q0 b 2 1 my%20tag\nq Q0 a 3 1 my%20tag\nq Q0 B 4 1 my%20tag\n"
    )


def test_the_ranks_of_a_file_do_not_count_and_its_lines_may_be_mixed(tmp_path):
    path = tmp_path / "run.trec"
    path.write_text("q1 Q0 a 1 0.5 x\nq2\tQ0\tz\t1\t-3e2\tx\r\n\nq1 0 b 2 0.75 y\n")
    found = read_run(path)
    assert {q: r.ids for q, r in found.items()} == {"q1": ("b", "a"), "q2": ("z",)}
    assert found["q1"].scores.tolist() == [0.75, 0.5]
    # As in trec_eval, scores that are equal as float32 are equal.
    path.write_text("q Q0 a 1 1.00000000002 x\nq Q0 b 2 1.00000000001 x\n")
    assert read_run(path)["q"].ids == ("b", "a")


def test_a_gzip_file_holds_the_same_and_is_the_same_each_time(tmp_path):
    run = {"q": of({"a": 1.0, "b": 0.1})}
    for name in ("run.trec", "one.trec.gz", "two.trec.gz"):
        write_run(tmp_path / name, run)
    one, two = ((tmp_path / f"{name}.trec.gz").read_bytes() for name in ("one", "two"))
    assert one == two
    assert gzip.decompress(one) == (tmp_path / "run.trec").read_bytes()
    assert read_run(tmp_path / "one.trec.gz")["q"].ids == ("a", "b")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("q Q0 a 1 0.5\n", "line 1: 5 columns; a line of a run file has six"),
        ("q Q0 a 1 0.5 x\nq Q0 b 2 0.4 x y\n", "line 2: 7 columns"),
        ("q Q0 a 1 high x\n", "line 1: the score 'high' is no finite number"),
        ("q Q0 a 1 nan x\n", "the score 'nan'"),
        ("q Q0 a 1 -inf x\n", "the score '-inf'"),
        ("q Q0 a 1 1e39 x\n", "the score '1e39'"),
        ("q Q0 a 1 1_0 x\n", "the score '1_0'"),
        ("q Q0 a 1 2 x\nr Q0 a 1 2 x\nq Q0 a 2 1 x\n", "line 3: the passage 'a' stands in line 1"),
        ("\n \n", "holds no ranking"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, lines, said):
    path = tmp_path / "run.trec"
    path.write_text(lines)
    with pytest.raises(InputError, match=r"run\.trec.*" + said.replace("(", r"\(")):
        read_run(path)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"q": of({"a": math.nan})}, "not a finite number"),
        ({"q": of({"a": math.inf})}, "not a finite number"),
        ({"q": Ranking(("a", "a"), np.zeros(2, np.float32))}, "ranked twice"),
        ({"q": of({"": 1.0})}, "empty id"),
        ({"q": of({"\ud800": 1.0})}, "surrogate"),
    ],
)
def test_what_no_file_can_hold_is_not_written(tmp_path, run, said):
    path = tmp_path / "run.trec"
    path.write_text("before")
    with pytest.raises(InputError, match=said):
        write_run(path, {"first": of({"x": 1.0})} | run)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["run.trec"]


def test_a_name_of_another_compression_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"name it \.gz, or plain"):
        write_run(tmp_path / "run.trec.xz", {"q": of({"a": 1.0})})


CORPUS = Corpus("own", [Passage(f"p {i}", f"Title {i}", f"Text {i}.") for i in range(6)])


def asked(*ids: str | None) -> QuestionSet:
    return QuestionSet("asked", "all", [Question(f"What is {i}?", (), id=i) for i in ids])


def test_a_run_is_a_retriever(tmp_path):
    path = tmp_path / "own.trec.gz"
    write_run(
        path, {"1": of({"p 1": 3.0, "gone": 2.5, "p 3": 2.0, "p 5": 1.0}), "x": of({"p 0": 9})}
    )
    retriever = RunRetriever(CORPUS, path)
    assert (retriever.name, retriever.unknown) == ("own", 1)
    questions = asked(None, "x", "y").numbered()
    one, two, three = retriever.retrieve(questions, 2)
    assert one.ids == ("p 1", "p 3")
    assert one.scores.tolist() == [3.0, 2.0]
    assert one.passages == (CORPUS.get("p 1"), CORPUS.get("p 3"))
    assert (two.ids, three.ids) == (("p 0",), ())
    assert three.scores.dtype == np.float32
    assert [retriever.serves(q) for q in questions] == [True, True, False]
    with pytest.raises(InputError, match="has no id"):
        retriever.retrieve(asked(None), 2)
    with pytest.raises(InputError, match="k must be 1"):
        retriever.retrieve(questions, 0)


def test_ids_of_others_that_look_escaped_are_found():
    corpus = Corpus("web", [Passage("https://x/a%20b", "", "A page.")])
    run = {"1": of({"https://x/a b": 1.0})}  # as read_run reads another's `https://x/a%20b`
    (found,) = RunRetriever(corpus, run).retrieve(asked("1"), 5)
    assert found.ids == ("https://x/a%20b",)


def test_a_run_of_another_corpus_is_refused():
    with pytest.raises(InputError, match="Not one of the 2 passages of run 'run', such as 'a'"):
        RunRetriever(CORPUS, {"1": of({"a": 1.0, "b": 0.5})})


def test_equal_scores_are_in_the_same_order_in_memory_as_in_a_file(tmp_path):
    run = {"1": of({"p 1": 1.0, "p 4": 1.0, "p 2": 1.0})}
    write_run(tmp_path / "own.trec", run)
    here, there = RunRetriever(CORPUS, run), RunRetriever(CORPUS, tmp_path / "own.trec")
    for retriever in (here, there):
        assert retriever.retrieve(asked("1"), 2)[0].ids == ("p 4", "p 2")
    assert here.sha256 == there.sha256
    assert RunRetriever(CORPUS, {"1": of({"p 1": 1.0, "p 4": 1.0})}).sha256 != here.sha256


@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=5), min_size=1),
    st.floats(1e-3, 1e3),
)
@settings(max_examples=50)
def test_the_unit_of_the_scores_does_not_change_how_likely_passages_are(rows, factor):
    run = [ranking(of(dict(zip("abcde", row, strict=True)))) for row in rows]
    gaps = [float(one.scores[0] - one.scores[4]) for one in run]
    middle = float(np.median(gaps))
    if middle < 1e-3:  # what is left of scores that are nearly equal is their rounding
        return
    scale = likely_scale(run)
    assert scale * middle == pytest.approx(5.0, rel=1e-3)
    scaled = [Ranking(one.ids, one.scores * np.float32(factor)) for one in run]
    assert likely_scale(scaled) * factor == pytest.approx(scale, rel=0.05)


def test_the_scale_without_differences():
    assert likely_scale([of({"a": 1.0, "b": 1.0}), of({"a": 1.0})]) == 1.0
    assert likely_scale([]) == 1.0
    # The median is 0; the mean is not.
    same, other = of({"a": 1.0, "b": 1.0}), of({"a": 3.0, "b": 0.0})
    assert likely_scale([same, same, other]) == pytest.approx(5.0)
    assert RunRetriever(CORPUS, {"1": of({"p 1": 3.0})}, score_scale=7.0).score_scale == 7.0


def test_numbers_that_are_ids_of_others_are_refused():
    with pytest.raises(InputError, match="Question 2 of 'asked' has no id"):
        asked("2", None).numbered()
    assert [q.id for q in asked(None, "x", None).numbered()] == ["1", "x", "3"]


def test_a_large_run_is_read_without_repeating_its_ids(tmp_path):
    path = tmp_path / "run.trec"
    with path.open("w") as file:
        for q in range(50):
            file.writelines(f"q{q} Q0 passage-{i} {i} {-i} x\n" for i in range(1000))
    found = read_run(path)
    assert found["q0"].ids[7] is found["q49"].ids[7]
    assert found["q3"].ids[999] == "passage-999"


lines = st.lists(
    st.one_of(
        st.builds(
            " ".join,
            st.tuples(
                *[st.sampled_from(["q", "a b", "%20", "\u00a0", "1", "-1e39", "nan", ""])] * 6
            ),
        ),
        st.text(max_size=12),
    ),
    max_size=4,
)


@given(st.one_of(lines.map(lambda rows: "\n".join(rows).encode()), st.binary(max_size=40)))
@settings(max_examples=300, deadline=None)
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.trec"
    path.write_bytes(content)
    try:
        run = read_run(path)
    except InputError:
        return
    write_run(path, run)
    again = read_run(path)
    assert {q: r.ids for q, r in again.items()} == {q: r.ids for q, r in run.items()}

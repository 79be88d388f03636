"""The question that the diagrams trace, and what each method computes for it."""

import pytest
from experiments.traced_question import METHODS, chosen, trace

from ragbook.corpus import Corpus, load_corpus, load_questions
from ragbook.errors import InputError
from ragbook.methods import load
from tests.fakes import FixedRetriever


def line(gold, right=True):
    return {
        "question": f"the answer is in {gold}",
        "gold_passage": gold,
        "retrieved": [{"passage_id": name} for name in "abcde"],
        "methods": {name: {"em": int(right)} for name in METHODS},
    }


def test_which_question_is_traced():
    wrong = line("b")
    wrong["methods"]["fid"]["em"] = 0
    lines = [line("a"), line("d"), wrong, line("c"), line("b")]
    assert chosen(lines)["gold_passage"] == "c"
    with pytest.raises(InputError, match="another rule"):
        chosen(lines[:3])


@pytest.fixture(scope="module")
def methods():
    """All six, over three passages of which the last one answers the question."""
    whole = load_corpus("miniwiki")
    corpus = Corpus("three", [whole.get(f"helium-{number}") for number in (2, 3, 1)])
    return {
        m.name: m for m in load(METHODS, FixedRetriever(corpus, (0.3, 0.2, 0.1)), verbatim=True)
    }


@pytest.fixture(scope="module")
def question():
    return next(q for q in load_questions("miniwiki", "test") if "Norman Lockyer" in q.text)


def test_the_parts_of_a_trace_make_up_the_method_s_own_probability(methods, question):
    for name, own in trace(methods, question)["methods"].items():
        assert own["core"] == pytest.approx(own["probability"], rel=1e-3), name
        assert own["passages"] == ["helium-2", "helium-3", "helium-1"]
        assert own["prior"] == sorted(own["prior"], reverse=True)
        if "posterior" in own:
            assert own["posterior"][2] > 0.9 > own["prior"][2]
        for key in ("attention", "mass"):
            assert sum(own.get(key, [1.0])) == pytest.approx(1, abs=1e-5)


def test_a_wrong_answer_is_not_drawn(methods):
    other = next(q for q in load_questions("miniwiki", "test") if "Congo" in q.text)
    with pytest.raises(InputError, match="choose another question"):
        trace(methods, other)

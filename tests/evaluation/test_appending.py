"""Methods added to a stored comparison: the same as comparing all at once, and nothing is lost."""

import json
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from ragbook.corpus import QuestionSet
from ragbook.errors import InputError
from ragbook.evaluation import Comparison, compare
from ragbook.evaluation.appending import appended
from ragbook.evaluation.cut import Cut
from tests.evaluation.test_unanswered import QUESTIONS, Method, without
from tests.kills import kills_of

ASKED = without([i % 4 == 0 for i in range(len(QUESTIONS))])
EVERY = {"closed-book": 5, "rag-token": 2, "fid": 3}


def compared(names, questions: QuestionSet = ASKED, k: int = 3, seed: int = 4) -> Comparison:
    methods: list[Any] = [Method(n, EVERY[n], n != "closed-book") for n in names]
    return compare(methods, questions, k=k, seed=seed)


@pytest.mark.parametrize("names", list(permutations(EVERY)))
@pytest.mark.parametrize("cut", [1, 2])
def test_the_same_as_all_methods_at_once(names, cut, tmp_path):
    whole = compared(names)
    compared(names[:cut]).save(tmp_path)  # what the file keeps is enough
    found = appended(Comparison.load(tmp_path), compared(names[cut:]))
    assert json.dumps(found.results) == json.dumps(whole.results)
    assert json.dumps(found.predictions) == json.dumps(whole.predictions)
    assert found.setup == whole.setup
    assert found.markdown() == whole.markdown()


def test_one_method_after_the_other():
    found = compared(["fid"])
    for name in ("rag-token", "closed-book"):
        found = appended(found, compared([name]))
    assert found.results == compared(["fid", "rag-token", "closed-book"]).results


def test_what_differs_is_named():
    before = compared(["closed-book"])
    with pytest.raises(InputError, match="closed-book is among the methods"):
        appended(before, compared(["closed-book"]))
    with pytest.raises(InputError, match=r"^k was 3 in the stored comparison and is 2 now"):
        appended(before, compared(["fid"], k=2))
    with pytest.raises(InputError, match=r"^seed was 4"):
        appended(before, compared(["fid"], seed=5))
    with pytest.raises(InputError, match=r"^questions was numbers, dev, 20"):
        appended(before, compared(["fid"], QuestionSet("numbers", "dev", QUESTIONS)))
    own = [replace(q, id="x") if i == 3 else q for i, q in enumerate(ASKED)]
    with pytest.raises(InputError, match=r"^the id of the question 'Which is 3\?' was 4"):
        appended(before, compared(["fid"], QuestionSet("numbers", "dev", own)))
    one = replace(before, setup=before.setup | {"conditions": {"--beams": 2, "passages": "a"}})
    fid = compared(["fid"])
    two = replace(fid, setup=fid.setup | {"conditions": {"--beams": 4, "passages": "a"}})
    with pytest.raises(InputError, match=r"^--beams was 2 in the stored comparison and is 4 now"):
        appended(one, two)
    with pytest.raises(InputError, match="does not say with what settings"):
        appended(before, two)


def test_an_option_that_the_methods_of_one_alone_follow_does_not_differ():
    pair = [compared(["closed-book"]), compared(["fid"])]
    for comparison, key in zip(pair, ("--lambda", "--free"), strict=True):
        comparison.setup["conditions"] = {key: 1, "--k": 3}
    both = {"--lambda": 1, "--k": 3, "--free": 1}
    assert appended(*pair).setup["conditions"] == both


def test_cut_passages_are_counted_once():
    index = {"passages": 10, "words": 3}
    a = Cut({"p": 1}, {"q": 5, "p": 2})
    b = Cut({"p": 2, "r": 1}, {"q": 7, "s": 1}, index)
    assert a.numbers() == {"cut_passages": 2, "cut_words": 5}  # p and q
    assert a.joined(b).numbers() == {"cut_passages": 12, "cut_words": 7}  # and q and s
    assert a.joined(Cut()).numbers() == a.numbers()
    assert Cut.of({"cut": json.loads(json.dumps(b.as_json()))}) == b
    before, added = compared(["closed-book"]), compared(["fid"])
    before.setup["cut"], added.setup["cut"] = a.as_json(), b.as_json()
    assert appended(before, added).results["cut_passages"] == 12


def test_an_addition_killed_anywhere_loses_nothing():
    kills, said = kills_of("evaluation/killed_additions.py", "17", timeout=600)
    assert not said
    assert kills > 10, "it was killed at too few points to mean anything"

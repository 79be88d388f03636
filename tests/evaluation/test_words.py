"""Sentences of paired tests, with made-up results whose every number is known."""

from itertools import combinations

import pytest

from ragbook.errors import InputError
from ragbook.evaluation.names import capital
from ragbook.evaluation.words import check_claim, in_groups, in_words, order


def results(scores, p=None, metric="em", bounds=0.02):
    """Methods with these scores; every p is 0.0001 but those of `p`, by their pair."""
    p = {frozenset(pair): value for pair, value in (p or {}).items()}
    paired = []
    for a, b in combinations(scores, 2):
        difference = scores[a] - scores[b]
        paired.append(
            {
                "a": a,
                "b": b,
                "metric": metric,
                "difference": difference,
                "ci95": [difference - bounds, difference + bounds / 2],
                "p": p.get(frozenset((a, b)), 0.0001),
            }
        )
    return {"methods": {name: {metric: score} for name, score in scores.items()}, "paired": paired}


FOUR = results(
    {"closed-book": 0.0049, "realm": 0.544, "rag-token": 0.4579, "fid": 0.5489},
    {("realm", "fid"): 0.6199},
)


def test_a_difference_with_its_interval_and_p():
    """0.0910 ahead, [0.071, 0.101]; Holm multiplies the smallest of six p-values by six."""
    sentence = (
        "FiD answers more questions correctly than RAG-Token: 54.8 % against 45.7 %, a difference "
        "of 9.1 points [8.1, 11.1], p < 0.001 after Holm's correction."
    )
    assert in_words(FOUR, "fid", "rag-token") == sentence
    assert in_words(FOUR, "rag-token", "fid") == sentence  # the better one is first in any order


def test_an_interval_is_turned_with_the_difference():
    """Stored as fid - rag-token or as rag-token - fid."""
    other = results({"fid": 0.5489, "rag-token": 0.4579})
    assert "9.1 points [7.1, 10.1]" in in_words(other, "rag-token", "fid")
    assert "9.1 points [8.1, 11.1]" in in_words(FOUR, "rag-token", "fid")


def test_a_difference_that_could_be_chance():
    assert in_words(FOUR, "realm", "fid") == (
        "FiD answers 54.8 % of the questions correctly and REALM 54.4 %; the difference of 0.4 "
        "points [-0.6, 2.4] could be chance (p = 0.61 after Holm's correction)."
    )


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.0009, "p < 0.001"),
        (0.001, "p = 0.001"),
        (0.0499, "p = 0.049"),
        (0.05, "p = 0.050"),
        (0.0999, "p = 0.099"),
        (0.29, "p = 0.29"),
        (0.999, "p = 0.99"),
        (1.0, "p = 1 "),
    ],
)
def test_p_values_are_cut_off(p, words):
    sentence = in_words(results({"fid": 0.6, "realm": 0.5}, {("fid", "realm"): p}), "fid", "realm")
    assert words in sentence
    assert ("could be chance" in sentence) == (p >= 0.05)


def test_holm_decides_and_not_the_raw_value():
    """0.02 is below 0.05, but not three times that."""
    three = results({"fid": 0.6, "realm": 0.5, "knn-lm": 0.4}, dict.fromkeys(
        [("fid", "realm"), ("realm", "knn-lm"), ("fid", "knn-lm")], 0.02))  # fmt: skip
    assert "could be chance (p = 0.060 after" in in_words(three, "fid", "realm")


def test_other_scores_have_sentences_of_their_own():
    for metric, first, second in (
        ("f1", "FiD has a higher F1 than kNN-LM: 60.0 %", "FiD has an F1 of 60.0 % and kNN-LM one"),
        (
            "contains",
            "More answers of FiD than of kNN-LM contain a gold answer: 60.0 %",
            "60.0 % of the answers of FiD contain a gold answer, and 50.0 % of those of kNN-LM;",
        ),
    ):
        scores = {"fid": 0.6, "knn-lm": 0.5}
        assert in_words(results(scores, None, metric), "fid", "knn-lm", metric).startswith(first)
        chance = results(scores, {("fid", "knn-lm"): 0.5}, metric)
        assert in_words(chance, "fid", "knn-lm", metric).startswith(second)


def test_names_with_a_small_letter_keep_it():
    found = results({"closed-book": 0.3, "knn-lm": 0.5, "own": 0.1})
    assert in_words(found, "knn-lm", "closed-book").startswith("kNN-LM answers more")
    assert in_words(found, "closed-book", "own").startswith(
        "The closed book answers more questions"
    )


def test_what_was_not_tested_is_not_said():
    with pytest.raises(InputError, match="no paired test of 'fid' and 'knn-lm' on 'em'"):
        in_words(FOUR, "fid", "knn-lm")
    with pytest.raises(InputError, match="on 'contains'"):
        in_words(FOUR, "fid", "realm", "contains")
    with pytest.raises(InputError, match="no paired test"):
        order({**FOUR, "paired": FOUR["paired"][1:]})
    with pytest.raises(InputError, match="no sentence for 'bleu'"):
        order(FOUR, "bleu")


def test_the_order_is_claimed_where_the_tests_support_it():
    assert order(FOUR) == (
        "By exact match, FiD and REALM come first, then RAG-Token, and last the closed book. Each "
        "step is significant, and no difference within a group is."
    )


def test_groups_in_the_middle_and_at_the_end():
    found = results(
        {"a": 0.9, "b": 0.7, "c": 0.7, "d": 0.4, "e": 0.3},
        {("b", "c"): 0.9, ("d", "e"): 0.9},
        "f1",
    )
    assert order(found, "f1") == (
        "By F1, a comes first, then b and c, and last d and e. Each step is significant, and no "
        "difference within a group is."
    )


def test_what_is_told_apart_within_a_group_is_said():
    """b is behind a and ahead of c by chance; c is behind a, and all are ahead of d."""
    found = results({"a": 0.6, "b": 0.5, "c": 0.4, "d": 0.1}, {("a", "b"): 0.5, ("b", "c"): 0.5})
    assert order(found) == (
        "By exact match, a, b and c come before d. The step is significant; within a group, only a "
        "is ahead of c."
    )
    assert order(results({"a": 0.6, "b": 0.5, "c": 0.4}, {("a", "b"): 0.5, ("b", "c"): 0.5})) == (
        "By exact match, of a, b and c, only a is ahead of c."
    )


def test_pairs_told_apart_are_said_once_for_each_better_one():
    """a is ahead of c and d, b of d alone; neighbours are alike."""
    alike = {("a", "b"): 0.5, ("b", "c"): 0.5, ("c", "d"): 0.5}
    found = results({"a": 0.6, "b": 0.5, "c": 0.4, "d": 0.3}, alike)
    assert order(found) == (
        "By exact match, of a, b, c and d, only a is ahead of c and d, and b of d."
    )


def test_all_told_apart():
    found = results({"fid": 0.6, "realm": 0.5, "knn-lm": 0.4})
    assert order(found) == (
        "By exact match, FiD comes first, then REALM, and last kNN-LM. Each step is significant."
    )
    two = results({"fid": 0.6, "realm": 0.5})
    assert order(two) == ("By exact match, FiD comes before REALM. The step is significant.")


def test_nothing_told_apart_and_one_method():
    tied = results({"fid": 0.5, "realm": 0.5}, {("fid", "realm"): 1.0}, "contains")
    assert order(tied, "contains") == (
        "By the share of answers that contain a gold answer, the difference between FiD and REALM "
        "is not significant."
    )
    assert order(results({"fid": 0.5489})) == "FiD answers 54.8 % of the questions correctly."


def test_a_claim_is_held_against_the_test():
    check_claim(FOUR, "fid > rag-token")
    check_claim(FOUR, "rag-token > closed-book")
    check_claim(FOUR, "realm ~ fid")
    with pytest.raises(
        ValueError, match=r"'fid > realm' is not what was measured: FiD answers 54\.8"
    ):
        check_claim(FOUR, "fid > realm")
    with pytest.raises(ValueError, match="FiD answers more questions correctly than RAG-Token"):
        check_claim(FOUR, "rag-token > fid")
    with pytest.raises(ValueError, match=r"p < 0\.001"):
        check_claim(FOUR, "fid ~ rag-token")
    with pytest.raises(InputError, match="no paired test"):
        check_claim(FOUR, "fid > knn-lm")
    for odd in ("fid", "fid >", "fid = realm", "fid > realm > rag-token"):
        with pytest.raises(InputError, match="is no claim"):
            check_claim(FOUR, odd)


def test_a_sentence_begins_with_a_capital_but_not_kNN():
    assert capital("the end") == "The end"
    assert capital("kNN-LM ends") == "kNN-LM ends"


def test_a_group_begins_where_all_before_are_ahead_of_all_that_follow():
    """fid and realm could be alike, and so could realm and rag-token: the three are one group."""
    assert in_groups(FOUR) == [["fid", "realm"], ["rag-token"], ["closed-book"]]
    chained = results(
        {"fid": 0.5, "realm": 0.4, "rag-token": 0.3, "closed-book": 0.1},
        {("fid", "realm"): 0.5, ("realm", "rag-token"): 0.5},
    )
    assert in_groups(chained) == [["fid", "realm", "rag-token"], ["closed-book"]]

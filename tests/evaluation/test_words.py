"""Sentences of paired tests, with made-up results whose every number is known."""

import random
import re
from itertools import combinations, product

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
        "FiD answers 54.8 % of the questions correctly, significantly more than RAG-Token with "
        "45.7 % (9.1 points [8.1, 11.1], p < 0.001 after Holm's correction)."
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
        "points [-0.5, 2.4] could be chance (p = 0.61 after Holm's correction)."
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
        (
            "f1",
            "FiD has an F1 of 60.0 %, significantly more than kNN-LM with 50.0 % (10.0 points",
            "FiD has an F1 of 60.0 % and kNN-LM one",
        ),
        (
            "contains",
            "60.0 % of the answers of FiD contain a gold answer, significantly more than the "
            "50.0 % of kNN-LM (",
            "60.0 % of the answers of FiD contain a gold answer, and 50.0 % of those of kNN-LM;",
        ),
    ):
        scores = {"fid": 0.6, "knn-lm": 0.5}
        assert in_words(results(scores, None, metric), "fid", "knn-lm", metric).startswith(first)
        chance = results(scores, {("fid", "knn-lm"): 0.5}, metric)
        assert in_words(chance, "fid", "knn-lm", metric).startswith(second)


def test_names_with_a_small_letter_keep_it():
    found = results({"closed-book": 0.3, "knn-lm": 0.5, "own": 0.1})
    assert in_words(found, "knn-lm", "closed-book").startswith("kNN-LM answers 50.0 %")
    assert in_words(found, "closed-book", "own").startswith("The closed-book reader answers 30.0 %")


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
        "By exact match, FiD and REALM come first, RAG-Token second and the closed-book reader "
        "last. Every difference is significant except between FiD and REALM."
    )


def test_three_exceptions_are_parted_by_commas():
    pairs = [("a", "b"), ("c", "d"), ("e", "f")]
    scores = {"a": 0.9, "b": 0.9, "c": 0.6, "d": 0.6, "e": 0.3, "f": 0.3}
    assert order(results(scores, dict.fromkeys(pairs, 0.9))).endswith(
        "Every difference is significant except between a and b, between c and d, and between e "
        "and f."
    )


def test_places_of_three_methods_are_parted_by_semicolons():
    found = results(
        {"a": 0.9, "b": 0.7, "c": 0.7, "d": 0.7, "e": 0.3, "f": 0.3},
        dict.fromkeys([("b", "c"), ("b", "d"), ("c", "d"), ("e", "f")], 0.9),
        "f1",
    )
    assert order(found, "f1") == (
        "By F1, a comes first; b, c and d second; and e and f last. Every difference is "
        "significant except among b, c and d, and between e and f."
    )


def test_what_is_told_apart_within_a_group_is_said():
    """b is behind a and ahead of c by chance; c is behind a, and all are ahead of d and e."""
    chained = {("a", "b"): 0.5, ("b", "c"): 0.5}
    three = {"a": 0.6, "b": 0.5, "c": 0.4}
    assert order(results(three, chained)) == (
        "Among a, b and c, only the lead of a over c is significant in exact match."
    )
    assert order(results({**three, "d": 0.1}, chained)) == (
        "A, b and c are significantly ahead of d in exact match. Within the larger group, only "
        "the lead of a over c is significant."
    )
    assert order(results({**three, "d": 0.1, "e": 0.0}, chained)) == (
        "By exact match, a, b and c come first, d second and e last. Differences between places "
        "are significant; within a place, only the lead of a over c is."
    )


def test_leads_are_said_once_for_each_better_one():
    """a is ahead of c and d, b of d alone; neighbours are alike."""
    alike = {("a", "b"): 0.5, ("b", "c"): 0.5, ("c", "d"): 0.5}
    found = results({"a": 0.6, "b": 0.5, "c": 0.4, "d": 0.3}, alike)
    assert order(found, named=False) == (
        "Among a, b, c and d, only the leads of a over c and d and of b over d are significant."
    )


def test_all_told_apart():
    found = results({"fid": 0.6, "realm": 0.5, "knn-lm": 0.4})
    assert order(found) == (
        "By exact match, FiD comes first, REALM second and kNN-LM last. Every difference is "
        "significant."
    )
    two = results({"fid": 0.6, "realm": 0.5})
    assert order(two) == "FiD is significantly ahead of REALM in exact match."
    assert order(two, named=False) == "FiD is significantly ahead of REALM."


def test_two_groups_say_what_is_open_within_them():
    scores = {"a": 0.9, "b": 0.9, "c": 0.5, "d": 0.5}
    both = results(scores, {("a", "b"): 0.9, ("c", "d"): 0.9})
    assert order(both, named=False) == (
        "A and b are significantly ahead of c and d. The other differences could be chance."
    )
    del scores["b"]
    assert order(results(scores, {("c", "d"): 0.9}), named=False) == (
        "A is significantly ahead of c and d. The other difference could be chance."
    )


def test_nothing_told_apart_and_one_method():
    tied = results({"fid": 0.5, "realm": 0.5}, {("fid", "realm"): 1.0}, "contains")
    assert order(tied, "contains") == (
        "FiD and REALM do not differ significantly in the share of answers that contain a gold "
        "answer."
    )
    three = {"fid": 0.5, "realm": 0.5, "rag-token": 0.5}
    assert order(results(three, dict.fromkeys(combinations(three, 2), 1.0))) == (
        "No two of FiD, REALM and RAG-Token differ significantly in exact match."
    )
    assert order(results({"fid": 0.5489})) == "FiD answers 54.8 % of the questions correctly."


def tied_in_some_way():
    """Every pattern of significant pairs of one to four methods, and some of five and six."""
    drawn = random.Random(0)
    for n in range(1, 7):
        pairs = list(combinations("ABCDEF"[:n], 2))
        patterns = (
            product((False, True), repeat=len(pairs))
            if n <= 4
            else [[drawn.random() < share for _ in pairs] for share in (0.5, 0.8, 0.95) * 60]
        )
        for pattern in patterns:
            yield n, {pair for pair, significant in zip(pairs, pattern, strict=True) if significant}


def claimed(sentence):
    """The pairs that a sentence of order says are significant, read back from its words."""
    named = re.compile(r"\b[A-F]\b").findall
    leads = re.findall(r"of ([A-F]) over ([A-F](?:(?:, | and )[A-F])*)", sentence)
    found = {(a, b) for a, others in leads for b in named(others)}
    first = sentence.split(". ")[0]
    if " significantly ahead of " in first:
        groups = first.split(" ahead of ")
    elif " come" in first:
        groups = re.split(r" comes? first| second| third| fourth| fifth| last", first)
    else:
        groups = []
    for one, other in combinations(map(named, groups), 2):
        found |= set(product(one, other))
    return found


def test_any_pattern_of_ties_makes_a_sentence_that_says_it():
    """What the words claim is what the tests found, each method is named, and the grammar holds."""
    for n, significant in tied_in_some_way():
        scores = {name: 0.9 - place / 10 for place, name in enumerate("ABCDEF"[:n])}
        ties = set(combinations(scores, 2)) - significant
        found = results(scores, dict.fromkeys(ties, 0.9))
        sentence = order(found)
        if n > 1:
            assert claimed(sentence) == significant, sentence
        assert set(re.findall(r"\b[A-F]\b", sentence)) == set(scores), sentence
        clauses = [part.strip() for part in re.split(r"[.,;:]", sentence)]
        verbs = [part for part in clauses if re.search(r" (is|are|come|comes|differ)\b", part)]
        assert len(set(verbs)) == len(verbs), sentence
        plural = len(in_groups(found)[0]) > 1
        for one, many in (("comes first", "come first"), ("is significantly", "are significantly")):
            if re.search(f"{one}|{many}", sentence):
                assert (many if plural else one) in sentence
        assert not re.search(r"lead of[^;]*\bare\b|leads of[^;]*\bis\b", sentence), sentence
        excepted = sentence.partition(" except ")[2]
        if excepted:  # each group of several methods, and no other
            assert sorted(set(re.findall(r"\b[A-F]\b", excepted))) == sorted(
                name for group in in_groups(found) if len(group) > 1 for name in group
            )
        assert not re.search(r"\b1\b|none|  |[,;] [,;.]|\b(and|of|among|between)[.,;]", sentence)
        assert sentence.endswith(".")
        assert ".." not in sentence


def test_a_claim_is_held_against_the_test():
    check_claim(FOUR, "fid > rag-token")
    check_claim(FOUR, "rag-token > closed-book")
    check_claim(FOUR, "realm ~ fid")
    with pytest.raises(
        ValueError, match=r"'fid > realm' is not what was measured: FiD answers 54\.8"
    ):
        check_claim(FOUR, "fid > realm")
    with pytest.raises(ValueError, match="significantly more than RAG-Token"):
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

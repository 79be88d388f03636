"""Chapter 8's checks: what is right passes, and plausible mistakes and what is missing do not."""

import pytest
import torch
from exercises import changed_knowledge as check

from ragbook.evaluation import normalize_answer
from ragbook.evaluation.metrics import exact_match


def unwritten(*_):
    raise NotImplementedError


def marks(texts, accepted):
    return [exact_match(*pair) for pair in zip(texts, accepted, strict=True)]


def sorted_out(then, now, earlier, current, right=exact_match):
    counts = [0, 0, 0, 0]
    for a, b, old, new in zip(then, now, earlier, current, strict=True):
        if right(a, old) and right(b, new):
            counts[0] += 1
        elif right(a, old) and right(b, old):
            counts[1] += 1
        elif right(a, new) and right(b, new):
            counts[2] += 1
        else:
            counts[3] += 1
    return tuple(counts)


def as_written(then, now, earlier, current):
    return sorted_out(then, now, earlier, current, lambda text, known: text in known)


def either_way(then, now, earlier, current):
    turned = sorted_out(now, then, earlier, current)[0]
    followed, stale, ahead, rest = sorted_out(then, now, earlier, current)
    return followed + turned, stale, ahead, rest - turned


def by_the_answers(then, now, earlier, current):
    """Stale is what stays the same, right or wrong."""
    followed, _, ahead, _ = sorted_out(then, now, earlier, current)
    same = sum(normalize_answer(a) == normalize_answer(b) for a, b in zip(then, now, strict=True))
    return followed, same, ahead, len(then) - followed - same - ahead


def twice(then, now, earlier, current):
    old, new = sum(marks(then, earlier)), sum(marks(now, current))
    return 1, old - 1, new - 1, len(then) - 1


def moved(before, after, accepted, same=normalize_answer):
    pairs = list(zip(marks(before, accepted), marks(after, accepted), strict=True))
    other = sum(same(a) != same(b) for a, b in zip(before, after, strict=True))
    return other, pairs.count((False, True)), pairs.count((True, False))


def only_what_counts(before, after, accepted):
    _, better, worse = moved(before, after, accepted)
    return better + worse, better, worse


def silent(before, right, after, spared=0.1, count_all=False):
    sure = sorted(p for p, good in zip(before, right, strict=True) if good or count_all)
    threshold = sure[int(spared * len(sure))]
    return sum(p < threshold for p in after) / len(after)


def lead(likelihood):
    return likelihood[..., 0] - likelihood[..., 1]


def needed(prior, likelihood, false):
    true = prior @ lead(likelihood)
    return true / (true - lead(false))


RIGHT = {"outcomes": sorted_out, "moves": moved, "silenced": silent, "share": needed}
WRONG = {
    "outcomes": (as_written, either_way, by_the_answers, twice),
    "moves": (
        lambda before, after, accepted: moved(before, after, accepted, str),
        only_what_counts,
        lambda before, after, accepted: (*moved(after, before, accepted)[:2], 0),
    ),
    "silenced": (
        lambda before, right, after: silent(before, right, after, spared=0),
        lambda before, right, after: silent(before, right, after, count_all=True),
        lambda before, right, after: silent(before, right, after, spared=0.9),
    ),
    "share": (
        lambda prior, likelihood, false: -(prior @ lead(likelihood)) / lead(false),
        lambda prior, likelihood, false: needed(torch.ones_like(prior) / 2, likelihood, false),
        lambda prior, likelihood, false: needed(prior, likelihood[:1].expand(2, 2), false),
        lambda prior, likelihood, false: 1 - needed(prior, likelihood, false),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_called_right(name, capsys):
    getattr(check, name)(RIGHT[name])
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(("name", "wrong"), [(n, w) for n, wrongs in WRONG.items() for w in wrongs])
def test_a_mistake_gets_a_hint(name, wrong, capsys):
    getattr(check, name)(wrong)
    assert capsys.readouterr().out.startswith("Not right yet: ")


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_missing_is_called_so(name, capsys):
    getattr(check, name)(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"

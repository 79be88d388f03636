"""Chapter 8's checks: what is right passes, and plausible mistakes and what is missing do not."""

import pytest
from exercises import changed_knowledge as check

from ragbook.evaluation import normalize_answer
from ragbook.evaluation.metrics import exact_match


def unwritten(*_):
    raise NotImplementedError


def marks(texts, accepted):
    return [exact_match(*pair) for pair in zip(texts, accepted, strict=True)]


def followed(then, now, earlier, current):
    both = zip(marks(then, earlier), marks(now, current), strict=True)
    return sum(a and b for a, b in both) / len(then)


def product_of_means(then, now, earlier, current):
    return sum(marks(then, earlier)) * sum(marks(now, current)) / len(then) ** 2


def only_now(then, now, earlier, current):
    return sum(marks(now, current)) / len(now)


def as_written(then, now, earlier, current):
    rows = zip(then, now, earlier, current, strict=True)
    return sum(a in x and b in y for a, b, x, y in rows) / len(then)


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


def voted(prior, likelihood):
    return (prior @ likelihood).argmax(), likelihood[prior.argmax()].argmax()


RIGHT = {"follows": followed, "moves": moved, "silenced": silent, "votes": voted}
WRONG = {
    "follows": (product_of_means, only_now, as_written),
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
    "votes": (
        lambda prior, likelihood: (likelihood.sum(0).argmax(), likelihood[prior.argmax()].argmax()),
        lambda prior, likelihood: (
            (prior @ likelihood).argmax(),
            likelihood[likelihood.max(1).values.argmax()].argmax(),
        ),
        lambda prior, likelihood: voted(prior, likelihood)[::-1],
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

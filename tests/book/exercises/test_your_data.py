"""Chapter 12's checks: what is right passes, and plausible mistakes and what is missing do not."""

import csv
import json

import pytest
from exercises import your_data as check

from ragbook.evaluation import normalize_answer


def unwritten(*_):
    raise NotImplementedError


def agreed(first, second, same=normalize_answer):
    pairs = zip(first, second, strict=True)
    return sum(same(a) == same(b) for a, b in pairs) / len(first)


def as_sets(first, second):
    common = set(map(normalize_answer, first)) & set(map(normalize_answer, second))
    return len(common) / (len(set(first) | set(second)))


def written(path, rows, form=json.dumps, columns=("question", "answer", "gold")):
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows([question, form(answers), gold] for question, answers, gold in rows)


def without_quoting(path, rows):
    lines = [",".join([q, json.dumps(answers), gold]) for q, answers, gold in rows]
    path.write_text("\n".join(["question,answer,gold", *lines]), encoding="utf-8")


RIGHT = {"bound": lambda share: 1 + share, "agreement": agreed, "csv": written}
WRONG = {
    "bound": (lambda share: 2 * share, lambda share: 2.0, lambda share: share),
    "agreement": (lambda a, b: agreed(a, b, str), as_sets, lambda a, b: 1 - agreed(a, b) / 2),
    "csv": (
        without_quoting,
        lambda path, rows: written(path, rows, form=", ".join),
        lambda path, rows: written(path, rows, columns=("question", "answer", "source")),
        lambda path, rows: written(path.with_suffix(".txt"), rows),
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

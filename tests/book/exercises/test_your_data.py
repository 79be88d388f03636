"""Chapter 12's checks: what is right passes, and plausible mistakes and what is missing do not."""

import csv
import json

import pytest
from exercises import your_data as check

from ragbook.evaluation import normalize_answer


def unwritten(*_):
    raise NotImplementedError


def voted(answers, same=normalize_answer, enough=0.5):
    out = []
    for texts in answers:
        counts = [sum(same(a) == same(b) for b in texts) for a in texts]
        most = max(counts)
        out.append(texts[counts.index(most)] if most > enough * len(texts) else None)
    return out


def last_wording(answers):
    return voted([texts[::-1] for texts in answers])


def written(path, rows, form=json.dumps, columns=("question", "answer", "gold")):
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows([question, form(answers), gold] for question, answers, gold in rows)


def without_quoting(path, rows):
    lines = [",".join([q, json.dumps(answers), gold]) for q, answers, gold in rows]
    path.write_text("\n".join(["question,answer,gold", *lines]), encoding="utf-8")


RIGHT = {"bound": lambda share: 1 + share, "majority": voted, "csv": written}
WRONG = {
    "bound": (lambda share: 2 * share, lambda share: 2.0, lambda share: share),
    "majority": (
        lambda answers: voted(answers, str),
        lambda answers: voted(answers, enough=0.49),
        lambda answers: voted(answers, enough=0.6),
        last_wording,
        lambda answers: [text and normalize_answer(text) for text in voted(answers)],
    ),
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

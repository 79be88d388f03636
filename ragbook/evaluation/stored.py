"""A comparison's folder, read back: ``results.json``, ``predictions.jsonl`` and ``setup.json``.

Folders that earlier versions wrote are read too; they lack what was not counted yet.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ragbook.corpus.files import checked_text, read_json, read_objects
from ragbook.errors import InputError

RESULTS, PREDICTIONS, SETUP = "results.json", "predictions.jsonl", "setup.json"

_Shape = Mapping[str, type | tuple[type, ...]]
_NUMBER = (int, float)
_MAYBE = (int, float, type(None))
_QUESTIONS: _Shape = {"name": str, "split": str, "n": int}
_WHOLE: _Shape = {"questions": dict, "k": int, "seed": int, "methods": dict, "paired": list}
_METHOD: _Shape = {
    "em": _MAYBE,
    "f1": _MAYBE,
    "recall_at_k": _MAYBE,
    "answer_nll": _MAYBE,
    "evidence_accuracy": _MAYBE,
    "seconds_per_question": _NUMBER,
    "parameters": int,
    "ci95": dict,
}
_PAIR: _Shape = {"a": str, "b": str, "metric": str, "difference": _NUMBER, "p": _NUMBER}
_EVIDENCE: _Shape = {"passage_id": str, "weight": _NUMBER}
_RETRIEVED: _Shape = {"passage_id": str, "score": _NUMBER}


def load(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The content of ``results.json``, the lines of ``predictions.jsonl``, plain or as .gz, and the
    content of ``setup.json``, empty if there is none.

    Raises
    ------
    InputError: a file is missing, damaged or of another shape, or the two do not belong together.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; name one that `ragbook compare` wrote.")
    if not (folder / RESULTS).is_file():
        raise InputError(
            f"{folder} holds no {RESULTS}; name a folder that `ragbook compare --out` has written "
            "to its end."
        )
    results = read_json(folder / RESULTS)
    _check_results(str(folder / RESULTS), results)
    path = folder / PREDICTIONS
    if not path.exists():
        path = folder / f"{PREDICTIONS}.gz"
    if not path.is_file():
        raise InputError(f"{folder} holds no {PREDICTIONS} beside its {RESULTS}; compare anew.")
    names, lines = list(results["methods"]), []
    for number, line in read_objects(path):
        _check_line(f"{path}, line {number}", line, names)
        lines.append(line)
    if len(lines) != results["questions"]["n"]:
        raise InputError(
            f"{path} holds {len(lines):,} questions, and {RESULTS} speaks of "
            f"{results['questions']['n']:,}; the files are damaged or of two comparisons."
        )
    setup = read_json(folder / SETUP) if (folder / SETUP).is_file() else {}
    _check_setup(str(folder / SETUP), setup)
    return results, lines, setup


def _check_setup(where: str, setup: Any) -> None:
    _check(where, setup, {"cut": dict} if setup else {})
    if not isinstance(setup.get("conditions", {}), dict):
        raise InputError(f'{where}: "conditions" must be an object.')
    cut = setup.get("cut", {})
    for key in ("encoder", "reader", "index"):
        words = cut.get(key) or {}
        if not isinstance(words, dict) or not all(type(one) is int for one in words.values()):
            raise InputError(f'{where}: "cut" must hold numbers of words.')
    if cut.get("index") is not None:
        _check(f'{where}, "cut"', cut["index"], {"passages": int, "words": int})


def _check_results(where: str, results: Any) -> None:
    _check(where, results, _WHOLE)
    _check(f'{where}, "questions"', results["questions"], _QUESTIONS)
    if results["questions"]["n"] < 1 or not results["methods"]:
        raise InputError(f"{where} speaks of no question or no method; compare anew.")
    for name, scores in results["methods"].items():
        own = f"{where}, method {name!r}"
        _check(own, scores, _METHOD)
        for metric in scores["ci95"].keys() | {"em", "f1"}:
            ends = scores["ci95"].get(metric)
            known = isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends))
            if not known and not (ends is None and scores.get(metric) is None):
                raise InputError(f'{own}: "ci95" of {metric} must be two numbers.')
    for key, shape in (("paired", _PAIR), ("agreement", {"a": str, "b": str, "share": _NUMBER})):
        pairs = results.get(key, [])
        if not isinstance(pairs, list):
            raise InputError(f'{where}: "{key}" must be a list.')
        for pair in pairs:
            _check(f'{where}, "{key}"', pair, shape)
            ends = pair.get("ci95")
            if not {pair["a"], pair["b"]} <= results["methods"].keys() or not (
                isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends))
            ):
                raise InputError(f'{where}: "{key}" must be of its methods, with "ci95".')


def _check_line(where: str, line: Any, names: Collection[str]) -> None:
    _check(where, line, {"question": str, "answers": list, "methods": dict})
    for answer in line["answers"]:
        checked_text(where, "an answer", answer)
    for key in ("id", "gold_passage"):
        if line.get(key) is not None:
            checked_text(where, f'"{key}"', line[key])
    for passage_id in _items(where, line, "gold_passages"):
        checked_text(where, "a gold id", passage_id)
    for entry in _items(where, line, "retrieved"):
        _check(f'{where}, "retrieved"', entry, _RETRIEVED)
    if set(line["methods"]) != set(names):
        raise InputError(f"{where}: its methods are not those of {RESULTS}.")
    scored = bool(line["answers"])
    for name, entry in line["methods"].items():
        own = f"{where}, method {name!r}"
        _check(own, entry, {"text": str, "log_prob": _MAYBE, "evidence": list})
        for metric in ("em", "f1"):
            if metric not in entry or _is_number(entry[metric]) != scored:
                kind = "a number" if scored else "null, as no answer is known"
                raise InputError(f'{own}: "{metric}" must be {kind}.')
        for each in entry["evidence"]:
            _check(f'{own}, "evidence"', each, _EVIDENCE)


def _items(where: str, line: Mapping[str, Any], key: str) -> list[Any]:
    """The list at a key that earlier versions did not write."""
    items = line.get(key, [])
    if not isinstance(items, list):
        raise InputError(f'{where}: "{key}" must be a list.')
    return items


def _check(where: str, value: Any, shape: _Shape) -> None:
    """Raise InputError unless `value` is an object with these keys, of these types."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: not a JSON object.")
    for key, kind in shape.items():
        if key not in value:
            raise InputError(f'{where}: the key "{key}" is missing.')
        own = value[key]
        fits = isinstance(own, kind) and not isinstance(own, bool)
        if not fits or (isinstance(own, float) and not math.isfinite(own)):
            raise InputError(f'{where}: "{key}" cannot be {_short(own)}.')
        if isinstance(own, str):
            checked_text(where, f'"{key}"', own, may_be_empty=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 40 else f"{said[:40]}..."

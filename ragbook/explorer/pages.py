"""The explorer: web pages that show each question of a comparison with all answers side by side.

:func:`write` makes a folder of static files from the results of :func:`ragbook.compare`:
``explorer.html`` opens from the disk in any browser, without a server and without a network. The
data are scripts, because a page opened from the disk may load no other kind of file. One,
``questions.js``, holds what the list and its filters need; the answers, weights and passages are in
parts of :data:`PART` questions, ``answers-0.js`` and so on, each loaded when it is first needed.
Passages of documents link to pages in the folder ``documents`` (:mod:`ragbook.explorer.documents`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ragbook.corpus import Corpus, Passage, Question
from ragbook.corpus.gold import gold_passage
from ragbook.errors import InputError
from ragbook.evaluation.errors import LABELS, MEANINGS, NAMES
from ragbook.evaluation.lines import gold_passages
from ragbook.evaluation.metrics import normalize_answer
from ragbook.evaluation.names import EVIDENCE, OWN_EVIDENCE
from ragbook.explorer.documents import FOLDER, write_documents
from ragbook.files import write_text

PART = 25
"""How many questions are in one file of answers: some 100 kB."""
ASSETS = ("explorer.html", "explorer.js", "answers.js", "explorer.css")

Prediction = Mapping[str, Any]


def write(
    out: Path,
    predictions: Sequence[Prediction],
    corpus: Corpus,
    questions: Sequence[Question] = (),
    first: str | None = None,
) -> list[Path]:
    """Write the explorer into the folder `out`, which is created if it does not exist.

    Parameters
    ----------
    predictions: lines of ``predictions.jsonl``, with at least one question.
    corpus: holds every passage that an answer relied on. Where the passages are pieces of documents
        that are still as they were, they are linked to them.
    questions: the questions of the comparison; they tell which are confusable or need two passages.
    first: the text of the question that is open when the address names none; otherwise, or if it is
        not among the predictions, the first one is.

    Returns
    -------
    The files written.

    Raises
    ------
    InputError: there is no prediction, or the corpus lacks a passage.
    """
    known = {question.text: question for question in questions}
    parts = [predictions[at : at + PART] for at in range(0, len(predictions), PART)]
    texts = {name: _asset(name) for name in ASSETS}
    opened = None if first is None else question_id(first)
    texts["questions.js"] = _script("questions", index(predictions, known) | {"first": opened})
    details = [
        [detail(line, corpus, known.get(line["question"])) for line in part] for part in parts
    ]
    out.mkdir(parents=True, exist_ok=True)
    shown = [passage for part in details for line in part for passage in line["passages"]]
    pages = [] if corpus.documents is None else _link(out, shown, corpus.documents)
    for number, part in enumerate(details):
        texts[f"answers-{number}.js"] = _script(f"answers[{number}]", part)
    for stale in [*out.glob("answers-[0-9]*.js"), *(out / FOLDER).glob("*.html")]:
        if stale.name not in texts and stale.name not in pages:  # of an earlier comparison
            stale.unlink()
    for name, text in texts.items():
        write_text(out / name, text)
    return [*(out / name for name in texts), *(out / FOLDER / name for name in pages)]


def _link(out: Path, shown: Sequence[dict[str, Any]], documents: Path) -> list[str]:
    """Write the pages of the documents of the shown passages, and set each passage's ``link``, if
    it has one; returns the names of the pages' files."""
    passages = {one["id"]: Passage(one["id"], one["title"], one["text"]) for one in shown}
    links, pages = write_documents(out, passages.values(), documents)
    for one in shown:
        if one["id"] in links:
            one["link"] = links[one["id"]]
    return pages


def index(
    predictions: Sequence[Prediction], known: Mapping[str, Question] | None = None
) -> dict[str, Any]:
    """The data for the list and its filters: for each question one list of values, in the order of
    `fields`.

    ``reading`` are the positions of the methods that rely on passages, ``measures`` says for each
    method what its weights are. ``id`` identifies the
    question in an address; ``right`` has a 1 for each method that is right, a 0 for one that is
    wrong, and a - where no answer is known;
    ``agree`` is whether all methods that read passages gave the same answer, ``found`` whether the
    gold passage was among their passages. ``kinds`` has a character for each method: the position
    of its answer's kind (:mod:`ragbook.evaluation.errors`) in ``errors``, or a -; both are empty if
    the predictions were stored before there were any.
    """
    if not predictions:
        raise InputError("There is no prediction to explore; compare on at least one question.")
    methods = list(predictions[0]["methods"])
    reading = [m for m in methods if any(p["methods"][m]["evidence"] for p in predictions)]
    sorted_out = all("error" in entry for p in predictions for entry in p["methods"].values())
    rows: list[list[Any]] = []
    seen: Counter[str] = Counter()
    for line in predictions:
        key = question_id(line["question"])
        seen[key] += 1
        question = (known or {}).get(line["question"])
        entries = line["methods"]
        given = {normalize_answer(entries[m]["text"]) for m in reading}
        ids = {e["passage_id"] for m in reading for e in entries[m]["evidence"]}
        gold = _gold(line, question)
        rows.append(
            [
                key if seen[key] == 1 else f"{key}-{seen[key]}",  # a question may occur twice
                line["question"],
                " | ".join(line["answers"]),
                question.kind if question else "plain",
                "".join(_digit(entries[m]["em"]) for m in methods),
                int(len(given) <= 1),
                int(not gold.isdisjoint(ids)) if gold else None,
                "".join(_digit(_place(entries[m]["error"])) for m in methods if sorted_out),
            ]
        )
    return {
        "methods": methods,
        "reading": [methods.index(m) for m in reading],
        "measures": [_measure(m, predictions) for m in methods],
        "part": PART,
        "errors": [[n, LABELS[n], MEANINGS[n]] for n in NAMES] if sorted_out else [],
        "fields": ["id", "text", "answers", "kind", "right", "agree", "found", "kinds"],
        "rows": rows,
    }


def _place(error: str | None) -> int | None:
    """The position of a kind of error in `NAMES`; None where no answer is known."""
    return None if error is None else NAMES.index(error)


def _digit(value: int | None) -> str:
    return "-" if value is None else str(int(value))


def _measure(method: str, predictions: Sequence[Prediction]) -> str:
    """What a method's weights are. RAG-Token's had one posterior for the whole answer, as
    RAG-Sequence has, before each token had its own."""
    by_token = any("token_evidence" in line["methods"][method] for line in predictions)
    name = "rag-sequence" if method == "rag-token" and not by_token else method
    return EVIDENCE.get(name, OWN_EVIDENCE)


def detail(
    prediction: Prediction, corpus: Corpus, question: Question | None = None
) -> dict[str, Any]:
    """One question's answers and passages: first the passages that answers relied on, by their mean
    weight, then the gold passage if it is not among them. Weights name passages by position."""
    weights: dict[str, float] = {}
    for entry in prediction["methods"].values():
        for each in entry["evidence"]:
            weights[each["passage_id"]] = weights.get(each["passage_id"], 0.0) + each["weight"]
    used = sorted(weights, key=lambda passage_id: -weights[passage_id])
    gold = _gold(prediction, question)
    marks: dict[str | None, str] = dict.fromkeys(gold, "gold")
    if question is not None:
        marks |= {question.second_passage: "second", question.rival_passage: "rival"}
    named = prediction["question"], tuple(prediction["answers"]), prediction["gold_passage"]
    # None if it is another corpus's; of a document's pieces, one that was read is enough.
    best = gold_passage(corpus, Question(*named)) if gold.isdisjoint(weights) else None
    if best is not None:
        marks.setdefault(best.id, "gold")
    shown = [*used, *([best.id] if best is not None and best.id not in weights else [])]
    return {
        "passages": [_passage(corpus, i, marks.get(i, ""), i in weights) for i in shown],
        "methods": {
            name: {
                "text": entry["text"],
                "log_prob": entry["log_prob"] and round(entry["log_prob"], 3),
                "right": entry["em"] and int(entry["em"]),
                "error": entry.get("error"),
                "f1": entry["f1"] and round(entry["f1"], 3),
                "weights": [
                    [used.index(each["passage_id"]), round(each["weight"], 4), *_fall(each)]
                    for each in sorted(entry["evidence"], key=lambda e: -e["weight"])
                ],
                **_tokens(entry, used),
            }
            for name, entry in prediction["methods"].items()
        },
    }


def _fall(evidence: Mapping[str, Any]) -> tuple[None, float | None] | tuple[()]:
    """How much less likely the answer is without the passage, nats, if that was measured; before
    it, the place of the prior, which is not stored."""
    return (None, evidence["loo"]) if "loo" in evidence else ()


def _tokens(entry: Mapping[str, Any], used: Sequence[str]) -> dict[str, Any]:
    """For each token of an answer the passages' weights, in thousandths, where it has its own."""
    if not entry.get("token_evidence"):
        return {}
    return {
        "tokens": [
            {
                "token": one["token"],
                "weights": {
                    used.index(passage_id): round(weight, 3)
                    for passage_id, weight in one["weights"].items()
                },
            }
            for one in entry["token_evidence"]
        ]
    }


def _gold(prediction: Prediction, question: Question | None) -> set[str]:
    """The ids of the passages that count as gold; none if none is known."""
    if question is not None and question.gold_passage == prediction["gold_passage"]:
        return set(question.gold_passages)
    return set(gold_passages(prediction))


def question_id(text: str) -> str:
    """The question's id in addresses: the first 8 digits of its text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _passage(corpus: Corpus, passage_id: str, mark: str, used: bool) -> dict[str, Any]:
    try:
        passage = corpus.get(passage_id)
    except KeyError:
        raise InputError(
            f"Corpus {corpus.name!r} has no passage {passage_id!r}, which an answer relied on; "
            "give the corpus that the comparison used."
        ) from None
    entry = {"id": passage.id, "title": passage.title, "text": passage.text}
    return entry | {"mark": mark, "used": int(used)}


def _asset(name: str) -> str:
    return resources.files("ragbook.explorer").joinpath(name).read_text(encoding="utf-8")


def _script(name: str, value: Any) -> str:
    """A script that stores the value where the page finds it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"(self.RAGBOOK ??= {{answers: []}}).{name} = {text};\n"

"""What the rows of a table mean as questions: the layouts of the field's data sets.

Each layout turns one row into its questions; None stands for one that its source marks as
unanswerable. Gold ids are those of passages, of documents, or titles of articles, as the source
has them (:mod:`ragbook.corpus.gold` finds what they mean in a corpus).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ragbook.corpus.files import checked_text, text_field
from ragbook.corpus.layouts import whole_number
from ragbook.corpus.tables import Row, chosen, listed
from ragbook.corpus.types import Question
from ragbook.errors import InputError

COLUMNS = {
    "question": ("question", "query", "questions", "input"),
    "answers": (
        "answer",
        "answers",
        "golden_answers",
        "gold_answers",
        "short_answers",
        "reference",
    ),
    "gold": ("gold_passage", "gold_passages", "gold", "gold_id", "gold_ids", "gold_document"),
    "id": ("id", "_id", "qid", "question_id", "query_id"),
}
"""The names, in lower case, that a question's columns are looked for under."""
KNOWN = frozenset(name for names in COLUMNS.values() for name in names) | {"possible_answers"}

Asked = Iterator[Question | None]


class Layout(NamedTuple):
    """`takes` says whether a first row has this layout; `questions` are those of a row, of which
    messages say where it stands."""

    said: str
    takes: Callable[[Row], bool]
    questions: Callable[[str, Row], Asked]


def plain(names: Mapping[str, str | None], cells: bool) -> Callable[[str, Row], Asked]:
    """Rows with a column for the question, and perhaps for its answers, gold passages and id; the
    first row's own names of these columns are given. Lines of JSON need not have the same keys.

    `cells` is whether lists are written within cells of text, as in a CSV file."""

    def questions(where: str, row: Row) -> Asked:
        own = {
            part: name if name in row else chosen(row, COLUMNS[part])
            for part, name in names.items()
        }
        answers, gold, id = (row.get(own[part]) for part in ("answers", "gold", "id"))
        text = text_field(where, row, str(own["question"] or "question"))
        if gold is None:
            gold = _positive(where, row)
        if cells:
            answers, gold = listed(answers), listed(gold)
        yield _question(where, text, answers, gold, id, str(own["answers"]))

    return questions


def _positive(where: str, row: Row) -> Any:
    """The gold id of DPR's retriever files: that of the first positive context. It stands under
    ``passage_id`` in the files for Natural Questions, and under ``psg_id`` in the others."""
    positives = row.get("positive_ctxs") or [{}]
    if not isinstance(positives, list) or not isinstance(positives[0], dict):
        raise InputError(f'{where}: "positive_ctxs" must be a list of objects.')
    gold = positives[0].get("passage_id", positives[0].get("psg_id"))
    if isinstance(gold, float):
        raise InputError(f"{where}: the id of a gold passage must be a string or a number.")
    return gold


def columns_of(row: Row, given: Mapping[str, str]) -> dict[str, str | None]:
    """The row's own names of a question's columns; None for those that it does not have."""
    return {part: given.get(part) or chosen(row, usual) for part, usual in COLUMNS.items()}


def _question(
    where: str, text: str, answers: Any, gold: Any = None, id: Any = None, key: str = "answer"
) -> Question:
    golds = _golds(where, gold)
    return Question(
        text,
        _answers(where, answers, key),
        golds[0] if golds else None,
        id=_id(where, id),
        also_gold=golds[1:],
    )


def _answers(where: str, answers: Any, key: str = "answer") -> tuple[str, ...]:
    """The answers in their order, without repetitions; none where nothing is given."""
    if answers is None or answers == "":
        return ()
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, list):
        raise InputError(f'{where}: "{key}" must be an answer or a list of answers.')
    return tuple(dict.fromkeys(checked_text(where, "an answer", answer) for answer in answers))


def _golds(where: str, gold: Any) -> tuple[str, ...]:
    """The gold ids, one or several."""
    if gold is None or gold == "":
        return ()
    found = []
    for own in gold if isinstance(gold, list) else [gold]:
        id = own if isinstance(own, str) else whole_number(own)
        if id is None:
            raise InputError(f"{where}: the id of a gold passage must be a string or a number.")
        found.append(checked_text(where, "the gold id", id))
    return tuple(dict.fromkeys(found))


def _id(where: str, own: Any) -> str | None:
    """The question's own id, a string or a whole number; None if it has none."""
    if own is not None and not isinstance(own, str):
        own = whole_number(own) or own
    return None if own is None else checked_text(where, '"id"', own)


def _list(where: str, value: Any, key: str) -> list[Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: not a JSON object.")
    if not isinstance(value.get(key), list):
        raise InputError(f'{where}: the list "{key}" is missing.')
    return value[key]


def _squad(where: str, row: Row) -> Asked:
    """SQuAD 1.1 and 2.0. The contexts are whole paragraphs and not passages of a corpus, so that no
    gold passage is known."""
    file = where.rpartition(", entry")[0] or where
    for a, article in enumerate(_list(file, row, "data"), 1):
        for p, paragraph in enumerate(_list(f"{file}, article {a}", article, "paragraphs"), 1):
            place = f"{file}, article {a}, paragraph {p}"
            for q, qa in enumerate(_list(place, paragraph, "qas"), 1):
                own = f"{place}, question {q}"
                answers = _list(own, qa, "answers")
                text = text_field(own, qa, "question")
                texts = [one.get("text") if isinstance(one, dict) else None for one in answers]
                empty = qa.get("is_impossible") or not answers
                yield None if empty else _question(own, text, texts, id=qa.get("id"))


def _squad_row(where: str, row: Row) -> Asked:
    """A row of SQuAD as Hugging Face's data set has it."""
    texts = row["answers"].get("text")
    text = text_field(where, row, "question")
    yield _question(where, text, list(texts), id=row.get("id")) if texts else None


def _mrqa(where: str, row: Row) -> Asked:
    """A context with its questions; the first line is a header."""
    if "header" in row:
        return
    for n, qa in enumerate(_list(where, row, "qas"), 1):
        own = f"{where}, question {n}"
        text = text_field(own, qa, "question")
        yield _question(own, text, qa.get("answers"), id=qa.get("qid", qa.get("id")))


def _triviaqa(where: str, row: Row) -> Asked:
    file = where.rpartition(", entry")[0] or where
    for n, entry in enumerate(_list(file, row, "Data"), 1):
        own = f"{file}, question {n}"
        text = text_field(own, entry, "Question")
        yield _question(own, text, _values(entry.get("Answer")), id=entry.get("QuestionId"))


def _triviaqa_row(where: str, row: Row) -> Asked:
    """A row of TriviaQA as Hugging Face's data set has it."""
    text = text_field(where, row, "question")
    yield _question(where, text, _values(row["answer"]), id=row.get("question_id"))


def _values(answer: Mapping[str, Any] | None) -> list[Any] | None:
    """The value and its aliases; none in the test set, whose answers are not public."""
    if not answer:
        return None
    value = answer.get("Value", answer.get("value"))
    if value in (None, "", "<unk>"):
        return None
    aliases = answer.get("Aliases", answer.get("aliases")) or []
    return [value, *(alias for alias in aliases if isinstance(alias, str) and alias.strip())]


def _webquestions(where: str, row: Row) -> Asked:
    text = text_field(where, row, "utterance")
    found = _DESCRIPTION.findall(str(row["targetValue"]))
    answers = [re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in found]
    yield _question(where, text, answers, id=row.get("id"))


_DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)+)"|([^()"]+))\)')


def _hotpotqa(where: str, row: Row) -> Asked:
    """HotpotQA and 2WikiMultihopQA: the gold documents are named by their titles."""
    facts = row["supporting_facts"]
    titles = facts["title"] if isinstance(facts, dict) else [fact[0] for fact in facts]
    text = text_field(where, row, "question")
    id = row.get("_id", row.get("id"))
    yield _question(where, text, row.get("answer"), list(dict.fromkeys(titles)), id)


def _musique(where: str, row: Row) -> Asked:
    text = text_field(where, row, "question")
    if row.get("answerable") is False:
        yield None
        return
    titles = [p["title"] for p in row["paragraphs"] if p.get("is_supporting")]
    answer, aliases = row.get("answer"), row.get("answer_aliases") or []
    answers = None if answer is None else [answer, *aliases]
    yield _question(where, text, answers, list(dict.fromkeys(titles)), row.get("id"))


def _popqa(where: str, row: Row) -> Asked:
    text = text_field(where, row, "question")
    yield _question(where, text, listed(row["possible_answers"]), id=row.get("id"))


def _kilt(where: str, row: Row) -> Asked:
    """KILT: the gold documents are pages of its knowledge source."""
    text = text_field(where, row, "input")
    outputs = row.get("output") or []
    answers = [one["answer"] for one in outputs if one.get("answer")]
    pages = [
        str(place["wikipedia_id"])
        for one in outputs
        for place in one.get("provenance") or []
        if place.get("wikipedia_id") is not None
    ]
    yield _question(where, text, answers, pages, row.get("id"))


def _beir(where: str, row: Row) -> Asked:
    yield _question(where, text_field(where, row, "text"), None, id=row.get("_id"))


LAYOUTS = {
    "squad": Layout("SQuAD", lambda row: isinstance(row.get("data"), list), _squad),
    "triviaqa": Layout("TriviaQA", lambda row: isinstance(row.get("Data"), list), _triviaqa),
    "mrqa": Layout("MRQA", lambda row: "header" in row or isinstance(row.get("qas"), list), _mrqa),
    "squad-rows": Layout(
        "SQuAD's rows",
        lambda row: isinstance(row.get("answers"), dict) and "text" in row["answers"],
        _squad_row,
    ),
    "triviaqa-rows": Layout(
        "TriviaQA's rows",
        lambda row: isinstance(row.get("answer"), dict) and "aliases" in row["answer"],
        _triviaqa_row,
    ),
    "webquestions": Layout(
        "WebQuestions", lambda row: "utterance" in row and "targetValue" in row, _webquestions
    ),
    "hotpotqa": Layout(
        "HotpotQA's layout, with titles of the gold articles",
        lambda row: "supporting_facts" in row,
        _hotpotqa,
    ),
    "musique": Layout(
        "MuSiQue, with titles of the gold articles",
        lambda row: isinstance(row.get("paragraphs"), list) and "question" in row,
        _musique,
    ),
    "popqa": Layout("PopQA", lambda row: "possible_answers" in row, _popqa),
    "kilt": Layout(
        "KILT",
        lambda row: "input" in row and ("output" in row or "meta" in row),
        _kilt,
    ),
    "beir": Layout(
        "BEIR's queries",
        lambda row: "_id" in row and "text" in row and "question" not in row,
        _beir,
    ),
}
"""The layouts that are more than columns with names."""

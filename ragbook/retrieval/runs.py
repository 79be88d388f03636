r"""Run files, TREC's form of a ranking, and a retriever that gives what stands in one.

A line is `question Q0 passage rank score tag`, separated by white space. As in trec_eval, the order
is that of the scores alone, as float32, and of equal ones that of the passages' ids, the last in
the alphabet first; the column of ranks is not read, and is written in this same order. So every
tool sees the ranking that is measured here.

An id with white space cannot stand in such a file. Each white space is written as the percent code
of its UTF-8 bytes (`guide/my%20setup.md#L12`), which other tools take as part of the id, and so is
a percent sign that would be read as the beginning of such a code; all other ids stand as they are.
`read_run` turns the codes back.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ragbook.corpus import Question
from ragbook.corpus.files import bare_name, located, read_lines
from ragbook.errors import InputError
from ragbook.files import write_whole
from ragbook.retrieval.base import Retrieved

if TYPE_CHECKING:
    from ragbook.corpus import Corpus

NATS = 5.0
"""How much likelier p(z | x) makes the best passage of a run than the one at `PLACE`, in nats, for
the median question."""
PLACE = 5

_COLUMN = re.compile(r"[^ \t\n\r\v\f]+")  # what C's isspace, and so trec_eval, splits at
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
_CODES = {"".join(f"%{byte:02X}" for byte in one.encode()): one for one in (*_SPACES, "%")}
_CODE = re.compile("|".join(_CODES))
_TO_ESCAPE = re.compile(rf"%(?={'|'.join(code[1:] for code in _CODES)})|\s")
_TOO_GREAT = 2.0**128 - 2.0**103  # rounded to float32, it is infinite
_OTHER_ENDINGS = (".bz2", ".xz", ".zst", ".zip")


class Ranked(Protocol):
    """Passages with scores; a `Retrieved` and a `Ranking` are."""

    @property
    def ids(self) -> Sequence[str]:
        """The passages' ids."""
        ...

    @property
    def scores(self) -> np.ndarray:
        """Their scores, [n]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """One question's part of a run: passages' ids and their scores, float32 [n], best first."""

    ids: tuple[str, ...]
    scores: np.ndarray


def ranking(found: Ranked) -> Ranking:
    """The ranking of a question's passages by their scores as float32, equal ones by their ids, the
    last in the alphabet first: trec_eval's order."""
    ids, scores = found.ids, np.asarray(found.scores, dtype=np.float32)
    order = np.argsort(-scores, kind="stable").tolist()
    ordered = scores[order]
    if (ordered[1:] == ordered[:-1]).any():
        # By code points, which is also the order of the bytes in UTF-8.
        order = sorted(range(len(ids)), key=lambda i: (float(scores[i]), ids[i]), reverse=True)
        ordered = scores[order]
    return Ranking(tuple(ids[i] for i in order), ordered)


def escaped(identifier: str) -> str:
    """An id as it stands in a run or qrels file; see the module.

    Raises
    ------
    InputError: the id is empty, or no text that UTF-8 can write.
    """
    try:
        identifier.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The id {identifier!r} holds half a surrogate pair, which is not Unicode text; give "
            "it another id."
        ) from None
    if not identifier:
        raise InputError("An empty id cannot stand in a run or qrels file; give each one an id.")
    return _TO_ESCAPE.sub(_code, identifier)


def _code(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def unescaped(column: str) -> str:
    """The id that `escaped` wrote so."""
    if "%" not in column:
        return column
    return _CODE.sub(lambda match: _CODES[match[0]], column)


def columns(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, its columns) of a file whose columns are separated by white space, as trec_eval
    reads it; blank lines are skipped. `-` is standard input."""
    for number, line in enumerate(read_lines(located(path)), 1):
        if found := _COLUMN.findall(line):
            yield number, found


def read_run(path: Path | str) -> dict[str, Ranking]:
    """The rankings of a run file, plain or compressed, by the questions' ids, in the file's order.

    Raises
    ------
    InputError: a line has not six columns, a score is no finite number, a passage stands twice in
        one question's ranking, or there is no line at all; the message names file and line.
    """
    path = Path(path)
    known: dict[str, str] = {}  # an id that many questions have is stored once
    found: dict[str, tuple[list[str], array[float], array[int]]] = {}
    for number, line in columns(path):
        if len(line) != 6:
            raise InputError(
                f"{path}, line {number}: {len(line)} columns; a line of a run file has six, "
                "separated by white space: question, Q0, passage, rank, score, tag."
            )
        question, _, passage, _, score, _ = line
        if question not in found:
            found[question] = ([], array("f"), array("L"))
        ids, scores, lines = found[question]
        ids.append(known.setdefault(passage, passage))
        scores.append(_score(path, number, score))
        lines.append(number)
    if not found:
        raise InputError(
            f"{path} holds no ranking; a line of a run file is: question, Q0, passage, rank, "
            "score, tag."
        )
    run: dict[str, Ranking] = {}
    for question in list(found):
        ids, scores, lines = found.pop(question)
        if len(set(ids)) < len(ids):
            at = _first_repeated(ids)
            raise InputError(
                f"{path}, line {lines[at]}: the passage {ids[at]!r} stands in line "
                f"{lines[ids.index(ids[at])]} already for the question {question!r}; remove one of "
                "the two."
            )
        own = Ranking(tuple(map(unescaped, ids)), np.frombuffer(scores, np.float32))
        run[unescaped(question)] = ranking(own)
    return run


def _score(path: Path, number: int, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not abs(score) < _TOO_GREAT or "_" in text:
        raise InputError(
            f"{path}, line {number}: the score {text!r} is no finite number that fits into 32 "
            "bits; the columns are question, Q0, passage, rank, score, tag."
        )
    return score


def _first_repeated(ids: Iterable[str]) -> int:
    """The place of the first id that stands before it already."""
    seen: set[str] = set()
    for at, one in enumerate(ids):
        if one in seen:
            return at
        seen.add(one)
    raise ValueError("no id is repeated")


def write_run(path: Path | str, run: Mapping[str, Ranked], tag: str = "ragbook") -> None:
    """Write rankings as a run file, gzip if its name ends in .gz; the file is there whole or not at
    all. `read_run` gives the same order and the same float32 scores.

    Parameters
    ----------
    run: by the questions' ids; a question without passages has no line.
    tag: the last column, the name of the system.

    Raises
    ------
    InputError: a score is not finite, a passage stands twice in a ranking, or an id is empty.
    """
    write_columns(Path(path), _run_lines(run, escaped(tag)))


def _run_lines(run: Mapping[str, Ranked], tag: str) -> Iterator[str]:
    for question, found in run.items():
        name = escaped(question)
        if len(set(found.ids)) < len(found.ids):
            twice = found.ids[_first_repeated(found.ids)]
            raise InputError(
                f"The passage {twice!r} is ranked twice for the question {question!r}; a run has "
                "each passage once."
            )
        ordered = ranking(found)
        if not np.isfinite(ordered.scores).all():
            raise InputError(
                f"The ranking of the question {question!r} has a score that is not a finite "
                "number, which a run file cannot hold."
            )
        rows = zip(ordered.ids, ordered.scores.tolist(), strict=True)
        for rank, (passage, score) in enumerate(rows, 1):
            # Nine digits tell every float32 from every other.
            yield f"{name} Q0 {escaped(passage)} {rank} {score:.9g} {tag}\n"


def write_columns(path: Path, lines: Iterable[str]) -> None:
    """Write lines in UTF-8, gzip if the file's name ends in .gz, whole or not at all.

    Raises
    ------
    InputError: the name is that of another compression.
    """
    if path.suffix.lower() in _OTHER_ENDINGS:
        raise InputError(f"{path} would be compressed as {path.suffix}; name it .gz, or plain.")

    def write(file: Any) -> None:
        # Without the time, equal rankings are equal files.
        stream = gzip.GzipFile("", "wb", 6, file, mtime=0) if zipped else file
        for line in lines:
            stream.write(line.encode())
        if zipped:
            stream.close()

    zipped = path.suffix.lower() == ".gz"
    write_whole(path, write)


def likely_scale(rankings: Iterable[Ranked]) -> float:
    r"""The factor of a run's scores in the softmax that gives p(z | x), for scores of any kind:

    \[ \text{score\_scale} = \frac{5}{\mathrm{median}_x(s_{x,1} - s_{x,5})} \]

    with \(s_{x,i}\) the i-th best score for question x (the last where there are fewer). The
    differences of a question's scores still count: where its best passage stands out more than
    usual, p(z | x) is surer of it. A constant that is added to scores, or by which all are
    multiplied, changes nothing.

    5 nats are about what fits best where it can be measured: with the factor that makes the gold
    passages of MiniWiki's dev questions likeliest among the 5 best, the median is 5.7 for the
    bundled dense retriever and 5.1 for BM25.

    Returns
    -------
    1.0 if no question's scores differ.
    """
    gaps = [
        float(found.scores[0]) - float(found.scores[min(PLACE, len(found.scores)) - 1])
        for found in rankings
        if len(found.scores) > 1
    ]
    middle = float(np.median(gaps)) if gaps else 0.0
    gap = middle or (math.fsum(gaps) / len(gaps) if gaps else 0.0)
    return NATS / gap if gap and math.isfinite(NATS / gap) else 1.0


class RunRetriever:
    """Gives the ranking that a run has for a question, by the question's `id`.

    Passages that the corpus does not have are left out; a question that the run does not have gets
    none at all.

    Parameters
    ----------
    corpus: has the passages.
    run: a run file, or rankings by question, as `read_run` gives them.
    name: the retriever's name in tables, by default that of the file, or `run`.
    score_scale: factor of the scores in the softmax that gives p(z | x); by default
        `likely_scale` of the run.

    Attributes
    ----------
    unknown: how many different passages of the run the corpus does not have.

    Raises
    ------
    InputError: the file is malformed, or the corpus has none of the run's passages.
    """

    def __init__(
        self,
        corpus: Corpus,
        run: Path | str | Mapping[str, Ranked],
        name: str | None = None,
        score_scale: float | None = None,
    ) -> None:
        if isinstance(run, Mapping):
            self.name = name or "run"
            self.run = {question: ranking(found) for question, found in run.items()}
        else:
            self.name, self.run = name or bare_name(Path(run)), read_run(run)
        self.corpus = corpus
        named = {passage for found in self.run.values() for passage in found.ids}
        # An id of another's file may hold what looks like a code of `escaped`, and be none.
        wanted = named | {escaped(one) for one in named}
        # The ids are read once, so that those of all of Wikipedia need not be in memory.
        self._positions = {
            passage: at for at, passage in enumerate(corpus.ids()) if passage in wanted
        }
        self.unknown = sum(self._position(passage) is None for passage in named)
        if self.unknown == len(named):
            raise InputError(
                f"Not one of the {len(named):,} passages of run {self.name!r}, such as "
                f"{min(named, default='')!r}, is in corpus {corpus.name!r}; name the corpus that "
                "the run searched."
            )
        self.score_scale = likely_scale(self.run.values()) if score_scale is None else score_scale

    def _position(self, passage: str) -> int | None:
        found = self._positions.get(passage)
        return self._positions.get(escaped(passage)) if found is None else found

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the run's questions, passages and scores."""
        digest = hashlib.sha256()
        for question, found in self.run.items():
            digest.update(repr((question, found.ids)).encode("utf-8", "surrogatepass"))
            digest.update(np.ascontiguousarray(found.scores, "<f4").tobytes())
        return digest.hexdigest()

    def serves(self, question: Question) -> bool:
        """Whether the run has a ranking for the question with a passage of the corpus."""
        found = self.run.get(question.id or "")
        return found is not None and any(self._position(one) is not None for one in found.ids)

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """The first k passages of each question's ranking that the corpus has; see `Retriever`.

        Raises
        ------
        InputError: k < 1, or a question has no id.
        """
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}.")
        return [self._found(question, k) for question in questions]

    def _found(self, question: Question, k: int) -> Retrieved:
        if question.id is None:
            raise InputError(
                f"The question {question.text!r} has no id, by which a run would know it; number "
                "the questions with `QuestionSet.numbered`."
            )
        own = self.run.get(question.id)
        rows: list[tuple[int, int]] = []  # places in the ranking and in the corpus
        for at, passage in enumerate(() if own is None else own.ids):
            position = self._position(passage)
            if position is not None:
                rows.append((at, position))
                if len(rows) == k:
                    break
        passages = tuple(self.corpus[position] for _, position in rows)
        scores = np.array([] if own is None else own.scores[[at for at, _ in rows]], np.float32)
        return Retrieved(tuple(p.id for p in passages), scores, passages)

"""What the rows of a table mean as passages: the layouts that the field's tools and data sets have.

* plain: columns for id, title and text under their usual names, or those that are given: DPR's TSV,
  BEIR's ``corpus.jsonl`` (``_id``), any CSV, Parquet file or data set. Without an id column a row's
  number is its id; without a title column there are no titles.
* contents: Pyserini and FlashRAG (``id``, ``contents``, whose first line is the title).
* kilt: KILT's knowledge source, whole articles as lists of paragraphs.
* langchain: LangChain's documents (``page_content``, ``metadata``), as dictionaries or as its
  `dumps` writes them.
* llamaindex: LlamaIndex' nodes and documents (``id_``, ``text``, ``metadata``), one a row or as in
  ``docstore.json``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ragbook.corpus.files import checked_text
from ragbook.corpus.ids import is_number
from ragbook.corpus.tables import FORMS, Row, Table, chosen
from ragbook.corpus.types import Passage
from ragbook.errors import InputError

COLUMNS = {
    "id": ("id", "_id", "docid", "doc_id", "passage_id", "psg_id", "pid", "docno", "wikipedia_id"),
    "title": ("title", "wikipedia_title", "doc_title", "name", "heading"),
    "text": ("text", "contents", "content", "passage", "paragraph_text", "body", "page_content"),
}
"""The names, in lower case, that a passage's columns are looked for under."""
KNOWN = frozenset(name for names in COLUMNS.values() for name in names)

Parts = tuple[Any, Any, Any]  # id (None: none), title and text, not checked yet


class Layout(NamedTuple):
    """`takes` says whether a first row has this layout, `parts` what a row holds; `whole` is
    whether texts are whole articles, which are cut if nothing else is said."""

    said: str
    takes: Callable[[Row], bool]
    parts: Callable[[Row], Iterator[Parts]]
    whole: bool = False


@dataclass(frozen=True)
class Read:
    """The passages of a table, as a stream of (number of the row, passage), how the table was
    understood (None for the two forms that need no word: DPR's, and JSON lines with the keys id,
    title and text), and whether the passages are whole articles."""

    said: str | None
    passages: Iterator[tuple[int, Passage]]
    whole: bool = False


def read_layout(table: Table, layout: str | None, columns: Mapping[str, str]) -> Read:
    """The passages of a table.

    Parameters
    ----------
    layout: one of `LAYOUTS`, or "plain"; by default what the first row says.
    columns: the table's own names of the columns "id", "title" and "text", where they are not the
        usual ones.

    Raises
    ------
    InputError: a named column is missing, or there is none for the text; when the passages are
        read, for the first row that is no passage.
    """
    number, first = table.first()
    if layout is None and not columns:
        layout = next((name for name, one in LAYOUTS.items() if one.takes(first)), None)
    if layout in LAYOUTS:
        one = LAYOUTS[layout]
        return Read(f"{FORMS[table.form]}, {one.said}", _checked(table, one.parts), one.whole)
    names = _columns(table, number, first, columns)
    usual = all(part == own for part, own in names.items()) and table.form in ("tsv", "jsonl")
    said = ", ".join(f"{part} from {own!r}" for part, own in names.items() if own is not None)
    if names["id"] is None:
        said = f"ids are the numbers of {table.unit}s, {said}"
    return Read(None if usual else f"{FORMS[table.form]}, {said}", _plain(table, **names))


def _columns(
    table: Table, number: int, first: Row, given: Mapping[str, str]
) -> dict[str, str | None]:
    """The names of the columns for id, title and text; None for one that there is not."""
    for part, own in given.items():
        if first and own not in first:
            raise InputError(
                f"{table.where(number)}: there is no column {own!r} for the {part}; there are "
                f"{_shown(first)}."
            )
    names = {part: given.get(part) or chosen(first, usual) for part, usual in COLUMNS.items()}
    headless = table.numbered and table.form == "tsv" and not given
    if headless and len(first) == 2 and is_number(first["1"]):  # MS MARCO's collection
        names |= {"id": "1", "text": "2"}
    if first and names["text"] is None:
        raise InputError(
            f"{table.where(number)}: which column holds the text is not known, of {_shown(first)}; "
            "name them, as in --columns id=doc,title=name,text=body (without a header, their "
            "numbers, as in id=1,text=2)."
        )
    return names


def _shown(row: Row) -> str:
    keys = [repr(str(key)) for key in row]
    return ", ".join(keys[:12]) + (", ..." if len(keys) > 12 else "")


def _plain(
    table: Table, id: str | None, title: str | None, text: str | None
) -> Iterator[tuple[int, Passage]]:
    """What is plain text is seen at once, as a corpus may have millions of rows."""
    names = (id, title, text)
    if table.blocks is not None:
        for first, columns in table.blocks(names):
            if all(map(_is_plain, columns)) and all(columns[0]) and all(columns[2]):
                yield from enumerate(map(Passage, *columns), first)
            else:
                for number, values in enumerate(zip(*columns, strict=True), first):
                    yield number, _passage(table, number, *values)
        return
    if table.cells is not None:
        cells = table.cells(names)
    else:
        cells = ((number, _cells(row, names)) for number, row in table.rows())
    for number, (own, name, words) in cells:
        if (
            type(own) is type(name) is type(words) is str
            and own.isascii()
            and name.isascii()
            and words.isascii()
            and own
            and words
            and not own.isspace()
            and not words.isspace()
        ):
            yield number, Passage(own, name, words)
            continue
        if table.form == "hf" and isinstance(words, str) and not words.strip():
            continue  # some articles of Wikipedia's data sets are empty
        yield number, _passage(table, number, own, name, words)


def _is_plain(column: list[Any]) -> bool:
    """Whether all cells are text in ASCII and none is blank, though it may be empty."""
    return (
        set(map(type, column)) <= {str}
        and all(map(str.isascii, column))
        and not any(map(str.isspace, column))
    )


def _cells(row: Row, names: tuple[str | None, str | None, str | None]) -> tuple[Any, ...]:
    """The values under some names or, as lines of JSON need not have the keys of the first, under
    any of the usual ones."""
    found = row.get(names[0]), row.get(names[1]), row.get(names[2])
    if None not in found:
        return found
    usual = (row.get(chosen(row, COLUMNS[part])) for part in ("id", "title", "text"))
    return tuple(other if own is None else own for own, other in zip(found, usual, strict=True))


def _checked(
    table: Table, parts: Callable[[Row], Iterator[Parts]]
) -> Iterator[tuple[int, Passage]]:
    pieces: dict[str, int] = {}  # of each source whose pieces have no ids, how many there were
    for number, row in table.rows():
        try:
            for id, title, text in parts(row):
                own = id
                if isinstance(own, _Source):
                    pieces[own.name] = pieces.get(own.name, 0) + 1
                    own = f"{own.name}-{pieces[own.name]}"
                yield number, _passage(table, number, own, title, text)
        except InputError:
            raise
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise InputError(
                f"{table.where(number)}: this is not of the layout that the first {table.unit} "
                f"has ({error!r}); give the file in one layout, or name it with --format."
            ) from None


class _Source(NamedTuple):
    """The document that a piece without an id is of."""

    name: str


def _passage(table: Table, number: int, id: Any, title: Any, text: Any) -> Passage:
    """The passage of the values of a row; its number is its id if it has none."""
    where = table.where(number)
    id = number if id is None else id
    own = id if isinstance(id, str) else whole_number(id)
    if own is None:
        raise InputError(
            f"{where}: the id must be a string or a whole number, not {type(id).__name__}."
        )
    if text is None:
        raise InputError(f"{where}: the text is missing.")
    return Passage(
        checked_text(where, "the id", own),
        "" if title is None else checked_text(where, "the title", title, may_be_empty=True),
        checked_text(where, "the text", text),
    )


def whole_number(value: Any) -> str | None:
    """A whole number as the id that it is; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():  # a column with gaps, read by pandas
        value = int(value)
    try:
        return str(value) if isinstance(value, int) else None
    except ValueError:  # thousands of digits
        return None


def _contents(row: Row) -> Iterator[Parts]:
    """The first line is the title, in FlashRAG's files within quotes; a text of one line has
    none."""
    id, text = _get(row, "id", "_id", "docid"), _get(row, "contents")
    title, found, rest = text.partition("\n") if isinstance(text, str) else ("", "", text)
    title = title.strip()
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1].replace('""', '"')
    own = row.get("title")
    if own and own != title:  # then the first line is of the text
        yield id, own, text
    elif found and isinstance(rest, str) and rest.strip():
        yield id, title, rest.strip()
    else:
        yield id, own, text


def _kilt(row: Row) -> Iterator[Parts]:
    """The first paragraph repeats the title; marks before sections and list items are left out."""
    title = row["wikipedia_title"]
    paragraphs = [_KILT_MARK.sub("", part).strip() for part in row["text"]]
    if paragraphs and paragraphs[0] == title.strip():
        del paragraphs[0]
    text = " ".join(part for part in paragraphs if part)
    yield _get(row, "wikipedia_id", "_id"), title, text or title


_KILT_MARK = re.compile(r"^(Section::::|BULLET::::-?|PREFORMATTED::::)")


def _langchain(row: Row) -> Iterator[Parts]:
    """A document without an id is named by its source."""
    own = row["kwargs"] if "lc" in row else row
    metadata = own.get("metadata") or {}
    yield own.get("id") or _source(metadata), _title(metadata), own["page_content"]


def _llamaindex(row: Row) -> Iterator[Parts]:
    held = row.get("docstore/data")
    nodes = [row] if held is None else [one.get("__data__", one) for one in held.values()]
    for node in nodes:
        node = node.get("__data__", node)
        metadata = node.get("metadata") or node.get("extra_info") or {}
        text = node.get("text")
        if text is None:
            text = node["text_resource"]["text"]
        id = _get(node, "id_", "node_id", "doc_id", "id")
        yield id or _source(metadata), _title(metadata), text


def _source(metadata: Mapping[str, Any]) -> _Source | None:
    name = _get(metadata, "source", "file_path", "file_name")
    return _Source(name) if isinstance(name, str) and name.strip() else None


def _title(metadata: Mapping[str, Any]) -> Any:
    """The title, or the name of the file."""
    title = metadata.get("title")
    if title:
        return title
    name = _get(metadata, "file_name", "source", "file_path")
    return PurePosixPath(name).name if isinstance(name, str) else ""


def _get(row: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    return None


LAYOUTS = {
    "kilt": Layout(
        "KILT's knowledge source",
        lambda row: "wikipedia_title" in row and isinstance(row.get("text"), list),
        _kilt,
        whole=True,
    ),
    "langchain": Layout(
        "LangChain's documents", lambda row: "page_content" in row or "lc" in row, _langchain
    ),
    "llamaindex": Layout(
        "LlamaIndex' nodes",
        lambda row: bool({"docstore/data", "id_", "__data__", "text_resource"} & row.keys()),
        _llamaindex,
    ),
    "contents": Layout(
        "of each contents the first line is the title",
        lambda row: "contents" in row and "text" not in row,
        _contents,
    ),
}
"""The layouts that are more than columns with names."""

"""Rows with named columns, from whatever holds them: JSON, JSON lines, CSV and TSV, Parquet, Arrow,
a folder that `save_to_disk` wrote, a folder of such files, or a data set of the Hugging Face hub.

What a file is, its content says, never its name alone. Rows come as dictionaries, as a stream; what
they mean, :mod:`ragbook.corpus.layouts` and :mod:`ragbook.corpus.question_layouts` know.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ragbook import manifests
from ragbook.corpus.files import (
    beginning,
    first_line,
    format_suffix,
    read_json,
    read_lines,
    read_objects,
    read_rows,
)
from ragbook.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[Any, Any]  # of text keys; any other key, None too, is one that it does not have
Rows = Iterator[tuple[int, Row]]
Cells = Iterator[tuple[int, tuple[Any, ...]]]
Blocks = Iterator[tuple[int, list[list[Any]]]]

FORMS = {
    "jsonl": "JSON lines",
    "json": "JSON",
    "tsv": "tab-separated",
    "csv": "comma-separated",
    "parquet": "Parquet",
    "arrow": "Arrow",
    "saved": "a saved data set",
    "hf": "a data set of the hub",
}
"""Where rows can stand, and what this is called."""

_SEPARATORS = {"tsv": "\t", "csv": ","}
_SHARDS = (".jsonl", ".ndjson", ".parquet", ".arrow", ".csv", ".tsv")
_DOCUMENTS = ("data", "Data", "docstore/data")
"""Keys of an object that holds many entries, where it may stand on one line."""


@dataclass(frozen=True)
class Table:
    """Rows as a stream.

    Attributes
    ----------
    name: what messages call it, as a rule the path.
    form: one of `FORMS`.
    unit: what its rows are counted in: line, row or entry.
    rows: yields (number, row).
    cells: yields (number, cells) of some columns, by their names, without making rows of all;
        None where rows are what is read.
    blocks: yields (number of the first row, the cells of each column) of some rows at a time, where
        they stand by columns.
    columns: the columns, where one row says them for all.
    numbered: whether the columns have numbers for names, "1", "2", ..., as there is no header.
    fingerprint: of a data set of the hub: another one if its content is another.
    """

    name: str
    form: str
    unit: str
    rows: Callable[[], Rows]
    cells: Callable[[Sequence[str | None]], Cells] | None = None
    blocks: Callable[[Sequence[str | None]], Blocks] | None = None
    columns: tuple[str, ...] | None = None
    numbered: bool = False
    fingerprint: str = ""

    def where(self, number: int) -> str:
        """Where a row stands, as messages begin."""
        return f"{self.name}, {self.unit} {number}"

    def first(self) -> tuple[int, Row]:
        """The first row and its number; an empty row and 0 if there is none."""
        return next(islice(self.rows(), 1), (0, {}))


def open_tables(path: Path, form: str | None, known: Collection[str]) -> list[Table]:
    """The tables of a file, or of a folder that holds nothing else than files of tables.

    Parameters
    ----------
    form: one of `FORMS`; by default what the content says.
    known: lower-case names of columns; the first row of a CSV or TSV file is its header if it has
        one of them.

    Raises
    ------
    InputError: the file is missing, damaged or no table.
    """
    if path.is_dir():
        if is_saved(path):
            return [_saved(path)]
        return [table for shard in shards(path) for table in open_tables(shard, form, known)]
    form = form or form_of(path)
    if form in _SEPARATORS:
        return [_separated(path, form, known)]
    if form in ("parquet", "arrow"):
        with _understood(path):
            return [_columnar(path, form)]
    if form == "jsonl":
        return [Table(str(path), form, "line", partial(read_objects, path))]
    if form == "json":
        return [Table(str(path), form, "entry", partial(_entries, path))]
    raise InputError(f"The format of {path} is not known; name it with --format.")


def form_of(path: Path) -> str | None:
    """Which of `FORMS` a file has by its content; None if it is none. A single column has no
    separator to be known by, so that there the name counts."""
    magic = beginning(path)
    if magic.startswith(b"PAR1"):
        return "parquet"
    if magic.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    first, suffix = first_line(path), format_suffix(path)
    if suffix not in (".csv", ".tsv"):  # whose first cell may begin like JSON
        if first.startswith("["):
            return "json"
        if first.startswith("{"):
            return "jsonl" if _alone(path, first) else "json"
    if "\t" in first or (suffix == ".csv" and first.startswith('"') and _tabbed(path)):
        return "tsv"
    if suffix in (".csv", ".tsv", ".jsonl"):
        return suffix[1:]
    return "csv" if suffix == "" and "," in first else None


def _alone(path: Path, first: str) -> bool:
    """Whether the first line of a file is one object of several, or could be."""
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return format_suffix(path) == ".jsonl"
    held = [key for key in _DOCUMENTS if isinstance(value.get(key), list | dict)]
    lines = (line for line in read_lines(path) if line.strip())
    return not held or next(islice(lines, 1, 2), None) is not None


def _tabbed(path: Path) -> bool:
    """Whether the first row, of which a quoted cell may have several lines, has tabs."""
    return len(next(csv.reader(read_lines(path), delimiter="\t"), [])) > 1


def is_saved(path: Path) -> bool:
    """Whether a folder was written by the `save_to_disk` of Hugging Face's data sets."""
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def shards(path: Path) -> list[Path]:
    """The files of a folder of tables, sorted by name; none if it holds another kind of file."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    notes = [p for p in files if p.name in ("README.md", "dataset_infos.json", "LICENSE")]
    tables = [p for p in files if format_suffix(p) in _SHARDS]
    return tables if len(tables) + len(notes) == len(files) else []


def _entries(path: Path) -> Rows:
    """The objects of a list, or the one object of the file."""
    value = read_json(path)
    for number, entry in enumerate(value if isinstance(value, list) else [value], 1):
        if not isinstance(entry, dict):
            place = f"{path}, entry {number}" if isinstance(value, list) else str(path)
            raise InputError(f"{place}: not a JSON object.")
        yield number, entry


def _separated(path: Path, form: str, known: Collection[str]) -> Table:
    """CSV and TSV. Spreadsheets of many countries write semicolons for commas."""
    separator, first = _SEPARATORS[form], first_line(path)
    if form == "csv" and first.count(";") > first.count(","):
        separator = ";"
    _, header = next(islice(read_rows(path, separator), 1), (0, []))
    names = tuple(name.strip() for name in header)
    listed_answers = len(names) == 2 and names[1].startswith("[")  # DPR's files have no header
    numbered = listed_answers or not any(name.lower() in known for name in names)
    if numbered:
        names = tuple(str(number) for number in range(1, len(header) + 1))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"{path}, line 1: the header has two columns {twice!r}; rename one of them."
        )

    def lines() -> Iterator[tuple[int, list[str]]]:
        of_row = f"expected {len(names)}, " + (
            "as in the first row" if numbered else f"as in the header: {', '.join(names)}"
        )
        for line, row in islice(read_rows(path, separator), 0 if numbered else 1, None):
            if len(row) != len(names):
                raise InputError(f"{path}, line {line}: the row has {len(row)} columns; {of_row}.")
            yield line, row

    def rows() -> Rows:
        for line, row in lines():
            yield line, dict(zip(names, row, strict=True))

    def cells(wanted: Sequence[str | None]) -> Cells:
        places = [names.index(name) if name in names else None for name in wanted]
        for line, row in lines():
            yield line, tuple([None if at is None else row[at] for at in places])

    return Table(str(path), form, "line", rows, cells, None, names, numbered)


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # whichever damage gives
        said = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read ({said}); it is damaged, or not whole.") from None


def _columnar(path: Path, form: str) -> Table:
    if form == "parquet":
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)

        def batches() -> Iterator[pa.RecordBatch]:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(4096)
    else:
        schema = _arrow(path).schema

        def batches() -> Iterator[pa.RecordBatch]:
            reader = _arrow(path)
            if hasattr(reader, "get_batch"):
                yield from map(reader.get_batch, range(reader.num_record_batches))
            else:
                yield from reader

    return _of_batches(path, form, tuple(schema.names), batches)


def _of_batches(
    path: Path,
    form: str,
    columns: tuple[str, ...],
    batches: Callable[[], Iterator[pa.RecordBatch]],
) -> Table:
    def parts() -> Iterator[pa.RecordBatch]:
        with _understood(path):
            for batch in batches():
                if form != "parquet":  # which is decoded and not mapped as it is
                    batch.validate(full=True)  # a damaged offset would end the process
                for at in range(0, batch.num_rows, 4096):
                    yield batch.slice(at, 4096)

    def rows() -> Rows:
        with _understood(path):
            yield from enumerate((row for part in parts() for row in part.to_pylist()), 1)

    def blocks(wanted: Sequence[str | None]) -> Blocks:
        number = 1
        for part in parts():
            with _understood(path):
                cells = [
                    part.column(name).to_pylist() if name in columns else [None] * part.num_rows
                    for name in wanted
                ]
            yield number, cells
            number += part.num_rows

    return Table(str(path), form, "row", rows, None, blocks, columns)


def _arrow(path: Path) -> Any:
    """A reader of either form of Arrow's files: with an index at the end, or a stream."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    if source.size() >= 6 and source.read(6) == b"ARROW1":
        return pa.ipc.open_file(source)
    source.seek(0)
    return pa.ipc.open_stream(source)


def _saved(path: Path) -> Table:
    """A data set as Hugging Face's `save_to_disk` writes it: Arrow streams that `state.json` lists
    in order. Of a dictionary of data sets the user names one."""
    if (path / "dataset_dict.json").is_file():
        parts = sorted(p.name for p in path.iterdir() if (p / "state.json").is_file())
        raise InputError(
            f"{path} holds several data sets ({', '.join(parts)}); name one, such as "
            f"{path / (parts[0] if parts else 'train')}."
        )
    try:
        state = manifests.read(path / "state.json")
        names = [one["filename"] for one in state["_data_files"]]
        if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
            raise ValueError("it names no files of its folder")
        if state.get("_indices_files") or state.get("_indices_data_files"):
            raise ValueError("its rows are chosen by a list of indices; save it flattened")
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(
            f"{path / 'state.json'} does not say which files the data set has ({error}); save "
            "the data set again."
        ) from None
    parts = [path / name for name in names]
    with _understood(path):
        columns = tuple(_arrow(parts[0]).schema.names)

    def batches() -> Iterator[pa.RecordBatch]:
        for part in parts:
            yield from _arrow(part)

    return _of_batches(path, "saved", columns, batches)


def hub_table(spec: str) -> Table:
    """A data set of the hub as a stream: ``hf:NAME``, ``hf:NAME:CONFIGURATION`` or
    ``hf:NAME:CONFIGURATION:SPLIT``; only the library's own cache is written to the disk.

    Raises
    ------
    InputError: the package is missing, or the data set cannot be opened.
    """
    name, _, rest = spec.removeprefix("hf:").partition(":")
    configuration, _, split = rest.partition(":")
    if not name:
        raise InputError(
            "hf: alone names no data set; write it as in hf:wikimedia/wikipedia:20231101.simple."
        )
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise InputError(
            f"Reading {spec} needs the package datasets; install it with "
            "`pip install 'ragbook[datasets]'`."
        ) from None
    try:
        rows = datasets.load_dataset(
            name, configuration or None, split=split or "train", streaming=True
        )
    except Exception as error:  # the library does not say which errors it raises
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{spec} cannot be opened ({type(error).__name__}: {first}); check the name, the "
            "configuration and the network."
        ) from error
    fingerprint = str(getattr(rows, "_fingerprint", ""))
    return Table(spec, "hf", "row", lambda: enumerate(rows, 1), fingerprint=fingerprint)


def chosen(row: Mapping[str, Any], names: Collection[str]) -> str | None:
    """The row's own name of the first of some lower-case column names that it has; None if it has
    none of them."""
    own = {str(key).lower(): key for key in row}
    return next((own[name] for name in names if name in own), None)


def listed(value: Any) -> Any:
    """The list that a cell of a CSV file holds, written in JSON or Python; the cell itself if it
    holds none."""
    if not (isinstance(value, str) and value.lstrip().startswith("[")):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.MsgspecError:
        import ast

        try:
            found = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return value
        return found if isinstance(found, list) else value

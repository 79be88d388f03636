"""How fast passages are read, beside the plain library that each reader stands on.

`python benchmarks/readers.py [ROWS]` writes a million rows (by default) of about 100 words in each
form and reads them in turns: once with the library alone, every row made and dropped, and once as
passages, whose fields are checked and whose ids are unique. One thread; CPU seconds; the median of
three turns.
"""

import csv
import json
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from ragbook.corpus import read_passages

WORDS = "the river rises in hills and reaches sea after towns bridges locks weirs".split()  # noqa: SIM905


def write(folder: Path, rows: int) -> dict[str, Path]:
    """The same rows in every form."""
    random.seed(0)
    names = ("jsonl", "contents", "tsv", "csv", "parquet", "arrow")
    paths = {name: folder / f"{name}.{name.replace('contents', 'jsonl')}" for name in names}
    schema = pa.schema([(name, pa.string()) for name in ("id", "title", "text")])
    with (
        open(paths["jsonl"], "w") as jsonl,
        open(paths["contents"], "w") as contents,
        open(paths["tsv"], "w", newline="") as tsv,
        open(paths["csv"], "w", newline="") as comma,
        pq.ParquetWriter(paths["parquet"], schema) as parquet,
        pa.OSFile(str(paths["arrow"]), "wb") as sink,
        pa.ipc.new_file(sink, schema) as arrow,
    ):
        tabs, commas = csv.writer(tsv, delimiter="\t"), csv.writer(comma)
        tabs.writerow(("id", "text", "title"))
        commas.writerow(("id", "title", "text"))
        for first in range(0, rows, 10_000):
            block = []
            for n in range(first, min(first + 10_000, rows)):
                text = " ".join(random.choices(WORDS, k=100))
                row = {"id": str(n), "title": f"River {n // 7}", "text": text}
                block.append(row)
                jsonl.write(json.dumps(row) + "\n")
                joined = {"id": row["id"], "contents": f"{row['title']}\n{text}"}
                contents.write(json.dumps(joined) + "\n")
                tabs.writerow((row["id"], text, row["title"]))
                commas.writerow((row["id"], row["title"], text))
            table = pa.Table.from_pylist(block, schema)
            parquet.write_table(table)
            arrow.write_table(table)
    return paths


def _json(path: Path) -> Iterable[object]:
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


def _csv(path: Path) -> Iterable[object]:
    with open(path, encoding="utf-8", newline="") as file:
        yield from csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")


def _parquet(path: Path) -> Iterable[object]:
    for batch in pq.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _arrow(path: Path) -> Iterable[object]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    for number in range(reader.num_record_batches):
        yield from reader.get_batch(number).to_pylist()


PLAIN: dict[str, Callable[[Path], Iterable[object]]] = {
    "jsonl": _json,
    "contents": _json,
    "tsv": _csv,
    "csv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
}


def seconds(rows: Iterable[object]) -> float:
    start = time.process_time()
    deque(rows, maxlen=0)
    return time.process_time() - start


def main(rows: int = 1_000_000) -> None:
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write(Path(folder), rows)
        print(f"{'':<10}{'library':>12}{'passages':>12}   rows a CPU second, {rows:,} rows")
        for name, path in paths.items():
            turns = [(seconds(PLAIN[name](path)), seconds(read_passages(path))) for _ in range(3)]
            library, ours = (median(column) for column in zip(*turns, strict=True))
            shown = f"{rows / library:>12,.0f}{rows / ours:>12,.0f}"
            print(f"{name:<10}{shown}   ratio {library / ours:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

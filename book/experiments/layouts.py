"""One small example of every layout of passages and of questions that ragbook reads, for the
chapter on one's own data and for the tests.

Each `Example` writes a file, or a folder, as the tool or data set that it is named after does, and
says what is read from it. `definition` is where the layout is described.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Write = Callable[[Path], None]


@dataclass(frozen=True)
class Example:
    """A layout, where it is defined, the name of the example's file or folder, what writes it, and
    what is read: (id, title, text) of passages, or (id, text, answers, gold ids) of questions.
    `options` are those that are needed to read it."""

    layout: str
    definition: str
    name: str
    write: Write
    read: tuple[tuple[Any, ...], ...]
    options: tuple[tuple[str, Any], ...] = ()


def text(content: str) -> Write:
    """What writes a text file."""
    return lambda path: path.write_bytes(content.encode())  # type: ignore[return-value]


def lines(*rows: Any) -> Write:
    """What writes JSON lines."""
    return text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )


def _json(value: Any) -> Write:
    return text(json.dumps(value, ensure_ascii=False, indent=1))


def _table(rows: Iterable[Iterable[str]], separator: str) -> Write:
    def write(path: Path) -> None:
        out = io.StringIO()
        csv.writer(out, delimiter=separator, lineterminator="\n").writerows(
            rows
        )
        path.write_text(out.getvalue(), encoding="utf-8")

    return write


def _parquet(rows: list[dict[str, Any]]) -> Write:
    return lambda path: pq.write_table(pa.Table.from_pylist(rows), path)


def _arrow(rows: list[dict[str, Any]]) -> Write:
    def write(path: Path) -> None:
        table = pa.Table.from_pylist(rows)
        with (
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table)

    return write


def _saved(rows: list[dict[str, Any]]) -> Write:
    """As `save_to_disk` of Hugging Face's data sets writes a folder: two Arrow streams."""

    def write(path: Path) -> None:
        path.mkdir()
        names = [f"data-{n:05d}-of-00002.arrow" for n in range(2)]
        for name, part in zip(names, (rows[:1], rows[1:]), strict=True):
            table = pa.Table.from_pylist(part)
            with (
                pa.OSFile(str(path / name), "wb") as sink,
                pa.ipc.new_stream(sink, table.schema) as writer,
            ):
                writer.write_table(table)
        state = {
            "_data_files": [{"filename": name} for name in names],
            "_split": "train",
        }
        (path / "state.json").write_text(json.dumps(state))
        (path / "dataset_info.json").write_text("{}")

    return write


def _folder(**files: Write) -> Write:
    def write(path: Path) -> None:
        for name, one in files.items():
            file = path / name.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            one(file)

    return write


def _bytes(write: Write) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "x")
        return (Path(folder) / "x").read_bytes()


def content(example: Example) -> bytes:
    """The bytes of an example that is a file."""
    return _bytes(example.write)


ELBE = (
    "e1",
    "Elbe",
    "The Elbe rises in the Giant Mountains and reaches the sea at Cuxhaven.",
)
ODER = (
    "o2",
    "Oder",
    "The Oder rises in Moravia; Szczecin lies near its mouth.",
)
BOTH = (ELBE, ODER)
_ROWS: list[dict[str, Any]] = [
    dict(zip(("id", "title", "text"), row, strict=True)) for row in BOTH
]
_HUB = "huggingface.co/docs/datasets"

PASSAGES = (
    Example(
        "DPR",
        "github.com/facebookresearch/DPR, psgs_w100.tsv",
        "psgs.tsv",
        _table(
            [("id", "text", "title"), *((i, x, t) for i, t, x in BOTH)], "\t"
        ),
        BOTH,
    ),
    Example(
        "TSV, columns in any order",
        "RFC 4180, with tabs",
        "passages.tsv",
        _table(
            [("title", "id", "text"), *((t, i, x) for i, t, x in BOTH)], "\t"
        ),
        BOTH,
    ),
    Example(
        "TSV without a header (MS MARCO)",
        "microsoft.github.io/msmarco, collection.tsv",
        "collection.tsv",
        text("".join(f"{i}\t{x}\n" for i, (_, _, x) in enumerate(BOTH))),
        tuple((str(i), "", x) for i, (_, _, x) in enumerate(BOTH)),
    ),
    Example(
        "CSV with columns of one's own",
        "RFC 4180",
        "rivers.csv",
        _table([("nr", "river", "note"), *BOTH], ","),
        BOTH,
        (("columns", {"id": "nr", "title": "river", "text": "note"}),),
    ),
    Example(
        "JSON lines",
        "this book: id, title, text",
        "passages.jsonl",
        lines(*_ROWS),
        BOTH,
    ),
    Example(
        "JSON lines without ids and titles",
        "this book: text",
        "notes.jsonl",
        lines(*({"text": x} for _, _, x in BOTH)),
        tuple((str(n), "", x) for n, (_, _, x) in enumerate(BOTH, 1)),
    ),
    Example(
        "BEIR (folder)",
        "github.com/beir-cellar/beir, corpus.jsonl",
        "beir",
        _folder(
            corpus_dot_jsonl=lines(
                *(
                    {"_id": i, "title": t, "text": x, "metadata": {}}
                    for i, t, x in BOTH
                )
            )
        ),
        BOTH,
    ),
    Example(
        "Pyserini",
        "github.com/castorini/pyserini, JsonCollection",
        "docs.jsonl",
        lines(*({"id": i, "contents": f"{t}\n{x}"} for i, t, x in BOTH)),
        BOTH,
    ),
    Example(
        "FlashRAG",
        "github.com/RUC-NLPIR/FlashRAG, corpus format",
        "wiki.jsonl",
        lines(
            *(
                {"id": n, "contents": f'"{t}"\n{x}'}
                for n, (_, t, x) in enumerate(BOTH)
            )
        ),
        tuple((str(n), t, x) for n, (_, t, x) in enumerate(BOTH)),
    ),
    Example(
        "KILT's knowledge source",
        "github.com/facebookresearch/KILT, kilt_knowledgesource.json",
        "kilt_knowledgesource.json",
        lines(
            *(
                {
                    "wikipedia_id": i,
                    "wikipedia_title": t,
                    "text": [f"{t}\n", f"{x}\n"],
                }
                for i, t, x in BOTH
            )
        ),
        BOTH,
    ),
    Example(
        "LangChain's documents",
        "reference.langchain.com, Document",
        "langchain.jsonl",
        lines(
            *(
                {
                    "page_content": x,
                    "metadata": {"source": "de.txt", "title": t},
                }
                for _, t, x in BOTH
            )
        ),
        tuple((f"de.txt-{n}", t, x) for n, (_, t, x) in enumerate(BOTH, 1)),
    ),
    Example(
        "LlamaIndex' nodes",
        "developers.llamaindex.ai, TextNode",
        "docstore.json",
        _json(
            {
                "docstore/data": {
                    i: {
                        "__data__": {
                            "id_": i,
                            "metadata": {"title": t},
                            "text": x,
                        }
                    }
                    for i, t, x in BOTH
                }
            }
        ),
        BOTH,
    ),
    Example(
        "Parquet",
        "parquet.apache.org",
        "passages.parquet",
        _parquet(_ROWS),
        BOTH,
    ),
    Example(
        "Arrow",
        "arrow.apache.org, IPC file",
        "passages.arrow",
        _arrow(_ROWS),
        BOTH,
    ),
    Example("save_to_disk", _HUB, "saved", _saved(_ROWS), BOTH),
    Example(
        "a folder of tables",
        _HUB,
        "shards",
        _folder(a_dot_jsonl=lines(_ROWS[0]), b_dot_parquet=_parquet(_ROWS[1:])),
        BOTH,
    ),
    Example(
        "WikiText",
        "Merity et al. 2016",
        "wiki.train.tokens",
        text("".join(f" = {t} = \n\n {x} \n\n" for _, t, x in BOTH)),
        tuple((line, t, x) for line, (_, t, x) in zip("15", BOTH, strict=True)),
    ),
    Example(
        "gzip (also bzip2, xz, zstandard)",
        "RFC 1952",
        "passages.jsonl.gz",
        lambda path: path.write_bytes(
            gzip.compress(_bytes(lines(*_ROWS)), mtime=0)
        ),  # type: ignore[return-value]
        BOTH,
    ),
)
"""Tables of passages."""


COMPRESSED = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
"""What compresses bytes as the suffix says."""

_Q1, _Q2 = (
    "where does the elbe rise",
    "which city is near the mouth of the oder",
)
_A1, _A2 = ("the Giant Mountains", "Giant Mountains"), ("Szczecin",)
ASKED = (("q1", _Q1, _A1, ()), ("q2", _Q2, _A2, ()))
NO_IDS = tuple((None, *rest) for _, *rest in ASKED)
WITH_GOLD = (("q1", _Q1, _A1, ("e1",)), ("q2", _Q2, _A2, ("o2",)))
TITLES = (
    ("q1", _Q1, _A1[:1], ("Elbe", "Giant Mountains")),
    ("q2", _Q2, _A2, ("Oder",)),
)
ALONE = tuple((None, question, (), ()) for question in (_Q1, _Q2))


def _squad(answers: Callable[[tuple[str, ...]], Any]) -> list[dict[str, Any]]:
    return [
        {"id": i, "question": q, "answers": answers(a), "context": "..."}
        for i, q, a, _ in ASKED
    ]


QUESTIONS = (
    Example(
        "NQ-open",
        "github.com/google-research-datasets/natural-questions, nq_open",
        "nq.jsonl",
        lines(*({"question": q, "answer": list(a)} for _, q, a, _ in ASKED)),
        NO_IDS,
    ),
    Example(
        "JSON lines with ids and gold passages",
        "this book: id, question, answer, gold_passage (one or a list)",
        "questions.jsonl",
        lines(
            *(
                {
                    "id": i,
                    "question": q,
                    "answer": list(a),
                    "gold_passage": list(g),
                }
                for i, q, a, g in WITH_GOLD
            )
        ),
        WITH_GOLD,
    ),
    Example(
        "DPR (JSON)",
        "github.com/facebookresearch/DPR, retriever input",
        "dpr.json",
        _json(
            [
                {
                    "question": q,
                    "answers": list(a),
                    "positive_ctxs": [{"passage_id": g[0]}],
                }
                for _, q, a, g in WITH_GOLD
            ]
        ),
        tuple((None, *rest) for _, *rest in WITH_GOLD),
    ),
    Example(
        "DPR (CSV)",
        "github.com/facebookresearch/DPR, nq-test.csv",
        "nq-test.csv",
        text("".join(f"{q}\t{list(a)!r}\n" for _, q, a, _ in ASKED)),
        NO_IDS,
    ),
    Example(
        "SQuAD 1.1 and 2.0",
        "rajpurkar.github.io/SQuAD-explorer",
        "dev-v2.0.json",
        _json(
            {
                "version": "v2.0",
                "data": [
                    {
                        "title": "Rivers",
                        "paragraphs": [
                            {
                                "context": "...",
                                "qas": [
                                    *_squad(
                                        lambda a: [
                                            {"text": x, "answer_start": 0}
                                            for x in a
                                        ]
                                    ),
                                    {
                                        "id": "q3",
                                        "question": "who drank it",
                                        "answers": [],
                                        "is_impossible": True,
                                    },
                                ],
                            }
                        ],
                    }
                ],
            }
        ),
        ASKED,
    ),
    Example(
        "SQuAD's rows",
        "huggingface.co/datasets/rajpurkar/squad",
        "squad.parquet",
        _parquet(
            _squad(lambda a: {"text": list(a), "answer_start": [0] * len(a)})
        ),
        ASKED,
    ),
    Example(
        "MRQA",
        "github.com/mrqa/MRQA-Shared-Task-2019",
        "mrqa.jsonl",
        lines(
            {"header": {"dataset": "Rivers", "split": "dev"}},
            {
                "id": "c1",
                "context": "...",
                "qas": [
                    {"qid": i, "question": q, "answers": list(a)}
                    for i, q, a, _ in ASKED
                ],
            },
        ),
        ASKED,
    ),
    Example(
        "TriviaQA",
        "nlp.cs.washington.edu/triviaqa",
        "triviaqa.json",
        _json(
            {
                "Data": [
                    {
                        "Question": q,
                        "QuestionId": i,
                        "Answer": {
                            "Value": a[0],
                            "Aliases": list(a),
                            "NormalizedAliases": [],
                        },
                    }
                    for i, q, a, _ in ASKED
                ],
                "Domain": "Wikipedia",
            }
        ),
        ASKED,
    ),
    Example(
        "TriviaQA's rows",
        "huggingface.co/datasets/mandarjoshi/trivia_qa",
        "trivia.jsonl",
        lines(
            *(
                {
                    "question": q,
                    "question_id": i,
                    "answer": {"value": a[0], "aliases": list(a)},
                }
                for i, q, a, _ in ASKED
            )
        ),
        ASKED,
    ),
    Example(
        "WebQuestions",
        "nlp.stanford.edu/software/sempre",
        "webquestions.json",
        _json(
            [
                {
                    "utterance": q,
                    "url": "...",
                    "targetValue": "(list "
                    + " ".join(
                        f'(description "{x}")'
                        if " " in x
                        else f"(description {x})"
                        for x in a
                    )
                    + ")",
                }
                for _, q, a, _ in ASKED
            ]
        ),
        NO_IDS,
    ),
    Example(
        "HotpotQA and 2WikiMultihopQA",
        "hotpotqa.github.io",
        "hotpot.json",
        _json(
            [
                {
                    "_id": i,
                    "question": q,
                    "answer": a[0],
                    "supporting_facts": [[title, 0] for title in titles],
                    "context": [],
                }
                for i, q, a, titles in TITLES
            ]
        ),
        TITLES,
    ),
    Example(
        "MuSiQue",
        "github.com/StonyBrookNLP/musique",
        "musique.jsonl",
        lines(
            *(
                {
                    "id": i,
                    "question": q,
                    "answer": a[0],
                    "answer_aliases": [],
                    "answerable": True,
                    "paragraphs": [
                        {
                            "title": title,
                            "paragraph_text": "...",
                            "is_supporting": True,
                        }
                        for title in titles
                    ],
                }
                for i, q, a, titles in TITLES
            )
        ),
        TITLES,
    ),
    Example(
        "PopQA",
        "huggingface.co/datasets/akariasai/PopQA",
        "popqa.tsv",
        _table(
            [
                ("id", "subj", "question", "possible_answers"),
                *((i, "", q, json.dumps(list(a))) for i, q, a, _ in ASKED),
            ],
            "\t",
        ),
        ASKED,
    ),
    Example(
        "FlashRAG",
        "github.com/RUC-NLPIR/FlashRAG, dataset format",
        "test.jsonl",
        lines(
            *(
                {"id": i, "question": q, "golden_answers": list(a)}
                for i, q, a, _ in ASKED
            )
        ),
        ASKED,
    ),
    Example(
        "KILT",
        "github.com/facebookresearch/KILT",
        "nq-dev-kilt.jsonl",
        lines(
            *(
                {
                    "id": i,
                    "input": q,
                    "output": [{"answer": x} for x in a]
                    + [
                        {"provenance": [{"wikipedia_id": g[0], "title": "..."}]}
                    ],
                }
                for i, q, a, g in WITH_GOLD
            )
        ),
        WITH_GOLD,
    ),
    Example(
        "BEIR (folder with qrels)",
        "github.com/beir-cellar/beir",
        "beir",
        _folder(
            queries_dot_jsonl=lines(
                *({"_id": i, "text": q} for i, q, _, _ in ASKED)
            ),
            qrels__test_dot_tsv=text(
                "query-id\tcorpus-id\tscore\nq1\te1\t1\nq2\to2\t2\nq2\te1\t0\n"
            ),
        ),
        tuple((i, q, (), g) for i, q, _, g in WITH_GOLD),
    ),
    Example(
        "CSV",
        "RFC 4180",
        "questions.csv",
        _table(
            [
                ("nr", "question", "answer"),
                *((i, q, json.dumps(list(a))) for i, q, a, _ in ASKED),
            ],
            ",",
        ),
        ASKED,
        (("columns", {"id": "nr"}),),
    ),
    Example(
        "questions alone, one a line",
        "this book",
        "questions.txt",
        text(f"{_Q1}\n{_Q2}\n"),
        ALONE,
    ),
)
"""Questions."""

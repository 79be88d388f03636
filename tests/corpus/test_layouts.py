"""Every layout of passages and questions: the book's own examples are read as they say, plain,
compressed, from standard input, by name; and what else each layout may hold."""

import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from experiments.layouts import BOTH, COMPRESSED, PASSAGES, QUESTIONS, Example, lines, text
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import files, load_corpus, load_questions
from ragbook.corpus.readers import FORMATS
from ragbook.corpus.splitting import parse_split
from ragbook.errors import InputError


def passages(path, **options):
    return tuple((p.id, p.title, p.text) for p in load_corpus(path, **options))


def questions(path, split=None, **options):
    return tuple(
        (q.id, q.text, q.answers, q.gold_ids) for q in load_questions(path, split, **options)
    )


def read_or_refused(path, **options):
    """The passages and None, or none and what the refusal says."""
    try:
        return passages(path, **options), None
    except InputError as error:
        return (), str(error)


def written(folder: Path, example: Example) -> Path:
    path = folder / example.name
    example.write(path)
    return path


USUAL = [
    *("DPR", "TSV, columns in any order", "JSON lines", "WikiText"),
    *("gzip (also bzip2, xz, zstandard)", "NQ-open", "DPR (JSON)", "DPR (CSV)"),
    *("JSON lines with ids and gold passages", "SQuAD 1.1 and 2.0"),
]
"""What needs no word of how it was read."""


@pytest.mark.parametrize("example", PASSAGES, ids=lambda example: example.layout)
def test_passages_of_every_layout_are_read_and_said_in_one_line(tmp_path, example):
    told = []
    path = written(tmp_path, example)
    assert passages(path, told=told.append, **dict(example.options)) == example.read
    assert len(told) == (example.layout not in USUAL)
    assert not any("\n" in said for said in told)


@pytest.mark.parametrize("example", QUESTIONS, ids=lambda example: example.layout)
def test_questions_of_every_layout_are_read_and_said_in_one_line(tmp_path, example):
    told = []
    path = written(tmp_path, example)
    assert questions(path, told=told.append, **dict(example.options)) == example.read
    assert len(told) == (example.layout not in USUAL)
    for said in told:
        assert str(path) in said
        assert "\n" not in said


SINGLE = [e for e in (*PASSAGES, *QUESTIONS) if e.name.endswith((".jsonl", ".tsv", ".csv"))]


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("example", SINGLE, ids=lambda example: example.layout)
def test_a_compressed_file_reads_as_the_plain_one_whatever_its_name(tmp_path, example, suffix):
    read = passages if example in PASSAGES else questions
    plain = written(tmp_path, example)
    zipped = tmp_path / (example.name + suffix)
    zipped.write_bytes(COMPRESSED[suffix](plain.read_bytes()))
    assert read(zipped, **dict(example.options)) == example.read
    data = zipped.read_bytes()
    zipped.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read(zipped, **dict(example.options))


@pytest.mark.parametrize("name", ["DPR", "KILT's knowledge source", "Parquet"])
def test_standard_input_is_a_file_like_any_other(tmp_path, monkeypatch, name):
    (example,) = (e for e in PASSAGES if e.layout == name)
    data = written(tmp_path, example).read_bytes()
    files.standard_input.cache_clear()
    stdin = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    try:
        assert passages("-") == example.read
        assert passages("-") == example.read  # it can be read a second time
    finally:
        files.standard_input.cache_clear()


def test_a_terminal_is_no_file(monkeypatch):
    files.standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(InputError, match="terminal"):
        load_corpus("-")


FORCED = {"BEIR (folder)": "beir", "Pyserini": "pyserini", "FlashRAG": "flashrag"} | {
    "KILT's knowledge source": "kilt",
    "LangChain's documents": "langchain",
    "LlamaIndex' nodes": "llamaindex",
    "DPR": "dpr",
    "Parquet": "parquet",
    "Arrow": "arrow",
    "WikiText": "wikitext",
    "JSON lines": "jsonl",
}


@pytest.mark.parametrize("layout", FORCED)
def test_a_format_that_is_named_reads_what_has_it_and_not_another(tmp_path, layout):
    """Each example under its own format, and under one that it does not have."""
    (example,) = (e for e in PASSAGES if e.layout == layout)
    path = written(tmp_path, example)
    assert passages(path, format=FORCED[layout]) == example.read
    other = "langchain" if FORCED[layout] != "langchain" else "kilt"
    found, said = read_or_refused(path, format=other)
    assert found != example.read
    assert said


def test_a_format_that_is_named_goes_before_what_the_content_says(tmp_path):
    """One file, three ways: contents has a first line or not, a comma separates or not."""
    path = tmp_path / "x"
    lines({"id": "1", "contents": "Elbe\nIt flows.", "text": "Another."})(path)
    assert passages(path) == (("1", "", "Another."),)
    assert passages(path, format="pyserini") == (("1", "Elbe", "It flows."),)
    text("id,a\ttext\n1,b\tc\n")(path)
    assert passages(path, columns={"id": "id,a"}) == (("1,b", "", "c"),)
    assert passages(path, format="csv", columns={"text": "a\ttext"}) == (("1", "", "b\tc"),)
    for wrong in ("tsvv", "squad"):
        with pytest.raises(InputError, match=f"no format '{wrong}'") as caught:
            load_corpus(path, format=wrong)
        assert all(name in str(caught.value) for name in FORMATS)
    with pytest.raises(InputError, match="no format 'beirr' of questions"):
        load_questions(path, format="beirr")


def test_columns_that_are_named_must_be_there(tmp_path):
    path = tmp_path / "p.csv"
    text("nr,note\n1,It flows.\n")(path)
    with pytest.raises(
        InputError, match=r"p\.csv, line 2: there is no column 'name' for the title"
    ):
        load_corpus(path, columns={"id": "nr", "title": "name", "text": "note"})
    with pytest.raises(InputError, match="no column 'body'"):
        load_corpus(path, columns={"body": "note"})
    with pytest.raises(InputError, match=r"--columns id=doc"):
        load_corpus(path)
    assert passages(path, columns={"text": "note"}) == (("2", "", "It flows."),)
    with pytest.raises(InputError, match="no column 'answer'"):
        load_questions(path, columns={"answer": "note"})
    with pytest.raises(InputError, match="there is no column 'asked' for the question"):
        load_questions(path, columns={"question": "asked"})
    assert questions(path, columns={"question": "note", "id": "nr"}) == (
        ("1", "It flows.", (), ()),
    )


def test_columns_without_a_header_are_named_by_their_numbers(tmp_path):
    path = tmp_path / "p.tsv"
    text("7\tElbe\tIt flows.\n8\tOder\tIt too.\n")(path)
    with pytest.raises(InputError, match="their numbers"):
        load_corpus(path)
    columns = {"id": "1", "title": "2", "text": "3"}
    assert passages(path, columns=columns) == (("7", "Elbe", "It flows."), ("8", "Oder", "It too."))


def test_semicolons_separate_where_a_spreadsheet_wrote_them(tmp_path):
    path = tmp_path / "p.csv"
    text("id;title;text\n1;Elbe;It flows, and flows; no more\n".replace("; no", ", no"))(path)
    assert passages(path) == (("1", "Elbe", "It flows, and flows, no more"),)


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), max_size=9), st.text(max_size=9)).map(
            lambda pair: tuple(part.replace("\r", " ").replace("\ud800", "") for part in pair)
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([",", ";", "\t"]),
)
def test_a_table_that_is_quoted_properly_gives_its_cells(tmp_path_factory, cells, separator):
    """Whatever the cells hold: separators, quotes and line feeds, and no row is lost or joined."""
    import csv

    rows = [(f"r{n}", a, "x" + b) for n, (a, b) in enumerate(cells)]
    rows = [(i, t, x.encode("utf-8", "ignore").decode()) for i, t, x in rows]
    path = tmp_path_factory.mktemp("cells") / ("p.tsv" if separator == "\t" else "p.csv")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([("id", "title", "text"), *rows])
    found, said = read_or_refused(path)
    if said is None:
        assert found == tuple(rows)
    else:  # what looks like several rows is refused, not joined
        assert "joined to one" in said
        assert any("\n" in t + x for _, t, x in rows)


def test_prose_with_commas_and_line_feeds_is_no_several_rows(tmp_path):
    path = tmp_path / "p.csv"
    words = "It rises in the hills, it is said,\nand in spring, when snow melts,\nit floods, often."
    text(f'id,title,text\n1,Elbe,"{words}"\n2,Oder,It too\n')(path)
    assert passages(path) == (("1", "Elbe", words), ("2", "Oder", "It too"))
    text('id,title,text\n1,Elbe,"It flows\n2,Oder,It too\n3,Ems,short"\n')(path)
    with pytest.raises(InputError, match=r"line 2: .*joined to one"):
        load_corpus(path)


def test_ids_may_be_whole_numbers_of_any_kind(tmp_path):
    path = tmp_path / "p.parquet"
    for values in ([1, 2], [1.0, 2.0], ["1", "2"]):
        pq.write_table(pa.table({"id": values, "text": ["a", "b"]}), path)
        assert passages(path) == (("1", "", "a"), ("2", "", "b"))
    lines({"id": 10**10, "text": "a"}, {"id": str(10**10), "text": "b"})(path)
    with pytest.raises(InputError, match=r"line 2: the passage id '10000000000' .* second time"):
        load_corpus(path)
    lines({"id": "12", "text": "a"}, {"id": "1٢", "text": "b"})(path)
    assert passages(path) == (("12", "", "a"), ("1٢", "", "b"))


def test_lines_of_json_need_not_have_the_keys_of_the_first(tmp_path):
    path = tmp_path / "p.jsonl"
    lines({"text": "a"}, {"id": "x", "title": "T", "text": "b"}, {"docid": 5, "contents": "c"})(
        path
    )
    assert passages(path) == (("1", "", "a"), ("x", "T", "b"), ("5", "", "c"))
    lines({"question": "a"}, {"question": "b", "answers": ["c"], "gold": 7, "id": 3})(path)
    assert questions(path) == ((None, "a", (), ()), ("3", "b", ("c",), ("7",)))


def test_what_is_not_of_the_first_lines_layout_is_told_by_its_place(tmp_path):
    path = tmp_path / "p.jsonl"
    kilt = {"wikipedia_id": "1", "wikipedia_title": "Elbe", "text": ["Elbe\n", "It flows.\n"]}
    lines(kilt, {"id": "2", "title": "Oder", "text": "It flows."})(path)
    with pytest.raises(InputError, match=r"line 2: this is not of the layout"):
        load_corpus(path)
    lines({"input": "a", "output": [{"answer": "b"}]}, {"input": "a", "output": ["b"]})(path)
    with pytest.raises(InputError, match=r"line 2: this is not of the layout"):
        load_questions(path)


def test_articles_of_kilt_are_cut_and_their_marks_left_out(tmp_path):
    path = tmp_path / "kilt.jsonl"
    parts = ["Elbe\n", "w " * 150 + "\n", "Section::::Course.\n", "BULLET::::- Dresden\n"]
    lines({"wikipedia_id": "9", "wikipedia_title": "Elbe", "text": parts})(path)
    found = passages(path)
    assert [(id, len(words.split())) for id, _, words in found] == [("9-1", 100), ("9-2", 52)]
    assert found[1][2].endswith("w Course. Dresden")
    (whole,) = passages(path, split=parse_split("none"))
    assert whole[0] == "9"


def test_passages_are_cut_only_if_that_is_asked_for(tmp_path):
    path = tmp_path / "p.jsonl"
    lines({"id": "1", "text": "w " * 150}, {"id": "2", "text": "short"})(path)
    assert [id for id, *_ in passages(path)] == ["1", "2"]
    assert [id for id, *_ in passages(path, split=parse_split("words:50"))] == [
        *("1-1", "1-2", "1-3"),
        "2",
    ]
    lines({"id": "1", "text": "w " * 150}, {"id": "1-2", "text": "short"})(path)
    with pytest.raises(InputError, match=r"line 2: the passage id '1-2' is used a second time"):
        load_corpus(path, split=parse_split("words:100"))


def test_langchain_and_llamaindex_in_their_other_forms(tmp_path):
    path = tmp_path / "x.json"
    document = {"page_content": "It flows.", "metadata": {"source": "rivers/elbe.md"}}
    constructor = {"lc": 1, "type": "constructor", "id": ["langchain", "Document"]}
    path.write_text(json.dumps([constructor | {"kwargs": document | {"id": "d7"}}]))
    assert passages(path) == (("d7", "elbe.md", "It flows."),)
    path.write_text(json.dumps([document, document]))
    assert passages(path) == tuple((f"rivers/elbe.md-{n}", "elbe.md", "It flows.") for n in (1, 2))
    node = {"id_": "n1", "metadata": {"file_name": "elbe.md"}, "text_resource": {"text": "It."}}
    path.write_text(json.dumps([node]))
    assert passages(path) == (("n1", "elbe.md", "It."),)


def test_a_folder_that_save_to_disk_wrote_is_read_as_the_library_reads_it(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"id": ["1", "2"], "title": ["Elbe", "Oder"], "text": ["It flows.", "It too."]}
    data = datasets.Dataset.from_dict(rows)
    data.save_to_disk(str(tmp_path / "one"))
    assert passages(tmp_path / "one") == tuple(zip(*rows.values(), strict=True))
    datasets.DatasetDict(train=data, test=data).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(InputError, match=r"holds several data sets \(test, train\)"):
        load_corpus(tmp_path / "two")
    assert len(load_corpus(tmp_path / "two" / "test")) == 2


@pytest.mark.parametrize(
    "state", ["{}", "", '{"_data_files": [{"filename": "../../secret.arrow"}]}', "[]"]
)
def test_a_folder_whose_state_is_damaged_is_refused(tmp_path, state):
    (example,) = (e for e in PASSAGES if e.layout == "save_to_disk")
    path = written(tmp_path, example)
    (path / "state.json").write_text(state)
    with pytest.raises(InputError, match=r"state\.json"):
        load_corpus(path)


@pytest.mark.parametrize("layout", ["Parquet", "Arrow"])
def test_half_a_file_or_a_flipped_byte_ends_in_one_sentence_or_the_right_passages(tmp_path, layout):
    (example,) = (e for e in PASSAGES if e.layout == layout)
    path = written(tmp_path, example)
    data = path.read_bytes()
    damaged = [data[:at] for at in range(0, len(data), 37)]
    damaged += [
        data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :] for at in range(8, len(data), 29)
    ]
    for bad in damaged:
        path.write_bytes(bad)
        found, said = read_or_refused(path)
        assert "\n" not in (said or "")
        assert all(isinstance(part, str) for row in found for part in row)


def test_a_folder_of_a_beir_corpus_may_hold_queries_and_judgements_of_several_splits(tmp_path):
    for example in (*PASSAGES, *QUESTIONS):
        if example.name == "beir":
            written(tmp_path, example)
    folder = tmp_path / "beir"
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq2\te1\t1\nq2\to2\t2\n")
    assert passages(folder) == BOTH
    assert [q[3] for q in questions(folder)] == [("e1",), ("o2",)]
    (only,) = questions(folder / "queries.jsonl", "dev")
    assert only[0] == "q2"
    assert only[3] == ("o2", "e1")  # the higher grade first
    with pytest.raises(InputError, match="no judgements of the split 'train'; there are dev, test"):
        load_questions(folder, "train")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\te1\tyes\n")
    with pytest.raises(InputError, match=r"test\.tsv, line 2"):
        load_questions(folder)
    shutil.rmtree(folder / "qrels")
    assert [q[3] for q in questions(folder)] == [(), ()]


def test_questions_that_cannot_be_answered_are_counted_and_others_kept(tmp_path):
    path = tmp_path / "q.jsonl"
    musique = {"id": "1", "question": "a", "paragraphs": [], "answer": "b", "answerable": False}
    lines(musique, musique | {"id": "2", "answerable": True})(path)
    found = load_questions(path)
    assert (len(found), found.skipped) == (1, 1)
    rows = [
        {"question": "a", "answers": {"text": ["b"]}},
        {"question": "c", "answers": {"text": []}},
    ]
    lines(*rows)(path)
    found = load_questions(path)
    assert (len(found), found.skipped) == (1, 1)
    lines({"question": "a", "answer": []}, {"question": "b", "answer": ["c"]})(path)
    assert [q.answers for q in load_questions(path)] == [(), ("c",)]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    for example in SINGLE:
        path = written(tmp_path, example)
        data = path.read_bytes()
        path.write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
        read = passages if example in PASSAGES else questions
        assert read(path, **dict(example.options)) == example.read

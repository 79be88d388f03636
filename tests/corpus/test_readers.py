"""Passage files: what is written comes back, and what is broken is told by file and line."""

import bz2
import csv
import gzip
import io
import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Passage, load_corpus, read_passages
from ragbook.errors import InputError

HOSTILE = (
    '"Quoted", she said:\t"tab"\nnew line\r\nand another\rone — Zürich, 東京, 👩‍🔬, \u2028, \x85'
)
TSV = "id\ttext\ttitle\r\n1\tIt flows north.\tRhine\r\n2\tIt flows east.\tDanube\r\n"
JSONL = (
    '{"id": "1", "title": "Rhine", "text": "It flows north."}\n'
    '{"id": "2", "title": "Danube", "text": "It flows east."}\n'
)
RIVERS = [Passage("1", "Rhine", "It flows north."), Passage("2", "Danube", "It flows east.")]

# Anything but halves of surrogate pairs, which no UTF-8 file can hold.
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text("\"\t\n\r, a'\\")
words = texts.filter(str.strip)
passages = st.lists(
    st.builds(Passage, id=words, title=texts, text=words | st.just(HOSTILE)),
    min_size=1,
    unique_by=lambda passage: passage.id,
)


@given(passages, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.booleans())
def test_tsv_round_trip(tmp_path_factory, expected, quoting, zipped):
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", quoting=quoting)
    writer.writerow(["id", "text", "title"])
    writer.writerows([p.id, p.text, p.title] for p in expected)
    path = tmp_path_factory.mktemp("tsv") / ("p.tsv.gz" if zipped else "p.tsv")
    data = table.getvalue().encode("utf-8")
    path.write_bytes(gzip.compress(data) if zipped else data)
    fields = [field for p in expected for field in (p.id, p.title, p.text)]
    try:
        found = list(load_corpus(path))
    except InputError as error:  # a column that may hold whole rows
        if "joined" not in str(error) or not any("\n" in f and "\t" in f for f in fields):
            raise
    else:
        assert found == expected


plain = st.text("ab, \"'\\", min_size=1, max_size=4).map(lambda text: f"a{text}b")


@given(st.lists(st.tuples(plain, plain, plain), min_size=2, max_size=5, unique_by=lambda r: r[0]),
       st.data())  # fmt: skip
def test_no_row_is_lost_between_two_quotes(tmp_path_factory, rows, data):
    """A quote at the beginning of one column and another at the end of one further down."""
    columns = [list(row) for row in rows]
    last = data.draw(st.integers(1, len(rows) - 1))
    first = data.draw(st.integers(0, last - 1))
    begin, end = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
    columns[first][begin] = '"' + columns[first][begin]
    columns[last][end] += '"'
    path = tmp_path_factory.mktemp("tsv") / "p.tsv"
    path.write_text(HEAD + "".join("\t".join(row) + "\n" for row in columns))
    with pytest.raises(InputError, match=f"line {first + 2}: "):
        load_corpus(path)


@given(passages, st.booleans(), st.booleans())
def test_jsonl_round_trip(tmp_path_factory, expected, ascii_only, zipped):
    lines = [
        json.dumps({"id": p.id, "title": p.title, "text": p.text}, ensure_ascii=ascii_only)
        for p in expected
    ]
    path = tmp_path_factory.mktemp("jsonl") / ("p.jsonl.gz" if zipped else "p.jsonl")
    data = "\n".join(lines).encode("utf-8")
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert list(load_corpus(path)) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rivers.tsv", TSV),
        ("rivers.tsv", TSV.replace("\r\n", "\n")),
        ("rivers.tsv", "\ufeff" + TSV),
        ("rivers.TSV", TSV + "\r\n\r\n"),
        ("rivers.jsonl", JSONL),
        ("rivers.jsonl", JSONL.replace("\n", "\r\n\r\n")),
        ("rivers.txt", TSV),
        ("rivers", JSONL),
        ("rivers.json", "\n" + JSONL),
    ],
)
def test_the_format_is_told_by_suffix_or_content(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8"))
    corpus = load_corpus(str(path))
    assert list(corpus) == RIVERS
    assert corpus.name == "rivers"


def test_gzip_is_told_by_content(tmp_path):
    zipped, plain = tmp_path / "rivers.tsv", tmp_path / "streams.tsv.gz"
    zipped.write_bytes(gzip.compress(TSV.encode()))
    plain.write_bytes(TSV.encode())
    assert list(load_corpus(zipped)) == list(load_corpus(plain)) == RIVERS
    assert load_corpus(plain).name == "streams"


def test_ids_in_other_digits_and_long_columns(tmp_path):
    """`12` and `1٢` are two ids, and a column may be longer than Python's own limit."""
    expected = [Passage("12", "A", "a" * 140_000), Passage("1٢", "B", "b"), Passage("012", "", "c")]
    path = tmp_path / "p.tsv"
    path.write_text(HEAD + "".join(f"{p.id}\t{p.text}\t{p.title}\n" for p in expected))
    assert list(load_corpus(path)) == expected


def test_reading_streams(tmp_path):
    """The first passage comes before a fault further down is met."""
    path = tmp_path / "p.tsv"
    path.write_text("id\ttext\ttitle\n1\tIt flows north.\tRhine\nbroken\n")
    stream = read_passages(path)
    assert next(stream) == RIVERS[0]
    with pytest.raises(InputError):
        next(stream)


HEAD = "id\ttext\ttitle\n"


@pytest.mark.parametrize(
    ("name", "content", "line", "said"),
    [
        ("p.tsv", HEAD + "1\ta\tA\n2\tb\n", 3, "2 columns"),
        ("p.tsv", HEAD + "1\ta\tA\tmore\n", 2, "4 columns"),
        ("p.tsv", HEAD + "\ta\tA\n", 2, "id is empty"),
        ("p.tsv", HEAD + "1\ta\tA\n\n2\t  \tB\n", 4, "text is empty"),
        # The first row has three lines: the fault is on line 5 of the file, in its third row.
        ("p.tsv", HEAD + '1\t"a\nb\nc"\tA\n1\tb\tB\n', 5, "second time"),
        ("p.tsv", HEAD + '1\ta\tA\n2\t"b\tB\n3\tc\tC\n', 3, "quotes"),
        ("p.tsv", HEAD + '1\t"a" b\tA\n', 2, "quotes"),
        ("p.tsv", HEAD + f'1\t"{"a" * 200_000}\tA\n', 2, "quotes"),
        ("p.tsv", HEAD + f'1\t"{"a" * (1 << 24)}\tA\n', 2, "16,777,216 characters"),
        ("p.tsv", HEAD + '1\t"a\tA\n2\tb\tB\n3\tc"\tC\n4\td\tD\n', 2, "line 4, so that"),
        ("p.tsv", HEAD + '1\ta\t"A\n\n2\tb\tB"\n', 2, "line 4, so that"),
        ("p.tsv", TSV.replace("\r\n", "\r"), 1, "carriage returns alone"),
        ("p.jsonl", JSONL.replace("\n", "\r"), 1, "carriage returns alone"),
        ("p.dat", TSV.replace("\r\n", "\r"), 1, "carriage returns alone"),
        ("p.tsv", HEAD + "1\ta\rb\tA\n", 2, "quotes"),
        ("p.tsv", "1\ta\tA\n", 1, "--columns"),
        ("p.tsv", b"id\ttext\ttitle\n1\ta\tA\n2\t\xe9t\xe9\tB\n", 3, "UTF-8"),
        ("p.tsv.gz", gzip.compress(b"id\ttext\ttitle\n1\t\xff\tA\n", mtime=0), 2, "UTF-8"),
        ("p.jsonl", JSONL + "{", 3, "JSON"),
        ("p.jsonl", JSONL + "\n[]", 4, "object"),
        ("p.jsonl", '{"id": "1", "title": "A"}', 1, "holds the text is not known"),
        ("p.jsonl", JSONL + '{"id": "3", "title": "A"}', 3, "the text is missing"),
        ("p.jsonl", JSONL + '{"id": 3.5, "title": "A", "text": "a"}', 3, "a whole number"),
        ("p.jsonl", JSONL + '{"id": true, "title": "A", "text": "a"}', 3, "a whole number"),
        ("p.jsonl", '{"id": "1", "title": 7, "text": "a"}', 1, "the title must be a string"),
        ("p.jsonl", '{"id": "1", "title": "A", "text": ["a"]}', 1, "the text must be a string"),
        ("p.jsonl", '{"id": "1", "title": "A", "text": ""}', 1, "the text is empty"),
        ("p.jsonl", '{"id": "1", "title": "A", "text": "\\ud800"}', 1, "surrogate"),
        ("p.jsonl", JSONL + '{"id": "1", "title": "A", "text": "a"}', 3, "second time"),
        ("p.jsonl", '{"id": ' + "1" * 5_000 + "}", 1, "JSON"),
        ("p.jsonl", b'{"id": "\xe9"}', 1, "UTF-8"),
    ],
)
def test_a_malformed_row_is_told_by_file_and_line(tmp_path, name, content, line, said):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    with pytest.raises(InputError) as caught:
        load_corpus(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.tsv", b"", "is empty"),
        ("p.tsv", b"id\ttext\ttitle\n", "holds no passage"),
        ("p.jsonl", b"\n\n", "is empty"),
        ("p.jsonl", b"[" * 100_000, "nested too deeply"),
        ("p.gz", b"", "is empty"),
        ("p.dat", b"Once upon a time", "is not known"),
        ("p.json", b"[]", "holds no passage"),
        ("p.tsv.bz2", bz2.compress(TSV.encode())[:-9], "cannot be read"),
        ("p.tsv", lzma.compress(TSV.encode())[:-9], "cannot be read"),
        ("p.tsv", lzma.compress(TSV.encode())[:20] + b"\xff" * 50, "cannot be read"),
        ("p.jsonl.gz", gzip.compress(bz2.compress(JSONL.encode())), "bzip2"),
        ("p.parquet", b"PAR1" + bytes(40) + b"PAR1", "cannot be read"),
        ("p.arrow", b"ARROW1" + bytes(40) + b"ARROW1", "cannot be read"),
        ("p.zip", b"PK\x03\x04" + bytes(40), "zip archive"),
        ("p.tsv", TSV.encode("utf-16"), "UTF-16"),
        ("wiki.xml", b"<mediawiki><page></page></mediawiki>", "corpus build"),
        ("p.tsv.gz", gzip.compress(TSV.encode(), mtime=0)[:-20], "cannot be read"),
        ("p.tsv.gz", gzip.compress(TSV.encode(), mtime=0)[:-8] + b"\0" * 8, "cannot be read"),
        ("p.tsv.gz", b"\x1f\x8b" + b"\0" * 30, "cannot be read"),
        ("p.tsv.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 30, "cannot be read"),
    ],
)
def test_a_file_that_is_no_corpus_is_refused_by_name(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        load_corpus(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"no file .*missing\.tsv"):
        load_corpus(tmp_path / "missing.tsv")
    with pytest.raises(InputError, match=r"no file .*missing\.tsv"):
        list(read_passages(tmp_path / "missing.tsv"))
    with pytest.raises(InputError, match="folder"):
        load_corpus(tmp_path)
    with pytest.raises(InputError, match="miniwiki"):
        load_corpus("minwiki")
    with pytest.raises(InputError):
        load_corpus("no\0path")

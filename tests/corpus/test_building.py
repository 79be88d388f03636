"""Passage files from sources: cut as DPR cut, the same bytes however often the build was killed."""

import bz2
import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.cli import main
from ragbook.corpus import Passage, building, load_corpus
from ragbook.corpus.building import build_passages, split_passages
from ragbook.corpus.ids import Ids, is_number
from ragbook.corpus.sources import Source, open_source
from ragbook.corpus.splitting import Split, cut_passage
from ragbook.errors import InputError
from tests.kills import kills_of

EIGHT, TEN = Split("words", 8), Split("words", 10)


class Killed(Exception):
    pass


def numbered(n: int) -> list[Passage]:
    """Passages of 0 to 24 words."""
    return [
        Passage(str(i), f"T{i}", " ".join(f"w{i}-{j}" for j in range(i % 25))) for i in range(n)
    ]


def upper(passage: Passage) -> Passage | None:
    """Stands for the cleaning of wikitext; every seventh article is none."""
    if int(passage.id) % 7 == 3:
        return None
    return Passage(passage.id, passage.title, passage.text.upper())


@given(st.lists(st.text("ab \n\t", max_size=30), max_size=8), st.integers(1, 5))
def test_pieces_hold_the_words_in_order(texts, words):
    passages = [Passage(str(i), "T", text) for i, text in enumerate(texts)]
    pieces = list(split_passages(passages, Split("words", words)))
    found = [word for piece in pieces for word in piece.text.split()]
    assert found == [word for text in texts for word in text.split()]
    assert all(len(piece.text.split()) <= words for piece in pieces)
    assert len({piece.id for piece in pieces}) == len(pieces)
    assert [p for p in pieces if "-" not in p.id] == [
        p for p in passages if len(p.text.split()) <= words
    ]


@pytest.mark.parametrize(("long", "other"), [("1", "1-2"), ("a", "a-2")])
def test_pieces_that_collide_are_refused(long, other):
    passages = [Passage(long, "", "word " * 11), Passage(other, "", "word " * 3)]
    for order in (passages, passages[::-1], 2 * passages[:1]):
        with pytest.raises(InputError, match="second time"):
            list(split_passages(order, TEN))
    assert len(list(split_passages([Passage("1-2", "", "a"), Passage("1", "", "b")], TEN))) == 2


numbers = st.integers(0, 3_000).map(str)


@given(st.lists(numbers | st.text("019-a", max_size=4), max_size=60))
def test_ids_are_a_set(ids):
    seen, expected = Ids(), set()
    for id in ids:
        assert (id in seen) == (id in expected)
        assert seen.add(id) == (id not in expected)
        expected.add(id)
    assert not is_number("007")
    assert not is_number("1\n")
    assert not is_number("٣")
    assert not is_number("1٣")
    assert not any(is_number(f"1{digit}") for digit in "²①١१１𝟙")


@pytest.mark.parametrize("article", [None, upper])
@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_killed_at_every_record_and_resumed(tmp_path, monkeypatch, article, name):
    monkeypatch.setattr(building, "PART", 10)
    records = [p for p in numbered(73) if p.text]
    whole = tmp_path / "whole" / name
    whole.parent.mkdir()
    count = build_passages(Source("s", "1", lambda: iter(records), article), whole, split=EIGHT)
    assert count == len(load_corpus(whole))
    kept = [p for p in map(article or (lambda p: p), records) if p]
    assert list(load_corpus(whole)) == [piece for p in kept for piece in cut_passage(p, EIGHT)]
    for kills in ([3], [11, 5, 40], [25, 69], [0]):
        out = tmp_path / name
        for kill in kills:

            def stopping(kill=kill):
                for number, record in enumerate(records):
                    if number == kill:
                        raise Killed
                    yield record

            with pytest.raises(Killed):
                build_passages(Source("s", "1", stopping, article), out, split=EIGHT)
            assert not out.exists()
        seen = []

        def noted(record, seen=seen):
            seen.append(record)
            return upper(record)

        build_passages(Source("s", "1", lambda: iter(records), article and noted), out, split=EIGHT)
        assert out.read_bytes() == whole.read_bytes()
        assert {path.name for path in tmp_path.iterdir()} == {"whole", name}
        if article and max(kills) > 10:
            assert len(seen) < len(records), "what was done was done again"
        out.unlink()


def test_remains_of_another_source_are_not_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "PART", 10)
    out = tmp_path / "p.jsonl"

    def stopping():
        yield from numbered(40)[1:]
        raise Killed

    with pytest.raises(Killed):
        build_passages(Source("s", "1", stopping, upper), out)
    assert len(list(tmp_path.iterdir())) == 1
    build_passages(Source("s", "2", lambda: iter(numbered(5)[1:])), out)
    assert [p.id for p in load_corpus(out)] == ["1", "2", "3", "4"]
    assert list(tmp_path.iterdir()) == [out]


def test_several_processes_write_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "TASK", 7)
    source = Source("s", "1", lambda: iter(numbered(60)), upper)
    build_passages(source, tmp_path / "one.jsonl")
    build_passages(source, tmp_path / "two.jsonl", processes=2)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


@pytest.mark.parametrize("processes", [1, 2])
def test_articles_that_cannot_be_read_are_left_out_and_counted(tmp_path, monkeypatch, processes):
    """Each of any kind of fault, and counted also when they were read before a kill."""
    monkeypatch.setattr(building, "PART", 10)
    monkeypatch.setattr(building, "TASK", 4)
    records, found = numbered(38)[1:], []

    def stopping():
        yield from records[:31]
        raise Killed

    out = tmp_path / "p.jsonl"
    with pytest.raises(Killed):
        build_passages(Source("s", "1", stopping, faulty), out, processes)
    assert list(out.parent.glob(".p.jsonl.parts-*/left-out-*")), "nothing was read before the kill"
    source = Source("s", "1", lambda: iter(records), faulty)
    count = build_passages(source, out, processes, left_out=found.append)
    assert count == len(load_corpus(out)) == len(records) - 4
    assert [(fault.title, fault.reason.split(":")[0]) for fault in found] == [
        ("T5", "too deep"),
        ("T11", "'utf-8' codec can't encode character '\\ud800' in position 0"),
        ("T17", "RuntimeError"),
        ("T35", "KeyError"),
    ]
    assert list(tmp_path.iterdir()) == [out]


def faulty(passage: Passage) -> Passage | None:
    match passage.id:
        case "5":
            raise RecursionError("too deep")
        case "11":
            return Passage(passage.id, passage.title, "\ud800")
        case "17":
            raise RuntimeError
        case "35":
            raise KeyError
    return Passage(passage.id, passage.title, passage.text or "x")


def test_a_missing_package_ends_the_build(tmp_path):
    def article(passage):
        raise InputError("install it")

    with pytest.raises(InputError, match="install it"):
        build_passages(Source("s", "1", lambda: iter(numbered(3)), article), tmp_path / "p.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_dump_with_a_page_that_is_no_text(tmp_path, capsys):
    pytest.importorskip("mwparserfromhell", reason="mwparserfromhell is not installed")
    pages = ["All is well.", "Half &amp;#xD800; a pair.", "&lt;b&gt;" * 5_000, "The last."]
    dump = tmp_path / "wiki.xml"
    dump.write_text(
        "<mediawiki>"
        + "".join(
            f"<page><title>T{n}</title><ns>0</ns><id>{n}</id><revision><text>{text}</text>"
            "</revision></page>"
            for n, text in enumerate(pages)
        )
        + "</mediawiki>"
    )
    out = tmp_path / "p.jsonl"
    assert main(["corpus", "build", str(dump), "--out", str(out)]) == 0
    assert [p.text for p in load_corpus(out)] == [
        "All is well.",
        "Half &#xD800; a pair.",
        "The last.",
    ]
    told = capsys.readouterr()
    assert told.out == f"{out}: 3 passages\n"
    assert "cannot be read: 1 (" in told.err
    assert "(T2: too much of its markup" in told.err


def test_no_passage_is_refused(tmp_path):
    with pytest.raises(InputError, match="no passage"):
        build_passages(Source("s", "1", lambda: iter(numbered(4)[3:]), upper), tmp_path / "p.jsonl")
    with pytest.raises(InputError, match="let its name end in"):
        build_passages(Source("s", "1", lambda: iter(())), tmp_path / "p.tsv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_every_file_operation():
    kills, said = kills_of("corpus/killed_corpora.py", timeout=120)
    assert not said
    assert kills > 20, "the build was killed at too few points to mean anything"


def test_memory_does_not_grow_with_the_dump(tmp_path, monkeypatch):
    pytest.importorskip("mwparserfromhell", reason="mwparserfromhell is not installed")
    monkeypatch.setattr(building, "PART", 20)

    def peak(pages: int) -> int:
        path = tmp_path / f"{pages}.xml.bz2"
        text = "Some ''words'' of [[an article|articles]]. " + "Some words of an article. " * 65
        with bz2.BZ2File(path, "wb", compresslevel=1) as file:
            file.write(b"<mediawiki>")
            for number in range(pages):
                page = f"<page><title>T</title><ns>0</ns><id>{number}</id><revision><text>{text}"
                file.write(f"{page}</text></revision></page>\n".encode())
            file.write(b"</mediawiki>")
        tracemalloc.start()
        build_passages(open_source(str(path), tmp_path), tmp_path / f"{pages}.jsonl")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(20)  # what is loaded once
    assert peak(400) < 1.3 * peak(60)


def test_from_dump_to_passages(tmp_path):
    pytest.importorskip("mwparserfromhell", reason="mwparserfromhell is not installed")
    text = Path(__file__).with_name("hard-cases.xml").read_text(encoding="utf-8")
    path = tmp_path / "wiki.xml.bz2"
    path.write_bytes(bz2.compress(text.replace("WORDS", "word " * 250).encode()))
    out = tmp_path / "p.jsonl.gz"
    assert build_passages(open_source(str(path), tmp_path), out) == 6
    assert [p.id for p in load_corpus(out)] == ["7", "19", "20", "21-1", "21-2", "21-3"]


def test_data_set_of_hugging_face(tmp_path):
    pytest.importorskip("datasets", reason="datasets is not installed (ragbook[datasets])")
    rows = [{"id": str(i), "url": "u", "title": f"T{i}", "text": f"text {i}"} for i in range(5)]
    rows[3]["text"] = " "
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "p.jsonl"
    assert build_passages(open_source(f"hf:{folder}", tmp_path), out) == 4
    assert [p.title for p in load_corpus(out)] == ["T0", "T1", "T2", "T4"]
    with pytest.raises(InputError, match="cannot be opened"):
        open_source(f"hf:{tmp_path / 'nowhere'}", tmp_path)
    (folder / "train.jsonl").write_text(json.dumps({"id": 1, "title": ""}) + "\n")
    with pytest.raises(InputError, match="which column holds the text"):
        build_passages(open_source(f"hf:{folder}", tmp_path), tmp_path / "q.jsonl")


def test_gzip_file_is_read_by_others(tmp_path):
    out = tmp_path / "p.jsonl.gz"
    build_passages(Source("s", "1", lambda: iter(numbered(4)[1:])), out)
    assert len(gzip.decompress(out.read_bytes()).splitlines()) == 3


def test_a_piece_names_what_it_was_cut_from(tmp_path):
    passages = [Passage("a", "T", "one two three"), Passage("b", "T", "four")]
    built = [("passages", Source("s", "1", lambda: iter(passages)))]
    built += [("articles", Source("s", "1", lambda: iter(passages), same))]
    for name, source in built:
        out = tmp_path / f"{name}.jsonl"
        build_passages(source, out, split=Split("words", 2))
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [(line["id"], line.get("document")) for line in lines] == [
            ("a-1", "a"),
            ("a-2", "a"),
            ("b", None),
        ]
        assert [p.text for p in load_corpus(out)] == ["one two", "three", "four"]


def same(passage: Passage) -> Passage:
    return passage


def test_a_build_that_was_cut_otherwise_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "PART", 2)
    out = tmp_path / "p.jsonl"

    def stopping():
        yield from numbered(8)[1:]
        raise Killed

    with pytest.raises(Killed):
        build_passages(Source("s", "1", stopping), out, split=EIGHT)
    build_passages(Source("s", "1", lambda: iter(numbered(8)[1:])), out, split=Split("words", 3))
    assert max(len(p.text.split()) for p in load_corpus(out)) == 3

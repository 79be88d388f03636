"""Damaged passages, questions, dumps and pages: the right result, or one sentence."""

import bz2
import gzip
import json

import pytest
from experiments import layouts
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import dump, load_corpus, load_questions
from ragbook.corpus.building import build_passages
from ragbook.corpus.nesting import BrokenMarkup
from ragbook.corpus.sources import open_source
from tests.fuzz.conftest import NASTY, damaged, fuzzed, right_or_told

PASSAGES = {
    "p.tsv": b'id\ttext\ttitle\n1\t"It flows ""north""."\tRhine\n2\tIt flows east.\tDanube\n',
    "p.jsonl": b'{"id": "1", "title": "Rhine", "text": "North."}\n'
    b'{"id": "2", "title": "", "text": "East."}\n',
    "p.txt": b" = Rhine = \n\n It flows north . \n = = Source = = \n In the Alps . \n",
}
ANSWERED = {"question": "who wrote faust", "answers": ["Goethe"]}
QUESTIONS = {
    "q.jsonl": json.dumps({"question": "a", "answer": ["b"], "gold_passage": "1"}).encode() * 2,
    "q.csv": b"who wrote faust\t['Goethe', \"J. W. Goethe\"]\nwhere\t['there']\n",
    "dpr.json": json.dumps([ANSWERED | {"positive_ctxs": [{"psg_id": 7}]}] * 2).encode(),
    "squad.json": json.dumps(
        {"data": [{"paragraphs": [{"qas": [{"question": "a", "answers": [{"text": "b"}]}]}]}]}
    ).encode(),
}
LAYOUTS = [{}, {}]
for found, examples in zip(LAYOUTS, (layouts.PASSAGES, layouts.QUESTIONS), strict=True):
    for example in examples:
        if "." in example.name:  # a file and no folder
            found[example.name] = layouts.content(example)
DOCUMENTS = {
    "a.md": b"---\ntitle: A\n---\n# One\n[a](b) **c**\n\n```\n# no\n```\n\nTwo\n---\n- d\n<!--",
    "a.rst": b"Title\n=====\n\n.. note:: a\n\n   :ref:`b <c>` ``d``\n\nTwo\n---\n",
    "a.html": b"<!doctype html><meta charset=utf-8><title>T</title><nav>n</nav><main><p>a<pre>b",
    "a.txt": "Ein Fluß.\r\nEr fließt.\r".encode(),
}


def cases(files):
    """(name, contents): damaged files under their own names or another's, some of them zipped."""

    def packed(name):
        contents = damaged(files[name]) | st.binary(max_size=60)
        return contents | contents.map(gzip.compress) | damaged(gzip.compress(files[name], mtime=0))

    names = st.sampled_from([*files, "p", "p.json", "p.gz"])
    return st.sampled_from(list(files)).flatmap(lambda name: st.tuples(names, packed(name)))


def sound(text):
    return isinstance(text, str) and text.encode("utf-8") is not None


@fuzzed(120)
@given(cases(PASSAGES))
def test_passages(tmp_path_factory, case):
    path = tmp_path_factory.mktemp("passages") / case[0]
    path.write_bytes(case[1])
    found = right_or_told(lambda: load_corpus(path))
    if found is not None:
        assert len({passage.id for passage in found}) == len(found) > 0
        assert all(sound(p.id) and sound(p.title) and sound(p.text) for p in found)
        assert all(p.id.strip() and p.text.strip() for p in found)


@fuzzed(120)
@given(cases(QUESTIONS))
def test_questions(tmp_path_factory, case):
    path = tmp_path_factory.mktemp("questions") / case[0]
    path.write_bytes(case[1])
    found = right_or_told(lambda: load_questions(path))
    if found is not None:
        assert len(found) > 0
        assert all(sound(q.text) and q.text.strip() for q in found)
        assert all(sound(answer) and answer.strip() for q in found for answer in q.answers)
        assert all(sound(gold) for q in found for gold in q.gold_ids)


@fuzzed(150)
@given(cases(LAYOUTS[0] | DOCUMENTS))
def test_passages_of_every_layout(tmp_path_factory, case):
    test_passages.hypothesis.inner_test(tmp_path_factory, case)


@fuzzed(150)
@given(cases(LAYOUTS[1]))
def test_questions_of_every_layout(tmp_path_factory, case):
    test_questions.hypothesis.inner_test(tmp_path_factory, case)


PAGE = "<page><title>T{0}</title><ns>0</ns><id>{0}</id><revision><text>{1}</text></revision></page>"
MARKUP = """{{ }} [[ ]] {| |} '' == <ref> </ref> <b> </b> <nowiki> <!-- --> &#xD800; &#39; &amp; |
[http://a ] {{convert|6|ft|2+1/2|in}} {{val|1|2|u=m}} {{as_of|2010|5}} {{lang|fr| [[Bild: * # : ;
{{{ }}} __A__ <includeonly> </math> <math> = ( ) , word Wort"""
pieces = st.lists(st.sampled_from([*MARKUP.split(), "\n", "\n\n", " "]), max_size=30).map("".join)


@pytest.fixture(scope="module", autouse=True)
def parser():
    return pytest.importorskip("mwparserfromhell", reason="mwparserfromhell is not installed")


@fuzzed(250)
@given(pieces | st.text(max_size=60))
def test_pages(wikitext):
    page = dump.Page("1", "1", "T", wikitext, frozenset({"file"}))
    try:
        found = dump.article(page)
    except BrokenMarkup:
        pytest.fail("a page of so few characters is never too much work")
    if found is not None:
        assert found.text == " ".join(found.text.split())
        assert found.text
        if "\ud800" not in wikitext:
            assert sound(found.text)


@fuzzed(50)
@given(st.lists(pieces, min_size=1, max_size=3), st.data())
def test_dumps(tmp_path_factory, texts, data):
    shown = [text.replace("&", "&amp;").replace("<", "&lt;") for text in texts]
    pages = "".join(PAGE.format(n, text) for n, text in enumerate(shown))
    whole = f"<mediawiki>{pages}</mediawiki>".encode()
    name = data.draw(st.sampled_from(["w.xml", "w.xml.bz2", "w.xml.gz"]))
    pack = {"w.xml": bytes, "w.xml.bz2": bz2.compress, "w.xml.gz": gzip.compress}[name]
    contents = data.draw(damaged(whole).map(pack) | damaged(pack(whole)))
    folder = tmp_path_factory.mktemp("dump")
    (folder / name).write_bytes(contents)
    out = folder / "p.jsonl"
    count = right_or_told(
        lambda: build_passages(open_source(str(folder / name), folder), out, progress=False)
    )
    if count is None:
        assert not out.exists()
    else:
        assert len(load_corpus(out)) == count


@fuzzed(60)
@given(st.lists(st.sampled_from(NASTY), max_size=6).map(b"".join))
def test_nothing_but_nasty_bytes(tmp_path_factory, contents):
    path = tmp_path_factory.mktemp("nasty") / "p"
    path.write_bytes(contents)
    right_or_told(lambda: load_corpus(path))
    right_or_told(lambda: load_questions(path))

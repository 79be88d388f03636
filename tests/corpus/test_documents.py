"""Documents of a folder as passages: their texts and titles, and ids that name the right place."""

import os
import re
import sys
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage
from ragbook.corpus.documents import is_documents, read_document, read_documents
from ragbook.corpus.splitting import DEFAULT_SPLIT, Split, parse_split
from ragbook.errors import InputError

WHOLE = parse_split("none")


def read(path: Path, split: str | Split = WHOLE) -> list[Passage]:
    return list(read_documents(path, parse_split(split) if isinstance(split, str) else split))


def one(path: Path, content: str | bytes, split: str = "none") -> Passage:
    """The only passage of a file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (found,) = read(path, split)
    return found


MARKDOWN = """\
---
title: "The *guide*"
tags: [a]
---
# Guide to [Xanadu](http://x.org "tip")

Some **bold** and `code`, ![a picture](p.png)an <b>entity</b> &amp; a
second [line][ref], a note[^1].<!-- gone
also gone --> Kept.

[ref]: http://y.org
  'its title'
[other]: <http://z.org>

Setext heading
--------------

* first
* second
  goes on

| Key | Value |
|-----|-------|
| a   | `1`   |

```python
# no heading
[ref]: kept
```

## Last ##

[^1]: A foot note.
"""


def test_markdown_without_its_markup(tmp_path):
    found = one(tmp_path / "a.md", MARKDOWN)
    assert found.title == "The *guide*"
    assert found.text.split("\n") == [
        *("Guide to Xanadu", ""),
        *("Some bold and code, an entity & a", "second line, a note. Kept.", ""),
        *("Setext heading", ""),
        *("first", "", "second", "goes on", ""),
        *("Key | Value", "a | 1", ""),
        *("# no heading", "[ref]: kept", ""),
        *("Last", "", "A foot note."),
    ]
    assert found.id == "a.md#L5"


def test_markdown_under_its_headings(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(MARKDOWN.replace("The *guide*", "Guide to Xanadu"))
    assert [(p.id, p.title, p.text.split("\n")[0]) for p in read(path, "headings")] == [
        ("a.md#L7", "Guide to Xanadu", "Some bold and code, an entity & a"),
        ("a.md#L18", "Guide to Xanadu: Setext heading", "first"),
        ("a.md#L33", "Guide to Xanadu: Last", "A foot note."),
    ]


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("text\n\nTitle\n=====\n", "Title"),
        ("```\n# no\n```\n\n## Yes `it` is\n", "Yes it is"),
        ("+++\ntitle = 'In TOML'\n+++\ntext", "In TOML"),
        ("---\ntitle: Plain: with colon\n---\ntext", "Plain: with colon"),
        ("---\nno front matter\n---\ntext", "no front matter"),
        ("---\ntitle: never closed\n\ntext", "name"),
        ("only text", "name"),
        ("```\nnever closed\n# no heading\n", "name"),
        ("#\n\ntext", "name"),
    ],
)
def test_titles_of_markdown(tmp_path, content, title):
    assert one(tmp_path / "name.md", content).title == title


def test_what_is_never_closed_is_kept(tmp_path):
    assert one(tmp_path / "a.md", "text\n\n<!-- never\n\nclosed").text == "text\n\nnever\nclosed"
    assert one(tmp_path / "b.md", "a\n\n```\n# code\nmore").text == "a\n\n# code\nmore"
    assert one(tmp_path / "c.md", "<script>\nx\n</script>\n\na **b").text == "a **b"


RST = """\
.. _top:
.. A comment
   of two lines

=========
The Guide
=========

A `link <http://x.org>`_, :ref:`a
role <target>`, :func:`~a.b.run`, ``a *literal*`` and **bold** [1]_ word_.

.. note:: Take care
   of this.

.. code-block:: sh
   :linenos:

   run `it` *now*

Install
-------

Do this::

    # as it is
    `x`

1. one
#. two

.. image:: p.png
   :alt: nothing

.. toctree::

   other

+-----+-----+
| a   | b   |
+-----+-----+

.. [1] The foot note.

Deeper
~~~~~~
End.
"""


def test_restructured_text_without_its_markup(tmp_path):
    found = one(tmp_path / "a.rst", RST)
    assert found.title == "The Guide"
    assert found.text.split("\n") == [
        *("The Guide", ""),
        *("A link, a", "role, run, a *literal* and bold word.", ""),
        *("Take care", "of this.", ""),
        *("run `it` *now*", ""),
        *("Install", "", "Do this:", ""),
        *("# as it is", "`x`", ""),
        *("one", "", "two", ""),
        *("a | b", "", "The foot note.", ""),
        *("Deeper", "", "End."),
    ]
    titles = {p.id: p.title for p in read(tmp_path / "a.rst", "headings")}
    assert titles == {
        "a.rst#L9": "The Guide",
        "a.rst#L23": "The Guide: Install",
        "a.rst#L46": "The Guide: Install: Deeper",
    }


PAGE = """<!DOCTYPE html><html><head><title>Install - Docs</title><style>p {}</style></head><body>
<header><a href="/">Docs</a></header><nav><ul><li>Menu</li></ul></nav>
<div class="sidebar"><p>All pages</p></div>
<main><h1>Install<a class="headerlink" href="#i">¶</a></h1><p>Needs <b>Python</b> and
<a href="x">more</a>.</p><aside><p>Take care.</p></aside><pre>pip install x
x --run</pre><h2>Options</h2><table><tr><th>Name</th><th>Use</th></tr><tr><td>-v</td><td>tells
more</td></tr></table><ul><li>one<ul><li>inner</li></ul></li></ul><script>no()</script></main>
<footer>© nobody</footer></body></html>"""


def test_a_page_without_what_surrounds_it(tmp_path):
    found = one(tmp_path / "a.html", PAGE)
    assert (found.id, found.title) == ("a.html#P1", "Install - Docs")
    assert found.text.split("\n\n") == [
        *("Install", "Needs Python and more.", "Take care.", "pip install x\nx --run", "Options"),
        *("Name | Use", "-v | tells more", "one", "inner"),
    ]
    assert [(p.id, p.title) for p in read(tmp_path / "a.html", "headings")] == [
        ("a.html#P2", "Install - Docs"),
        ("a.html#P6", "Install - Docs: Options"),
    ]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("plain text", "plain text"),
        ("<title>T</title>Loose<p>one<p>two<br>lines", "Loose\n\none\n\ntwo\nlines"),
        ("<body><nav>only a menu</nav>", "only a menu"),
        ("<div class=sidebar>only a sidebar</div>", "only a sidebar"),
        ("<main></main><p>beside</p>", "beside"),
        ("<article>a</article><article>b</article>", "a\n\nb"),
        ("<header><h1>Name</h1></header><p>text</p><footer>f</footer>", "Name\n\ntext"),
        ("<p hidden>no</p><p role=navigation>no</p><p>a&lt;b&amp;</p>", "a<b&"),
        ("<p>a<!-- c -->b</p><svg><title>t</title></svg>", "ab"),
        ("a\0b", "ab"),
    ],
)
def test_pages_of_little_markup(tmp_path, page, text):
    assert one(tmp_path / "a.html", page).text == text


@pytest.mark.parametrize("name", ["a.htm", "a.xhtml", "a.HTML"])
def test_a_pages_declared_charset_is_honoured(tmp_path, name):
    path, text = tmp_path / name, "Größe “x”"
    for charset, declared in [
        ("cp1252", "<meta charset=windows-1252>"),
        ("cp1252", "<META HTTP-EQUIV=Content-Type content='text/html; charset=ISO-8859-1'>"),
        ("utf-8", "<meta charset='utf-8'>"),
        ("utf-8", "<meta charset=utf-16>"),
        ("utf-8", ""),
        ("mac-roman", "<?xml version='1.0' encoding='macintosh'?>"),
    ]:
        assert one(path, f"{declared}<p>{text}</p>".encode(charset)).text == text
    assert one(path, ("\ufeff<p>" + text).encode("utf-16-le")).text == text
    assert one(path, "\ufeff<meta charset=cp1252><p>é".encode()).text == "é"
    path.write_bytes("<meta charset=shift_jis><p>日本</p>".encode("shift_jis"))
    assert read(path)[0].text == "日本"


@pytest.mark.parametrize("charset", ["idna", "rot13", "unicode_escape", "base64", "x" * 99])
def test_what_is_no_charset_is_said(tmp_path, charset):
    path = tmp_path / "a.html"
    path.write_text(f"<meta charset={charset}><p>text")
    with pytest.raises(InputError, match=r"its charset .* is not known"):
        read(path)


def test_text_of_any_line_ends(tmp_path):
    for ends in ("\n", "\r\n", "\r"):
        for mark in ("", "\ufeff"):
            text = f"{mark}One{ends}two\0{ends}{ends}three{ends}"
            (tmp_path / "a.txt").write_bytes(text.encode())
            found = read(tmp_path / "a.txt", "words:1")
            assert [p.id for p in found] == ["a.txt#L1", "a.txt#L2", "a.txt#L4"]
            assert [p.text for p in found] == ["One", "two", "three"]
            assert {p.title for p in found} == {"a"}


def test_pieces_that_begin_at_one_place(tmp_path):
    (tmp_path / "a.txt").write_text("one two three\nfour five")
    assert [p.id for p in read(tmp_path / "a.txt", "words:1")] == [
        *("a.txt#L1", "a.txt#L1.2", "a.txt#L1.3", "a.txt#L2", "a.txt#L2.2"),
    ]


WORDS = st.lists(st.sampled_from(["aa", "bb.", "Cc", "dd"]), min_size=1, max_size=6)
BLOCK = st.one_of(
    WORDS.map(" ".join),
    WORDS.map(lambda w: "# " + " ".join(w)),
    WORDS.map(lambda w: " ".join(w) + "\n---"),
    WORDS.map(lambda w: "* " + "\n  ".join(w)),
    WORDS.map(lambda w: "```\n" + "\n\n".join(w) + "\n```"),
    WORDS.map(lambda w: "**" + "\n".join(w) + "** and\n[aa\nbb](http://x)\ncc"),
    WORDS.map(lambda w: "> " + "\n".join(w)),
    WORDS.map(lambda w: "|a|b|\n|-|-|\n" + "\n".join(f"| {word} | x |" for word in w)),
    st.sampled_from(["<!-- a\n\nb -->", "---", "[aa]: http://x", "<div>\naa\n</div>", ""]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(BLOCK, max_size=8), st.sampled_from(["words:3", "sentences:4", "headings:3"]))
def test_a_line_holds_what_begins_at_it(tmp_path_factory, blocks, split):
    path = tmp_path_factory.mktemp("d") / "a.md"
    path.write_text("\n\n".join(["start", *blocks]))
    lines = path.read_text().split("\n")
    found = read(path, split)
    assert len({p.id for p in found}) == len(found)
    for passage in found:
        place = re.fullmatch(r"a\.md#L(\d+)(\.\d+)?", passage.id)
        assert place
        assert passage.text.split()[0] in lines[int(place[1]) - 1]


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_folder_in_the_order_of_its_paths(tmp_path):
    names = ["a/x.md", "a-b/y.txt", "a.md", "Z.rst", "b/c/d.md", "a b#1%.md", "-v.md", "é/ü.txt"]
    fill(tmp_path, {name: f"text of {name}" for name in names})
    fill(tmp_path, {".hidden.md": "no", ".git/a.md": "no", "node_modules/p/a.md": "no"})
    fill(tmp_path, {"__pycache__/a.txt": "no", "p.png": "", "q.PNG": "", "Makefile": ""})
    fill(tmp_path, {"empty.md": "\n \n", "only.html": "<script>1</script>"})
    (tmp_path / "bad.md").write_bytes(b"fine\r\nnot\xff")
    told: list[str] = []
    found = list(read_documents(tmp_path, DEFAULT_SPLIT, told.append))
    assert [p.id for p in found] == [f"{name}#L1" for name in sorted(names)]
    assert told == [
        f"{tmp_path}: 8 documents read (5 Markdown, 2 text, 1 reStructuredText); left out: "
        "3 documents (bad.md: line 2: byte 0xff is not UTF-8; convert the file to UTF-8; "
        "empty.md: it has no text; only.html: it has no text), "
        "3 files of other kinds (.png 2; no suffix 1)"
    ]
    assert Corpus("c", found).get("a b#1%.md#L1").text == "text of a b#1%.md"


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="links")
def test_links_are_not_followed_out_or_in_circles(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "out"
    fill(folder, {"a/x.md": "x", ".data/y.md": "y"})
    fill(outside, {"secret.md": "secret"})
    (folder / "out").symlink_to(outside)
    (folder / "secret.md").symlink_to(outside / "secret.md")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "broken.md").symlink_to(folder / "nothing.md")
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "y.md").symlink_to(folder / ".data" / "y.md")
    told: list[str] = []
    found = list(read_documents(folder, WHOLE, told.append))
    assert [(p.id, p.text) for p in found] == [("a/x.md#L1", "x"), ("y.md#L1", "y")]
    assert told[0].endswith("left out: 5 links")
    (tmp_path / "link").symlink_to(folder)
    assert [p.id for p in read(tmp_path / "link")] == ["a/x.md#L1", "y.md#L1"]


def test_names_that_no_id_can_have(tmp_path):
    fill(tmp_path, {"a.md": "a", "b\nc.md": "b"})
    if sys.platform == "linux":
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.md")).write_text("c")
    told: list[str] = []
    assert [p.id for p in read_documents(tmp_path, WHOLE, told.append)] == ["a.md#L1"]
    assert "control character; rename it" in told[0]
    assert "\n" not in told[0]


@pytest.mark.parametrize("files", [{}, {"a.png": ""}, {"a.md": ""}, {".a.md": "x"}])
def test_a_folder_with_nothing_to_read(tmp_path, files):
    fill(tmp_path, files)
    with pytest.raises(InputError, match="holds no document that can be read") as caught:
        read(tmp_path)
    assert str(caught.value).endswith(".pdf.")


def test_one_document_that_cannot_be_read(tmp_path):
    (tmp_path / "a.md").write_bytes(b"\n\nab\xe9")
    for path, said in [
        (tmp_path / "a.md", "a.md: line 3: byte 0xe9 is not UTF-8"),
        (tmp_path / "no.md", "There is no file"),
        (tmp_path / "a.doc", "is no document"),
        (tmp_path / "b.txt", "b.txt: it has no text"),
    ]:
        if path.suffix in (".doc", ".txt"):
            path.write_text("")
        with pytest.raises(InputError, match=re.escape(said)):
            read(path)


def test_what_documents_are(tmp_path):
    fill(tmp_path, {"notes/a.md": "", "saved/dataset_info.json": "", "saved/state.json": ""})
    fill(
        tmp_path, {"sets/dataset_dict.json": "", "site/manifest.json": "{}", "site/state.json": ""}
    )
    fill(tmp_path, {"index/manifest.json": '{\n  "kind": "ragbook passage index"}'})
    fill(tmp_path, {"a.MD": "", "a.jsonl": "", "a.txt": "text\n", "wiki.txt": "\n = Title = \nx"})
    fill(
        tmp_path, {"lines.txt": '{"id": 1}', "psgs.txt": "id\ttext\ttitle\n", "p.pdf": "", "x": ""}
    )
    found = {path.name for path in tmp_path.iterdir() if is_documents(path)}
    assert found == {"notes", "site", "a.MD", "a.txt", "p.pdf"}
    assert not is_documents(tmp_path / "nothing.md")


# --- PDF ----------------------------------------------------------------------------------------


def pdf_of(*pages: str, title: str | None = None) -> bytes:
    """A PDF file with a line of text on each page, written by hand."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R "
            f">> >> /Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    info = ""
    if title is not None:
        objects.append(f"<< /Title ({title}) >>")
        info = f" /Info {len(objects)} 0 R"
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
    out += (
        f"<< /Size {len(objects) + 1} /Root 1 0 R{info} >>\nstartxref\n{out.index('xref')}\n%%EOF"
    )
    return out.encode("latin-1")


pypdf_only = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("pypdf"), reason="pypdf is not installed"
)


@pypdf_only
def test_pages_of_a_pdf_file_are_cut_each_by_itself(tmp_path):
    path = tmp_path / "paper.pdf"
    path.write_bytes(pdf_of("one two three", "", "four", title="The Paper"))
    found = read(path, "words:2")
    assert [(p.id, p.title, p.text) for p in found] == [
        ("paper.pdf#page=1", "The Paper", "one two"),
        ("paper.pdf#page=1.2", "The Paper", "three"),
        ("paper.pdf#page=3", "The Paper", "four"),
    ]
    path.write_bytes(pdf_of("one"))
    assert read(path)[0].title == "paper"


@pypdf_only
def test_pdf_files_that_cannot_be_read(tmp_path):
    import pypdf

    whole = pdf_of("some text")
    locked = pypdf.PdfWriter()
    locked.append(__import__("io").BytesIO(whole))
    locked.encrypt("secret", algorithm="RC4-128")
    with open(tmp_path / "locked.pdf", "wb") as file:
        locked.write(file)
    contents = {
        "circle": whole.replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"),
        "cut": whole[: len(whole) // 3],
        "empty": b"",
        "none": b"not a PDF file at all",
        "scanned": pdf_of(""),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.pdf").write_bytes(content)
    for name in [*contents, "locked"]:
        with pytest.raises(InputError, match=f"{name}.pdf: it "):
            read(tmp_path / f"{name}.pdf")
    (tmp_path / "good.pdf").write_bytes(whole)
    told: list[str] = []
    assert [p.id for p in read_documents(tmp_path, WHOLE, told.append)] == ["good.pdf#page=1"]
    assert "1 document read (1 PDF); left out: 6 documents (circle.pdf: it " in told[0]


@pypdf_only
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6))
def test_a_damaged_pdf_file_is_read_or_said_to_be_damaged(tmp_path_factory, changes):
    data = bytearray(pdf_of("some text", "more text"))
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.mktemp("p") / "a.pdf"
    path.write_bytes(data)
    with suppress(InputError):  # any other error fails
        read(path)


def test_without_pypdf_a_pdf_file_is_left_out_and_the_extra_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdf", None)
    (tmp_path / "a.pdf").write_bytes(pdf_of("text"))
    with pytest.raises(InputError, match=r"pip install 'ragbook\[pdf\]'"):
        read(tmp_path / "a.pdf")
    fill(tmp_path, {"b.md": "text"})
    told: list[str] = []
    assert [p.id for p in read_documents(tmp_path, WHOLE, told.append)] == ["b.md#L1"]
    assert "ragbook[pdf]" in told[0]


# --- size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "word. " * 1_700_000),
        ("a.md", "word. " * 1_700_000),
        ("a.md", "*a [b " * 300_000),
        ("a.md", "[a]: b\n" * 50_000),
        ("a.md", "<!-- " * 200_000),
        ("a.rst", "word. " * 1_700_000),
        ("a.rst", "*a `b |c " * 100_000),
        ("a.rst", ".. a:: " * 200_000),
        ("a.rst", "a::\n\n" * 50_000),
        ("a.html", "word. " * 1_700_000),
        ("a.html", "<p>a" * 200_000),
        ("a.html", "<b>" * 200_000),
    ],
)
def test_time_is_linear(tmp_path, name, text):
    """10 MB in one line, and what parsers take long for: a square of it would be hours."""
    (tmp_path / name).write_text(text)
    (tmp_path / "b.md").write_text("b")
    began = time.process_time()
    assert read(tmp_path, "words")
    assert time.process_time() - began < 60


def test_a_page_nested_too_deeply_is_left_out(tmp_path):
    (tmp_path / "a.html").write_text("<div>" * 500_000)
    (tmp_path / "b.html").write_text("<div>" * 9_000 + "text")
    assert [p.id for p in read(tmp_path)] == ["b.html#P1"]


def test_memory_does_not_grow_with_the_folder(tmp_path):
    def peak(number: int) -> int:
        folder = tmp_path / str(number)
        for at in range(number):
            name = folder / f"{at % 100}" / f"{at}.txt"
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_text(f"Title {at}\n\n" + "Some words of a text. " * 21)
        tracemalloc.start()
        count = sum(1 for _ in read_documents(folder, DEFAULT_SPLIT))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count >= 2 * number
        return found

    peak(10)  # what is loaded once
    few = peak(1_000)
    assert peak(10_000) < 2 * few


def test_a_kind_can_be_named(tmp_path):
    fill(tmp_path, {"a.md": "# T", "b.txt": "# T", "c": "# T"})
    split = DEFAULT_SPLIT
    assert [p.text for p in read_documents(tmp_path / "c", split, None, "markdown")] == ["T"]
    assert [p.text for p in read_documents(tmp_path / "a.md", split, None, "text")] == ["# T"]
    found = [p.id for p in read_documents(tmp_path, split, None, "text")]
    assert found == ["b.txt#L1"]
    for kind in (None, "documents"):
        found = [p.id for p in read_documents(tmp_path, split, None, kind)]
        assert found == ["a.md#L1", "b.txt#L1"]
        with pytest.raises(InputError, match=r"it is no document, .* \.xhtml or \.pdf"):
            list(read_documents(tmp_path / "c", split, None, kind))
    with pytest.raises(InputError, match=r"names end in \.rst\.$"):
        list(read_documents(tmp_path, split, None, "rst"))


@pypdf_only
def test_a_pdf_file_is_known_by_its_beginning(tmp_path):
    (tmp_path / "paper").write_bytes(pdf_of("text"))
    assert [p.id for p in read(tmp_path / "paper")] == ["paper#page=1"]


def test_a_document_tells_what_it_is(tmp_path):
    fill(tmp_path, {"a.md": "# T\n\ntext"})
    document = read_document(tmp_path / "a.md")
    assert (document.kind, document.title, document.mark) == ("markdown", "T", "L")

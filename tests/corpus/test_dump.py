"""MediaWiki dumps: a hand-made one with every hard case, and what cannot be read."""

import bz2
import gzip
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import dump
from ragbook.errors import InputError

pytest.importorskip(
    "mwparserfromhell", reason="mwparserfromhell is not installed (pip install ragbook[wikipedia])"
)
from ragbook.corpus.wikitext import is_disambiguation, parse, plain_text

HARD_CASES = (
    Path(__file__)
    .with_name("hard-cases.xml")
    .read_text(encoding="utf-8")
    .replace("WORDS", " ".join(f"w{i}" for i in range(250)))
)


@pytest.fixture(scope="module", params=["xml", "xml.bz2", "xml.gz", "multistream.xml.bz2"])
def path(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("dump") / f"wiki.{request.param}"
    data = HARD_CASES.encode()
    middle = data.index(b"<page><title>Oke<")
    path.write_bytes(
        {
            "xml": lambda: data,
            "xml.bz2": lambda: bz2.compress(data),
            "xml.gz": lambda: gzip.compress(data),
            "multistream.xml.bz2": lambda: (
                bz2.compress(data[:middle]) + bz2.compress(data[middle:])
            ),
        }[request.param]()
    )
    return path


def test_articles_of_the_main_namespace_that_are_no_redirects(path):
    pages = list(dump.read_pages(path))
    assert [(page.id, page.revision) for page in pages] == [
        ("7", "701"),
        ("10", "1001"),
        ("11", "1101"),
        ("12", "1201"),
        ("17", "1701"),
        ("18", "1801"),
        ("19", "1902"),
        ("20", "2001"),
        ("21", "2101"),
    ]
    assert {"datei", "kategorie", "file", "category"} <= pages[0].without


def test_every_hard_case(path):
    found = {page.title: dump.article(page) for page in dump.read_pages(path)}
    texts = {title: passage.text for title, passage in found.items() if passage}
    assert texts.pop("Long").split() == [f"w{i}" for i in range(250)]
    assert texts == {
        "River Oke": "The Oke (Oque, Ocke) is a river of the Low Hills, 120 km long and 5 to 10 m "
        "wide. It carries 12000 tonnes of sand a year. It rises at Mount Oke and passes Upper Oke, "
        "Lower Oke – the larger one. Its flow is of H2O. See the survey and other rivers. It was "
        'As of 1900 the "Ocke".',
        'AT&T <3 "Zürich" 東京': "The newest text, 東京 & Zürich.",
        "Broken markup": "Before the table. After it comes bold without end. A and the next line. "
        "An stays until here. An unclosed link and a box in a box end.",
    }
    assert [passage.id for passage in found.values() if passage] == ["7", "19", "20", "21"]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("{{convert|6|ft|2|in|m}} tall", "6 ft 2 in tall"),
        ("{{cvt|3|x|4|m}}", "3 × 4 m"),
        ("{{convert|1,250|m}}", "1,250 m"),
        ("{{lang|1=fr|2=a = b}}", "a = b"),
        ("{{langx|fr|texte}}", "texte"),
        ("{{frac|1|2}} and {{frac|3|1|2}}", "1/2 and 3 1/2"),
        ("{{ship|HMS|Oke|1900}}; {{USS|Oke}}", "HMS Oke; USS Oke"),
        ("{{ill|Ada Oke|de|Ada Oke (Malerin)}}", "Ada Oke"),
        ("{{circa|1750}}", "c. 1750"),
        ("{{Unknown|kept?}} no", "no"),
        ("{{{parameter|default}}} text", "text"),
        ("<nowiki>{{as it is}}</nowiki>", "{{as it is}}"),
        ("a<br />b<hr>c", "a b c"),
        ("[[A|B]]s and [[C]], [[#D|E]], [[#F]]", "Bs and C, E, #F"),
        ("[[File:x.jpg|thumb|[[A]] {{nowrap|b}} <ref>c</ref>]]Text", "Text"),
        ("[[Re:Zero]] and [[de:Null]]", "Re:Zero and"),
        ("[http://a.b] [http://a.b c] http://a.b", "c"),
        ("; term : meaning\n: indented\n# one\n#* two", "term meaning indented one two"),
        ("{|\n|a\n{|\n|nested\n|}\n|}\nafter", "after"),
        ("<source lang=c>int x;</source>ok <syntaxhighlight>y</syntaxhighlight>", "ok"),
        ("== Notes ==\nx\n== Life ==\ny\n=== Sources ===\nz\n=== Death ===\nw", "y w"),
        ("&lt;b&gt; &amp; &ndash; &#960;", "<b> & – π"),
        (
            "a &#xD800; &#0; &#x7f; &#150; &#xFFFF; &#x110000; &#9; b",
            "a &#xD800; &#0; &#x7f; &#150; &#xFFFF; &#x110000; b",
        ),
        ("a <ref name=x b\n\nc", "a name=x b c"),
        ("a <ref x/>b<ref>c\nd", "a b d"),
        ("[[Rock &#39;n&#39; roll]]", "Rock 'n' roll"),
        ("[[A<!-- x | y -->B]] {{<!-- z -->nowrap|c}}", "AB c"),
        ("[[C&amp;A#Types]] and [[ #F]]", "C&A and #F"),
        ("[[&#70;ile:x.jpg|thumb|y]]z", "z"),
        ("{{quote|text=All ''is'' well.|author=A}}", "All is well."),
        ("{{cquote|quote=a = b}} {{lang|code=fr|text=bien}}", "a = b bien"),
        ("{{convert|6|ft|2+1/2|in|m}} or {{convert|3+3/4|in}}", "6 ft 2 1/2 in or 3 3/4 in"),
        ("{{val|1.5|0.2|ul=km}} {{val|5|u=m|up=s}}", "1.5±0.2 km 5 m/s"),
        ("{{val|1.23|(4)|e=5|u=m}} {{val|7|+2|-1}}", "1.23(4)×105 m 7+2-1"),
        (
            "{{circa|1750|1800}}, {{fl.|1750|1800}}, {{c.|1750}}",
            "c. 1750 – c. 1800, fl. 1750–1800, c. 1750",
        ),
        (
            "{{As of|2010|5|3}}; {{as of|2011|12|lc=y}}; {{As of|2012|alt=by 2012}}",
            "As of 3 May 2010; as of December 2011; by 2012",
        ),
        ("[[Bild:x.jpg|mini|y]]a [[Fichier:x.jpg|b]][[画像:x.jpg]]c", "a c"),
        ("a\n== Literatur ==\nb\n== Leben ==\nc\n== Voir aussi ==\nd", "a c"),
        ("a<includeonly>b</includeonly>c<noinclude>d</noinclude>", "acd"),
        ("a <!-- b\n\n== c ==\nd", "a"),
        ("<nowiki><!-- kept --></nowiki> a <!-- b --> c", "<!-- kept --> a c"),
        ("The sum\n| x | + | y |\nis positive.", "The sum | x | + | y | is positive."),
        ("Oke ({{IPA|o}}; ) and ( , {{x}}) (a; )", "Oke and (a)"),
        ("", ""),
    ],
)
def test_markup(wikitext, text):
    assert plain_text(parse(wikitext)) == text


@pytest.mark.parametrize(
    ("wikitext", "pages"),
    [
        ("#WEITERLEITUNG [[A]]", 0),
        ("#redirección:[[A]]", 0),
        ("#REDIRECT [[A]]", 0),
        ("#перенаправление [[A]]", 0),
        ("#転送[[A]]", 0),
        ("#tam\n#two", 1),
    ],
)
def test_redirects_in_all_languages(tmp_path, wikitext, pages):
    path = tmp_path / "wiki.xml"
    path.write_text(
        "<mediawiki><page><title>A</title><ns>0</ns><id>1</id><revision><text>"
        f"{wikitext}</text></revision></page></mediawiki>"
    )
    assert len(list(dump.read_pages(path))) == pages


@pytest.mark.parametrize(
    ("title", "wikitext", "expected"),
    [
        ("A", "{{disambig}}", True),
        ("A", "{{Hndis|Smith, A}}", True),
        ("A", "{{Place name disambiguation}}", True),
        ("A", "{{template:Dab}}", True),
        ("A", "{{Begriffsklärung}}", True),
        ("A", "x __DISAMBIG__", True),
        ("A (disambiguation)", "x", True),
        ("A", "{{about|x}} {{Refimprove}} [[disambiguation]]", False),
        ("A", "{{Disambiguation needed|x}}".replace("Disambiguation needed", "Dn"), False),
    ],
)
def test_disambiguation(title, wikitext, expected):
    assert is_disambiguation(title, parse(wikitext)) is expected


PIECES = "{ } [ ] | = ' < > ! - * # : ; ref {{ }} [[ ]] <ref> </ref> {| |} File: a convert 1 & =="
PIECES = [*PIECES.split(), "\n", " "]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_no_markup_is_too_broken(pieces):
    text = plain_text(parse("".join(pieces)))
    assert text == " ".join(text.split())
    assert "{{" not in text
    assert "[[" not in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not well-formed"),
        (b"<mediawiki><page>", "cut short"),
        (HARD_CASES.encode()[:3000], "cut short"),
        (bz2.compress(HARD_CASES.encode())[:-30], "cannot be read to its end"),
        (bz2.compress(HARD_CASES.encode())[:200] + b"\0" * 900, "cannot be read to its end"),
        (gzip.compress(HARD_CASES.encode())[:-30], "cannot be read to its end"),
        (b"<html></html>", "not a MediaWiki dump"),
        (b"not XML at all", "not well-formed"),
        (b"<mediawiki><page><ns>0</ns><id>1</id><revision><text>x</text></revision></page></mediawiki>",
         "without title or id"),
        (b"<mediawiki>" + 2 * b"<page><title>A</title><ns>0</ns><id>1</id><revision><text>x</text>"
         b"</revision></page>" + b"</mediawiki>", "twice"),
    ],
)  # fmt: skip
def test_what_is_no_whole_dump_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "wiki.xml.bz2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        list(dump.read_pages(path))
    assert str(path) in str(caught.value)


def test_a_missing_file_and_7z(tmp_path):
    with pytest.raises(InputError, match="no file"):
        list(dump.read_pages(tmp_path / "wiki.xml"))
    with pytest.raises(InputError, match="7z"):
        dump.is_dump(tmp_path / "wiki.xml.7z")


def test_memory_does_not_grow_with_the_dump(tmp_path):
    """Ten times the pages, and pages with ten times the revisions: the same peak."""

    def peak(pages: int, revisions: int) -> int:
        text = "<text>" + "word " * 400 + "</text>"
        one = "".join(
            f"<revision><id>{r}</id><timestamp>{r:09d}</timestamp>{text}</revision>"
            for r in range(revisions)
        )
        path = tmp_path / f"{pages}-{revisions}.xml.bz2"
        with bz2.BZ2File(path, "wb", compresslevel=1) as file:
            file.write(b"<mediawiki>\n")
            for number in range(pages):
                page = f"<page><title>T{number}</title><ns>0</ns><id>{number}</id>{one}</page>\n"
                file.write(page.encode())
            file.write(b"</mediawiki>")
        tracemalloc.start()
        assert sum(1 for _ in dump.read_pages(path)) == pages
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    base = peak(100, 1)
    assert peak(1_000, 1) < 1.5 * base + 100_000
    assert peak(10, 300) < 1.5 * base + 200_000

"""Broken markup: what the parser would read again is told before; a page's time is bounded."""

import time

import pytest

pytest.importorskip(
    "mwparserfromhell", reason="mwparserfromhell is not installed (pip install ragbook[wikipedia])"
)
from mwparserfromhell import definitions

from ragbook.corpus import nesting
from ragbook.corpus.dump import Page, article
from ragbook.corpus.nesting import WORK, BrokenMarkup, reread
from ragbook.corpus.wikitext import FILES_AND_CATEGORIES

SOUND = """{{Infobox|a=[[b|c]]|d={{e|{{{f|g}}}}}}}
{|
! a !! b
|-
| [http://a.b c] || <br> x <ref name="a">d</ref><ref name="b" />
|}
<div><b>e</b><li>f</div> a < b > c <!-- {{g -->
<math>{{h</math><nowiki>[[i <b></nowiki> [[j]] [k] {l} * m
"""


def test_what_the_parser_says_of_tags():
    assert set(definitions.PARSER_BLACKLIST) == nesting._RAW
    assert set(definitions.SINGLE) == nesting._ALONE


def test_sound_markup_is_read_once():
    assert reread(SOUND) == reread("") == 0


@pytest.mark.parametrize(
    ("wikitext", "again"),
    [
        ("ab{{c|d", 5),
        ("[[a|\n{{b}}", 10),
        ("<b>c", 4),
        ("<b", 2),
        ("<!-- a", 6),
        ("<nowiki>[[", 10 + 2),
        ("{|\na", 4),
        ("a [http://b\nc", 9),  # an address ends with its line
        ("{{a|[[b}}]]", 7),  # the link has no end inside the template
        ("<b><i></b></i>", 3),  # given up where the outer tag ends
        ("</b>}}]]|}", 0),
        ("<b>" * 100, 3 * 5050),
    ],
)
def test_what_is_not_closed_is_read_again(wikitext, again):
    assert reread(wikitext) == again


PAGES = {
    "references": "<ref ",
    "bold": "<b>",
    "attributes": '<b a="',
    "templates": "{{a|",
    "links": "[[a|",
    "crossed": "{{a|[[b|}}]]",
    "addresses": "[http://a ",
    "tables": "{|\n|a\n",
    "comments": "<!--",
    "literal": "<nowiki>",
    "formulas": "<math>x",
    "line ends": "\n",
    "spaces": " ",
    "spaced lines": " \t\n",
    "quotes": "''a'' '''b",
    "brackets": "();",
    "open brackets": "( ; ",
    "separators": "; , ",
    "underscores": "__A",
    "braces": "{",
    "square": "[",
    "headings": "==a==\n",
    "entities": "&#x41;&amp",
    "arguments": "{{convert|1|to|2|and|",
    "lists": "*#:;a:",
    "tags": "<b>x</b>",
    "cells": "{|\n| a || b\n|}\n",
}


@pytest.mark.parametrize("unit", PAGES.values(), ids=PAGES)
def test_a_page_of_a_megabyte_takes_bounded_time(unit):
    """Quadratic time would be minutes to hours; the limit is far above a slow machine's time."""
    size = 200_000 if unit in (PAGES["headings"], PAGES["tags"], PAGES["cells"]) else 1_000_000
    wikitext = "Text. " + unit * (size // len(unit))
    begin = time.process_time()
    try:
        found = article(Page("1", "1", "A", wikitext, FILES_AND_CATEGORIES))
    except BrokenMarkup:
        assert reread(wikitext) > WORK
    else:
        assert found is not None
        assert found.text.startswith("Text.")
    assert time.process_time() - begin < 30


def test_the_arguments_of_a_long_template():
    wikitext = "{{convert" + "|1|to" * 100_000 + "|2|km}}"
    begin = time.process_time()
    found = article(Page("1", "1", "A", wikitext, FILES_AND_CATEGORIES))
    assert time.process_time() - begin < 30
    assert found is not None
    assert found.text == "1 to " * 100_000 + "2 km"

"""Papers that the text would cite alike have letters behind their years, in the list's order."""

from pathlib import Path

import lettered_years
import pytest
from pybtex.database import parse_file, parse_string
from pybtex.style.formatting.alpha import Style

BOOK = Path(__file__).resolve().parents[2] / "book"
PAPERS = """
@misc{second, author = {Izacard, G. and Grave, E.}, title = {Leveraging}, year = {2021}}
@misc{first, author = {Izacard, G. and Grave, E.}, title = {Distilling}, year = {2021}}
@misc{later, author = {Izacard, G. and Grave, E.}, title = {Another}, year = {2022}}
@misc{three, author = {Izacard, G. and Grave, E. and Lewis, P.}, title = {Atlas}, year = {2021}}
@misc{other, author = {Izacard, G. and Hill, F. and Grave, E.}, title = {Zebra}, year = {2021}}
@misc{alone, author = {Izacard, G.}, title = {Alone}, year = {2021}}
"""


@pytest.fixture
def papers():
    return parse_string(PAPERS, "bibtex").entries


def years(entries):
    return {key: entry.fields["year"] for key, entry in entries.items()}


def test_papers_with_the_same_citation_get_letters_and_no_others(papers):
    lettered_years.letter(papers.values())
    assert years(papers) == {
        "second": "2021b",
        "first": "2021a",
        "later": "2022",
        "three": "2021a",
        "other": "2021b",
        "alone": "2021",
    }


def test_papers_given_again_stay_as_they_are(papers):
    lettered_years.letter(papers.values())
    before = years(papers)
    lettered_years.letter(papers.values())
    assert years(papers) == before


def test_labels_have_the_letter_and_two_digits(papers):
    lettered_years.letter(papers.values())
    style = lettered_years.LetteredStyle()
    ordered = style.sort(papers.values())
    labels = dict(zip([e.key for e in ordered], style.format_labels(ordered), strict=True))
    assert labels["first"] == "IG21a"
    assert labels["later"] == "IG22"
    assert len(set(labels.values())) == len(papers)


def test_no_two_papers_of_the_book_are_cited_alike():
    papers = parse_file(str(BOOK / "references.bib")).entries
    lettered_years.letter(papers.values())
    cited = set()
    for entry in papers.values():
        first, *rest = [" ".join(p.last_names) for p in entry.persons["author"]]
        cited.add((first, rest[0] if len(rest) == 1 else len(rest) > 1, entry.fields["year"]))
    assert len(cited) == len(papers)
    assert papers["izacard2021fid"].fields["year"] == "2021b"
    assert papers["izacard2021distilling"].fields["year"] == "2021a"
    order = [e.key for e in Style().sort(papers.values())]
    assert order.index("izacard2021distilling") < order.index("izacard2021fid")

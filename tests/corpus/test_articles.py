"""Articles in WikiText's form: titles, sections, what its tokenizer cut, what it took out."""

import pytest

from ragbook.corpus import load_corpus
from ragbook.errors import InputError


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_articles_are_read_whole(tmp_path, ending):
    path = tmp_path / "text.txt"
    text = (
        " \n = Lake Velm = \n \n It is 1 @,@ 000 years old , a well @-@ known <unk> one . \n"
        " = = Depth = = \n \n Some 3 @.@ 5 m . \n \n = Brisk ( Ordania ) = \n A town . \n"
    )
    path.write_bytes(text.replace("\n", ending).encode())
    velm, brisk = load_corpus(path)
    assert (velm.id, velm.title) == ("2", "Lake Velm")
    assert velm.text == "It is 1,000 years old , a well-known one . = = Depth = = Some 3.5 m ."
    assert (brisk.title, brisk.text) == ("Brisk ( Ordania )", "A town .")


def test_an_article_without_text_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("= One =\n\n= Two =\nText.\n")
    with pytest.raises(InputError, match="line 1: the article's text is empty"):
        load_corpus(path)
    path.write_text("Text without a title.\n")
    assert [passage.text for passage in load_corpus(path)] == ["Text without a title."]

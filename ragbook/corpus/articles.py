"""Articles in WikiText's form (Merity et al. 2016), the field's text for language modelling."""

import re
from collections.abc import Iterator
from pathlib import Path

from ragbook.corpus.files import checked_text, read_lines
from ragbook.corpus.types import Passage

TITLE = re.compile(r" *= ([^=\s][^=]*) = *\r?\n?")
"""The line that an article begins with; its sections' have more signs of equality."""


def read_articles(path: Path) -> Iterator[tuple[int, Passage]]:
    """(line, article) of a file whose first line with anything on it is a title; each article is
    one passage, however long, with its line as its id.

    What WikiText's tokenizer cut is put together again (``1 @,@ 000`` is ``1,000``), and ``<unk>``,
    which stands where a rare word was taken out, is left out: it is no word of anybody's text.

    Raises InputError for an article without text.
    """
    begun, title, words = 0, "", list[str]()

    def article() -> tuple[int, Passage]:
        text = re.sub(r" @([-,.])@ ", r"\1", " ".join(word for word in words if word != "<unk>"))
        checked_text(f"{path}, line {begun}", "the article's text", text)
        return begun, Passage(str(begun), title, text)

    for number, line in enumerate(read_lines(path), 1):
        if match := TITLE.fullmatch(line):
            if begun:
                yield article()
            begun, title, words = number, match[1], []
        else:
            words += line.split()
    yield article()

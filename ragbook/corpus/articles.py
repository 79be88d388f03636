"""Articles in WikiText's form (Merity et al. 2016), the field's text for language modelling."""

import re
from collections.abc import Iterator
from pathlib import Path

from ragbook.corpus.files import checked_text, read_lines
from ragbook.corpus.types import Passage

TITLE = re.compile(r" *= ([^=\s][^=]*) = *\r?\n?")
"""The line that an article begins with; those of its sections have more equals signs."""


def read_articles(path: Path) -> Iterator[tuple[int, Passage]]:
    """Yield (line, article) of a file whose first line that is not blank is a title. Each article
    is one passage of any length, with its line number as its id.

    Words that WikiText's tokenizer split are joined again (``1 @,@ 000`` becomes ``1,000``), and
    ``<unk>``, which replaces rare words, is left out, as it was not in the original text.

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

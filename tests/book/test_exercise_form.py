"""Exercises as any notebook shows them, and as the site does."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import exercise_form
import jupytext
import pytest
from markdown_it import MarkdownIt

CHAPTERS = sorted((Path(__file__).resolve().parents[2] / "book").glob("[0-9]*.py"))
PLAIN = """\
## Exercises

<!-- exercise: ex-one -->
**Exercise.** What is $1 + 1$?
On two lines.

<details>
<summary>Solution</summary>

Two:

```
2
```

</details>

<!-- exercise: ex-open -->
**Exercise.** Write it.

<!-- end of exercise -->

What follows stays."""
DIRECTIVES = """\
## Exercises

```{exercise}
:label: ex-one
What is $1 + 1$?
On two lines.
```

````{solution} ex-one
:class: dropdown
Two:

```
2
```
````

```{exercise}
:label: ex-open
Write it.
```

What follows stays."""


def words(text):
    """The text without its blank lines."""
    return [line for line in text.splitlines() if line.strip()]


def test_both_forms_say_the_same():
    assert words(exercise_form.to_directives(PLAIN)) == words(DIRECTIVES)
    assert words(exercise_form.to_plain(DIRECTIVES)) == words(PLAIN)


def test_a_code_cell_may_stand_between_exercise_and_solution():
    plain = (
        "<!-- solution: ex-code -->\n<details>\n<summary>Solution</summary>\n\n"
        "As in `this`:\n\n```\n2\n```\n\n</details>"
    )
    directive = "````{solution} ex-code\n:class: dropdown\nAs in `this`:\n\n```\n2\n```\n````"
    assert exercise_form.to_directives(plain) == directive
    assert exercise_form.to_plain(directive) == plain


def test_an_exercise_may_end_with_its_cell():
    last = "<!-- exercise: ex-last -->\n**Exercise.** Why?"
    assert exercise_form.to_directives(last) == "```{exercise}\n:label: ex-last\nWhy?\n```"
    both = exercise_form.to_directives(f"{last}\n\n{last.replace('last', 'next')}")
    assert [line for line in both.splitlines() if ":label:" in line] == [
        ":label: ex-last",
        ":label: ex-next",
    ]


def test_a_notebook_shows_the_question_and_folds_the_solution():
    html = MarkdownIt().render(exercise_form.to_plain(DIRECTIVES))
    assert "{exercise}" not in html
    assert ":label:" not in html
    assert "<strong>Exercise.</strong> What is" in html
    assert html.index("<details>") < html.index("<p>Two:</p>") < html.index("</details>")


@pytest.mark.parametrize("path", CHAPTERS, ids=[path.stem for path in CHAPTERS])
def test_every_exercise_of_a_chapter_survives_both_ways(path):
    cells = jupytext.read(path).cells
    for cell in (each for each in cells if each.cell_type == "markdown"):
        plain = exercise_form.to_plain(cell.source)
        assert "{exercise}" not in plain
        assert "{solution}" not in plain
        directives = exercise_form.to_directives(plain)
        assert "<details>" not in directives
        assert words(directives) == words(exercise_form.to_directives(cell.source))


def converted(folder, name, markdown):
    """What Sphinx, reading a page of this folder, gets for its only cell."""
    cell = {"cell_type": "markdown", "source": markdown.splitlines(keepends=True)}
    source = [json.dumps({"cells": [cell]})]
    exercise_form.convert(SimpleNamespace(srcdir=str(folder)), name, source)
    return json.loads(source[0])["cells"][0]["source"]


def test_no_two_exercises_have_one_label():
    """Or Sphinx refuses the second, in another chapter."""
    labels = [
        label
        for path in CHAPTERS
        for label in re.findall(r"<!-- exercise: (\S+) -->", path.read_text(encoding="utf-8"))
    ]
    assert len(labels) > 50
    assert [label for label in set(labels) if labels.count(label) > 1] == []


def test_sphinx_gets_directives(tmp_path):
    assert words(converted(tmp_path, "01-a", PLAIN)) == words(DIRECTIVES)


def test_a_chapter_and_its_solutions_lead_to_each_other(tmp_path):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "01-a.ipynb").touch()
    heading, link, *_ = words(converted(tmp_path, "01-a", PLAIN))
    assert heading == "## Exercises"
    assert link.endswith("{doc}`this chapter's solution notebook <solutions/01-a>`.")
    title, back, text = words(converted(tmp_path, "solutions/01-a", "# A: solutions\n\nText."))
    assert (title, text) == ("# A: solutions", "Text.")
    assert "{doc}`../01-a`" in back
    assert converted(tmp_path, "solutions/01-a", "## One\n\nText.") == "## One\n\nText."
    assert "{doc}" not in converted(tmp_path, "02-b", PLAIN)


@pytest.mark.parametrize("path", CHAPTERS, ids=[path.stem for path in CHAPTERS])
def test_every_chapter_has_one_heading_for_the_link_to_its_solutions(path):
    text = "\n\n".join(c.source for c in jupytext.read(path).cells if c.cell_type == "markdown")
    assert len(exercise_form.HEADING.findall(text)) == 1
    toc = (path.parent / "_toc.yml").read_text(encoding="utf-8")
    assert f"- file: solutions/{path.stem}\n" in toc


def test_a_chapter_is_rewritten_and_only_its_exercises(tmp_path):
    chapter = tmp_path / "01-a.py"
    text = "# %% [markdown]\n" + exercise_form._commented(DIRECTIVES) + "\n\n# %%\nprint(1)\n"
    chapter.write_text(text, encoding="utf-8")
    assert exercise_form.rewrite(chapter) == 2
    markdown, code = jupytext.read(chapter).cells
    assert words(markdown.source) == words(PLAIN)
    assert code.source == "print(1)"
    assert exercise_form.rewrite(chapter) == 0

"""Exercises in a form that Jupyter, Colab and GitHub show, and the site's own from it.

A chapter writes an exercise as plain Markdown, which any notebook shows with its solution folded:

    <!-- exercise: ex-label -->
    **Exercise.** The question ...

    <details>
    <summary>Solution</summary>

    The answer ...

    </details>

As a Sphinx extension this module makes sphinx-exercise's directives of it before a page is read, so
that the site numbers the exercises and draws them as before. A solution may be missing; then the
exercise ends with its cell or with `<!-- end of exercise -->`. Where a code cell to start from stands
between the two, the solution begins with `<!-- solution: ex-label -->`.

The extension also links the two pages: a chapter's section "Exercises" begins with the way to its
notebook in `solutions`, and that notebook with the way back.

`python book/_tools/exercise_form.py CHAPTER.py ...` rewrites the directives of chapters in this form.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

SOLUTIONS = "solutions"
HEADING = re.compile(r"^## Exercises$", re.M)
PLAIN = re.compile(
    r"""^<!--\ exercise:\ (?P<label>[\w-]+)\ -->\n
    \*\*Exercise\.\*\*\ (?P<question>.*?)\s*
    (?:^<details>\n<summary>Solution</summary>\n(?P<solution>.*?)^</details>\s*$
    |^<!--\ end\ of\ exercise\ -->\s*$|(?=^<!--\ exercise:)|\Z)""",
    re.M | re.S | re.X,
)
DIRECTIVES = re.compile(
    r"""^(?P<fence>```+)\{exercise\}\n:label:\ (?P<label>[\w-]+)\n(?P<question>.*?)\n(?P=fence)\n?
    (?:\s*^(?P<other>```+)\{solution\}\ (?P=label)\n:class:\ dropdown\n
    (?P<solution>.*?)\n(?P=other)(?:\n|\Z))?""",
    re.M | re.S | re.X,
)

PLAIN_SOLUTION = re.compile(
    r"""^<!--\ solution:\ (?P<label>[\w-]+)\ -->\n
    <details>\n<summary>Solution</summary>\n(?P<solution>.*?)^</details>\s*$""",
    re.M | re.S | re.X,
)
SOLUTION = re.compile(
    r"""^(?P<fence>```+)\{solution\}\ (?P<label>[\w-]+)\n:class:\ dropdown\n
    (?P<solution>.*?)\n(?P=fence)(?:\n|\Z)""",
    re.M | re.S | re.X,
)


def to_directives(markdown: str) -> str:
    """A Markdown cell with its exercises as sphinx-exercise's directives."""

    def directives(found: re.Match[str]) -> str:
        label, question = found["label"], found["question"].strip()
        fence = _fence(question)
        text = f"{fence}{{exercise}}\n:label: {label}\n{question}\n{fence}\n"
        if found["solution"]:
            text += f"\n{solution(found)}"
        return text + "\n"

    def solution(found: re.Match[str]) -> str:
        label, answer = found["label"], found["solution"].strip()
        fence = _fence(answer)
        return f"{fence}{{solution}} {label}\n:class: dropdown\n{answer}\n{fence}\n"

    return PLAIN_SOLUTION.sub(solution, PLAIN.sub(directives, markdown)).rstrip(
        "\n"
    )


def to_plain(markdown: str) -> str:
    """A Markdown cell with the directives of its exercises as plain Markdown."""

    def plain(found: re.Match[str]) -> str:
        text = f"<!-- exercise: {found['label']} -->\n**Exercise.** {found['question']}\n\n"
        if found["solution"] is None:
            return f"{text}<!-- end of exercise -->\n"
        return text + folded(found["solution"])

    def alone(found: re.Match[str]) -> str:
        return (
            f"<!-- solution: {found['label']} -->\n{folded(found['solution'])}"
        )

    def folded(solution: str) -> str:
        return f"<details>\n<summary>Solution</summary>\n\n{solution}\n\n</details>\n"

    return SOLUTION.sub(alone, DIRECTIVES.sub(plain, markdown)).rstrip("\n")


def _fence(text: str) -> str:
    """A fence that is longer than any in the text."""
    inside = re.findall(r"^`{3,}", text, re.M)
    return "`" * max(3, 1 + max(map(len, inside), default=0))


def linked(name: str, markdown: str) -> str:
    """A Markdown cell with the link between a chapter and its solutions, if it belongs there.

    Args:
        name: the page, `NN-name` for a chapter and `solutions/NN-name` for its solutions.
    """
    folder, _, chapter = name.rpartition("/")
    if folder == SOLUTIONS:
        title, _, rest = markdown.partition("\n")
        if title.startswith("# "):
            return f"{title}\n\n*Back to {{doc}}`../{chapter}`.*\n{rest}"
        return markdown
    line = (
        "Exercises with code end in a check that says whether you are right; they are solved in "
        f"{{doc}}`this chapter's solution notebook <{SOLUTIONS}/{name}>`."
    )
    return HEADING.sub(lambda found: f"{found[0]}\n\n{line}", markdown)


def convert(app: Any, name: str, source: list[str]) -> None:
    """Give Sphinx the directives of a notebook's exercises and the link to their solutions."""
    solved = Path(app.srcdir) / SOLUTIONS / f"{Path(name).name}.ipynb"
    if not source[0].startswith("{"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = to_directives("".join(cell["source"]))
            cell["source"] = linked(name, text) if solved.exists() else text
    source[0] = json.dumps(notebook)


def rewrite(chapter: Path) -> int:
    """Write a chapter's exercises as plain Markdown; returns how many there were."""
    import jupytext

    text = chapter.read_text(encoding="utf-8")
    count = 0
    for cell in jupytext.reads(text, "py:percent").cells:
        plain = to_plain(cell.source)
        if cell.cell_type == "markdown" and plain != cell.source.rstrip("\n"):
            count += cell.source.count("{exercise}")
            text = text.replace(_commented(cell.source), _commented(plain))
    chapter.write_text(text, encoding="utf-8")
    return count


def _commented(markdown: str) -> str:
    """Markdown as the percent format has it."""
    return "\n".join(f"# {line}".rstrip() for line in markdown.splitlines())


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("source-read", convert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {rewrite(Path(name))} exercises")

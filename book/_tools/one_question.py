"""A Sphinx directive that shows what every method made of one question, from the stored comparison.

```{one-question}
closed-book: what the method does with the passages, in a few words
fid: ...
```

The rule of `chosen` picks the question; nobody picks it by hand.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from ragbook import explorer
from ragbook.corpus import Corpus, load_corpus


def chosen(
    predictions: Iterable[Mapping[str, Any]],
) -> tuple[Mapping[str, Any], int, int] | None:
    """The typical question: the first on which the same methods are right as on most questions.

    Only questions whose gold passage was retrieved count. Among them the commonest combination of
    right and wrong methods is looked for; a tie goes to the one that occurs first.

    Returns
    -------
    The question's line, how many questions have the same combination, and how many count; None if
    none counts, or if the commonest combination is not one in which most methods are right.
    """
    found = [
        line
        for line in predictions
        if line["gold_passage"]
        in {each["passage_id"] for each in line["retrieved"]}
    ]
    patterns = Counter(map(_right, found))
    if not patterns:
        return None
    ((pattern, times),) = patterns.most_common(1)
    if 2 * sum(pattern) <= len(pattern):
        return None
    first = next(line for line in found if _right(line) == pattern)
    return first, times, len(found)


def stored(results: Path) -> tuple[Mapping[str, Any], int, int] | None:
    """`chosen` of the comparison whose `predictions.jsonl.gz` is in the folder `results`."""
    path = results / "predictions.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return chosen(map(json.loads, lines))


def _right(line: Mapping[str, Any]) -> tuple[bool, ...]:
    """Which of the methods answer a question rightly, in the order of the methods."""
    return tuple(bool(entry["em"]) for entry in line["methods"].values())


def table(
    prediction: Mapping[str, Any], corpus: Corpus, how: Mapping[str, str]
) -> str:
    """The question as an HTML table: a row a method with its weights of the passages, as shades and
    in percent, and its answer; the passages' titles below."""
    found = explorer.detail(prediction, corpus)
    used = [passage for passage in found["passages"] if passage["used"]]
    heads = "".join(
        f'<th class="weight" scope="col"><abbr title="{escape(p["title"])}">{n}</abbr></th>'
        for n, p in enumerate(used, 1)
    )
    rows = []
    for name, entry in found["methods"].items():
        weights = {at: weight for at, weight, *_ in entry["weights"]}
        cells = "".join(
            _cell(at + 1, weights.get(at)) for at in range(len(used))
        )
        kind, sign = ("right", "✓") if entry["right"] else ("wrong", "✗")
        rows.append(
            f'<tr><th scope="row">{escape(name)}<span>{escape(how.get(name, ""))}</span></th>'
            f'<td class="answer {kind}">{sign} {escape(entry["text"])}</td>{cells}</tr>'
        )
    titles = ", ".join(
        f"{n} {escape(p['title'])}{' (answers it)' if p['mark'] == 'gold' else ''}"
        for n, p in enumerate(used, 1)
    )
    link = f"explorer.html#q={explorer.question_id(prediction['question'])}"
    return (
        '<div class="pst-scrollable-table-container"><table class="one-question">'
        f"<caption>{escape(prediction['question'])}</caption>"
        '<thead><tr><th scope="col">method, and what it does with the passages</th>'
        f'<th scope="col">answer</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f"</div>\n<p>Weights in %. The passages: {titles}. "
        f'<a href="{link}">Read them in the explorer.</a></p>'
    )


def why(times: int, counted: int) -> str:
    """How common the combination of right and wrong methods is, as a paragraph."""
    return (
        f"<p>On {times:,} of the {counted:,} test questions whose gold passage was retrieved, exactly "
        "these methods are right: no combination is more frequent.</p>"
    )


def _cell(passage: int, weight: float | None) -> str:
    """A weight. Where the page is narrow, the row is stacked and the passage's number is above it."""
    if weight is None:
        return f'<td class="weight" data-passage="{passage}">–</td>'
    shade = f"color-mix(in srgb, var(--pst-color-link) {round(45 * weight)}%, transparent)"
    return (
        f'<td class="weight" data-passage="{passage}" style="background: {shade}">'
        f"{100 * weight:.0f}</td>"
    )


class OneQuestion(SphinxDirective):
    """The directive; an error if the rule finds no question in the stored comparison."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The table as a raw node."""
        results = Path(self.env.srcdir) / "results"
        self.env.note_dependency(str(results / "predictions.jsonl.gz"))
        how = dict(line.split(": ", 1) for line in self.content if ": " in line)
        found = stored(results)
        if found is None:
            raise self.error(
                "predictions.jsonl has no typical question that most methods answer correctly"
            )
        line, times, counted = found
        compared = json.loads((results / "results.json").read_text("utf-8"))
        asked = compared["questions"]
        html = table(line, load_corpus(asked["name"]), how)
        return [nodes.raw("", f"{html}{why(times, counted)}", format="html")]


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("one-question", OneQuestion)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

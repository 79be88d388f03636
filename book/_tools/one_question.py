"""A Sphinx directive that shows what every method made of one question, from the stored comparison.

```{one-question}
closed-book: what the method does with the passages, in a few words
fid: ...
```

Which question it is, the rule of `chosen` says and nobody's hand.
"""

import gzip
import json
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
) -> Mapping[str, Any] | None:
    """The first question whose gold passage was retrieved and that more than half of the methods
    answer rightly; None if there is no such question."""
    for line in predictions:
        found = {each["passage_id"] for each in line["retrieved"]}
        right = sum(entry["em"] for entry in line["methods"].values())
        if line["gold_passage"] in found and 2 * right > len(line["methods"]):
            return line
    return None


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
        weights = dict(map(tuple, entry["weights"]))
        cells = "".join(_cell(weights.get(at)) for at in range(len(used)))
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


def _cell(weight: float | None) -> str:
    if weight is None:
        return '<td class="weight">–</td>'
    shade = f"color-mix(in srgb, var(--pst-color-link) {round(45 * weight)}%, transparent)"
    return f'<td class="weight" style="background: {shade}">{100 * weight:.0f}</td>'


class OneQuestion(SphinxDirective):
    """The directive; an error if no question of the comparison follows the rule."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The table as a raw node."""
        results = Path(self.env.srcdir) / "results"
        self.env.note_dependency(str(results / "predictions.jsonl.gz"))
        how = dict(line.split(": ", 1) for line in self.content if ": " in line)
        with gzip.open(
            results / "predictions.jsonl.gz", "rt", encoding="utf-8"
        ) as lines:
            found = chosen(map(json.loads, lines))
        if found is None:
            raise self.error(
                "predictions.jsonl has no question that most methods answer rightly"
            )
        name = json.loads((results / "results.json").read_text("utf-8"))[
            "questions"
        ]["name"]
        return [
            nodes.raw("", table(found, load_corpus(name), how), format="html")
        ]


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("one-question", OneQuestion)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

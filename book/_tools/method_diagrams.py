"""One diagram of each method in one visual grammar, and a Sphinx extension that puts them inline.

`python book/_tools/method_diagrams.py` writes `book/diagrams/METHOD.svg` from
`book/results/traced-question.json`, in which one question was traced through all six
(`book/experiments/traced_question.py`). Every number drawn is one of that file's, rounded.

From top to bottom each shows the question, its passages, the reader, what the reader says and the
answer. What combines the passages has the accent, and so has its stage in the row of five below the
title: input, states, tokens, answers, memory.

A chapter shows one as a Markdown image, which Jupyter draws as a file. On the site the extension
replaces such an image by the drawing itself, whose colours then follow the theme's.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.transforms import SphinxTransform

BOOK = Path(__file__).resolve().parents[1]
FOLDER = "diagrams"
STAGES = ("input", "states", "tokens", "answers", "memory")

WIDTH, HEIGHT = 360, 502
LEFT, RIGHT = 10, 350
COLUMNS = (70, 144, 218)
"""The left edges of the three passages' columns."""
COLUMN = 68
SUM = 292
"""The left edge of the column of sums."""
ROW = 20
LETTER = 0.56
"""Mean width of a character in units of the font's size: an upper estimate for a sans serif."""

STYLE = """
.rb-diagram { --ink: #1c2733; --soft: #566272; --tint: #e9eff6; --paper: #ffffff;
  --accent: #b3420a; --glow: #fdeee3; }
@media (prefers-color-scheme: dark) { .rb-diagram { --ink: #e6ebf1; --soft: #a5b1bf;
  --tint: #26313d; --paper: #14181e; --accent: #ff9a5c; --glow: #3d2617; } }
html[data-theme="light"] .rb-diagram { --ink: #1c2733; --soft: #566272; --tint: #e9eff6;
  --paper: #ffffff; --accent: #b3420a; --glow: #fdeee3; }
html[data-theme="dark"] .rb-diagram { --ink: #e6ebf1; --soft: #a5b1bf; --tint: #26313d;
  --paper: var(--pst-color-background, #14181e); --accent: #ff9a5c; --glow: #3d2617; }
.rb-diagram text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
  "DejaVu Sans", sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums; }
.rb-diagram .name { font-size: 17px; font-weight: 700; }
.rb-diagram .bold { font-weight: 700; }
.rb-diagram .note { fill: var(--soft); }
.rb-diagram .accent { fill: var(--accent); font-weight: 700; }
.rb-diagram .on { fill: var(--paper); font-weight: 700; }
.rb-diagram rect { stroke: var(--soft); stroke-width: 1.25; fill: none; }
.rb-diagram .paper { fill: var(--paper); stroke: none; }
.rb-diagram .passage { fill: var(--tint); }
.rb-diagram .reader { fill: var(--paper); stroke: var(--ink); }
.rb-diagram .sum { fill: var(--glow); stroke: var(--accent); }
.rb-diagram .chosen { fill: var(--accent); stroke: var(--accent); }
.rb-diagram .stage { stroke: var(--soft); }
.rb-diagram path { stroke: var(--soft); stroke-width: 1.25; fill: none; }
.rb-diagram .head { fill: var(--soft); stroke: none; }
"""


def width_of(text: str, size: float = 12) -> float:
    """How wide a text is at most, in the drawing's units."""
    return LETTER * size * len(text)


def shown(probability: float) -> str:
    """A probability as it stands beside others: two decimals."""
    return f"{probability:.2f}"


def told(probability: float) -> str:
    """A probability that stands by itself: two significant digits."""
    return f"{probability:.2g}" if probability < 0.995 else f"{probability:.2f}"


class Drawing:
    """Elements of one SVG, added from top to bottom."""

    def __init__(
        self, method: str, name: str, stage: str, description: str
    ) -> None:
        self.method, self.name, self.description = method, name, description
        self.parts: list[str] = []
        self.text(LEFT, 24, name, "name")
        step = (RIGHT - LEFT) / len(STAGES)
        for at, each in enumerate(STAGES):
            own = each == stage
            self.box(
                LEFT + at * step,
                36,
                step,
                22,
                "chosen" if own else "stage",
                radius=0,
            )
            self.text(
                LEFT + (at + 0.5) * step,
                51,
                each,
                "on" if own else "note",
                "middle",
            )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: str,
        radius: float = 4,
    ) -> None:
        """A rectangle; its kind is its colour."""
        self.parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            f'rx="{radius:g}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        kind: str = "plain",
        anchor: str = "start",
    ) -> None:
        """A line of text whose baseline is at y."""
        self.parts.append(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def labelled(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str,
        kind: str = "reader",
    ) -> None:
        """A box with one line of text in its middle."""
        self.box(x, y, width, height, kind)
        weight = "accent" if kind == "sum" else "plain"
        self.text(x + width / 2, y + height / 2 + 4, text, weight, "middle")

    def line(self, *points: tuple[float, float], head: bool = True) -> None:
        """A line through the points, with the head of an arrow, down or right, at the last one."""
        *_, before, (x, y) = points
        downward = before[0] == x
        stop = (x, y - 4) if downward else (x - 4, y)
        path = [*points[:-1], stop if head else (x, y)]
        self.parts.append(
            '<path d="M' + " L".join(f"{a:g} {b:g}" for a, b in path) + '"/>'
        )
        if head:
            corners = (
                ((-3.5, -6), (3.5, -6)) if downward else ((-6, -3.5), (-6, 3.5))
            )
            (a, b), (c, d) = ((x + dx, y + dy) for dx, dy in corners)
            self.parts.append(
                f'<path class="head" d="M{x:g} {y:g} L{a:g} {b:g} L{c:g} {d:g} Z"/>'
            )

    def down(
        self, y: float, to: float, columns: Iterable[int] = (0, 1, 2)
    ) -> None:
        """An arrow in each of the columns."""
        for at in columns:
            x = COLUMNS[at] + COLUMN / 2
            self.line((x, y), (x, to))

    def row(
        self, y: float, label: str, values: Sequence[str], kind: str = "number"
    ) -> None:
        """A label in the margin and a value in each column, on one line."""
        self.text(LEFT, y, label, "note")
        for x, value in zip(COLUMNS, values, strict=True):
            self.text(x + COLUMN / 2, y, value, kind, "middle")

    def total(self, y: float, text: str) -> None:
        """A value in the column of sums."""
        self.text((SUM + RIGHT) / 2, y, text, "accent", "middle")

    def svg(self) -> str:
        """The whole drawing as text."""
        ids = f"rb-{self.method}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="rb-diagram" role="img" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" aria-labelledby="{ids}-title {ids}-desc">\n'
            f'<title id="{ids}-title">{escape(self.name)}</title>\n'
            f'<desc id="{ids}-desc">{escape(self.description)}</desc>\n'
            f"<style>{STYLE}</style>\n"
            f'<rect class="paper" x="0" y="0" width="{WIDTH}" height="{HEIGHT}" rx="6"/>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def _broken(text: str, width: float) -> list[str]:
    """The text in lines that are not wider than `width`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if width_of(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _top(
    drawing: Drawing,
    traced: Mapping[str, Any],
    own: Mapping[str, Any],
    prior: bool,
) -> None:
    """The question and its passages, with the prior or, where it is not used, with the rank."""
    drawing.box(LEFT, 68, RIGHT - LEFT, 44, "question")
    lines = _broken(traced["question"], RIGHT - LEFT - 34)
    drawing.text(LEFT + 10, 95 if len(lines) == 1 else 86, "x", "bold")
    for at, line in enumerate(lines):
        drawing.text(LEFT + 24, (95 if len(lines) == 1 else 86) + 17 * at, line)
    drawing.down(112, 128)
    for at, (x, passage) in enumerate(
        zip(COLUMNS, own["passages"], strict=True)
    ):
        drawing.box(x, 128, COLUMN, 56, "passage")
        drawing.text(x + COLUMN / 2, 144, "z" + "₁₂₃"[at], "bold", "middle")
        drawing.text(x + COLUMN / 2, 160, passage, "plain", "middle")
    values = [shown(p) for p in own["prior"]] if prior else ["1", "2", "3"]
    drawing.row(177, "p(z|x)" if prior else "rank", values)


def _answer(
    drawing: Drawing, own: Mapping[str, Any], x: float, above: float
) -> None:
    """The answer with its probability, and the arrow that leads to it from `above`."""
    drawing.line((x, above), (x, 458))
    drawing.box(LEFT, 458, RIGHT - LEFT, 34, "question")
    drawing.text(LEFT + 10, 479, "y", "bold")
    drawing.text(LEFT + 24, 479, own["answer"], "bold")
    drawing.text(
        RIGHT - 10, 479, f"p(y|x) = {told(own['probability'])}", "plain", "end"
    )


def _readers(drawing: Drawing, second: str) -> None:
    """An encoder and what follows it, for each passage by itself."""
    drawing.down(184, 200)
    for x in COLUMNS:
        drawing.labelled(x, 200, COLUMN, 24, "encoder")
        drawing.labelled(x, 238, COLUMN, 24, second)
    drawing.text(LEFT, 217, "x with z", "note")
    drawing.down(224, 238)


def _tokens(drawing: Drawing, own: Mapping[str, Any]) -> None:
    """One decoder with its attention on each passage, and the probability of each token."""
    drawing.box(COLUMNS[0], 286, 3 * COLUMN + 12, 50, "reader")
    x = COLUMNS[1] + COLUMN / 2
    drawing.text(x, 305, "decoder", "plain", "middle")
    drawing.row(325, "attention", [shown(share) for share in own["attention"]])
    drawing.line((x, 336), (x, 366))
    step = (RIGHT - LEFT) / len(own["tokens"])
    drawing.box(LEFT, 366, RIGHT - LEFT, 46, "cells")
    for at, (token, p) in enumerate(
        zip(own["tokens"], own["token probability"], strict=True)
    ):
        middle = LEFT + (at + 0.5) * step
        drawing.text(middle, 384, token, "note", "middle")
        drawing.text(middle, 402, shown(p), "number", "middle")
        if at:
            drawing.text(LEFT + at * step, 402, "×", "note", "middle")
    _answer(drawing, own, x, 412)
    drawing.text(x + 10, 438, "product", "note")


def _multiplied(
    drawing: Drawing, own: Mapping[str, Any], above: float, formula: str
) -> None:
    """How the sums at the tokens, which end at `above`, came about, and their product."""
    x, middle = COLUMNS[0] + COLUMN / 2, (LEFT + RIGHT) / 2
    drawing.line((x, above), (x, 406))
    drawing.text(RIGHT, above + 20, formula, "accent", "end")
    drawing.box(LEFT, 406, RIGHT - LEFT, 26, "cells")
    drawing.text(
        middle,
        423,
        " × ".join(shown(p) for p in own["mixture"]),
        "number",
        "middle",
    )
    _answer(drawing, own, x, 432)
    drawing.text(x + 10, 450, "product", "note")


def _in_context(
    drawing: Drawing, traced: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    _top(drawing, traced, own, prior=False)
    drawing.down(184, 200)
    drawing.labelled(
        COLUMNS[0],
        200,
        RIGHT - COLUMNS[0],
        26,
        "one prompt: z₃, z₂, z₁, then x",
        "sum",
    )
    x = COLUMNS[1] + COLUMN / 2
    drawing.line((x, 226), (x, 242))
    drawing.labelled(COLUMNS[0], 242, 3 * COLUMN + 12, 24, "encoder")
    drawing.line((x, 266), (x, 286))
    _tokens(drawing, own)


def _fid(
    drawing: Drawing, traced: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    _top(drawing, traced, own, prior=False)
    drawing.down(184, 200)
    for x in COLUMNS:
        drawing.labelled(x, 200, COLUMN, 24, "encoder")
    drawing.text(LEFT, 217, "x with z", "note")
    drawing.down(224, 242)
    drawing.box(COLUMNS[0], 242, RIGHT - COLUMNS[0], 26, "sum")
    drawing.row(259, "states", ["H₁", "H₂", "H₃"], "accent")
    drawing.total(259, "joined")
    drawing.line((COLUMNS[1] + COLUMN / 2, 268), (COLUMNS[1] + COLUMN / 2, 286))
    _tokens(drawing, own)


def _rag_token(
    drawing: Drawing, traced: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    _top(drawing, traced, own, prior=True)
    _readers(drawing, "decoder")
    drawing.down(262, 280)
    y = 280.0
    for at, token in enumerate(own["tokens"]):
        drawing.box(COLUMNS[0], y, RIGHT - COLUMNS[0], ROW, "sum")
        drawing.row(
            y + 14,
            token,
            [shown(row[at]) for row in own["token probabilities"]],
        )
        drawing.total(y + 14, f"Σ {shown(own['mixture'][at])}")
        y += ROW + 4
    _multiplied(drawing, own, y - 4, "Σ over z of p(z|x) p(yₜ|x, z)")


def _answers_summed(drawing: Drawing, own: Mapping[str, Any]) -> None:
    """What REALM and RAG-Sequence share: the sum of whole answers, and the posterior."""
    joint = [
        a * b for a, b in zip(own["prior"], own["given passage"], strict=True)
    ]
    drawing.down(382, 396)
    drawing.box(COLUMNS[0], 396, RIGHT - COLUMNS[0], 24, "sum")
    drawing.row(412, "× p(z|x)", [shown(p) for p in joint])
    drawing.total(412, f"Σ {told(own['core'])}")
    drawing.row(438, "p(z|x,y)", [shown(p) for p in own["posterior"]])
    _answer(drawing, own, (SUM + RIGHT) / 2, 420)


def _rag_sequence(
    drawing: Drawing, traced: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    _top(drawing, traced, own, prior=True)
    _readers(drawing, "decoder")
    drawing.down(262, 278)
    for x in COLUMNS:
        drawing.box(x, 278, COLUMN, 104, "cells")
    for at, token in enumerate(own["tokens"]):
        drawing.row(
            294 + 19 * at,
            token,
            [shown(row[at]) for row in own["token probabilities"]],
        )
    drawing.row(
        376, "product", [shown(p) for p in own["given passage"]], "bold"
    )
    for x in COLUMNS:
        drawing.line((x + 8, 360), (x + COLUMN - 8, 360), head=False)
    _answers_summed(drawing, own)


def _realm(
    drawing: Drawing, traced: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    _top(drawing, traced, own, prior=True)
    _readers(drawing, "spans")
    drawing.down(262, 300)
    for x in COLUMNS:
        drawing.box(x, 300, COLUMN, 82, "cells")
    drawing.row(
        328, "y in z?", ["yes" if p else "no" for p in own["given passage"]]
    )
    for x in COLUMNS:
        drawing.line((x + 8, 346), (x + COLUMN - 8, 346), head=False)
    drawing.row(
        368, "p(y|x,z)", [shown(p) for p in own["given passage"]], "bold"
    )
    _answers_summed(drawing, own)


def _knn_lm(
    drawing: Drawing, traced: Mapping[str, Any], own: Mapping[str, Any]
) -> None:
    _top(drawing, traced, own, prior=False)
    drawing.down(184, 200)
    for x, count in zip(COLUMNS, own["pairs"], strict=True):
        drawing.labelled(x, 200, COLUMN, 24, f"{count} pairs", "passage")
    bus, left, keys = 234, COLUMNS[0] + COLUMN / 2, COLUMNS[2] + COLUMN / 2
    for x in COLUMNS[:2]:
        drawing.line((x + COLUMN / 2, 224), (x + COLUMN / 2, bus), head=False)
    drawing.line((left, bus), (keys, bus), head=False)
    drawing.line((keys, 224), (keys, 248))
    drawing.line((LEFT + 42, 112), (LEFT + 42, 248))
    drawing.labelled(LEFT, 248, 112, 24, "language model")
    drawing.labelled(keys - 98, 248, RIGHT - keys + 98, 24, "nearest keys")
    drawing.text(138, 255, "q", "note", "middle")
    drawing.line((LEFT + 112, 260), (keys - 98, 260))
    for x, head in ((left, "model"), (keys, "memory")):
        drawing.line((x, 272), (x, 290))
        drawing.text(x - 8, 284, head, "note", "end")
    drawing.total(284, "mixed")
    y = 290.0
    for at, token in enumerate(own["tokens"]):
        drawing.box(COLUMNS[0], y, RIGHT - COLUMNS[0], ROW, "sum")
        drawing.text(LEFT, y + 14, token, "note")
        for x, part in ((left, "model"), (keys, "memory")):
            drawing.text(x, y + 14, shown(own[part][at]), "number", "middle")
        drawing.total(y + 14, shown(own["mixture"][at]))
        y += ROW + 2
    lam = own["lambda"]
    said = f"{1 - lam:.2g} × model + {lam:.2g} × memory"
    _multiplied(drawing, own, y - 2, said)


Draw = Callable[[Drawing, Mapping[str, Any], Mapping[str, Any]], None]

METHODS: dict[str, tuple[str, str, Draw, str]] = {
    "in-context": (
        "In-context retrieval",
        "input",
        _in_context,
        "The three passages and the question become one prompt, the best passage last. One encoder "
        "and one decoder read it, and the answer's probability is the product of its tokens'.",
    ),
    "fid": (
        "FiD",
        "states",
        _fid,
        "An encoder reads the question with each passage separately. Their states are joined, and "
        "one decoder attends to all of them while it writes the answer.",
    ),
    "rag-token": (
        "RAG-Token",
        "tokens",
        _rag_token,
        "A reader gives each token of the answer a probability under each passage. These are "
        "summed over the passages at every token, weighted by p(z|x), and the sums are multiplied.",
    ),
    "rag-sequence": (
        "RAG-Sequence",
        "answers",
        _rag_sequence,
        "A reader gives the whole answer a probability under each passage, the product over its "
        "tokens. These are summed over the passages once, weighted by p(z|x).",
    ),
    "realm": (
        "REALM",
        "answers",
        _realm,
        "A reader gives the answer a probability as a span of each passage. These are summed over "
        "the passages, weighted by p(z|x).",
    ),
    "knn-lm": (
        "kNN-LM",
        "memory",
        _knn_lm,
        "Every token of the passages is stored with its context as a pair of key and value. The "
        "nearest keys to the model's own context vote for the next token, and their distribution "
        "is mixed with the model's.",
    ),
}


def described(method: str, traced: Mapping[str, Any]) -> str:
    """The diagram in words, with the numbers that matter most."""
    own = traced["methods"][method]
    passages = ", ".join(
        f"{name} {shown(p)}"
        for name, p in zip(own["passages"], own["prior"], strict=True)
    )
    words = [f"The question: {traced['question']}", METHODS[method][3]]
    if "posterior" in own and method != "rag-token":
        after = ", ".join(shown(p) for p in own["posterior"])
        words.append(
            f"The prior of the passages: {passages}; their posterior: {after}."
        )
    elif method == "rag-token":
        words.append(f"The prior of the passages: {passages}.")
    elif method == "knn-lm":
        words.append(f"The weight of the memory is {own['lambda']:.2g}.")
    else:
        shares = ", ".join(
            f"{name} {shown(p)}"
            for name, p in zip(own["passages"], own["attention"], strict=True)
        )
        words.append(f"The decoder's attention: {shares}.")
    words.append(
        f"The answer, {own['answer']}, has probability {told(own['probability'])}."
    )
    return " ".join(words)


def draw(method: str, traced: Mapping[str, Any]) -> str:
    """The SVG of one method, from the traced question."""
    name, stage, function, _ = METHODS[method]
    drawing = Drawing(method, name, stage, described(method, traced))
    function(drawing, traced, traced["methods"][method])
    return drawing.svg()


class Inline(SphinxTransform):
    """Replaces an image of a diagram by the drawing itself, before images are collected."""

    default_priority = 200

    def apply(self, **_: Any) -> None:
        """Replace every one of the page."""
        for image in list(self.document.findall(nodes.image)):
            path = Path(str(image["uri"]))
            if path.parent.name == FOLDER and path.suffix == ".svg":
                file = Path(self.env.srcdir) / FOLDER / path.name
                self.env.note_dependency(str(file))
                image.replace_self(
                    nodes.raw(
                        "", file.read_text(encoding="utf-8"), format="html"
                    )
                )


def setup(app: Any) -> dict[str, Any]:
    """Register the transform."""
    app.add_transform(Inline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    """Write all diagrams."""
    traced = json.loads(
        (BOOK / "results" / "traced-question.json").read_text(encoding="utf-8")
    )
    (BOOK / FOLDER).mkdir(exist_ok=True)
    for method in METHODS:
        path = BOOK / FOLDER / f"{method}.svg"
        path.write_text(draw(method, traced), encoding="utf-8")
        print(path.relative_to(BOOK.parent))


if __name__ == "__main__":
    main()

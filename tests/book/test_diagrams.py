"""The methods' diagrams: their numbers are those of the traced question, and the text fits."""

import gzip
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import method_diagrams
import pytest
from docutils import nodes
from docutils.utils import new_document
from experiments import traced_question

BOOK = Path(__file__).resolve().parents[2] / "book"
TRACED = json.loads((BOOK / "results" / "traced-question.json").read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"
PLACES = {
    "in-context": "07-side-by-side",
    "fid": "06-fid",
    "rag-token": "05-rag",
    "rag-sequence": "05-rag",
    "realm": "04-realm",
    "knn-lm": "03-knn-lm",
}
each_method = pytest.mark.parametrize("method", method_diagrams.METHODS)


def drawing(method):
    return ET.fromstring((BOOK / "diagrams" / f"{method}.svg").read_text(encoding="utf-8"))


def texts(root):
    return [str(element.text) for element in root.iter(f"{SVG}text")]


def numbers(value):
    if isinstance(value, dict):
        return [n for part in value.values() for n in numbers(part)]
    if isinstance(value, list):
        return [n for part in value for n in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def test_all_six_are_traced_and_drawn():
    assert set(TRACED["methods"]) == set(method_diagrams.METHODS) == set(traced_question.METHODS)
    drawn = {path.stem for path in (BOOK / "diagrams").glob("*.svg")}
    assert drawn == set(method_diagrams.METHODS)


@each_method
def test_the_stored_drawing_is_of_the_stored_numbers(method):
    stored = (BOOK / "diagrams" / f"{method}.svg").read_text(encoding="utf-8")
    assert stored == method_diagrams.draw(method, TRACED)


@each_method
def test_every_number_drawn_was_measured(method):
    own = TRACED["methods"][method]
    known = numbers(own)
    known += [1 - own["lambda"]] if "lambda" in own else []
    if "given passage" in own:
        known += [a * b for a, b in zip(own["prior"], own["given passage"], strict=True)]
    found = re.findall(r"(?<![\w-])\d+(?:\.\d+)?", " ".join(texts(drawing(method))))
    assert len(found) > 8
    for text in found:
        half = 0.5 * 10.0 ** -len(text.partition(".")[2])
        close = [n for n in known if abs(n - float(text)) <= half * 1.001]
        assert close or text in "123", text  # the passages' ranks


@each_method
def test_the_numbers_agree_with_each_other(method):
    """Independently of the package: the formula of each method in plain Python."""
    own = TRACED["methods"][method]
    prior = own["prior"]
    assert sum(prior) == pytest.approx(1, abs=1e-5)
    match method:
        case "realm" | "rag-sequence":
            given = own["given passage"]
            expected = sum(p * g for p, g in zip(prior, given, strict=True))
            after = [p * g / expected for p, g in zip(prior, given, strict=True)]
            assert own["posterior"] == pytest.approx(after, rel=1e-3, abs=1e-9)
            if method == "rag-sequence":
                rows = own["token probabilities"]
                assert given == pytest.approx([math.prod(row) for row in rows], rel=1e-3)
        case "rag-token":
            columns = zip(*own["token probabilities"], strict=True)
            sums = [sum(p * g for p, g in zip(prior, c, strict=True)) for c in columns]
            assert own["mixture"] == pytest.approx(sums, rel=1e-3)
            expected = math.prod(sums)
        case "knn-lm":
            lam = own["lambda"]
            pairs = zip(own["model"], own["memory"], strict=True)
            mixed = [(1 - lam) * a + lam * b for a, b in pairs]
            assert own["mixture"] == pytest.approx(mixed, rel=1e-3)
            expected = math.prod(mixed)
        case _:
            assert sum(own["attention"]) == pytest.approx(1, abs=1e-5)
            expected = math.prod(own["token probability"])
    assert own["core"] == pytest.approx(expected, rel=2e-3)
    assert own["probability"] == pytest.approx(expected, rel=2e-3)


@each_method
def test_the_stage_of_the_sum_has_the_accent_and_no_other(method):
    root = drawing(method)
    cells = [r for r in root.iter(f"{SVG}rect") if r.get("class") in ("stage", "chosen")]
    assert [cell.get("class") for cell in cells].count("chosen") == 1
    at = [cell.get("class") for cell in cells].index("chosen")
    expected = ("in-context", "fid", "rag-token", "rag-sequence", "knn-lm")
    assert at == expected.index("rag-sequence" if method == "realm" else method)
    assert [r for r in root.iter(f"{SVG}rect") if r.get("class") == "sum"]


@each_method
def test_it_is_put_into_words(method):
    root = drawing(method)
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert desc is not None
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {desc.get('id')}"
    said = str(desc.text)
    assert TRACED["question"] in said
    assert TRACED["methods"][method]["answer"] in said
    assert len(said) > 200


@each_method
def test_no_text_leaves_its_box_or_the_drawing(method):
    root = drawing(method)
    _, _, width, height = map(float, str(root.get("viewBox")).split())
    boxes = [
        tuple(float(str(r.get(key))) for key in ("x", "y", "width", "height"))
        for r in root.iter(f"{SVG}rect")
    ]
    for text in root.iter(f"{SVG}text"):
        x, y = float(str(text.get("x"))), float(str(text.get("y")))
        size = 17 if text.get("class") == "name" else 12
        wide = method_diagrams.width_of(str(text.text), size)
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[str(text.get("text-anchor"))]
        around = [b for b in boxes if b[0] <= x <= b[0] + b[2] and b[1] < y - 4 < b[1] + b[3]]
        bx, by, bw, bh = min(around, key=lambda box: box[2] * box[3])
        assert bx <= left, text.text
        assert left + wide <= bx + bw, text.text
        assert by + 8 <= y <= by + bh - 2, text.text
        assert 0 <= left <= left + wide <= width, text.text
        assert y < height


@each_method
def test_texts_do_not_overlap(method):
    spans = []
    for text in drawing(method).iter(f"{SVG}text"):
        x, y = float(str(text.get("x"))), float(str(text.get("y")))
        wide = 0.9 * method_diagrams.width_of(str(text.text))
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[str(text.get("text-anchor"))]
        for other_left, other_right, other_y, said in spans:
            apart = left >= other_right or left + wide <= other_left or abs(y - other_y) >= 11
            assert apart, (text.text, said)
        spans.append((left, left + wide, y, text.text))


@each_method
def test_arrows_end_at_boxes(method):
    root = drawing(method)
    boxes = [
        tuple(float(str(r.get(key))) for key in ("x", "y", "width", "height"))
        for r in root.iter(f"{SVG}rect")
        if r.get("class") != "paper"
    ]
    heads = [p for p in root.iter(f"{SVG}path") if p.get("class") == "head"]
    assert len(heads) > 5
    for head in heads:
        x, y = map(float, str(head.get("d"))[1:].split("L")[0].split())
        on_top = any(a <= x <= a + w and abs(b - y) < 0.6 for a, b, w, _ in boxes)
        on_left = any(b <= y <= b + h and abs(a - x) < 0.6 for a, b, _, h in boxes)
        assert on_top or on_left, (x, y)


def test_every_diagram_stands_in_its_chapter_and_on_the_first_page():
    first = (BOOK / "index.md").read_text(encoding="utf-8")
    for method, chapter in PLACES.items():
        for text in (first, (BOOK / f"{chapter}.py").read_text(encoding="utf-8")):
            said = re.findall(rf"!\[([^\]]+)\]\(diagrams/{method}\.svg\)", text)
            assert len(said) == 1, (method, chapter)
            assert len(said[0]) > 10


def test_no_chapter_draws_with_characters():
    for path in [*BOOK.glob("*.py"), *BOOK.glob("*.md")]:
        text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.S)
        assert not re.search(r"--\+|-->|──|-> encoder", text), path


def test_the_site_shows_the_drawing_itself(tmp_path):
    (tmp_path / "diagrams").mkdir()
    (tmp_path / "diagrams" / "fid.svg").write_text("<svg>drawn</svg>", encoding="utf-8")
    seen = []
    document = new_document("page")
    document.settings.env = SimpleNamespace(srcdir=str(tmp_path), note_dependency=seen.append)
    document += nodes.paragraph("", "", nodes.image(uri="diagrams/fid.svg", alt="FiD"))
    document += nodes.image(uri="results/landing.png", alt="a picture that stays")
    method_diagrams.Inline(document).apply()
    raw = next(iter(document.findall(nodes.raw)))
    assert raw.astext() == "<svg>drawn</svg>"
    assert raw["format"] == "html"
    assert [image["uri"] for image in document.findall(nodes.image)] == ["results/landing.png"]
    assert seen == [str(tmp_path / "diagrams" / "fid.svg")]


def test_the_stored_question_is_the_one_that_the_rule_gives():
    with gzip.open(BOOK / "results" / "predictions.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = traced_question.chosen(map(json.loads, lines))
    assert TRACED["question"] == found["question"]
    assert TRACED["gold passage"] == found["gold_passage"]
    for own in TRACED["methods"].values():
        assert TRACED["gold passage"] in own["passages"][1:]

"""The figures with sliders: the script in a real browser against the package's own functions."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import interactive_figures
import pytest
import torch
from bs4 import BeautifulSoup
from experiments import interactive
from markdown_it import MarkdownIt

from ragbook.methods import posterior, rag, realm
from ragbook.methods.knn_lm import interpolate, knn_log_probs
from tests.book.browser import browse, needs_browser, report_of, with_script

PASSAGES = ("danube-1", "rhine-2", "oder-3")
PRIOR = torch.tensor([0.6, 0.3, 0.1]).log()


def next_token():
    return interactive.next_token(
        ["sea", "forest", "river", "lake", "hill"],
        torch.tensor([0.5, 0.1, 0.3, 0.06, 0.04]).log(),
        torch.tensor([1.0, 2.5, 4.0, 9.0]),
        torch.tensor([1, 1, 0, 4]),
        lam=0.25,
        temperature=10.0,
        shown=3,
    )


def passages_posterior():
    return interactive.passages_posterior(PASSAGES, PRIOR, torch.tensor([0.0, 0.2, 0.9]), 2)


def where_the_sum_is():
    each = torch.tensor([[0.9, 0.001], [0.02, 0.6], [0.8, 0.7]]).log()
    return interactive.where_the_sum_is(PASSAGES, ["black", "(end)"], PRIOR, each, 2)


def struck_out():
    choices = {
        "".join(key): {
            "p": round(0.1 + 0.2 * at / 7, 4),
            "text": f"answer {at}",
            "attention": [float(c) / max(1, key.count("1")) for c in key],
        }
        for at, key in enumerate(itertools.product("01", repeat=3))
        if "1" in key
    }
    data = {"passages": list(PASSAGES), "answer": "Black", "choices": choices}
    figure = interactive._panels(PASSAGES, {"attention": [0.2, 0.3, 0.5]})
    return interactive.Interactive(figure, "struck-out", data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with the four figures, as the extension puts them into one."""
    folder = tmp_path_factory.mktemp("interactive")
    parts = [
        '<div class="cell"><div class="cell_output"><img alt="a picture" src="data:,"></div></div>'
        + interactive_figures.island({"kind": figure.kind, **figure.data})
        for figure in (next_token(), passages_posterior(), where_the_sum_is(), struck_out())
    ]
    script = (Path(interactive_figures.__file__).parent / "interactive.js").read_text("utf-8")
    path = folder / "page.html"
    path.write_text(
        "<!doctype html><html><head><meta charset='utf-8'></head><body>"
        f"{''.join(parts)}<script>{script}</script></body></html>",
        encoding="utf-8",
    )
    return path


MOVE = """
    const figure = document.querySelectorAll('.rb-figure')[AT];
    const read = () => ({
      says: figure.querySelector('.rb-says').textContent,
      outputs: [...figure.querySelectorAll('output')].map((o) => o.textContent),
      table: [...figure.querySelectorAll('tbody tr')].map((row) =>
        [...row.querySelectorAll('td')].map((cell) =>
          (cell.querySelector('.rb-value') ?? cell).textContent)),
    });
    const inputs = figure.querySelectorAll('input');
    const out = [read()];
    for (const positions of POSITIONS) {
      positions.forEach((value, i) => {
        if (inputs[i].type === 'checkbox') { if (inputs[i].checked !== value) inputs[i].click(); }
        else { inputs[i].value = value; inputs[i].dispatchEvent(new Event('input')); }
      });
      out.push(read());
    }
    figure.querySelector('button').click();
    out.push(read());
    return out;
"""


def moved(page, at, positions, tmp_path):
    """What a figure shows at first, at each of the positions, and after starting again."""
    script = MOVE.replace("AT", str(at)).replace("POSITIONS", json.dumps(positions))
    copy = with_script(page, f"moved-{at}.html", script)
    document, console = browse(copy.as_uri(), tmp_path / "profile")
    assert "Uncaught" not in console
    report = report_of(document)
    assert isinstance(report, list), report
    assert report[0] == report[-1]
    return report[:-1]


def values(look):
    """The table's numbers, column by column; None where a row has none."""
    rows = [
        [None if cell == "–" else float(cell.replace("−", "-")) for cell in row]
        for row in look["table"]
    ]
    return list(zip(*rows, strict=True))


def same(found, expected):
    """Equal to what three decimals, or two significant digits of a small number, can hold."""
    for one, other in zip(found, torch.as_tensor(expected).flatten().tolist(), strict=True):
        assert one == pytest.approx(other, abs=5.1e-4 if abs(other) >= 5e-4 else 0, rel=0.06)


def prior_of(data, added, sharpness=1.0):
    scores = sharpness * torch.tensor(data["log_prior"], dtype=torch.float64)
    scores[data["moved"]] += added
    return scores.log_softmax(-1)[None]


@needs_browser
def test_next_token(page, tmp_path):
    data = next_token().data
    assert data["tokens"][-1] == interactive.OTHERS
    base = torch.tensor(data["model"]).log()
    settings = [(0.0, 0.0), (1.0, 10.0), (0.4, 35.0)]
    looks = moved(page, 0, settings, tmp_path)
    for (lam, power), look in zip([(0.25, 10.0), *settings], looks, strict=True):
        said = knn_log_probs(
            torch.tensor([data["distances"]]),
            torch.tensor([data["values"]]),
            len(data["tokens"]),
            10 ** (power / 10),
        )[0]
        model, memory, mixture = values(look)
        same(model, base.exp())
        same(memory, said.exp())
        same(mixture, interpolate(base, said, lam).exp())
        assert look["outputs"][0] == f"{lam:.2f}"
        best = data["tokens"][max(range(3), key=lambda at: mixture[at])]
        assert f"the mixture “{best}”" in look["says"]


@needs_browser
def test_posterior(page, tmp_path):
    data = passages_posterior().data
    settings = [(-3, 1), (6, 0.5), (2.5, 0)]
    looks = moved(page, 1, settings, tmp_path)
    for (added, known), look in zip([(0, 1), *settings], looks, strict=True):
        prior = prior_of(data, added)
        given = torch.tensor([data["given"]], dtype=torch.float64)
        given = (known * given + (1 - known) * given.mean()).log()
        columns = values(look)
        same(columns[0], prior.exp())
        same(columns[1], given.exp())
        same(columns[2], posterior(prior, given))
        gradient = realm.score_gradient(given, prior)
        assert columns[3] == pytest.approx(gradient[0].tolist(), abs=6e-4)
        assert ("the same" in look["says"]) == (known == 0)


@needs_browser
def test_where_the_sum_is(page, tmp_path):
    data = where_the_sum_is().data
    each = torch.tensor([data["log_probs"]], dtype=torch.float64)
    settings = [(4, 0), (-6, 2), (6, 2)]
    looks = moved(page, 2, settings, tmp_path)
    for (added, sharpness), look in zip([(0, 1), *settings], looks, strict=True):
        prior, own = prior_of(data, added, sharpness), torch.ones(1, 2)
        token = rag.token_log_prob(each, prior, own).exp().item()
        sequence = rag.sequence_log_prob(each, prior, own).exp().item()
        *passages, sums, once = values(look)
        for z, column in enumerate(passages):
            row = each[0, z].exp()
            same(column, [prior[0, z].exp(), *row, row.prod()])
        alone = [
            rag.token_log_prob(each[:, :, [t]], prior, own[:, :1]).exp().item() for t in range(2)
        ]
        assert sums[0] is None
        same(sums[1:], [*alone, token])
        assert once[:3] == (None, None, None)
        same(once[3:], [sequence])
        more = "RAG-Sequence" if sequence > token else "RAG-Token"
        alike = max(sequence, token) < 1.005 * min(sequence, token)
        assert ("the same" if alike else f"{more} gives the answer") in look["says"]


@needs_browser
def test_struck_out(page, tmp_path):
    choices = struck_out().data["choices"]
    settings = [[True, False, True], [False, False, True], [False, False, False]]
    looks = moved(page, 3, settings, tmp_path)
    for kept, look in zip([[True] * 3, *settings], looks, strict=True):
        columns = values(look)
        found = choices.get("".join("01"[is_kept] for is_kept in kept))
        for z, is_kept in enumerate(kept):
            changed = [is_kept != (at == z) for at, is_kept in enumerate(kept)]
            other = choices.get("".join("01"[one] for one in changed))
            expected = None if other is None else pytest.approx(other["p"], abs=5.1e-4)
            assert columns[1 if is_kept else 2][z] == expected
            assert columns[2 if is_kept else 1][z] is None
            if is_kept:
                assert columns[0][z] == pytest.approx(found["attention"][z], abs=5.1e-4)
        if found is None:
            assert "nothing to read" in look["says"]
        else:
            assert f"“{found['text']}”" in look["says"]
            assert f"{found['p']:.3f}" in look["says"]


@needs_browser
def test_everything_can_be_operated_and_is_named(page, tmp_path):
    copy = with_script(
        page,
        "named.html",
        """
        return [...document.querySelectorAll('.rb-figure')].map((figure) => ({
          unnamed: [...figure.querySelectorAll('input')].filter((i) => !i.labels.length).length,
          native: [...figure.querySelectorAll('input')].map((i) => i.type),
          live: figure.querySelectorAll('[aria-live=polite]').length,
          group: figure.getAttribute('aria-label'),
          picture: getComputedStyle(figure.previousElementSibling).display,
          heads: [...figure.querySelectorAll('th')].every((th) => th.scope && th.textContent),
        }));
        """,
    )
    document, _ = browse(copy.as_uri(), tmp_path / "profile")
    report = report_of(document)
    assert [figure["native"] for figure in report] == [["range"] * 2] * 3 + [["checkbox"] * 3]
    for figure in report:
        assert figure["unnamed"] == 0
        assert figure["live"] == 1
        assert figure["group"] == "a picture"
        assert figure["heads"]


def test_the_picture_holds_the_numbers_at_the_first_positions():
    text = repr(passages_posterior())
    log_prior = torch.tensor([passages_posterior().data["log_prior"]]).log_softmax(-1)
    gradient = realm.score_gradient(torch.tensor([[0.0, 0.2, 0.9]]).log(), log_prior)[0]
    for value in gradient.tolist():
        assert f"text: {value:.3f}" in text
    assert "text: -0.600" in text


def test_a_notebook_stores_picture_and_numbers():
    from IPython.core.formatters import DisplayFormatter

    data, _ = DisplayFormatter().format(next_token())
    assert data[interactive.MIME]["kind"] == "next-token"
    assert data["image/png"][:4] == b"\x89PNG"
    assert "bars: at" in data["text/plain"]
    json.dumps(data[interactive.MIME])


def test_only_pages_with_numbers_load_the_script():
    assert interactive_figures.MIME == interactive.MIME
    output = {"output_type": "execute_result", "data": {interactive.MIME: {"text": "</script>"}}}
    cells = [{"outputs": [output]}, {"source": "no outputs"}]
    source = [json.dumps({"cells": cells, "nbformat": 4})]
    interactive_figures.add(None, "page", source)
    made = json.loads(source[0])
    stored, behind, last = made["cells"]
    assert made["nbformat"] == 4
    assert last == cells[1]
    # A type that Sphinx does not know fails the strict build, and another output has a caption too.
    assert stored == {"outputs": [{"output_type": "execute_result", "data": {}}]}
    added = MarkdownIt().render(behind["source"])
    element = BeautifulSoup(added, "html.parser").find("script", class_="rb-interactive")
    assert element is not None
    assert json.loads(element.get_text()) == {"text": "</script>"}
    loaded = []
    app = SimpleNamespace(
        add_js_file=lambda name, **_: loaded.append(name), add_css_file=loaded.append
    )
    interactive_figures.load(app, "page", "", {"body": "<p>none</p>"}, None)
    assert loaded == []
    interactive_figures.load(app, "page", "", {"body": added}, None)
    assert loaded == list(interactive_figures.FILES)

"""The site's own Sphinx extensions, on small stand-ins for what Sphinx gives them."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import docstrings
import execute
import landing
import launch
import light_pages
import one_question
import pytest
import running_time
import setup_cells
import stacked_intervals
import unbroken_code
import yaml
from bs4 import BeautifulSoup

from ragbook.corpus import Corpus, Passage
from ragbook.evaluation.sheets import Cell, Sheet
from ragbook.explorer.pages import question_id
from ragbook.figures import own_and_shared

ROOT = Path(__file__).resolve().parents[2]
ICONS = (
    '(()=>{var p={sun:[512,512,[9728],"f185","M1 2z"],"circle-half-stroke":[512,512,[9680,'
    '"adjust"],"f042","M3 4z"],"file-pdf":[512,512,[],"f1c1",["M5","M6"]],'
    'moon:[384,512,[],"f186","M7z"]};'
    "return p})()"
)


def test_icons_that_no_page_shows_are_left_out():
    kept = light_pages.pruned(ICONS, {"sun", "adjust"})  # by the name or by another one
    assert kept == (
        '(()=>{var p={sun:[512,512,[9728],"f185","M1 2z"],"circle-half-stroke":[512,512,[9680,'
        '"adjust"],"f042","M3 4z"],};return p})()'
    )
    assert light_pages.pruned(ICONS, {"sun", "circle-half-stroke", "file-pdf", "moon"}) == ICONS


def test_so_are_their_glyphs():
    style = (
        '.a{b:c}.fa-0:before{content:"\\30 "}.fa-bars:before,.fa-navicon:before{content:"\\f0c9"}'
    )
    assert light_pages.pruned(style, {"navicon"}) == style.replace(
        '.fa-0:before{content:"\\30 "}', ""
    )
    assert light_pages.pruned(style, set()) == ".a{b:c}"


def test_the_font_of_brands_is_not_loaded_for_one_icon():
    solid = "@font-face{font-family:Solid;src:url(../webfonts/fa-solid-900.woff2)}"
    brands = solid.replace("fa-solid-900", "fa-brands-400")
    assert light_pages.pruned(f"a{{b:c}}{brands}{solid}", set()) == f"a{{b:c}}{solid}"


def test_only_the_page_that_searches_has_the_search():
    head = (
        '<link><script src="../_static/searchtools.js"></script>\n  <script src="searchindex.js">'
    )
    text = light_pages.SEARCHING.sub("", f"{head}</script><script src='_static/doctools.js'>")
    assert text == "<link><script src='_static/doctools.js'>"


def test_mathjax_goes_where_formulas_are():
    scripts = [
        SimpleNamespace(filename="_static/mathjax/tex-chtml.js", attributes={}),
        SimpleNamespace(filename=None, attributes={"body": "window.MathJax = {}"}),
        SimpleNamespace(filename="_static/copybutton.js", attributes={}),
    ]
    for body, count in (('<span class="math notranslate">', 3), ("<p>no formula</p>", 1)):
        context = {"body": body, "script_files": scripts}
        light_pages.without_formulas(None, "page", "page.html", context, None)
        assert len(context["script_files"]) == count


def test_docstrings_become_restructured_text():
    text = r"""Of a `thing` with ``code`` and \(x_i\), by :func:`f`,

\[ p(y) =
   \sum_z p(z). \]

| name | what |
|---|---|
| `a` | the first |
| b | the second |

Parameters
----------
a, b: [N], what is said
    and goes on.
c: `True` or not.

Returns
-------
Two things; with *stars*: none.

Raises
------
InputError: always.
"""
    assert (
        docstrings.restructured(text)
        == r"""Of a ``thing`` with ``code`` and :math:`x_i`, by :func:`f`,


.. math::

   p(y) =
     \sum_z p(z).


.. list-table::
   :header-rows: 1

   * - name
     - what
   * - ``a``
     - the first
   * - b
     - the second

:param a: see b
:param b: [N], what is said
    and goes on.
:param c: ``True`` or not.

:returns: Two things; with *stars*: none.

:raises InputError: always.

"""
    )


def test_what_follows_a_section_is_no_entry():
    text = "Says.\n\nRaises\n------\nInputError: never.\n\nOther words: they go on.\n\nAnd on."
    found = docstrings.restructured(text)
    assert ":raises InputError: never." in found
    assert "\nAnd on." in found


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "10 seconds"), (41, "50 seconds"), (60, "60 seconds"), (61, "1.5 minutes")],
)
def test_a_time_is_never_stated_too_short(seconds, text):
    assert running_time.stated(seconds) == f"about {text}"


def test_times_are_kept_and_stated_under_the_title(tmp_path):
    (tmp_path / "results").mkdir()
    times = tmp_path / "results" / "times.json"
    execute.record("02-b", 12.7, times)
    execute.record("01-a", 70.2, times)
    assert json.loads(times.read_text("utf-8")) == {"01-a": 70, "02-b": 13}
    app = SimpleNamespace(srcdir=tmp_path)
    for name, expected in (("02-b", "about 20 seconds"), ("03-c", None)):
        source = [json.dumps({"cells": [{"source": ["# Title\n", "\n", "Text."]}]})]
        running_time.add(app, name, source)
        text = "".join(json.loads(source[0])["cells"][0]["source"])
        assert text.startswith("# Title\n\n")
        assert text.endswith("Text.")
        assert ("Runs in" in text) == (expected is not None)
        assert expected is None or expected in text


def test_buttons_lead_to_a_repository_that_is_named_or_are_left_out():
    assert launch.options({}) == {}
    assert launch.options({"RAGBOOK_REPOSITORY": ""}) == {}
    found = launch.options({"GITHUB_REPOSITORY": "a/b"})
    assert found["repository_url"] == "https://github.com/a/b"
    assert set(found["launch_buttons"]) >= {"binderhub_url", "colab_url"}
    assert found["repository_branch"] == "notebooks"


def test_the_branch_of_the_buttons_is_the_one_that_the_workflow_pushes():
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    pushes = [
        step["run"]
        for job in yaml.safe_load(text)["jobs"].values()
        for step in job["steps"]
        if "git push" in step.get("run", "")
    ]
    assert len(pushes) == 1
    assert f"HEAD:refs/heads/{launch.BRANCH}" in pushes[0]
    assert "book/_tools/setup_cells.py" in pushes[0]


def notebook(*kinds):
    cells = [{"cell_type": kind, "id": f"{kind}-{at}"} for at, kind in enumerate(kinds)]
    return {"cells": cells, "nbformat": 4}


def test_the_set_up_is_the_first_code_cell_and_put_in_once():
    made = setup_cells.with_setup(notebook("markdown", "code", "markdown"), "a/b", "book/solutions")
    ids = [cell["id"] for cell in made["cells"]]
    assert ids == ["markdown-0", setup_cells.ID, "code-1", "markdown-2"]
    assert setup_cells.with_setup(made, "a/b", "book/solutions") == made
    source = "".join(made["cells"][1]["source"])
    assert "https://github.com/a/b " in source
    assert "%cd /content/ragbook/book/solutions\n" in source


def test_the_set_up_does_nothing_elsewhere_and_fetches_on_colab(monkeypatch):
    from IPython.core.inputtransformer2 import TransformerManager

    made = setup_cells.with_setup(notebook("code"), "a/b")
    code = TransformerManager().transform_cell("".join(made["cells"][0]["source"]))
    ran = []
    shell = SimpleNamespace(
        system=ran.append, run_line_magic=lambda name, rest: ran.append(f"{name} {rest}")
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    exec(code, {"get_ipython": lambda: shell})
    assert ran == []
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    exec(code, {"get_ipython": lambda: shell})
    assert [line.split()[0] for line in ran] == ["git", "cd", "pip", "pip"]
    assert sys.path[:2] == ["/content/ragbook", "/content/ragbook/book"]


def test_set_up_wants_a_repository(capsys):
    for wrong in ([], ["a"], ["a/b/c"], ["a/b; rm"]):
        assert setup_cells.main(wrong) == 2
        assert "OWNER/NAME" in capsys.readouterr().err


def test_what_binder_installs_is_there():
    """pip takes a constraint's path from the folder of the file that names it."""
    folder = ROOT / ".binder"
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").split("\n")
    for path in (line.split()[1] for line in lines if line.startswith(("-c ", "-r "))):
        assert (folder / path).exists(), path
    script = (folder / "postBuild").read_text(encoding="utf-8")
    for path in re.findall(r"--constraint (\S+)", script):
        assert (ROOT / path).exists(), path
    assert "--torch-backend cpu" in script


def test_one_question_is_a_row_a_method():
    passages = [Passage("a", "Apes & men", "Apes."), Passage("b", "Bees", "Bees.")]
    evidence = [
        {"passage_id": "a", "weight": 0.25, "loo": 0.5},
        {"passage_id": "b", "weight": 0.75},
    ]
    entry = {"log_prob": -1.0, "f1": 0.0}
    prediction = {
        "question": "Who <hums>?",
        "answers": ["bees"],
        "gold_passage": "b",
        "methods": {
            "blind": {**entry, "text": "cats", "em": 0, "evidence": []},
            "one": {**entry, "text": "bees", "em": 1, "evidence": evidence},
        },
    }
    html = one_question.table(prediction, Corpus("two", passages), {"one": "reads"})
    soup = BeautifulSoup(html, "html.parser")
    assert soup.select_one("caption").get_text() == "Who <hums>?"  # type: ignore[union-attr]
    rows = [[cell.get_text() for cell in row.select("th, td")] for row in soup.select("tbody tr")]
    assert rows == [["blind", "✗ cats", "–", "–"], ["onereads", "✓ bees", "75", "25"]]
    # What a stacked row shows in place of the head.
    assert [cell["data-passage"] for cell in soup.select("td.weight")] == ["1", "2", "1", "2"]
    assert "1 Bees (answers it), 2 Apes & men" in soup.get_text()
    link = soup.select_one("a")
    assert link is not None
    assert link["href"] == f"explorer.html#q={question_id('Who <hums>?')}"


def asked(question, gold, *right):
    """A line of predictions with the passages a and b, and methods of which these are right."""
    return {
        "question": question,
        "gold_passage": gold,
        "retrieved": [{"passage_id": name, "score": 1.0} for name in "ab"],
        "methods": {str(number): {"em": em} for number, em in enumerate(right)},
    }


def test_the_one_question_is_the_first_of_the_commonest_combination():
    lines = [
        asked("the kNN-LM is right as well", "a", 1, 1, 1, 1),
        asked("the commonest, but not found", "c", 0, 1, 1, 1),
        asked("no passage is known", None, 0, 1, 1, 1),
        asked("this", "b", 0, 1, 1, 1),
        asked("half are right", "a", 1, 1, 0, 0),
        asked("later", "a", 0, 1, 1, 1),
    ]
    assert one_question.chosen(iter(lines)) == (lines[3], 2, 4)
    assert one_question.chosen(lines[1:3]) is None  # none was found
    assert one_question.chosen([*lines, lines[4], lines[4]]) is None  # most is more than half
    assert "On 2 of the 4 test questions" in one_question.why(2, 4)


def compared(em, sha256="same"):
    entry = {"em": em, "ci95": {"em": [em - 0.1, em + 0.1]}, "recall_at_k": 0.8}
    asked = {"name": "animals", "split": "test", "n": 10, "sha256": sha256}
    return {"questions": asked, "k": 5, "methods": {"fid": entry}}


def test_the_landing_figure_shows_both_tables(tmp_path, monkeypatch):
    own, shared, shown = compared(0.6), compared(0.5), []

    def noted(*given):
        shown.append(given)
        return own_and_shared(*given)

    monkeypatch.setattr(landing, "own_and_shared", noted)
    (tmp_path / "results.json").write_text(json.dumps(own))
    (tmp_path / "same-weights.json").write_text(json.dumps(shared))
    path = landing.draw(tmp_path)
    # The methods' own training first; narrow, then wide.
    assert shown == [(own, shared, landing.NARROW), (own, shared)]
    assert (tmp_path / "landing-narrow.png").exists()
    assert path == tmp_path / "landing.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_tables_of_different_questions_are_not_drawn_together(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(compared(0.6)))
    (tmp_path / "same-weights.json").write_text(json.dumps(compared(0.5, "other")))
    with pytest.raises(ValueError, match="different questions"):
        landing.draw(tmp_path)
    assert not (tmp_path / "landing.png").exists()


def test_only_short_code_of_the_text_is_kept_on_one_line():
    option, entity, path = "--reader", "k=&lt;5", "book/experiments/" + 8 * "a"
    words = [f'<span class="pre">{word}</span>' for word in (option, entity, path)]
    signature = f'<span class="sig-name"><span class="pre">{option}</span></span>'
    page = f"<code>{' '.join(words)}</code>, <code>{words[0]}</code>{signature}"
    short = '<span class="pre short">'
    assert unbroken_code.with_short(page) == (
        f"<code>{short}{option}</span> {short}{entity}</span> {words[2]}</code>, "
        f"<code>{short}{option}</span></code>{signature}"
    )


def test_only_what_is_in_brackets_after_a_score_goes_below_it():
    cells = [
        Cell("67.4", "[65.1, 69.7]", "†", True),
        Cell("∞", "(2.27 on 56)"),
        Cell("94.5"),
        Cell("fid [large]"),
    ]
    table = Sheet(["EM", "NLL", "recall", "method"], [cells], "n = 4 [of 5]").html()
    assert "<td><b>67.4</b> [65.1, 69.7] †</td>" in table
    found = stacked_intervals.stacked(f"{table}<table><tr><td>1 [2]</td></tr></table>")
    assert [str(cell) for cell in BeautifulSoup(found, "html.parser").find_all("td")] == [
        "<td><b>67.4</b> †<br/>[65.1, 69.7]</td>",
        "<td>∞<br/>(2.27 on 56)</td>",
        "<td>94.5</td>",
        "<td>fid [large]</td>",
        "<td>1 [2]</td>",
    ]
    assert "n = 4 [of 5]" in found


def test_an_interval_stays_in_one_piece_where_a_cell_breaks():
    row = "<tr><th>recall [1, 2]</th><td>+1.6 [-0.3, +4.0] *</td><td>[a, b]</td></tr>"
    page = f"<p>1.6 [-0.3, 4.0]</p><table>{row}</table>"
    assert stacked_intervals.stacked(page) == page.replace("-0.3, +", "-0.3,\u00a0+").replace(
        "[1, 2]", "[1,\u00a02]"
    )

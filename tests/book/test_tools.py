"""The site's own Sphinx extensions, on small stand-ins for what Sphinx gives them."""

from types import SimpleNamespace

import light_pages

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

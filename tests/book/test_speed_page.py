"""The page on speed: its sentences, its figure and its table follow the stored numbers."""

import json
import re
from pathlib import Path

import pytest
import speed_page
from experiments import made, remake

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "benchmarks.md").read_text(encoding="utf-8")
STORED = json.loads((made.RESULTS / "benchmarks.json").read_text(encoding="utf-8"))
NAMES = {"slow": "one task", "fast": "another", "even": "a third", "more": "`a fourth`"}
(MAKING,) = made.chosen(made.makings(), ["benchmarks"])


def directive():
    """What the page calls each section."""
    (body,) = re.findall(r"```\{benchmarks\}\n(.*?)```", PAGE, re.S)
    return dict(line.split(": ", 1) for line in body.splitlines())


def seconds(value):
    return {"median": value, "ci95": [value, value]}


def section(ratios, found=0.0, peer="peer", versions=None, **machine):
    """A stored section whose peer takes two seconds."""
    sides = {
        side: {
            "cpu_seconds": seconds(2 * ratio[0]),
            "times_the_base": {"median": ratio[0], "ci95": list(ratio[1:])},
        }
        for side, ratio in {peer: (1.0, 1.0, 1.0), **ratios}.items()
    }
    return {
        "what": "7 inputs",
        "base": peer,
        "sides": sides,
        "rounds": 6,
        "difference": {"of": "scores", "found": found, "allowed": 1e-4},
        "versions": {"peer": "1.2"} if versions is None else versions,
        "machine": {
            "date": "2026-11-02",
            "processor": "Zeta",
            "threads": 1,
            "python": "3.11",
            "torch": "2.9",
            "ragbook": "0.1.0",
            **machine,
        },
        "command": "measure it",
    }


def told(**sections):
    return speed_page.sentences(speed_page.rows(sections, NAMES))


SLOW, FAST, EVEN = ((2.5, 2.25, 2.75), (0.0625, 0.05, 0.1), (1.125, 0.75, 1.25))


def test_slower_is_said_first_and_then_what_shows_no_difference():
    text = told(
        fast=section({"ragbook": FAST}),
        even=section({"ragbook": EVEN}),
        slow=section({"ragbook": SLOW}),
    )
    parts = text.split("\n\n")
    assert parts == [
        "**In 1 of 3 comparisons ragbook takes more CPU time than its peer:**",
        "* One task: 2.50 [2.25, 2.75] times the CPU time of peer 1.2.",
        "**In 1 of 3 comparisons the interval includes 1, so no difference is shown:**",
        "* A third: 1.12 [0.750, 1.25] times the CPU time of peer 1.2.",
        "**In 1 of 3 comparisons ragbook takes less CPU time than its peer:**",
        "* Another: 0.0625 [0.0500, 0.100] times the CPU time of peer 1.2.",
    ]


def test_other_numbers_bring_other_sentences():
    """The same comparison with its sides exchanged."""
    turned = tuple(1 / ratio for ratio in (SLOW[0], SLOW[2], SLOW[1]))
    text = told(slow=section({"ragbook": turned}))
    assert text.startswith("In no comparison is ragbook shown to be slower.")
    assert "takes less CPU time" in text
    assert "0.400 [0.364, 0.444] times" in text


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        ((1.1, 1.01, 1.2), "slower"),
        ((1.1, 1.0, 1.2), "no difference"),
        ((1.1, 1.0004, 1.2), "no difference"),  # what is shown includes 1
        ((0.9, 0.8, 0.9996), "no difference"),
        ((0.9, 0.8, 0.99), "faster"),
    ],
)
def test_a_verdict_is_what_the_shown_interval_says(ratio, verdict):
    (row,) = speed_page.rows({"slow": section({"ragbook": ratio})}, NAMES)
    assert row.verdict == verdict


def test_unequal_results_are_not_compared():
    stored = {
        "slow": section({"ragbook": SLOW}, found=0.5),
        "fast": section({"ragbook": FAST}, found=1e-4),
    }
    found = speed_page.rows(stored, NAMES)
    text = speed_page.sentences(found)
    assert "**In 1 of 2 comparisons the results of the two are not equal" in text
    assert "* One task: not equal (scores: 0.5)." in text
    assert "2.50" not in text
    assert "one task" not in repr(speed_page.figure(found))
    assert "equal (scores: 0.0001) |" in speed_page.table(found)


def test_no_section_is_needed():
    assert told() == "No comparison is stored yet."
    said = speed_page.missing([], NAMES.values())
    assert said == "**Not measured yet:** one task, another, a third and `a fourth`."
    assert speed_page.setups([]) == ""


def test_what_was_measured_on_which_processor_and_what_was_not_is_listed():
    stored = {"slow": section({"ragbook": SLOW}), "even": section({"ragbook": EVEN})}
    found = speed_page.rows(stored, NAMES)
    assert speed_page.missing(found, NAMES.values()) == (
        "**Not measured yet:** another and `a fourth`."
    )
    assert speed_page.setups(found) == (
        "All of this was measured on Zeta with 1 thread, Python 3.11, PyTorch 2.9 and ragbook "
        "0.1.0."
    )
    stored["even"] = section({"ragbook": EVEN}, processor="Eta", threads=2)
    stored |= {name: section({"ragbook": FAST}) for name in ("fast", "more")}
    found = speed_page.rows(stored, NAMES)
    said = speed_page.setups(found)
    assert "Measured on Eta with 2 threads, " in said
    assert "ragbook 0.1.0: one task, another and `a fourth`." in said
    assert speed_page.missing(found, NAMES.values()) == ""


def test_every_side_is_a_row_of_the_figure_and_the_table():
    stored = {
        "slow": section({"ragbook float32": SLOW, "ragbook bfloat16": FAST}, versions={"x": "3"}),
        "more": section({"ragbook": EVEN}, versions={}),
    }
    found = speed_page.rows(stored, NAMES)
    assert [row.label for row in found] == ["one task, float32", "one task, bfloat16", "`a fourth`"]
    assert [row.peer for row in found] == ["peer (x 3)", "peer (x 3)", "peer"]
    text = repr(speed_page.figure(found))
    assert "(log)" in text
    assert "{0: one task, float32, 1: one task, bfloat16, 2: a fourth}" in text
    assert "intervals 'ragbook is slower': (2.25, 0)-(2.75, 0)" in text
    assert "line 'ragbook is faster': x [0.062] y [1]" in text
    assert "intervals 'no difference is shown': (0.75, 2)-(1.25, 2)" in text
    assert "line: x [1, 1]" in text
    (axes,) = speed_page.figure(found[1:2]).figure.axes
    low, high = axes.get_xlim()
    assert low < FAST[1] < 1 < high  # the line is seen, whatever the ratios
    _, _, first, *_ = speed_page.table(found).splitlines()
    assert first == (
        "| One task, float32: 7 inputs | peer (x 3) | 2 | 5 | 2.50 [2.25, 2.75] | 6 "
        "| equal (scores: 0) |"
    )
    html = speed_page.picture(found)
    assert 'alt="Ratios with intervals. one task, float32: 2.50 [2.25, 2.75]; ' in html
    assert "data:image/png;base64," in html


def test_a_section_without_a_name_is_told():
    with pytest.raises(ValueError, match="names no section new and newer"):
        speed_page.rows({"new": {}, "newer": {}, "slow": {}}, NAMES)


def test_how_each_section_was_made_is_said_once():
    stored = {name: section({"ragbook": FAST}) for name in ("slow", "fast")}
    text = speed_page.made(speed_page.rows(stored, NAMES))
    assert text == ":::{div} origin\nStored: made by `measure it` on 2 November 2026.\n:::"
    stored["fast"]["command"] = "measure that"
    stored["fast"]["machine"]["date"] = "2026-11-05"
    text = speed_page.made(speed_page.rows(stored, NAMES))
    assert "made by 2 commands from 2 November 2026 to 5 November 2026</summary>" in text
    assert "* `measure that` on 5 November 2026" in text


# --- what is stored -------------------------------------------------------------------------------


def test_the_page_names_every_stored_section_and_every_one_a_script_keeps():
    names = directive()
    assert speed_page.rows(STORED, names)
    kept = set()
    for script in {step.split()[1] for step in MAKING.steps}:
        source = (ROOT / script).read_text(encoding="utf-8")
        kept |= {
            re.sub(r"\{.*?\}", "*", key) for key in re.findall(r'keep\(store, f?"(.+?)"', source)
        }
    patterns = {key: re.compile(re.escape(key).replace(r"\*", ".+")) for key in kept}
    assert len(patterns) > 6
    for key, pattern in patterns.items():
        assert any(pattern.fullmatch(name) for name in names), key
    for name in names:
        assert any(pattern.fullmatch(name) for pattern in patterns.values()), name


def test_what_is_stored_has_enough_rounds_equal_results_and_a_command_that_makes_it():
    for name, stored in STORED.items():
        assert stored["rounds"] >= 6, name
        assert stored["machine"]["threads"] == 1, name  # as the page says
        assert len(stored["sides"]) > 1, name
        difference = stored["difference"]
        assert difference is None or difference["found"] <= difference["allowed"], name
        script = stored["command"].split()[1]
        assert any(step.split()[1] == script for step in MAKING.steps), name
        assert stored["machine"]["date"] <= MAKING.files["benchmarks.json"]["date"], name


def test_every_step_stores():
    assert all(step.endswith(" --store book/results/benchmarks.json") for step in MAKING.steps)


def test_another_machine_makes_no_difference_when_it_is_made_again():
    one = {"slow": section({"ragbook": SLOW})}
    other = {"slow": section({"ragbook": FAST}, processor="Eta", versions={"peer": "1.3"})}
    other["slow"]["machine"]["date"] = "2026-12-24"
    assert list(remake.differences(one, other)) == []
    other["slow"]["rounds"] = 7
    assert [where for where, *_ in remake.differences(one, other)] == ["slow / rounds"]

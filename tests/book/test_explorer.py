"""The explorer of the stored comparison, opened from the disk and used: mouse, keys, addresses."""

import gzip
import json
from pathlib import Path

import pytest

from ragbook import explorer
from ragbook.corpus import load_corpus, load_questions
from ragbook.evaluation.errors import MEANINGS
from ragbook.evaluation.names import EVIDENCE
from tests.book.browser import browse, needs_browser, report_of, with_script

RESULTS = Path(__file__).resolve().parents[2] / "book" / "results"
with gzip.open(RESULTS / "predictions.jsonl.gz", "rt", encoding="utf-8") as lines:
    LINES = [json.loads(line) for line in lines]
QUESTIONS = load_questions("miniwiki", "test")

READY = """
    const root = await until(() => document.querySelector('#explorer[data-ready]'));
    const links = () => [...root.querySelectorAll('.explorer-list a')];
    const counted = () => Number(root.querySelector('.explorer-count').textContent.split(' ')[0]);
    const set = (name, value) => {
      const field = document.getElementById('explorer-' + name);
      field.value = value;
      field.dispatchEvent(new Event(field.tagName === 'INPUT' ? 'input' : 'change'));
      return counted();
    };
    const press = (key) => document.activeElement.dispatchEvent(
      new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    const chosen = (text) => until(() => {
      const heading = document.getElementById('explorer-question');
      return heading?.textContent === text && heading;
    });
    const cards = () => Object.fromEntries([...root.querySelectorAll('.explorer-method')].map(
      (card) => [card.dataset.method, {
        right: card.classList.contains('right'),
        text: card.querySelector('.explorer-answer').textContent,
        weights: [...card.querySelectorAll('.explorer-weights a')].map((a) => a.innerText),
        measure: card.querySelector('.explorer-measure')?.textContent,
      }]));
    const wide = () => document.documentElement.scrollWidth;
"""

pytestmark = needs_browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("explorer")
    explorer.write(out, LINES, load_corpus("miniwiki"), QUESTIONS)
    return out


def use(folder, tmp_path, script, address="", width=1280):
    """What the script found on the page, opened from the disk; nothing was written to the console
    and nothing was asked of a network."""
    copy = with_script(folder / "explorer.html", "probe.html", READY + script)
    document, console = browse(f"{copy.as_uri()}{address}", tmp_path, width)
    found = report_of(document)
    assert "error" not in found, found
    assert console == ""
    return found


def test_a_question_is_found_chosen_and_seen(folder, tmp_path):
    line = LINES[1]
    found = use(
        folder,
        tmp_path,
        f"""
        const all = counted();
        const some = set('find', {json.dumps(line["answers"][0].upper())});
        set('find', {json.dumps(line["question"])});
        links()[0].click();
        await chosen({json.dumps(line["question"])});
        return {{all, some, one: counted(), cards: cards(), hash: location.hash,
                 marks: [...root.querySelectorAll('mark')].map((m) => m.textContent)}};
        """,
    )
    assert found["all"] == len(LINES)
    assert 1 <= found["some"] < found["all"]
    assert found["one"] == 1
    assert set(found["cards"]) == set(line["methods"])
    for name, entry in line["methods"].items():
        card = found["cards"][name]
        assert (card["text"], card["right"]) == (entry["text"], bool(entry["em"]))
        assert len(card["weights"]) == len(entry["evidence"])
        measure = f"weights: {EVIDENCE[name]}" if entry["evidence"] else None
        if name != "rag-token":  # which of its two depends on when it was stored
            assert card.get("measure") == measure
        heaviest = max((e["weight"] for e in entry["evidence"]), default=None)
        if heaviest is not None:
            # The page has four digits of a weight.
            assert f"{100 * round(heaviest, 4):.1f} %" in card["weights"][0]
    assert f"q={explorer.question_id(line['question'])}" in found["hash"]
    assert line["answers"][0] in found["marks"]


def test_where_each_token_came_from_is_shown(folder, tmp_path):
    """RAG-Token's, with the passages in the order of the answer's weights."""
    line = max(LINES[:50], key=lambda one: len(one["methods"]["rag-token"]["token_evidence"]))
    entry = line["methods"]["rag-token"]
    found = use(
        folder,
        tmp_path,
        """
        const table = root.querySelector('[data-method=rag-token] .explorer-table');
        return [...table.querySelectorAll('tbody tr')].map(
          (row) => [...row.children].map((cell) => cell.textContent));
        """.replace("const table", f"await chosen({json.dumps(line['question'])}); const table", 1),
        f"#q={explorer.question_id(line['question'])}",
    )
    order = [e["passage_id"] for e in sorted(entry["evidence"], key=lambda e: -e["weight"])]
    tokens = [one["token"] for one in entry["token_evidence"]]
    assert [row[0] for row in found] == [*tokens[:-1], "(end)"]
    for row, one in zip(found, entry["token_evidence"], strict=True):
        shares = [round(one["weights"][i], 3) for i in order]
        assert row[1:] == [f"{100 * share:.1f}" for share in shares]


def test_filters_count_as_the_predictions_do(folder, tmp_path):
    kinds = {q.text: q.kind for q in QUESTIONS}
    em = {name: [line["methods"][name]["em"] for line in LINES] for name in LINES[0]["methods"]}
    readers = [name for name in em if name != "closed-book"]
    found = use(
        folder,
        tmp_path,
        """
        const out = {};
        out.type = set('type', 'two-passage'); set('type', '');
        out.right = set('realm', 'right');
        out.both = set('fid', 'wrong');
        out.address = location.hash;
        root.querySelector('form button').click();
        out.cleared = counted();
        out.none = set('answers', 'none');
        out.split = set('answers', 'split'); set('answers', '');
        out.missed = set('gold', 'missed');
        return out;
        """,
    )
    assert found["type"] == sum(kinds[line["question"]] == "two-passage" for line in LINES)
    assert found["right"] == sum(em["realm"])
    both = [r and not f for r, f in zip(em["realm"], em["fid"], strict=True)]
    assert found["both"] == sum(both)
    assert found["address"] == "#realm=right&fid=wrong"
    assert found["cleared"] == len(LINES)
    right = [sum(em[name][i] for name in readers) for i in range(len(LINES))]
    assert found["none"] == right.count(0)
    assert found["split"] == sum(0 < count < len(readers) for count in right)
    missed = [  # by every method, as some search with a question tower of their own
        all(
            line["gold_passage"] != e["passage_id"]
            for entry in line["methods"].values()
            for e in entry["evidence"]
        )
        for line in LINES
    ]
    assert found["missed"] == sum(missed)


def test_answers_are_found_by_what_is_wrong_with_them(tmp_path):
    """As it is with the predictions of before, which have no kinds: right and wrong only."""
    lines = [json.loads(json.dumps(line)) for line in LINES[:40]]
    for at, line in enumerate(lines):
        for entry in line["methods"].values():
            entry["error"] = "exact" if entry["em"] else ("cut", "same-passage")[at % 2]
    kinds = [line["methods"]["fid"]["error"] for line in lines]
    first = lines[kinds.index("same-passage")]
    script = f"""
        const options = [...document.getElementById('explorer-fid').options].map((o) => o.value);
        const all = counted();
        const cut = set('fid', 'cut');
        const same = set('fid', 'same-passage');
        const address = location.hash;
        if (same !== all) links()[0].click();
        else return {{options, all}};
        await chosen({json.dumps(first["question"])});
        const verdict = root.querySelector('[data-method=fid] .explorer-wrong');
        return {{options, all, cut, same, address, verdict: verdict.textContent,
                 title: verdict.title}};
        """
    for name, given in (("now", lines), ("before", LINES[:40])):
        given = [
            line | {"methods": {
                m: {k: v for k, v in e.items() if name == "now" or k != "error"}
                for m, e in line["methods"].items()
            }}
            for line in given
        ]  # fmt: skip
        explorer.write(tmp_path / name, given, load_corpus("miniwiki"), QUESTIONS)
        found = use(tmp_path / name, tmp_path / f"{name}-profile", script)
        assert found["all"] == 40
        if name == "before":
            assert found["options"] == ["", "right", "wrong"]
            continue
        assert found["options"] == ["", "right", "wrong", "cut", "same-passage"]
        assert (found["cut"], found["same"]) == (kinds.count("cut"), kinds.count("same-passage"))
        assert found["address"] == "#fid=same-passage"
        assert found["verdict"] == "✗ same passage"
        assert found["title"] == MEANINGS["same-passage"]


def test_a_question_without_a_known_answer_is_shown_unmarked(tmp_path):
    lines = [json.loads(json.dumps(line)) for line in LINES[:3]]
    lines[1]["answers"] = []
    for entry in lines[1]["methods"].values():
        entry |= dict.fromkeys(("em", "f1", "contains", "error"))
    explorer.write(tmp_path / "explorer", lines, load_corpus("miniwiki"), QUESTIONS)
    found = use(
        tmp_path / "explorer",
        tmp_path,
        f"""
        const right = set('fid', 'right'), wrong = set('fid', 'wrong');
        set('fid', '');
        const none = set('answers', 'none');
        set('answers', '');
        const marks = links()[1].querySelector('.explorer-marks');
        links()[1].click();
        await chosen({json.dumps(lines[1]["question"])});
        return {{right, wrong, none, marks: [marks.textContent, marks.title], cards: cards(),
                 classes: root.querySelector('[data-method=fid]').className,
                 sure: root.querySelector('[data-method=fid] .explorer-sure').textContent,
                 said: root.querySelector('#explorer-question + p').textContent,
                 found: root.querySelectorAll('mark').length}};
        """,
    )
    known = [lines[0], lines[2]]
    assert found["right"] == sum(line["methods"]["fid"]["em"] for line in known)
    assert found["wrong"] == 2 - found["right"]
    readers = [name for name in lines[0]["methods"] if name != "closed-book"]
    assert found["none"] == sum(
        not any(line["methods"][name]["em"] for name in readers) for line in known
    )
    assert found["marks"] == ["·" * len(lines[0]["methods"]), "right: not known"]
    assert found["classes"].strip() == "explorer-method"
    assert found["said"].startswith("No answer is known")
    assert "F1" not in found["sure"]
    assert found["found"] == 0
    for name, entry in lines[1]["methods"].items():
        assert found["cards"][name]["text"] == (entry["text"] or "(nothing)")


def test_an_address_brings_back_what_was_seen(folder, tmp_path):
    at = next(i for i, line in enumerate(LINES) if i > 200 and not line["methods"]["fid"]["em"])
    address = f"#q={explorer.question_id(LINES[at]['question'])}&fid=wrong&find=the"
    found = use(
        folder,
        tmp_path,
        f"""
        await chosen({json.dumps(LINES[at]["question"])});
        const address = location.hash;
        const first = [document.getElementById('explorer-find').value,
                       document.getElementById('explorer-fid').value];
        location.hash = '#q=' + {json.dumps(explorer.question_id(LINES[0]["question"]))};
        await chosen({json.dumps(LINES[0]["question"])});
        const second = [document.getElementById('explorer-find').value, counted()];
        location.hash = address;
        await chosen({json.dumps(LINES[at]["question"])});
        location.hash = '#q=00000000';
        const lost = await until(() => root.textContent.includes('not here'));
        return {{first, second, lost}};
        """,
        address,
    )
    assert found["first"] == ["the", "wrong"]
    assert found["second"] == ["", len(LINES)]
    assert found["lost"]


def test_a_question_is_open_before_one_is_chosen(folder, tmp_path):
    """The first; the one that was asked for, if the filters of the address let it through."""
    script = """
        const current = links().filter((link) => link.getAttribute('aria-current'));
        return {text: document.getElementById('explorer-question')?.textContent,
                said: root.lastChild.textContent, hash: location.hash,
                current: current.map((link) => link.firstChild.textContent)};
        """
    first = use(folder, tmp_path, script)
    assert (first["text"], first["hash"]) == (LINES[0]["question"], "")
    assert first["current"] == [LINES[0]["question"]]
    wanted = next(line for line in LINES[60:] if line["methods"]["fid"]["em"])["question"]
    wrong = next(line for line in LINES if not line["methods"]["fid"]["em"])["question"]
    for name, text in (("asked", wanted), ("unknown", "Is this one of them?")):
        explorer.write(tmp_path / name, LINES, load_corpus("miniwiki"), QUESTIONS, first=text)
    for name, address, text in (
        ("asked", "", wanted),
        ("asked", "#fid=wrong", wrong),
        ("unknown", "", LINES[0]["question"]),
    ):
        found = use(tmp_path / name, tmp_path / f"{name}{address[1:]}-profile", script, address)
        assert found["text"] == text
    none = use(folder, tmp_path, script, "#find=no-question-has-this")
    assert none["said"] == "No question matches the filters."


@pytest.mark.parametrize("width", [500, 1280])
def test_a_method_is_named_above_its_marks(folder, tmp_path, width):
    found = use(
        folder,
        tmp_path,
        """
        const left = (row) => [...row.querySelectorAll('.explorer-marks span')].map(
          (each) => Math.round(each.getBoundingClientRect().left));
        const heads = root.querySelector('.explorer-heads');
        return {heads: left(heads), marks: left(links()[3]),
                names: [...heads.querySelectorAll('[title]')].map((each) => each.textContent)};
        """,
        width=width,
    )
    assert found["names"] == list(LINES[0]["methods"])
    assert found["heads"] == found["marks"]


def test_keys_are_enough(folder, tmp_path):
    """From the search field down the list and up again; one stop of the tab key for all of it."""
    found = use(
        folder,
        tmp_path,
        """
        const field = document.getElementById('explorer-find');
        field.focus();
        press('ArrowDown');
        const first = document.activeElement === links()[0];
        press('ArrowDown'); press('ArrowDown');
        const third = document.activeElement === links()[2];
        press('End');
        const last = document.activeElement === links().at(-1);
        press('Home'); press('ArrowUp');
        const back = document.activeElement === field;
        const stops = links().filter((link) => link.tabIndex === 0).length;
        const third_text = links()[2].firstChild.textContent;
        links()[2].click(); // what Enter does on a link
        const heading = await chosen(third_text);
        await until(() => document.activeElement === heading);
        const buttons = [...root.querySelectorAll('.explorer-steps button')];
        const text = heading.textContent;
        buttons[1].click();
        await until(() => document.getElementById('explorer-question').textContent !== text);
        const unnamed = [...root.querySelectorAll('input, select')].filter((f) => !f.labels.length);
        return {first, third, last, back, stops, unnamed: unnamed.length,
                next: document.getElementById('explorer-question').textContent};
        """,
    )
    assert found == {
        "first": True,
        "third": True,
        "last": True,
        "back": True,
        "stops": 1,
        "unnamed": 0,
        "next": LINES[3]["question"],
    }


@pytest.mark.parametrize("width", [500, 1280])
def test_nothing_is_wider_than_the_screen(folder, tmp_path, width):
    """500 pixels are the narrowest window that Chromium opens; a phone's 340 are put inside it. The
    answers are one row there too, which scrolls."""
    found = use(
        folder,
        tmp_path,
        """
        const sixth = links()[5].firstChild.textContent;
        links()[5].click();
        await chosen(sixth);
        const shown = {page: wide(), window: innerWidth};
        const narrow = document.getElementById('explorer');
        narrow.style.width = '340px';
        await new Promise((done) => setTimeout(done, 100));
        const edge = narrow.getBoundingClientRect().right;
        const row = narrow.querySelector('.explorer-methods');
        const over = [...narrow.querySelectorAll('*')].filter(
          (e) => e.parentElement.closest('.explorer-methods') !== row &&
            e.getBoundingClientRect().right > edge + 1);
        const tops = new Set([...row.children].map((e) => e.getBoundingClientRect().top));
        const scrolls = getComputedStyle(row).overflowX;
        const begins = over.map((e) => e.outerHTML.slice(0, 80));
        return {...shown, rows: tops.size, scrolls, over: begins};
        """,
        width=width,
    )
    assert found["page"] <= found["window"]
    assert not found["over"]
    assert found["rows"] == 1
    assert found["scrolls"] == "auto"


def test_what_is_not_there_is_said(folder, tmp_path):
    copy = tmp_path / "lost"
    explorer.write(copy, LINES[:30], load_corpus("miniwiki"), QUESTIONS)
    (copy / "answers-1.js").unlink()
    page = with_script(
        copy / "explorer.html",
        "probe.html",
        READY
        + "return {alert: (await until(() => root.querySelector('[role=alert]'))).innerText};",
    )
    address = f"{page.as_uri()}#q={explorer.question_id(LINES[29]['question'])}"
    document, _ = browse(address, tmp_path / "profile")
    assert report_of(document)["alert"] == "answers-1.js is not beside this page."

"""The live page in a real browser: asking, controls, passages changed by hand, addresses, keys."""

import copy
import json
import re
import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from ragbook.serve.asking import Ask
from tests.book.browser import needs_browser
from tests.book.chromium import chromium
from tests.serve.conftest import PASSAGES, Slow, serving

pytestmark = needs_browser

QUESTION = "Which river passes Vienna?"
READY = "document.querySelector('#explorer[data-ready]') !== null"
DONE = "document.querySelector('[role=status]').textContent.startsWith('All have answered')"
BUSY = "document.querySelector('section').hasAttribute('aria-busy')"
CARDS = """Object.fromEntries([...document.querySelectorAll('.explorer-method')].map((card) =>
    [card.dataset.method, card.querySelector('.explorer-answer')?.textContent]))"""
TEXT = "document.querySelector('#explorer').innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser, address):
    """The page, before anything is asked; nothing may have been written to the console."""
    opened = browser.page()
    opened.open(address)
    opened.until(READY)
    yield opened
    assert opened.said() == []


def told(engine, **ask) -> dict:
    """The answers' texts as the engine gives them, by method."""
    events = engine.answers(Ask(ask.pop("question", QUESTION), **ask))
    return {e["method"]: e["text"] or "(nothing)" for e in events if e["event"] == "answer"}


def see(page, address, **state):
    """Open the page at a state and wait for the answers."""
    page.open("about:blank")
    page.open(f"{address}#{urlencode({'q': QUESTION} | state, doseq=True)}")
    page.until(f"{READY} && {DONE}")


def settled(page):
    """Wait until what was just changed has been answered."""
    page.until(f"{BUSY} || true")
    page.until(f"!({BUSY}) && {DONE}")


def put(page, field, value):
    """Write a value into a control as a person does: choose all of it and write."""
    found = f"document.getElementById('explorer-{field}')"
    page.run(f"(() => {{ const f = {found}; f.focus(); f.select(); }})()")
    page.write(value)


def state_of(page) -> dict:
    return parse_qs(urlsplit(page.run("location.href")).fragment, keep_blank_values=True)


def test_a_question_is_asked_and_every_method_answers(page, engine):
    page.click("#explorer-q")
    page.write(QUESTION)
    page.click(".explorer-ask")
    page.until(DONE)
    assert page.run(CARDS) == told(engine)
    assert page.run("document.getElementById('explorer-question').textContent") == QUESTION
    assert [p["title"] for p in page.run(
        "[...document.querySelectorAll('.explorer-passage h4')].map((h) => ({title: "
        "h.firstChild.textContent.trim()}))"
    )] == [f"{i}. {p.title}" for i, p in enumerate(PASSAGES[:3], 1)]  # fmt: skip
    assert state_of(page) == {"q": [QUESTION]}
    weights = page.run(
        "Object.fromEntries([...document.querySelectorAll('.explorer-method')].map((card) =>"
        " [card.dataset.method, card.querySelectorAll('.explorer-weights li').length]))"
    )
    assert weights == {name: 0 if name == "closed-book" else 3 for name in weights}
    assert QUESTION in page.run("document.title")


def test_what_is_behind_each_answer_is_shown(page, address, engine):
    see(page, address, answer="Danube")
    events = list(engine.answers(Ask(QUESTION, typed="Danube")))
    detail = {e["method"]: e for e in events if e["event"] == "detail"}
    summaries = page.run(
        "Object.fromEntries([...document.querySelectorAll('.explorer-more')].map((d) =>"
        " [d.closest('article').dataset.method, d.querySelector('summary').textContent]))"
    )
    assert summaries == {
        "closed-book": "Probability of each token",
        "knn-lm": "Model, neighbours and their mixture",
        "realm": "Its likeliest spans",
        "rag-token": "Where each token came from, in %",
    }
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    rows = page.run(
        "[...document.querySelectorAll('[data-method=knn-lm] tbody tr')].map((r) =>"
        " [...r.children].map((c) => c.textContent))"
    )
    tokens = detail["knn-lm"]["tokens"]
    assert [row[0] for row in rows] == [one["token"] for one in tokens]
    for row, one in zip(rows, tokens, strict=True):
        for cell, value in zip(
            row[1:], (one["model"], one["memory"], one["probability"]), strict=True
        ):
            small = 0 < value < 0.0005
            assert cell == ("<0.1 %" if small else f"{100 * value:.1f} %")
    spans = page.run(
        "[...document.querySelectorAll('.explorer-spans a')].map((a) =>"
        " a.firstChild.textContent.trim())"
    )
    assert spans == [one["text"].strip() for one in detail["realm"]["spans"]]
    assert "“Danube”: probability" in page.run(TEXT)
    loo = page.run("document.querySelector('[data-method=fid] .explorer-weights').textContent")
    assert loo.count("without it") == 3


def test_spans_are_marked_in_the_passages_text(page, address, engine):
    see(page, address)
    spans = next(e["spans"] for e in engine.answers(Ask(QUESTION)) if "spans" in e)
    marks = page.run(
        "[...document.querySelectorAll('.explorer-passage')].map((p) =>"
        " [...p.querySelectorAll('mark')].map((m) => [m.firstChild.textContent, m.textContent]))"
    )
    best = spans[0]
    at = [p.id for p in PASSAGES].index(best["passage_id"])
    assert any(
        text == best["text"] and whole.endswith(f"{100 * best['probability']:.1f} %")
        for text, whole in marks[at]
    )
    texts = page.run(
        "[...document.querySelectorAll('.explorer-passage > p')].map((p) => { const c ="
        " p.cloneNode(true); c.querySelectorAll('small').forEach((s) => s.remove());"
        " return c.textContent; })"
    )
    assert texts == [p.text for p in PASSAGES[:3]]  # marking has changed no letter


def test_controls_ask_again_by_themselves(page, address, engine):
    see(page, address)
    put(page, "k", "1")
    page.until("document.querySelectorAll('.explorer-passage').length === 1")
    settled(page)
    assert page.run(CARDS) == told(engine, k=1)
    page.run(
        "(() => { const f = document.getElementById('explorer-retriever'); f.value = 'backwards';"
        " f.dispatchEvent(new Event('change')); })()"
    )
    page.until("document.querySelector('.explorer-passage h4').textContent.includes('Vistula')")
    settled(page)
    assert page.run(CARDS) == told(engine, k=1, retriever="backwards")
    page.click("#explorer-free")
    put(page, "beams", "4")
    put(page, "lambda", "0.9")
    put(page, "temperature", "2")
    page.until("location.hash.includes('temperature=2')")
    settled(page)
    assert page.run(CARDS) == told(
        engine, k=1, retriever="backwards", free=True, beams=4, lam=0.9, temperature=2.0
    )
    assert state_of(page) == {
        "q": [QUESTION], "k": ["1"], "retriever": ["backwards"], "free": ["1"], "beams": ["4"],
        "lambda": ["0.9"], "temperature": ["2"],
    }  # fmt: skip
    put(page, "k", "99")
    page.until("document.querySelector('[role=status]').textContent.startsWith('Passages (k): ')")


def test_a_passage_is_struck_out_and_put_back(page, address, engine):
    see(page, address)
    before = page.run(CARDS)
    page.click("#explorer-passage-0 button")
    page.until("document.querySelector('#explorer-passage-0.struck') !== null")
    settled(page)
    assert page.run(CARDS) == told(engine, struck=("p0",))
    assert state_of(page)["strike"] == ["p0"]
    button = "document.querySelector('#explorer-passage-0 button')"
    assert page.run(f"{button}.textContent") == "Put back"
    assert page.run(f"document.activeElement === {button}")  # the new one, where the old one was
    page.click("#explorer-passage-0 button")
    page.until("document.querySelector('.struck') === null")
    settled(page)
    assert page.run(CARDS) == before
    assert "strike" not in state_of(page)


def test_a_passage_is_edited_and_the_edit_undone(page, address, engine):
    see(page, address)
    page.click("#explorer-passage-1 [data-key^='edit']")
    page.until("document.activeElement.tagName === 'TEXTAREA'")
    page.run("document.activeElement.select()")
    said = "It flows through Oslo, not <script>alert(1)</script>."
    page.write(said)
    page.click("[data-key^='apply']")
    page.until("document.querySelector('#explorer-passage-1 > p')?.innerText.includes('Oslo')")
    settled(page)
    assert page.run(CARDS) == told(engine, edited={"p1": said})
    assert state_of(page)["text:p1"] == [said]
    assert "edited" in page.run("document.querySelector('#explorer-passage-1 h4').textContent")
    page.click("[data-key^='undo']")
    page.until("document.querySelector('#explorer-passage-1').innerText.includes('Basel')")
    settled(page)
    assert page.run(CARDS) == told(engine)
    assert "text:p1" not in state_of(page)


def test_a_draft_outlives_what_is_drawn_meanwhile(page, address):
    see(page, address)
    page.click("#explorer-passage-1 [data-key^='edit']")
    page.until("document.activeElement.tagName === 'TEXTAREA'")
    page.run("document.activeElement.select()")
    page.write("A draft.")
    page.run("document.getElementById('explorer-k').value = 2;"
             "document.getElementById('explorer-k').dispatchEvent(new Event('input'))")  # fmt: skip
    page.until("location.hash.includes('k=2')")
    settled(page)
    assert page.run("document.querySelector('textarea').value") == "A draft."
    assert page.run("document.activeElement.tagName") == "TEXTAREA"


def test_an_address_brings_back_the_whole_view(page, address, engine):
    see(
        page, address,
        **{"k": 2, "retriever": "backwards", "lambda": 0.25, "temperature": 4, "beams": 1,
           "free": 1, "answer": "Elbe", "strike": ["p3"], "text:p2": "Only Magdeburg."},
    )  # fmt: skip
    asked = {"k": 2, "retriever": "backwards", "lam": 0.25, "temperature": 4.0, "beams": 1,
             "free": True, "struck": ("p3",), "edited": {"p2": "Only Magdeburg."}}  # fmt: skip
    assert page.run(CARDS) == told(engine, **asked)
    first = page.run(TEXT.replace("innerText", "querySelector('section').innerText"))
    where = page.run("location.href")
    copied = page.run(
        "new Promise((done) => { Object.defineProperty(navigator, 'clipboard', {value: {writeText:"
        " async (text) => done(text)}}); [...document.querySelectorAll('button')].find((b) =>"
        " b.textContent === 'Copy all as JSON').click(); })"
    )
    value = json.loads(copied)
    assert value["question"] == QUESTION
    assert (value["k"], value["lam"], value["struck"]) == (2, 0.25, ["p3"])
    assert {n: e["text"] or "(nothing)" for n, e in value["methods"].items()} == page.run(CARDS)
    assert value["command"].startswith("ragbook ask --k 2 --retriever backwards --beams 1 --free")
    page.open("about:blank")
    page.open(where)
    page.until(f"{READY} && {DONE}")

    def without_times(text):
        return re.sub(r"\d+\.\d\d s\b", "", text)

    second = page.run(TEXT.replace("innerText", "querySelector('section').innerText"))
    assert without_times(second) == without_times(first)


def test_the_browsers_history_goes_back_to_the_question_before(page, address):
    see(page, address)
    put(page, "q", "Where is Hamburg?")
    page.press("Enter")
    page.until("document.getElementById('explorer-question').textContent === 'Where is Hamburg?'")
    settled(page)
    page.run("history.back()")
    page.until(f"document.getElementById('explorer-question').textContent === {QUESTION!r}")
    settled(page)
    assert page.run("document.getElementById('explorer-q').value") == QUESTION


def focused(page) -> str:
    return page.run(
        "(() => { const e = document.activeElement; return e.dataset.key ?? e.id ?? e.tagName; })()"
    )


def tab_to(page, wanted, most=80) -> None:
    for _ in range(most):
        if focused(page).startswith(wanted):
            return
        page.press("Tab")
    raise AssertionError(f"no {wanted} among {most} stops of the tab key")


def test_keys_are_enough(page, engine):
    tab_to(page, "explorer-q", 3)
    page.write(QUESTION)
    page.press("Enter")
    page.until(DONE)
    tab_to(page, "explorer-k")
    page.press("ArrowDown")
    page.until("document.querySelectorAll('.explorer-passage').length === 2")
    settled(page)
    assert focused(page) == "explorer-k"
    tab_to(page, "knn-lm 2")  # the summary is among its stops
    for _ in range(8):
        if page.run("document.activeElement.tagName") == "SUMMARY":
            break
        page.press("Tab")
    page.press("Enter")
    page.until("document.querySelector('[data-method=knn-lm] details').open")
    tab_to(page, "strike p0")
    outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.press(" ")
    page.until("document.querySelector('.struck') !== null")
    settled(page)
    assert focused(page) == "strike p0"
    assert page.run("document.querySelector('[data-method=knn-lm] details').open")  # as it was left
    tab_to(page, "edit p1")
    page.press("Enter")
    page.until("document.activeElement.tagName === 'TEXTAREA'")
    page.press("End")
    page.write(" So it is.")
    page.press("Tab")
    assert focused(page) == "apply p1"
    page.press("Enter")
    page.until("document.querySelector('#explorer-passage-1 > p')?.innerText.includes('So it is.')")
    settled(page)
    assert state_of(page)["strike"] == ["p0"]
    unnamed = page.run(
        "[...document.querySelectorAll('input, select, textarea')].filter((f) =>"
        " !f.labels.length && !f.ariaLabel).length"
    )
    assert unnamed == 0


def test_a_screen_reader_hears_each_answer(browser, address, engine):
    page = browser.page()
    page.open(address)
    page.until(READY)
    assert page.run("document.querySelector('[role=status]').ariaLive") == "polite"
    page.run(
        "self.heard = []; new MutationObserver(() => heard.push(document.querySelector("
        "'[role=status]').textContent)).observe(document.querySelector('[role=status]'),"
        " {childList: true, characterData: true, subtree: true})"
    )
    put(page, "q", QUESTION)
    page.press("Enter")
    page.until(DONE)
    heard = " ".join(page.run("heard"))
    for number, name in enumerate(told(engine), 1):
        assert f"{name} answers: " in heard
        assert f"{number} of 7." in heard


CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) =>
    v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      layers.push(parse(getComputedStyle(e).backgroundColor));
    }
    let colour = [255, 255, 255];
    for (const [r, g, b, a = 1] of layers.reverse()) {
      colour = [r, g, b].map((v, i) => v * a + colour[i] * (1 - a));
    }
    return colour;
  };
  const low = [];
  for (const element of document.querySelectorAll('#explorer *')) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([ratio.toFixed(2), element.outerHTML.slice(0, 90)]);
  }
  return low;
})()"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_screen_and_can_be_read(browser, address, width, dark):
    page = browser.page(width, 844, dark)
    see(page, address, answer="Elbe", strike=["p1"])
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.click("[data-key^='edit']")
    assert page.run("document.documentElement.scrollWidth") <= width
    over = page.run(
        "[...document.querySelectorAll('#explorer *')].filter((e) =>"
        " !e.closest('.explorer-table') && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert over == []
    assert page.run(CONTRAST) == []
    background = page.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 24, 30)") is dark
    small = page.run(
        "[...document.querySelectorAll('button, input, select')].filter((e) => {"
        " const r = e.getBoundingClientRect(); return Math.min(r.width, r.height) < 20;"
        " }).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert small == []
    assert page.said() == []


def test_texts_are_never_markup(browser, engine):
    """In the question, in a title (there is one in the passages) and in a passage."""
    evil = "<img src=x onerror=\"document.title='taken'\"> <script>document.title='taken'</script>"
    with serving(engine) as (address, _):
        page = browser.page()
        see(page, address, q=evil, answer=evil, **{"text:p0": evil})
        assert page.run("document.getElementById('explorer-question').textContent") == evil
        assert page.run("document.querySelector('#explorer-passage-0 > p').textContent").startswith(
            "<img src=x"
        )
        assert "<b>Rhine</b>" in page.run(
            "document.querySelector('#explorer-passage-1 h4').textContent"
        )
        assert page.run("document.querySelectorAll('#explorer :is(img, script, i)').length") == 0
        assert "taken" not in page.run("document.title").replace(evil, "")
        assert page.said() == []


def test_two_people_ask_at_once(browser, address, engine):
    pages = [browser.page() for _ in range(2)]
    questions = ["Where is Hamburg?", "Which river passes Basel?"]
    for page, question in zip(pages, questions, strict=True):
        page.open(f"{address}#{urlencode({'q': question})}")
    for page, question in zip(pages, questions, strict=True):
        page.until(f"{READY} && {DONE}")
        assert page.run(CARDS) == told(engine, question=question)


def test_a_server_that_stops_and_comes_back(browser, engine):
    with serving(engine) as (address, _):
        page = browser.page()
        see(page, address)
        port = urlsplit(address).port
    put(page, "k", "2")
    page.until("document.querySelector('[role=status]').textContent.includes('does not answer')")
    assert page.run(CARDS) == told(engine)  # what was seen is still there
    assert port
    with serving(engine, port):
        page.click("[role=status] button")
        page.until("document.querySelectorAll('.explorer-passage').length === 2")
        settled(page)
        assert page.run(CARDS) == told(engine, k=2)


def test_who_asks_too_much_at_once_is_told_to_come_again(browser, engine):
    with serving(engine, waiting=0) as (address, line):
        page = browser.page()
        page.open(address)
        page.until(READY)
        line.closed = True  # as full as a line can be
        put(page, "q", QUESTION)
        page.press("Enter")
        page.until("document.querySelector('[role=status]').textContent.includes('try again')")
        line.closed = False
        page.click("[role=status] button")
        page.until(DONE)
        assert page.run(CARDS) == told(engine)


def test_who_waits_is_told_the_place(browser, engine):
    slow = Slow()
    patient = copy.copy(engine)
    patient.answers = slow.answers
    with serving(patient) as (address, line):
        pages = [browser.page() for _ in range(3)]
        for number, page in enumerate(pages, 1):
            page.open(f"{address}#{urlencode({'q': QUESTION})}")
            page.until(READY)
            while len(line) < number:
                time.sleep(0.02)
        said = "document.querySelector('[role=status]').textContent"
        pages[1].until(f"{said} === 'One question is before yours.'")
        pages[2].until(f"{said} === '2 questions are before yours.'")
        pages[1].open("about:blank")  # this one leaves
        pages[2].until(f"{said} === 'One question is before yours.'")
        slow.go.set()


def test_a_server_that_is_killed_while_it_answers(browser, engine):
    slow = Slow()
    patient = copy.copy(engine)
    patient.answers = slow.answers
    with serving(patient) as (address, line):
        page = browser.page()
        page.open(f"{address}#{urlencode({'q': QUESTION})}")
        page.until(READY)
        while not len(line):
            time.sleep(0.02)
    said = "document.querySelector('[role=status]').textContent"
    page.until(f"{said}.includes('stopped before it had answered')")
    with serving(engine, urlsplit(address).port or 0):
        page.click("[role=status] button")
        page.until(DONE)
        assert page.run(CARDS) == told(engine)


def test_a_token_of_the_address_is_used_and_not_passed_on(browser, engine):
    token = "a token of this test"
    with serving(engine, token=token) as (address, _):
        page = browser.page()
        page.open(address)
        page.until("document.getElementById('explorer-token') !== null")
        page.write("a wrong one")
        page.press("Enter")
        page.until("document.body.innerText.includes('does not take this token')")
        page.run("document.getElementById('explorer-token').focus()")
        page.write(token)
        page.press("Enter")
        page.until(READY)
        other = browser.page()
        other.open(f"{address}#{urlencode({'token': token, 'q': QUESTION})}")
        other.until(f"{READY} && {DONE}")
        assert "token" not in other.run("location.href")


def test_only_the_last_of_many_changes_is_shown(page, address, engine):
    see(page, address)
    for k in "213213":
        put(page, "k", k)
        time.sleep(0.05)
    put(page, "k", "2")
    page.until("location.hash.includes('k=2')")
    settled(page)
    assert page.run(CARDS) == told(engine, k=2)
    assert page.run("document.querySelectorAll('.explorer-passage').length") == 2

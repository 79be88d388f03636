"""Links from passages to their documents: to the right file and place, or none."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag

from ragbook.cli import main
from ragbook.corpus import Corpus, Passage
from ragbook.corpus.documents import read_documents
from ragbook.corpus.splitting import parse_split
from ragbook.explorer.documents import page_name, write_documents
from ragbook.explorer.pages import write
from ragbook.index import PassageIndex
from tests.book.browser import browse, needs_browser

GUIDE = "# Guide\n\nOne line\nand **another**.\n\n## Use\n\nTurn <the> handle & wait.\n" + (
    "A long line of many words. " * 30
)
PAGE = "<title>T</title><nav>menu</nav><h1>Page</h1><p>First part.</p><p>Second part.</p>"


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "guide.md").write_text(GUIDE)
    (folder / "page.html").write_text(PAGE)
    (folder / "a.rst").write_text("Title\n=====\n\nText of a `link <http://x>`_.\n")
    return folder


def passages_of(folder: Path, way: str = "words:6") -> list[Passage]:
    return list(read_documents(folder, parse_split(way)))


def target(out: Path, link: str) -> Tag:
    """What a browser shows at a link."""
    name, _, place = link.partition("#")
    found = BeautifulSoup((out / name).read_text("utf-8"), "html.parser").find(id=place)
    assert isinstance(found, Tag)
    return found


@pytest.mark.parametrize("way", ["words:6", "sentences:9", "headings", "none"])
def test_a_link_opens_the_file_and_place(folder, tmp_path, way):
    passages = passages_of(folder, way)
    links, pages = write_documents(tmp_path, passages, folder)
    assert links.keys() == {passage.id for passage in passages}
    assert len(pages) == 3
    for passage in passages:
        shown = target(tmp_path, links[passage.id])
        assert shown.name == "li"
        assert re.sub(r"[*`]", "", passage.text.split()[0]) in re.sub(r"[*`]", "", shown.get_text())
        assert links[passage.id].endswith(re.sub(r"\.\d+$", "", passage.id.rpartition("#")[2]))
        text = (tmp_path / links[passage.id].partition("#")[0]).read_text("utf-8")
        page = BeautifulSoup(text, "html.parser")
        document = passage.id.rpartition("#")[0]
        assert [one.get_text() for one in page.select("h1")] == [document]
        assert [one["href"] for one in page.select("a")] == [(folder / document).as_uri()]


def test_a_line_is_shown_as_it_is_and_marked_to_the_passages_end(folder, tmp_path):
    passages = passages_of(folder / "sub", "headings")
    links, (name,) = write_documents(tmp_path, passages, folder / "sub")
    assert links == {
        "guide.md#L3": f"documents/{name}#L3",
        "guide.md#L8": f"documents/{name}#L8",
        "guide.md#L9": f"documents/{name}#L9",
    }
    text = (tmp_path / "documents" / name).read_text()
    items = BeautifulSoup(text, "html.parser").find_all("li")
    assert [item.get_text() for item in items] == GUIDE.split("\n")
    assert [item["value"] for item in items] == [str(n + 1) for n in range(len(items))]
    assert '[id="L3"]:target ~ :nth-child(-n+4) {' in text
    assert '[id="L8"]:target ~ :nth-child(-n+9) {' in text
    assert '[id="L9"]:target ~' not in text  # it ends where it begins


def test_no_link_where_the_document_is_gone_or_changed(folder, tmp_path):
    passages = passages_of(folder)
    (folder / "a.rst").unlink()
    (folder / "page.html").write_bytes(b"\xff")
    (folder / "sub" / "guide.md").write_text(GUIDE.replace("Turn", "Then turn"))
    links, pages = write_documents(tmp_path / "out", passages, folder)
    kept = {p.id for p in passages if p.id.startswith("sub/") and "Turn" not in p.text}
    assert kept
    assert {"sub/guide.md#L1"} <= links.keys() <= kept
    assert len(pages) == 1
    (folder / "sub" / "guide.md").write_text("\n" + GUIDE)  # all one line lower
    links, _ = write_documents(tmp_path / "out2", passages, folder)
    assert not any(links)
    shutil.rmtree(folder)
    assert write_documents(tmp_path / "out3", passages, folder) == ({}, [])
    assert not (tmp_path / "out3").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.md", "/etc/hosts.md", "sub/../../secret.md", "link.md", "a\0.md", "", "sub"),
        *(".", "javascript:alert(1)", "x" * 5_000 + ".md", "..\\secret.md"),
    ],
)
def test_no_id_leads_out_of_the_folder(folder, tmp_path, name):
    (tmp_path / "secret.md").write_text("secret")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    passage = Passage(f"{name}#L1", "", "secret")
    assert write_documents(tmp_path / "out", [passage], folder) == ({}, [])


EVIL = [
    "<img src=x onerror=alert(1)>.md",
    "\"'><script>alert(1)<script>.md",
    "javascript:alert(1)#L1.md",
    "a b#1%20%.md",
    "ünïcode — 日本.md",
    "-rf.md",
    "&amp;&lt;.md",
    "</style></title>".replace("/", "\u2215") + ".md",
]


@pytest.mark.parametrize("name", EVIL)
def test_names_and_texts_inject_nothing(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    text = "</li><script>alert(1)</script> <b onclick=x>b</b> &amp; </style> \"'"
    (folder / name).write_text(text)
    passages = passages_of(folder, "none")
    links, (page,) = write_documents(tmp_path, passages, folder)
    assert re.fullmatch(r"documents/[\w.-]+\.html#L1", links[f"{name}#L1"], re.A)
    raw = (tmp_path / "documents" / page).read_text("utf-8")
    shown = BeautifulSoup(raw, "html.parser")
    tags = {tag.name for tag in shown.find_all()}
    assert tags == {*("html", "head", "meta", "title", "link", "style", "body"), *("h1", "p", "a"),
                    *("ol", "li")}  # fmt: skip
    assert [one.get_text() for one in shown.select("h1, title")] == [name, name]
    assert [one.get_text() for one in shown.select("li")] == [text]
    assert [one["href"] for one in shown.select("a")] == [(folder / name).as_uri()]
    assert all(not key.startswith("on") for tag in shown.find_all() for key in tag.attrs)
    assert html.escape(text) in raw
    assert "default-src 'none'" in raw


def test_pages_of_different_documents_have_different_names():
    names = ["a/b.md", "a-b.md", "a b.md", "A-b.md", "é.md", "è.md", "", ".", "x" * 300, "x" * 301]
    assert len({page_name(name).lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[\w.-]{1,80}", page_name(name), re.A) for name in names)


def prediction(passage: Passage) -> dict:
    evidence = [{"passage_id": passage.id, "weight": 1.0}]
    method = {"text": "x", "log_prob": -1.0, "em": 1, "f1": 1.0, "evidence": evidence}
    return {
        "question": f"Q {passage.id}?",
        "answers": ["x"],
        "gold_passage": None,
        "methods": {"one": method},
    }


def links_of(out: Path) -> dict[str, str]:
    found = {}
    for path in out.glob("answers-*.js"):
        details = json.loads(path.read_text("utf-8").partition(" = ")[2].rstrip(";\n"))
        for line in details:
            found |= {one["id"]: one["link"] for one in line["passages"] if "link" in one}
    return found


def test_the_explorer_links_evidence(folder, tmp_path):
    passages = passages_of(folder)
    lines = [prediction(passage) for passage in passages]
    files = write(tmp_path / "out", lines, Corpus("notes", passages, folder))
    found = links_of(tmp_path / "out")
    assert found.keys() == {passage.id for passage in passages}
    pages = set((tmp_path / "out" / "documents").iterdir())
    assert len(pages) == 3
    assert pages <= set(files)
    fewer = [line for line in lines if "a.rst" in line["question"]]
    write(tmp_path / "out", fewer, Corpus("notes", passages, folder))
    assert len(list((tmp_path / "out" / "documents").iterdir())) == 1
    write(tmp_path / "out", fewer, Corpus("notes", passages))  # from nowhere
    assert list((tmp_path / "out" / "documents").iterdir()) == []
    assert links_of(tmp_path / "out") == {}


@needs_browser
def test_a_browser_shows_the_link_and_marks_its_lines(folder, tmp_path):
    passages = passages_of(folder / "sub", "headings")
    corpus = Corpus("notes", passages, folder / "sub")
    write(tmp_path / "out", [prediction(passages[0])], corpus)
    page = tmp_path / "out" / "explorer.html"
    question = re.search(r'"rows":\[\["(\w+)"', (page.parent / "questions.js").read_text())
    assert question
    document, console = browse(f"{page.as_uri()}#q={question[1]}", tmp_path / "profile")
    link = BeautifulSoup(document, "html.parser").select_one(".explorer-passage small a")
    assert link is not None
    assert link.get_text() == "guide.md#L3"
    address, _, place = str(link["href"]).partition("#")
    assert place == "L3"
    assert (
        address == (page.parent / links_of(page.parent)["guide.md#L3"].partition("#")[0]).as_uri()
    )
    assert not console
    copy = Path(address.removeprefix("file://")).with_name("copy.html")
    script = (
        "<script>onload = () => { document.body.dataset.marked = [...document.querySelectorAll("
        "'li')].filter((li) => getComputedStyle(li).backgroundColor !== 'rgba(0, 0, 0, 0)')"
        ".map((li) => li.id).join(' '); };</script></body>"
    )
    text = Path(address.removeprefix("file://")).read_text("utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    copy.write_text(text.replace("</body>", script), "utf-8")
    document, _ = browse(f"{copy.as_uri()}#L3", tmp_path / "profile")
    body = BeautifulSoup(document, "html.parser").body
    assert body is not None
    assert body["data-marked"] == "L3 L4"


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A folder of notes, its index, and the file that `corpus build` makes of it."""
    folder = tmp_path_factory.mktemp("story")
    notes = folder / "notes"
    notes.mkdir()
    (notes / "a b#1%.md").write_text("# Widget\n\nThe widget was invented by Maria Petrova.\n")
    (notes / "c.txt").write_text("The harbour was built by Jan de Vries.\n")
    (folder / "q.jsonl").write_text(
        '{"question": "Who invented the widget?", "answers": ["Maria Petrova"], '
        '"gold_passage": "a b#1%.md"}\n'
    )
    built = folder / "built.jsonl"
    assert main(["corpus", "build", str(notes), "--out", str(built)]) == 0
    assert main(["index", "build", "--corpus", str(notes), "--out", str(folder / "index")]) == 0
    return folder


def test_an_index_and_a_built_file_know_their_documents(story):
    index = PassageIndex.open(story / "index")
    assert index.corpus.documents == story / "notes"
    lines = [json.loads(line) for line in (story / "built.jsonl").read_text().splitlines()]
    assert [(line["id"], line["document"]) for line in lines] == [
        ("a b#1%.md#L1", "a b#1%.md"),
        ("c.txt#L1", "c.txt"),
    ]
    assert [p.id for p in index.corpus] == [line["id"] for line in lines]


@pytest.mark.parametrize("source", ["index", "corpus", "built", "nowhere"])
def test_three_commands_lead_to_linked_evidence(story, tmp_path, monkeypatch, source):
    monkeypatch.setenv("RAGBOOK_CACHE", str(tmp_path / "cache"))
    options = {
        "index": ["--index", str(story / "index")],
        "corpus": ["--corpus", str(story / "notes"), "--retriever", "bm25"],
        "built": ["--corpus", str(story / "built.jsonl"), "--documents", str(story / "notes")],
        "nowhere": ["--corpus", str(story / "built.jsonl"), "--retriever", "bm25"],
    }[source]
    out = tmp_path / "results"
    command = ["compare", *options, "--questions", str(story / "q.jsonl"), "--out", str(out)]
    assert main([*command, "--methods", "fid", "--k", "2"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["methods"]["fid"]["recall_at_k"] == 1  # the gold id names the file
    found = links_of(out / "explorer")
    if source == "nowhere":
        assert not found
        return
    assert found.keys() == {"a b#1%.md#L1", "c.txt#L1"}
    assert "Widget" in target(out / "explorer", found["a b#1%.md#L1"]).get_text()


def test_a_folder_of_documents_that_is_not_there(story, capsys):
    command = ["compare", "--index", str(story / "index"), "--documents", str(story / "gone")]
    assert main(command) == 2
    assert "There is no folder" in capsys.readouterr().err

"""The example scripts: each prints the answers and evidence that its method gives."""

import runpy
from pathlib import Path

import pytest

import ragbook

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
QUESTIONS = [
    ragbook.Question("In what English county did HMS Beagle lie as a coastguard ship?", ("Essex",)),
    ragbook.Question(
        "Which blind king died fighting against the English in 1346?", ("John of Bohemia",)
    ),
    ragbook.Question("Which of Akira Kurosawa's brothers worked in silent cinema?", ("Heigo",)),
]
ARTICLES = ("hms-beagle", "battle-of-crecy", "akira-kurosawa", "beagle-channel")


@pytest.fixture(scope="module")
def encoder():
    return ragbook.load_encoder()


@pytest.fixture(scope="module")
def index(encoder, tmp_path_factory):
    """A few articles of MiniWiki: to encode all of them would take most of a minute."""
    corpus = ragbook.load_corpus("miniwiki")
    few = [passage for passage in corpus if passage.id.rpartition("-")[0] in ARTICLES]
    assert len(few) > 5  # the search has something to choose from
    out = tmp_path_factory.mktemp("examples") / "index"
    return ragbook.build_index(ragbook.Corpus("few", few), out, encoder, progress=False), out


@pytest.mark.parametrize("name", ragbook.methods.NAMES)
def test_an_example_prints_what_its_method_answers(name, index, encoder, monkeypatch, capsys):
    opened, folder = index
    script = EXAMPLES / f"{name.replace('-', '_')}.py"
    monkeypatch.setattr("sys.argv", [str(script), str(folder)])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    retriever = ragbook.DenseRetriever(opened, encoder)
    # The example of kNN-LM has the language model as it was trained on text.
    (method,) = ragbook.load_methods([name], retriever, verbatim=True, shared=name == "knn-lm")
    if name != "closed-book":  # an example searches with the given encoder
        method.retriever = retriever  # type: ignore[misc]
    expected = []
    for answer in method.answer(QUESTIONS, k=5):
        expected.append(f"{answer.question} {answer.text} (log p = {answer.log_prob:.2f})")
        expected += [f"    {one.weight:.3f}  {one.passage_id}" for one in answer.evidence]
    assert len(expected) == (3 if name == "closed-book" else 18)
    assert printed.splitlines() == expected


def test_every_method_has_an_example_and_every_example_a_method():
    scripts = sorted(path.stem.replace("_", "-") for path in EXAMPLES.glob("*.py"))
    assert scripts == sorted(ragbook.methods.NAMES)

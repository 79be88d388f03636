"""Passages longer than what models see, and answers longer than their places: counted, not lost."""

import pytest
import torch

from ragbook.cli.advice import unread
from ragbook.corpus import Corpus, Passage, Question, QuestionSet
from ragbook.corpus.building import split_passages
from ragbook.errors import InputError
from ragbook.evaluation import compare
from ragbook.index import build_index
from ragbook.methods.closed_book import ClosedBook
from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.knn_lm import KnnLM
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.methods.realm import Realm
from ragbook.models import Encoder, SeqReader
from ragbook.models.generator import labels_of
from ragbook.models.limits import Cut, cut_by_encoder
from ragbook.retrieval import DenseRetriever
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever, seq_model, tower

WORDS = 1_630
ENDS = ("Danube", "Rhine", "Elbe", "Vistula")
LONG = [
    Passage(str(i), "River", " ".join(["water"] * (WORDS - 1)) + f" {end}")
    for i, end in enumerate(ENDS)
]
ASKED = QuestionSet(
    "rivers", "dev", [Question("Which river?", (end,), str(i)) for i, end in enumerate(ENDS)]
)
LONG_ANSWER = "water " * 300


@pytest.fixture(scope="module")
def encoder(tokenizer) -> Encoder:
    torch.manual_seed(5)
    return Encoder(tower(), tokenizer, "tiny", "0" * 64, 20.0)


@pytest.fixture(scope="module")
def bart(tokenizer) -> SeqReader:
    return SeqReader(seq_model("bart"), tokenizer, "bart")


def test_the_words_that_an_encoder_does_not_see(encoder):
    # 256 tokens, two of them special; "River" and "." come first, and every word is one token.
    assert cut_by_encoder(encoder, [*LONG, PASSAGES[0]]) == dict.fromkeys("0123", WORDS - 252)
    fits = Passage("f", "River", " ".join(["water"] * 252))
    assert cut_by_encoder(encoder, [fits]) == {}
    assert cut_by_encoder(encoder, [Passage("g", "River", f"{fits.text} water")]) == {"g": 1}
    assert cut_by_encoder(encoder, [Passage("m", "River", f"{fits.text} !!!")]) == {}  # no word
    assert cut_by_encoder(object(), LONG) == {}  # an encoder of your own that says nothing


def test_the_words_that_a_reader_does_not_see(bart, span_reader):
    question = Question("Which river?", ("x",))
    bart.read([question], [[LONG[0], PASSAGES[0]]])
    # 208 tokens: three special ones, three of the question, two of the title.
    assert bart.cut.take_passages() == {"0": WORDS - 200}
    assert bart.cut.take_passages() == {}
    span_reader.span_scores([question.text], [LONG[1]])
    assert span_reader.cut.take_passages() == {"1": WORDS - 200}


def test_a_passage_is_cut_in_one_prompt_too(bart):
    bart.read_together([QUESTIONS[0]], [[LONG[0], PASSAGES[0]]])
    assert set(bart.cut.take_passages()) == {"0"}
    bart.read_together([QUESTIONS[0]], [PASSAGES])
    assert bart.cut.take_passages() == {}


def test_a_causal_model_notes_what_it_cuts():
    from ragbook.models import CausalReader
    from tests.checkpoints import random_model, tokenizer_of

    reader = CausalReader(random_model("gpt2"), tokenizer_of("gpt2"), "gpt2")
    reader.read([QUESTIONS[0]], [[LONG[2], PASSAGES[0]]])
    ((passage_id, words),) = reader.cut.take_passages().items()
    assert passage_id == "2"
    assert WORDS - reader.prompt.template.max_passage <= words < WORDS


def test_a_comparison_counts_them_and_cut_passages_count_for_their_documents(
    tmp_path, encoder, bart, span_reader
):
    def results(passages, name):
        index = build_index(Corpus(name, passages), tmp_path / name, encoder, progress=False)
        retriever = DenseRetriever(index, encoder)
        methods = [ClosedBook(bart), Realm(span_reader, retriever), FiD(bart, retriever)]
        found = compare(methods, ASKED, k=len(index), progress=False).results
        return index.manifest["index"]["parameters"].get("cut"), found

    stored, found = results(LONG, "long")
    assert stored == {"passages": 4, "words": WORDS - 252}
    assert (found["cut_passages"], found["cut_words"]) == (4, WORDS - 200)
    stored, found = results(split_passages(LONG), "cut")
    assert stored is None
    assert (found["cut_passages"], found["cut_words"], found["gold_missing"]) == (0, 0, 0)
    assert found["methods"]["fid"]["recall_at_k"] == 1.0


def test_a_comparison_counts_the_passages_that_do_not_fit_into_one_prompt(bart):
    """256 tokens hold a question and two of these passages. All but the first of the three
    questions have three passages and not four."""
    shown = [Passage(str(i), "River", "water " * 70) for i in range(4)]
    retriever = FixedRetriever()
    retriever.passages = tuple(shown)
    methods = [FiD(bart, retriever, max_length=2), InContext(bart, retriever, max_length=2)]
    asked = QuestionSet("rivers", "dev", list(ASKED)[:1] + list(QUESTIONS))
    found = compare(methods, asked, k=4, leave_one_out=True, progress=False)
    assert "unread" not in found.results["methods"]["fid"]
    assert found.results["methods"]["in-context"]["unread"] == {"1": 2, "2": 1}
    read = [
        sum(one["weight"] > 0 for one in line["methods"]["in-context"]["evidence"])
        for line in found.predictions
    ]
    assert read == [2, 2, 2]  # of four, three and three
    (told,) = unread(found.results)
    assert told.startswith(
        "in-context: on 3 of 3 questions not all passages fit into its prompt, and it leaves out "
        "up to 2 of the lowest ranked"
    )
    fits = compare(methods, asked, k=2, progress=False).results
    assert "unread" not in fits["methods"]["in-context"]
    assert unread(fits) == []


def test_a_causal_model_notes_the_passages_that_do_not_fit_into_one_prompt():
    from ragbook.models import CausalReader
    from tests.checkpoints import random_model, tokenizer_of

    reader = CausalReader(random_model("gpt2"), tokenizer_of("gpt2"), "gpt2")
    memory = reader.read_together(QUESTIONS, [[LONG[0]] * 12, PASSAGES])
    left = 12 - len(set(memory.shown[0][0].owner))
    assert 0 < left < 12
    assert reader.cut.take_unread() == {QUESTIONS[0].text: left}
    assert reader.cut.take_unread() == {}


@pytest.mark.parametrize("kind", [ClosedBook, InContext, RagSequence, RagToken, FiD])
def test_of_an_answer_beyond_the_places_the_beginning_is_scored(bart, kind):
    method = kind(bart) if kind is ClosedBook else kind(bart, FixedRetriever())
    assert bart.longest_answer == 256 - len(bart.opening)
    bart.cut.take_answers()
    both = method.log_prob(QUESTIONS, [LONG_ANSWER, "Elbe"], k=3)
    assert bart.cut.take_answers() == 1
    assert torch.isfinite(both).all()
    short = method.log_prob(QUESTIONS, ["Danube", "Elbe"], k=3)
    assert bart.cut.take_answers() == 0
    assert both[1] == pytest.approx(float(short[1]), abs=1e-4)
    assert both[0] < -500  # a random model gives each of the 256 tokens some ten nats


def test_the_beginning_is_what_fits(bart):
    labels = labels_of(bart, [LONG_ANSWER])
    places = bart.longest_answer or 0
    memory = bart.read(QUESTIONS[:1])
    whole = bart.token_log_probs(memory, labels)
    assert whole.shape == labels.shape
    assert torch.equal(whole[:, places:], torch.zeros_like(whole[:, places:]))
    own = bart.token_log_probs(memory, labels[:, :places])
    assert torch.allclose(whole[:, :places], own)


def test_knn_lm_scores_as_far_as_its_model_goes(language_model):
    method = KnnLM(language_model, FixedRetriever(), 0.25, 10.0)
    long, _ = method.log_prob(QUESTIONS, [LONG_ANSWER, "Elbe"], k=3).tolist()
    assert language_model.cut.take_answers() == 1
    prompt = len(language_model.prompt_ids(QUESTIONS[0].text))
    room = language_model.positions - prompt + 1
    ids = language_model.answer_ids(LONG_ANSWER)[:room]
    (found,) = FixedRetriever().retrieve(QUESTIONS[:1], 3)
    expected, _ = method._score(QUESTIONS[0], ids, method.datastore(found), 3)
    assert long == pytest.approx(expected, rel=1e-5)


def test_more_tokens_than_places_are_refused_before_anything_is_read(bart, language_model):
    with pytest.raises(InputError, match="at most 255"):
        FiD(bart, FixedRetriever(), max_length=256)
    with pytest.raises(InputError, match="--max-length"):
        ClosedBook(bart, max_length=1000)
    with pytest.raises(InputError, match="gpt2 has places"):
        KnnLM(language_model, FixedRetriever(), 0.25, 10.0, max_length=250)
    assert FiD(bart, FixedRetriever(), max_length=255).max_length == 255


def test_relative_positions_have_no_end(tokenizer):
    t5 = SeqReader(seq_model("t5"), tokenizer, "t5")
    assert t5.longest_answer is None
    ClosedBook(t5, max_length=5_000)
    assert torch.isfinite(ClosedBook(t5).log_prob(QUESTIONS[:1], [LONG_ANSWER])).all()


def test_places_may_differ_from_row_to_row():
    cut = Cut()
    labels = torch.tensor([[1, 2, 3], [4, 5, -100], [6, 7, 8]])
    fitting = cut.fitting(labels, torch.tensor([3, 2, 1]))
    assert fitting.tolist() == [[1, 2, 3], [4, 5, -100], [6, -100, -100]]
    assert cut.take_answers() == 1
    assert cut.fitting(labels, None) is labels

"""RAG's joint training on tiny random models: gradients, accumulation, resumption, what stays."""

import pytest
import torch

from ragbook.corpus import Corpus
from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index
from ragbook.methods import posterior
from ragbook.methods.base import doc_log_probs
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import Encoder, SeqReader, load_encoder, load_reader
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.generator import pad_labels
from ragbook.models.prompts import SlashLayout
from ragbook.retrieval import DenseRetriever
from ragbook.training import rag as module
from ragbook.training.rag import Recipe, log_likelihood, recipe, train_rag, trainable_prior
from ragbook.training.run import Run
from tests.methods.conftest import PASSAGES, QUESTIONS, seq_model, tower

METHODS = {"rag-sequence": RagSequence, "rag-token": RagToken}


@pytest.fixture(params=["dot", "l2"])
def ends(request, tmp_path):
    """(reader, encoder with a question tower of its own, index)."""
    torch.manual_seed(4)
    encoder = Encoder(
        tower(), minilm_tokenizer(), "tiny", "hash", 0.5, similarity=request.param
    ).untied()
    index = build_index(Corpus("four", PASSAGES), tmp_path / "index", encoder, progress=False)
    return SeqReader(seq_model("bart"), minilm_tokenizer(), "bart"), encoder, index


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_methods_own_log_probability(ends, method):
    reader, encoder, index = ends
    found = log_likelihood(method, reader, encoder, index, QUESTIONS, 3)
    own = METHODS[method](reader, DenseRetriever(index, encoder))
    wanted = own.log_prob(QUESTIONS, [q.answers[0] for q in QUESTIONS], k=3)
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-4, atol=1e-4)


def test_a_question_moves_by_posterior_minus_prior(ends):
    """The gradient to a question's vector, by hand: each passage pulls with its weight."""
    reader, encoder, index = ends
    texts = [QUESTIONS[0].text]
    with torch.no_grad():
        query = encoder.query_vectors(texts)
    query.requires_grad_()
    encoder.query_vectors = lambda _: query
    log_likelihood("rag-sequence", reader, encoder, index, QUESTIONS[:1], 3).sum().backward()
    found = DenseRetriever(index, encoder).retrieve(QUESTIONS[:1], 3)
    prior = doc_log_probs(found, encoder.score_scale)
    answers = [reader.answer_ids(QUESTIONS[0].answers[0])]
    states, mask = reader.encode_documents(QUESTIONS[:1], [found[0].passages])
    labels = pad_labels(answers).expand(3, -1)
    given = reader.token_log_probs(reader.memory(states[0], mask[0]), labels).sum(-1)[None]
    weight = encoder.score_scale * (posterior(prior, given) - prior.exp())  # [1, 3]
    _, positions = trainable_prior(encoder, index, texts, 3)
    passages = torch.from_numpy(index.vectors(positions[0].numpy()))
    pull = passages if encoder.similarity == "dot" else 2 * (passages - query.detach())
    assert query.grad is not None
    torch.testing.assert_close(query.grad, weight @ pull, rtol=1e-3, atol=1e-4)


def test_parts_add_up_to_the_whole_update(ends, tmp_path):
    """Two runs of one step, whole and in three parts of a batch of five, end in the same place."""
    reader, encoder, index = ends
    states = [(m, {k: v.clone() for k, v in m.state_dict().items()}) for m in models(ends)]
    ended = []
    for parts in (1, 3):
        for model, state in states:
            model.load_state_dict(state)
        settings = Recipe(k=3, batch=5, parts=parts, steps=2, query_rate=1e-2, biases=False)
        train_rag(
            "rag-token",
            reader,
            encoder,
            index,
            QUESTIONS,
            tmp_path / str(parts),
            settings,
            0,
            False,
        )
        ended.append([p.detach().clone() for m in models(ends) for p in m.parameters()])
    for a, b in zip(*ended, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def models(ends):
    return ends[0].model, ends[1].query_model


def test_training_raises_the_likelihood_and_leaves_the_passages_alone(ends, tmp_path):
    reader, encoder, index = ends
    before = {k: v.clone() for k, v in encoder.passage_model.state_dict().items()}
    start = log_likelihood("rag-sequence", reader, encoder, index, QUESTIONS, 2).sum().item()
    settings = Recipe(k=2, batch=4, steps=12, query_rate=1e-2, reader_rate=1e-2)
    train_rag("rag-sequence", reader, encoder, index, QUESTIONS, tmp_path, settings, 0, False)
    end = log_likelihood("rag-sequence", reader, encoder, index, QUESTIONS, 2).sum().item()
    assert end > start + 1
    for name, value in encoder.passage_model.state_dict().items():
        assert torch.equal(value, before[name])
    moved = [p.dim() for m in models(ends) for p in m.parameters() if p.requires_grad]
    assert set(moved) == {1}  # biases and layer norms


def test_a_killed_run_goes_on_as_if_nothing_had_happened(ends, tmp_path):
    """Ten steps at once, and six that were killed and four from their checkpoint: equal."""
    reader, encoder, index = ends
    states = [(m, {k: v.clone() for k, v in m.state_dict().items()}) for m in models(ends)]
    settings = Recipe(k=2, batch=2, steps=260, query_rate=1e-2, reader_rate=1e-2)
    ended = []
    for folder, dies in (("whole", None), ("killed", 253)):
        for attempt in range(1 if dies is None else 2):
            for model, state in states:
                model.load_state_dict(state)
            calls = iter(range(10_000))

            class Dying(SeqReader):
                def answer_ids(self, text, calls=calls, dies=dies, attempt=attempt):
                    if dies is not None and attempt == 0 and next(calls) == dies:
                        raise KeyboardInterrupt
                    return super().answer_ids(text)

            dying = Dying(reader.model, reader.tokenizer, "dying")
            try:
                train_rag(
                    "rag-sequence",
                    dying,
                    encoder,
                    index,
                    QUESTIONS,
                    tmp_path / folder,
                    settings,
                    0,
                    False,
                )
            except KeyboardInterrupt:
                continue
        ended.append([p.detach().clone() for m in models(ends) for p in m.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ended, strict=True))


def test_an_index_of_another_encoder_is_refused(ends, tmp_path):
    reader, _, index = ends
    other = Encoder(tower(), minilm_tokenizer(), "other", "other", 1.0).untied()
    with pytest.raises(InputError, match="other"):
        train_rag("rag-token", reader, other, index, QUESTIONS, tmp_path / "w", Recipe())


def test_the_recipe_writes_a_reader_and_an_encoder_for_each_method(tmp_path):
    """One step on passages of one's own; the folders load, and the index knows their encoder."""
    run = Run(tmp_path, steps=1, own=(Corpus("four", PASSAGES), QUESTIONS))
    recipe(run)
    index = PassageIndex.open(tmp_path / "index")
    for method, kind in METHODS.items():
        folder = str(tmp_path / method)
        encoder, reader = load_encoder(folder), load_reader(folder, method)
        assert encoder.query_sha256 != encoder.sha256  # a question tower of its own
        found = kind(reader, DenseRetriever(index, encoder)).answer(QUESTIONS, k=3)
        assert all(answer.text for answer in found)
        own = dict(reader.model.decoder.named_parameters())
        shared = dict(load_reader().model.decoder.named_parameters())
        assert {p.dim() for n, p in own.items() if not torch.equal(p, shared[n])} == {1}
    with pytest.raises(InputError, match="holds a run already"):
        recipe(run)


def test_the_trained_copy_reads_and_opens_as_the_first_does(ends):
    """A reader of another layout keeps it, and so do the tokens that open its answers."""
    reader = ends[0]
    other = SeqReader(
        reader.model, reader.tokenizer, "other", SlashLayout(max_input=40), opening=(5,)
    )
    copy = module._copy(other)
    assert copy.pairs.layout == other.pairs.layout
    assert (copy.start, copy.end, copy.opening) == (other.start, other.end, (5,))
    assert copy.model is not other.model

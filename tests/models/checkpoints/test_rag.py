"""RAG checkpoints that `transformers` saved: the same losses and answers as there, from the texts.

The peer is given what it needs to be right: inputs without padding, to which its RAG-Sequence
attends when it generates; labels that begin with the decoder's start token; no targets of a single
token.
"""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BertConfig,
    BertModel,
    DPRConfig,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    T5Config,
)

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import SeqReader, load_reader
from ragbook.models.checkpoints.rag import load_rag
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.encoder import Encoder
from ragbook.models.prompts import SlashLayout
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever, seq_model

PAD, START, END, FORCED = 1, 101, 102, 1996  # the peer fills up with END where PAD is 0
END_BIAS = 6.5  # how soon a random BART ends its answers
ANSWERS = ["the danube", "elbe, in hamburg"]
K, LENGTH, LONGEST = 3, 18, 60
KINDS: dict[str, tuple[Any, Any]] = {"rag-sequence": (RagSequenceForGeneration, RagSequence)}
KINDS["rag-token"] = (RagTokenForGeneration, RagToken)


def save(folder, kind: str) -> None:
    """A small random checkpoint with its two tokenizers; BART's answers end after a few tokens."""
    special: dict[str, Any] = {
        "pad_token_id": PAD,
        "eos_token_id": END,
        "decoder_start_token_id": START,
    }
    generator = (
        BartConfig(
            vocab_size=30522,
            d_model=16,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=320,
            bos_token_id=None,
            forced_eos_token_id=None,
            init_std=0.5,
            **special,
        )
        if kind == "bart"
        else T5Config(
            vocab_size=30522, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **special
        )
    )
    encoder = DPRConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config = RagConfig.from_question_encoder_generator_configs(
        encoder, generator, n_docs=K, max_combined_length=LENGTH
    )
    config.pad_token_id, config.bos_token_id = PAD, None
    config.generator.bos_token_id = None  # the peer reads it, and a T5 has none
    torch.manual_seed(7)
    model: Any = RagSequenceForGeneration(config)
    if kind == "bart":
        with torch.no_grad():
            model.rag.generator.final_logits_bias[0, END] = END_BIAS
    model.save_pretrained(folder)
    for part in ("question_encoder_tokenizer", "generator_tokenizer"):
        minilm_tokenizer().save_pretrained(folder / part)


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    save(tmp_path_factory.mktemp("bart"), "bart")
    return tmp_path_factory.getbasetemp() / "bart0"


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    save(tmp_path_factory.mktemp("t5"), "t5")
    return tmp_path_factory.getbasetemp() / "t50"


def peer_inputs() -> dict[str, Any]:
    """The same questions and passages as token ids, all of one length."""
    found = FixedRetriever(uneven=False).retrieve(QUESTIONS, K)
    rows = [(q.text, p) for q, f in zip(QUESTIONS, found, strict=True) for p in f.passages]
    layout = SlashLayout(max_input=LENGTH)
    read = layout(minilm_tokenizer(), [q for q, _ in rows], [p for _, p in rows])
    assert read.mask.all()
    scores = torch.tensor(np.stack([2.0 * f.scores for f in found]))
    return {
        "context_input_ids": read.tensors["input_ids"],
        "context_attention_mask": read.mask,
        "doc_scores": scores,
    }


@pytest.mark.parametrize("kind", ["bart", "t5"])
@pytest.mark.parametrize("name", KINDS)
def test_losses_are_the_peers(request, kind, name):
    folder = request.getfixturevalue(kind)
    theirs, ours = KINDS[name]
    ids = minilm_tokenizer()(ANSWERS, add_special_tokens=False)["input_ids"]
    labels = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([START, *one, END]) for one in ids], batch_first=True, padding_value=PAD
    )
    model = theirs.from_pretrained(folder).eval()
    with torch.no_grad():
        loss = model(**peer_inputs(), labels=labels, reduce_loss=False, exclude_bos_score=False)
    method = ours(load_reader(str(folder)), FixedRetriever(uneven=False))
    torch.testing.assert_close(
        -method.log_prob(QUESTIONS, ANSWERS, k=K), loss.loss, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("beams", [1, 4])
def test_answers_are_the_peers(bart, name, beams, length_penalty):
    theirs, ours = KINDS[name]
    model = theirs.from_pretrained(bart).eval()
    generated = model.generate(
        **peer_inputs(),
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=length_penalty,
        min_length=2,  # no empty answer
        max_length=LONGEST + 1,
    )
    wanted = [[t for t in row if t not in (PAD, START, END)] for row in generated.tolist()]
    assert 1 < max(map(len, wanted)) < LONGEST - 1  # none is cut off
    method = ours(
        load_reader(str(bart)),
        FixedRetriever(uneven=False),
        beams,
        LONGEST,
        False,
        length_penalty,
    )
    found = method.generate(QUESTIONS, K, beams)
    if name == "rag-sequence":  # both rank by probability
        assert [list(one.tokens) for each in found for one in each] == wanted
    else:  # the peer ranks by penalised score, we by probability: the same answers
        for at, each in enumerate(found):
            mine = sorted(list(one.tokens) for one in each)
            assert mine == sorted(wanted[at * beams : (at + 1) * beams])


@pytest.fixture
def reader(request):
    return SeqReader(seq_model(request.param), minilm_tokenizer(), request.param)


@pytest.mark.parametrize("reader", ["bart", "t5"], indirect=True)
def test_what_opens_every_answer_is_given_and_not_predicted(reader):
    """As BART's <s>: decoding and scoring go on from it, against the model run with it in place."""
    reader = SeqReader(reader.model, reader.tokenizer, "opened", opening=(FORCED,))
    states, mask = reader.encode_documents(QUESTIONS[:1], [PASSAGES[:1]])
    states, mask = states[0], mask[0]
    answer = reader.answer_ids(ANSWERS[0])
    found = reader.token_log_probs(reader.memory(states, mask), torch.tensor([answer]))
    with torch.no_grad():
        logits = reader.model(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=torch.tensor([[START, FORCED, *answer[:-1]]]),
        ).logits
    wanted = logits.log_softmax(-1)[0, 1:].gather(-1, torch.tensor(answer)[:, None])[:, 0]
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-4)
    following = reader.continuation(reader.memory(states, mask))
    row = torch.tensor([0])
    for step in range(2):
        prefix = torch.tensor([[START, *answer[:step]]])
        torch.testing.assert_close(
            following(prefix, row, row)[0],
            logits[0, step + 1].log_softmax(-1),
            rtol=1e-4,
            atol=1e-4,
        )


def test_the_question_tower_is_the_checkpoints(bart):
    """Question vectors equal the peer's; the passage tower, and so the index, stay as they were."""
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    tower = BertModel(config, add_pooling_layer=False)
    passages = Encoder(tower, minilm_tokenizer(), "p", "hash", 1.0, pooling="cls", similarity="dot")
    _, encoder = load_rag(str(bart), passages)
    peer: Any = RagSequenceForGeneration.from_pretrained(bart).eval()
    texts = [q.text for q in QUESTIONS]
    read = minilm_tokenizer()(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = peer.rag.question_encoder(read["input_ids"], read["attention_mask"])[0]
    np.testing.assert_allclose(encoder.encode_queries(texts), wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert encoder.sha256 == passages.sha256
    assert encoder.query_sha256 != passages.query_sha256
    wide = BertModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(InputError, match="dimensions"):
        load_rag(str(bart), Encoder(wide, minilm_tokenizer(), "wide", "hash", 1.0))


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(InputError, match="no RAG checkpoint"):
        load_rag(str(tmp_path), None)  # type: ignore[arg-type]


def test_a_long_passage_never_takes_the_questions_place():
    """Cut to what fits, the question whole at the end; a short input is the peer's own string."""
    tokenizer, layout = minilm_tokenizer(), SlashLayout(max_input=40)
    long = Passage("p", "A title", "many words " * 100)
    question = Question("Which river passes through Vienna?", ("Danube",))
    read = layout(tokenizer, [question.text, question.text], [long, PASSAGES[0]])
    text = tokenizer.decode(read.tensors["input_ids"][0])
    assert read.mask.sum(1)[0] == 40
    assert text.startswith("[CLS] a title / many words")
    assert text.endswith("many / / which river passes through vienna? [SEP]") or text.endswith(
        "words / / which river passes through vienna? [SEP]"
    )
    whole = f"{PASSAGES[0].title} / {PASSAGES[0].text} // {question.text}"
    own = read.tensors["input_ids"][1][read.mask[1].bool()].tolist()
    assert own == tokenizer(whole)["input_ids"]
    shown = tokenizer.decode(read.tensors["input_ids"][1][read.passage_mask[1]])
    assert shown == tokenizer.decode(
        tokenizer(f"{PASSAGES[0].title} / {PASSAGES[0].text}", add_special_tokens=False)[
            "input_ids"
        ]
    )
    endless = layout(tokenizer, ["why " * 500], [long])
    assert endless.mask.sum() <= 40
    assert "why why" in tokenizer.decode(endless.tensors["input_ids"][0])

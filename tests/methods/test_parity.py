"""RAG's losses against `transformers`, the peer, on a small random checkpoint."""

from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    DPRConfig,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    T5Config,
)

from ragbook.methods.rag import sequence_log_prob, token_log_prob

B, N_DOCS, L, T, VOCABULARY, PAD = 2, 3, 7, 5, 50, 1


def small(kind: str, model_class: Any):
    question_encoder = DPRConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    generator = (
        BartConfig(
            vocab_size=VOCABULARY,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=32,
            pad_token_id=PAD,
            bos_token_id=0,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=None,
            dropout=0.0,
        )
        if kind == "bart"
        else T5Config(
            vocab_size=VOCABULARY,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            pad_token_id=PAD,
            eos_token_id=2,
            dropout_rate=0.0,
        )
    )
    config = RagConfig.from_question_encoder_generator_configs(
        question_encoder, generator, n_docs=N_DOCS
    )
    config.pad_token_id = PAD
    # The peer reads these from its generator, whose T5 has no beginning-of-sequence token.
    config.bos_token_id = config.generator.bos_token_id = 0 if kind == "bart" else None
    torch.manual_seed(11)
    return model_class(config=config).eval()


def inputs(lengths: tuple[int, ...]):
    generator = torch.Generator().manual_seed(5)
    context = torch.randint(3, VOCABULARY, (B * N_DOCS, L), generator=generator)
    mask = torch.ones_like(context)
    mask[0, -2:] = 0
    labels = torch.randint(3, VOCABULARY, (B, T), generator=generator)
    labels[:, 0] = 2  # what the decoder is started with
    for row, length in enumerate(lengths):
        labels[row, 1 + length :] = PAD
    doc_scores = 3 * torch.randn(B, N_DOCS, generator=generator)
    return context, mask, labels, doc_scores


def ours(model, core, context, mask, labels, doc_scores):
    """-log p(y | x) by the definition, from the generator's own logits."""
    logits = model.rag.generator(
        input_ids=context,
        attention_mask=mask,
        decoder_input_ids=labels.repeat_interleave(N_DOCS, 0),
    ).logits
    target = labels[:, 1:]
    log_probs = logits[:, :-1].log_softmax(-1)
    chosen = log_probs.gather(-1, target.repeat_interleave(N_DOCS, 0)[:, :, None]).squeeze(-1)
    return -core(chosen.reshape(B, N_DOCS, -1), doc_scores.log_softmax(-1), target != PAD)


def theirs(model, context, mask, labels, doc_scores):
    return model(
        context_input_ids=context,
        context_attention_mask=mask,
        doc_scores=doc_scores,
        labels=labels,
        reduce_loss=False,
        exclude_bos_score=False,
    ).loss


@pytest.mark.parametrize("kind", ["bart", "t5"])
@pytest.mark.parametrize(
    ("model_class", "core"),
    [(RagSequenceForGeneration, sequence_log_prob), (RagTokenForGeneration, token_log_prob)],
)
def test_losses_equal(kind, model_class, core):
    model = small(kind, model_class)
    given = inputs((4, 2))
    with torch.no_grad():
        torch.testing.assert_close(ours(model, core, *given), theirs(model, *given))


def test_a_target_of_one_token_keeps_the_prior_that_the_peer_loses():
    """By the definition Sequence and Token coincide there; the peer's Sequence drops p(z | x)."""
    given = inputs((1, 1))
    sequence, token = small("bart", RagSequenceForGeneration), small("bart", RagTokenForGeneration)
    token.load_state_dict(sequence.state_dict())
    with torch.no_grad():
        by_definition = theirs(token, *given)
        torch.testing.assert_close(ours(sequence, sequence_log_prob, *given), by_definition)
        torch.testing.assert_close(ours(token, token_log_prob, *given), by_definition)
        assert (theirs(sequence, *given) - by_definition).abs().min() > 0.1

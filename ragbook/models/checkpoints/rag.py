"""RAG checkpoints as `transformers` saves them: facebook/rag-sequence-nq and rag-token-nq.

One folder or hub name holds a generator, a question tower and the tokenizers of both. The passage
tower is not part of it: it is that of the DPR pair that the checkpoint was trained with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragbook.errors import InputError
from ragbook.models.cached import first_logits
from ragbook.models.encoder import Encoder, weights_sha256
from ragbook.models.inspection import whole_model
from ragbook.models.model_files import read_tokenizer, tried
from ragbook.models.prompts import SlashLayout
from ragbook.models.seq2seq import SeqReader


def load_rag(name: str, passages: Encoder) -> tuple[SeqReader, Encoder]:
    """A RAG checkpoint's generator, and an encoder made of its question tower and the passage tower
    of another encoder.

    Parameters
    ----------
    name: a local folder or hub name; its weights are safetensors.
    passages: the encoder that the index is built with, `facebook/dpr-ctx_encoder-single-nq-base` in
        the paper (Lewis et al. 2020, section 2.2).

    Raises
    ------
    InputError: there is no such checkpoint, or its question tower and `passages` do not fit.
    """
    model = _model(name)
    tower = model.rag.question_encoder.question_encoder.bert_model
    if tower.config.hidden_size != passages.dimension:
        raise InputError(
            f"the question vectors of {name} have {tower.config.hidden_size} dimensions, the "
            f"passage vectors of {passages.id} have {passages.dimension}; name the encoder that "
            "the checkpoint was trained with"
        )
    rows = tower.config.vocab_size
    if (
        _tokenizer(name, "question_encoder_tokenizer", rows).get_vocab()
        != passages.tokenizer.get_vocab()
    ):
        raise InputError(
            f"{name} and {passages.id} have different tokenizers; name the encoder that the "
            "checkpoint was trained with"
        )
    encoder = passages.changed(query_model=tower.eval(), query_sha256=weights_sha256(tower))
    return _reader(name, model), encoder


def load_rag_reader(name: str) -> SeqReader:
    """A RAG checkpoint's generator alone; see `load_rag`."""
    return _reader(name, _model(name))


def _reader(name: str, model: Any) -> SeqReader:
    """The generator with the input form it was trained on. No token is forced at the beginning of
    an answer, as in `transformers`' `generate`."""
    config, generator = model.config, model.rag.generator
    prefix = getattr(config.generator, "prefix", None) or ""
    longest = config.max_combined_length
    if not all(isinstance(t, str) for t in (config.title_sep, config.doc_sep, prefix)) or not (
        isinstance(longest, int) and longest > 0
    ):
        raise InputError(
            f"{name} has a config.json that does not say how its inputs look (title_sep, doc_sep, "
            "prefix, max_combined_length); download it again"
        )
    layout = SlashLayout(
        config.title_sep,
        config.doc_sep,
        prefix,
        longest,
    )
    tokenizer = _tokenizer(name, "generator_tokenizer", generator.config.vocab_size)
    reader = SeqReader(generator, tokenizer, name, layout, opening=())
    tried(name, lambda: first_logits(reader))
    return reader


def _model(name: str) -> Any:
    from transformers import RagSequenceForGeneration  # RAG-Token's tensors have the same names

    return whole_model(RagSequenceForGeneration, name, "RAG")


def _tokenizer(name: str, part: str, rows: int) -> Any:
    if Path(name).is_dir() and not (Path(name) / part).is_dir():
        raise InputError(f"{name} has no {part}; save the tokenizer there")
    return read_tokenizer(name, name, rows, subfolder=part)

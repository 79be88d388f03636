"""Loads readers and language models: the bundled ones, and any that `transformers` can read.

A checkpoint's configuration tells whether it is an encoder-decoder or a decoder-only model. Its
files are checked before they are used (`ragbook.models.inspection`): no code from them is executed,
nothing is unpickled, and missing or unknown tensors are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor

from ragbook.errors import InputError
from ragbook.models.adapters import PROMPT, own_adapter
from ragbook.models.bundled import (
    BUNDLED,
    REPEATED,
    WEIGHTS,
    fill,
    lists,
    manifest,
    reader_model,
    span_scorer,
    tensors,
    weights_folder,
)
from ragbook.models.cached import check_left_to_right, check_reader
from ragbook.models.causal import BUDGET, CausalReader
from ragbook.models.changes import apply, are_changes, changed_names
from ragbook.models.changes import part as own_part
from ragbook.models.checkpoints.fid import is_fid, load_fid
from ragbook.models.checkpoints.rag import load_rag_reader
from ragbook.models.devices import place
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.encoder import Encoder, load_encoder
from ragbook.models.filling import below
from ragbook.models.inspection import CAUSAL, RAG, GeneratorFiles, inspect_generator, loaded
from ragbook.models.lm import LanguageModel, new_lm_model
from ragbook.models.model_files import a_few, refusing
from ragbook.models.pairs import PairEncoder
from ragbook.models.prompts import pair
from ragbook.models.seq2seq import SeqReader
from ragbook.models.sharing import one_at_a_time
from ragbook.models.span import SpanReader
from ragbook.models.templates import (
    TEMPLATES,
    Demonstration,
    Template,
    TemplateLayout,
    load_template,
)
from ragbook.models.unfilled import unfilled

T5_LIKE = ("t5", "mt5", "umt5", "longt5", "t5gemma")
"""Encoder-decoders that were trained to answer questions from `question: ... context: ...`."""


@overload
def load_reader(
    name: Literal["bundled"] = "bundled",
    method: str | None = None,
    *,
    prompt: Template | None = None,
    demonstrations: Sequence[Demonstration] = (),
    device: str = "cpu",
    precision: str = "float32",
    memory: int = BUDGET,
) -> SeqReader: ...


@overload
def load_reader(
    name: str,
    method: str | None = None,
    *,
    prompt: Template | None = None,
    demonstrations: Sequence[Demonstration] = (),
    device: str = "cpu",
    precision: str = "float32",
    memory: int = BUDGET,
) -> Any: ...


def load_reader(
    name: str = BUNDLED,
    method: str | None = None,
    *,
    prompt: Template | None = None,
    demonstrations: Sequence[Demonstration] = (),
    device: str = "cpu",
    precision: str = "float32",
    memory: int = BUDGET,
) -> Any:
    """A generator, a `SeqReader` or a `CausalReader`: the reader without passages, in-context
    retrieval, RAG and FiD.

    Calls with the same arguments return the same object, which is loaded once.

    Parameters
    ----------
    name: the bundled reader, a folder that `ragbook train reader` wrote, or any seq2seq or causal
        model that `transformers` loads from a path or the hub. This includes the generator of a RAG
        checkpoint and, from a folder, an original FiD checkpoint
        (`ragbook.models.checkpoints.fid`).
    method: load the reader as tuned to this method's objective, if there is such a version. Beside
        an adapter that is a folder of this name within the adapter's.
        Versions that leave the encoder as it is share it, and pairs that one of them has encoded
        are not encoded again by the others.
    prompt: the template of prompts, by default one that fits the model; see
        `ragbook.models.templates`.
    demonstrations: answered questions in every prompt.
    device, precision: see `ragbook.models.devices`.
    memory: bytes of passages' keys and values that a causal model keeps between calls.

    Raises
    ------
    InputError: there is no such model, it is of a kind that cannot be a reader, its weights are
        missing or damaged, or it was trained on a prompt of its own and another was given.
    """
    return _reader(name, method, prompt, tuple(demonstrations), device, precision, memory)


OWN_PROMPT = ("trained", "fid", RAG)
"""The kinds of `look_up` whose prompt is the one that they were trained on."""


def look_up(name: str, causal: bool = False) -> str:
    """What kind of reader a name means: `trained` by this package, `fid`, `rag`, `seq2seq` or
    `causal`. Its files are looked through, and no weights are loaded.

    Parameters
    ----------
    causal: it must be a language model: bundled, trained by `ragbook train lm`, or causal.

    Raises
    ------
    InputError: there is no such reader, or it cannot be one.
    """
    folder = weights_folder(name)
    if folder is not None:
        manifest(folder)
        return "trained"
    found = "fid" if is_fid(name) else inspect_generator(name).kind
    if causal and found != CAUSAL:
        raise InputError(
            f"{name} is not a decoder-only model, which kNN-LM needs; name one with --lm"
        )
    return found


@one_at_a_time
@cache
def _reader(
    name: str,
    method: str | None,
    prompt: Template | None,
    demonstrations: tuple[Demonstration, ...],
    device: str,
    precision: str,
    memory: int,
) -> SeqReader | CausalReader:
    folder = weights_folder(name)
    how = (prompt, demonstrations, device, precision, memory)
    if method is not None:
        if folder is None:
            return _reader(own_adapter(name, method) or name, None, *how)
        shared = _reader(name, None, *how)
        if not lists(f"{method}.safetensors", folder):
            return shared
        own = tensors(f"{method}.safetensors", folder)
        _check_parts(method, folder, own)
        new = are_changes(own)  # else whole tensors of the decoder, as `ragbook train rag` writes
        moved = changed_names(own) if new else {f"decoder.{tensor}" for tensor in own}
        parameters = shared.model.named_parameters()
        kept = {id(p): p for name, p in parameters if name not in moved}
        model = deepcopy(shared.model, kept)  # copies nothing but what changes
        if new:
            apply(model.get_encoder(), own_part(own, "encoder"))
            apply(model.decoder, own_part(own, "decoder"))
        else:
            fill(model.decoder, own)
        reader = SeqReader(model, shared.tokenizer, name)
        _share(reader, shared.pairs, own)  # type: ignore[union-attr]  # it is a SeqReader
        return reader
    trained = folder is not None or is_fid(name)
    kind = None if trained else inspect_generator(name).kind
    if (trained or kind == RAG) and (prompt is not None or demonstrations):
        raise InputError(
            f"{name} was trained on a prompt of its own; leave --prompt and --demonstrations out"
        )
    if folder is not None:
        with unfilled():
            model = reader_model(folder)
        made: Any = SeqReader(model, minilm_tokenizer(), name)
    elif trained:
        made = load_fid(name)
    elif kind == RAG:
        made = load_rag_reader(name)
    else:
        return _any_reader(name, *how)
    place(made.model, device, precision)
    return made


def _any_reader(
    name: str,
    prompt: Template | None,
    demonstrations: tuple[Demonstration, ...],
    device: str,
    precision: str,
    memory: int,
) -> SeqReader | CausalReader:
    found = inspect_generator(name)
    model, tokenizer = loaded(found)
    if prompt is None and found.adapter is not None and (found.adapter / PROMPT).is_file():
        prompt = load_template(str(found.adapter / PROMPT))
    place(model, device, precision)  # first, for a causal reader computes as soon as it is made
    with refusing(lambda said: _NOT_COMPUTED.format(name, said)):
        return _tried(found, model, tokenizer, prompt, demonstrations, memory)


_NOT_COMPUTED = "{} loads, but it computes nothing ({}); download it again or name another"


def _tried(
    found: GeneratorFiles,
    model: Any,
    tokenizer: Any,
    prompt: Template | None,
    demonstrations: tuple[Demonstration, ...],
    memory: int,
) -> SeqReader | CausalReader:
    """A loaded model as a reader that has been tried once."""
    name = found.name
    if found.kind == CAUSAL:
        reader = CausalReader(model, tokenizer, name, prompt, demonstrations, memory)
        check_left_to_right(name, lambda ids: reader.forward(ids)[1])
        reader.check()
        return reader
    if prompt is None and model.config.model_type in T5_LIKE:
        prompt = TEMPLATES["t5"]
    if prompt is None and demonstrations:
        prompt = TEMPLATES["base"]
    layout = pair if prompt is None else TemplateLayout(prompt, demonstrations)
    reader = SeqReader(model, tokenizer, name, layout)
    check_reader(reader)
    return reader


PARTS = ("encoder", "decoder", "scorer", "query", "lm")
"""What a method's own training may change."""


def _check_parts(method: str, folder: Path, own: dict[str, Tensor]) -> None:
    """Refuse changes of parts that no reader has, which would otherwise be left out in silence."""
    if not are_changes(own):
        return
    odd = sorted(name for name in own if name.split(".")[0] not in PARTS)
    if odd:
        raise InputError(
            f"{folder / method}.safetensors changes what no reader has: {a_few(odd)}; restore it "
            "or train the readers again"
        )


def load_joint() -> tuple[SeqReader, Encoder]:
    """RAG-Sequence's reader and question tower as `ragbook train rag` trained them together; the
    encoder can search every index that was built with the embedded one."""
    return load_reader(method="rag-joint"), load_encoder(str(WEIGHTS))


def load_span_reader(
    name: str = BUNDLED,
    method: str | None = None,
    *,
    device: str = "cpu",
    precision: str = "float32",
) -> SpanReader:
    """REALM's span reader. It shares its encoder with the seq2seq reader, and pairs that one of the
    two has encoded are not encoded again by the other. The arguments are as in `load_reader`.

    Raises
    ------
    InputError: the name is neither `bundled` nor a folder that `ragbook train reader` wrote, or
        weights are missing or damaged.
    """
    return _span_reader(name, method, device, precision)


@one_at_a_time
@cache
def _span_reader(name: str, method: str | None, device: str, precision: str) -> SpanReader:
    folder = weights_folder(name)
    if folder is None:
        raise InputError(f"{name} holds no weights.json; name a folder `ragbook train` wrote")
    reader = load_reader(name, device=device, precision=precision)
    encoder = reader.model.get_encoder()
    scorer = span_scorer(encoder.config.hidden_size, folder)
    own: dict[str, Tensor] = {}
    if method is not None and lists(f"{method}.safetensors", folder):
        own = tensors(f"{method}.safetensors", folder)
        _check_parts(method, folder, own)
        if are_changes(own):
            apply(scorer, own_part(own, "scorer"))
        else:
            fill(scorer, own)
        if changed := own_part(own, "encoder"):
            encoder = deepcopy(encoder)
            apply(encoder, changed)
    place(scorer, device)  # its input states are float32 in every precision
    span_reader = SpanReader(encoder, scorer, reader.tokenizer, name)
    _share(span_reader, reader.pairs, own)
    return span_reader


def _share(reader: SeqReader | SpanReader, shared: PairEncoder, own: dict[str, Tensor]) -> None:
    """Let a method's reader use the states of the shared reader's pairs: all of them, or those
    below the lowest layer that its own training changed."""
    moved = changed_names(own_part(own, "encoder")) if are_changes(own) else set()
    layers = [re.match(r"encoder\.layer\.(\d+)\.", name) for name in moved]
    if not moved:
        reader.pairs = shared
    elif all(layers):
        reader.pairs.begin_with(shared, min(int(layer[1]) for layer in layers if layer))


@one_at_a_time
@cache
def load_question_tower(name: str, method: str) -> Encoder | None:
    """The embedded encoder with the question tower that was trained with a method's reader, which
    searches every index that the embedded encoder built; None if none was trained.

    The arguments are as in `load_reader`.
    """
    folder = weights_folder(name)
    if folder is None or not lists(f"{method}.safetensors", folder):
        return None
    changed = own_part(tensors(f"{method}.safetensors", folder), "query")
    if not changed:
        return None
    return _with_query(_embedded(), changed)


@cache
def _embedded() -> Encoder:
    """The embedded encoder, whose tensors question towers share; it is never trained."""
    with unfilled():
        return load_encoder()


def _with_query(encoder: Encoder, changed: dict[str, Tensor]) -> Encoder:
    """An encoder whose query tower has these changes, and shares all other tensors."""
    moved = changed_names(changed)
    kept = {id(p): p for name, p in encoder.query_model.named_parameters() if name not in moved}
    tower = deepcopy(encoder.query_model, kept)
    apply(tower, changed)
    return encoder.changed(query_model=tower)


def load_language_model(
    name: str = BUNDLED, *, device: str = "cpu", precision: str = "float32"
) -> LanguageModel:
    """A language model that reads plain text, for perplexity and datastores: the bundled one, a
    folder with `weights.json` and `lm.safetensors` that `ragbook train lm` wrote, or any causal
    model that `transformers` loads from a path or the hub.

    Raises
    ------
    InputError: there is no such model, it is not causal, or weights are missing or damaged.
    """
    return _language_model(name, device, precision)


def load_adapted_language_model(
    name: str = BUNDLED, *, device: str = "cpu", precision: str = "float32"
) -> LanguageModel | None:
    """The bundled language model with what kNN-LM's own training changed in it, as a folder of
    readers has it (`ragbook.training.reader.memory`); None if the folder has no such file.

    The arguments are as in `load_reader`.

    Raises
    ------
    InputError: weights are missing or damaged, or do not fit the model.
    """
    return _adapted_language_model(name, device, precision)


@one_at_a_time
@cache
def _adapted_language_model(name: str, device: str, precision: str) -> LanguageModel | None:
    folder = weights_folder(name)
    if folder is None or not lists(f"{ADAPTED}.safetensors", folder):
        return None
    changed = tensors(f"{ADAPTED}.safetensors", folder)
    _check_parts(ADAPTED, folder, changed)
    model = _bundled_lm(WEIGHTS)
    apply(model, own_part(changed, "lm"))
    place(model, device, precision)
    return LanguageModel(model, minilm_tokenizer(), BUNDLED)


ADAPTED = "knn-lm"
"""The file with the changes of kNN-LM's own training, without its ending."""


def _bundled_lm(folder: Path) -> Any:
    """The language model of the kind that `ragbook train lm` trains, with a folder's tensors."""
    with unfilled():
        model = new_lm_model()
    stored = tensors("lm.safetensors", folder)
    fill(model, stored, f"{below(stored, 'bert.')}|{REPEATED}")
    return model


@one_at_a_time
@cache
def _language_model(name: str, device: str, precision: str) -> LanguageModel:
    folder = weights_folder(name)
    if folder is None or (name != BUNDLED and not lists("lm.safetensors", folder)):
        found = inspect_generator(name)
        if found.kind != CAUSAL:
            raise InputError(
                f"{name} is an encoder-decoder ({found.architecture}), which can be a --reader and "
                "not an --lm; name a decoder-only model such as GPT-2 or Llama"
            )
        model, tokenizer = loaded(found)
        with refusing(lambda said: _NOT_COMPUTED.format(name, said)):
            lm = LanguageModel(model, tokenizer, name, checked=False)
            check_left_to_right(name, lambda ids: lm.forward(ids)[1])
    else:
        model = _bundled_lm(folder)
        lm = LanguageModel(model, minilm_tokenizer(), name)
    place(lm.model, device, precision)
    return lm

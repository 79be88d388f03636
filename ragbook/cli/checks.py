"""What a command's options name and ask for, looked through before any work starts.

A name that means nothing, and an option that nothing in the command follows, are refused at once:
not after a corpus was read or an index built.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ragbook.cli.parts import CONVENTIONS
from ragbook.cli.printing import say
from ragbook.errors import InputError

READS = ("in-context", "rag-sequence", "rag-token", "fid")
"""The methods that read passages with the reader and write their answers."""
WRITES = ("closed-book", "knn-lm", *READS)
"""The methods whose answers come from a beam search."""
FOLLOWED = {
    "lm": ("knn-lm",),
    "lam": ("knn-lm",),
    "temperature": ("knn-lm",),
    "free": ("knn-lm", *READS),
    "beams": WRITES,
    "max_length": WRITES,
    "length_penalty": WRITES,
    "prompt": WRITES,
    "same_weights": ("realm", "rag-sequence", "rag-token", "fid"),
}
"""The methods that follow each option of `compare` and `ask`."""
_OPTIONS = {"lam": "--lambda", "run_file": "--run"}


def check_reading(
    arguments: argparse.Namespace, names: Sequence[str], given: Sequence[str]
) -> None:
    """Look through what `compare` and `ask` say of models and methods.

    Parameters
    ----------
    names: the methods.
    given: the names of the arguments that differ from their defaults.

    Raises
    ------
    InputError: a model, prompt or file is not there or cannot be what it is named as, or an option
        would be ignored.
    """
    for key in (key for key in given if key in FOLLOWED):
        if not any(":" in name or name in FOLLOWED[key] for name in names):
            raise InputError(
                f"{_option(key)} is not followed by {' or '.join(names)}; leave it out, or add one "
                f"of {', '.join(FOLLOWED[key])} to the methods."
            )
    own = [name for name in names if ":" in name]
    ignored = [_option(key) for key in given if key in FOLLOWED or key == "reader"]
    if own and ignored:
        say(f"{', '.join(own)} is given the retriever alone, and not {', '.join(ignored)}")
    check_retriever(arguments, given)
    _check_prompt(arguments, names)
    _check_models(arguments, names, given)


def check_retriever(arguments: argparse.Namespace, given: Sequence[str]) -> None:
    """Look through the encoder that is named, and refuse what the retriever would not use."""
    ignored = [key for key in given if key in ("encoder", *CONVENTIONS)]
    named = "--run" if arguments.run_file is not None else _without_encoder(arguments.retriever)
    if named is not None and ignored:
        raise InputError(
            f"{named} has no encoder, so {_option(ignored[0])} would be ignored; leave it "
            "out or choose another retriever."
        )
    if arguments.run_file is None and arguments.score_scale is not None:
        raise InputError("--score-scale is that of --run; name a run file, or leave it out.")
    if arguments.reranker is None and "rerank" in given:
        raise InputError("--rerank is that of --reranker; name a cross-encoder, or leave it out.")
    if arguments.reranker is not None:
        from ragbook.models.cross_encoder import inspect_cross_encoder

        if arguments.score_scale is not None:
            raise InputError(
                "--reranker gives passages scores of its own, so --score-scale would be ignored; "
                "leave it out."
            )
        if arguments.k > arguments.rerank:
            raise InputError(
                f"--rerank {arguments.rerank} reads fewer passages than --k {arguments.k} asks "
                "for; rerank at least as many."
            )
        inspect_cross_encoder(arguments.reranker)
    if named is None and (arguments.encoder or arguments.query_encoder):
        from ragbook.models.encoder import look_up_encoder

        name = arguments.encoder or "minilm"
        look_up_encoder(name, arguments.pooling, arguments.query_encoder)


def _without_encoder(retriever: str | list[str]) -> str | None:
    """How the retrievers are named if none of them has an encoder."""
    return "--retriever bm25" if retriever in ("bm25", ["bm25"]) else None


def _check_prompt(arguments: argparse.Namespace, names: Sequence[str]) -> None:
    template = None
    if arguments.prompt is not None:
        from ragbook.models.templates import load_template

        template = load_template(arguments.prompt)
    if arguments.demonstrations is None:
        return
    if template is None or not template.demonstrations:
        raise InputError(
            "--demonstrations needs a --prompt that shows some; name one, or leave it out."
        )
    from ragbook.corpus import load_questions, miniwiki

    source = arguments.demonstrations
    load_questions(source, "train" if source in miniwiki.NAMES else None)  # or its refusal


def _check_models(
    arguments: argparse.Namespace, names: Sequence[str], given: Sequence[str]
) -> None:
    from ragbook.index.factories import parse_bytes
    from ragbook.models import devices
    from ragbook.models.inspection import CAUSAL
    from ragbook.models.loading import OWN_PROMPT, look_up

    parse_bytes(arguments.memory)
    devices.choose_precision(arguments.precision, devices.choose_device(arguments.device))
    kind = look_up(arguments.reader)
    lm = None if arguments.lm is None else look_up(arguments.lm, causal=True)
    asked = {*READS, "closed-book"} & set(names)
    if arguments.prompt is not None and asked and kind in OWN_PROMPT:
        raise InputError(
            f"{arguments.reader} was trained on a prompt of its own; leave --prompt and "
            "--demonstrations out"
        )
    if lm is not None and "reader" in given and set(names) == {"knn-lm"}:
        raise InputError(
            "knn-lm alone reads with the model of --lm, so --reader would be ignored; leave one "
            "out."
        )
    if lm is None and "knn-lm" in names and kind not in ("trained", CAUSAL):
        say(
            f"knn-lm uses the bundled language model, as {arguments.reader} is none; name another "
            "with --lm"
        )
    if "memory" in given and CAUSAL not in (kind, lm):
        raise InputError(
            "--memory is that of a causal model, and neither --reader nor --lm names one; leave it "
            "out."
        )


def _option(key: str) -> str:
    return _OPTIONS.get(key, f"--{key.replace('_', '-')}")


def given_options(arguments: argparse.Namespace) -> list[str]:
    """The names of the arguments that differ from their command's defaults, sorted."""
    default = arguments.parser.get_default
    values = {key: value for key, value in vars(arguments).items() if key != "command"}
    return sorted(key for key, value in values.items() if value != default(key))

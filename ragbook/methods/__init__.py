"""One module a method, one interface for all: see `base`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ragbook.errors import InputError

if TYPE_CHECKING:
    from ragbook.methods.base import Answer, Evidence, Method, TokenEvidence, posterior
    from ragbook.models import LanguageModel
    from ragbook.models.generator import Generator
    from ragbook.retrieval import Retriever

NAMES = (
    "closed-book",
    "in-context",
    "knn-lm",
    "realm",
    "rag-sequence",
    "rag-token",
    "fid",
)
"""The methods of the book, in the order of every table. A method of your own is named by the place
of its code, `module:attribute`, wherever a name is expected; see :func:`load`."""

TUNED_WIDTH = 384
"""Width of the keys for which kNN-LM's bundled temperature was tuned."""

__all__ = [
    "NAMES",
    "Answer",
    "Evidence",
    "Method",
    "TokenEvidence",
    "left_out",
    "load",
    "posterior",
]


def __getattr__(name: str) -> object:
    if name in ("Answer", "Evidence", "Method", "TokenEvidence", "posterior"):
        from ragbook.methods import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_names(names: Sequence[str]) -> None:
    """Raise InputError for a name that belongs to no method, and for an empty list."""
    unknown = [name for name in names if name not in NAMES and ":" not in name]
    if unknown or not names:
        what = f"there is no method {unknown[0]!r}" if unknown else "no method is named"
        raise InputError(f"{what}; choose from {', '.join(NAMES)}, or name your own, module:Class")
    for name in names:
        if ":" in name:
            _own(name)


def load(
    names: Sequence[str],
    retriever: Retriever,
    verbatim: bool = False,
    reader: str | Generator[Any] = "bundled",
    *,
    lm: str | LanguageModel | None = None,
    beams: int = 2,
    max_length: int = 16,
    length_penalty: float | None = None,
    lam: float | None = None,
    temperature: float | None = None,
    shared: bool = False,
    **how: Any,
) -> list[Method]:
    """The named methods, all over one retriever, in the order of `NAMES`.

    A name `module:attribute` is a method of your own: the attribute, a class or a function, is
    called with the retriever and returns a `Method`. These come last, in the order named.

    Parameters
    ----------
    verbatim: every generative method's answers are runs of words of the retrieved passages, as
        REALM's are; see `ragbook.methods.decoding.Verbatim`. By default they write freely, as the
        methods' classes do; the command line only lets them with `--free`.
    reader: `bundled`, a folder that `ragbook train reader` wrote, a seq2seq or causal model of
        `transformers` by path or hub name, or a generator that is loaded already.
    lm: kNN-LM's language model, by name or loaded; by default the reader if it is causal, else the
        bundled one, as kNN-LM's own training changed it.
    beams, max_length, length_penalty: of the beam search of every generative method; see
        `ragbook.methods.decoding.beam_search`. The penalty is by default the one that was chosen
        for the method on dev questions, where the reader's folder has one, and else 0.
    lam, temperature: kNN-LM's; by default those that were tuned for the bundled language model on
        dev questions, with the changes of kNN-LM's own training or without. The temperature is then
        scaled by the width of the model's keys, as their squared distances grow with it.
    shared: every method uses the one shared reader and the given retriever as they are, so that
        methods differ only in how they use the evidence. Otherwise a method whose own training
        changed the reader, or the question tower of dense retrieval, uses what it trained.
    how: prompt, demonstrations, device, precision and memory, as in `ragbook.models.load_reader`.

    Raises
    ------
    InputError: a name is unknown, weights are missing or damaged, or the reader cannot serve one of
        the methods; see `left_out`.
    """
    check_names(names)
    from ragbook import models
    from ragbook.methods import closed_book, fid, in_context, knn_lm, rag, realm
    from ragbook.retrieval import DenseRetriever

    for name, reason in left_out(reader).items():
        if name in names:
            raise InputError(f"{name} cannot use {_called(reader)}: {reason}")
    chosen = models.length_penalties(reader, shared) if isinstance(reader, str) else {}

    def search(method: str) -> dict[str, Any]:
        penalty = chosen.get(method, 0.0) if length_penalty is None else length_penalty
        return {"beams": beams, "max_length": max_length, "length_penalty": penalty}

    def held(method: str) -> dict[str, Any]:
        return {"verbatim": verbatim, **search(method)}

    where = {key: how[key] for key in ("device", "precision") if key in how}

    def generator(method: str | None = None) -> Any:
        own = None if shared else method
        return models.load_reader(reader, own, **how) if isinstance(reader, str) else reader

    def searched(method: str) -> Retriever:
        """The retriever, or for dense retrieval with the embedded encoder the same index searched
        with the question tower that the method trained."""
        if shared or not (isinstance(reader, str) and isinstance(retriever, DenseRetriever)):
            return retriever
        tower, given = models.load_question_tower(reader, method), retriever.encoder
        if tower is None or {given.sha256, given.query_sha256} != {tower.sha256}:
            return retriever
        return DenseRetriever(retriever.index, tower)

    adapted: LanguageModel | None = None
    if "knn-lm" in names and lm is None and isinstance(reader, str) and not shared:
        adapted = models.load_adapted_language_model(reader, **where)

    make: dict[str, Callable[[], Any]] = {
        "closed-book": lambda: closed_book.ClosedBook(generator(), **search("closed-book")),
        "in-context": lambda: in_context.InContext(
            generator("in-context"), retriever, **held("in-context")
        ),
        "knn-lm": lambda: knn_lm.KnnLM(
            base := adapted or _language_model(reader, lm, how),
            retriever,
            *_interpolation(
                base,
                lam,
                temperature,
                models.tuned_for_answers(
                    reader if isinstance(reader, str) else "", adapted is not None
                ),
            ),
            **held("knn-lm"),
            **({"kept": how["memory"]} if "memory" in how else {}),
        ),
        "realm": lambda: realm.Realm(
            models.load_span_reader(str(reader), None if shared else "realm", **where),
            searched("realm"),
        ),
        "rag-sequence": lambda: rag.RagSequence(
            generator("rag-sequence"), searched("rag-sequence"), **held("rag-sequence")
        ),
        "rag-token": lambda: rag.RagToken(
            generator("rag-token"), searched("rag-token"), **held("rag-token")
        ),
        "fid": lambda: fid.FiD(generator("fid"), retriever, **held("fid")),
    }

    own = [_own(name)(retriever) for name in dict.fromkeys(names) if ":" in name]
    return [make[name]() for name in NAMES if name in names] + own


def _language_model(
    reader: str | Generator[Any], lm: str | LanguageModel | None, how: dict[str, Any]
) -> Any:
    """kNN-LM's base model, as `load` describes it."""
    from ragbook import models
    from ragbook.models.bundled import BUNDLED, weights_folder

    where = {key: how[key] for key in ("device", "precision") if key in how}
    if lm is not None and not isinstance(lm, str):
        return lm
    if lm is not None and weights_folder(lm) is not None:
        return models.load_language_model(lm, **where)
    if lm is not None:
        chosen = models.load_reader(lm, **how)
        if not isinstance(chosen, models.CausalReader):
            raise InputError(
                f"{lm} is not a decoder-only model, which kNN-LM needs; name one with --lm"
            )
        return chosen
    if isinstance(reader, str) and weights_folder(reader) is None:
        reader = models.load_reader(reader, **how)
    if isinstance(reader, models.CausalReader):
        return reader
    return models.load_language_model(BUNDLED, **where)


def left_out(reader: str | Generator[Any] = "bundled") -> dict[str, str]:
    """The methods that a reader cannot serve, each with the reason, as half a sentence."""
    from ragbook.models.bundled import weights_folder

    if isinstance(reader, str) and weights_folder(reader) is not None:
        return {}
    return {"realm": "it needs a span reader, which `ragbook train reader` writes"}


def _called(reader: str | Generator[Any]) -> str:
    return reader if isinstance(reader, str) else reader.name


def _interpolation(
    lm: LanguageModel, lam: float | None, temperature: float | None, chosen: dict[str, float]
) -> tuple[float, float]:
    """Lambda and temperature, each as tuned if it is not given."""
    from ragbook.models.bundled import BUNDLED

    width = 1.0 if lm.name == BUNDLED else lm.dimension / TUNED_WIDTH
    return (
        chosen["lam"] if lam is None else lam,
        chosen["temperature"] * width if temperature is None else temperature,
    )


def _own(name: str) -> Callable[[Retriever], Method]:
    """What `module:attribute` names."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"There is no method {name!r}: {error}; name a class or a function as "
            "module:attribute, in a module that Python can import."
        ) from error

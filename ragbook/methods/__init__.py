"""One module a method, one interface for all: see `base`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ragbook.errors import InputError

if TYPE_CHECKING:
    from ragbook.methods.base import Answer, Evidence, Method, posterior
    from ragbook.retrieval import Retriever

NAMES = ("closed-book", "knn-lm", "realm", "rag-sequence", "rag-token", "fid")
"""The methods of the book, in the order of every table. A method of your own is named by the place
of its code, `module:attribute`, wherever a name is expected; see :func:`load`."""

__all__ = ["NAMES", "Answer", "Evidence", "Method", "load", "posterior"]


def __getattr__(name: str) -> object:
    if name in ("Answer", "Evidence", "Method", "posterior"):
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
    names: Sequence[str], retriever: Retriever, verbatim: bool = False, reader: str = "bundled"
) -> list[Method]:
    """The named methods with the bundled readers, all over one retriever, in the order of `NAMES`.

    A name `module:attribute` is a method of your own: the attribute, a class or a function, is
    called with the retriever and returns a `Method`. These come last, in the order named.

    Parameters
    ----------
    verbatim: every generative method's answers are runs of words of the retrieved passages, as
        REALM's are; see `ragbook.methods.decoding.Verbatim`. By default they write freely, as the
        methods' classes do; the command line only lets them with `--free`.
    reader: folder of readers that `ragbook train reader` wrote, in place of the bundled ones.

    Raises
    ------
    InputError: a name is unknown, or bundled weights are missing or damaged.
    """
    check_names(names)
    from ragbook import models
    from ragbook.methods import closed_book, fid, knn_lm, rag, realm
    from ragbook.models.bundled import manifest

    held: dict[str, Any] = {"verbatim": verbatim}
    make: dict[str, Callable[[], Any]] = {
        "closed-book": lambda: closed_book.ClosedBook(models.load_reader(reader)),
        "knn-lm": lambda: knn_lm.KnnLM(
            models.load_language_model(), retriever, **manifest()["knn_lm"], **held
        ),
        "realm": lambda: realm.Realm(models.load_span_reader(reader, "realm"), retriever),
        "rag-sequence": lambda: rag.RagSequence(
            models.load_reader(reader, "rag-sequence"), retriever, **held
        ),
        "rag-token": lambda: rag.RagToken(
            models.load_reader(reader, "rag-token"), retriever, **held
        ),
        "fid": lambda: fid.FiD(models.load_reader(reader, "fid"), retriever, **held),
    }
    own = [_own(name)(retriever) for name in dict.fromkeys(names) if ":" in name]
    return [make[name]() for name in NAMES if name in names] + own


def _own(name: str) -> Callable[[Retriever], Method]:
    """What `module:attribute` names."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"There is no method {name!r}: {error}; name a class or a function as "
            "module:attribute, in a module that Python finds from here."
        ) from error

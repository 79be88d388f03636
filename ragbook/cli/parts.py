"""The parts that a command's options name: methods, passages, a retriever, an encoder, a text."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ragbook.errors import InputError

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.index import PassageIndex
    from ragbook.index.passages import StoredPassages
    from ragbook.models import Encoder, LanguageModel
    from ragbook.retrieval import Retriever


def method_names(wanted: Sequence[str] | None) -> list[str]:
    """The methods asked for, all of them by default; InputError for an unknown name."""
    from ragbook.methods import NAMES, check_names

    names = list(wanted or NAMES)
    check_names(names)
    return names


def open_passages(arguments: argparse.Namespace) -> tuple[Corpus, PassageIndex | None]:
    """The corpus that --corpus or --index names (MiniWiki by default), and the index of --index."""
    from ragbook.corpus import load_corpus

    if arguments.index is None:
        return load_corpus(arguments.corpus or "miniwiki"), None
    from ragbook.index import PassageIndex

    index = PassageIndex.open(arguments.index)
    if arguments.corpus is not None:
        corpus = load_corpus(arguments.corpus)
        if corpus.sha256 != index.corpus.sha256:
            raise InputError(
                f"The index {arguments.index} holds {len(index):,} passages of "
                f"{index.corpus.name!r}, not the {len(corpus):,} of {corpus.name!r} that --corpus "
                "names; leave --corpus out or build an index of it."
            )
    return index.corpus, index  # type: ignore[return-value]  # stored passages serve as a corpus


@contextmanager
def stored_corpus(name_or_path: str, out: Path) -> Iterator[Corpus | StoredPassages]:
    """The corpus from which the index `out` is built. A file is read as a stream and kept in a
    hidden folder beside `out` until the index exists, so that all of Wikipedia need not fit into
    memory."""
    from ragbook.corpus import load_corpus, miniwiki, read_passages
    from ragbook.corpus.files import bare_name

    path = Path(name_or_path)
    if name_or_path in miniwiki.NAMES or not os.path.isfile(path):
        yield load_corpus(name_or_path)  # raises InputError for an unknown name
        return
    from ragbook.index.passages import spool

    status = path.stat()
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    out = Path(os.path.abspath(out))
    folder = out.with_name(f".{out.name}.passages")
    yield spool(folder, bare_name(path), identity, read_passages(path))
    shutil.rmtree(folder)


def make_retriever(
    arguments: argparse.Namespace, corpus: Corpus, index: PassageIndex | None
) -> tuple[Retriever, PassageIndex | None]:
    """The retriever of --retriever, and the index it searches, built and kept if needed."""
    if arguments.retriever == "bm25":
        from ragbook.retrieval import BM25Retriever

        return BM25Retriever(corpus), index
    from ragbook.retrieval import DenseRetriever, HybridRetriever, OracleRetriever

    built_with = "minilm" if index is None else index.manifest["encoder"]["id"]
    encoder = load_encoder(arguments.encoder or built_with)
    if index is None:
        from ragbook.index import build_index

        name = f"index-{corpus.sha256[:16]}-{encoder.sha256[:16]}"
        # The cache holds nothing that cannot be built again, so a damaged index is replaced.
        index = build_index(corpus, cache_folder() / name, encoder, overwrite=True)
    dense = DenseRetriever(index, encoder)
    if arguments.retriever == "hybrid":
        from ragbook.retrieval import BM25Retriever

        return HybridRetriever(dense, BM25Retriever(corpus)), index
    if arguments.retriever == "oracle":
        return OracleRetriever(corpus, dense), index
    return dense, index


def load_encoder(name: str) -> Encoder:
    """`ragbook.models.load_encoder`, whose imports take long and wait until they are needed."""
    from ragbook.models import load_encoder

    return load_encoder(name)


def load_language_model(name: str, device: str) -> LanguageModel:
    """`ragbook.models.load_language_model` on a device; InputError if there is no such device."""
    from ragbook.models import load_language_model

    lm = load_language_model(name)
    try:
        lm.model.to(device)
    except (RuntimeError, AssertionError):  # torch raises these without CUDA
        raise InputError(f"There is no device {device!r} here; leave --device out.") from None
    return lm


def cache_folder() -> Path:
    """The folder for indexes built without a path: RAGBOOK_CACHE, or ~/.cache/ragbook."""
    return Path(os.environ.get("RAGBOOK_CACHE") or Path.home() / ".cache" / "ragbook")


def read_text(path: Path) -> str:
    """A text file's content; InputError if it is missing, empty or not UTF-8."""
    from ragbook.corpus.files import read_lines

    text = "".join(read_lines(path))
    if not text.strip():
        raise InputError(f"{path} has no text; give a file with some.")
    return text

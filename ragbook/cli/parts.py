"""The parts that a command's options name: methods, passages, a retriever, an encoder, a text."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
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
    """The methods asked for, all of them by default; InputError for a name that is none."""
    from ragbook.methods import NAMES, check_names

    names = list(wanted or NAMES)
    check_names(names)
    return names


def open_passages(arguments: argparse.Namespace) -> tuple[Corpus, PassageIndex | None]:
    """The corpus that --corpus and --index name (MiniWiki by default), and --index opened."""
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
    return index.corpus, index  # type: ignore[return-value]  # stored passages stand for a corpus


@contextmanager
def stored_corpus(name_or_path: str, out: Path) -> Iterator[Corpus | StoredPassages]:
    """The corpus to build the index `out` of. A file is read as a stream and kept in a hidden
    folder beside `out` until the index is there: all of Wikipedia need not fit into memory."""
    from ragbook.corpus import load_corpus, miniwiki, read_passages
    from ragbook.corpus.files import bare_name

    path = Path(name_or_path)
    if name_or_path in miniwiki.NAMES or not os.path.isfile(path):
        yield load_corpus(name_or_path)  # or its refusal
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
    """The retriever of --retriever, and the index it searches (built once and kept, if need be)."""
    if arguments.retriever == "bm25":
        from ragbook.retrieval import BM25Retriever

        return BM25Retriever(corpus), index
    from ragbook.retrieval import DenseRetriever, HybridRetriever, OracleRetriever

    encoder = load_encoder(arguments, index)
    if index is None:
        from ragbook.index import build_index
        from ragbook.index.index import encoder_record
        from ragbook.index.manifest import short_name

        name = f"index-{corpus.sha256[:16]}-{short_name(encoder_record(encoder))}"
        # In the cache nothing is anybody's work: a damaged index there is simply replaced.
        index = build_index(corpus, cache_folder() / name, encoder, overwrite=True)
    dense = DenseRetriever(index, encoder)
    if arguments.retriever == "hybrid":
        from ragbook.retrieval import BM25Retriever

        return HybridRetriever(dense, BM25Retriever(corpus)), index
    if arguments.retriever == "oracle":
        return OracleRetriever(corpus, dense), index
    return dense, index


CONVENTIONS = ("pooling", "query_encoder", "similarity", "query_prompt", "passage_prompt")
"""What may be said of an encoder beside its name."""


def load_encoder(arguments: argparse.Namespace, index: PassageIndex | None = None) -> Encoder:
    """The encoder of --encoder and the options beside it; by default the one that built the index,
    used as it was then, or `minilm`."""
    from ragbook.models import load_encoder

    how = {key: getattr(arguments, key) for key in CONVENTIONS}
    name = arguments.encoder
    if name is None and index is not None:
        built = index.manifest["encoder"]
        name = built["id"]
        prompts = {f"{role}_prompt": text for role, text in built.get("prompts", {}).items()}
        for key, value in ({key: built.get(key) for key in CONVENTIONS} | prompts).items():
            how[key] = value if how[key] is None else how[key]
    given = {key: value for key, value in how.items() if value is not None}
    return load_encoder(name or "minilm", **given)


def load_language_model(arguments: argparse.Namespace) -> LanguageModel:
    """The model of --lm, where --device says and in the precision of --precision; its hash is that
    of its own weights."""
    device, precision = device_and_precision(arguments)  # refuse a wrong one before it is loaded
    from ragbook.models import load_language_model
    from ragbook.models.devices import placed_copy

    lm = load_language_model(arguments.lm)
    if (device, precision) == ("cpu", "float32"):  # where and how it was loaded
        return lm
    _ = lm.sha256  # taken now: rounded weights would have another
    return placed_copy(lm, [lm.model], device, precision)


def device_and_precision(arguments: argparse.Namespace) -> tuple[str, str]:
    """The names of the device and the number format that --device and --precision choose. If the
    device is slow at a format that was asked for by name, standard error says so.

    Raises
    ------
    InputError: there is no such device here.
    """
    from ragbook.models import devices

    device = devices.choose_device(arguments.device)
    dtype = devices.choose_precision(arguments.precision, device)
    if (told := devices.warning(dtype, device)) is not None:
        print(f"ragbook: {told}", file=sys.stderr)
    return str(device), devices.name_of(dtype)


def cache_folder() -> Path:
    """Where indexes that nobody gave a place are kept: RAGBOOK_CACHE, or ~/.cache/ragbook."""
    return Path(os.environ.get("RAGBOOK_CACHE") or Path.home() / ".cache" / "ragbook")


def read_text(path: Path) -> str:
    """A text file's content; InputError if it is missing, empty or not UTF-8."""
    from ragbook.corpus.files import read_lines

    text = "".join(read_lines(path))
    if not text.strip():
        raise InputError(f"{path} has no text; give a file with some.")
    return text

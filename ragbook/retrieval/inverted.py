"""BM25's inverted lists: built by bm25s from a corpus, and kept in one file beside an index.

The file is safetensors: the lists as bm25s has them, the vocabulary, and in its metadata what they
were built from and a SHA-256 of it all. A file of other passages or versions, or one that is not as
it was written, is built again and replaced. It holds nothing that cannot be built again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import bm25s
import numpy as np
import Stemmer
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ragbook.errors import InputError
from ragbook.files import remove_unfinished, whole_file

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.index.passages import StoredPassages

K1 = 1.2  # Lucene's defaults
B = 0.75
LISTS = ("data", "indices", "indptr")
"""bm25s' names: the scores and positions of every term's passages, one term after the other, and
where each term's begin."""
VOCABULARY, SHA256 = "vocabulary", "sha256"


def terms(texts: Sequence[str]) -> list[list[str]]:
    """The terms of texts, for passages and questions in the same way.

    They are the lower-cased words, also those of one letter (Henry V is not Henry VIII), without
    English stop words, reduced to their stems by the Snowball stemmer.
    """
    return bm25s.tokenize(  # type: ignore[return-value]  # a list, as no ids are asked for
        list(texts),
        token_pattern=r"(?u)\b\w+\b",
        stopwords="en",
        stemmer=Stemmer.Stemmer("english"),
        return_ids=False,
        show_progress=len(texts) > 100_000 and sys.stderr.isatty(),
    )


def build(corpus: Corpus | StoredPassages) -> bm25s.BM25:
    """The inverted lists of a corpus's titles and texts.

    Raises
    ------
    InputError: the corpus has no words.
    """
    documents = terms([f"{passage.title} {passage.text}" for passage in corpus])
    if not any(documents):
        raise InputError(
            f"Corpus {corpus.name!r} has no words for BM25 to index; choose another retriever."
        )
    lists = _empty()
    lists.index(documents, show_progress=len(corpus) > 100_000 and sys.stderr.isatty())
    return lists


def kept(corpus: Corpus | StoredPassages, path: Path) -> bm25s.BM25:
    """The lists of a corpus from a file; they are built and written if the file does not hold them.

    While another process writes the file, or where it cannot be written, the lists are built and
    not kept. A killed process leaves no file that could be taken for a whole one.

    Raises
    ------
    InputError: the corpus has no words.
    """
    if (found := read(corpus, path)) is not None:
        return found
    # A timeout is an OSError, as are a folder that is not to be written to and a full disk.
    with suppress(OSError), FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
        if (found := read(corpus, path)) is None:  # else it was written in the meantime
            found = build(corpus)
            remove_unfinished(path.parent, path.name)
            write(found, corpus, path)
    return build(corpus) if found is None else found


def write(lists: bm25s.BM25, corpus: Corpus | StoredPassages, path: Path) -> None:
    """Write the lists of a corpus; the file is whole or not there."""
    words = sorted(lists.vocab_dict, key=lists.vocab_dict.__getitem__)
    arrays = {name: np.ascontiguousarray(lists.scores[name]) for name in LISTS}
    text = json.dumps(words, ensure_ascii=False).encode("utf-8", "surrogatepass")
    arrays[VOCABULARY] = np.frombuffer(text, np.uint8)
    said = _described(corpus)
    with whole_file(path) as unfinished:
        save_file(arrays, unfinished, said | {SHA256: _sha256(arrays, said)})


def read(corpus: Corpus | StoredPassages, path: Path) -> bm25s.BM25 | None:
    """The lists that `write` wrote of this corpus, or None if there are no such ones."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            said = dict(file.metadata() or {})
            written = said.pop(SHA256, "")
            if said != _described(corpus) or {*file.keys()} != {*LISTS, VOCABULARY}:
                return None
            arrays = {name: file.get_tensor(name) for name in (*LISTS, VOCABULARY)}
        if _sha256(arrays, said) != written:
            return None
        words = json.loads(arrays.pop(VOCABULARY).tobytes().decode("utf-8", "surrogatepass"))
    except (OSError, ValueError, SafetensorError):
        return None
    lists = _empty()
    lists.scores = {**arrays, "num_docs": len(corpus)}
    lists.vocab_dict = {word: number for number, word in enumerate(words)}
    lists.unique_token_ids_set = set(lists.vocab_dict.values())
    lists.nonoccurrence_array = None  # Lucene's formula has none
    return lists


def _empty() -> bm25s.BM25:
    return bm25s.BM25(method="lucene", k1=K1, b=B)


def _described(corpus: Corpus | StoredPassages) -> dict[str, str]:
    """What the lists depend on."""
    return {
        "kind": "ragbook bm25 1",
        "corpus": corpus.sha256,
        "settings": f"k1 {K1}, b {B}",
        "bm25s": bm25s.__version__,
        "stemmer": Stemmer.version(),
    }


def _sha256(arrays: dict[str, np.ndarray], said: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in (*LISTS, VOCABULARY):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()

